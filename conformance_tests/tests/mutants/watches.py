"""Mutants of watches, and of what a store declares about itself."""

from __future__ import annotations

from datetime import timedelta

from mutants.planted import planted
from mutants.planted_store import Meddled

from onceward.contracts import Interest, InvalidRequest, Traits
from onceward.runners.memory.store import TRAITS
from onceward.runners.memory.watch import MemoryWatch

WATCHES = ("queue.watch", "watch.changes", "queue.watches", "watch.model")
TRAIT_PROPERTIES = ("traits.probe", "checkin.traits", "traits.probed", "lock.traits", "queue.traits")


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


@planted("queue", *WATCHES)
class WakeUpMissed(WatchMutant):
    """Redis pub/sub without a look before the wait: what happens between look and wait is never told (G15)."""

    kind = Forgetful


class Deaf(MemoryWatch):
    """Is not told of what comes due with time."""

    def __init__(self, interest, *, pass_time, forget) -> None:  # type: ignore[no-untyped-def]
        super().__init__(interest, pass_time=lambda watch: None, forget=forget)


@planted("queue", *WATCHES)
class DueNotTold(WatchMutant):
    """Watches on writes only (python-redis-lock, 9): nothing is written when a lease lapses or a run comes due."""

    kind = Deaf


@planted("queue", *WATCHES)
class RetriesNotTold(WatchMutant):
    """A watch on new runs only: those that come back after a failure wait for the next poll."""

    def _tell(self, *, run=None, job=None, lock=None, config=False) -> None:  # type: ignore[no-untyped-def]
        if run is not None and run.attempt > 0 and not run.status.ended:
            return
        super()._tell(run=run, job=job, lock=lock, config=config)


@planted("queue", *WATCHES)
class EndNotTold(WatchMutant):
    """Whoever waits for a run to end is not told (G38: it waits for ever)."""

    def _tell(self, *, run=None, job=None, lock=None, config=False) -> None:  # type: ignore[no-untyped-def]
        ended = run is not None and run.status.ended
        super()._tell(run=None if ended else run, job=run.job if ended else job, lock=lock, config=config)


class Boastful(Meddled):
    """A store that declares more than it does."""

    declared: Traits = TRAITS

    @property
    def traits(self) -> Traits:
        return self.declared


@planted("durable", "durable.reopen", "durable.crash", "durable.restart", "durable.kill", "traits.probe")
class SaysDurable(Boastful):
    """Redis without an append-only file: what was acknowledged is gone with the process, and it says it is not."""

    declared = Traits(durable=True, shared=False, native_wait=True)


@planted("checkin", *TRAIT_PROPERTIES)
class SaysMorePayload(Boastful):
    """DynamoDB, ZooKeeper: large payloads are refused, and the declared limit says that they are not."""

    def _text(self, value: object, field: str) -> str | None:
        text = super()._text(value, field)
        if text is not None and len(text) > 1_000_000:
            raise InvalidRequest(field, f"{len(text)} bytes", "at most 1 MB")
        return text


@planted("checkin", *TRAIT_PROPERTIES)
class SaysNativeWait(Boastful):
    """A store that polls every few seconds, and says that its watches are told."""

    def watch(self, interest: Interest) -> MemoryWatch:
        return Polling(interest, pass_time=self._pass_time, forget=self._forget)


class Polling(MemoryWatch):
    """Looks once in three seconds."""

    def wait(self, timeout: float) -> bool:
        pause = timedelta(seconds=3).total_seconds()
        self._changed.wait(min(timeout, pause))
        return timeout >= pause and not self._closed
