"""The kinds of schedules: by cron expression, every so often, once at an instant, and now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import ClassVar
from zoneinfo import ZoneInfo

from onceward.contracts import InvalidRequest, Json, checks
from onceward.toolkit.durations import spell
from onceward.toolkit.schedules import words
from onceward.toolkit.schedules.cron import LAST_YEAR, Expression
from onceward.toolkit.schedules.schedule import EPOCH, Schedule, utc_text, whole_ms
from onceward.toolkit.schedules.wall_clock import Fold, Gap, next_instant
from onceward.toolkit.zones import time_zone

MIN_INTERVAL, MAX_INTERVAL = timedelta(seconds=1), timedelta(days=36_500)


@dataclass(frozen=True)
class CronSchedule(Schedule):
    """At the local times of a cron expression, by the wall clock of the schedule's zone.

    Attributes:
        expression: the local times.
        gap: what becomes of those that the clock skips. By default an expression for certain times of a day runs
            right after the gap; one whose minute or hour begins with ``*`` goes on with the clock.
        fold: what becomes of those that the clock shows twice. By default the former run the first time only, the
            latter both times.
    """

    expression: Expression
    gap: Gap | None = None
    fold: Fold | None = None

    type: ClassVar[str] = "cron"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.kind("expression", self.expression, Expression)
        if self.gap is not None:
            checks.kind("gap", self.gap, Gap)
        if self.fold is not None:
            checks.kind("fold", self.fold, Fold)

    @property
    def text(self) -> str:
        return self.expression.text

    @property
    def gap_rule(self) -> Gap:
        """The rule for gaps that is in force."""
        return self.gap or (Gap.SKIP if self.expression.follows_clock else Gap.FIRE_AFTER)

    @property
    def fold_rule(self) -> Fold:
        """The rule for folds that is in force."""
        return self.fold or (Fold.BOTH if self.expression.follows_clock else Fold.FIRST)

    def explain(self) -> str:
        when = words.sentence(self.expression)
        return f"Runs {when}, {words.by_clock(self._zone, self.gap_rule, self.fold_rule)}{words.dates(self)}"

    def to_dict(self) -> dict[str, Json]:
        rules = {name: str(rule) for name, rule in (("gap", self.gap), ("fold", self.fold)) if rule is not None}
        return {**super().to_dict(), **rules}

    @cached_property
    def _zone(self) -> ZoneInfo:
        return time_zone(self.timezone)

    def _after(self, moment: datetime) -> datetime | None:
        return next_instant(moment, self.expression.at_or_after, self._zone, self.gap_rule, self.fold_rule)


@dataclass(frozen=True)
class IntervalSchedule(Schedule):
    """Every so often by elapsed time, whatever clocks show.

    Counted from ``start``, or else from the beginning of 1970 in the schedule's zone, so that every process counts
    alike, and after a restart as before.
    """

    every: timedelta

    type: ClassVar[str] = "interval"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.every, timedelta) or not MIN_INTERVAL <= self.every <= MAX_INTERVAL:
            raise InvalidRequest("every", self.every, "a timedelta from 1 second to 100 years")
        if self.every % timedelta(milliseconds=1):
            raise InvalidRequest("every", self.every, "whole milliseconds, which is what stores keep")

    @property
    def text(self) -> str:
        return f"every {spell(self.every)}"

    @cached_property
    def anchor(self) -> datetime:
        """The instant from which it is counted."""
        return self.start or datetime(1970, 1, 1, tzinfo=time_zone(self.timezone)).astimezone(UTC)

    def explain(self) -> str:
        since = utc_text(self.anchor)
        return f"Runs {self.text}, counted from {since}; changes of the clock do not matter{words.dates(self)}"

    def _after(self, moment: datetime) -> datetime | None:
        try:
            found = self.anchor + max((moment - self.anchor) // self.every + 1, 0) * self.every
        except OverflowError:
            return None
        return found if found.year <= LAST_YEAR else None


@dataclass(frozen=True)
class OnceSchedule(Schedule):
    """At one instant; if that has passed when the schedule is first seen, late rather than never."""

    at: datetime

    type: ClassVar[str] = "once"
    owes_the_past: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "at", whole_ms("at", self.at))

    @property
    def text(self) -> str:
        return utc_text(self.at)

    def explain(self) -> str:
        local = self.at.astimezone(time_zone(self.timezone))
        return f"Runs once, at {local:%Y-%m-%d %H:%M:%S%z} ({self.timezone}){words.dates(self)}"

    def _after(self, moment: datetime) -> datetime | None:
        return self.at if moment < self.at else None


@dataclass(frozen=True)
class NowSchedule(Schedule):
    """Once, as soon as the schedule is known.

    All processes have to agree on its one occurrence, whenever they first see it: it is nominally that of 1970-01-01.
    """

    type: ClassVar[str] = "now"
    owes_the_past: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start is not None or self.end is not None:
            raise InvalidRequest("start, end", self.start or self.end, "none for 'now'; for later give an instant")

    @property
    def text(self) -> str:
        return "now"

    def explain(self) -> str:
        return "Runs once, as soon as it is known."

    def lateness(self, occurrence: datetime, now: datetime) -> timedelta:
        return timedelta(0)

    def _after(self, moment: datetime) -> datetime | None:
        return EPOCH if moment < EPOCH else None
