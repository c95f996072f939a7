"""Other people's tools in the same rounds, each in the measures that it has an answer for. Imported only here."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, cast

from onceward.benchmarks.rounds import Task

Entry: TypeAlias = Callable[[Path], Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A tool that does a part of what we do.

    Attributes:
        package: what is imported, and installed from PyPI by that name.
        entries: by the measure's name, how to make its task; the path is a file of its own that does not exist yet.
        note: what a reader must know to compare fairly.
    """

    name: str
    package: str
    entries: Mapping[str, Entry]
    note: str

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


class _FileLock(Protocol):
    def acquire(self) -> object: ...
    def release(self) -> None: ...


class _HueyStorage(Protocol):
    def enqueue(self, data: bytes) -> None: ...
    def dequeue(self) -> bytes | None: ...
    def close(self) -> bool: ...


def _filelock(path: Path) -> Task:
    lock = cast(_FileLock, importlib.import_module("filelock").FileLock(path))

    def step(_: int) -> None:
        lock.acquire()
        lock.release()

    return Task(step)


def _huey(path: Path) -> _HueyStorage:
    module = importlib.import_module("huey.storage")
    return cast(_HueyStorage, module.SqliteStorage("bench", filename=str(path), fsync=True, strict_fifo=True))


def _huey_enqueue(path: Path) -> Task:
    storage = _huey(path)
    return Task(lambda index: storage.enqueue(b"run %d" % index), close=storage.close)


def _huey_dequeue(path: Path) -> Task:
    storage = _huey(path)
    names = itertools.count()

    def prepare(indexes: range) -> None:
        for _ in indexes:
            storage.enqueue(b"run %d" % next(names))

    def step(_: int) -> None:
        if storage.dequeue() is None:
            raise RuntimeError("huey's queue is empty")

    return Task(step, prepare=prepare, close=storage.close)


PEERS = (
    Peer(
        name="filelock",
        package="filelock",
        entries={"lock-unlock": _filelock},
        note="no lease, no token, nothing written to the disk",
    ),
    Peer(
        name="huey, SQLite FULL",
        package="huey",
        entries={"submit-1": _huey_enqueue, "claim-1": _huey_dequeue},
        note="its claim deletes the job: a worker that dies loses it, and there is no check-out",
    ),
)
