"""The outcome of a run of the suite, as data: what was tried, how often, what held, and what did not."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

import msgspec

from onceward.contracts.records import Record

#: Grows when properties are added or become stricter; two certificates compare only within one version.
SUITE_VERSION = "1.0"


class Verdict(enum.StrEnum):
    """What became of one property."""

    HOLDS = "holds"
    VIOLATED = "violated"
    OUT_OF_TIME = "ran out of time"
    """It was begun, but some of what it promises was never evaluated."""
    NOT_RUN = "could not run"
    SKIPPED = "skipped"
    """The store's traits say that the promise is not made. Never a pass."""
    EXCUSED = "excused"
    """Somebody overrode it and gave a reason. Never a pass."""


class Violation(Record, frozen=True, kw_only=True):
    """A broken promise, with the shortest history that shows it and the command that shows it again."""

    guarantee: str
    promise: str
    happened: str
    history: tuple[str, ...]
    diagram: str
    seed: int
    command: str


class Result(Record, frozen=True, kw_only=True):
    """One property's line.

    Attributes:
        executions: how often each promise inside was really evaluated, by guarantee id.
        cases: fresh namespaces that were tried; operations: requests that were sent in them.
        faults: what was done to clients and stores, and really happened.
    """

    id: str
    statement: str
    verdict: Verdict
    reason: str = ""
    executions: Mapping[str, int] = {}
    cases: int = 0
    operations: int = 0
    rounds: int = 0
    seconds: float = 0.0
    faults: Mapping[str, int] = {}
    notes: tuple[str, ...] = ()
    violation: Violation | None = None

    @property
    def executed(self) -> int:
        """How many evaluations there were in all."""
        return sum(self.executions.values())


class Certificate(Record, frozen=True, kw_only=True):
    """What a run of the suite says about a store."""

    suite_version: str
    onceward_version: str
    python: str
    platform: str
    target: str
    started: datetime
    seconds: float
    seed: int
    budget_seconds: float
    store: Mapping[str, str | int | float | bool] = {}
    traits: Mapping[str, object] = {}
    probed: Mapping[str, str] = {}
    profiles: Mapping[str, bool] = {}
    """Each profile that was asked for, and whether the store conforms to it."""
    results: tuple[Result, ...] = ()
    operations: int = 0
    faults: Mapping[str, int] = {}
    problem: str = ""
    """Why the suite could not run at all."""

    @property
    def conformant(self) -> bool:
        """True if every profile that was asked for is kept, every property in it executed, and none skipped."""
        return bool(self.profiles) and all(self.profiles.values()) and not self.problem

    @property
    def violated(self) -> bool:
        """True if some promise was broken."""
        return any(result.verdict is Verdict.VIOLATED for result in self.results)

    @property
    def exit_code(self) -> int:
        """0 conformant, 1 violated, 2 could not run (also: skipped, excused, or out of time)."""
        if self.violated:
            return 1
        return 0 if self.conformant else 2

    def as_json(self) -> bytes:
        """The certificate for programs."""
        return msgspec.json.format(msgspec.json.encode(_with_summary(self)), indent=2)


def _with_summary(certificate: Certificate) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(certificate)
    return {"conformant": certificate.conformant, "exit_code": certificate.exit_code, **plain}
