"""The fields of a cron expression: what may stand in each, and what it means.

The notation is that of Vixie's cron, with ``L`` and ``#`` for days as later schedulers have them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NoReturn

from onceward.contracts import InvalidRequest

#: Stands for the last one of a month: in the place of a day of the month, or of n in "weekday#n".
LAST: Final = -1

MONTHS: Final = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
]  # fmt: skip
WEEKDAYS: Final = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

_NUMBER = re.compile(r"[0-9]{1,2}")
_STEPPED = re.compile(r"([^/]*)/([^/]*)")
_RANGE = re.compile(r"([^-]*)-([^-]*)")
_NTH = re.compile(r"([^#]*)#([1-5])")
_LAST_WEEKDAY = re.compile(r"(.+)l")


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the six places: its name, its range, its names for numbers, and what else it takes."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    extra: str = ""

    @property
    def allowed(self) -> str:
        """What may stand there, in words."""
        names = f", {self.names[0]} to {self.names[-1]}" if self.names else ""
        return f"{self.low} to {self.high}{names}, *, a-b, steps such as */n or a-b/n, lists with commas{self.extra}"

    def number(self, name: str) -> int | None:
        """The number that a name or digits stand for."""
        if _NUMBER.fullmatch(name):
            return int(name)
        return self.names.index(name) + self.low if name in self.names else None


SECOND = Kind("second", 0, 59)
MINUTE = Kind("minute", 0, 59)
HOUR = Kind("hour", 0, 23)
DAY = Kind("day-of-month", 1, 31, extra=", L for the last day")
MONTH = Kind("month", 1, 12, tuple(name[:3].lower() for name in MONTHS))
WEEKDAY = Kind(
    "day-of-week",
    0,
    7,
    tuple(name[:3].lower() for name in WEEKDAYS),
    extra=" (0 and 7 are Sunday), 5#2 for the second Friday, 5L for the last",
)
KINDS: Final = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


@dataclass(frozen=True, slots=True)
class Field:
    """What one field says.

    Attributes:
        values: the numbers that match, in order; a day of the month may also be ``LAST``; Sunday is 0.
        star: it begins with ``*``, which cron's rules for days and for changes of the clock ask for.
        nth: weekdays of a certain week, as (weekday, n).
        text: the one text of all fields that say this.
    """

    values: tuple[int, ...]
    star: bool
    nth: tuple[tuple[int, int], ...]
    text: str

    @property
    def every(self) -> bool:
        """Just ``*``."""
        return self.text == "*"


def parse_field(kind: Kind, text: str) -> Field:
    """The field that ``text`` writes.

    Raises:
        InvalidRequest: it is none; names the field, the item and what is allowed.
    """
    values: set[int] = set()
    nth: set[tuple[int, int]] = set()
    items = text.lower().split(",")
    for item in items:
        if kind is DAY and item == "l":
            values.add(LAST)
        elif kind is WEEKDAY and (found := _nth(item)) is not None:
            nth.add(found)
        else:
            values.update(_numbers(kind, item))
    if kind is WEEKDAY:
        values = {value % 7 for value in values}
    star = items[0].startswith("*")
    step = int(items[0][2:] or 1) if star else 1
    head = ("*" if step == 1 else f"*/{step}") if star else ""
    return Field(tuple(sorted(values)), star, tuple(sorted(nth)), _canonical(kind, head, values, nth))


def refuse(kind: Kind, item: str, allowed: str | None = None) -> NoReturn:
    """Raise the error for an item of a field."""
    raise InvalidRequest(f"{kind.name} field", item, allowed or kind.allowed)


def _numbers(kind: Kind, item: str) -> range:
    """The numbers of one item of a list."""
    step = 1
    body = item
    if stepped := _STEPPED.fullmatch(item):
        body = stepped[1]
        step = _step(kind, item, stepped[2])
    if body == "*":
        return range(kind.low, kind.high + 1, step)
    if ranged := _RANGE.fullmatch(body):
        first, last = _number(kind, item, ranged[1]), _number(kind, item, ranged[2])
        if last == 0 and kind is WEEKDAY and ranged[2] == "sun":
            last = 7
        if first > last:
            around = f"{ranged[1]}-{kind.names[-1] if kind.names else kind.high},{kind.low}-{ranged[2]}"
            refuse(kind, item, f"a range that ascends; around the end write a list such as {around!r}")
        return range(first, last + 1, step)
    first = _number(kind, item, body)
    return range(first, kind.high + 1, step) if stepped else range(first, first + 1)


def _number(kind: Kind, item: str, text: str) -> int:
    number = kind.number(text)
    if number is None or not kind.low <= number <= kind.high:
        refuse(kind, item, _hint(kind, item))
    return number


def _step(kind: Kind, item: str, text: str) -> int:
    most = kind.high - kind.low
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        longer = text.isdecimal() and kind in (SECOND, MINUTE, HOUR)
        hint = f"; for longer spans write 'every {text} {kind.name}s'" if longer else ""
        refuse(kind, item, f"a step from 1 to {most}{hint}")
    return int(text)


def _nth(item: str) -> tuple[int, int] | None:
    """A weekday of a certain week of the month, or None if the item says something else."""
    if found := _NTH.fullmatch(item):
        return _number(WEEKDAY, item, found[1]) % 7, int(found[2])
    if found := _LAST_WEEKDAY.fullmatch(item):
        return _number(WEEKDAY, item, found[1]) % 7, LAST
    return None


def _hint(kind: Kind, item: str) -> str | None:
    """What to write instead of something that other programs know; None: nothing special."""
    if item == "":
        return f"{kind.allowed}; nothing stands before, after or between commas"
    if item == "?":
        return f"{kind.allowed}; instead of ? write *"
    if kind is WEEKDAY and item == "l":
        return f"{kind.allowed}; an L alone says no weekday, 6L is the last Saturday of the month"
    if kind is DAY and item.endswith("w"):
        return f"{kind.allowed}; the weekday nearest to a date (W) is not known"
    if "#" in item and kind is WEEKDAY:
        return f"{kind.allowed}; # is followed by 1 to 5"
    return None


def _canonical(kind: Kind, head: str, values: set[int], nth: set[tuple[int, int]]) -> str:
    rest = values - set(_numbers(kind, head) if head else ())
    parts = [head] if head else []
    parts += _runs(sorted(rest - {LAST}))
    parts += ["L"] if LAST in rest else []
    parts += [f"{day}L" if n == LAST else f"{day}#{n}" for day, n in sorted(nth)]
    return ",".join(parts)


def _runs(values: list[int]) -> list[str]:
    """Numbers as ranges, or as one range with a step where that says them all."""
    steps = {b - a for a, b in pairwise(values)}
    if len(values) > 2 and len(steps) == 1 and steps != {1}:
        return [f"{values[0]}-{values[-1]}/{steps.pop()}"]
    parts: list[str] = []
    first = 0
    for at, value in enumerate(values):
        if at + 1 == len(values) or values[at + 1] != value + 1:
            run = values[first : at + 1]
            parts += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(number) for number in run]
            first = at + 1
    return parts
