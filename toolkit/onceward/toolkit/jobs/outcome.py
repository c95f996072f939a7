"""How an attempt ends, judged by what its body returned or raised. Pure: no store, no clock."""

from __future__ import annotations

import asyncio

from onceward.contracts import CheckOut, Failure, Json, Lease, Run
from onceward.toolkit.jobs.errors import Cancel, FatalError, RetryableError, Snooze
from onceward.toolkit.jobs.retry import Retry


def succeeded(lease: Lease, result: Json) -> CheckOut:
    """The body returned."""
    return CheckOut.succeeded(lease, result)


def ended_by(error: BaseException, *, lease: Lease, run: Run, retry: Retry, cancelled: bool) -> CheckOut:
    """The body raised ``error``.

    Args:
        error: what it raised; also exceptions that are no errors, such as ``SystemExit``.
        lease: by which the attempt is held.
        run: as it was claimed.
        retry: the job's policy.
        cancelled: somebody had asked the run to stop.
    """
    match error:
        case Snooze():
            return CheckOut.released(lease, after=error.after)
        case Cancel():
            return CheckOut.cancelled(lease, Failure.of(error))
        case asyncio.CancelledError() if cancelled:
            return CheckOut.cancelled(lease, Failure.of(error))
    failure = Failure.of(error, traced=True)
    failures = run.failures + 1
    if isinstance(error, FatalError) or not retry.again(failures):
        return CheckOut.failed(lease, failure)
    if isinstance(error, RetryableError):
        return CheckOut.retry(lease, failure, after=retry.delay_after(failures) if error.after is None else error.after)
    if not retry.enabled:
        return CheckOut.failed(lease, failure)
    return CheckOut.retry(lease, failure, after=retry.delay_after(failures))
