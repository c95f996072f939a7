"""Locks: one holder at a time, for as long as it lives and no longer.

How a lock is taken (``take``):

1. Ask the store once. In the uncontended case that is all: one round trip.
2. Refused, and there is time to wait: open a watch on the lock, *then* ask again, then wait for the lock to be freed
   or for its holder's lease to run out, whichever comes first; repeat until the time is over.
3. All tries of one ``take`` are the same request. A copy of it that a slow network delivers late finds the lock
   already ours, and one whose reply was lost is settled by asking again.
4. A grant whose lease has run out by the time its reply arrives is given back, never reported as held.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from onceward.contracts import (
    Executor,
    Interest,
    Lease,
    LeaseLost,
    LockAnswer,
    LockId,
    LockNotAcquired,
    LockRequest,
    LockState,
    OncewardError,
    OutcomeUnknown,
    Runner,
    StoreError,
    WaitTimeout,
    checks,
    new_holder,
    new_request,
)
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.renewal import HeldLease, LostSignal, Renewer, local_end
from onceward.toolkit.resend import resend

log = logging.getLogger("onceward.locks")

DEFAULT_LEASE = timedelta(seconds=30)
NO_WAIT = timedelta(0)
_LOOK_AGAIN = 0.05
_GIVE_BACK_PAUSE = 0.5


class Lock:
    """A named lock; a context manager. One object holds it at most once at a time; it is not reentrant.

    Args:
        runner: the store, opened.
        name: the lock.
        lease: how long it outlives a holder that died; renewed by a thread of its own while it is held.
        wait: how long to wait for somebody else's lock; zero: try once.
        note: shown to whoever looks at the lock.
        holder: who we are; a fresh name by default.
        renewer: shared with other locks on the same runner; by default the lock has one of its own.
    """

    def __init__(
        self,
        runner: Runner,
        name: str,
        *,
        lease: timedelta = DEFAULT_LEASE,
        wait: timedelta = NO_WAIT,
        note: str | None = None,
        holder: str | None = None,
        renewer: Renewer | None = None,
    ) -> None:
        checks.delay("wait", wait)
        self._runner = runner
        self._wait = wait
        self._request = LockRequest(lock=LockId(name), holder=holder or new_holder(), lease=lease, note=note)
        self._renewer = renewer
        self._own_renewer: Renewer | None = None
        self._held: HeldLease | None = None
        self._guard = threading.Lock()

    @property
    def name(self) -> str:
        return self._request.lock.name

    @property
    def held(self) -> HeldLease:
        """The lease that this object holds.

        Raises:
            LeaseLost: it holds none.
        """
        if self._held is None:
            raise LeaseLost(str(self._request.lock), 0)
        return self._held

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every earlier holder. Give it to whatever the work writes to."""
        return self.held.token

    @property
    def lost(self) -> LostSignal:
        """Set once the lock is lost, or has to be presumed so."""
        return self.held.lost

    def acquire(self, *, wait: timedelta | None = None) -> HeldLease:
        """The lock is ours, and renewed until it is released.

        Raises:
            LockNotAcquired: somebody else has it, or this object has; nothing was changed.
            StoreUnavailable: nothing was changed.
            OutcomeUnknown: we may have it; it is given back as soon as the store answers, at the latest when it lapses.
        """
        with self._guard:
            if self._held is not None:
                raise LockNotAcquired(self.name, self._request.holder)
            request = replace(self._request, request=new_request())
            lease, sent = take(self._runner, request, wait=self._wait if wait is None else wait)
            self._held = self._renews().keep(lease, sent=sent)
            return self._held

    def try_acquire(self) -> bool:
        """True: the lock is ours. False: somebody else has it. Never waits."""
        try:
            self.acquire(wait=NO_WAIT)
        except LockNotAcquired:
            return False
        return True

    def release(self) -> bool:
        """The lock is not ours any more; True if it was until now. Errors are those of ``Executor.unlock``."""
        with self._guard:
            held, self._held = self._held, None
            if held is None:
                return False
            try:
                return let_go(self._runner.executor, held)
            finally:
                if self._own_renewer is not None:
                    self._own_renewer.close()
                    self._own_renewer = None

    def _renews(self) -> Renewer:
        if self._renewer is not None:
            return self._renewer
        self._own_renewer = Renewer(self._runner.executor)
        return self._own_renewer

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The lock is released; after a clean body ``LeaseLost`` says that it was not ours to the end."""
        held = self._held
        if held is None:
            return  # released in the body
        try:
            released = self.release()
        except StoreError as failure:
            if held.lost.is_set() and error is None:
                raise LeaseLost(str(held.lease.resource), held.token) from failure
            log.warning("could not release %s, it will lapse: %s", held.lease.resource, failure)
            return
        if not released and error is None:
            raise LeaseLost(str(held.lease.resource), held.token)


def take(runner: Runner, request: LockRequest, *, wait: timedelta = NO_WAIT) -> tuple[Lease, float]:
    """The lock is held: its lease, and the moment (``lease_time()``) from which its duration is safely counted.

    Raises:
        LockNotAcquired: somebody else had it for all of ``wait``; nothing was changed.
        StoreUnavailable: nothing was changed.
        OutcomeUnknown: see ``Lock.acquire``.
    """
    checks.delay("wait", wait)
    end = time.monotonic() + wait.total_seconds()
    answer, request, sent = _ask(runner.executor, request)
    if not answer.acquired and wait > NO_WAIT:
        with runner.scheduler.watch(Interest(locks=frozenset({request.lock.name}))) as watch:
            while True:
                answer, request, sent = _ask(runner.executor, request)
                left = end - time.monotonic()
                if answer.acquired or left <= 0:
                    break
                watch.wait(min(left, _until_lapse(answer)))
    if not answer.acquired or answer.lease is None:
        raise LockNotAcquired(request.lock.name, answer.lease.holder if answer.lease else None)
    return answer.lease, sent


def look(runner: Runner, name: str) -> LockState | None:
    """Who has the lock now; None: nobody, or somebody whose lease has lapsed. Changes nothing."""
    lock = LockId(name)
    for state in runner.lifecycle.locks():
        if state.lease.resource == lock:
            return state if state.remaining is None or state.remaining > NO_WAIT else None
    return None


def wait_until_free(runner: Runner, name: str, *, timeout: timedelta) -> None:
    """Nobody had the lock a moment ago; somebody else may have taken it since. To have it, ``acquire`` with a wait.

    Raises:
        WaitTimeout: it was never seen free.
    """
    checks.delay("timeout", timeout)
    end = time.monotonic() + timeout.total_seconds()
    with runner.scheduler.watch(Interest(locks=frozenset({name}))) as watch:
        while (state := look(runner, name)) is not None:
            left = end - time.monotonic()
            if left <= 0:
                raise WaitTimeout(f"lock {name!r} was not free within {timeout.total_seconds():g} s")
            watch.wait(min(left, _until_lapse(state)))


def let_go(executor: Executor, held: HeldLease) -> bool:
    """The lease is neither renewed nor held any more; True if it was held until now."""
    held.stop()
    return resend(lambda: executor.unlock(held.lease))


def _ask(executor: Executor, request: LockRequest) -> tuple[LockAnswer, LockRequest, float]:
    """One try: the answer, the request to try with next, and from when the granted lease is counted."""
    first = sent = lease_time()

    def send() -> LockAnswer:
        nonlocal sent
        sent = lease_time()
        return executor.lock(request)

    try:
        answer = resend(send)
    except OutcomeUnknown:
        _give_back_later(executor, request, until=first + 2 * request.lease.total_seconds())
        raise
    if not answer.acquired or answer.lease is None:
        spent = answer.lease is None and not answer.acquired  # a late copy of one already released
        return answer, (replace(request, request=new_request()) if spent else request), sent
    if answer.remaining is not None and answer.lease.duration is not None:
        sent -= max(timedelta(0), answer.lease.duration - answer.remaining).total_seconds()
    end = local_end(sent, answer.lease.duration)
    if end is None or lease_time() < end:
        return answer, request, sent
    _give_back(executor, answer.lease)
    return LockAnswer(acquired=False), replace(request, request=new_request()), sent


def _give_back(executor: Executor, lease: Lease) -> None:
    """A grant that came too late is undone; where the store does not answer, it has lapsed or soon will."""
    with contextlib.suppress(StoreError):
        resend(lambda: executor.unlock(lease))


def _until_lapse(found: LockAnswer | LockState) -> float:
    """Seconds until the holder's lease runs out unless it is renewed."""
    if found.remaining is None:
        return _LOOK_AGAIN if found.lease is None else float("inf")
    return max(found.remaining.total_seconds(), 0.0) + _LOOK_AGAIN


def _give_back_later(executor: Executor, request: LockRequest, *, until: float) -> None:
    """A lock that we may have got without hearing of it is given back once the store answers again, in background."""

    def settle() -> None:
        while lease_time() < until:
            time.sleep(_GIVE_BACK_PAUSE)
            try:
                answer = executor.lock(request)
                if answer.acquired and answer.lease is not None:
                    executor.unlock(answer.lease)
            except StoreError:
                continue
            except OncewardError:
                log.exception("%s may be held until its lease lapses", request.lock)
            return

    threading.Thread(target=settle, name="onceward-give-back", daemon=True).start()
