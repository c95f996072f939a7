"""The values that cross the contracts: identities, leases, runs, locks. Frozen, keyword-only, validated when made."""

from __future__ import annotations

import enum
import traceback
from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from onceward.contracts import checks
from onceward.contracts.interpreter import undisturbed
from onceward.contracts.payload import Json, canonical

#: A run remembers this many of its latest attempts.
ATTEMPTS_KEPT = 20

PRIORITY_LOWEST, PRIORITY_HIGHEST = -100, 100


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records.

    Those that hold nothing but texts, numbers and other such records can be in no cycle, so they are kept from the
    garbage collector (``gc=False``): there are many of them, and each would make it look more often.
    """


class Status(enum.StrEnum):
    """Where a run is in its life."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True once nothing but a re-arm or a purge can change the run."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class RunId(msgspec.Struct, frozen=True, order=True, gc=False):
    """Identity of a run within its namespace: the job, the key, and the stamp in canonical JSON ("" for none).

    The same job and key under different stamps are different runs.
    """

    job: str
    key: str
    stamp: str = ""

    def __post_init__(self) -> None:
        checks.name("job", self.job)
        checks.key("key", self.key)
        if self.stamp:
            checks.stamp_text("stamp", self.stamp)

    @classmethod
    def of(cls, job: str, key: str, stamp: Mapping[str, Json] | None = None) -> RunId:
        """The identity for a stamp given as a mapping.

        Raises:
            InvalidRequest: a name is empty, too long or holds control characters; the stamp is not plain data.
        """
        return cls(job, key, stamp_text(stamp))

    def __str__(self) -> str:
        return f"{self.job}/{self.key}" + (f" {self.stamp}" if self.stamp else "")


def stamp_text(stamp: Mapping[str, Json] | None) -> str:
    """The canonical text of a stamp, "" for an empty one: equal stamps give equal texts."""
    return canonical(checks.stamp("stamp", stamp), field="stamp") if stamp else ""


class LockId(msgspec.Struct, frozen=True, order=True, gc=False):
    """Identity of a lock within its namespace."""

    name: str

    def __post_init__(self) -> None:
        checks.name("lock name", self.name)

    def __str__(self) -> str:
        return f"lock {self.name}"


class Lease(Record, frozen=True, kw_only=True, gc=False):
    """The right to a resource until ``expires`` by the store's clock, proven by ``token``.

    Attributes:
        resource: what is held.
        holder: who holds it; unique per process start.
        token: fencing token: strictly increasing per resource for ever.
        request: id of the request that obtained it.
        duration: how long each renewal lasts; None: it never lapses by itself.
        expires: when it lapses, as an instant of the store's clock; None: never.
    """

    resource: RunId | LockId
    holder: str
    token: int
    request: str
    duration: timedelta | None = None
    expires: datetime | None = None


class Failure(Record, frozen=True, kw_only=True, gc=False):
    """What went wrong in an attempt: the exception's type, its message, and optionally its traceback."""

    type: str
    message: str
    trace: str | None = None

    def __post_init__(self) -> None:
        checks.text("error.type", self.type, 256)
        checks.text("error.message", self.message, 4_000)
        if self.trace is not None:
            checks.text("error.trace", self.trace, 16_000)

    @classmethod
    def of(cls, error: BaseException, *, traced: bool = False) -> Failure:
        """Describe an exception, with its traceback if ``traced``.

        Text that no store could hold is replaced, and very long text is cut; a traceback ends where it went wrong.
        """
        return cls(
            type=checks.storable(type(error).__name__, 256),
            message=checks.storable(_said(error), 4_000),
            trace=checks.storable(_traced(error), 16_000, keep_end=True) if traced else None,
        )


def _said(error: BaseException) -> str:
    """The message of an exception, also of one that fails to say it: its end has to be recorded all the same."""
    try:
        return str(error)
    except Exception as worse:
        return f"(no message: {type(worse).__name__} while it was made)"


def _traced(error: BaseException) -> str:
    """The traceback of an exception, also of one that does not let itself be shown; see ``_said``."""
    try:
        return "".join(undisturbed(lambda: traceback.format_exception(error)))
    except Exception as worse:
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
        lines = [f'  File "{code.co_filename}", line {line}, in {code.co_name}\n' for code, line in frames]
        return f"(places only: {type(worse).__name__} while it was made)\n{''.join(lines)}"


class Progress(Record, frozen=True, kw_only=True, gc=False):
    """How far a run is: ``done`` of ``total`` units (total None: not known)."""

    done: int = 0
    total: int | None = None
    message: str = ""

    def __post_init__(self) -> None:
        checks.whole("progress.done", self.done, 0, 2**53)
        if self.total is not None:
            checks.whole("progress.total", self.total, 0, 2**53)
        checks.text("progress.message", self.message, 4_000)


class Ending(enum.StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRY = "retry"
    """Failed, and due again later: counts as a failure."""
    RELEASED = "released"
    """Given back unfinished, through nobody's fault: counts as neither failure nor crash."""
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    """Its lease lapsed and another took over, or its crash budget ran out. Written by stores only."""


class Attempt(Record, frozen=True, kw_only=True, gc=False):
    """One try of a run."""

    number: int
    holder: str
    token: int
    request: str
    started: datetime
    takeover: bool = False
    ended: datetime | None = None
    ending: Ending | None = None
    checkout: str | None = None
    """Id of the check-out request that ended it, so that a repeated check-out is recognised."""
    error: Failure | None = None


class Run(Record, frozen=True, kw_only=True):
    """The record of one (namespace, job, key, stamp).

    Attributes:
        attempt: how often it was admitted; counted when it starts, so a crash counts too.
        failures: attempts that ended in FAILED or RETRY.
        crashes: attempts that were abandoned.
        max_crashes: this many abandoned attempts are forgiven; one more ends the run as FAILED. None: no limit.
        sequence: order of submission in the namespace.
        token: the newest token ever issued for it; 0 before the first admission.
        lease: who has it now (or had it last, if it lapsed); None unless RUNNING.
        origin: id of the request that created it.
        cancel_requested: somebody asked the holder to stop.
        rearmed: it waits since it was re-armed; nothing has taken it since.
        attempts: the latest attempts, oldest first, at most ATTEMPTS_KEPT.
    """

    id: RunId
    status: Status
    run_at: datetime
    created: datetime
    sequence: int
    payload: Json = None
    result: Json = None
    error: Failure | None = None
    progress: Progress | None = None
    priority: int = 0
    started: datetime | None = None
    ended: datetime | None = None
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    max_crashes: int | None = None
    token: int = 0
    lease: Lease | None = None
    origin: str = ""
    cancel_requested: bool = False
    rearmed: bool = False
    attempts: tuple[Attempt, ...] = ()

    @property
    def job(self) -> str:
        return self.id.job

    @property
    def key(self) -> str:
        return self.id.key


class LockState(Record, frozen=True, kw_only=True):
    """A held lock, as listings show it."""

    lease: Lease
    acquired: datetime
    note: str | None = None
    remaining: timedelta | None = None
    """Time until it lapses, by the store's clock, when this was read; zero or less: lapsed."""


class ConfigDoc(Record, frozen=True, kw_only=True):
    """A configuration document; ``version`` starts at 1 and grows by 1 with each write."""

    name: str
    version: int
    document: Json
    updated: datetime
