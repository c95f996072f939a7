"""A second opinion on schedules, too simple to be wrong: it walks through time minute by minute and looks at the clock.

It shares nothing with the code under test: its own reading of cron expressions, instants turned into local times and
never the other way round, and changes of the clock read from the zones' files.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from zoneinfo import TZPATH, ZoneInfo, available_timezones

FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 12, 31, tzinfo=UTC)
HALF_MINUTE = timedelta(seconds=30)
RANGES = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]

Clock = list[tuple[datetime, datetime]]


# -- the oracle -------------------------------------------------------------------------------------------------------


def clock(zone: ZoneInfo, start: datetime, end: datetime, step: timedelta) -> Clock:
    """What the clock shows at each instant."""
    shown = []
    while start <= end:
        shown.append((start, start.astimezone(zone).replace(tzinfo=None)))
        start += step
    return shown


def expected(expression: str, shown: Clock, gap: str, fold: str) -> list[datetime]:
    """All occurrences of an expression while the clock shows this."""
    texts = expression.split()
    texts = texts if len(texts) == 6 else ["0", *texts]
    fields = [spread(text, *limits) for text, limits in zip(texts, RANGES, strict=True)]
    starred = texts[3].startswith("*") or texts[5].startswith("*")
    step = shown[1][0] - shown[0][0]
    found = set()
    times = defaultdict(list)
    before = shown[0][1] - step
    for instant, local in shown:
        if fits(local, fields, starred):
            times[local].append(instant)
        missing = before + step
        while gap == "fire_after" and missing < local:
            if fits(missing, fields, starred):
                found.add(instant)
            missing += step
        before = local
    for instants in times.values():
        found.update({"first": instants[:1], "second": instants[-1:], "both": instants}[fold])
    return sorted(found)


def rules(expression: str) -> tuple[str, str]:
    """The rules for gap and fold that an expression has unless others are given: Vixie's, by how it is written."""
    minute, hour = expression.split()[-5:-3]
    return ("skip", "both") if minute.startswith("*") or hour.startswith("*") else ("fire_after", "first")


def fits(local: datetime, fields: list[set[int]], starred: bool) -> bool:
    """A local time fits an expression."""
    second, minute, hour, day, month, weekday = fields
    if local.minute not in minute or local.second not in second or local.hour not in hour or local.month not in month:
        return False
    both = (local.day in day, local.isoweekday() in weekday or local.isoweekday() % 7 in weekday)
    return all(both) if starred else any(both)


def spread(text: str, low: int, high: int) -> set[int]:
    """The numbers of a field of digits, signs and stars."""
    found: set[int] = set()
    for item in text.split(","):
        body, _, step = item.partition("/")
        first, _, last = (f"{low}-{high}" if body == "*" else body).partition("-")
        top = int(last) if last else (high if step else int(first))
        found |= set(range(int(first), top + 1, int(step or 1)))
    return found


# -- the changes of the clock -----------------------------------------------------------------------------------------


class Change(NamedTuple):
    """At an instant the offset changes, in seconds."""

    zone: str
    at: datetime
    before: int
    after: int

    @property
    def alike(self) -> tuple[int, int, int]:
        """What two changes share that no schedule can tell apart: both offsets, and the time on the clock."""
        return self.before, self.after, int(self.at.timestamp() + self.before) % 86_400

    @property
    def width(self) -> timedelta:
        """How much the clock skips or shows twice."""
        return timedelta(seconds=abs(self.after - self.before))

    @property
    def step(self) -> timedelta:
        """Steps that hit the change and every whole minute on the clock before and after it."""
        whole = not any(seconds % 60 for seconds in self.alike)
        return timedelta(minutes=1) if whole else HALF_MINUTE

    def shows(self, moved: timedelta = timedelta(0)) -> datetime:
        """What the clock would show at the change with the smaller of both offsets, and some time later."""
        return (self.at + timedelta(seconds=min(self.before, self.after)) + moved).replace(tzinfo=None)


@cache
def zone_files() -> dict[bytes, str]:
    """The content of every IANA zone's file, with one name for those that are the same."""
    return {zone_file(name): name for name in sorted(available_timezones(), reverse=True)}


def zone_file(name: str) -> bytes:
    """What ``ZoneInfo(name)`` reads."""
    for folder in TZPATH:
        if (path := Path(folder, name)).is_file():
            return path.read_bytes()
    return files("tzdata").joinpath("zoneinfo", name).read_bytes()


def changes(name: str, data: bytes) -> Iterator[Change]:
    """All changes from 1970 to 2100: those in the file's table, then those that its rule makes."""
    yield from (change for change in table(name, data) if FIRST <= change.at <= LAST)
    if b"," in data.rstrip(b"\n").rpartition(b"\n")[2]:  # the rule for the time after the table has changes
        known = max([change.at for change in table(name, data)], default=FIRST)
        yield from by_rule(ZoneInfo(name), max(known, FIRST) + timedelta(days=1), LAST)


def table(name: str, data: bytes) -> list[Change]:
    """The changes of offset in a TZif file's 64-bit block (RFC 8536)."""

    def counts(at: int) -> tuple[int, ...]:
        return struct.unpack(">6l", data[at + 20 : at + 44])

    isut, isstd, leaps, times, types, letters = counts(0)
    at = 44 + times * 5 + types * 6 + letters + leaps * 8 + isstd + isut
    *_, times, types, _ = counts(at)
    body = at + 44
    instants = struct.unpack(f">{times}q", data[body : body + times * 8])
    kinds = data[body + times * 8 : body + times * 9]
    offsets = [entry[0] for entry in struct.iter_unpack(">lBB", data[body + times * 9 : body + times * 9 + types * 6])]
    series = [offsets[0], *(offsets[kind] for kind in kinds)]
    return [
        Change(name, datetime.fromtimestamp(instant, UTC), before, after)
        for instant, (before, after) in zip(instants, pairwise(series), strict=True)
        if before != after and instant >= 0
    ]


def by_rule(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[Change]:
    """The changes that a zone's rule makes: by looking once a week, then halving."""
    before = offset(zone, start)
    while start < end:
        later = start + timedelta(days=7)
        after = offset(zone, later)
        if before != after:
            low, high = start, later
            while high - low > HALF_MINUTE:
                middle = low + (high - low) // 2 // HALF_MINUTE * HALF_MINUTE
                low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
            yield Change(zone.key, high, before, after)
        start, before = later, after


def offset(zone: ZoneInfo, instant: datetime) -> int:
    """Seconds from UTC."""
    found = instant.astimezone(zone).utcoffset()
    assert found is not None
    return int(found.total_seconds())


@cache
def kinds_of_changes() -> list[Change]:
    """Of each zone, the first of all changes that are alike."""
    found: dict[tuple[str, tuple[int, int, int]], Change] = {}
    for data, name in zone_files().items():
        for change in changes(name, data):
            found.setdefault((name, change.alike), change)
    return list(found.values())
