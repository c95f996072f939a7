"""The store on MongoDB, put together from its parts."""

from __future__ import annotations

from onceward.contracts import checks
from onceward.contracts.requests import CheckIn
from onceward.contracts.runner import Store
from onceward.contracts.traits import Failover, LeaseClock, Traits
from onceward.runners.combining import Combiner, undivided
from onceward.runners.mongodb import indexes
from onceward.runners.mongodb.checkins import CheckInPart
from onceward.runners.mongodb.claims import ClaimPart
from onceward.runners.mongodb.documents import MAX_PAYLOAD_BYTES
from onceward.runners.mongodb.executor import ExecutorPart
from onceward.runners.mongodb.lifecycle import LifecyclePart
from onceward.runners.mongodb.link import Link
from onceward.runners.mongodb.locks import LockPart
from onceward.runners.mongodb.options import Options, options_of
from onceward.runners.mongodb.scheduler import SchedulerPart
from onceward.runners.mongodb.server import examined
from onceward.runners.mongodb.terms import Doc, Terms
from onceward.runners.mongodb.watch import MongoWatch

#: What can be said before a server was asked.
_UNKNOWN = Traits(
    durable=False,
    shared=True,
    linearizable=False,
    lease_clock=LeaseClock.WALL,
    failover=Failover.LOSSY,
    max_payload_bytes=MAX_PAYLOAD_BYTES,
)


class MongoStore(CheckInPart, ExecutorPart, ClaimPart, LockPart, SchedulerPart, LifecyclePart, Store):
    """A store on a MongoDB replica set or standalone server.

    Args:
        target: a URL (``mongodb://user:password@host:27017/database?replicaSet=rs0``), or options.
        namespace: of the application; several share a database without seeing each other.
        listeners: given to the driver, for tests that count commands.
    """

    def __init__(
        self,
        target: str | Options = "mongodb://localhost",
        namespace: str = "default",
        *,
        listeners: tuple[object, ...] = (),
    ) -> None:
        checks.namespace("namespace", namespace)
        self.namespace = namespace
        self.options = options_of(target) if isinstance(target, str) else target
        self._traits = _UNKNOWN
        self._terms = Terms(replicated=False, version=(0,))
        self._watches: set[MongoWatch] = set()
        self._link = Link(self.options, listeners=listeners)
        self._checkins = Combiner[CheckIn, Doc](undivided(self._carry_checkins))
        self._callers: set[int] = set()
        self._link.forked = self._forked

    def _forked(self) -> None:
        """In a forked child, nobody is under way: the parent's threads are not here."""
        self._checkins.reset()
        self._callers.clear()

    @property
    def traits(self) -> Traits:
        return self._traits

    def open(self) -> None:
        self._link.open()
        try:
            with self._link.reading():  # indexes are made once for all; whoever is cut off there begins again
                server = examined(self._link.hello(), self._link.database.command("buildInfo"), self.options.url)
                self._link.learn(replicated=server.replicated)
                indexes.ensure(self._link.database)
                self._link.ensure_clock()
        except BaseException:
            self._link.close()
            raise
        self._server = server
        self._terms = self._terms_of(replicated=server.replicated, version=server.version)
        self._traits = server.traits(linearizable=self.options.linearizable)

    def _terms_of(self, *, replicated: bool, version: tuple[int, ...]) -> Terms:
        return Terms(replicated=replicated, version=version)

    def close(self) -> None:
        for watch in list(self._watches):
            watch.close()
        self._link.close()
