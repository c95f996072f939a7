"""The runs of a store in memory, and everything that is derived from them. Called under the store's own lock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence

from onceward.contracts import transitions
from onceward.contracts.records import Run, RunId, Status
from onceward.contracts.requests import Claim, Purge, RunQuery, Want
from onceward.contracts.times import span_ms, to_ms
from onceward.contracts.transitions import Entry, NextToken, Now
from onceward.runners.memory.queue import JobQueue


class Runs:
    """All runs by identity; by job, what may be claimed and what is running; by request, what it holds.

    Args:
        run_changed: called after each write of a run (renewals excepted).
        job_ripened: called when runs of a job came due or lapsed.
    """

    def __init__(self, *, run_changed: Callable[[Run], None], job_ripened: Callable[[str], None]) -> None:
        self._entries: dict[RunId, Entry] = {}
        self._queues: dict[str, JobQueue] = {}
        self._running: dict[str, set[RunId]] = {}
        self._held_by: dict[str, set[RunId]] = {}
        self._ended: dict[RunId, None] = {}
        self._run_changed = run_changed
        self._job_ripened = job_ripened

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def find(self, run: RunId) -> Entry | None:
        """The entry, or None."""
        return self._entries.get(run)

    def held_by(self, request: str) -> Sequence[Entry]:
        """What a request has obtained and nothing has ended since, in the order of its tokens."""
        return sorted((self._entries[run] for run in self._held_by.get(request, ())), key=lambda each: each.run.token)

    def extend(self, entry: Entry) -> None:
        """A renewal is written; only a lease that ends earlier than before changes what is derived from it."""
        before = self._entries[entry.run.id].until
        self._entries[entry.run.id] = entry
        if entry.until is not None and (before is None or entry.until < before):
            self._queue(entry.run.job).add(entry)

    def put(self, found: Entry | None, entry: Entry | None, now: Now) -> None:
        """An entry and everything that is derived from it is written; the same entry again: nothing changed."""
        if entry is None or entry is found:
            return
        run = entry.run
        self._entries[run.id] = entry
        self._note_holder(found, entry)
        running = self._running.setdefault(run.job, set())
        (running.add if run.status is Status.RUNNING else running.discard)(run.id)
        self._ended.pop(run.id, None)
        if run.status.ended:
            self._ended[run.id] = None
        self._queue(run.job).add(entry)
        self.ripen((run.job,), now)
        self._run_changed(run)

    def _note_holder(self, found: Entry | None, entry: Entry) -> None:
        if found is not None and found.run.lease is not None:
            held = self._held_by.get(found.run.lease.request, set())
            held.discard(found.run.id)
            if not held:
                self._held_by.pop(found.run.lease.request, None)
        if entry.run.lease is not None:
            self._held_by.setdefault(entry.run.lease.request, set()).add(entry.run.id)

    def ripen(self, jobs: Iterable[str], now: Now) -> None:
        """What came due or lapsed may be claimed."""
        for job in jobs:
            if self._queue(job).ripen(now):
                self._job_ripened(job)

    def next_change(self, job: str, now: Now) -> int | None:
        """Milliseconds until something of the job may come due or lapse; None: nothing waits."""
        return self._queue(job).next_change(now)

    def take(self, request: Claim, now: Now, *, token: NextToken) -> list[Entry]:
        """Merge the jobs' queues by rank and take from the front, within each job's quota; see ``Executor.claim``."""
        wants = request.wants if request.wants is not None else tuple(Want(job=job) for job in self._queues)
        by_job = {want.job: want for want in wants}
        quota = {want.job: self._quota(want, request, now) for want in wants}
        self.ripen(quota, now)
        heads = [(head[0], job) for job in quota if quota[job] > 0 and (head := self._queue(job).peek(now))]
        heapq.heapify(heads)
        taken: list[Entry] = []
        while heads and len(taken) < request.limit:
            _, job = heapq.heappop(heads)
            entry = self._take_first(by_job[job], request, now, token)
            if entry is not None:
                taken.append(entry)
                quota[job] -= 1
            if quota[job] > 0 and (head := self._queue(job).peek(now)):
                heapq.heappush(heads, (head[0], job))
        return taken

    def _take_first(self, want: Want, request: Claim, now: Now, token: NextToken) -> Entry | None:
        """Hold the first run of the job's queue; None: its crash budget was used up, and it has ended."""
        queue = self._queue(want.job)
        head = queue.peek(now)
        assert head is not None  # a head that was listed stays until it is taken here
        queue.pop()
        found = self._entries[head[1]]
        if transitions.exhausted(found, now):
            self.put(found, transitions.bury(found, now), now)
            return None
        entry = transitions.hold(
            found,
            holder=request.holder,
            request=request.request,
            lease_ms=span_ms(want.lease or request.lease),
            now=now,
            token=token(),
        )
        self.put(found, entry, now)
        return entry

    def _quota(self, want: Want, request: Claim, now: Now) -> int:
        """How many more runs of the job this claim may take."""
        limit = request.limit if want.limit is None else min(want.limit, request.limit)
        if want.max_running is None:
            return limit
        live = sum(not self._entries[run].lapsed(now) for run in self._running.get(want.job, ()))
        return min(limit, want.max_running - live)

    def matching(self, query: RunQuery, now: Now) -> Sequence[Entry]:
        """See ``Lifecycle.runs``."""
        candidates = list(self)
        if query.job is not None and query.key is not None and query.stamp is not None:
            entry = self.find(RunId(query.job, query.key, query.stamp))
            candidates = [] if entry is None else [entry]
        found = [entry for entry in candidates if _matches(entry, query, now)]
        found.sort(key=lambda entry: entry.run.sequence, reverse=not query.oldest_first)
        return found[: query.limit]

    def purge(self, request: Purge, now: Now) -> int:
        """See ``Lifecycle.purge``."""
        doomed = list(self._doomed(request, now))
        for run in doomed:
            del self._entries[run], self._ended[run]
        for job in {run.job for run in doomed}:
            self._queue(job).rebuild(entry for entry in self if entry.run.job == job)
        return len(doomed)

    def _doomed(self, request: Purge, now: Now) -> Iterator[RunId]:
        """Runs to purge, those that ended first coming first."""
        spare = dict.fromkeys(self._queues, -request.keep_last)
        for run in self._ended:
            spare[run.job] += 1
        found, latest = 0, now.wall - span_ms(request.older_than)
        for run in self._ended:
            entry = self._entries[run].run
            spare[run.job] -= 1
            if found >= request.limit:
                return
            if entry.ended is None or to_ms(entry.ended) > latest:
                continue  # not the end: the wall clock may have gone back since
            wanted = request.job in (None, run.job) and request.stamp in (None, run.stamp)
            if wanted and entry.status in request.statuses and spare[run.job] >= 0:
                found += 1
                yield run

    def _queue(self, job: str) -> JobQueue:
        return self._queues.setdefault(job, JobQueue(self._entries.get))


def _matches(entry: Entry, query: RunQuery, now: Now) -> bool:
    run = entry.run
    return (
        query.job in (None, run.job)
        and query.key in (None, run.key)
        and query.stamp in (None, run.id.stamp)
        and run.status in query.statuses
        and (not query.lapsed or entry.lapsed(now))
        and (query.after is None or (run.sequence > query.after if query.oldest_first else run.sequence < query.after))
    )
