"""What a Director does about leases, failures and crashes, unless a check-in says otherwise."""

from __future__ import annotations

import enum
from datetime import timedelta
from typing import TypedDict, TypeVar

from msgspec.structs import replace

from onceward.contracts import CheckIn, InvalidRequest, Json, OnAbandoned, OnFailed, RunId, checks
from onceward.contracts.records import Record


class WhenAbandoned(enum.StrEnum):
    """What becomes of a run whose holder died, once its lease has lapsed."""

    RERUN = "rerun"
    """The next check-in takes it over (at most ``max_crashes`` times)."""
    HOLD = "hold"
    """It stays as it is, for a person to look at."""
    FAIL = "fail"
    """The next check-in ends it as FAILED: no crash is forgiven."""


class PolicyChanges(TypedDict, total=False):
    """What may be said differently for one check-in; enums may be given by their text."""

    lease: timedelta | None
    on_failed: OnFailed | str
    on_abandoned: WhenAbandoned | str
    max_crashes: int | None


class Policy(Record, frozen=True, kw_only=True):
    """How check-ins treat leases, failures and crashes.

    Attributes:
        lease: the right lasts so long unless renewed (which the Director does); a run whose process died can be taken
            over after it. None: for ever, so a run is never started twice, and one whose process died stays.
        on_failed: whether a run that FAILED is run again.
        on_abandoned: what becomes of a run whose lease lapsed.
        max_crashes: so many lapses are forgiven; None: all.
    """

    lease: timedelta | None = None
    on_failed: OnFailed = OnFailed.BLOCK
    on_abandoned: WhenAbandoned = WhenAbandoned.RERUN
    max_crashes: int | None = None

    def but(self, changes: PolicyChanges) -> Policy:
        """This policy with those changes.

        Raises:
            InvalidRequest: a value is not one of those allowed.
        """
        unknown = sorted(set(changes) - set(PolicyChanges.__annotations__))
        if unknown:
            raise InvalidRequest("policy", unknown[0], ", ".join(PolicyChanges.__annotations__))
        lease = changes.get("lease", self.lease)
        max_crashes = changes.get("max_crashes", self.max_crashes)
        checks.lease("lease", lease)
        checks.budget("max_crashes", max_crashes)
        return replace(
            self,
            lease=lease,
            max_crashes=max_crashes,
            on_failed=_one_of(OnFailed, "on_failed", changes.get("on_failed", self.on_failed)),
            on_abandoned=_one_of(WhenAbandoned, "on_abandoned", changes.get("on_abandoned", self.on_abandoned)),
        )

    @property
    def forgives_crashes(self) -> bool:
        """True if a body that was cut off may be started again: then interrupting it gives the run back, too."""
        return self.lease is not None and self.on_abandoned is WhenAbandoned.RERUN and self.max_crashes != 0

    def request(self, run: RunId, *, holder: str, payload: Json) -> CheckIn:
        """A new check-in request under this policy."""
        hold = self.on_abandoned is WhenAbandoned.HOLD
        return CheckIn(
            run=run,
            holder=holder,
            lease=self.lease,
            on_failed=self.on_failed,
            on_abandoned=OnAbandoned.HOLD if hold else OnAbandoned.RERUN,
            max_crashes=0 if self.on_abandoned is WhenAbandoned.FAIL else self.max_crashes,
            payload=payload,
        )


E = TypeVar("E", bound=enum.StrEnum)


def _one_of(kind: type[E], field: str, value: E | str) -> E:
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(field, value, ", ".join(repr(each.value) for each in kind)) from None
