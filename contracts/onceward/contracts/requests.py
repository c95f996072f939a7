"""What a caller asks of a runner. Each request that acquires or ends something carries an id of its own.

The id is made before the first send and stays the same when the request is sent again, so a store recognises the
repetition: every primitive is idempotent under repetition of the same request.
"""

from __future__ import annotations

import enum
import os
import secrets
import socket
import time
from datetime import datetime, timedelta

import msgspec

from onceward.contracts import checks
from onceward.contracts.payload import Json
from onceward.contracts.records import (
    PRIORITY_HIGHEST,
    PRIORITY_LOWEST,
    Ending,
    Failure,
    Lease,
    LockId,
    Progress,
    Record,
    Run,
    RunId,
    Status,
)

#: Random bits are drawn for so many request ids at once: a system call for each costs more than the rest of a request,
#: and hands the interpreter to another thread every time.
_DRAWN_AT_ONCE = 64
_drawn: list[int] = []


def new_request() -> str:
    """A fresh request id: 128 random bits in hexadecimal.

    The clock is mixed in (which takes nothing from the randomness), so that clones of a running virtual machine,
    which go on with the same bits in store, make different ids of them all the same.
    """
    try:
        bits = _drawn.pop()
    except IndexError:
        block = os.urandom(16 * _DRAWN_AT_ONCE)
        bits, *others = (int.from_bytes(block[at : at + 16]) for at in range(0, len(block), 16))
        _drawn.extend(others)
    return (bits ^ time.time_ns()).to_bytes(16).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)


def new_holder() -> str:
    """A fresh holder name, unique per call even where host name and pid repeat, as they do in containers."""
    host = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "-" for c in socket.gethostname())[:64]
    return f"{host or 'host'}:{os.getpid()}:{secrets.token_hex(8)}"


class OnFailed(enum.StrEnum):
    """What a check-in does with a run that FAILED before."""

    BLOCK = "block"
    RERUN = "rerun"


class OnAbandoned(enum.StrEnum):
    """What a check-in does with a run whose lease has lapsed."""

    RERUN = "rerun"
    """Take it over, unless the crash budget is used up; then it ends as FAILED."""
    HOLD = "hold"
    """Leave it as it is, for a person to look at."""


class CheckIn(Record, frozen=True, kw_only=True):
    """May I run this? Submit and claim of exactly one run, in one transition.

    Attributes:
        lease: how long the right lasts unless renewed; None: for ever, so it is never taken over.
        max_crashes: abandoned attempts that are forgiven; 0: the first lapse ends the run as FAILED; None: no limit.
        payload: kept with the run when this request creates it; ignored otherwise.
    """

    run: RunId
    holder: str
    request: str = msgspec.field(default_factory=new_request)
    lease: timedelta | None = None
    on_failed: OnFailed = OnFailed.BLOCK
    on_abandoned: OnAbandoned = OnAbandoned.RERUN
    max_crashes: int | None = None
    payload: Json = None

    def __post_init__(self) -> None:
        checks.kind("run", self.run, RunId)
        checks.token_text("holder", self.holder)
        checks.token_text("request", self.request)
        if self.lease is not None:
            checks.required_lease("lease", self.lease)
        if self.on_failed is not OnFailed.BLOCK:
            checks.kind("on_failed", self.on_failed, OnFailed)
        if self.on_abandoned is not OnAbandoned.RERUN:
            checks.kind("on_abandoned", self.on_abandoned, OnAbandoned)
        if self.max_crashes is not None:
            checks.budget("max_crashes", self.max_crashes)


