"""Which runs of a job may be claimed next: three heaps, kept lazily, so that a claim costs O(log n).

``waiting`` holds what is not yet due, by time; ``leased`` what lapses by itself, by time; ``ready`` what may be
taken, by (priority, run_at, submission). An item is only a hint: whether it still holds is read from the entry.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from onceward.contracts.records import RunId, Status
from onceward.contracts.times import to_ms
from onceward.contracts.transitions import Entry, Now, claimable

Find: TypeAlias = Callable[[RunId], Entry | None]
#: So many hints are kept in any case.
_SPARE = 256

Rank: TypeAlias = tuple[int, int, int]


def rank(entry: Entry) -> Rank:
    """The order of claims: highest priority first, then ``run_at``, then submission."""
    return (-entry.run.priority, to_ms(entry.run.run_at), entry.run.sequence)


class JobQueue:
    """The runs of one job that may be claimed, now or later."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._waiting: list[tuple[int, int, RunId]] = []
        self._leased: list[tuple[int, int, RunId]] = []
        self._ready: list[tuple[Rank, RunId]] = []
        self._most = _SPARE

    def add(self, entry: Entry) -> None:
        """The entry will come up when it is due or has lapsed. Renewals that only extend need not be added."""
        run = entry.run
        if run.status is Status.SCHEDULED:
            heapq.heappush(self._waiting, (to_ms(run.run_at), run.sequence, run.id))
        elif run.status is Status.RUNNING and entry.until is not None:
            heapq.heappush(self._leased, (entry.until, run.token, run.id))
        if len(self._waiting) + len(self._leased) + len(self._ready) > self._most:
            self._prune()

    def _prune(self) -> None:
        """Hints that do not hold any more take no memory. Seldom enough to cost O(1) for each one added."""
        runs = {run for heap in (self._waiting, self._leased) for _, _, run in heap}
        ready = {(place, run) for place, run in self._ready if self._stands(place, run)}
        self.rebuild(entry for run in runs if (entry := self._find(run)) is not None)
        self._ready = sorted(ready)  # which is a heap, too
        self._most += 2 * len(ready)

    def _stands(self, place: Rank, run: RunId) -> bool:
        entry = self._find(run)
        return entry is not None and not entry.run.status.ended and rank(entry) == place

    def ripen(self, now: Now) -> bool:
        """What is due or has lapsed is in ``ready``; True if there was something."""
        ripe = [*self._due(now), *self._lapsed(now)]
        for entry in ripe:
            heapq.heappush(self._ready, (rank(entry), entry.run.id))
        return bool(ripe)

    def _due(self, now: Now) -> Iterator[Entry]:
        while self._waiting and self._waiting[0][0] <= now.wall:
            entry = self._find(heapq.heappop(self._waiting)[2])
            if entry is not None and entry.run.status is Status.SCHEDULED and claimable(entry, now):
                yield entry

    def _lapsed(self, now: Now) -> Iterator[Entry]:
        while self._leased and self._leased[0][0] <= now.elapsed:
            _, token, run = heapq.heappop(self._leased)
            entry = self._find(run)
            if entry is None or entry.run.token != token:
                continue
            if entry.lapsed(now):
                yield entry
            else:
                self.add(entry)  # it was renewed since

    def peek(self, now: Now) -> tuple[Rank, RunId] | None:
        """The next run to claim, or None."""
        while self._ready:
            place, run = self._ready[0]
            entry = self._find(run)
            stands = entry is not None and rank(entry) == place
            if entry is not None and stands and claimable(entry, now):
                return place, run
            heapq.heappop(self._ready)
            if entry is not None and stands and entry.run.status is Status.SCHEDULED:
                self.add(entry)  # the wall clock went back
        return None

    def pop(self) -> None:
        """Drop what ``peek`` answered."""
        heapq.heappop(self._ready)

    def next_change(self, now: Now) -> int | None:
        """Milliseconds until something may be due or lapse; None: nothing waits."""
        waits = [self._waiting[0][0] - now.wall] if self._waiting else []
        waits += [self._leased[0][0] - now.elapsed] if self._leased else []
        return min(waits) if waits else None

    def rebuild(self, entries: Iterable[Entry]) -> None:
        """Only these entries are left; hints of runs that are gone take no memory any more."""
        kept = list(entries)
        self._waiting, self._leased, self._ready = [], [], []
        self._most = 2 * len(kept) + _SPARE
        for entry in kept:
            self.add(entry)
