"""From what people write to schedules: text, an instant, a duration, a document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

from onceward.contracts import InvalidRequest, Json
from onceward.toolkit.durations import parse_duration
from onceward.toolkit.schedules import human
from onceward.toolkit.schedules.cron import Expression, looks_like_cron
from onceward.toolkit.schedules.kinds import CronSchedule, IntervalSchedule, NowSchedule, OnceSchedule
from onceward.toolkit.schedules.schedule import Schedule
from onceward.toolkit.schedules.wall_clock import Fold, Gap, change_at
from onceward.toolkit.zones import time_zone

#: What ``parse`` understands.
Source: TypeAlias = "str | datetime | timedelta | Mapping[str, Json] | Schedule"
Rule = TypeVar("Rule", bound=StrEnum)

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_EVERY = re.compile(r"every\s+(\d.*)", re.DOTALL)
_FIELDS: Final = ("type", "value", "timezone", "start", "end", "gap", "fold")
_LONGEST = 1_000
_CALENDAR: Final = {
    "week": "'every Monday' or another day, or '@weekly' (Sunday, 0:00)",
    "month": "'on the 1st of the month' or another day, '@monthly', or a cron expression such as '0 0 1 */2 *'",
    "year": "'on the 1st of January' or another day, or '@yearly'",
}


def parse(
    source: Source,
    *,
    timezone: str | ZoneInfo | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    gap: Gap | str | None = None,
    fold: Fold | str | None = None,
) -> Schedule:
    """The schedule that ``source`` describes.

    Args:
        source: a cron expression (``"*/5 * * * *"``, ``"@daily"``), plain English (``"every 5 minutes"``,
            ``"at 9:30 on weekdays"``), ``"now"``, an instant (an aware datetime, or ISO 8601), an interval (a
            timedelta), a document as ``to_dict`` makes it, or a schedule, which is returned as it is.
        timezone: the IANA zone by whose clock local times are meant; UTC by default, never that of the machine.
        start: no occurrence lies before it; intervals are counted from it.
        end: no occurrence lies after it.
        gap: for cron: what becomes of local times that the clock skips; see ``CronSchedule``.
        fold: for cron: what becomes of local times that the clock shows twice.

    Raises:
        InvalidRequest: it is not understood, has two readings, or never occurs; says what is allowed.
    """
    given = {"timezone": timezone, "start": start, "end": end, "gap": gap, "fold": fold}
    options = {name: value for name, value in given.items() if value is not None}
    if isinstance(source, Schedule | Mapping):
        if options:
            raise InvalidRequest(", ".join(options), next(iter(options.values())), "nothing beside a whole schedule")
        return source if isinstance(source, Schedule) else from_dict(source)
    zone = time_zone("UTC" if timezone is None else timezone)
    gap_rule, fold_rule = _rule("gap", gap, Gap), _rule("fold", fold, Fold)
    found = _read(source, zone, declared=timezone is not None, start=start, end=end)
    if isinstance(found, Schedule):
        if gap is not None or fold is not None:
            raise InvalidRequest("gap, fold", gap or fold, "rules for cron expressions and times of the day only")
        return found
    return CronSchedule(found, gap_rule, fold_rule, timezone=zone.key, start=start, end=end)


def from_dict(document: Mapping[str, Json]) -> Schedule:
    """The schedule of a document such as ``{"type": "cron", "value": "0 9 * * 1-5", "timezone": "Europe/Vienna"}``.

    ``type`` may be left out, or be ``schedule``, for whatever ``value`` says; otherwise both have to agree.

    Raises:
        InvalidRequest: the document is not understood; names the field.
    """
    unknown = [name for name in document if name not in _FIELDS]
    if unknown:
        raise InvalidRequest(f"schedule.{unknown[0]}", document[unknown[0]], f"only the fields {', '.join(_FIELDS)}")
    kind = document.get("type", "schedule")
    value = "now" if kind == "now" else document.get("value")
    if not isinstance(value, str | datetime | timedelta):
        raise InvalidRequest("schedule.value", value, f"text, an instant or a timedelta, for example {human.EXAMPLES}")
    found = parse(
        value,
        timezone=_text(document, "timezone"),
        start=_instant(document, "start"),
        end=_instant(document, "end"),
        gap=_text(document, "gap"),
        fold=_text(document, "fold"),
    )
    if kind not in ("schedule", found.type):
        known = ", ".join(each.type for each in (CronSchedule, IntervalSchedule, OnceSchedule, NowSchedule))
        raise InvalidRequest("schedule.type", kind, f"{found.type!r} with this value, or 'schedule'; known: {known}")
    return found


def _read(
    source: str | datetime | timedelta, zone: ZoneInfo, *, declared: bool, start: datetime | None, end: datetime | None
) -> Schedule | Expression:
    """A schedule that is complete, or the expression of one."""
    if isinstance(source, timedelta):
        return IntervalSchedule(source, timezone=zone.key, start=start, end=end)
    if isinstance(source, datetime):
        return OnceSchedule(source, timezone=zone.key, start=start, end=end)
    if not isinstance(source, str) or not source.strip() or len(source) > _LONGEST:
        raise InvalidRequest("schedule", source, f"{human.EXAMPLES}; a datetime, a timedelta, or a mapping")
    text = source.strip()
    if text.lower() == "now":
        return NowSchedule(timezone=zone.key, start=start, end=end)
    if _DATE.match(text):
        return OnceSchedule(_moment(text, zone, declared), timezone=zone.key, start=start, end=end)
    if looks_like_cron(text):
        return Expression.parse(text)
    if interval := _EVERY.fullmatch(text.lower()):
        return IntervalSchedule(_interval(text, interval[1]), timezone=zone.key, start=start, end=end)
    _refuse_ambiguous(text)
    return Expression.parse(human.read(text))


def _moment(text: str, zone: ZoneInfo, declared: bool) -> datetime:
    """The instant that ISO 8601 text names; without an offset it is local time of a zone that was declared."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest("schedule", text, "a date and time in ISO 8601, such as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is not None:
        return moment
    if not declared:
        raise InvalidRequest("schedule", text, f"{text}Z or another offset at the end, or a timezone beside it")
    change = change_at(moment, zone)
    if change is None:
        return moment.replace(tzinfo=zone)
    if change.before < change.after:
        allowed = f"a time that exists in {zone.key}, where the clock goes on with {change.shows.isoformat()}"
        raise InvalidRequest("schedule", text, allowed)
    both = [moment.replace(tzinfo=zone, fold=fold).isoformat() for fold in (0, 1)]
    raise InvalidRequest("schedule", text, f"{both[0]} or {both[1]}, since {zone.key} has this time twice")


