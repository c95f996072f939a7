"""The runner ``memory``: for tests, and for applications that are one process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from urllib.parse import SplitResult

import msgspec

from onceward.contracts.runner import Runner, RunnerType
from onceward.runners.memory.store import MemoryStore

__all__ = ["TYPE", "MemoryStore", "Options"]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the memory runner.

    Attributes:
        name: runners of this process that give the same name (and namespace) share one store; "": a private one.
    """

    name: str = ""


_shared: dict[tuple[str, str], MemoryStore] = {}
_shared_lock = threading.Lock()


def _build(options: Options, namespace: str) -> Runner:
    url = f"memory://{options.name}"
    if not options.name:
        return Runner.of(MemoryStore(namespace), namespace=namespace, url=url)
    with _shared_lock:
        store = _shared.setdefault((options.name, namespace), MemoryStore(namespace))
    return Runner.of(store, namespace=namespace, url=url)


def _from_url(url: SplitResult) -> Mapping[str, object]:
    return {"name": url.netloc + url.path} if url.netloc or url.path.strip("/") else {}


TYPE = RunnerType(name="memory", options=Options, build=_build, from_url=_from_url)
