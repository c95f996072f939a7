"""Other people's tools in the same rounds, each in the measures that it has an answer for. Imported only here."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, cast
from urllib.parse import urlsplit

from onceward.benchmarks.apart import Apart
from onceward.benchmarks.measures.measure import LEASE
from onceward.benchmarks.rounds import Task

#: Seconds; as long as our own leases in these measures.
_LEASE = LEASE.total_seconds()

Entry: TypeAlias = Callable[[str], Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A tool that does a part of what we do.

    Attributes:
        package: what is imported.
        entries: by the measure's name, how to make its task; it is told a file of its own that does not exist yet, or
            the URL of the server.
        note: what a reader must know to compare fairly.
        beside: the kind of the contestants whose server it uses; "": it has files.
        wheel: what is installed from PyPI, if it is called otherwise than the package.
        apart: the environment that it needs for itself; made when it is to be measured.
    """

    name: str
    package: str
    entries: Mapping[str, Entry]
    note: str
    beside: str = ""
    wheel: str = ""
    apart: Apart | None = None

    @property
    def installed(self) -> bool:
        return self.apart.ready if self.apart is not None else importlib.util.find_spec(self.package) is not None

    @property
    def install(self) -> str:
        """How to get it."""
        if self.apart is not None:
            return f"in an environment of its own: {self.apart.install}"
        return f"pip install {self.wheel or self.package}"


class _Lock(Protocol):
    def acquire(self) -> object: ...
    def release(self) -> None: ...


class _Redis(Protocol):
    def lock(self, name: str, timeout: float) -> _Lock: ...
    def delete(self, name: str) -> object: ...
    def close(self) -> None: ...


class _HueyStorage(Protocol):
    def enqueue(self, data: bytes) -> None: ...
    def dequeue(self) -> bytes | None: ...
    def close(self) -> bool: ...


def _lock_unlock(lock: _Lock, *, close: Callable[[], object] = lambda: None) -> Task:
    def step(_: int) -> None:
        lock.acquire()
        lock.release()

    return Task(step, close=close)


def _filelock(path: str) -> Task:
    return _lock_unlock(cast(_Lock, importlib.import_module("filelock").FileLock(path)))


def _redis(url: str) -> _Redis:
    return cast(_Redis, importlib.import_module("redis").Redis.from_url(url))


def _redis_py_lock(url: str) -> Task:
    client = _redis(url)
    return _lock_unlock(client.lock(f"bench-{secrets.token_hex(6)}", timeout=_LEASE), close=client.close)


def _python_redis_lock(url: str) -> Task:
    client, name = _redis(url), f"bench-{secrets.token_hex(6)}"
    lock = importlib.import_module("redis_lock").Lock(client, name, expire=int(_LEASE))

    def close() -> None:
        client.delete(f"lock-signal:{name}")  # it would stay for as long as the lease
        client.close()

    return _lock_unlock(cast(_Lock, lock), close=close)


def _at(url: str) -> tuple[str, int]:
    """The server of an etcd URL."""
    parts = urlsplit(url)
    return parts.hostname or "localhost", parts.port or 2379


def _etcd3gw_lock(url: str) -> Task:
    host, port = _at(url)
    client = importlib.import_module("etcd3gw").client(host=host, port=port)
    return _lock_unlock(cast(_Lock, client.lock(f"bench-{secrets.token_hex(6)}", ttl=int(_LEASE))))


def _tooz_etcd3gw_lock(url: str) -> Task:
    host, port = _at(url)
    coordinator = importlib.import_module("tooz.coordination").get_coordinator(f"etcd3+http://{host}:{port}", b"bench")
    coordinator.start()
    lock = coordinator.get_lock(secrets.token_hex(6).encode())
    return _lock_unlock(cast(_Lock, lock), close=coordinator.stop)


#: It cannot be imported with any protobuf since 4.
_ETCD3 = Apart(requirements=("etcd3", "protobuf<4"), script=Path(__file__).with_name("programs") / "etcd3_lock.py")


def _python_etcd3_lock(url: str) -> Task:
    return _ETCD3.task(*_at(url))


def _kazoo_lock(url: str) -> Task:
    from onceward.benchmarks.on_zookeeper import client

    kazoo = client(url)
    path = f"/bench-{secrets.token_hex(6)}"

    def close() -> None:
        kazoo.delete(path, recursive=True)
        kazoo.stop()
        kazoo.close()

    return _lock_unlock(cast(_Lock, kazoo.Lock(path)), close=close)


def _huey(path: str) -> _HueyStorage:
    module = importlib.import_module("huey.storage")
    return cast(_HueyStorage, module.SqliteStorage("bench", filename=path, fsync=True, strict_fifo=True))


def _huey_enqueue(path: str) -> Task:
    storage = _huey(path)
    return Task(lambda index: storage.enqueue(b"run %d" % index), close=storage.close)


def _huey_dequeue(path: str) -> Task:
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
        name="redis-py Lock",
        package="redis",
        entries={"lock-unlock": _redis_py_lock},
        note="no token; after a lost reply it does not know its own lock",
        beside="redis",
    ),
    Peer(
        name="python-redis-lock",
        package="redis_lock",
        entries={"lock-unlock": _python_redis_lock},
        note="no token; after a lost reply it does not know its own lock; wakes the next in line",
        beside="redis",
        wheel="python-redis-lock",
    ),
    Peer(
        name="etcd3gw Lock",
        package="etcd3gw",
        entries={"lock-unlock": _etcd3gw_lock},
        note="no token; its leases stay until they end; in a with block it is entered although somebody else has it",
        beside="etcd",
    ),
    Peer(
        name="tooz etcd3gw",
        package="tooz",
        entries={"lock-unlock": _tooz_etcd3gw_lock},
        note="no token; its leases stay until they end",
        beside="etcd",
    ),
    Peer(
        name="python-etcd3 Lock",
        package="etcd3",
        entries={"lock-unlock": _python_etcd3_lock},
        note="no token; its leases stay until they end; in a process of its own, with the protobuf that it needs",
        beside="etcd",
        apart=_ETCD3,
    ),
    Peer(
        name="kazoo Lock",
        package="kazoo",
        entries={"lock-unlock": _kazoo_lock},
        note="no token; after its session is lost it still says that it is held; hands over in the order of asking",
        beside="zookeeper",
    ),
    Peer(
        name="huey, SQLite FULL",
        package="huey",
        entries={"submit-1": _huey_enqueue, "claim-1": _huey_dequeue},
        note="its claim deletes the job: a worker that dies loses it, and there is no check-out",
    ),
)