class CheckInOutcome(enum.StrEnum):
    """The answer to a check-in."""

    ADMITTED = "admitted"
    TAKEN_OVER = "taken_over"
    """Admitted, after somebody else's lease had lapsed."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SCHEDULED = "scheduled"
    """Known, but not yet due: a retry waits for its time, or it was submitted for later."""
    ABANDONED = "abandoned"
    """Its lease has lapsed and the request said HOLD."""

    @property
    def admitted(self) -> bool:
        """True when the caller may run."""
        return self in (CheckInOutcome.ADMITTED, CheckInOutcome.TAKEN_OVER)


class Admission(Record, frozen=True, kw_only=True):
    """The answer to a check-in, with the run as it is now.

    ``remaining`` is the time until the current lease lapses by the store's clock (None: no lease, or it never
    lapses). An admission that is repeated after its lease lapsed still answers ADMITTED, with nothing remaining.
    """

    outcome: CheckInOutcome
    run: Run
    remaining: timedelta | None = None


class Want(Record, frozen=True, kw_only=True):
    """One job in a claim.

    Attributes:
        limit: at most this many runs of the job in this claim; None: only the claim's own limit.
        max_running: never more than this many live leases of the job in the whole namespace; None: no limit.
        lease: lease for this job's runs; None: the claim's.
    """

    job: str
    limit: int | None = None
    max_running: int | None = None
    lease: timedelta | None = None

    def __post_init__(self) -> None:
        checks.name("job", self.job)
        if self.limit is not None:
            checks.whole("limit", self.limit, 0, 100_000)
        if self.max_running is not None:
            checks.whole("max_running", self.max_running, 0, 1_000_000)
        checks.lease("lease", self.lease)


class Claim(Record, frozen=True, kw_only=True):
    """Take due runs. ``wants`` None: of any job."""

    holder: str
    lease: timedelta
    limit: int = 1
    wants: tuple[Want, ...] | None = None
    request: str = msgspec.field(default_factory=new_request)

    def __post_init__(self) -> None:
        checks.token_text("holder", self.holder)
        checks.token_text("request", self.request)
        checks.required_lease("lease", self.lease)
        checks.whole("limit", self.limit, 1, 100_000)
        if self.wants is not None:
            checks.distinct("wants", [want.job for want in self.wants])

    @classmethod
    def of(cls, *jobs: str, holder: str, lease: timedelta, limit: int = 1) -> Claim:
        """A claim on these jobs, without limits per job."""
        return cls(holder=holder, lease=lease, limit=limit, wants=tuple(Want(job=job) for job in jobs))


class Renewal(Record, frozen=True, kw_only=True):
    """Extend a lease: its new end is the store's now plus ``duration`` (None: the lease's own), never an addition."""

    lease: Lease
    duration: timedelta | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        checks.kind("lease", self.lease, Lease)
        checks.lease("duration", self.duration)


class Renewed(enum.StrEnum):
    """The answer to a renewal."""

    HELD = "held"
    LOST = "lost"
    """The token is stale or the lease has lapsed: stop. Nothing was changed."""
    CANCELLING = "cancelling"
    """Still held and extended, but somebody asked for the run to stop."""


class CheckOut(Record, frozen=True, kw_only=True):
    """An attempt ended. Recorded only with the newest token; a lapsed lease that nobody took over still counts.

    Attributes:
        after, at: for RETRY and RELEASED, when the run is due again: so long after the store's now, or at an instant;
            neither: at once.
    """

    lease: Lease
    ending: Ending
    result: Json = None
    error: Failure | None = None
    after: timedelta | None = None
    at: datetime | None = None
    request: str = msgspec.field(default_factory=new_request)

    def __post_init__(self) -> None:
        checks.kind("lease", self.lease, Lease)
        checks.kind("ending", self.ending, Ending)
        if not isinstance(self.lease.resource, RunId):
            checks.refuse("lease", self.lease.resource, "the lease of a run; a lock ends with unlock()")
        if self.ending is Ending.ABANDONED:
            checks.refuse("ending", self.ending, "succeeded, failed, retry, released or cancelled")
        checks.token_text("request", self.request)
        if self.after is not None or self.at is not None:
            self._check_due()

    def _check_due(self) -> None:
        checks.delay("after", self.after)
        checks.instant("at", self.at)
        if self.after is not None and self.at is not None:
            checks.refuse("at", self.at, "either after or at, not both")
        if self.ending not in (Ending.RETRY, Ending.RELEASED):
            checks.refuse(
                "after/at", self.after or self.at, f"nothing: a run that ended {self.ending} is not due again"
            )

    @property
    def run(self) -> RunId:
        """The run that this ends."""
        assert isinstance(self.lease.resource, RunId)  # __post_init__ refused anything else
        return self.lease.resource

    @classmethod
    def succeeded(cls, lease: Lease, result: Json = None) -> CheckOut:
        return cls(lease=lease, ending=Ending.SUCCEEDED, result=result)

    @classmethod
    def failed(cls, lease: Lease, error: Failure | None = None, *, result: Json = None) -> CheckOut:
        return cls(lease=lease, ending=Ending.FAILED, error=error, result=result)

    @classmethod
    def retry(
        cls, lease: Lease, error: Failure | None = None, *, after: timedelta | None = None, at: datetime | None = None
    ) -> CheckOut:
        return cls(lease=lease, ending=Ending.RETRY, error=error, after=after, at=at)

    @classmethod
    def released(cls, lease: Lease, *, after: timedelta | None = None, at: datetime | None = None) -> CheckOut:
        return cls(lease=lease, ending=Ending.RELEASED, after=after, at=at)

    @classmethod
    def cancelled(cls, lease: Lease, error: Failure | None = None) -> CheckOut:
        return cls(lease=lease, ending=Ending.CANCELLED, error=error)


class LockRequest(Record, frozen=True, kw_only=True):
    """Take a lock that nobody holds. ``note`` is shown to whoever looks at the lock."""

    lock: LockId
    holder: str
    lease: timedelta
    note: str | None = None
    request: str = msgspec.field(default_factory=new_request)

    def __post_init__(self) -> None:
        checks.kind("lock", self.lock, LockId)
        checks.token_text("holder", self.holder)
        checks.token_text("request", self.request)
        checks.required_lease("lease", self.lease)
        if self.note is not None:
            checks.text("note", self.note, 4_000)


class LockAnswer(Record, frozen=True, kw_only=True):
    """The answer to a lock request: mine (``acquired``) or somebody else's ``lease``, and how long it still lasts.

    ``lease`` None: nobody holds it, and the request was not granted since it is a late copy of one whose lease is
    over already; ask with a new request.
    """

    acquired: bool
    lease: Lease | None = None
    remaining: timedelta | None = None


class RunSpec(Record, frozen=True, kw_only=True):
    """A run to be. Without ``run_at`` or ``after`` it is due at once, by the store's clock."""

    id: RunId
    payload: Json = None
    priority: int = 0
    run_at: datetime | None = None
    after: timedelta | None = None
    max_crashes: int | None = None
    request: str = msgspec.field(default_factory=new_request)

    def __post_init__(self) -> None:
        checks.kind("id", self.id, RunId)
        checks.token_text("request", self.request)
        checks.whole("priority", self.priority, PRIORITY_LOWEST, PRIORITY_HIGHEST)
        checks.budget("max_crashes", self.max_crashes)
        if self.run_at is not None or self.after is not None:
            self._check_due()

    def _check_due(self) -> None:
        checks.instant("run_at", self.run_at)
        checks.delay("after", self.after)
        if self.run_at is not None and self.after is not None:
            checks.refuse("run_at", self.run_at, "either run_at or after, not both")

    @classmethod
    def of(cls, job: str, key: str, payload: Json = None, *, priority: int = 0) -> RunSpec:
        return cls(id=RunId(job, key), payload=payload, priority=priority)


