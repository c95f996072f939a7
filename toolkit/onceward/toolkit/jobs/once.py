"""``with ctx.once(operation_id) as step``: a step of a job that is done once, however often the job is tried."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Failure,
    Json,
    Lease,
    LeaseLost,
    OnFailed,
    RunId,
)
from onceward.contracts.records import stamp_text
from onceward.toolkit.jobs.errors import RetryableError
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.renewal import HeldLease, Renewer
from onceward.toolkit.resend import UNKNOWN_OR_UNAVAILABLE, resend

ONCE_JOB = "onceward:once"


class StepTaken(RetryableError):
    """Another attempt is in the middle of this step right now: try again later."""


class Once:
    """One step, known by its operation id within the job. Enter it with ``with``.

    Attributes:
        first: True: do it now, and set ``result``; False: it was done before.
        result: what the step brought: set by the body if ``first``, else as it was recorded.
    """

    def __init__(self, renewer: Renewer, parent: Lease, operation_id: str) -> None:
        assert isinstance(parent.resource, RunId)  # the lease of a run
        stamp = stamp_text({"type": "once", "job": parent.resource.job})
        self.run = RunId(ONCE_JOB, operation_id, stamp)
        self.first = False
        self.result: Json = None
        self._renewer, self._parent = renewer, parent
        self._held: HeldLease | None = None

    def __enter__(self) -> Self:
        request = CheckIn(
            run=self.run, holder=self._parent.holder, lease=self._parent.duration, on_failed=OnFailed.RERUN
        )
        sent = lease_time()
        admission = resend(lambda: self._renewer.executor.checkin(request))
        match admission.outcome:
            case CheckInOutcome.ADMITTED | CheckInOutcome.TAKEN_OVER:
                assert admission.run.lease is not None  # that is what admitted means
                self._held = self._renewer.keep(admission.run.lease, sent=sent)
                self._held.raise_if_lost()
                self.first = True
            case CheckInOutcome.DONE:
                self.result = admission.run.result
            case _:
                raise StepTaken(f"the step {self.run.key!r} is {admission.outcome}", after=admission.remaining)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is None:
            return
        lease = self._held.lease
        if error is None:
            checkout = CheckOut.succeeded(lease, self.result)
        else:
            checkout = CheckOut.failed(lease, Failure.of(error, traced=True))
        try:
            recorded = resend(lambda: self._renewer.executor.checkout([checkout]), on=UNKNOWN_OR_UNAVAILABLE)[0]
        finally:
            self._held.stop()
        if error is None and not recorded:
            raise LeaseLost(str(self.run), lease.token)
