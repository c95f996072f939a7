"""What happens to occurrences that were missed or that overlap, and how runs are spread. Pure functions of time."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from onceward.contracts import checks
from onceward.toolkit.schedules.schedule import EPOCH, Schedule, in_utc, utc_text

DEFAULT_GRACE: Final = timedelta(minutes=1)
MAX_LIMIT: Final = 10_000
_TICK = timedelta(microseconds=1)


class MisfirePolicy(enum.StrEnum):
    """What becomes of occurrences that nobody was there to see."""

    SKIP = "skip"  #: they do not run
    ONCE = "once"  #: the latest of them runs, unless one that is on time does
    ALL = "all"  #: each of them runs


class Overlap(enum.StrEnum):
    """What becomes of an occurrence while the run of an earlier one has not ended."""

    SKIP = "skip"  #: it does not run
    QUEUE_ONE = "queue_one"  #: it waits; while it does, later ones do not run
    ALLOW = "allow"  #: it runs beside it
    CANCEL_RUNNING = "cancel_running"  #: the earlier one is asked to stop, and it runs after that


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfire:
    """The rule for occurrences that were missed: the servers were down, or the store was.

    Attributes:
        policy: what becomes of those that are late by more than ``grace``.
        limit: how many may start at one time, missed or not; the latest ones do.
        grace: how late one may be and still counts as on time; None: one minute.
    """

    policy: MisfirePolicy = MisfirePolicy.ONCE
    limit: int = 100
    grace: timedelta | None = None

    def __post_init__(self) -> None:
        checks.kind("misfire.policy", self.policy, MisfirePolicy)
        checks.whole("misfire.limit", self.limit, 1, MAX_LIMIT)
        checks.delay("misfire.grace", self.grace)

    def forgives(self, lateness: timedelta) -> bool:
        """What is so late still counts as on time."""
        return lateness <= (DEFAULT_GRACE if self.grace is None else self.grace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What is to start, and what is not.

    Attributes:
        occurrences: to start, in order.
        cursor: how far the schedule has been dealt with; to be kept for the next time.
        skipped: the first and the last occurrence that were passed over, so that nothing is missed silently.
    """

    occurrences: list[datetime]
    cursor: datetime
    skipped: tuple[datetime, datetime] | None = None


def due_occurrences(
    schedule: Schedule, cursor: datetime | None, now: datetime, misfire: Misfire
) -> tuple[list[datetime], datetime]:
    """The occurrences to start now, in order, and the new cursor; see ``judge``."""
    due = judge(schedule, cursor, now, misfire)
    return due.occurrences, due.cursor


def judge(schedule: Schedule, cursor: datetime | None, now: datetime, misfire: Misfire) -> Due:
    """What has become due after ``cursor``, up to and including ``now``, sorted by the rule for what was missed.

    Without a cursor the schedule is seen for the first time: one for certain instants owes them even if they have
    passed, any other begins now. The cursor moves from occurrence to occurrence and never back, so that servers whose
    clocks differ agree, and one whose clock is late does nothing. Years of missed seconds cost no more than a minute.
    """
    now = in_utc("now", now)
    begin = EPOCH - _TICK if schedule.owes_the_past else now
    cursor = begin if cursor is None else in_utc("cursor", cursor)
    newest = _newest(schedule, cursor, now, misfire)
    if not newest:
        return Due(occurrences=[], cursor=max(cursor, EPOCH))
    on_time = [occurrence for occurrence in newest if misfire.forgives(schedule.lateness(occurrence, now))]
    match misfire.policy:
        case MisfirePolicy.ALL:
            chosen = newest
        case MisfirePolicy.ONCE:
            chosen = on_time or newest[-1:]
        case MisfirePolicy.SKIP:
            chosen = on_time
    return Due(occurrences=chosen, cursor=newest[-1], skipped=_skipped(schedule, cursor, newest, chosen))


def jittered(occurrence: datetime, job: str, jitter: timedelta) -> datetime:
    """When the run of an occurrence may start: up to ``jitter`` later, by a hash that every server computes alike.

    The occurrence stays what it is; only its run is spread. So no jitter, however long, skips or repeats one.
    """
    checks.delay("jitter", jitter)
    digest = hashlib.sha256(f"{utc_text(occurrence)}\0{job}".encode("utf-8", "surrogatepass")).digest()
    whole = jitter // timedelta(milliseconds=1)
    return occurrence + timedelta(milliseconds=int.from_bytes(digest[:8]) * (whole + 1) >> 64)


def _newest(schedule: Schedule, cursor: datetime, now: datetime, misfire: Misfire) -> list[datetime]:
    """The last occurrences after ``cursor``, in order: as many as may start, and the latest missed one at least."""
    found: list[datetime] = []
    until = now
    while len(found) < misfire.limit and (latest := schedule.latest(cursor, until)) is not None:
        found.append(latest)
        if misfire.policy is not MisfirePolicy.ALL and not misfire.forgives(schedule.lateness(latest, now)):
            break  # what is older has been missed, too
        until = latest - _TICK
    return found[::-1]


def _skipped(
    schedule: Schedule, cursor: datetime, newest: list[datetime], chosen: list[datetime]
) -> tuple[datetime, datetime] | None:
    """The first and the last that were passed over: all of those are older than all that were chosen."""
    first = schedule.following(cursor)
    assert first is not None  # the newest is one
    if not chosen:
        return first, newest[-1]
    if chosen[0] == first:
        return None
    last = schedule.latest(cursor, chosen[0] - _TICK)
    assert last is not None  # the first is one
    return first, last
