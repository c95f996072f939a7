"""The store in one process's memory, under one lock. The transitions are those of the contracts, as they stand."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from onceward.contracts import checks, transitions
from onceward.contracts.clock import Clock
from onceward.contracts.lifecycle import Health
from onceward.contracts.records import ConfigDoc, Lease, LockId, LockState, Run, RunId, Status
from onceward.contracts.requests import (
    Admission,
    Cancelled,
    CheckIn,
    CheckOut,
    Claim,
    ConfigWrite,
    Interest,
    LockAnswer,
    LockRequest,
    Purge,
    Rearm,
    Renewal,
    Renewed,
    RunQuery,
    RunSpec,
)
from onceward.contracts.runner import Store
from onceward.contracts.times import due_ms, from_ms, span_ms
from onceward.contracts.traits import Traits
from onceward.contracts.transitions import Entry, Now
from onceward.runners.clock import SystemClock
from onceward.runners.encoding import decode, encode
from onceward.runners.memory.locks import Locks
from onceward.runners.memory.runs import Runs
from onceward.runners.memory.watch import MemoryWatch

TRAITS = Traits(durable=False, shared=False, native_wait=True)


class MemoryStore(Store):
    """A store that lives and dies with its process. Threads may share it; processes cannot.

    Args:
        namespace: of the application; kept for messages only, since the store is private to its maker.
        clock: moves leases and due times; the machine's unless given.
    """

    def __init__(self, namespace: str = "default", clock: Clock | None = None) -> None:
        self.namespace = namespace
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._runs = Runs(run_changed=lambda run: self._tell(run=run), job_ripened=lambda job: self._tell(job=job))
        self._locks = Locks()
        self._configs: dict[str, tuple[ConfigDoc, ConfigWrite]] = {}
        self._watches: set[MemoryWatch] = set()
        self._token = 0
        self._sequence = 0

    # -- the right to run ---------------------------------------------------------------------------------------

    def checkin(self, request: CheckIn) -> Admission:
        request = replace(request, payload=self._text(request.payload, "payload"))
        with self._lock:
            now = self._now()
            found = self._runs.find(request.run)
            outcome, entry = transitions.checkin(
                found, request, now, token=self._next_token, sequence=self._next_sequence
            )
            self._runs.put(found, entry, now)
            return Admission(outcome=outcome, run=_public(entry), remaining=entry.remaining(now))

    def claim(self, request: Claim) -> Sequence[Run]:
        with self._lock:
            now = self._now()
            again = self._runs.held_by(request.request)
            return [_public(entry) for entry in again or self._runs.take(request, now, token=self._next_token)]

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        with self._lock:
            return [self._renew(renewal, self._now()) for renewal in renewals]

    def _renew(self, renewal: Renewal, now: Now) -> Renewed:
        if isinstance(renewal.lease.resource, LockId):
            return self._locks.renew(renewal, now)
        found = self._runs.find(renewal.lease.resource)
        answer, entry = transitions.renew(found, renewal, now)
        if entry is not None:
            self._runs.extend(entry)
        return answer

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        checkouts = [replace(each, result=self._text(each.result, "result")) for each in checkouts]
        with self._lock:
            now = self._now()
            return [self._checkout(each, now) for each in checkouts]

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        found = self._runs.find(request.run)
        recorded, entry = transitions.checkout(found, request, now)
        self._runs.put(found, entry, now)
        return recorded

    def check(self, run: RunId) -> Run | None:
        with self._lock:
            entry = self._runs.find(run)
            return None if entry is None else _public(entry)

    def lock(self, request: LockRequest) -> LockAnswer:
        with self._lock:
            return self._locks.lock(request, self._now(), token=self._next_token)

    def unlock(self, lease: Lease) -> bool:
        with self._lock:
            freed = self._locks.unlock(lease, self._now())
            if freed and isinstance(lease.resource, LockId):
                self._tell(lock=lease.resource.name)
            return freed

    # -- what should run ----------------------------------------------------------------------------------------

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        specs = [replace(spec, payload=self._text(spec.payload, "payload")) for spec in specs]
        with self._lock:
            now = self._now()
            return [self._submit(spec, now) for spec in specs]

    def _submit(self, spec: RunSpec, now: Now) -> bool:
        found = self._runs.find(spec.id)
        if found is None:
            self._runs.put(None, transitions.submit(spec, now, sequence=self._next_sequence()), now)
            return True
        return found.run.origin == spec.request

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        checks.instant("run_at", run_at)
        with self._lock:
            found = self._runs.find(run)
            if found is None or found.run.status is not Status.SCHEDULED:
                return False
            self._runs.put(found, Entry(run=replace(found.run, run_at=from_ms(due_ms(run_at)))), self._now())
            return True

    def cancel(self, run: RunId) -> Cancelled:
        with self._lock:
            found = self._runs.find(run)
            now = self._now()
            answer, entry = transitions.cancel(found, now)
            self._runs.put(found, entry, now)
            return answer

    def watch(self, interest: Interest) -> MemoryWatch:
        watch = MemoryWatch(interest, pass_time=self._pass_time, forget=self._forget)
        with self._lock:
            self._watches.add(watch)
        return watch

    def read_config(self, name: str) -> ConfigDoc | None:
        with self._lock:
            known = self._configs.get(name)
            return None if known is None or known[1].document is None else _public_config(known[0])

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        write = replace(write, document=self._text(write.document, "document"))
        with self._lock:
            known = self._configs.get(write.name)
            if known is not None and known[1].request == write.request:
                return _public_config(known[0])
            exists = known is not None and known[1].document is not None
            version = known[0].version if known is not None else 0
            if write.expected_version != (version if exists else 0):
                return None
            if write.document is None and not exists:
                return None
            kept = known[0].document if write.document is None and known is not None else write.document
            document = ConfigDoc(
                name=write.name, version=version + 1, document=kept, updated=from_ms(self._clock.wall_ms())
            )
            self._configs[write.name] = (document, write)
            self._tell(config=True)
            return _public_config(document)

    def configs(self) -> Sequence[ConfigDoc]:
        with self._lock:
            return [
                _public_config(document)
                for _, (document, write) in sorted(self._configs.items())
                if write.document is not None
            ]

    # -- the store itself ---------------------------------------------------------------------------------------

    @property
    def traits(self) -> Traits:
        return TRAITS

    def open(self) -> None:
        """Nothing to do: it exists."""

    def close(self) -> None:
        """Watches end. What the store holds stays until the object is gone."""
        with self._lock:
            watches = list(self._watches)
        for watch in watches:
            watch.close()

    def now(self) -> datetime:
        return from_ms(self._clock.wall_ms())

    def health(self) -> Health:
        with self._lock:
            return Health(ok=True, latency=timedelta(0), details={"store": "memory", "runs": len(self._runs)})

    def runs(self, query: RunQuery) -> Sequence[Run]:
        with self._lock:
            return [_public(entry) for entry in self._runs.matching(query, self._now())]

    def locks(self) -> Sequence[LockState]:
        with self._lock:
            return self._locks.states(self._now())

    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        with self._lock:
            counts: dict[str, dict[Status, int]] = {}
            for entry in self._runs:
                if job in (None, entry.run.job) and stamp in (None, entry.run.id.stamp):
                    of_job = counts.setdefault(entry.run.job, {})
                    of_job[entry.run.status] = of_job.get(entry.run.status, 0) + 1
            return counts

    def purge(self, request: Purge) -> int:
        with self._lock:
            now = self._now()
            self._locks.purge(now, older_than_ms=span_ms(request.older_than))
            return self._runs.purge(request, now)

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        with self._lock:
            now = self._now()
            if isinstance(resource, LockId):
                lease = self._locks.force(resource, now, token, next_token=self._next_token)
                self._tell(lock=resource.name)
                return lease
            found = self._runs.find(resource)
            if found is None or found.run.lease is None or found.lapsed(now):
                return None
            if token is not None and found.run.token != token:
                return None
            self._runs.put(found, transitions.force_lapse(found, now, token=self._next_token()), now)
            return found.run.lease

    def rearm(self, rearms: Sequence[Rearm]) -> Sequence[bool]:
        with self._lock:
            now = self._now()
            return [self._rearm(each, now) for each in rearms]

    def _rearm(self, request: Rearm, now: Now) -> bool:
        found = self._runs.find(request.run)
        done, entry = transitions.rearm(found, request.token, now)
        self._runs.put(found, entry, now)
        return done

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _now(self) -> Now:
        return Now(self._clock.elapsed_ms(), self._clock.wall_ms())

    def _next_token(self) -> int:
        self._token += 1
        return self._token

    def _next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _text(self, value: object, field: str) -> str | None:
        return encode(value, field=field, most=TRAITS.max_payload_bytes)  # type: ignore[arg-type]

    def _tell(
        self, *, run: Run | None = None, job: str | None = None, lock: str | None = None, config: bool = False
    ) -> None:
        job = run.job if run is not None else job
        for watch in self._watches:
            interest = watch.interest
            if (
                (job in interest.jobs)
                or (lock in interest.locks)
                or (config and interest.configs)
                or (run is not None and run.status.ended and run.id in interest.runs)
            ):
                watch.tell()

    def _pass_time(self, watch: MemoryWatch) -> int | None:
        """Tell watches what became due by now; answer in how many milliseconds to look again (None: need not)."""
        with self._lock:
            now = self._now()
            self._runs.ripen(watch.interest.jobs, now)
            waits = [self._runs.next_change(job, now) for job in watch.interest.jobs]
            for name in watch.interest.locks:
                wait = self._locks.lapses_in(name, now, told=watch.lapses_told)
                if wait == 0:
                    watch.tell()
                waits.append(wait)
            known = [wait for wait in waits if wait is not None]
            return max(0, min(known)) if known else None

    def _forget(self, watch: MemoryWatch) -> None:
        with self._lock:
            self._watches.discard(watch)


def _public(entry: Entry) -> Run:
    """The run as callers get it: payload and result are copies of their own."""
    run = entry.run
    if run.payload is None and run.result is None:
        return run
    return replace(run, payload=decode(_as_text(run.payload)), result=decode(_as_text(run.result)))


def _public_config(document: ConfigDoc) -> ConfigDoc:
    return replace(document, document=decode(_as_text(document.document)))


def _as_text(value: object) -> str | None:
    assert value is None or isinstance(value, str)  # inside the store, payloads are canonical text
    return value
