"""What names, leases, delays and instants may be. One definition of each rule and of its message."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NoReturn

from onceward.contracts.errors import InvalidRequest
from onceward.contracts.payload import Json

MAX_NAME_BYTES = 256
MAX_KEY_BYTES = 512
MAX_STAMP_BYTES = 1024
MAX_NAMESPACE_BYTES = 128
MIN_LEASE, MAX_LEASE = timedelta(milliseconds=1), timedelta(days=366)
MAX_DELAY = timedelta(days=366 * 100)

_NAME_RULE = "text of 1 to {} bytes in UTF-8, not blank, without control characters and lone surrogates"


def refuse(field: str, value: object, allowed: str) -> NoReturn:
    """Raise the one error for bad input."""
    raise InvalidRequest(field, value, allowed)


def _line(most: int) -> Callable[[str, str], None]:
    """A check that accepts visible, single-line text; a short one costs little, as every request has several."""
    short = most // 4

    def check(field: str, value: str) -> None:
        if not (type(value) is str and value.isprintable() and 0 < len(value) <= short and not value.isspace()):
            _examine(field, value, most)

    return check


def _examine(field: str, value: str, most: int) -> None:
    if not isinstance(value, str) or not value or value.isspace():
        refuse(field, value, _NAME_RULE.format(most))
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        refuse(field, value, _NAME_RULE.format(most))
    if size > most or any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in value):
        refuse(field, value, _NAME_RULE.format(most))


name = _line(MAX_NAME_BYTES)
"""A job's, lock's or configuration's name. Slashes, colons and spaces are fine; runners escape them."""
key = _line(MAX_KEY_BYTES)
"""A run's key."""
namespace = _line(MAX_NAMESPACE_BYTES)
"""An application's namespace."""
token_text = _line(MAX_NAME_BYTES)
"""A holder or a request id."""


def stamp(field: str, value: Mapping[str, Json]) -> Mapping[str, Json]:
    """A stamp: a flat mapping from names to plain scalars."""
    if not isinstance(value, Mapping):
        refuse(field, value, "a mapping from names to text, numbers, booleans or null")
    for part, item in value.items():
        name(f"{field} name", part)
        if not (item is None or isinstance(item, (str, int, float, bool))):
            refuse(f"{field}[{part!r}]", item, "text, a number, a boolean or null")
    return value


def stamp_text(field: str, value: str) -> None:
    """The canonical text of a stamp."""
    if not isinstance(value, str) or not value.startswith("{") or len(value) > MAX_STAMP_BYTES:
        refuse(field, value, f"a stamp whose canonical JSON has at most {MAX_STAMP_BYTES} bytes")
    if len(value.encode("utf-8", "surrogatepass")) > MAX_STAMP_BYTES:
        refuse(field, value, f"a stamp whose canonical JSON has at most {MAX_STAMP_BYTES} bytes")
    if any(c < " " or "\ud800" <= c <= "\udfff" for c in value):
        refuse(field, value, "a stamp in canonical JSON, as RunId.of makes it")


def text(field: str, value: str, most: int) -> None:
    """Free text that any store can hold."""
    if not isinstance(value, str) or storable(value, most) != value:
        refuse(field, value, f"text of at most {most} characters without NUL and lone surrogates")


def storable(value: str, most: int, *, keep_end: bool = False) -> str:
    """``value`` with what no store could hold replaced, cut to ``most`` characters from its beginning, or its end."""
    clean = value.replace("\0", "�").encode("utf-8", "replace").decode()
    if len(clean) <= most:
        return clean
    return "…" + clean[1 - most :] if keep_end else clean[: most - 1] + "…"


def whole(field: str, value: int, least: int, most: int) -> None:
    """A whole number in a range; booleans are not numbers here."""
    if type(value) is not int or not least <= value <= most:
        refuse(field, value, f"a whole number from {least} to {most}")


def budget(field: str, value: int | None) -> None:
    """A count that may be unlimited (None)."""
    if value is not None:
        whole(field, value, 0, 1_000_000)


def lease(field: str, value: timedelta | None) -> None:
    """A lease's duration, or None where the caller may leave it open."""
    if value is not None:
        required_lease(field, value)


def required_lease(field: str, value: timedelta) -> None:
    """A lease's duration."""
    if not isinstance(value, timedelta) or not MIN_LEASE <= value <= MAX_LEASE:
        refuse(field, value, "a timedelta from 1 millisecond to 366 days")


def delay(field: str, value: timedelta | None) -> None:
    """A delay of at least zero, or None."""
    if value is not None and not (isinstance(value, timedelta) and timedelta(0) <= value <= MAX_DELAY):
        refuse(field, value, "a timedelta from zero to 100 years")


def instant(field: str, value: datetime | None) -> None:
    """An aware datetime from 1970 on, or None."""
    if value is None:
        return
    if not isinstance(value, datetime) or value.tzinfo is None or value.utcoffset() is None:
        refuse(field, value, "a datetime with a time zone (for example datetime.now(timezone.utc)), from 1970 to 9999")
    if not 1970 <= value.year <= 9998:
        refuse(field, value, "an instant from the year 1970 to 9998")


def kind(field: str, value: object, wanted: type) -> None:
    """A member of an enumeration, or a record of ours; a text that looks like one is not one."""
    if isinstance(value, wanted):
        return
    if issubclass(wanted, enum.Enum):
        refuse(field, value, " or ".join(f"{wanted.__name__}.{member.name}" for member in wanted))
    refuse(field, value, f"a {wanted.__name__}")


def distinct(field: str, values: Sequence[str]) -> None:
    """No value twice."""
    if len(set(values)) != len(values):
        refuse(field, values, "each job at most once")
