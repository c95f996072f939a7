"""Mutants of the store on SQLite: what goes wrong only between clients, between processes, or when one is killed."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from onceward.conformance.harness import Opening, SqliteHarness
from onceward.contracts import (
    Admission,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    Clock,
    Lease,
    LockAnswer,
    LockId,
    LockRequest,
    LockState,
    Renewal,
    Renewed,
    Run,
    RunId,
    Runner,
    RunQuery,
    Status,
)
from onceward.contracts import transitions as t
from onceward.contracts.times import span_ms
from onceward.runners.memory.locks import Locks
from onceward.runners.sqlite import SqliteStore, rows

from .planted import Mutant, declare


class Meddled(SqliteStore):
    """A store whose subclasses change one thing; ``prepare`` is for what they remember."""

    def __init__(self, path: str | os.PathLike[str], namespace: str = "default", clock: Clock | None = None) -> None:
        super().__init__(path, namespace, clock)
        self.prepare()

    def prepare(self) -> None:
        """The mutant has what it needs, which is nothing for most."""


STORES: dict[str, type[Meddled]] = {}


def open_mutant(store: str, path: str, namespace: str) -> Runner:
    """A mutant on SQLite, as other processes open it. Not opened yet."""
    return Runner.of(STORES[store](path, namespace=namespace), namespace=namespace, url=f"mutant:{store}")


class SqliteMutantHarness(SqliteHarness):
    """Examines a kind of store on SQLite."""

    def __init__(self, store: type[Meddled]) -> None:
        super().__init__(name=f"mutant:{store.__name__}")
        self.store = store

    def timed_runner(self) -> Runner:
        return self._timed(super().timed_runner())

    def _timed(self, healthy: Runner) -> Runner:
        healthy.close()
        return self.opening(healthy).open()

    def opening(self, runner: Runner) -> Opening:
        arguments = {"store": self.store.__name__, "path": str(self.path), "namespace": runner.namespace}
        return Opening(call="mutants.sqlites:open_mutant", arguments=arguments)

    def _manual(self, namespace: str) -> Runner:
        store = self.store(self.path.with_suffix(".manual.db"), namespace=namespace, clock=self.clock)
        return Runner.of(store, namespace=namespace, url=self.name)


def planted(profile: str, *caught_by: str) -> Callable[[type[Meddled]], type[Meddled]]:
    """The decorated store on SQLite has a bug, to be seen by one of these properties of the profile."""

    def register(store: type[Meddled]) -> type[Meddled]:
        STORES[store.__name__] = store
        declare(
            Mutant(
                name=store.__name__,
                bug=(store.__doc__ or "").strip(),
                harness=lambda: SqliteMutantHarness(store),
                profile=profile,
                caught_by=caught_by,
            )
        )
        return store

    return register


@planted("checkin", "checkin.history")
class ReadThenWriteBetweenProcesses(Meddled):
    """OpenAF's locks on a table (M40): reading and writing are two transactions; a lock of the process is no help."""

    def checkin(self, request: CheckIn) -> Admission:
        seen = self.check(request.run)
        answer = super().checkin(request)
        if seen is not None or answer.outcome is not CheckInOutcome.RUNNING:
            return answer
        with self._database.write() as connection:  # it was absent when this looked, so it is written
            found, now = rows.find(connection, self._ns, request.run), self._now()
            assert found is not None  # it is running
            ms = None if request.lease is None else span_ms(request.lease)
            token = rows.draw(connection)
            entry = t.hold(found, holder=request.holder, request=request.request, lease_ms=ms, now=now, token=token)
            rows.write(connection, found, entry)
        known = self.check(request.run)
        assert known is not None  # just written
        return Admission(outcome=CheckInOutcome.ADMITTED, run=known, remaining=request.lease)


