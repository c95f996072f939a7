"""Renewal of leases by a thread of its own, so that neither a busy body nor a blocked event loop loses them.

One thread serves all leases of a process on one runner, in one batch per round. Local deadlines follow the rule of
ALGORITHMS 4: the clock is read *before* the request is sent, so that the holder stops trusting a lease before the
store lets it go, however long the answer takes.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from datetime import timedelta

from onceward.contracts import (
    Executor,
    InvalidRequest,
    Lease,
    LeaseLost,
    OncewardError,
    Progress,
    Renewal,
    Renewed,
    StoreError,
)
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.signal import Signal

log = logging.getLogger("onceward.renewal")

#: This share of a lease is kept as a margin for clocks that run at different speeds.
MARGIN = 0.02
_RENEW_AT = 1 / 3
_RETRY_AT_LEAST = 0.02
_LOOK = 1.0


def local_end(sent: float, duration: timedelta | None) -> float | None:
    """Until when a lease may be trusted, on this process's monotonic clock; None: for ever."""
    return None if duration is None else sent + duration.total_seconds() * (1 - MARGIN)


class LostSignal(Signal):
    """Set once the lease is known, or has to be presumed, lost; never unset.

    It does not depend on any thread making progress: when the local end passes, it *is* set, whatever a renewal that
    hangs in the network is doing.
    """

    def __init__(self, end: float | None) -> None:
        super().__init__()
        self.end = end

    def is_set(self) -> bool:
        """True: stop working; somebody else may hold the resource."""
        if not self._given and self.end is not None and lease_time() >= self.end:
            self.set()
        return self._given

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the lease is lost, at most ``timeout`` seconds; True if it is."""
        until = None if timeout is None else lease_time() + timeout
        while not self.is_set():
            ends = [end for end in (until, self.end) if end is not None]
            left = min(ends) - lease_time() if ends else None
            if super().wait(_LOOK if left is None else min(max(left, 0.0), _LOOK)):  # the end may have come nearer
                break
            if until is not None and lease_time() >= until:
                break
        return self.is_set()


class HeldLease:
    """A lease in this process's hands: how long it may be trusted, and whether it is lost.

    Attributes:
        lost: set when the lease is lost or may be; a body that runs long should look at it.
        cancelled: set when somebody asked for the run to stop.
    """

    def __init__(self, lease: Lease, *, sent: float, renewer: Renewer) -> None:
        self.lease = lease
        self.duration = lease.duration
        self.lost = LostSignal(local_end(sent, lease.duration))
        self.cancelled: threading.Event = Signal()
        self.renewed = sent
        self.retry = 0.0
        self.sending = threading.Lock()
        """Held while a renewal is under way, so that the store applies them in the order in which they were sent."""
        self._renewer = renewer
        self._stopped = False

    @property
    def token(self) -> int:
        """The fencing token: give it to whatever else the work writes to."""
        return self.lease.token

    @property
    def stopped(self) -> bool:
        """True once it is no longer renewed."""
        return self._stopped

    def stop(self) -> None:
        """It is not renewed any more; nothing is released."""
        self._stopped = True
        self._renewer.forget(self)

    def time_remaining(self) -> timedelta | None:
        """How long the lease may still be trusted without another renewal; None: for ever. Never negative."""
        if self.lost.is_set():
            return timedelta(0)
        end = self.lost.end
        return None if end is None else timedelta(seconds=max(0.0, end - lease_time()))

    def raise_if_lost(self) -> None:
        """Raise ``LeaseLost`` if the lease is lost."""
        if self.lost.is_set():
            raise LeaseLost(str(self.lease.resource), self.token)

    def touch(self, duration: timedelta | None = None, *, progress: Progress | None = None) -> None:
        """The lease ends ``duration`` from now (None: its own duration again), and so after each later renewal.

        Raises:
            InvalidRequest: the store grants no such duration; nothing was changed.
            LeaseLost: it is not ours any more; nothing was changed.
            StoreError: it could not be renewed now; the renewal thread goes on trying.
        """
        wanted = duration if self.duration is not None else None
        Renewal(lease=self.lease, duration=wanted)  # bad input changes nothing
        with self.sending:
            self.raise_if_lost()
            before, self.duration = self.duration, wanted or self.duration
            sent = lease_time()
            renewal = Renewal(lease=self.lease, duration=self.duration, progress=progress)
            self._trust_until_at_most(local_end(sent, self.duration))
            try:
                answer = self._renewer.executor.renew([renewal])[0]
                self.settle(answer, renewal, sent=sent)
            except InvalidRequest:  # this store grants no such duration, and nothing was sent
                self.duration = before
                raise
            finally:
                self._renewer.wake()
        if answer is Renewed.LOST:  # also after stop(), when it is no loss to signal
            raise LeaseLost(str(self.lease.resource), self.token)
        self.raise_if_lost()

    def _trust_until_at_most(self, end: float | None) -> None:
        """A renewal to a shorter duration may be applied, whether its answer comes or not."""
        if end is not None and self.lost.end is not None:
            self.lost.end = min(self.lost.end, end)

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Others can see how far the run is; renews the lease, too. Raises like ``touch``."""
        self.touch(progress=Progress(done=done, total=total, message=message))

    def settle(self, answer: Renewed, renewal: Renewal, *, sent: float) -> None:
        """Take note of a renewal's answer. A signal of loss that was given once stays."""
        if answer is Renewed.LOST:
            if not self.stopped:
                self.lost.set()
            return
        if answer is Renewed.CANCELLING:
            self.cancelled.set()
        if not self.lost.is_set() and sent >= self.renewed:
            self.renewed, self.retry = sent, 0.0
            self.lost.end = local_end(sent, renewal.duration)


