"""The healthy store in memory, with what a mutant needs to meddle with it."""

from __future__ import annotations

from msgspec.structs import replace

from onceward.contracts import Admission, CheckIn, CheckInOutcome, Clock, LockAnswer, LockId, RunId
from onceward.contracts import transitions as t
from onceward.contracts.locking import LockEntry
from onceward.contracts.times import span, span_ms
from onceward.contracts.transitions import Entry
from onceward.runners.memory import MemoryStore


class Meddled(MemoryStore):
    """A store whose subclasses change one thing, under the store's own lock; ``prepare`` is for what they remember."""

    def __init__(self, namespace: str = "default", clock: Clock | None = None) -> None:
        super().__init__(namespace, clock)
        self.prepare()

    def prepare(self) -> None:
        """The mutant has what it needs, which is nothing for most."""

    def entry(self, run: RunId) -> Entry:
        """The run as the store keeps it."""
        found = self._runs.find(run)
        assert found is not None
        return found

    def write(self, entry: Entry) -> None:
        """The run is kept like that, whatever it was."""
        self._runs.put(self._runs.find(entry.run.id), entry, self._now())

    def admission(self, outcome: CheckInOutcome, run: RunId) -> Admission:
        """That answer, with the run as it is now."""
        entry, known = self.entry(run), self.check(run)
        assert known is not None
        left = None if entry.until is None else span(entry.until - self._now().elapsed)
        return Admission(outcome=outcome, run=known, remaining=left)

    def let_in(self, request: CheckIn, *, token: int | None = None) -> Admission:
        """The caller is admitted, whatever the state of the run is."""
        entry = t.hold(
            self.entry(request.run),
            holder=request.holder,
            request=request.request,
            lease_ms=None if request.lease is None else span_ms(request.lease),
            now=self._now(),
            token=self._next_token() if token is None else token,
        )
        self.write(replace(entry, run=replace(entry.run, max_crashes=request.max_crashes)))
        return self.admission(CheckInOutcome.ADMITTED, request.run)

    def lock_entry(self, lock: LockId) -> LockEntry | None:
        """The lock as the store keeps it."""
        return self._locks._entries.get(lock)

    def write_lock(self, entry: LockEntry) -> None:
        """The lock is kept like that, whatever it was."""
        self._locks._write(entry)

    def lock_answer(self, entry: LockEntry, *, acquired: bool) -> LockAnswer:
        """That answer, with the lease as it is now."""
        left = span(entry.until - self._now().elapsed)
        return LockAnswer(acquired=acquired, lease=entry.lease, remaining=left)
