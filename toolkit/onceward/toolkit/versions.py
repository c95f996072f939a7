"""What is installed here: Onceward itself, and the drivers that its extras bring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version

_DISTRIBUTION = "onceward"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def of_package(name: str) -> str | None:
    """Which version of a package is installed; None: none is."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def of_onceward() -> str:
    """Which version of Onceward this is."""
    return of_package(_DISTRIBUTION) or "unknown"  # used from a source tree


def of_extra(extra: str) -> Mapping[str, str | None]:
    """The packages that an extra of ours asks for (``hiredis>=3.0``), and which version of each is installed."""
    try:
        wanted = [each.partition(";") for each in requires(_DISTRIBUTION) or ()]
    except PackageNotFoundError:
        return {}
    asked = [text.strip() for text, _, marker in wanted if re.search(f"extra == ['\"]{re.escape(extra)}['\"]", marker)]
    return {text: of_package(found[0]) for text in asked if (found := _NAME.match(text)) is not None}
