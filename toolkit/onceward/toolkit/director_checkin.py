"""One check-in, from the question to the check-out: as a decorator, as a context manager, or as a value.

A check-in is asked when it is first looked at: by ``with``, by ``.admitted`` or in a condition. So the same
``director.checkin(job, key)`` can decorate a function (each call then asks for a key of its own) and guard a block.

What happens, in this order:

1. Read the monotonic clock, then send the request; send it again, the same one, while its outcome is unknown.
2. Admitted, but the answer came after the lease's local end: give it back and ask anew; it is not reported as held.
3. Renew the lease, from a thread that the body cannot block.
4. Send the check-out, again and again until it is known to be recorded or refused. Only then end the renewal.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import json
import logging
import threading
import warnings
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import ParamSpec, Self, TypeVar, cast

from onceward.contracts import (
    Admission,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Ending,
    Failure,
    InvalidRequest,
    Json,
    Lease,
    LeaseLost,
    OncewardError,
    Run,
    RunId,
    StoreUnavailable,
    checks,
)
from onceward.toolkit import keys
from onceward.toolkit.director_answers import NotAdmitted, Refused, skipped
from onceward.toolkit.director_desk import Desk, enter, leave
from onceward.toolkit.director_policy import Policy
from onceward.toolkit.director_view import seed_view
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.renewal import HeldLease, local_end
from onceward.toolkit.resend import UNKNOWN_OR_UNAVAILABLE, resend

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("onceward.director")

#: An admission that came too late is given back and asked for anew so often.
_LATE_ADMISSIONS = 3


class CheckedIn:
    """A check-in of one run. Use it once: as a decorator, in a ``with``, or by looking at ``admitted``.

    Attributes:
        result: what the automatic check-out at the end of a ``with`` records; set it in the body.
        looked_at: somebody has asked, or will; a check-in that nobody ever looks at is a mistake, and warned of.
    """

    def __init__(
        self, desk: Desk, job: str, key: str | Callable[..., str], *, policy: Policy, payload: Json = None
    ) -> None:
        checks.name("job", job)
        self.job = job
        self.result: Json = None
        self._desk, self._key, self._policy, self._payload = desk, key, policy, payload
        self._lock = threading.RLock()
        self._request: CheckIn | None = None
        self._sent = 0.0
        self._admission: Admission | None = None
        self._held: HeldLease | None = None
        self._pending: CheckOut | None = None
        self._ending: Ending | None = None
        self._context: contextvars.Token[CheckedIn | None] | None = None
        self.looked_at = False

    def __del__(self) -> None:
        if not getattr(self, "looked_at", True):
            warnings.warn(f"check-in of job {self.job!r} was never asked: nobody looked at it", RuntimeWarning, 2)

    # -- the question -------------------------------------------------------------------------------------------

    @property
    def admitted(self) -> bool:
        """True: the caller, and nobody else, runs it now, and must check it out."""
        return self.ask().outcome.admitted

    def __bool__(self) -> bool:
        return self.admitted

    @property
    def outcome(self) -> CheckInOutcome:
        """The answer to the check-in."""
        return self.ask().outcome

    @property
    def run(self) -> Run:
        """The run as the check-in found or made it."""
        return self.ask().run

    @property
    def refused(self) -> Refused:
        """The refusal as a value."""
        return Refused(outcome=self.outcome, run=self.run)

    def ask(self) -> Admission:
        """The check-in is answered; asked once, however often this is called.

        Raises:
            InvalidRequest: job, key or payload cannot be; nothing was sent.
            StoreUnavailable: definitely not admitted.
            OutcomeUnknown: not known yet; call again, and the same request is sent again.
        """
        self.looked_at = True
        if self._admission is not None:  # without the lock, which a check-out may hold for long
            return self._admission
        with self._lock:
            if self._admission is None:
                self._admission = self._ask()
            return self._admission

    def _ask(self) -> Admission:
        for _ in range(_LATE_ADMISSIONS):
            admission = self._send()
            if not admission.outcome.admitted:
                log.warning("%s", skipped(admission))
                if log.isEnabledFor(logging.DEBUG):
                    log.debug("Job already exists: %s", json.dumps(seed_view(admission.run), default=str))
                return admission
            lease = admission.run.lease
            assert lease is not None  # an admitted run has one
            if not self._late(lease, admission.remaining):
                log.debug("Job is new, proceeding: %s (token %d)", lease.resource, lease.token)
                self._held = self._desk.renewer.keep(lease, sent=self._sent)
                self._desk.keep(self, admission.run.id)
                return admission
            log.warning("the admission of %s came after its lease had ended; giving it back", lease.resource)
            self._request = None
            self._give_back(lease)
        raise StoreUnavailable(
            f"the store answers too slowly for a lease of {self._policy.lease}: each admission of job {self.job!r} "
            f"came after its end and was given back; take a longer lease"
        )

    def _send(self) -> Admission:
        if self._request is None:
            run = RunId(self.job, self._literal_key(), self._desk.stamp)
            self._request = self._policy.request(run, holder=self._desk.holder, payload=self._payload)
            self._sent = lease_time()
            log.debug("Checking in: %s / %s", run.job, run.key)
        request = self._request
        return resend(lambda: self._desk.executor.checkin(request))

    def _literal_key(self) -> str:
        if not isinstance(self._key, str):
            raise InvalidRequest("key", self._key, "text; a callable makes keys only where it decorates a function")
        if keys.is_template(self._key):
            raise InvalidRequest(
                "key", self._key, "a filled key: a template is filled only where it decorates a function "
                "(is the f of an f-string missing?); wrap a key that is meant so in keys.literal()"
            )  # fmt: skip
        return str(self._key)

    def _give_back(self, lease: Lease) -> None:
        request = CheckOut.released(lease)
        resend(lambda: self._desk.executor.checkout([request]))

    def _late(self, lease: Lease, remaining: timedelta | None) -> bool:
        end = local_end(self._sent, lease.duration)
        return end is not None and (lease_time() >= end or (remaining is not None and remaining <= timedelta(0)))

    # -- while it is held ---------------------------------------------------------------------------------------

    @property
    def held(self) -> HeldLease:
        """The lease in hand.

        Raises:
            NotAdmitted: there is none, since the check-in was refused.
        """
        admission = self.ask()
        if self._held is None:
            raise NotAdmitted(admission)
        return self._held

    @property
    def token(self) -> int:
        """The fencing token: give it to whatever else the body writes to."""
        return self.held.token

    @property
    def lost(self) -> threading.Event:
        """Set once the lease is lost: stop, somebody else may run it now."""
        return self.held.lost

    @property
    def cancelled(self) -> threading.Event:
        """Set once somebody asked for the run to stop."""
        return self.held.cancelled

    def time_remaining(self) -> timedelta | None:
        """How long the lease may be trusted without a further renewal; None: for ever."""
        return self.held.time_remaining()

    def raise_if_lost(self) -> None:
        """Raise ``LeaseLost`` if the lease is lost; for bodies that run long."""
        self.held.raise_if_lost()

    def touch(self, duration: timedelta | None = None) -> None:
        """The lease is renewed now; see ``HeldLease.touch``."""
        self.held.touch(duration)

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        """Others can see how far the run is; see ``HeldLease.progress``."""
        self.held.progress(done, total, message)

    @property
    def ended(self) -> bool:
        """True once it was checked out, or turned out to be lost."""
        return self._ending is not None

    # -- the end ------------------------------------------------------------------------------------------------

    def checkout(self, result: Json = None, *, error: BaseException | None = None) -> None:
        """The run has ended: SUCCEEDED with ``result``, or FAILED if there is an ``error`` (and perhaps a result, too).

        Raises:
            InvalidRequest: the result is no JSON, or the run was checked out before; it is held on.
            LeaseLost: somebody else has taken the run over; nothing was recorded.
            StoreError: not recorded, or not known to be; call it again.
        """
        self._end(Ending.SUCCEEDED if error is None else Ending.FAILED, result=result, error=error)

    def release(self, *, after: timedelta | None = None) -> None:
        """The run is given back unfinished; others are admitted at once, or ``after`` a while. Raises like checkout."""
        self._end(Ending.RELEASED, after=after)

    def _end(
        self, ending: Ending, *, result: Json = None, error: BaseException | None = None, after: timedelta | None = None
    ) -> None:
        held = self.held
        failure = None if error is None else Failure.of(error, traced=True)
        request = CheckOut(lease=held.lease, ending=ending, result=result, error=failure, after=after)
        with self._lock:
            if self._ending is not None:
                raise InvalidRequest("checkout", ending.value, f"one per check-in; this one is {self._ending} already")
            if self._pending is not None and _alike(self._pending, request):
                request = self._pending
            self._settle(request, held)

    def _settle(self, request: CheckOut, held: HeldLease) -> None:
        """Send a check-out until it is answered; it stays pending while its outcome is unknown."""
        self._pending = request
        try:
            recorded = resend(lambda: self._desk.executor.checkout([request])[0], on=UNKNOWN_OR_UNAVAILABLE)
        except InvalidRequest:
            self._pending = None
            raise
        self._ending = request.ending if recorded else Ending.ABANDONED
        held.stop()
        self._desk.drop(self, request.run)
        if not recorded:
            held.lost.set()
            raise LeaseLost(str(request.run), held.token)
        log.debug("Checked out: %s / %s (%s)", request.run.job, request.run.key, request.ending)

    # -- as a context manager -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """The check-in is admitted.

        Raises:
            NotAdmitted: it is not, and the body is not run.
            OutcomeUnknown: not known yet; keep the check-in and enter it again to find out.
        """
        if self._context is not None or self._ending is not None:
            raise InvalidRequest("with", self.job, "each check-in once; ask for a new one")
        if not self.admitted:
            raise NotAdmitted(self.ask())
        self._context = enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._context is not None  # __enter__ set it
        leave(self._context)
        self._context = None
        self.conclude(error)

    def conclude(self, error: BaseException | None) -> None:
        """What the body has not checked out itself is checked out now: with its result, or with its error.

        A body that was interrupted (Ctrl-C, a cancelled task, a lost lease) gives the run back where a crash would be
        forgiven, and has failed where not. Whatever goes wrong in recording an error, the error itself is what the
        caller gets.
        """
        if self._ending is not None:
            return
        try:
            if self._pending is not None:  # the body's own check-out, whose outcome is unknown
                self._settle(self._pending, self.held)
            elif error is None:
                self._succeed()
            else:
                self._fail(error)
        except OncewardError as problem:
            self.held.stop()
            if error is None:
                problem.add_note(f"The body of {self.run.id} has run to its end; this is about recording it.")
                raise
            if problem is not error:
                log.error("the failure of %s could not be recorded: %s", self.run.id, problem)
                error.add_note(f"This could not be recorded for {self.run.id}: {problem}")

    def _succeed(self) -> None:
        try:
            self.checkout(self.result)
        except InvalidRequest as bad:  # a result that cannot be stored is the body's mistake
            self.checkout(error=bad)
            raise

    def _fail(self, error: BaseException) -> None:
        if self._policy.forgives_crashes and self._interrupted(error):
            self.release()
            return
        try:
            self.checkout(self.result, error=error)
        except InvalidRequest:
            self.checkout(error=error)

    def _interrupted(self, error: BaseException) -> bool:
        if isinstance(error, LeaseLost):
            return self.lost.is_set()
        return isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception)

    # -- as a decorator -----------------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R | Refused]:
        """The function runs only when it is admitted; otherwise its caller gets a ``Refused``, which is false.

        The key is filled from each call's arguments. What the function returns is recorded as the run's result.
        """
        self.looked_at = True
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function) or is_coroutine(function):
            raise InvalidRequest("function", function, "a plain function; for coroutines use AsyncDirector")
        make = self.for_calls(function)

        @functools.wraps(function)
        def run_once(*args: P.args, **kwargs: P.kwargs) -> R | Refused:
            checkin = make(*args, **kwargs)
            if not checkin.admitted:
                return checkin.refused
            with checkin:
                value = function(*args, **kwargs)
                checkin.returned(value)
            return value

        return run_once

    def for_calls(self, function: Callable[..., object]) -> Callable[..., CheckedIn]:
        """What makes a new check-in like this one for each call of ``function``."""
        self.looked_at = True
        key_of = keys.key_maker(function, self._key)

        def make(*args: object, **kwargs: object) -> CheckedIn:
            key = keys.literal(key_of(*args, **kwargs))
            return CheckedIn(self._desk, self.job, key, policy=self._policy, payload=self._payload)

        return make

    def returned(self, value: object) -> None:
        """What a decorated body returned is its result, unless it set one itself and returned nothing."""
        if value is not None:
            self.result = cast(Json, value)


def is_coroutine(function: Callable[..., object]) -> bool:
    """True if calling it makes a coroutine; also for an instance whose ``__call__`` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _alike(one: CheckOut, other: CheckOut) -> bool:
    """True if both ask for the same end, whatever their request ids are."""
    return (one.ending, one.result, one.error, one.after) == (other.ending, other.result, other.error, other.after)
