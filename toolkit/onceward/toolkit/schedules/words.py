"""Cron expressions in English. What ``sentence`` says of one with certain times, ``human`` understands."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from onceward.toolkit.schedules.fields import LAST, MONTHS, WEEKDAYS, Field
from onceward.toolkit.schedules.wall_clock import Fold, Gap

if TYPE_CHECKING:
    from onceward.toolkit.schedules.cron import Expression
    from onceward.toolkit.schedules.schedule import Schedule

NTH: Final = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", LAST: "last"}
WORKDAYS, WEEKEND = (1, 2, 3, 4, 5), (0, 6)
_MOST_TIMES = 24

_GAPS = {Gap.FIRE_AFTER: "runs right after the gap", Gap.SKIP: "is left out"}
_FOLDS = {Fold.FIRST: "the first time only", Fold.SECOND: "the second time only", Fold.BOTH: "both times"}


def sentence(expression: Expression) -> str:
    """When it fits: times, then days."""
    return f"{_times(expression)} {_days(expression)}".removesuffix(" every day" if _recurs(expression) else "")


def by_clock(zone: ZoneInfo, gap: Gap, fold: Fold) -> str:
    """By whose clock, and what happens when that is changed."""
    if zone.utcoffset(None) is not None:
        return f"by the clock of {zone.key}, which is never changed"
    return f"by the clock of {zone.key}: a time that it skips {_GAPS[gap]}; one that it shows twice runs {_FOLDS[fold]}"


def dates(schedule: Schedule) -> str:
    """Between which dates, and the end of the sentence."""
    since = f", from {schedule.start:%Y-%m-%d %H:%M:%S}Z on" if schedule.start else ""
    until = f", until {schedule.end:%Y-%m-%d %H:%M:%S}Z" if schedule.end else ""
    return f"{since}{until}."


def listing(words: Sequence[str]) -> str:
    """Words with commas and an "and"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``11th``."""
    ending = "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _recurs(expression: Expression) -> bool:
    return expression.follows_clock or len(list(_product(expression))) > _MOST_TIMES


def _product(expression: Expression) -> product[tuple[int, ...]]:
    return product(expression.hour.values, expression.minute.values, expression.second.values)


def _times(expression: Expression) -> str:
    if not _recurs(expression):
        exact = expression.second.text != "0"
        clock = [f"{h:02}:{m:02}:{s:02}" if exact else f"{h:02}:{m:02}" for h, m, s in _product(expression)]
        return f"at {listing(clock)}"
    second, minute, hour = expression.second, expression.minute, expression.hour
    parts = [] if second.text == "0" else [_unit("second", second)]
    if not parts or not minute.every:
        parts.append(_unit("minute", minute))
    if not hour.every or not minute.star:
        parts.append(_unit("hour", hour))
    return ("" if parts[0].startswith("every") else "at ") + " of ".join(parts)


def _unit(name: str, field: Field) -> str:
    if field.every:
        return f"every {name}"
    step = field.text.removeprefix("*/")
    if field.star and step.isdecimal():
        return f"every {step} {name}s" if name != "hour" else f"every {ordinal(int(step))} hour from 0"
    return f"{name}{'s' if len(field.values) > 1 else ''} {listing([str(value) for value in field.values])}"


def _days(expression: Expression) -> str:
    day, weekday, month = expression.day, expression.weekday, expression.month
    of_month = _of_month(day)
    of_week = _of_week(weekday)
    if day.every:
        days = "every day" if weekday.every else f"on {of_week}"
    elif weekday.every:
        days = f"on {of_month}"
    elif expression.either_day:
        days = f"on {of_month} and also on {of_week}"
    else:
        days = f"on {of_month} where that is also {of_week}"
    return days if month.every else f"{days} in {listing([MONTHS[number - 1] for number in month.values])}"


def _of_month(field: Field) -> str:
    numbers = [ordinal(number) for number in field.values if number != LAST]
    last = ["last day"] if LAST in field.values else []
    return f"the {listing(numbers + last)} of the month"


def _of_week(field: Field) -> str:
    if field.nth:
        nth = [f"the {NTH[n]} {WEEKDAYS[day]}" for day, n in field.nth]
        return f"{listing([*(WEEKDAYS[day] for day in field.values), *nth])} of the month"
    if field.values in (WORKDAYS, WEEKEND):
        return "weekdays" if field.values == WORKDAYS else "weekends"
    return listing([WEEKDAYS[day] for day in field.values])
