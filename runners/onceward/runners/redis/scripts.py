"""The Lua scripts, each a file with a header; ``--@include`` puts a shared part in its place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--@include (lib/\w+\.lua)$", re.MULTILINE)


class Script:
    """A script as the server gets it, and the digest by which it is called."""

    __slots__ = ("name", "reads", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
        self.reads = "no-writes" in text.partition("\n")[0]


@cache
def scripts() -> Mapping[str, Script]:
    """Every script, by the name of its file."""
    folder = files("onceward.runners.redis") / "lua"

    def load(path: str) -> str:
        return _INCLUDE.sub(lambda found: load(found[1]), (folder / path).read_text(encoding="utf-8"))

    names = sorted(item.name.removesuffix(".lua") for item in folder.iterdir() if item.name.endswith(".lua"))
    return {name: Script(name, load(f"{name}.lua")) for name in names}
