"""What a job raises to say how its attempt ends. Any other exception ends it as the job's retry policy says."""

from __future__ import annotations

from datetime import timedelta

from onceward.contracts import OncewardError, checks


class RetryableError(OncewardError):
    """The attempt has failed, and another one may succeed: it is retried while attempts are left.

    Attributes:
        after: when to retry; None: as the job's policy says.
    """

    def __init__(self, message: str = "", *, after: timedelta | None = None) -> None:
        checks.delay("after", after)
        super().__init__(message)
        self.after = after


class FatalError(OncewardError):
    """The run has failed, and no further attempt could succeed: it is not retried."""


class Snooze(OncewardError):
    """Not now: the run is due again ``after`` a while. Counts neither as a failure nor as a crash."""

    def __init__(self, after: timedelta, message: str = "") -> None:
        checks.delay("after", after)
        super().__init__(message or f"snoozed for {after}")
        self.after = after


class Cancel(OncewardError):
    """The run is not to be done at all: it ends as CANCELLED."""
