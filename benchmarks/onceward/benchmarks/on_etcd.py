"""etcd in the benchmark: a place to measure at, and grpcio on its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grpc

from onceward.benchmarks.raw import Raw
from onceward.contracts import StoreError, StoreMisconfigured
from onceward.runners.etcd import wire
from onceward.runners.etcd.link import STATUS, TXN, Link
from onceward.runners.etcd.names import Names, behind
from onceward.runners.etcd.options import options_of

_VALUE = b"x" * 100
_SWEPT_AT_ONCE = 5_000


class RawEtcd(Raw):
    """grpcio as it comes, with messages that are bytes already: one channel, which all threads share.

    A new key is one transaction that puts it if it is not there, which is the least that a lock or a check-in on etcd
    can be; a key again is one that puts and reads it; several are one transaction.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._channel = grpc.insecure_channel(options_of(url).addresses[0], options=(("grpc.enable_retries", 0),))
        self._txn: Callable[..., bytes] = self._channel.unary_unary(TXN)
        self._mark = f"onceward-bench-raw/{secrets.token_hex(6)}/".encode()

    def create(self, key: str) -> None:
        name = self._mark + key.encode()
        guards = [wire.unchanged(name, 0)]
        if not self._ask(wire.transaction(guards, [wire.put(name, _VALUE)], [wire.get(wire.read(name))])).succeeded:
            raise RuntimeError(f"the key {key!r} existed already")

    def upsert(self, keys: Sequence[str]) -> list[int]:
        tokens: list[int] = []
        while len(tokens) < len(keys):
            part = _distinct(keys[len(tokens) :])
            names = [self._mark + key.encode() for key in part]
            puts = [wire.put(name, _VALUE) for name in names]
            done = self._ask(wire.transaction((), puts + [wire.get(wire.read(name)) for name in names]))
            tokens += [_version(done.answers[len(part) + index]) for index in range(len(part))]
        return tokens

    def _ask(self, request: bytes) -> wire.Done:
        return wire.done(self._txn(request, timeout=5))

    def close(self) -> None:
        self._channel.close()
        with _linked(self._url) as link:
            sweep(link, self._mark, behind(self._mark))


def _distinct(keys: Sequence[str]) -> Sequence[str]:
    """As many from the front as one transaction takes: 64, none of them twice."""
    for index in range(1, min(len(keys), 64)):
        if keys[index] in keys[:index]:
            return keys[:index]
    return keys[:64]


def _version(answer: bytes) -> int:
    """How often the key was written, of an answer to a read."""
    (kv,) = wire.texts(wire.texts(answer, 1)[0], 2)
    return wire.integer(kv, 4)


@contextmanager
def _linked(url: str) -> Iterator[Link]:
    link = Link(options_of(url))
    link.open()
    try:
        yield link
    finally:
        link.close()


def forget(url: str, namespaces: Sequence[str]) -> None:
    """Nothing of these namespaces is left on the server."""
    with _linked(url) as link:
        for namespace in namespaces:
            prefix = Names(namespace).prefix
            sweep(link, prefix, behind(prefix))


def sweep(link: Link, start: bytes, end: bytes) -> None:
    """No key is left between these; some thousands at a time, since very many would take longer than a call may."""
    while found := link.read(wire.read(start, end, limit=_SWEPT_AT_ONCE, keys_only=True)).kvs:
        link.txn(wire.transaction((), [wire.delete(start, found[-1].key + b"\0")]))


def described(url: str) -> str:
    """Which server it is, for the reader of the figures.

    Raises:
        StoreMisconfigured: it cannot be reached by this URL.
    """
    try:
        with _linked(url) as link:
            said = link.call(STATUS, b"", reads=True)
    except StoreError as error:
        raise StoreMisconfigured(f"etcd cannot be measured here: {error}") from error
    return f"etcd {wire.texts(said, 2)[0].decode()}, every write on the disk"


@contextmanager
def private() -> Iterator[str]:
    """The URL of a server of our own, which is gone afterwards."""
    from onceward.conformance.servers.etcd import EtcdServer

    with EtcdServer() as server:
        yield server.url
