"""The store on one Redis server, put together from its parts."""

from __future__ import annotations

from onceward.contracts import checks
from onceward.contracts.runner import Store
from onceward.contracts.traits import Failover, LeaseClock, Traits
from onceward.runners.redis.executor import ExecutorPart
from onceward.runners.redis.lifecycle import LifecyclePart
from onceward.runners.redis.link import Link
from onceward.runners.redis.names import prefix
from onceward.runners.redis.options import Options, options_of
from onceward.runners.redis.rows import MAX_PAYLOAD_BYTES
from onceward.runners.redis.scheduler import SchedulerPart
from onceward.runners.redis.server import examined
from onceward.runners.redis.target import connect_to_namespace
from onceward.runners.redis.watch import RedisWatch
from onceward.runners.redis.wire import Wire

#: What can be said before a server was asked.
_UNKNOWN = Traits(
    durable=False,
    shared=True,
    native_wait=True,
    lease_clock=LeaseClock.WALL,
    failover=Failover.LOSSY,
    max_payload_bytes=MAX_PAYLOAD_BYTES,
)


class RedisStore(ExecutorPart, SchedulerPart, LifecyclePart, Store):
    """A store on a Redis (or Valkey) server, the primary behind sentinels, or a cluster.

    Args:
        target: a URL (``redis://user:password@host:6379/0``), or options.
        namespace: of the application; several share a server without seeing each other.
    """

    def __init__(self, target: str | Options = "redis://localhost", namespace: str = "default") -> None:
        checks.namespace("namespace", namespace)
        self.namespace = namespace
        self.options = options_of(target) if isinstance(target, str) else target
        self._url = self.options.url
        self._prefix = prefix(namespace)
        self._traits = _UNKNOWN
        self._watches: set[RedisWatch] = set()
        self._link = Link(
            self._connect, wait_replicas=self.options.wait_replicas, timeout=self.options.timeout_ms / 1000
        )

    @property
    def traits(self) -> Traits:
        return self._traits

    def open(self) -> None:
        self._link.open()
        try:
            self._traits = examined(self._link.ask, self.options)
            self._link.load()
            self._run("next", "", 0)  # it serves this namespace, to this user
        except BaseException:
            self._link.close()
            raise

    def close(self) -> None:
        for watch in list(self._watches):
            watch.close()
        self._link.close()

    def _connect(self) -> Wire:
        return connect_to_namespace(self.options, self._prefix)