class Cancelled(enum.StrEnum):
    """The answer to a cancel."""

    CANCELLED = "cancelled"
    """It had not started, and now never will; or it was cancelled before."""
    REQUESTED = "requested"
    """It is running; its holder is told with the next renewal."""
    ENDED = "ended"
    """It had already ended otherwise. Nothing was changed."""
    ABSENT = "absent"


class Rearm(Record, frozen=True, kw_only=True):
    """Make an ended run claimable again, if ``token`` is still its newest (so that no later outcome is undone)."""

    run: RunId
    token: int

    def __post_init__(self) -> None:
        checks.kind("run", self.run, RunId)
        checks.whole("token", self.token, 0, 2**63 - 1)


class ConfigWrite(Record, frozen=True, kw_only=True):
    """Write a configuration document if its version is still ``expected_version`` (0: it must not exist).

    ``document`` None deletes it.
    """

    name: str
    document: Json
    expected_version: int
    request: str = msgspec.field(default_factory=new_request)

    def __post_init__(self) -> None:
        checks.name("config name", self.name)
        checks.token_text("request", self.request)
        checks.whole("expected_version", self.expected_version, 0, 2**53)


class RunQuery(Record, frozen=True, kw_only=True):
    """Which runs to list, and how. Newest submissions first unless ``oldest_first``.

    Attributes:
        after: the ``sequence`` of the last run already seen; the listing goes on behind it.
        lapsed: only running ones whose lease has lapsed.
        stamp: only this stamp (its canonical text); None: any.
    """

    job: str | None = None
    key: str | None = None
    stamp: str | None = None
    statuses: frozenset[Status] = frozenset(Status)
    lapsed: bool = False
    oldest_first: bool = False
    after: int | None = None
    limit: int = 100

    def __post_init__(self) -> None:
        checks.whole("limit", self.limit, 1, 100_000)
        if self.after is not None:
            checks.whole("after", self.after, 0, 2**53)
        for status in self.statuses:
            checks.kind("statuses", status, Status)
        if self.job is not None:
            checks.name("job", self.job)
        if self.key is not None:
            checks.key("key", self.key)
        if self.stamp:
            checks.stamp_text("stamp", self.stamp)


class Purge(Record, frozen=True, kw_only=True):
    """Delete ended runs, and only those.

    Attributes:
        older_than: ended at least so long ago, by the store's clock.
        keep_last: of each job, keep this many of the latest to end.
        limit: delete at most this many in one call.
    """

    older_than: timedelta
    job: str | None = None
    statuses: frozenset[Status] = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
    stamp: str | None = None
    keep_last: int = 0
    limit: int = 1_000

    def __post_init__(self) -> None:
        checks.delay("older_than", self.older_than)
        checks.whole("keep_last", self.keep_last, 0, 2**53)
        checks.whole("limit", self.limit, 1, 100_000)
        if self.job is not None:
            checks.name("job", self.job)
        if self.stamp:
            checks.stamp_text("stamp", self.stamp)
        for status in self.statuses:
            checks.kind("statuses", status, Status)
            if not status.ended:
                checks.refuse("statuses", status, "succeeded, failed, cancelled: what is live is never purged")


class Interest(Record, frozen=True, kw_only=True):
    """What a watch is for: something to claim of these jobs, a lock freed, a run ended, a configuration changed."""

    jobs: frozenset[str] = frozenset()
    locks: frozenset[str] = frozenset()
    runs: frozenset[RunId] = frozenset()
    configs: bool = False
