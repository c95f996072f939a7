"""The manager: jobs that never run twice at once, with a record of every start.

What a start does, in this order:

1. Take the lock of the job's name. Refused: ``LockNotAcquired``, and nothing whatever was changed or remembered.
2. End the records of earlier starts whose process died.
3. Write the run's record, under a key of its own. Where that fails, the lock is given back.
4. Renew both, from a thread that the job cannot block, until the end or the timeout.

And the end: ask the store whether the lock is still ours, write the record's end, release the lock. Records of one
job therefore never overlap. Everything that is released is released by the lease of that very start, never by name.

    with Manager("sqlite:///jobs.db") as manager:
        with manager.job("nightly-import", timeout=timedelta(hours=2)) as job:
            while rows := next_rows():
                if job.should_stop():
                    break
                load(rows, token=job.token)
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from datetime import datetime, timedelta
from types import TracebackType
from typing import Generic, ParamSpec, Self, TypeVar

from onceward.contracts import (
    CheckIn,
    Json,
    Lease,
    LockId,
    LockNotAcquired,
    LockRequest,
    RunId,
    Runner,
    StoreError,
    checks,
    new_holder,
)
from onceward.contracts.records import Record
from onceward.contracts.times import span_ms
from onceward.runners.factory import Source, open_runner
from onceward.toolkit.audit import entry_key, force_unlock
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.locks import DEFAULT_LEASE, NO_WAIT, let_go, take
from onceward.toolkit.manager_history import KEEP_FOR, STAMP, STUCK_AFTER, History, JobReport, JobState, JobView
from onceward.toolkit.manager_job import ManagedJob, Stores, caller, current_job, started_at
from onceward.toolkit.manager_launch import DEFAULT_TIMEOUT, DependencyFailed, Managed, Terms, in_background
from onceward.toolkit.renewal import HeldLease, Renewer
from onceward.toolkit.resend import resend

__all__ = [
    "DependencyFailed", "JobReport", "JobState", "JobView", "Managed", "ManagedJob", "Manager", "Ran", "current_job",
]  # fmt: skip

log = logging.getLogger("onceward.manager")

P = ParamSpec("P")
T = TypeVar("T")


class Ran(Record, Generic[T], frozen=True):
    """A body did run, and this is what it returned."""

    result: T


class Manager:
    """Starts and ends jobs, each under the lock of its name; a context manager.

    Ready once made: the stores are open. One manager serves all threads of a process; any number of processes may
    have one on the same stores.

    Args:
        jobs: where records are kept: a runner, or whatever ``open_runner`` takes (None: the default store).
        locks: where locks are kept; None: with the records.
        namespace: for runners that are opened here.
        lease: how long a lock outlives a process that died, unless a start says otherwise.
        wait: how long a start waits for somebody else's lock, unless it says otherwise. Zero, the default, is to try
            once: an instance that waited for a short job would run it a second time.
    """

    def __init__(
        self,
        jobs: Runner | Source = None,
        locks: Runner | Source = None,
        *,
        namespace: str | None = None,
        lease: timedelta = DEFAULT_LEASE,
        wait: timedelta = NO_WAIT,
    ) -> None:
        checks.required_lease("lease", lease)
        checks.delay("wait", wait)
        self._opened: list[Runner] = []
        self._lease = lease
        self._wait = wait
        self.holder = new_holder()
        self.stores = self._open(jobs, locks, namespace)
        self.history = History(self.stores, holder=self.holder)
        self._renew_records = Renewer(self.stores.jobs.executor)
        together = self.stores.locks.executor is self.stores.jobs.executor
        self._renew_locks = self._renew_records if together else Renewer(self.stores.locks.executor)
        self._guard = threading.Lock()
        self._started: list[ManagedJob] = []
        self._functions: dict[str, Callable[..., object]] = {}
        self._launched: list[tuple[str, Future[object]]] = []

    def job(
        self,
        name: str,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        wait: timedelta | None = None,
        note: str | None = None,
        lease: timedelta | None = None,
    ) -> contextlib.AbstractContextManager[ManagedJob]:
        """A ``with`` block that runs under the lock of ``name``, is recorded, and ends when the body does.

        Entering raises what ``start`` raises; leaving, what ``ManagedJob.end`` raises. The body's own exception is
        recorded as the job's error and goes on.
        """
        return self._job(name, Terms(timeout=timeout, wait=wait, note=note, lease=lease))

    def start(
        self,
        name: str,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        wait: timedelta | None = None,
        note: str | None = None,
        lease: timedelta | None = None,
    ) -> ManagedJob:
        """The job has started: its lock is ours, its record is written, both are kept alive. Call ``end`` in the end.

        Args:
            name: the job, and its lock.
            timeout: the longest it may run. Then nothing is renewed any more, and the lock is free ``lease`` later.
            wait: how long to wait for somebody else's lock; zero: try once; None: the manager's.
            note: shown to whoever looks at the lock.
            lease: how long the lock outlives this process; None: the manager's.

        Raises:
            LockNotAcquired: somebody else runs the job; nothing was changed.
            InvalidRequest: says which argument is wrong, and what is allowed.
            StoreUnavailable: the job has not started.
            OutcomeUnknown: the job has not started; a lock that it may have taken is given back, or lapses.
        """
        return self.start_on(name, Terms(timeout=timeout, wait=wait, note=note, lease=lease))

    def try_start(self, name: str, *, timeout: timedelta = DEFAULT_TIMEOUT) -> ManagedJob | None:
        """Like ``start``, without waiting; None: somebody else runs the job, and nothing was changed."""
        try:
            return self.start(name, timeout=timeout, wait=NO_WAIT)
        except LockNotAcquired:
            return None

    def try_run(self, name: str, body: Callable[[], T], *, timeout: timedelta = DEFAULT_TIMEOUT) -> Ran[T] | None:
        """The body has run as the job ``name``, or, as None says, somebody else runs that job. One atomic decision."""
        job = self.try_start(name, timeout=timeout)
        if job is None:
            return None
        with job:
            return Ran(result=body())

    def start_on(self, name: str, terms: Terms) -> ManagedJob:
        """Like ``start``."""
        checks.name("name", name)
        checks.required_lease("timeout", terms.timeout)
        checks.lease("lease", terms.lease)
        lease = min(terms.lease or self._lease, terms.timeout)
        request = LockRequest(lock=LockId(name), holder=self.holder, lease=lease, note=terms.note)
        granted, sent = take(self.stores.locks, request, wait=self._wait if terms.wait is None else terms.wait)
        lock = self._renew_locks.keep(granted, sent=sent)
        try:
            self.history.reap(name)
            record = self._write(name, granted, terms)
        except BaseException:
            with contextlib.suppress(StoreError):
                let_go(self.stores.locks.executor, lock)
            raise
        job = ManagedJob(self.stores, lock=lock, record=record, timeout=terms.timeout, sent=sent, on_end=self._forget)
        with self._guard:
            self._started.append(job)
        return job

    def end(self, name: str, result: Json = None) -> None:
        """The job that the calling thread (or asyncio task) started under this name has ended well.

        Raises:
            InvalidRequest: it has started none, or ended it before. Elsewhere, end a job by the object that ``start``
                answered with.
        """
        own = self._own(name)
        if not own:
            checks.refuse("name", name, "a job that this thread or task has started and not yet ended")
        own[0].end(result)

    def error(self, error: BaseException, name: str | None = None) -> None:
        """The jobs that the calling thread (or asyncio task) started, or only that name, have ended with an error.

        Nothing else is touched: no job of another thread, and none that failed to start.
        """
        for job in self._own(name):
            job.error(error)

    def managed(
        self,
        name: str | None = None,
        *,
        timeout: timedelta = DEFAULT_TIMEOUT,
        wait: timedelta | None = None,
        note: str | None = None,
        lease: timedelta | None = None,
        after: Sequence[str] = (),
    ) -> Callable[[Callable[P, T]], Managed[P, T]]:
        """A decorator: each call of the function is a start of the job, and ``launch`` knows it by its own name.

        Args:
            name: the job's name, or a template over the arguments, as in ``"batch-{batch_id}"``; None: the function's.
            timeout: as for ``start``.
            wait: as for ``start``.
            note: as for ``start``.
            lease: as for ``start``.
            after: jobs whose latest start must have ended well first; waited for, at most ``timeout`` each.
        """
        terms = Terms(timeout=timeout, wait=wait, note=note, lease=lease)

        def decorate(body: Callable[P, T]) -> Managed[P, T]:
            function = Managed(self, body, name=name or body.__name__, terms=terms, after=after)
            self._functions[body.__name__] = function
            return function

        return decorate

    def launch(
        self,
        job: str | Callable[..., object],
        args: Mapping[str, object] | None = None,
        *,
        name: str | None = None,
        timeout: timedelta | None = None,
        after: Sequence[Future[object]] = (),
    ) -> Future[object]:
        """The job runs in the background; the future has its result, or what ``start`` or the job raised.

        Args:
            job: a managed function or the name of one; or any function, which then runs as the job ``name``.
            args: the function's arguments, by name. They fill the template of the job's name, too.
            name: another name or template for the job.
            timeout: another timeout.
            after: launched jobs that must have ended well first; where one fails, so does this, without starting.
                What ``managed(after=...)`` names is waited for in the same way, if it was launched before this.
        """
        function = self._function(job, name, timeout)
        given = dict(args or {})
        lock_name = function.lock_name(**given)
        with self._guard:
            self._launched = [(known, future) for known, future in self._launched if not future.done()]
            first = [*after, *(future for known, future in self._launched if known in function.after)]

            def body() -> object:
                for earlier in first:
                    earlier.result()
                return function(**given)

            future = in_background(body, called=lock_name)
            self._launched.append((lock_name, future))
        return future

    def wait_for(self, name: str, *, timeout: timedelta, since: datetime | None = None) -> JobView:
        """The latest start of a job has ended; see ``History.wait_for``."""
        return self.history.wait_for(name, timeout=timeout, since=since)

    def status(self, name: str) -> str:
        """What there is to say of the latest start of a job, as text for people."""
        return self.history.status(name)

    def jobs(self, name: str | None = None, *, running: bool = False) -> Sequence[JobView]:
        """All known starts, the latest first; see ``History.jobs``."""
        return self.history.jobs(name, running=running)

    def report(self) -> Sequence[JobReport]:
        """The known runs in numbers, one report per job."""
        return self.history.report()

    def stuck(self, longer_than: timedelta = STUCK_AFTER) -> Sequence[JobView]:
        """Jobs that have been running for longer than this."""
        return self.history.stuck(longer_than)

    def cleanup(self, older_than: timedelta = KEEP_FOR, *, name: str | None = None) -> int:
        """Records that ended at least so long ago are gone; see ``History.cleanup``."""
        return self.history.cleanup(older_than, name=name)

    def force_unlock(self, name: str, *, reason: str, who: str | None = None, token: int | None = None) -> Lease | None:
        """Whoever holds the lock of a job has lost it at once; written down; see ``audit.force_unlock``."""
        return force_unlock(
            self.stores.locks, LockId(name), reason=reason, who=who, token=token, journal=self.stores.jobs
        )

    def close(self) -> None:
        """What was launched has ended, and nothing is renewed any more. Runners that were given stay open."""
        with self._guard:
            launched = [future for _, future in self._launched]
        wait(launched)
        with self._guard:
            held = [str(job.run) for job in self._started]
        if held:
            log.warning("closed while jobs were running, whose locks will lapse: %s", ", ".join(held))
        for renewer in (self._renew_records, self._renew_locks):
            renewer.close()
        for runner in self._opened:
            runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _job(self, name: str, terms: Terms) -> Iterator[ManagedJob]:
        with self.start_on(name, terms) as job:
            yield job

    def _open(self, jobs: Runner | Source, locks: Runner | Source, namespace: str | None) -> Stores:
        for_jobs = self._runner(jobs, namespace)
        try:
            for_locks = for_jobs if locks is None else self._runner(locks, namespace)
        except BaseException:
            for runner in self._opened:
                runner.close()
            raise
        if for_jobs.traits.shared and not for_locks.traits.shared:
            log.warning("records are shared between processes but locks are not: each process has its own locks")
        return Stores(jobs=for_jobs, locks=for_locks)

    def _runner(self, source: Runner | Source, namespace: str | None) -> Runner:
        if isinstance(source, Runner):
            return source.open()
        runner = open_runner(source, namespace=namespace)
        self._opened.append(runner)
        return runner

    def _write(self, name: str, granted: Lease, terms: Terms) -> HeldLease:
        """The record of this start, held."""
        run = RunId(name, entry_key(started_at(granted), granted.token), STAMP)
        payload: dict[str, Json] = {"lock_token": granted.token, "timeout_ms": span_ms(terms.timeout)}
        if terms.note is not None:
            payload["note"] = terms.note
        request = CheckIn(run=run, holder=self.holder, lease=granted.duration, max_crashes=0, payload=payload)
        sent = lease_time()
        admission = resend(lambda: self.stores.jobs.executor.checkin(request))
        assert admission.run.lease is not None  # nobody else makes this key
        return self._renew_records.keep(admission.run.lease, sent=sent)

    def _own(self, name: str | None) -> Sequence[ManagedJob]:
        """What the calling thread or task has started and not yet ended, the latest first."""
        me = caller()
        with self._guard:
            return [job for job in reversed(self._started) if job.starter == me and name in (None, job.name)]

    def _forget(self, job: ManagedJob) -> None:
        with self._guard:
            self._started.remove(job)

    def _function(
        self, job: str | Callable[..., object], name: str | None, timeout: timedelta | None
    ) -> Managed[..., object]:
        if isinstance(job, str):
            known = ", ".join(sorted(self._functions)) or "none yet"
            if job not in self._functions:
                checks.refuse("job", job, f"a function decorated with managed(); known: {known}")
            job = self._functions[job]
        if isinstance(job, Managed):
            if name is None and timeout is None:
                return job
            terms = job.terms if timeout is None else Terms(timeout=timeout, wait=job.terms.wait, lease=job.terms.lease)
            return Managed(self, job.body, name=name or job.name, terms=terms, after=job.after)
        terms = Terms(timeout=timeout or DEFAULT_TIMEOUT)
        return Managed(self, job, name=name or str(getattr(job, "__name__", "")), terms=terms)
