"""What a run must look like after everything that happened to it, as a person would keep the book."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Ending,
    Failure,
    Json,
    Lease,
    OnAbandoned,
    OnFailed,
    Run,
    RunId,
    Status,
)
from onceward.contracts.records import ATTEMPTS_KEPT

ENDED = {
    Status.SUCCEEDED: CheckInOutcome.DONE,
    Status.FAILED: CheckInOutcome.FAILED,
    Status.CANCELLED: CheckInOutcome.CANCELLED,
}


@dataclass
class Try:
    """An attempt."""

    number: int
    holder: str
    token: int
    request: str
    takeover: bool
    ending: Ending | None = None
    checkout: str | None = None


@dataclass
class Known:
    """A run, as it must be now.

    Attributes:
        until: when its lease ends, in the model's milliseconds; None: never, or it has none.
        token: the newest ever issued for it.
        fenced: its lease was taken from the holder by force.
        buried: the store ended it, chose the error's words, and may show that somebody had asked it to stop.
    """

    id: RunId
    origin: str
    run_at: datetime
    order: int
    payload: Json = None
    priority: int = 0
    max_crashes: int | None = None
    status: Status = Status.SCHEDULED
    token: int = 0
    until: int | None = None
    fenced: bool = False
    failures: int = 0
    crashes: int = 0
    result: Json = None
    error: Failure | None = None
    buried: bool = False
    cancel_requested: bool = False
    rearmed: bool = False
    attempt: int = 0
    ended: int = 0
    tries: list[Try] = field(default_factory=list)

    @property
    def kept(self) -> list[Try]:
        """The attempts that a store still remembers."""
        return self.tries[-ATTEMPTS_KEPT:]

    def lapsed(self, now: int) -> bool:
        """Its holder is late."""
        return self.status is Status.RUNNING and self.until is not None and self.until <= now

    def live(self, now: int) -> bool:
        """Somebody holds it."""
        return self.status is Status.RUNNING and not self.lapsed(now)

    def spent(self, now: int, budget: int | None) -> bool:
        """It lapsed, and no further crash is forgiven."""
        return self.lapsed(now) and budget is not None and self.crashes >= budget

    def claimable(self, now: int, wall: datetime) -> bool:
        """A claim may take it."""
        return self.lapsed(now) or (self.status is Status.SCHEDULED and self.run_at <= wall)

    def held_by(self, lease: Lease) -> bool:
        """This lease is its newest, lapsed or not."""
        return self.status is Status.RUNNING and not self.fenced and lease.token == self.token

    def asked_by(self, request: str) -> bool:
        """Its present attempt was obtained by that request."""
        return self.status is Status.RUNNING and not self.fenced and self.tries[-1].request == request

    def answer(self, request: CheckIn, now: int, wall: datetime) -> CheckInOutcome:
        """What a check-in must be told."""
        if self.asked_by(request.request):
            return CheckInOutcome.TAKEN_OVER if self.tries[-1].takeover else CheckInOutcome.ADMITTED
        late_copy = any(each.request == request.request for each in self.kept)
        if self.status is Status.FAILED and request.on_failed is OnFailed.RERUN and not late_copy:
            return CheckInOutcome.ADMITTED
        if self.status in ENDED:
            return ENDED[self.status]
        if self.status is Status.SCHEDULED:
            return CheckInOutcome.SCHEDULED if late_copy or self.run_at > wall else CheckInOutcome.ADMITTED
        if not self.lapsed(now):
            return CheckInOutcome.RUNNING
        if late_copy or request.on_abandoned is OnAbandoned.HOLD:
            return CheckInOutcome.ABANDONED
        return CheckInOutcome.FAILED if self.spent(now, request.max_crashes) else CheckInOutcome.TAKEN_OVER

    def start(self, lease: Lease, until: int | None) -> None:
        """The lease's holder has begun the next attempt."""
        takeover = self.status is Status.RUNNING
        if takeover:
            self.write_off()
        self.attempt += 1
        self.tries.append(Try(self.attempt, lease.holder, lease.token, lease.request, takeover))
        self.status, self.token, self.until, self.fenced = Status.RUNNING, lease.token, until, False
        self.cancel_requested, self.rearmed = takeover and self.cancel_requested, False
        self.result, self.error, self.buried = None, None, False

    def write_off(self) -> None:
        """The attempt under way was abandoned."""
        self.crashes += 1
        self.tries[-1].ending = Ending.ABANDONED

    def bury(self, moment: int) -> None:
        """It is over: no further crash is forgiven."""
        self.write_off()
        self.buried = True
        self._rest(Status.FAILED, moment)

    def fence(self, token: int, now: int) -> None:
        """An operator took it from its holder."""
        self.token, self.until, self.fenced = token, now, True

    def recorded(self, request: CheckOut) -> bool:
        """That very check-out was accepted before."""
        return any(t.token == request.lease.token and t.checkout == request.request for t in self.kept)

    def finish(self, request: CheckOut, due: datetime | None, moment: int) -> None:
        """The check-out was accepted; ``due`` is when it comes up again, if it does."""
        self.tries[-1].ending, self.tries[-1].checkout = request.ending, request.request
        self.error = request.error
        self.failures += request.ending in (Ending.FAILED, Ending.RETRY)
        if due is not None:
            self.run_at = due
            self._rest(Status.SCHEDULED, moment)
        else:
            self.result = request.result
            self._rest(Status(request.ending.value), moment)

    def drop(self, moment: int) -> None:
        """It was cancelled before it could start."""
        self._rest(Status.CANCELLED, moment)

    def revive(self, due: datetime) -> None:
        """It was re-armed."""
        self.run_at, self.failures, self.crashes, self.rearmed = due, 0, 0, True
        self.status = Status.SCHEDULED

    def _rest(self, status: Status, moment: int) -> None:
        self.status, self.until, self.fenced, self.cancel_requested = status, None, False, False
        self.ended = moment

    def differences(self, run: Run) -> str:
        """Where the store's record is another one, in words; "" where they agree."""
        pairs: dict[str, tuple[object, object]] = {
            "id": (run.id, self.id),
            "status": (run.status, self.status),
            "attempt": (run.attempt, self.attempt),
            "token": (run.token, self.token),
            "failures": (run.failures, self.failures),
            "crashes": (run.crashes, self.crashes),
            "payload": (run.payload, self.payload),
            "result": (run.result, self.result),
            "priority": (run.priority, self.priority),
            "max_crashes": (run.max_crashes, self.max_crashes),
            "cancel_requested": (run.cancel_requested and not self.buried, self.cancel_requested),
            "rearmed": (run.rearmed, self.rearmed),
            "run_at": (run.run_at, self.run_at),
            "origin": (run.origin, self.origin),
            "attempts": ([_book(a) for a in run.attempts], [_book(t) for t in self.kept]),
            "lease": (_grip(run), self._grip()),
            "error": (run.error, run.error if self.buried else self.error),
        }
        return "; ".join(f"{name} is {was!r}, must be {must!r}" for name, (was, must) in pairs.items() if was != must)

    def _grip(self) -> tuple[str, int] | None:
        return (self.tries[-1].holder, self.token) if self.status is Status.RUNNING else None


def _grip(run: Run) -> tuple[str, int] | None:
    return None if run.lease is None else (run.lease.holder, run.lease.token)


def _book(each: object) -> tuple[object, ...]:
    names = ("number", "holder", "token", "request", "takeover", "ending", "checkout")
    return tuple(getattr(each, name) for name in names)
