"""Durations as people write them: ``90s``, ``1h30m``, ``7d``; ``5 minutes``, ``1 hour 30 minutes``."""

from __future__ import annotations

import re
from datetime import timedelta

from onceward.contracts import InvalidRequest

_UNITS = {
    "milliseconds": "milliseconds|millisecond|ms",
    "seconds": "seconds|second|secs|sec|s",
    "minutes": "minutes|minute|mins|min|m",
    "hours": "hours|hour|h",
    "days": "days|day|d",
    "weeks": "weeks|week|w",
}
_UNIT = "|".join(f"(?P<{unit}>{names})" for unit, names in _UNITS.items())
_PART = re.compile(rf"(\d+(?:\.\d+)?)\s*(?:{_UNIT})(?![a-z])\s*")
_WHOLE = re.compile(rf"(?:{re.sub(r'[?]P<[a-z]+>', '?:', _PART.pattern)})+")
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
        parts = [timedelta(**{str(found.lastgroup): float(found[1])}) for found in _PART.finditer(clean)]
        return sum(parts, timedelta())
    except OverflowError:
        raise InvalidRequest(field, text, f"{_RULE}, up to 999999999 days") from None


def spell(span: timedelta) -> str:
    """A duration in words that ``parse_duration`` reads: ``1 hour 30 minutes``; exact to milliseconds."""
    parts = []
    for unit in ("days", "hours", "minutes", "seconds", "milliseconds"):
        count, span = divmod(span, timedelta(**{unit: 1}))
        if count:
            parts.append(f"{count} {unit if count > 1 else unit.removesuffix('s')}")
    return " ".join(parts) or "0 seconds"