def _interval(text: str, span: str) -> timedelta:
    """The duration behind "every"."""
    unit = span.split()[-1].removesuffix("s")
    if unit in ("month", "year"):
        raise InvalidRequest("schedule", text, f"days of the calendar, since {unit}s differ: {_CALENDAR[unit]}")
    if " on " in span or " at " in span:
        raise InvalidRequest("schedule", text, "an interval alone; with days or times write cron: '*/5 9-16 * * 1-5'")
    return parse_duration(span, field="schedule")


def _refuse_ambiguous(text: str) -> None:
    """Units of the calendar do not say on which day."""
    words = text.lower().split()
    unit = words[1].rstrip(",") if len(words) > 1 and words[0] == "every" else words[0].removesuffix("ly")
    if unit in _CALENDAR:
        raise InvalidRequest("schedule", text, f"which day: {_CALENDAR[unit]}")


def _rule(name: str, value: str | None, rules: type[Rule]) -> Rule | None:
    try:
        return None if value is None else rules(value)
    except ValueError:
        raise InvalidRequest(name, value, " or ".join(repr(str(rule)) for rule in rules)) from None


def _text(document: Mapping[str, Json], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"schedule.{name}", value, "text")
    return value


def _instant(document: Mapping[str, Json], name: str) -> datetime | None:
    value = document.get(name)
    if value is None or isinstance(value, datetime):
        return value
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequest(f"schedule.{name}", value, "an instant in ISO 8601 with its offset: 2026-01-31T12:00:00Z")
    return moment
