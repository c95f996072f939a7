"""The store on an etcd cluster, put together from its parts."""

from __future__ import annotations

import secrets
from datetime import timedelta

from onceward.contracts import checks
from onceward.contracts.clock import Clock
from onceward.contracts.errors import StoreError, StoreMisconfigured
from onceward.contracts.runner import Store
from onceward.contracts.traits import DueClock, Failover, LeaseClock, Traits
from onceward.contracts.transitions import Now
from onceward.runners.clock import SystemClock
from onceward.runners.etcd import wire
from onceward.runners.etcd.base import Sequences
from onceward.runners.etcd.cells import Cells
from onceward.runners.etcd.executor import ExecutorPart
from onceward.runners.etcd.fronts import Ahead, Fronts
from onceward.runners.etcd.leases import Leases
from onceward.runners.etcd.lifecycle import LifecyclePart
from onceward.runners.etcd.link import GRANT, MEMBERS, STATUS, Link
from onceward.runners.etcd.names import Names
from onceward.runners.etcd.options import Options, options_of
from onceward.runners.etcd.quiet import Quiet
from onceward.runners.etcd.rows import MAX_PAYLOAD_BYTES
from onceward.runners.etcd.scheduler import SchedulerPart
from onceward.runners.etcd.watch import EtcdWatch

_OLDEST = (3, 4)
#: A lease of ours may last so much longer than asked, the server looks twice a second, and then has to agree and write.
_SLACK = timedelta(seconds=2)
#: An election timeout of a second makes for leases of at least two.
_USUAL_SHORTEST = 2


class EtcdStore(ExecutorPart, SchedulerPart, LifecyclePart, Store):
    """A store on an etcd cluster.

    Args:
        target: a URL (``etcd://user:password@host:2379``), or options.
        namespace: of the application; several share a cluster without seeing each other.
        clock: of this process: for due times, and to tell how long our leases still last.
    """

    def __init__(
        self, target: str | Options = "etcd://localhost", namespace: str = "default", *, clock: Clock | None = None
    ) -> None:
        checks.namespace("namespace", namespace)
        self.namespace = namespace
        self.options = options_of(target) if isinstance(target, str) else target
        self._url = self.options.url
        self._clock: Clock = clock or SystemClock()
        self._names = Names(namespace)
        self._link = Link(self.options)
        self._leases = Leases(self._link)
        self._cells = Cells(self._link, self._leases, self._now)
        self._scheduled, self._existing = Fronts(self._link, depth=5), Fronts(self._link, depth=4)
        self._ahead = Ahead()
        self._quiet = Quiet(self._names)
        self._sequences = Sequences()
        self._watches: set[EtcdWatch] = set()
        self._traits = _traits(shortest=_USUAL_SHORTEST, members=1)

    @property
    def traits(self) -> Traits:
        return self._traits

    def open(self) -> None:
        self._link.open()
        try:
            version = wire.texts(self._link.call(STATUS, b"", reads=True), 2)[0].decode()
            if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
                raise StoreMisconfigured(f"{self._url} is etcd {version}; Onceward needs etcd 3.4 or newer")
            self._link.read(wire.read(self._names.prefix + b"r/"))  # it serves this namespace, to this user
            self._leases.shortest = self._shortest()
            self._traits = _traits(shortest=self._leases.shortest, members=self._members())
        except BaseException:
            self._link.close()
            raise

    def close(self) -> None:
        for watch in list(self._watches):
            watch.close()
        self._leases.close()
        self._link.close()

    def _now(self) -> Now:
        return Now(self._clock.elapsed_ms(), self._clock.wall_ms())

    def _shortest(self) -> int:
        """The shortest lease that the cluster grants, in seconds: it depends on its election timeout."""
        lease = secrets.randbits(62) | 1
        granted = wire.integer(self._link.call(GRANT, wire.grant(lease, 1), reads=True), 3)
        self._link.revoke([lease])
        return granted

    def _members(self) -> int:
        try:
            return len(wire.texts(self._link.call(MEMBERS, b"", reads=True), 2))
        except StoreError:  # not everybody may know
            return 1


def _traits(*, shortest: int, members: int) -> Traits:
    granule = max(1, shortest - 1)
    return Traits(
        durable=True,
        shared=True,
        native_wait=True,
        lease_clock=LeaseClock.MONOTONIC,
        due_clock=DueClock.CLIENT,
        failover=Failover.SAFE if members > 1 else Failover.NONE,
        lease_granularity=timedelta(seconds=granule),
        expiry_slack=_SLACK,
        max_payload_bytes=MAX_PAYLOAD_BYTES,
    )
