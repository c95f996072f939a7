"""ZooKeeper in the benchmark: a place to measure at, and kazoo on its own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import KazooException, NodeExistsError  # type: ignore[import-untyped]
from kazoo.handlers.threading import KazooTimeoutError  # type: ignore[import-untyped]

from onceward.benchmarks.measures.measure import raw_twice
from onceward.benchmarks.measures.right_to_run import checkin_checkout
from onceward.benchmarks.raw import Raw
from onceward.contracts import StoreMisconfigured
from onceward.runners.factory import open_runner
from onceward.runners.zookeeper.names import Layout
from onceward.runners.zookeeper.options import options_of

#: So often a method of Java is called before it is compiled at its best.
_UNTIL_WARM = 2_500


def client(url: str) -> KazooClient:
    """A client of kazoo's, as it comes.

    Raises:
        StoreMisconfigured: it cannot reach the server by this URL.
    """
    made = KazooClient(hosts=",".join(options_of(url).hosts))
    try:
        made.start(timeout=5)
    except (KazooException, KazooTimeoutError) as error:
        made.stop()
        raise StoreMisconfigured(f"ZooKeeper cannot be measured here, kazoo says: {error}") from error
    return made


class RawZooKeeper(Raw):
    """kazoo as it comes: one client, which threads share.

    A new key is ``create``, which is the least that a lock or a check-in on ZooKeeper can be; a key again is ``set``;
    several are one transaction.
    """

    def __init__(self, url: str) -> None:
        self._client = client(url)
        self._root = f"/bench-raw-{secrets.token_hex(6)}"
        self._client.create(self._root)
        self._versions: dict[str, int] = {}

    def create(self, key: str) -> None:
        self._client.create(f"{self._root}/{key}", b"holder")

    def upsert(self, keys: Sequence[str]) -> list[int]:
        if len(keys) == 1:
            return [self._one(keys[0])]
        transaction = self._client.transaction()
        for key in keys:
            if key in self._versions:
                transaction.set_data(f"{self._root}/{key}", b"holder")
            else:
                transaction.create(f"{self._root}/{key}", b"holder")
        for result in transaction.commit():
            if isinstance(result, Exception):
                raise result
        return [self._next(key) for key in keys]

    def _one(self, key: str) -> int:
        path = f"{self._root}/{key}"
        if key in self._versions:
            self._client.set(path, b"holder")
        else:
            with suppress(NodeExistsError):
                self._client.create(path, b"holder")
        return self._next(key)

    def _next(self, key: str) -> int:
        self._versions[key] = self._versions.get(key, 0) + 1
        return self._versions[key]

    def close(self) -> None:
        self._client.delete(self._root, recursive=True)
        self._client.stop()
        self._client.close()


def forget(url: str, namespaces: Sequence[str]) -> None:
    """Nothing of these namespaces is left on the server."""
    kazoo = client(url)
    try:
        for namespace in namespaces:
            kazoo.delete(Layout(options_of(url).chroot, namespace).root, recursive=True)
    finally:
        kazoo.stop()
        kazoo.close()


def described(url: str) -> str:
    """Which server it is, for the reader of the figures; ``srvr`` is what every server answers unless told not to."""
    kazoo = client(url)
    try:
        said = dict(line.split(": ", 1) for line in str(kazoo.command(b"srvr")).splitlines() if ": " in line)
    finally:
        kazoo.stop()
        kazoo.close()
    version = said.get("Zookeeper version", "of unknown version").partition("-")[0]
    return f"ZooKeeper {version}, {said.get('Mode', 'mode unknown')}"


@contextmanager
def private(*, durable: bool = False) -> Iterator[str]:
    """The URL of a server of our own, which is gone afterwards."""
    from onceward.conformance.servers.zookeeper import ZooKeeperServer

    with ZooKeeperServer(durable=durable) as server:
        _warm(server.url)
        yield server.url


def _warm(url: str) -> None:
    """Java has compiled what servers do most: what is measured first would else be measured on a cold one."""
    namespace, raw = f"warm-{secrets.token_hex(6)}", RawZooKeeper(url)
    with open_runner(url, namespace=namespace) as runner:
        ours, theirs = checkin_checkout(runner, 1), raw_twice(raw, 1)
        for index in range(_UNTIL_WARM):
            ours.step(index)
            theirs.step(index)
    raw.close()
    forget(url, [namespace])