class Renewer:
    """Keeps leases alive until they are stopped or lost. One daemon thread, started with the first lease."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._changed = threading.Condition()
        self._kept: set[HeldLease] = set()
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False

    @property
    def executor(self) -> Executor:
        """Where it renews."""
        return self._executor

    def keep(self, lease: Lease, *, sent: float) -> HeldLease:
        """The lease is renewed from now on, at a third of its duration.

        Args:
            lease: what the store granted.
            sent: ``lease_time()`` read before the request that obtained it was first sent.
        """
        return self.keep_all([lease], sent=sent)[0]

    def keep_all(self, leases: Sequence[Lease], *, sent: float) -> list[HeldLease]:
        """All of these leases, which one request obtained, are renewed from now on."""
        kept = [HeldLease(lease, sent=sent, renewer=self) for lease in leases]
        ending = [held for held in kept if held.duration is not None]
        if not ending:
            return kept
        if self._pid != os.getpid():  # after a fork: thread, leases and perhaps a locked lock are the parent's
            self._pid, self._thread, self._kept, self._changed = os.getpid(), None, set(), threading.Condition()
        with self._changed:
            self._kept.update(ending)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._loop, name="onceward-renewal", daemon=True)
                self._thread.start()
            if min(map(self._due_at, ending)) < self._wakes_at:
                self._changed.notify()
        return kept

    def forget(self, held: HeldLease) -> None:
        """It is not renewed any more. At once: short work must not pile up until the next renewal."""
        self._kept.discard(held)

    def close(self, timeout: float = 5.0) -> None:
        """The thread has ended (or was left behind after ``timeout`` seconds in a hanging store). Leases stay."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def wake(self) -> None:
        """The thread looks again at what is due."""
        with self._changed:
            self._changed.notify()

    def _loop(self) -> None:
        while True:
            with self._changed:
                kept = list(self._kept)  # in one step: stop() takes leases out at any moment
                live = [held for held in kept if not (held.stopped or held.lost.is_set())]
                self._kept.difference_update(set(kept).difference(live))
                if self._closed:
                    return
                if not live:
                    self._thread = None
                    return
                now = lease_time()
                due = [held for held in live if self._due_at(held) <= now]
                if not due:
                    self._wakes_at = min(self._due_at(held) for held in live)
                    self._changed.wait(self._wakes_at - now)
                    continue
            self._renew_all(due)

    def _due_at(self, held: HeldLease) -> float:
        return max(held.renewed + _period(held), held.retry)

    def _renew_all(self, due: Sequence[HeldLease]) -> None:
        mine = [held for held in due if held.sending.acquire(blocking=False)]
        for held in due:  # until something is known: also those that somebody touches right now
            held.retry = lease_time() + max(_RETRY_AT_LEAST, _period(held) / 4)
        try:
            if mine:
                self._renew(mine)
        finally:
            for held in mine:
                held.sending.release()

    def _renew(self, due: Sequence[HeldLease]) -> None:
        renewals = [Renewal(lease=held.lease, duration=held.duration) for held in due]
        sent = lease_time()
        try:
            answers = dict(zip(due, self._executor.renew(renewals), strict=True))
        except StoreError as error:  # done or not: another renewal sets the same absolute end, so just ask again
            log.warning("could not renew %d leases, trying again: %s", len(due), error)
            return
        except OncewardError:
            if len(due) > 1:  # one of them is at fault, and the others must not suffer for it
                for held in due:
                    self._renew([held])
                return
            log.exception("renewal of %s was refused; it will lapse", due[0].lease.resource)
            due[0].stop()
            return
        except Exception:  # a runner's own bug must not end the renewal of everything else
            log.exception("could not renew %d leases, trying again", len(due))
            return
        for (held, answer), renewal in zip(answers.items(), renewals, strict=True):
            held.settle(answer, renewal, sent=sent)
            if answer is Renewed.LOST and not held.stopped:
                log.warning("lost the lease on %s (token %d)", held.lease.resource, held.token)


def _period(held: HeldLease) -> float:
    return held.duration.total_seconds() * _RENEW_AT if held.duration is not None else float("inf")
