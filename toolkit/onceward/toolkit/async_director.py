"""The Director for asyncio: the same core behind a bounded pool of threads, so the loop never waits for a store.

    async with AsyncDirector("sqlite:///orders.db", lease=timedelta(seconds=30)) as director:

        @director.checkin("process-order", key="{order_id}")
        async def process(order_id: str) -> dict: ...

        async with director.checkin("process-order", order_id) as run: ...

        if await director.checkin("process-order", order_id): ...

Cancelling a task loses nothing: a check-in that is admitted all the same is given back, and a check-out that is under
way goes on to its end. Leases are renewed by a thread, so a loop that is blocked keeps them.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from onceward.contracts import (
    CheckInOutcome,
    InvalidRequest,
    Json,
    OncewardError,
    Run,
    Runner,
    Status,
    WaitTimeout,
    checks,
)
from onceward.runners.factory import Source
from onceward.toolkit.director import CLEANUP_AGE, DEFAULT_STAMP, WAIT_TIMEOUT, Director
from onceward.toolkit.director_answers import NotAdmitted, Refused
from onceward.toolkit.director_checkin import CheckedIn, is_coroutine
from onceward.toolkit.director_desk import Entered, enter, leave
from onceward.toolkit.director_policy import PolicyChanges
from onceward.toolkit.director_view import Stats

__all__ = ["AsyncCheckedIn", "AsyncDirector"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

log = logging.getLogger("onceward.director")

_WAITING_THREADS = 32
_WAIT_AT_ONCE = timedelta(seconds=1)


class Threads:
    """Two bounded pools: one for calls that are quick, and one for waits, which must not keep check-outs waiting."""

    def __init__(self, calls: int) -> None:
        checks.whole("threads", calls, 1, 1_000)
        self._calls = ThreadPoolExecutor(calls, "onceward-call")
        self._waits = ThreadPoolExecutor(_WAITING_THREADS, "onceward-wait")

    async def call(self, function: Callable[[], T], *, undo: Callable[[], None] | None = None) -> T:
        """The answer of ``function``. If the task is cancelled meanwhile but the call is made, it is undone."""
        future = self._calls.submit(function)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if undo is not None and not future.cancelled():
                future.add_done_callback(lambda _: self._later(undo))
            raise

    async def finish(self, function: Callable[[], T]) -> T:
        """The answer of ``function``, which is called and comes to its end even if the task is cancelled meanwhile."""
        future = self._calls.submit(function)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.add_done_callback(_report)
            raise

    async def wait(self, function: Callable[[], T]) -> T:
        """The answer of ``function``, which waits for something."""
        return await asyncio.wrap_future(self._waits.submit(function))

    def _later(self, function: Callable[[], None]) -> None:
        try:
            self._calls.submit(function).add_done_callback(_report)
        except RuntimeError:  # closing: this is a thread of the pool, and the last one to use the store
            function()

    def close(self) -> None:
        """All calls have come to their end."""
        self._waits.shutdown(cancel_futures=True)
        self._calls.shutdown()


def _report(future: Future[Any]) -> None:
    """An error that no task is there to receive goes to the log."""
    if not future.cancelled() and (error := future.exception()) is not None:
        log.error("after its task was cancelled: %s", error)


class AsyncCheckedIn:
    """A check-in of one run for asyncio: ``await`` it, use it in an ``async with``, or decorate a coroutine function.

    Once it is awaited its properties say what a ``CheckedIn`` says.
    """

    def __init__(self, core: CheckedIn, threads: Threads) -> None:
        self._core, self._threads = core, threads
        self._entered: Entered | None = None
        self._asked = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self._ask().__await__()

    async def _ask(self) -> Self:
        self._core.looked_at = True
        if not self._asked:
            await self._threads.call(self._core.ask, undo=self._give_back)
            self._asked = True
        return self

    def _give_back(self) -> None:
        """An admission that nobody is waiting for any more is released."""
        try:
            if self._core.admitted:
                self._core.release()
        except OncewardError as problem:
            log.error("check-in of job %r, whose task was cancelled, could not be given back: %s", self.job, problem)

    @property
    def core(self) -> CheckedIn:
        """The check-in itself; its methods that reach the store block."""
        if not self._asked:
            raise InvalidRequest(
                "checkin", self._core.job, "a check-in that was awaited: 'if await director.checkin(...)'"
            )
        return self._core

    @property
    def job(self) -> str:
        """What is done."""
        return self._core.job

    @property
    def admitted(self) -> bool:
        """True: the caller, and nobody else, runs it now."""
        return self.core.admitted

    def __bool__(self) -> bool:
        return self.core.admitted

    @property
    def outcome(self) -> CheckInOutcome:
        """The answer to the check-in."""
        return self.core.outcome

    @property
    def run(self) -> Run:
        """The run as the check-in found or made it."""
        return self.core.run

    @property
    def refused(self) -> Refused:
        """The refusal as a value."""
        return self.core.refused

    @property
    def token(self) -> int:
        """The fencing token."""
        return self.core.token

    @property
    def lost(self) -> threading.Event:
        """Set once the lease is lost; look at it with ``is_set()``."""
        return self.core.lost

    @property
    def cancelled(self) -> threading.Event:
        """Set once somebody asked for the run to stop."""
        return self.core.cancelled

    @property
    def result(self) -> Json:
        """What the automatic check-out records."""
        return self._core.result

    @result.setter
    def result(self, value: Json) -> None:
        self._core.result = value

    def time_remaining(self) -> timedelta | None:
        """How long the lease may be trusted without a further renewal."""
        return self.core.time_remaining()

    async def touch(self, duration: timedelta | None = None) -> None:
        """The lease is renewed now."""
        await self._threads.call(functools.partial(self.core.touch, duration))

    async def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Others can see how far the run is."""
        await self._threads.call(functools.partial(self.core.progress, done, total, message))

    async def checkout(self, result: Json = None, *, error: BaseException | None = None) -> None:
        """The run has ended; see ``CheckedIn.checkout``."""
        await self._threads.finish(functools.partial(self.core.checkout, result, error=error))

    async def release(self, *, after: timedelta | None = None) -> None:
        """The run is given back unfinished."""
        await self._threads.finish(functools.partial(self.core.release, after=after))

    async def __aenter__(self) -> Self:
        """The check-in is admitted; see ``CheckedIn.__enter__``."""
        if self._entered is not None or self._core.ended:
            raise InvalidRequest("async with", self.job, "each check-in once; ask for a new one")
        await self._ask()
        if not self.admitted:
            raise NotAdmitted(self._core.ask())
        self._entered = enter(self._core)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._entered is not None  # __aenter__ set it
        leave(self._entered)
        self._entered = None
        await self._threads.finish(functools.partial(self._core.conclude, error))

    def __call__(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R | Refused]]:
        """The coroutine runs only when it is admitted; otherwise its caller gets a ``Refused``, which is false."""
        self._core.looked_at = True
        if not is_coroutine(function):
            raise InvalidRequest("function", function, "a coroutine function; for plain functions use Director")
        make = self._core.for_calls(function)

        @functools.wraps(function)
        async def run_once(*args: P.args, **kwargs: P.kwargs) -> R | Refused:
            checkin = AsyncCheckedIn(make(*args, **kwargs), self._threads)
            if not await checkin:
                return checkin.refused
            async with checkin:
                value = await function(*args, **kwargs)
                checkin.core.returned(value)
            return value

        return run_once