@planted("lock", "lock.model", "lock.race")
class LocksOfOneProcess(Meddled):
    """threading.Lock where a lock of all processes was promised (node-cron, Ghost's queue, G39)."""

    def prepare(self) -> None:
        self._mine = Locks()
        self._tokens = 0

    def _next(self) -> int:
        self._tokens += 1
        return self._tokens

    def lock(self, request: LockRequest) -> LockAnswer:
        return self._mine.lock(request, self._now(), token=self._next)

    def unlock(self, lease: Lease) -> bool:
        return self._mine.unlock(lease, self._now())

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        return [
            self._mine.renew(each, self._now())
            if isinstance(each.lease.resource, LockId)
            else super(LocksOfOneProcess, self).renew([each])[0]
            for each in renewals
        ]

    def locks(self) -> Sequence[LockState]:
        return self._mine.states(self._now())

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        if isinstance(resource, LockId):
            return self._mine.force(resource, self._now(), token, next_token=self._next)
        return super().force_unlock(resource, token=token)


@planted("checkin", "checkin.model")
class StaleReads(Meddled):
    """A read from a replica, or from a cache: a client does not see what others wrote since it last looked."""

    def prepare(self) -> None:
        self.seen: dict[RunId, Run] = {}

    def check(self, run: RunId) -> Run | None:
        known = self.seen.get(run)
        if known is not None and known.status is Status.RUNNING:
            return known
        found = super().check(run)
        if found is not None:
            self.seen[run] = found
        return found

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        for each in checkouts:
            self.seen.pop(each.run, None)
        return super().checkout(checkouts)


@planted("durable", "durable.kill", "durable.reopen")
class AnswersBeforeCommit(Meddled):
    """Write-behind: check-outs are acknowledged, and written with the next ones; a crash in between loses them (G6)."""

    def prepare(self) -> None:
        self.behind: list[CheckOut] = []

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        self._flush()
        self.behind = list(checkouts)
        known = [self.check_now(each.run) for each in checkouts]
        return [run is not None and t.holds(run, each.lease) for run, each in zip(known, checkouts, strict=True)]

    def check_now(self, run: RunId) -> Run | None:
        """What is really in the file."""
        return super().check(run)

    def check(self, run: RunId) -> Run | None:
        self._flush()
        return super().check(run)

    def runs(self, query: RunQuery) -> Sequence[Run]:
        self._flush()
        return super().runs(query)

    def claim(self, request: Claim) -> Sequence[Run]:
        self._flush()
        return super().claim(request)

    def _flush(self) -> None:
        behind, self.behind = self.behind, []
        if behind:
            super().checkout(behind)


@planted("durable", "durable.kill", "durable.reopen")
class LocksForgottenAtClose(Meddled):
    """close() lets go of everything of this client, also of what it must go on holding (Pulse, stop(), S110)."""

    def close(self) -> None:
        try:
            for run in self.runs(RunQuery(statuses=frozenset({Status.RUNNING}))):
                self.force_unlock(run.id)
        finally:
            super().close()


@planted("checkin", "checkin.race", "checkin.history")
class BusyComesOut(Meddled):
    """'database is locked' (sqlite3 with its usual settings): a driver's error comes out of a right request."""

    def checkin(self, request: CheckIn) -> Admission:
        with sqlite3.connect(self._database.path, timeout=0.0, isolation_level=None) as impatient:
            impatient.execute("BEGIN IMMEDIATE")
            impatient.execute("ROLLBACK")
        impatient.close()
        return super().checkin(request)


@planted("checkin", "checkin.crash")
class LeaseFromLastLook(Meddled):
    """A takeover is due when the *asker* has waited for a lease, not when the holder's lease is over."""

    def prepare(self) -> None:
        self.first: dict[RunId, float] = {}

    def checkin(self, request: CheckIn) -> Admission:
        answer = super().checkin(request)
        if answer.outcome is CheckInOutcome.RUNNING:
            first = self.first.setdefault(request.run, time.monotonic())
            if time.monotonic() - first > timedelta(milliseconds=200).total_seconds():
                self.force_unlock(request.run)
                return super().checkin(request)
        return answer
