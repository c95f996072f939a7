"""The store itself: looking, cleaning up, and what only an operator does."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice

from onceward.contracts import transitions
from onceward.contracts.errors import StoreError
from onceward.contracts.lifecycle import Health, Lifecycle
from onceward.contracts.records import Lease, LockId, Run, RunId, Status
from onceward.contracts.requests import Purge, Rearm, RunQuery
from onceward.contracts.times import from_ms, span_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.etcd import names, rows, wire
from onceward.runners.etcd.base import Base
from onceward.runners.etcd.fronts import Fronts
from onceward.runners.etcd.link import STATUS
from onceward.runners.etcd.locks import Locks
from onceward.runners.etcd.steps import Item, State, Step
from onceward.runners.etcd.wire import Kv

_PAGE, _LARGEST_PAGE = 64, 2_000
_PURGED_AT_ONCE = 100
_ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class LifecyclePart(Locks, Base, Lifecycle):
    """``Lifecycle`` on the cluster, but for opening and closing it."""

    _url: str
    _existing: Fronts

    def now(self) -> datetime:
        return from_ms(self._now().wall)

    def health(self) -> Health:
        started = time.perf_counter()
        details: dict[str, str | int | float | bool] = {"store": "etcd", "url": self._url}
        try:
            said = self._link.call(STATUS, b"", reads=True)
            details |= {
                "version": wire.texts(said, 2)[0].decode(),
                "database_bytes": wire.integer(said, 3),
                "has_leader": wire.integer(said, 4) != 0,
                "revision": wire.revision(said),
            }
            if not details["has_leader"]:
                details["reason"] = "the cluster has no leader now"
        except StoreError as error:
            details["reason"] = str(error)
        latency = timedelta(seconds=time.perf_counter() - started)
        return Health(ok="reason" not in details, latency=latency, details=details)

    # -- looking ------------------------------------------------------------------------------------------------------

    def runs(self, query: RunQuery) -> Sequence[Run]:
        """See ``Lifecycle.runs``. A few trips, unless matches are rare among very many runs."""
        found: list[Run] = []
        candidates = self._candidates(query)
        while len(found) < query.limit:
            part = list(islice(candidates, max(_PAGE, min(query.limit - len(found), _LARGEST_PAGE))))
            if not part:
                break
            now = self._now()
            states = self._cells.look([(self._names.record(run), self._names.hold(run)) for run in part])
            entries = [
                rows.entry(run, state.record, state.hold, now)
                for run, state in zip(part, states, strict=True)
                if state.record is not None
            ]
            found += [entry.run for entry in entries if _matches(entry, query, now)]
        found.sort(key=lambda run: run.sequence, reverse=not query.oldest_first)
        return [rows.public(run) for run in found[: query.limit]]

    def _candidates(self, query: RunQuery) -> Iterator[RunId]:
        """Runs that may match, in the order that was asked for (or all of them, in any order)."""
        if query.job is not None and query.key is not None:
            return iter(self._namesakes(RunId(query.job, query.key, query.stamp or ""), any_stamp=query.stamp is None))
        scopes = self._jobs(query.job)
        if query.lapsed or query.statuses == {Status.RUNNING}:
            prefix = self._names.prefix + names.RUNNING
            running = [self._listed(prefix + job) for job in scopes]
            return (names.run_named(job[:-1], kv.value) for job, kvs in zip(scopes, running, strict=True) for kv in kvs)
        found = [self._submitted(job, query) for job in scopes]
        merged = heapq.merge(*found, key=lambda each: each[0], reverse=not query.oldest_first)
        return (run for _, run in merged if query.stamp in (None, run.stamp) and query.key in (None, run.key))

    def _jobs(self, job: str | None) -> list[bytes]:
        """The jobs that there are runs of, as they stand in keys; or the one that was asked for."""
        if job is not None:
            return [names.escaped(job).encode() + b"/"]
        return [self._names.parts(row)[0] + b"/" for row in self._existing.rows(self._names.prefix + names.EXISTING)]

    def _namesakes(self, run: RunId, *, any_stamp: bool) -> list[RunId]:
        if not any_stamp:
            return [run]
        stamped = self._names.record(run) + b"/"
        return [run, *(self._names.run_of(kv.key) for kv in self._listed(stamped))]

    def _submitted(self, job: bytes, query: RunQuery) -> Iterator[tuple[int, RunId]]:
        """A job's runs in the order of their submission, or the other way round, behind the last one seen."""
        row = self._names.prefix + names.EXISTING + job
        start, end, size = row, names.behind(row), _PAGE
        if query.after is not None:
            seen = b"%016d" % query.after
            start, end = (row + seen + b"\0", end) if query.oldest_first else (row, row + seen)
        while True:
            request = wire.read(start, end, limit=size) if query.oldest_first else wire.latest(start, end, limit=size)
            page = self._link.read(request).kvs
            for kv in page:
                yield int(self._names.parts(kv.key)[1]), names.run_named(job[:-1], kv.value)
            if len(page) < size:
                return
            start, end = (page[-1].key + b"\0", end) if query.oldest_first else (start, page[-1].key)
            size = min(2 * size, _LARGEST_PAGE)

    def _listed(self, prefix: bytes) -> Iterator[Kv]:
        """All keys that begin so, in order."""
        start, end = prefix, names.behind(prefix)
        while True:
            page = self._link.read(wire.read(start, end, limit=_LARGEST_PAGE)).kvs
            yield from page
            if len(page) < _LARGEST_PAGE:
                return
            start = page[-1].key + b"\0"

    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        """See ``Lifecycle.counts``. Two trips for some dozens of jobs; with a stamp, keys are listed."""
        counts: dict[str, dict[Status, int]] = {}
        if job == "":
            return counts
        jobs = self._jobs(job)
        places = [(each, status, self._row(each, status)) for each in jobs for status in Status]
        for at in range(0, len(places), 100):
            part = places[at : at + 100]
            if stamp is None:
                reads = [wire.get(wire.read(row, names.behind(row), count_only=True)) for _, _, row in part]
                done = self._link.txn(wire.transaction((), reads), reads=True)
                numbers = [done.found(index).total for index in range(len(part))]
            else:
                numbers = [self._stamped(row, each, stamp) for each, _, row in part]
            for (each, status, _), number in zip(part, numbers, strict=True):
                if number:
                    counts.setdefault(names.original(each[:-1]), {})[status] = number
        return counts

    def _row(self, job: bytes, status: Status) -> bytes:
        if status.ended:
            return self._names.prefix + names.ENDED + job + status.value.encode() + b"/"
        return self._names.prefix + (names.SCHEDULED if status is Status.SCHEDULED else names.RUNNING) + job

    def _stamped(self, row: bytes, job: bytes, stamp: str) -> int:
        return sum(names.run_named(job[:-1], kv.value).stamp == stamp for kv in self._listed(row))

    # -- cleaning up --------------------------------------------------------------------------------------------------

    def purge(self, request: Purge) -> int:
        """See ``Lifecycle.purge``. Two trips for each hundred runs, and some for each job."""
        age = span_ms(request.older_than)
        self._purge_locks(age)
        latest, gone = self._now().wall - age, 0
        for job in self._jobs(request.job):
            doomed = self._doomed(job, latest, request)
            while gone < request.limit:
                part = list(islice(doomed, min(_PURGED_AT_ONCE, request.limit - gone)))
                if not part:
                    break
                done = self._link.txn(wire.transaction((), [wire.within(self._purging(kv)) for kv in part]))
                gone += sum(done.nested(index).succeeded for index in range(len(part)))
        return gone

    def _doomed(self, job: bytes, latest: int, request: Purge) -> Iterator[Kv]:
        """What says that runs of a job have ended which may go, those that ended first coming first."""
        ended = [self._row(job, status) for status in _ENDED]
        reads = [wire.get(wire.read(row, names.behind(row), count_only=True)) for row in ended]
        done = self._link.txn(wire.transaction((), reads), reads=True)
        spare = sum(done.found(index).total for index in range(len(ended))) - request.keep_last
        for kv in islice(heapq.merge(*map(self._listed, ended), key=self._when), max(0, spare)):
            _, status, moment, _ = self._names.parts(kv.key)
            if int(moment) > latest:
                return
            stamp = names.run_named(job[:-1], kv.value).stamp
            if Status(status.decode()) in request.statuses and request.stamp in (None, stamp):
                yield kv

    def _when(self, kv: Kv) -> tuple[bytes, bytes]:
        _, _, moment, sequence = self._names.parts(kv.key)
        return moment, sequence

    def _purging(self, kv: Kv) -> bytes:
        """If the run is still what it was, nothing is left of it."""
        job, _, _, sequence = self._names.parts(kv.key)
        run = self._names.prefix + names.RECORD + job + b"/" + kv.value
        keys = (kv.key, run, self._names.of(names.EXISTING, job, sequence))
        return wire.transaction([wire.unchanged(kv.key, kv.modified)], [wire.delete(key) for key in keys])

    # -- what only an operator does -----------------------------------------------------------------------------------

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        if isinstance(resource, LockId):
            return self._forced(resource, token)

        def decide(found: Entry | None, state: State, now: Now) -> Step[Lease | None]:
            lease = None if found is None else found.run.lease
            if found is None or lease is None or found.lapsed(now) or token not in (None, found.run.token):
                return Step(answer=lambda _: None)
            after = transitions.force_lapse(found, now, token=rows.OWN)
            return self._let_go(state, found, after, lambda _: lease)

        return self._cells.change(self._item(resource, decide))

    def rearm(self, rearms: Sequence[Rearm]) -> Sequence[bool]:
        return self._cells.change_all([self._rearmed(rearm) for rearm in rearms])

    def _rearmed(self, rearm: Rearm) -> Item[bool]:
        def decide(found: Entry | None, state: State, now: Now) -> Step[bool]:
            done, after = transitions.rearm(found, rearm.token, now)
            if found is None or after is None or after is found:
                return Step(answer=lambda _: done)
            return self._written(found, after.run, lambda _: done)

        return self._item(rearm.run, decide)


def _matches(entry: Entry, query: RunQuery, now: Now) -> bool:
    run = entry.run
    return (
        query.stamp in (None, run.id.stamp)
        and query.key in (None, run.key)
        and run.status in query.statuses
        and (not query.lapsed or entry.lapsed(now))
        and (query.after is None or (run.sequence > query.after if query.oldest_first else run.sequence < query.after))
    )
