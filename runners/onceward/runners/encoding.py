"""How runners store payloads and results: canonical JSON text, checked for size before anything is sent."""

from __future__ import annotations

from onceward.contracts.errors import InvalidRequest
from onceward.contracts.payload import Json, canonical, parse


def encode(value: Json, *, field: str, most: int) -> str | None:
    """The text to store for ``value``; None for None, which most runs have.

    Raises:
        InvalidRequest: not JSON types and aware datetimes, or more than ``most`` bytes.
    """
    if value is None:
        return None
    text = canonical(value, field=field)
    if len(text) * 4 > most and len(text.encode()) > most:
        raise InvalidRequest(field, f"{len(text.encode())} bytes", f"at most {most} bytes of JSON in this store")
    return text


def decode(text: str | None) -> Json:
    """The value that was stored."""
    return None if text is None else parse(text)
