"""Payloads and results: JSON types plus aware datetimes, checked, canonical, and never pickled.

A datetime travels as ``{"$date": "2026-01-31T12:00:00.000000Z"}`` (the shape of MongoDB Extended JSON); a mapping
that a user wrote in that very shape is wrapped in ``{"$literal": ...}``, so that everything comes back as it went in.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from onceward.contracts.errors import InvalidRequest, shown

Json: TypeAlias = "bool | int | float | str | datetime | list[Json] | tuple[Json, ...] | Mapping[str, Json] | None"

MAX_DEPTH = 64
MAX_INT = 2**63 - 1
_RULE = "None, bool, int of 64 bits, finite float, str, aware datetime, list, tuple, or a dict with str keys"
_MARKS = ("$date", "$literal")
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
_decode = msgspec.json.Decoder().decode


def canonical(value: Json, *, field: str = "payload") -> str:
    """The one text for ``value``: sorted keys, no spaces, UTC dates. Equal data gives equal texts in every process.

    A whole number and a float are different data (``1`` and ``1.0``), as they are in JSON.

    Raises:
        InvalidRequest: ``value`` holds something else than JSON types and aware datetimes; names the place.
    """
    return _encode(_plain(value, field, 0))


def parse(text: str) -> Json:
    """The value whose canonical text is ``text``."""
    found: Json = _decode(text)
    return _revive(found) if '{"$' in text else found


def content_key(job: str, payload: Json) -> str:
    """A key that says what is to be done: equal (job, payload) give equal keys, for ever, in every process."""
    text = f"[{canonical(job, field='job')},{canonical(payload)}]"
    return "v1:" + hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Json, field: str, depth: int) -> object:
    """``value`` with nothing in it but what ``json.dumps`` writes as it stands."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, field)
    if isinstance(value, int):
        return _integer(value, field)
    if isinstance(value, float):
        return _number(value, field)
    if isinstance(value, datetime):
        return {"$date": _date(value, field)}
    if depth >= MAX_DEPTH:
        raise InvalidRequest(field, "...", f"at most {MAX_DEPTH} levels of nesting")
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{field}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _object(value, field, depth)
    raise InvalidRequest(field, value, _RULE)


def _text(value: str, field: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, value, "text without lone surrogates") from None
    return str.__str__(value)  # a member of a text enumeration is its value here, not its name


def _integer(value: int, field: str) -> int:
    if not -MAX_INT - 1 <= value <= MAX_INT:
        raise InvalidRequest(field, value, "an int of 64 bits; write larger ones as text")
    return int(value)


def _number(value: float, field: str) -> float:
    if not math.isfinite(value):
        raise InvalidRequest(field, value, "a finite float; NaN and infinity are not JSON")
    if value == 0.0 and math.copysign(1.0, value) < 0:
        return 0.0  # -0.0 == 0.0, and equal values need equal texts
    return value


def _date(value: datetime, field: str) -> str:
    if value.tzinfo is None or value.utcoffset() is None:
        raise InvalidRequest(field, value, "a datetime with a time zone, for example datetime.now(timezone.utc)")
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(field, value, "a datetime that exists in UTC") from None
    return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _object(value: Mapping[str, Json], field: str, depth: int) -> object:
    plain: dict[str, object] = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise InvalidRequest(f"{field} key", name, "text as keys of a dict")
        key = _text(name, f"{field} key")
        plain[key] = _plain(item, f"{field}.{key}" if key.isidentifier() else f"{field}[{shown(key)}]", depth + 1)
    return {"$literal": plain} if len(plain) == 1 and next(iter(plain)) in _MARKS else plain


def _revive(found: Json) -> Json:
    """Undo the marks from the outside in: what stands inside ``$literal`` is the user's own."""
    if isinstance(found, list):
        return [_revive(item) for item in found]
    if not isinstance(found, dict):
        return found
    if len(found) == 1:
        mark, item = next(iter(found.items()))
        if mark == "$date" and isinstance(item, str):
            return datetime.fromisoformat(item)
        if mark == "$literal" and isinstance(item, dict):
            return {name: _revive(inner) for name, inner in item.items()}
    return {name: _revive(item) for name, item in found.items()}
