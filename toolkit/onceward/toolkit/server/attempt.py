"""One attempt of a run in this process, from the claim to the check-out."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from onceward.contracts import CheckOut, Failure, InvalidRequest, Json, LeaseLost, Run, canonical
from onceward.toolkit.jobs.context import JobContext
from onceward.toolkit.jobs.errors import FatalError
from onceward.toolkit.jobs.launch import Launcher
from onceward.toolkit.jobs.outcome import ended_by, succeeded
from onceward.toolkit.jobs.settings import Where
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.renewal import HeldLease, Renewer
from onceward.toolkit.server.capacity import Plan
from onceward.toolkit.server.offload import run_in_process

log = logging.getLogger("onceward.server")


class TimedOut(TimeoutError):
    """The body took longer than the job's timeout."""


class OutdatedData(FatalError):
    """The job's ``upgrade`` cannot make sense of what the run was submitted with."""


class Attempt:
    """One attempt. Its body runs once; its check-out is made once, by whoever comes first: the body, or a shutdown.

    Attributes:
        began: when it was claimed, on this process's clock for leases.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        held: HeldLease,
        *,
        renewer: Renewer,
        launcher: Launcher,
        stopping: threading.Event,
        on_end: Callable[[Attempt, CheckOut | None], object],
    ) -> None:
        self.run, self.plan, self.held = run, plan, held
        self.began = lease_time()
        self.timed_out = False
        self._on_end = on_end
        self._pid = os.getpid()
        self._ended = threading.Lock()
        self.context = JobContext(run, held, renewer=renewer, launcher=launcher, stopping=stopping, data=run.payload)
        self.stop_body: Callable[[], object] | None = None
        """Ends the body from outside, where that can be done: a coroutine's task, a process."""

    @property
    def took(self) -> timedelta:
        """How long it has been here."""
        return timedelta(seconds=lease_time() - self.began)

    def perform(self) -> None:
        """The body has run, here and now, and its end is told."""
        ending: CheckOut | None
        try:
            with self.context.entered():
                self._prepare()
                result = self._run()
                if result is not None and inspect.isawaitable(result):  # a plain function that answers with a coroutine
                    result = asyncio.run(_awaited(result))
            ending = self._well(result)
        except BaseException as error:  # also SystemExit: a job does not end its server
            ending = self._badly(error)
        self._leave_if_forked()
        self.end(ending)

    def _run(self) -> Any:
        job = self.plan.job
        return run_in_process(job, self.context) if job.where == Where.PROCESS else job.run(self.context)

    async def perform_async(self) -> None:
        """The same for a coroutine function, in an event loop."""
        ending: CheckOut | None
        try:
            with self.context.entered():
                self._prepare()
                result = await self.plan.job.run(self.context)
            ending = self._well(result)
        except BaseException as error:  # as above; a cancelled task has no other way to say so
            ending = self._badly(error)
        self._leave_if_forked()
        self.end(ending)

    def end(self, checkout: CheckOut | None) -> bool:
        """It has ended so (None: its lease lapses); False: it had ended before, and this one is dropped."""
        if not self._ended.acquire(blocking=False):
            return False
        self._on_end(self, checkout)
        return True

    def dropped(self) -> None:
        """Its body is over; if it never began, since it was stopped before, that is its end."""
        if not self._ended.locked():
            self.end(self._badly(asyncio.CancelledError("stopped before it began")))

    def give_up(self) -> bool:
        """It is given back unfinished, at its old place; its body, if it still runs, is told that the lease is lost."""
        self.held.lost.set()
        return self.end(CheckOut.released(self.held.lease, at=self.run.run_at))

    def check_time(self) -> None:
        """A body that takes too long, or whose lease is lost, is told; one that can be ended from outside is."""
        timeout = self.plan.settings.timeout
        if timeout is not None and not self.timed_out and self.took >= timeout:
            self.timed_out = True
            log.warning("%s #%d has reached its timeout of %s", self.run.id, self.run.attempt, timeout)
            self.held.cancelled.set()
        if self.timed_out and self.took >= 2 * (timeout or timedelta(0)):
            self.held.stop()  # nobody can end a thread: its lease lapses, and the run is somebody else's
        if self.stop_body is not None and (self.held.lost.is_set() or self.held.cancelled.is_set()):
            self.stop_body()

    def _prepare(self) -> None:
        self.held.raise_if_lost()
        try:
            self.context.data = self.plan.job.upgrade(self.run.payload)
        except Exception as error:
            raise OutdatedData(f"{type(error).__name__}: {error}") from error

    def _well(self, result: Json) -> CheckOut:
        try:
            if result is not None:
                canonical(result, field="result")
        except InvalidRequest as error:
            return CheckOut.failed(self.held.lease, Failure.of(error))  # the work is done; again would not mend it
        return succeeded(self.held.lease, result)

    def _badly(self, error: BaseException) -> CheckOut | None:
        if isinstance(error, LeaseLost) and self.held.lost.is_set():
            return None  # no failure of the job's: whoever takes it over counts a crash
        if self.timed_out and not isinstance(error, LeaseLost):
            said = Failure.of(error)
            error = TimedOut(f"took longer than {self.plan.settings.timeout}: {said.type}: {said.message}")
        try:
            return self._ended_by(error)
        except Exception as worse:  # an exception of the job's own making that lacks what its class promises
            log.warning("%s: %s cannot say how the attempt ends: %r", self.run.id, type(error).__name__, worse)
            with suppress(Exception):  # then it is the policy that cannot, and will not the next time
                return self._ended_by(worse)
            return CheckOut.failed(self.held.lease, Failure.of(error, traced=True))

    def _ended_by(self, error: BaseException) -> CheckOut:
        return ended_by(
            error,
            lease=self.held.lease,
            run=self.run,
            retry=self.plan.settings.retry,
            cancelled=self.held.cancelled.is_set() and not self.timed_out,
        )

    def _leave_if_forked(self) -> None:
        """A child that the body forked, and that came back from it, is no server: it ends here."""
        if os.getpid() != self._pid:
            os._exit(0)


async def _awaited(result: object) -> Json:
    found: Json = await result  # type: ignore[misc]  # inspect.isawaitable said so
    return found
