"""Between datetimes and the whole milliseconds that stores keep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_ms(instant: datetime) -> int:
    """Milliseconds since 1970, rounded down."""
    return (instant - _EPOCH) // _MS


def due_ms(instant: datetime) -> int:
    """Milliseconds since 1970, rounded up: what is due at an instant must not start before it."""
    return -((_EPOCH - instant) // _MS)


@lru_cache(maxsize=1_024)  # runs that were submitted or claimed together share their instants
def from_ms(ms: int) -> datetime:
    """The instant in UTC."""
    return _EPOCH + ms * _MS


def span_ms(span: timedelta) -> int:
    """A duration in milliseconds, rounded up, so that a lease is never shorter than asked."""
    return -(-span // _MS)


def whole_ms(span: timedelta) -> timedelta:
    """The duration that a store keeps: rounded up as in ``span_ms``; mostly the very same."""
    return -(-span // _MS) * _MS if span.microseconds % 1_000 else span


def span(ms: int) -> timedelta:
    """A duration of so many milliseconds."""
    return ms * _MS
