"""Moments as people type them, ``2026-01-31T12:00Z`` or ``24h`` ago, and durations as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from onceward.contracts import InvalidRequest
from onceward.toolkit.durations import parse_duration

_DATE = "a date such as 2026-01-31T12:00:00Z"


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
        except InvalidRequest as error:
            raise InvalidRequest(field, text, f"{error.allowed}; or {_DATE}") from None
        except OverflowError:
            raise InvalidRequest(field, text, f"a duration that leads to a date; or {_DATE}") from None
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
