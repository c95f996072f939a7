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
from onceward.runners.zookeeper.locks import LockForcing, lock_in
from onceward.runners.zookeeper.names import buckets, held, original, parent
from onceward.runners.zookeeper.rows import public, run_of
from onceward.runners.zookeeper.runs import Forcing, Rearming
from onceward.runners.zookeeper.settle import Found, found_in
from onceward.runners.zookeeper.tickets import Stamp
from onceward.runners.zookeeper.wire import Node, Op, Refused

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
            return Health(ok=False, latency=timedelta(0), details=details | {"reason": str(error)})
        latency = timedelta(seconds=time.monotonic() - started)
        return Health(ok=True, latency=latency, details=details | {"members": members})

    def runs(self, query: RunQuery) -> Sequence[Run]:
        stamp, records = self._records(query)
        now = Now(stamp.wall, stamp.wall)
        found = [entry for record in records if _matches(entry := record.entry, query, now)]
        found.sort(key=lambda entry: entry.run.sequence, reverse=not query.oldest_first)
        return [public(entry.run) for entry in found[: query.limit]]

    def locks(self) -> Sequence[LockState]:
        stamp, records = self._below([self._layout.locks])
        now = Now(stamp.wall, stamp.wall)
        entries = (lock_in(record.found) for record in records)
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
        _, locks = self._below([self._layout.locks])
        self._delete([record for record in locks if _is_over(record, latest, stamp.wall)])
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
        """The records among which those are that match, as they are after the stamp."""
        if query.job is not None and query.key is not None and query.stamp is not None:
            seen = self._link.look([self._layout.run(RunId(query.job, query.key, query.stamp))])
            return seen.stamp, list(_found([self._layout.run(RunId(query.job, query.key, query.stamp))], seen.nodes))
        jobs = [query.job] if query.job is not None else None
        if jobs is None:
            jobs = [original(name) for name in self._link.look(lists=[self._layout.jobs]).lists[0] or ()]
        if query.lapsed or query.statuses <= {Status.RUNNING}:
            return self._held(jobs)
        return self._below([self._layout.runs(job) for job in jobs])

    def _held(self, jobs: Sequence[str]) -> tuple[Stamp, list[_Record]]:
        """The runs that are held, or were until they lapsed."""
        seen = self._link.look(lists=[self._layout.live(job) for job in jobs])
        lists = zip(jobs, seen.lists, strict=True)
        paths = [self._layout.run_named(job, held(name).run) for job, names in lists for name in names or ()]
        return seen.stamp, self._read(paths)

    def _below(self, places: Sequence[str]) -> tuple[Stamp, list[_Record]]:
        """All records in the buckets of these nodes."""
        lists = [bucket for place in places for bucket in buckets(place)]
        seen = self._link.look(lists=lists)
        pairs = zip(lists, seen.lists, strict=True)
        return seen.stamp, self._read([f"{bucket}/{name}" for bucket, names in pairs for name in names or ()])

    def _read(self, paths: Sequence[str]) -> list[_Record]:
        return list(_found(paths, self._link.read(paths).nodes if paths else ()))

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


def _found(paths: Sequence[str], nodes: Sequence[Node | None]) -> Iterator[_Record]:
    for path, node in zip(paths, nodes, strict=True):
        found = found_in(node)
        if found is not None:
            yield _Record(path, found)


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
