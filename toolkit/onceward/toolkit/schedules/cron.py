"""Cron expressions as patterns of local times: ``minute hour day-of-month month day-of-week``, or a second before them.

Two rules come from Vixie's cron. *Days*: if day-of-month and day-of-week both say something, a day has to fit only one
of them; it has to fit both if one of the two begins with ``*``. *Clock changes*: see ``Expression.follows_clock``.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Final

from onceward.contracts import InvalidRequest
from onceward.toolkit.schedules.fields import KINDS, LAST, Field, parse_field

ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
#: The last year with occurrences: later ones could not be written down in every time zone.
LAST_YEAR: Final = 9998
_LONGEST = 1_000
_FIELDS = "5 fields (minute hour day-of-month month day-of-week), or 6 with the second first"
#: Years of every kind: with and without 29 February, beginning on each day of the week.
_ALL_KINDS_OF_YEARS = range(2000, 2028)


@dataclass(frozen=True, slots=True)
class Expression:
    """A cron expression, understood. Equal ones say the same, however they were written."""

    second: Field
    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field

    @classmethod
    def parse(cls, text: str) -> Expression:
        """The expression that ``text`` writes; aliases such as ``@daily`` too.

        Raises:
            InvalidRequest: it is none, or no date ever fits; names the field, and a note points at it.
        """
        words = _words(text)
        parts = words if len(words) == len(KINDS) else ["0", *words]
        parsed = []
        for place, (kind, part) in enumerate(zip(KINDS, parts, strict=True)):
            try:
                parsed.append(parse_field(kind, part))
            except InvalidRequest as error:
                _point_at(error, words, place - len(KINDS) + len(words))
                raise
        found = cls(*parsed)
        if not any(found.days(year, month) for year in _ALL_KINDS_OF_YEARS for month in found.month.values):
            never = InvalidRequest("day-of-month field", parts[3], "days that some year has in the months named")
            _point_at(never, words, 3 - len(KINDS) + len(words))
            raise never
        return found

    @property
    def text(self) -> str:
        """The canonical text: five fields unless there is a second other than 0."""
        fields = [self.minute, self.hour, self.day, self.month, self.weekday]
        return " ".join(field.text for field in ([] if self.second.text == "0" else [self.second]) + fields)

    @property
    def follows_clock(self) -> bool:
        """It recurs along the clock (minute or hour begins with ``*``), rather than at certain times of a day."""
        return self.minute.star or self.hour.star

    @property
    def either_day(self) -> bool:
        """A day has to fit only one of day-of-month and day-of-week."""
        return not (self.day.star or self.weekday.star)

    def at_or_after(self, local: datetime) -> datetime | None:
        """The first local time that fits, from ``local`` on; None: none up to the last year."""
        if local.year > LAST_YEAR:
            return None
        of_day = self._time(local.time())
        if of_day is not None and local.day in self.days(local.year, local.month):
            return datetime.combine(local.date(), of_day)
        first = time(self.hour.values[0], self.minute.values[0], self.second.values[0])
        for year, month in _months(local.date()):
            for day in self.days(year, month):
                if (year, month, day) > (local.year, local.month, local.day):
                    return datetime.combine(date(year, month, day), first)
        return None

    def days(self, year: int, month: int) -> tuple[int, ...]:
        """The days of that month that fit."""
        if month not in self.month.values:
            return ()
        return _days(self.day, self.weekday, self.either_day, *monthrange(year, month))

    def _time(self, start: time) -> time | None:
        """The first time of a day that fits, from ``start`` on."""
        hours, minutes, seconds = self.hour.values, self.minute.values, self.second.values
        if start.hour in hours:
            if start.minute in minutes and start.second <= seconds[-1]:
                return time(start.hour, start.minute, seconds[bisect_left(seconds, start.second)])
            if start.minute < minutes[-1]:
                return time(start.hour, minutes[bisect_left(minutes, start.minute + 1)], seconds[0])
        if start.hour < hours[-1]:
            return time(hours[bisect_left(hours, start.hour + 1)], minutes[0], seconds[0])
        return None


def looks_like_cron(text: str) -> bool:
    """Somebody meant a cron expression: an alias, or columns that begin with digits and signs."""
    words = text.split()
    begins = bool(words) and set(words[0]) <= set("0123456789*,-/?")
    return text.strip().startswith("@") or (begins and (len(words) > 3 or "*" in text))


def _words(text: str) -> list[str]:
    """The fields' texts, five or six."""
    if len(text) > _LONGEST:
        raise InvalidRequest("cron expression", text, f"at most {_LONGEST} characters")
    name = text.strip().lower()
    if name == "@reboot":
        allowed = "a time: the cluster has no reboot. Use 'now' for once, or run it when your program starts"
        raise InvalidRequest("cron expression", text, allowed)
    if name.startswith("@") and name not in ALIASES:
        raise InvalidRequest("cron expression", text, f"{', '.join(ALIASES)}, or {_FIELDS}")
    words = ALIASES.get(name, text).split()
    if len(words) not in (len(KINDS) - 1, len(KINDS)):
        raise InvalidRequest("cron expression", text, f"{_FIELDS}; these are {len(words)}")
    return words


def _point_at(error: InvalidRequest, words: list[str], place: int) -> None:
    """The error shows the expression, with the field underlined."""
    before = sum(len(word) + 1 for word in words[:place])
    error.add_note(" ".join(words))
    error.add_note(" " * before + "^" * len(words[place]))


def _months(day: date) -> Iterator[tuple[int, int]]:
    """Years and months from that day's on."""
    yield from ((day.year, month) for month in range(day.month, 13))
    yield from ((year, month) for year in range(day.year + 1, LAST_YEAR + 1) for month in range(1, 13))


@functools.lru_cache(maxsize=4096)
def _days(day: Field, weekday: Field, either: bool, first_weekday: int, length: int) -> tuple[int, ...]:
    """The days that fit, of a month that begins on that weekday (0 is Monday) and has so many days."""
    found = []
    for number in range(1, length + 1):
        of_week = (first_weekday + number) % 7  # 0 is Sunday
        by_day = number in day.values or (number == length and LAST in day.values)
        by_week = (
            of_week in weekday.values
            or (of_week, (number + 6) // 7) in weekday.nth
            or (number + 7 > length and (of_week, LAST) in weekday.nth)
        )
        if (by_day or by_week) if either else (by_day and by_week):
            found.append(number)
    return tuple(found)
