"""One start of a managed job: the lock it holds, the record it writes, and how it ends."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from onceward.contracts import (
    CheckOut,
    Failure,
    InvalidRequest,
    Json,
    Lease,
    LeaseLost,
    OncewardError,
    Renewal,
    Renewed,
    RunId,
    Runner,
    StoreError,
)
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.locks import let_go
from onceward.toolkit.renewal import HeldLease, LostSignal
from onceward.toolkit.resend import UNKNOWN_OR_UNAVAILABLE, resend

log = logging.getLogger("onceward.manager")

#: A job that looks at ``should_stop`` ends this long before its timeout.
STOP_BEFORE = timedelta(seconds=10)

_current: contextvars.ContextVar[ManagedJob | None] = contextvars.ContextVar("onceward_job", default=None)


def current_job() -> ManagedJob | None:
    """The job whose ``with`` block or managed function runs here; None outside of one."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class Stores:
    """Where a manager's records and locks are kept: two runners, or the same one twice."""

    jobs: Runner
    locks: Runner


class ManagedJob:
    """A job that this process has started and not yet ended. Made by a ``Manager``; ended exactly once.

    Used as a context manager, it ends when the body does, and records the body's exception as its error.

    Attributes:
        name: the lock, and the job of the record.
        run: identity of the record in the jobs store.
        started: when, by the clock of the locks' store.
        deadline: from then on the lock is not renewed any more, by the same clock.
        result: what the record says came of it, if the body sets it.
    """

    def __init__(
        self,
        stores: Stores,
        *,
        lock: HeldLease,
        record: HeldLease,
        timeout: timedelta,
        sent: float,
        on_end: Callable[[ManagedJob], None],
    ) -> None:
        assert isinstance(record.lease.resource, RunId)  # the manager checked it in
        self.run = record.lease.resource
        self.name = self.run.job
        self.started = started_at(lock.lease)
        self.deadline = self.started + timeout
        self.starter = caller()
        self.result: Json = None
        self._stores = stores
        self._on_end = on_end
        self._lock = lock
        self._record = record
        self._end_at = sent + timeout.total_seconds()
        self._ended = threading.Lock()
        self._timer = threading.Timer(max(0.0, self._end_at - lease_time()), self._time_is_up)
        self._timer.daemon = True
        self._timer.start()
        self._outer: contextvars.Token[ManagedJob | None] | None = None

    @property
    def token(self) -> int:
        """The lock's fencing token: larger than that of every earlier start. Give it to whatever the work writes to."""
        return self._lock.token

    @property
    def lost(self) -> LostSignal:
        """Set once the lock is lost, or has to be presumed so: stop working."""
        return self._lock.lost

    @property
    def cancelled(self) -> threading.Event:
        """Set when somebody asked for the run to stop."""
        return self._record.cancelled

    def time_remaining(self) -> timedelta:
        """How long until the timeout; zero once it has passed or the lock is lost. By a clock that never jumps."""
        if self.lost.is_set():
            return timedelta(0)
        return timedelta(seconds=max(0.0, self._end_at - lease_time()))

    def should_stop(self, before: timedelta = STOP_BEFORE) -> bool:
        """True: end gracefully now. The timeout is at most ``before`` away, somebody asked, or the lock is lost."""
        return self.cancelled.is_set() or self.time_remaining() <= before

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Others can see how far the job is.

        Raises:
            LeaseLost: the lock or the record is somebody else's now.
            StoreError: it could not be written now; the job is still ours.
        """
        self._lock.raise_if_lost()
        self._record.progress(done, total, message)

    def end(self, result: Json = None) -> None:
        """The job has ended well: recorded, then unlocked. Nothing happens if it has ended before.

        Raises:
            InvalidRequest: the result is not JSON; recorded as failed.
            LeaseLost: the lock was lost before this, so somebody else may have run meanwhile; recorded as failed.
            StoreError: the end could not be recorded (``StoreUnavailable``) or may have been (``OutcomeUnknown``); the
                lock is released, or lapses.
        """
        if not self._first_to_end():
            return
        try:
            lost = self._is_lost()
            ending = CheckOut.failed(self._record.lease, Failure.of(self._loss())) if lost else None
            value = self.result if result is None else result
            recorded = self._check_out(ending or CheckOut.succeeded(self._record.lease, value))
        except InvalidRequest as wrong:
            self._check_out(CheckOut.failed(self._record.lease, Failure.of(wrong)))
            raise
        finally:
            self._unlock()
        if lost:
            raise self._loss()
        if not recorded:
            raise LeaseLost(str(self.run), self._record.token)

    def error(self, error: BaseException) -> None:
        """The job has ended with ``error``: recorded, then unlocked. What the store refuses is logged, not raised."""
        if not self._first_to_end():
            return
        try:
            if not self._check_out(CheckOut.failed(self._record.lease, Failure.of(error, traced=True))):
                log.warning("the error of %s was not recorded: its record was given up before", self.run)
        except OncewardError as failure:
            log.warning("the error of %s was not recorded: %s", self.run, failure)
        finally:
            self._unlock()

    def __enter__(self) -> Self:
        self._outer = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer is not None:
            _current.reset(self._outer)
        if error is None:
            self.end()
        else:
            self.error(error)

    def _first_to_end(self) -> bool:
        """True for the one caller that ends the job."""
        if not self._ended.acquire(blocking=False):
            return False
        self._timer.cancel()
        self._on_end(self)
        return True

    def _is_lost(self) -> bool:
        """Ask the store whether the lock was ours to the end; where it cannot say, trust the local end of the lease."""
        if self.lost.is_set():
            return True
        renewal = Renewal(lease=self._lock.lease, duration=self._lock.duration)
        try:
            return resend(lambda: self._stores.locks.executor.renew([renewal]))[0] is Renewed.LOST
        except StoreError:
            return self.lost.is_set()

    def _loss(self) -> LeaseLost:
        return LeaseLost(str(self._lock.lease.resource), self.token)

    def _check_out(self, checkout: CheckOut) -> bool:
        self._record.stop()
        return resend(lambda: self._stores.jobs.executor.checkout([checkout]), on=UNKNOWN_OR_UNAVAILABLE)[0]

    def _unlock(self) -> None:
        try:
            let_go(self._stores.locks.executor, self._lock)
        except StoreError as failure:
            log.warning("could not release %s, it will lapse: %s", self._lock.lease.resource, failure)

    def _time_is_up(self) -> None:
        """The hard limit: from now on nothing is renewed, so that a body that hangs cannot hold the lock for ever."""
        log.warning("%s has reached its timeout; its lock is not renewed any more", self.run)
        self._lock.stop()
        self._record.stop()


def started_at(lease: Lease) -> datetime:
    """When a lease was granted, by the store's clock."""
    assert lease.expires is not None  # a lock's lease always ends
    assert lease.duration is not None
    return lease.expires - lease.duration


def caller() -> tuple[object, object]:
    """The thread and the asyncio task that call, for ``Manager.error`` without a name."""
    asyncio = sys.modules.get("asyncio")  # not imported by anybody: then there is no task
    try:
        task = asyncio.current_task() if asyncio is not None else None
    except RuntimeError:
        task = None
    return threading.current_thread(), task
