"""The Director: jobs run exactly once, however many processes want to run them.

Each process makes a Director on the same store and namespace. Whoever wants to run (job, key) checks in; exactly one
is admitted, runs, and checks out. Everybody else is told so and skips.

    director = Director("sqlite:///orders.db")

    @director.checkin("process-order", key="{order_id}")
    def process(order_id: str) -> dict: ...

    with director.checkin("process-order", order_id) as run:   # raises NotAdmitted: a refused body is never run
        run.result = ship(order_id)

    run = director.checkin("process-order", order_id)
    if run.admitted:
        run.checkout(result=ship(order_id))
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from types import MappingProxyType, TracebackType
from typing import Self, Unpack

from onceward.contracts import (
    InvalidRequest,
    Json,
    Purge,
    Run,
    RunId,
    Runner,
    RunQuery,
    Status,
    WaitTimeout,
    checks,
)
from onceward.contracts.records import stamp_text
from onceward.runners.factory import Source, open_runner
from onceward.toolkit import keys
from onceward.toolkit.director_answers import NotAdmitted, Refused
from onceward.toolkit.director_checkin import CheckedIn
from onceward.toolkit.director_desk import Desk, current
from onceward.toolkit.director_policy import Policy, PolicyChanges, WhenAbandoned
from onceward.toolkit.director_view import Stats, seed_view, stats_of
from onceward.toolkit.resend import resend
from onceward.toolkit.waiting import wait_for_end

__all__ = [
    "DEFAULT_STAMP", "CheckedIn", "Director", "NotAdmitted", "Policy", "Refused", "Stats",
    "WhenAbandoned", "current", "seed_view",
]  # fmt: skip

log = logging.getLogger("onceward.director")

DEFAULT_STAMP: Mapping[str, Json] = MappingProxyType({"type": "director"})
#: 40 looks, 1.5 seconds apart.
WAIT_TIMEOUT = timedelta(seconds=60)
CLEANUP_AGE = timedelta(hours=24)
_PAGE = 500
_PURGE_AT_ONCE = 1_000


class Director:
    """A handle on one namespace of one store, under one stamp; set up once, and never changed afterwards.

    Threads may share it. A context manager: leaving it ends the renewal of leases and closes the store if it was
    opened here; runs that are still held are reported in the log, and lapse.
    """

    def __init__(
        self,
        runner: Runner | Source = None,
        *,
        namespace: str | None = None,
        stamp: Mapping[str, Json] = DEFAULT_STAMP,
        **policy: Unpack[PolicyChanges],
    ) -> None:
        """The store is open.

        Args:
            runner: an open runner (which stays yours to close), or what ``open_runner`` takes: a URL, a mapping, a TOML
                file, None for the default store.
            namespace: the channel in which Directors meet; ``default`` unless the source says otherwise.
            stamp: part of every run's identity: the same job and key under different stamps are different runs.
            policy: see ``Policy``: lease, on_failed, on_abandoned, max_crashes.
        """
        self._stamp_text = stamp_text(checks.stamp("stamp", stamp))
        checks.stamp_text("stamp", self._stamp_text or "{}")
        self._stamp: Mapping[str, Json] = MappingProxyType(dict(stamp))
        self._policy = Policy().but(policy)
        self._owns_runner = not isinstance(runner, Runner)
        self._runner = (
            _given(runner, namespace) if isinstance(runner, Runner) else open_runner(runner, namespace=namespace)
        )
        self._desk = Desk(self._runner.executor, stamp=self._stamp_text)
        self._linted: set[str] = set()
        if not self._runner.traits.shared:
            log.info("the store of %r is not shared between processes: it coordinates this one only", self.namespace)

    @property
    def namespace(self) -> str:
        """The channel."""
        return self._runner.namespace

    @property
    def stamp(self) -> Mapping[str, Json]:
        """The fields that are part of every run's identity here."""
        return self._stamp

    @property
    def policy(self) -> Policy:
        """What holds for check-ins that do not say otherwise."""
        return self._policy

    @property
    def runner(self) -> Runner:
        """The store."""
        return self._runner

    # -- running ------------------------------------------------------------------------------------------------

    def checkin(
        self, job: str, key: str | Callable[..., str], *, payload: Json = None, **policy: Unpack[PolicyChanges]
    ) -> CheckedIn:
        """A check-in that is asked as soon as somebody looks at it; see ``CheckedIn``.

        Args:
            job: what is done, for example ``"process-order"``.
            key: what makes this execution unique. In a decorator a template (``"{order_id}"``) or a callable, filled
                from the function's arguments; elsewhere the key itself.
            payload: kept with the run if this makes it.
            policy: what differs from the Director's own.
        """
        checked_in = CheckedIn(self._desk, job, key, policy=self._policy.but(policy), payload=payload)
        self._lint(job)
        return checked_in

    def checkout(self, job: str, key: str, result: Json = None, *, error: BaseException | None = None) -> None:
        """The run that this Director checked in has ended; see ``CheckedIn.checkout``."""
        run = self.run_id(job, key)
        held = self._desk.find(run)
        if held is None:
            raise InvalidRequest("key", key, f"a run of job {job!r} that this Director has checked in and not yet out")
        held.checkout(result, error=error)

    def run_id(self, job: str, key: str) -> RunId:
        """The identity of (job, key) under this Director's stamp."""
        return RunId(job, key, self._stamp_text)

    def _lint(self, job: str) -> None:
        if job not in self._linted:
            self._linted.add(job)
            advice = keys.lint_name(job)
            if advice:
                log.warning("%s", advice)

    # -- looking ------------------------------------------------------------------------------------------------

    def check(self, job: str, key: str) -> Run | None:
        """What the store knows of (job, key); None: nothing. Changes nothing and does not wait."""
        return self._runner.executor.check(self.run_id(job, key))

    def wait(self, job: str, key: str, timeout: timedelta = WAIT_TIMEOUT) -> Run:
        """The run as it ended, well or not; also if it had ended before, or is yet to be checked in.

        Raises:
            WaitTimeout: it did not end in time.
        """
        run = wait_for_end(self._runner, self.run_id(job, key), timeout)
        if run is None:
            raise WaitTimeout(f"Timeout waiting for job '{job}' for uuid '{key}'.")
        return run

    def runs(
        self, job: str | None = None, *, statuses: Collection[Status] = frozenset(Status), oldest_first: bool = False
    ) -> Iterator[Run]:
        """All runs under this stamp, one page after the other, newest first unless asked otherwise."""
        after: int | None = None
        while True:
            query = RunQuery(
                job=job,
                stamp=self._stamp_text,
                statuses=frozenset(statuses),
                oldest_first=oldest_first,
                after=after,
                limit=_PAGE,
            )
            page = self._runner.lifecycle.runs(query)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].sequence

    def list(
        self, job: str | None = None, *, statuses: Collection[Status] = frozenset(Status), limit: int | None = None
    ) -> Sequence[Run]:
        """The runs under this stamp, newest first, at most ``limit``."""
        return tuple(islice(self.runs(job, statuses=statuses), limit))

    def stats(self, job: str | None = None) -> Stats:
        """How many runs under this stamp are completed, failed, being processed."""
        return stats_of(self._runner.lifecycle.counts(job, stamp=self._stamp_text).values())

    def cleanup(self, older_than: timedelta = CLEANUP_AGE, *, job: str | None = None) -> int:
        """Runs under this stamp that ended at least so long ago are gone; the answer is their number.

        What is running or scheduled is never touched. A key that is gone may be admitted again: keep runs for as long
        as duplicates may come.
        """
        removed = 0
        while True:
            request = Purge(older_than=older_than, job=job, stamp=self._stamp_text, limit=_PURGE_AT_ONCE)
            purged = resend(functools.partial(self._runner.lifecycle.purge, request))
            removed += purged
            if purged < _PURGE_AT_ONCE:
                log.info("Cleaned up %d old jobs", removed)
                return removed

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """No lease is renewed any more, and a store that was opened here is closed. May be called twice."""
        held = self._desk.held()
        if held:
            log.warning("closing with %d runs still checked in: %s", len(held), ", ".join(map(str, held[:10])))
        self._desk.renewer.close()
        if self._owns_runner:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _given(runner: Runner, namespace: str | None) -> Runner:
    if namespace is not None and namespace != runner.namespace:
        raise InvalidRequest("namespace", namespace, f"that of the runner given, {runner.namespace!r}, or none")
    return runner.open()
