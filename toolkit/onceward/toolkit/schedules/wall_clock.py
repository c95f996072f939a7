"""From a zone's wall clock to instants: what becomes of times that the clock skips or shows twice.

A *gap* is what the clock skips when it is put forward, a *fold* what it shows twice when it is put back. Each has one
policy; with both, every local time has no, one or two instants, and their order is settled.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)
#: After so many years calendars and the rules of zones repeat; a pattern that lay in gaps all the while always will.
_CYCLE = 400

#: The first local time of a pattern at or after a local time; None when there is none any more.
Pattern = Callable[[datetime], datetime | None]


class Gap(enum.StrEnum):
    """What becomes of a local time that does not exist on that day."""

    FIRE_AFTER = "fire_after"  #: it is the first instant after the gap; several such times make one occurrence
    SKIP = "skip"  #: it has no occurrence


class Fold(enum.StrEnum):
    """What becomes of a local time that exists twice on that day."""

    FIRST = "first"  #: the earlier instant
    SECOND = "second"  #: the later one
    BOTH = "both"  #: one occurrence at each


@dataclass(frozen=True, slots=True)
class Change:
    """A clock that is put forward or back.

    Attributes:
        at: the first instant, in UTC, with the new offset.
        before: the offset from UTC until then.
        after: the offset from then on.
    """

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def shows(self) -> datetime:
        """What the clock shows at the change: where a gap ends, or where a fold begins."""
        return wall(self.at, self.after)

    @property
    def would_show(self) -> datetime:
        """What it would have shown: where a gap begins, or where a fold ends."""
        return wall(self.at, self.before)


def wall(instant: datetime, offset: timedelta) -> datetime:
    """The local time, without zone, at an instant."""
    return (instant + offset).replace(tzinfo=None)


def instant(local: datetime, offset: timedelta) -> datetime:
    """The instant, in UTC, of a local time without zone."""
    return (local - offset).replace(tzinfo=UTC)


def change_at(local: datetime, zone: ZoneInfo) -> Change | None:
    """The change in whose gap or fold a local time lies; None for a time that exists once."""
    before, after = _offset(local, zone, fold=0), _offset(local, zone, fold=1)
    if before == after:
        return None
    low, high = sorted((instant(local, before), instant(local, after)))  # the change lies behind low, at most at high
    while high - low > _SECOND:
        middle = low + (high - low) // 2 // _SECOND * _SECOND
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return Change(high, before, after)


def next_instant(moment: datetime, pattern: Pattern, zone: ZoneInfo, gap: Gap, fold: Fold) -> datetime | None:
    """The first instant strictly after ``moment`` that ``pattern`` has in ``zone``; None: never again.

    The pattern's local times lie on whole seconds.
    """
    local = moment.astimezone(zone).replace(tzinfo=None, microsecond=0, fold=0)
    start = local + _SECOND
    change = change_at(local, zone)
    if change is not None:  # a local time that a clock has shown lies in no gap, so this is a fold
        found = _inside_fold(start, moment < change.at, change, pattern, fold)
        if found is not None:
            return found
        start = change.would_show
    while (match := pattern(start)) is not None and match.year <= local.year + _CYCLE:
        change = change_at(match, zone)
        if change is None:
            return instant(match, _offset(match, zone, fold=0))
        if change.before > change.after:
            return instant(match, change.after if fold is Fold.SECOND else change.before)
        if gap is Gap.FIRE_AFTER:
            return change.at
        start = change.shows
    return None


def _inside_fold(start: datetime, first_pass: bool, change: Change, pattern: Pattern, fold: Fold) -> datetime | None:
    """The first instant of what is left of a fold; None: nothing wanted is left of it."""
    if first_pass:
        match = pattern(start)
        if fold is not Fold.SECOND and match is not None and match < change.would_show:
            return instant(match, change.before)
        start = change.shows
    match = pattern(start)
    if fold is not Fold.FIRST and match is not None and match < change.would_show:
        return instant(match, change.after)
    return None


def _offset(local: datetime, zone: ZoneInfo, *, fold: int) -> timedelta:
    offset = zone.utcoffset(local.replace(fold=fold))
    assert offset is not None  # an IANA zone has one at any time
    return offset
