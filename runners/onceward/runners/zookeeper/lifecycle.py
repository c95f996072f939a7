"""The store itself: open, close, look, clean up, and what only an operator does.

Listings and purges read all records of a job: what they cost grows with their number. Claims never do.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from onceward.contracts import locking
from onceward.contracts.errors import StoreError
from onceward.contracts.lifecycle import Health, Lifecycle
from onceward.contracts.records import Lease, LockId, LockState, Run, RunId, Status
from onceward.contracts.requests import Purge, Rearm, RunQuery
from onceward.contracts.times import from_ms, span_ms, to_ms
from onceward.contracts.traits import Traits
from onceward.contracts.transitions import Entry, Now
from onceward.runners.zookeeper import wire
from onceward.runners.zookeeper.base import Base
from onceward.runners.zookeeper.link import Stamp
from onceward.runners.zookeeper.locks import LockForcing, lock_in
from onceward.runners.zookeeper.names import held, original, parent
from onceward.runners.zookeeper.rows import public, run_of
from onceward.runners.zookeeper.runs import Forcing, Rearming
from onceward.runners.zookeeper.settle import Found, found_in
from onceward.runners.zookeeper.wire import Op, Refused

#: So many records go in one transaction.
_DELETED_TOGETHER = 100


class _Record(NamedTuple):
    """A record, and where it is."""

    path: str
    found: Found

    @property
    def entry(self) -> Entry:
        return run_of(self.found.data, self.found.stamp).entry


class LifecyclePart(Base, Lifecycle):
    """``Lifecycle`` on ZooKeeper."""

    @property
    def traits(self) -> Traits:
        return self._traits

    def now(self) -> datetime:
        return from_ms(self._link.look().stamp.wall)

    def health(self) -> Health:
        started = time.monotonic()
        details: dict[str, str | int | float | bool] = {"store": "zookeeper", "url": self.options.url}
        try:
            members = self._members()
        except StoreError as error:
            return Health(ok=False, latency=timedelta(0), details=details | {"error": str(error)})
        latency = timedelta(seconds=time.monotonic() - started)
        return Health(ok=True, latency=latency, details=details | {"members": members})

    def runs(self, query: RunQuery) -> Sequence[Run]:
        stamp, records = self._records(query)
        now = Now(stamp.wall, stamp.wall)
        found = [entry for record in records if _matches(entry := record.entry, query, now)]
        found.sort(key=lambda entry: entry.run.sequence, reverse=not query.oldest_first)
        return [public(entry.run) for entry in found[: query.limit]]

    def locks(self) -> Sequence[LockState]:
        buckets = self._link.look(lists=[self._layout.locks])
        now = Now(buckets.stamp.wall, buckets.stamp.wall)
        entries = (lock_in(record.found) for record in self._below([self._layout.locks]))
        states = [locking.state(entry, now) for entry in entries if entry is not None and entry.held]
        return sorted(states, key=lambda state: str(state.lease.resource))

    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        _, records = self._records(RunQuery(job=job))
        counts: dict[str, dict[Status, int]] = {}
        for record in records:
            run = record.entry.run
            if stamp in (None, run.id.stamp):
                of_job = counts.setdefault(run.job, {})
                of_job[run.status] = of_job.get(run.status, 0) + 1
        return counts

    def purge(self, request: Purge) -> int:
        stamp, records = self._records(RunQuery(job=request.job))
        latest = stamp.wall - span_ms(request.older_than)
        old = [record for record in self._below([self._layout.locks]) if _is_over(record, latest, stamp.wall)]
        self._delete(old)
        return self._delete(list(_doomed(records, request, latest)))

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        if isinstance(resource, LockId):
            had: Lease | None = self._settler.settle([LockForcing(self._layout, resource, token)])[0]
        else:
            had = self._settler.settle([Forcing(self._lists, resource, token)])[0]
        return had

    def rearm(self, rearms: Sequence[Rearm]) -> Sequence[bool]:
        return self._settler.settle([Rearming(self._lists, each) for each in rearms])

    # -- records ------------------------------------------------------------------------------------------------

    def _records(self, query: RunQuery) -> tuple[Stamp, list[_Record]]:
        """The records among which those are that match."""
        above = [] if query.job is not None else [self._layout.jobs]
        seen = self._link.look(lists=above)
        jobs = [query.job] if query.job is not None else [original(name) for name in (seen.lists[0] or ())]
        if query.job is not None and query.key is not None and query.stamp is not None:
            return seen.stamp, list(self._read([self._layout.run(RunId(query.job, query.key, query.stamp))]))
        if query.lapsed or query.statuses <= {Status.RUNNING}:
            names = self._link.read(lists=[self._layout.live(job) for job in jobs]).lists if jobs else []
            paths = [
                self._layout.run_named(job, held(name).run)
                for job, below in zip(jobs, names, strict=True)
                for name in below or ()
            ]
            return seen.stamp, list(self._read(paths))
        return seen.stamp, list(self._below([f"{self._layout.job(job)}/runs" for job in jobs]))

    def _below(self, places: Sequence[str]) -> Iterator[_Record]:
        """All records below these nodes, which have buckets below them."""
        buckets = self._link.read(lists=places).lists if places else []
        lists = [f"{place}/{name}" for place, names in zip(places, buckets, strict=True) for name in names or ()]
        for path in lists:
            self._settler.generations.pop(path, None)
        names = self._link.read(lists=lists).lists if lists else []
        paths = [f"{path}/{name}" for path, below in zip(lists, names, strict=True) for name in below or ()]
        yield from self._read(paths)

    def _read(self, paths: Sequence[str]) -> Iterator[_Record]:
        for path, node in zip(paths, self._link.read(paths).nodes if paths else (), strict=True):
            found = found_in(node)
            if found is not None:
                yield _Record(path, found)

    def _delete(self, records: Sequence[_Record]) -> int:
        """Records that are still as they were seen are gone, and the generation above them is another; how many."""
        transactions = []
        for at in range(0, len(records), _DELETED_TOGETHER):
            part = records[at : at + _DELETED_TOGETHER]
            transactions.append((part, _deletions(part)))
        deleted = 0
        outcomes = self._link.commit([ops for _, ops in transactions]) if transactions else []
        alone: list[_Record] = []
        for (part, _), outcome in zip(transactions, outcomes, strict=True):
            if isinstance(outcome, StoreError):
                raise outcome
            if isinstance(outcome, Refused):
                alone += part
            else:
                deleted += len(part)
        for outcome in self._link.commit([_deletions([record]) for record in alone]) if alone else ():
            if isinstance(outcome, StoreError):
                raise outcome
            deleted += not isinstance(outcome, Refused)
        return deleted


def _deletions(records: Sequence[_Record]) -> list[Op]:
    generations = dict.fromkeys(parent(record.path) for record in records)
    ops = [wire.change(path, b"") for path in generations]
    return ops + [wire.delete(record.path, record.found.version) for record in records]


def _is_over(record: _Record, latest: int, wall: int) -> bool:
    entry = lock_in(record.found)
    return entry is not None and not entry.live(Now(wall, wall)) and entry.until <= latest


def _doomed(records: Iterable[_Record], request: Purge, latest: int) -> Iterator[_Record]:
    """Runs to purge, those that ended first coming first."""
    ended = [(record, run) for record in records if (run := record.entry.run).ended is not None and run.status.ended]
    ended.sort(key=lambda each: (each[1].ended, each[0].found.stamp.zxid))
    spare: dict[str, int] = {}
    for _, run in ended:
        spare[run.job] = spare.get(run.job, -request.keep_last) + 1
    found = 0
    for record, run in ended:
        spare[run.job] -= 1
        if found >= request.limit:
            return
        assert run.ended is not None  # filtered above
        wanted = request.stamp in (None, run.id.stamp) and run.status in request.statuses
        if wanted and to_ms(run.ended) <= latest and spare[run.job] >= 0:
            found += 1
            yield record


def _matches(entry: Entry, query: RunQuery, now: Now) -> bool:
    run = entry.run
    return (
        query.key in (None, run.key)
        and query.stamp in (None, run.id.stamp)
        and run.status in query.statuses
        and (not query.lapsed or entry.lapsed(now))
        and (query.after is None or (run.sequence > query.after if query.oldest_first else run.sequence < query.after))
    )
