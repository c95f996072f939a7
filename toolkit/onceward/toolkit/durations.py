"""Durations and moments as people type them: ``90s``, ``1h30m``, ``7d``; ``2026-01-31T12:00Z``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from onceward.contracts import InvalidRequest

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")
_RULE = "a number with a unit, for example 500ms, 30s, 10m, 24h, 7d, 1h30m"


def parse_duration(text: str, *, field: str = "duration") -> timedelta:
    """The duration that ``text`` names.

    Raises:
        InvalidRequest: it names none; a number without a unit is not guessed at.
    """
    clean = text.strip().lower()
    if _WHOLE.fullmatch(clean) is None:
        raise InvalidRequest(field, text, _RULE)
    try:
        parts = [timedelta(**{_UNITS[unit]: float(number)}) for number, unit in _PART.findall(clean)]
        return sum(parts, timedelta())
    except OverflowError:
        raise InvalidRequest(field, text, f"{_RULE}, up to 999999999 days") from None


def parse_moment(text: str, *, now: datetime, field: str) -> datetime:
    """The instant that ``text`` names, or so long before ``now``.

    Raises:
        InvalidRequest: it is neither a duration nor a date in ISO 8601. A date without a zone is read as UTC.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return now - parse_duration(text, field=field)
        except (InvalidRequest, OverflowError):
            raise InvalidRequest(field, text, f"{_RULE}; or a date such as 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def short(span: timedelta) -> str:
    """A duration for people: ``850ms``, ``12.3s``, ``4m 05s``, ``3h 20m``, ``2d 4h``."""
    seconds = span.total_seconds()
    if seconds < 0:
        return f"-{short(-span)}"
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02}m" if hours < 24 else f"{hours // 24}d {hours % 24}h"
