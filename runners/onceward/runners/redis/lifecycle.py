"""The store itself: looking, cleaning up, and what only an operator does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from onceward.contracts.errors import StoreError
from onceward.contracts.lifecycle import Health, Lifecycle
from onceward.contracts.records import Lease, LockId, LockState, Run, RunId, Status
from onceward.contracts.requests import Purge, Rearm, RunQuery
from onceward.contracts.times import from_ms, span, span_ms, to_ms
from onceward.runners.encoding import decode
from onceward.runners.redis import rows
from onceward.runners.redis.base import Base
from onceward.runners.redis.names import escaped, original, run_text
from onceward.runners.redis.rows import listed, number, text
from onceward.runners.redis.server import information
from onceward.runners.redis.wire import Reply

_STATUSES = (Status.SCHEDULED, Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
_BEHIND_ALL = 2**53
#: What the server says of itself, as health shows it.
_SHOWN = (
    "redis_version", "valkey_version", "role", "connected_slaves", "aof_enabled", "maxmemory_policy",
    "used_memory", "maxmemory", "connected_clients", "uptime_in_seconds",
)  # fmt: skip


class LifecyclePart(Base, Lifecycle):
    """``Lifecycle`` on the server, but for opening and closing it."""

    _url: str

    def now(self) -> datetime:
        seconds, micros = listed(self._link.ask("TIME"))
        return from_ms(number(seconds) * 1000 + number(micros) // 1000)

    def health(self) -> Health:
        started = time.perf_counter()
        details: dict[str, str | int | float | bool] = {"store": "redis", "url": self._url}
        try:
            said = information(text(self._link.ask("INFO")))
            details |= {name: _plain(said[name]) for name in _SHOWN if name in said}
        except StoreError as error:
            details["reason"] = str(error)
        latency = timedelta(seconds=time.perf_counter() - started)
        return Health(ok="reason" not in details, latency=latency, details=details)

    def runs(self, query: RunQuery) -> Sequence[Run]:
        """See ``Lifecycle.runs``. One trip, unless matches are rare among very many runs."""
        found: list[Run] = []
        after = query.after if query.after is not None else -1 if query.oldest_first else _BEHIND_ALL
        statuses = query.statuses & {Status.RUNNING} if query.lapsed else query.statuses
        while statuses and len(found) < query.limit:
            reply = listed(self._run("runs", *_query(query, after, query.limit - len(found), statuses)))
            found += [rows.run_from(listed(run)) for run in reply[1:]]
            if reply[0] is None:
                break
            after = number(reply[0])
        return found

    def locks(self) -> Sequence[LockState]:
        now, *found = listed(self._run("locks"))
        states = [_lock_state(listed(lock), number(now)) for lock in found]
        return sorted(states, key=lambda state: str(state.lease.resource))

    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        """See ``Lifecycle.counts``. One trip; with a stamp, one for each job, status and 10,000 runs."""
        counts: dict[str, dict[Status, int]] = {}
        if job == "":
            return counts
        for row in listed(self._run("counts", "" if job is None else escaped(job))):
            name, *numbers = listed(row)
            of_job = {status: number(n) for status, n in zip(_STATUSES, numbers, strict=True) if n}
            if stamp is not None:
                stamped = {status: self._count(text(name), status, stamp) for status in of_job}
                of_job = {status: count for status, count in stamped.items() if count}
            if of_job:
                counts[original(text(name))] = of_job
        return counts

    def _count(self, job: str, status: Status, stamp: str) -> int:
        count, after = 0, -1
        while True:
            found, behind = listed(self._run("count_stamp", job, status.value, escaped(stamp), after))
            count += number(found)
            if behind is None:
                return count
            after = number(behind)

    def purge(self, request: Purge) -> int:
        """See ``Lifecycle.purge``. Job by job, some thousands at a time, so that others are served in between."""
        age = span_ms(request.older_than)
        self._run("purge_locks", age)
        gone = 0
        jobs = [request.job] if request.job is not None else sorted(self.counts())
        for job in jobs:
            for deleted in self._purged(job, age, request, gone):
                gone = deleted
        return gone

    def _purged(self, job: str, age: int, request: Purge, gone: int) -> Iterator[int]:
        """How many are gone in all, after each trip."""
        letters = "".join(sorted(status.value[0] for status in request.statuses))
        skip: Reply = 0
        while skip is not None and gone < request.limit:
            deleted, skip = listed(
                self._run(
                    "purge",
                    escaped(job),
                    age,
                    letters,
                    int(request.stamp is not None),
                    escaped(request.stamp or ""),
                    request.keep_last,
                    request.limit - gone,
                    number(skip),
                )
            )
            gone += number(deleted)
            yield gone

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        guard = "" if token is None else str(token)
        if isinstance(resource, LockId):
            reply = self._run("force_lock", escaped(resource.name), guard)
        else:
            reply = self._run("force_run", run_text(resource), guard)
        return None if reply is None else rows.lease_from(resource, listed(reply))

    def rearm(self, rearms: Sequence[Rearm]) -> Sequence[bool]:
        arguments: list[str | int] = []
        for rearm in rearms:
            arguments += (run_text(rearm.run), str(rearm.token))
        return [answer == 1 for answer in self._batch("rearm", arguments, 2)]


def _query(query: RunQuery, after: int, limit: int, statuses: frozenset[Status]) -> Sequence[str | int]:
    return (
        "up" if query.oldest_first else "down",
        after,
        limit,
        int(query.lapsed),
        escaped(query.job or ""),
        escaped(query.key or ""),
        int(query.stamp is not None),
        escaped(query.stamp or ""),
        *sorted(status.value for status in statuses),
    )


def _lock_state(fields: Sequence[Reply], now: int) -> LockState:
    name, holder, token, request, lease_ms, until, acquired, note = fields
    lease = rows.lease_from(LockId(original(text(name))), (holder, token, request, lease_ms, until))
    assert lease.expires is not None  # every lock has a lease that ends
    return LockState(
        lease=lease,
        acquired=from_ms(number(acquired)),
        note=_note(text(note)),
        remaining=span(to_ms(lease.expires) - now),
    )


def _plain(value: str) -> str | int:
    return int(value) if value.isdecimal() else value


def _note(packed: str) -> str | None:
    note = decode(packed or None)
    assert note is None or isinstance(note, str)
    return note
