"""Schedules in plain English, such as ``at 9:30 on weekdays``. What has two readings is refused, with both.

::

    phrase   = clause...                      in any order, each kind once
    clause   = "at" times | "on" weekdays | "on the" days | "in" months | "every day" | "daily" | "every" weekdays
    times    = 9:30 | 9:30:15 | 9 am | noon | midnight, with "and" or commas
    weekdays = Monday ... Sunday, Mon, Mondays, Monday to Friday, weekdays, weekends; with "and" or commas
    days     = 1st ... 31st | last day | first ... fifth or last, and a weekday; then "of the month" or "of" months
    months   = January ... December, Jan, January to March; with "and" or commas
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NoReturn

from onceward.contracts import InvalidRequest
from onceward.toolkit.schedules.fields import LAST, MONTHS, WEEKDAYS
from onceward.toolkit.schedules.words import NTH, WEEKEND, WORKDAYS

EXAMPLES: Final = (
    "'every 5 minutes', 'at 9:30 on weekdays', 'at 8:00 and 18:00 on Monday and Friday', "
    "'at 6:00 on the 1st of the month', 'at 17:00 on the last Friday of the month', '@daily', '*/5 * * * *', "
    "'2026-01-31T12:00Z' or 'now'"
)
_SINGLE: Final = {"second": "* * * * * *", "minute": "* * * * *", "hour": "0 * * * *", "day": "0 0 * * *"}
_TOKEN = re.compile(
    r"\d{1,2}(?::\d{2}){0,2}\s*[ap]m\b|\d{1,2}(?::\d{2}){1,2}|\d+(?:st|nd|rd|th)\b|\d+|[a-z]+|\S", re.ASCII
)
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*([ap]m)?", re.ASCII)
_ORDINALS: Final = {name: number for number, name in NTH.items()}
_GROUPS: Final = {"weekday": WORKDAYS, "weekdays": WORKDAYS, "weekend": WEEKEND, "weekends": WEEKEND}
_DAYS: Final = "days such as 'the 1st', 'the last day', 'the second Friday', and then 'of the month'"


def read(text: str) -> str:
    """The cron expression that a phrase stands for.

    Raises:
        InvalidRequest: it is not understood, or has two readings; says what to write.
    """
    words = " ".join(text.lower().split())
    single = words.removeprefix("every ")
    if single != words and single in _SINGLE:
        return _SINGLE[single]
    return _Reader(text, _TOKEN.findall(words)).phrase()


@dataclass
class _Reader:
    """Reads a phrase from left to right into the fields of a cron expression."""

    text: str
    tokens: list[str]
    at: int = 0
    fields: dict[str, str] = field(default_factory=dict)

    def phrase(self) -> str:
        """The whole phrase, as a cron expression."""
        while self.at < len(self.tokens):
            self.clause()
        given = self.fields
        if not given or given.keys() == {"month"}:
            self.refuse(EXAMPLES)
        if "day" in given and "weekday" in given:
            self.refuse("either days of the month or days of the week; for one or the other write a cron expression")
        day, month, weekday = (given.get(name, "*") for name in ("day", "month", "weekday"))
        return f"{given.get('time', '0 0')} {day} {month} {weekday}"

    def clause(self) -> None:
        """One clause."""
        if self.take("at"):
            self.put("time", self.times())
        elif self.take("in"):
            self.put("month", self.names(MONTHS, "the name of a month"))
        elif self.take("on"):
            self.days_of_month() if self.take("the") else self.put("weekday", self.weekdays())
        elif self.take("daily") or self.take("every", "day"):
            self.put("weekday", "*")
        elif self.take("every") or _is_weekday(self.word()):
            self.put("weekday", self.weekdays())
        else:
            self.refuse(EXAMPLES)

    def times(self) -> str:
        """Times of the day, as the first fields of a cron expression."""
        times = [self.time()]
        while self.another():
            times.append(self.time())
        parts = [sorted({time[place] for time in times}) for place in range(3)]
        if len(parts[0]) * len(parts[1]) * len(parts[2]) != len(set(times)):
            self.refuse("times that share their minutes, such as 9:30 and 17:30; for others make two schedules")
        fields = [",".join(map(str, part)) for part in (parts[1], parts[0])]
        return " ".join(fields if parts[2] == [0] else [",".join(map(str, parts[2])), *fields])

    def time(self) -> tuple[int, int, int]:
        """A time of the day: hour, minute, second."""
        rule = "a time such as 9:30, 17:00:30, 9 am, noon or midnight"
        word = self.next(rule)
        if word in ("noon", "midnight"):
            return (12 if word == "noon" else 0), 0, 0
        found = _TIME.fullmatch(word)
        if found is None:
            self.refuse(rule)
        hour, minute, second = int(found[1]), int(found[2] or 0), int(found[3] or 0)
        half = found[4]
        if half is None and found[2] is None:
            self.refuse(f"{word}:00, {word} am or {word} pm" if 0 < hour < 12 else "a time such as 9:30 or 17:00")
        if half and (hour, minute, second) == (12, 0, 0):
            self.refuse("noon or midnight, since 12 am and 12 pm are read both ways")
        if hour > (12 if half else 23) or (half and hour < 1) or minute > 59 or second > 59:
            self.refuse(rule)
        return (hour % 12 + (12 if half == "pm" else 0) if half else hour), minute, second

    def weekdays(self) -> str:
        """Days of the week."""
        return self.names(WEEKDAYS, "a day of the week, weekdays or weekends")

    def days_of_month(self) -> None:
        """Days of the month, by number or by weekday, and the months if they are named."""
        days: list[str] = []
        nth: list[str] = []
        more = True
        while more:
            numbers = [self.ordinal()]
            while (more := self.another()) and not self.take("the"):
                numbers.append(self.ordinal())
            weekday = None if more else _number(self.word(), WEEKDAYS)
            if weekday is not None:
                self.at += 1
                nth += [f"{weekday}L" if number == LAST else f"{weekday}#{number}" for number in numbers]
            else:
                named = not more and self.take("day")
                days += ["L" if number == LAST and named else str(number) for number in numbers]
            if not more and (more := self.another()):
                self.take("the")
        if (days and nth) or str(LAST) in days or any(int(each[2:]) > 5 for each in nth if "#" in each):
            self.refuse(_DAYS)
        self.put("weekday" if nth else "day", ",".join(nth or days))
        self.months_of()

    def months_of(self) -> None:
        """The months in which days of the month are meant, if they are named."""
        if self.take("of"):
            every = self.take("the") or self.take("every") or self.take("each")
            if not self.take("month"):
                if every:
                    self.refuse("'of the month', 'of every month', or 'of' and the names of months")
                self.put("month", self.names(MONTHS, "the name of a month"))

    def ordinal(self) -> int:
        """A day's number, or ``LAST``."""
        word = self.next(_DAYS)
        if word in _ORDINALS:
            return _ORDINALS[word]
        digits = word[:-2]
        if not digits.isdecimal() or word.isdecimal() or not 1 <= int(digits) <= 31:
            self.refuse(_DAYS)
        return int(digits)

    def names(self, names: list[str], rule: str) -> str:
        """Names, ranges of names and groups of names, as a field."""
        first = 1 if names is MONTHS else 0
        found: list[str] = []
        while True:
            word = self.next(rule)
            number = _number(word, names)
            if names is WEEKDAYS and word in _GROUPS:
                found += map(str, _GROUPS[word])
            elif number is None:
                self.refuse(rule)
            elif self.take("to") or self.take("through") or self.take("-"):
                last = _number(self.next(rule), names)
                if last is None:
                    self.refuse(rule)
                last += len(names) if last < number else 0
                found += [str(each % len(names) + first) for each in range(number, last + 1)]
            else:
                found.append(str(number + first))
            if not self.another():
                return ",".join(found)

    def another(self) -> bool:
        """A list goes on: a comma, "and", or both were taken."""
        comma = self.take(",")
        return self.take("and") or comma

    def word(self) -> str:
        """The word that stands here; nothing at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *words: str) -> bool:
        """The words stood here and are taken."""
        found = self.tokens[self.at : self.at + len(words)] == list(words)
        self.at += len(words) if found else 0
        return found

    def next(self, rule: str) -> str:
        """The next word is taken."""
        self.at += 1
        if self.at > len(self.tokens):
            self.refuse(rule)
        return self.tokens[self.at - 1]

    def put(self, name: str, value: str) -> None:
        """A field is filled, which may be done once."""
        if name in self.fields:
            self.refuse(f"one {name} clause; join what belongs together with 'and'")
        self.fields[name] = value

    def refuse(self, allowed: str) -> NoReturn:
        """Raise the error, which shows how far the phrase was understood."""
        word = self.tokens[min(max(self.at - 1, 0), len(self.tokens) - 1)] if self.tokens else ""
        raise InvalidRequest("schedule", self.text, f"{allowed} (not understood near {word!r})")


def _is_weekday(word: str) -> bool:
    return word in _GROUPS or _number(word, WEEKDAYS) is not None


def _number(word: str, names: list[str]) -> int | None:
    """The place of a name that is written out, shortened to three letters, or in the plural."""
    for number, name in enumerate(names):
        full = name.lower()
        if word in (full, full[:3], f"{full}s" if names is WEEKDAYS else full):
            return number
    return None
