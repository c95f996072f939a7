"""How a refused check-in shows: as a false value, or as an error where a body would follow."""

from __future__ import annotations

from onceward.contracts import Admission, CheckInOutcome, Json, OncewardError, Run
from onceward.contracts.records import Record

_SKIPPED = {
    CheckInOutcome.DONE: "has already executed... skipping.",
    CheckInOutcome.FAILED: "has already executed, and failed... skipping.",
    CheckInOutcome.RUNNING: "is being executed by somebody else... skipping.",
    CheckInOutcome.CANCELLED: "was cancelled... skipping.",
    CheckInOutcome.SCHEDULED: "is not due yet... skipping.",
    CheckInOutcome.ABANDONED: "was abandoned and waits for a person to look at it... skipping.",
}


def skipped(admission: Admission) -> str:
    """Why a check-in was refused, for a log."""
    run = admission.run
    return f"Job named '{run.job}' for uuid '{run.key}' {_SKIPPED[admission.outcome]}"


class Refused(Record, frozen=True, kw_only=True):
    """The body was not run, and this stands in place of its result. False in a condition.

    Attributes:
        outcome: why.
        run: what the store knows of the run, for example its recorded result.
    """

    outcome: CheckInOutcome
    run: Run

    @property
    def result(self) -> Json:
        """What the execution that was admitted has recorded, if it has ended."""
        return self.run.result

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return skipped(Admission(outcome=self.outcome, run=self.run))


class NotAdmitted(OncewardError):
    """The check-in was refused, so the body of the ``with`` was not run. Definite: nothing was changed.

    Attributes:
        outcome: why.
        run: what the store knows of the run.
    """

    def __init__(self, admission: Admission) -> None:
        super().__init__(skipped(admission))
        self.outcome = admission.outcome
        self.run = admission.run