class AsyncDirector:
    """The Director for asyncio. Making one opens the store, which may block for a moment: do it at the start.

    Args:
        director: a Director (which stays yours to close), or what a Director takes.
        threads: at most so many calls to the store at once.
    """

    def __init__(
        self,
        director: Director | Runner | Source = None,
        *,
        namespace: str | None = None,
        stamp: Mapping[str, Json] = DEFAULT_STAMP,
        threads: int = 8,
        **policy: Unpack[PolicyChanges],
    ) -> None:
        self._threads = Threads(threads)
        self._owns = not isinstance(director, Director)
        self._director = (
            director
            if isinstance(director, Director)
            else Director(director, namespace=namespace, stamp=stamp, **policy)
        )

    @property
    def director(self) -> Director:
        """The core; its methods block."""
        return self._director

    def checkin(
        self, job: str, key: str | Callable[..., str], *, payload: Json = None, **policy: Unpack[PolicyChanges]
    ) -> AsyncCheckedIn:
        """A check-in; see ``Director.checkin``."""
        return AsyncCheckedIn(self._director.checkin(job, key, payload=payload, **policy), self._threads)

    async def checkout(self, job: str, key: str, result: Json = None, *, error: BaseException | None = None) -> None:
        """The run that this Director checked in has ended."""
        await self._threads.finish(functools.partial(self._director.checkout, job, key, result, error=error))

    async def check(self, job: str, key: str) -> Run | None:
        """What the store knows of (job, key); None: nothing."""
        return await self._threads.call(functools.partial(self._director.check, job, key))

    async def wait(self, job: str, key: str, timeout: timedelta = WAIT_TIMEOUT) -> Run:
        """The run as it ended; see ``Director.wait``. A cancelled wait is over in the store within a second."""
        checks.delay("timeout", timeout)
        end = time.monotonic() + timeout.total_seconds()
        while True:
            left = timedelta(seconds=max(0.0, end - time.monotonic()))
            try:
                return await self._threads.wait(
                    functools.partial(self._director.wait, job, key, min(left, _WAIT_AT_ONCE))
                )
            except WaitTimeout:
                if time.monotonic() >= end:
                    raise

    async def list(
        self, job: str | None = None, *, statuses: Collection[Status] = frozenset(Status), limit: int | None = None
    ) -> Sequence[Run]:
        """The runs under this stamp, newest first."""
        return await self._threads.call(functools.partial(self._director.list, job, statuses=statuses, limit=limit))

    async def stats(self, job: str | None = None) -> Stats:
        """How many runs there are, and in which state."""
        return await self._threads.call(functools.partial(self._director.stats, job))

    async def cleanup(self, older_than: timedelta = CLEANUP_AGE, *, job: str | None = None) -> int:
        """Runs that ended at least so long ago are gone."""
        return await self._threads.call(functools.partial(self._director.cleanup, older_than, job=job))

    async def close(self) -> None:
        """All calls have come to their end, and what was opened here is closed."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._threads.close()
        if self._owns:
            self._director.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
