"""Redis and Valkey in the benchmark: a place to measure at, and redis-py on its own."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import redis

from onceward.benchmarks.raw import Raw
from onceward.contracts import StoreMisconfigured
from onceward.runners.redis.names import prefix

_SWEPT_AT_ONCE = 1_000


class RawRedis(Raw):
    """redis-py as it comes: one client, whose pool lends every thread a connection.

    A new key is ``SET NX``, which is the least that a lock or a check-in on Redis can be; a key again is ``INCR``;
    several are one pipeline.
    """

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._mark = f"bench-raw-{secrets.token_hex(6)}"

    def create(self, key: str) -> None:
        if not self._client.set(f"{self._mark}:{key}", "holder", nx=True):
            raise RuntimeError(f"the key {key!r} existed already")

    def upsert(self, keys: Sequence[str]) -> list[int]:
        if len(keys) == 1:
            return [self._client.incr(f"{self._mark}:{keys[0]}")]
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.incr(f"{self._mark}:{key}")
            return cast(list[int], pipeline.execute())

    def close(self) -> None:
        sweep(self._client, f"{self._mark}:*")
        self._client.close()


def sweep(client: redis.Redis, pattern: str) -> None:
    """No key of this pattern is left."""
    found: Iterator[bytes] = client.scan_iter(match=pattern, count=_SWEPT_AT_ONCE)
    while chunk := list(itertools.islice(found, _SWEPT_AT_ONCE)):
        client.unlink(*chunk)


def forget(url: str, namespaces: Sequence[str]) -> None:
    """Nothing of these namespaces is left on the server."""
    with redis.Redis.from_url(url) as client:
        for namespace in namespaces:
            sweep(client, f"{prefix(namespace)}*")


def described(url: str) -> str:
    """Which server it is and how it keeps what it is told, for the reader of the figures.

    Raises:
        StoreMisconfigured: redis-py cannot reach it by this URL.
    """
    try:
        with redis.Redis.from_url(url) as client:
            said = cast(dict[str, object], client.info())
    except (redis.RedisError, ValueError) as error:
        raise StoreMisconfigured(f"Redis cannot be measured here, redis-py says: {error}") from error
    product = "Valkey" if "valkey_version" in said else "Redis"
    version = said.get("valkey_version", said.get("redis_version"))
    return f"{product} {version}, append-only file {'on' if said.get('aof_enabled') else 'off'}"


@contextmanager
def private(*, durable: bool = False) -> Iterator[str]:
    """The URL of a server of our own, which is gone afterwards."""
    from onceward.conformance.servers.redis import RedisServer

    class OnDisk(RedisServer):
        on_disk = True

    with OnDisk(durable=durable) as server:
        yield server.url
