"""Mutants of watches, and of what a store declares about itself."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from onceward.contracts import Interest, InvalidRequest, LockAnswer, LockRequest, Run, Runner, Traits
from onceward.contracts.transitions import Now
from onceward.runners.memory.store import TRAITS
from onceward.runners.memory.watch import MemoryWatch

from .planted import StoreHarness, planted
from .planted_store import Meddled


class WatchMutant(Meddled):
    """A store with watches of another kind."""

    kind: type[MemoryWatch] = MemoryWatch

    def watch(self, interest: Interest) -> MemoryWatch:
        watch = self.kind(interest, pass_time=self._pass_time, forget=self._forget)
        with self._lock:
            self._watches.add(watch)
        return watch


class Forgetful(MemoryWatch):
    """Hears only while it waits."""

    def wait(self, timeout: float) -> bool:
        self._changed.clear()
        return super().wait(timeout)


@planted("queue", "queue.watch")
class WakeUpMissed(WatchMutant):
    """Redis pub/sub without a look before the wait: what happens between look and wait is never told (G15)."""

    kind = Forgetful


class Deaf(MemoryWatch):
    """Is not told of what comes due with time."""

    def wait(self, timeout: float) -> bool:
        return self._changed.wait(timeout) and super().wait(0.0)


@planted("queue", "queue.watch")
class DueNotTold(WatchMutant):
    """Watches on writes only (python-redis-lock): nothing is written when a lease lapses or a run comes due."""

    kind = Deaf


@planted("queue", "queue.watch")
class RetriesNotTold(WatchMutant):
    """A watch on new runs only: those that come back after a failure wait for the next poll."""

    def _tell(
        self, *, run: Run | None = None, job: str | None = None, lock: str | None = None, config: bool = False
    ) -> None:
        new = run is not None and run.attempt == 0
        super()._tell(run=run if new else None, lock=lock, config=config)


@planted("queue", "queue.watch")
class EndNotTold(WatchMutant):
    """Whoever waits for a run to end is not told (G38: it waits for ever)."""

    def _tell(
        self, *, run: Run | None = None, job: str | None = None, lock: str | None = None, config: bool = False
    ) -> None:
        if run is not None and run.status.ended:
            super()._tell(job=run.job, lock=lock, config=config)
        else:
            super()._tell(run=run, job=job, lock=lock, config=config)


class Boastful(Meddled):
    """A store that declares more than it does."""

    declared: Traits = TRAITS

    @property
    def traits(self) -> Traits:
        return self.declared


class Reopening(StoreHarness):
    """Opens the store again after it was closed, as if by its address."""

    def reopen(self, runner: Runner) -> Runner:
        runner.close()
        store = self.store(namespace=runner.namespace)
        return Runner.of(store, namespace=runner.namespace, url=self.name).open()


@planted("durable", "durable.reopen", harness=Reopening)
class SaysDurable(Boastful):
    """Redis without an append-only file: what was acknowledged is gone with the process, and it says it is not."""

    declared = Traits(durable=True, shared=False, native_wait=True)


@planted("checkin", "store.traits")
class SaysMorePayload(Boastful):
    """DynamoDB, ZooKeeper: large payloads are refused, and the declared limit says that they are not."""

    def _text(self, value: object, field: str) -> str | None:
        text = super()._text(value, field)
        if text is not None and len(text) > 1_000_000:
            raise InvalidRequest(field, f"{len(text)} bytes", "at most 1 MB")
        return text


@planted("checkin", "store.traits")
class LeasesByWallClock(Meddled):
    """Redis, mongod: setting the server's clock ends leases, or stretches them, and the store says it does not."""

    def _now(self) -> Now:
        wall = self._clock.wall_ms()
        return Now(wall, wall)


@planted("lock", "store.traits")
class RoundsLeasesUp(Meddled):
    """etcd, ZooKeeper: whole seconds, or ticks, where milliseconds were declared; the dead are missed too late."""

    def lock(self, request: LockRequest) -> LockAnswer:
        seconds = -(-request.lease // timedelta(seconds=2)) * 2
        return super().lock(replace(request, lease=timedelta(seconds=seconds)))
