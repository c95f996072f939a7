"""The few messages of etcd's v3 API that are needed, as bytes: written and read here, without protobuf.

A message is a sequence of fields, each a number and a value; numbers and fields are those of etcd's public API. What
stands in a transaction is bytes already (``Op``, ``Guard``), so that each is written once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

Op: TypeAlias = bytes
"""What a transaction does: read, put, delete, or another transaction."""
Guard: TypeAlias = bytes
"""What must be true for it."""

_EQUAL, _LESS = 0, 2
_CREATED, _MODIFIED, _VALUE = 1, 2, 3
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_HEADER, _SUCCEEDED = b"\x0a", b"\x10\x01"
#: What stands before the revision: a header, which is shorter than 128 bytes, begins with two numbers that say who
#: answers, if they are not 0.
_to_revision = re.compile(rb"\x0a[\x00-\x7f](?:\x08[\x80-\xff]*[\x00-\x7f])?(?:\x10[\x80-\xff]*[\x00-\x7f])?\x18").match


class Kv(NamedTuple):
    """A key as it is now.

    Attributes:
        created, modified: the revisions that made it and that wrote it last.
        lease: the lease it goes away with; 0: none.
    """

    key: bytes
    value: bytes
    created: int
    modified: int
    lease: int


class Found(NamedTuple):
    """What a read found. ``total`` is how many there are, whatever the limit."""

    kvs: tuple[Kv, ...]
    total: int


class Done:
    """What became of a transaction: ``revision`` of the store after it, and the answers to its operations.

    The revision of a nested one is that of the outer one. Nobody asks for the answers of most, so they are kept as they
    came until somebody does.
    """

    __slots__ = ("_answers", "_data", "revision", "succeeded")

    def __init__(self, revision: int, succeeded: bool, data: bytes) -> None:
        self.revision, self.succeeded, self._data = revision, succeeded, data
        self._answers: list[bytes] | None = None

    @property
    def answers(self) -> list[bytes]:
        """The answers, unread."""
        if self._answers is None:
            self._answers = texts(self._data, 3)
        return self._answers

    def found(self, index: int) -> Found:
        """The answer to a read."""
        return found(texts(self.answers[index], 1)[0])

    def nested(self, index: int) -> Done:
        """The answer to a nested transaction."""
        inner = done(texts(self.answers[index], 4)[0])
        inner.revision = self.revision
        return inner


class Event(NamedTuple):
    """A change that a watch is told of."""

    deleted: bool
    kv: Kv


class Told(NamedTuple):
    """One message on a watch stream. ``compacted``: history before this revision is gone, and the watch with it."""

    revision: int
    canceled: bool
    compacted: int
    reason: str
    events: tuple[Event, ...]


# -- writing ------------------------------------------------------------------------------------------------------


@lru_cache(4_096)
def _varint(number: int) -> bytes:
    """Leases and revisions, which are long, come several times in a row."""
    if number < 0x80:
        return bytes((number,))
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


_TAGS = {(number, kind): _varint(number << 3 | kind) for number in (*range(1, 16), 64) for kind in (_VARINT, _BYTES)}


#: Nearly all texts are shorter.
_SIZES = [_varint(size) for size in range(0x1000)]
_BYTES_TAG = {number: tag for (number, kind), tag in _TAGS.items() if kind == _BYTES}


def _data(number: int, value: bytes) -> bytes:
    size = len(value)
    return _BYTES_TAG[number] + (_SIZES[size] if size < 0x1000 else _varint(size)) + value


def _whole(number: int, value: int) -> bytes:
    return _TAGS[number, _VARINT] + _varint(value) if value else b""


_IF_MODIFIED, _AT_REVISION = _whole(2, _MODIFIED), _TAGS[6, _VARINT]


def read(key: bytes, end: bytes = b"", *, limit: int = 0, keys_only: bool = False, count_only: bool = False) -> bytes:
    """A request for a key, or for the keys from ``key`` up to ``end``, in their order."""
    parts = _data(1, key)
    if end:
        parts += _data(2, end) + _whole(3, limit) + _whole(8, keys_only) + _whole(9, count_only)
    return parts


def latest(key: bytes, end: bytes, *, limit: int, keys_only: bool = False) -> bytes:
    """A request for the last keys before ``end``, the last one first."""
    return _data(1, key) + _data(2, end) + _whole(3, limit) + _whole(5, 2) + _whole(8, keys_only)


def get(request: bytes) -> Op:
    """A read within a transaction."""
    return _data(1, request)


def put(key: bytes, value: bytes, lease: int = 0) -> Op:
    """The key has this value, and goes away with the lease."""
    return _data(2, _data(1, key) + _data(2, value) + _whole(3, lease))


def delete(key: bytes, end: bytes = b"") -> Op:
    """The key is gone, or all from ``key`` up to ``end``."""
    return _data(3, _data(1, key) + (_data(2, end) if end else b""))


def within(transaction: bytes) -> Op:
    """A transaction within another one: its own guards, all of the state before the outer one."""
    return _data(4, transaction)


def unchanged(key: bytes, modified: int) -> Guard:
    """The key was written last by this revision; 0: it does not exist."""
    return _IF_MODIFIED + _data(3, key) + _AT_REVISION + _varint(modified)


def none_newer(key: bytes, end: bytes, revision: int) -> Guard:
    """No key from ``key`` up to ``end`` was created after this revision."""
    parts = _whole(1, _LESS) + _whole(2, _CREATED) + _data(3, key) + _TAGS[5, _VARINT] + _varint(revision + 1)
    return parts + _data(64, end)


def transaction(guards: Sequence[Guard], then: Sequence[Op], otherwise: Sequence[Op] = ()) -> bytes:
    """If all guards hold, ``then``; else ``otherwise``; at one moment."""
    parts = [_data(1, guard) for guard in guards]
    parts += [_data(2, op) for op in then]
    parts += [_data(3, op) for op in otherwise]
    return b"".join(parts)


def grant(lease: int, seconds: int) -> bytes:
    """A request for a lease with an id of the caller's own."""
    return _whole(1, seconds) + _whole(2, lease)


def revoke(lease: int) -> bytes:
    """A request to end a lease, and every key on it."""
    return _whole(1, lease)


def watch(key: bytes, end: bytes, *, since: int, deletions: bool, puts: bool, number: int) -> bytes:
    """A request to be told of changes from a revision on."""
    create = _data(1, key) + (_data(2, end) if end else b"") + _whole(3, since) + _whole(7, number)
    unwanted = [kind for kind, wanted in ((0, puts), (1, deletions)) if not wanted]
    create += b"".join(_TAGS[5, _VARINT] + _varint(kind) for kind in unwanted)
    return _data(1, create)


def authenticate(user: str, password: str) -> bytes:
    """A request for a token."""
    return _data(1, user.encode()) + _data(2, password.encode())


# -- reading ------------------------------------------------------------------------------------------------------


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field's number and value.

    Raises:
        ValueError: these bytes are no message.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"field of kind {kind}")
        if at + size > end:
            raise ValueError("the message ends within a field")
        yield tag >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at] if at < len(data) else 0x80
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for shift in range(7, 70, 7):
        at += 1
        if at >= len(data):
            break
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
    raise ValueError("the message ends within a number")


def _kv(data: bytes) -> Kv:
    key = value = b""
    created = modified = lease = 0
    for number, found in fields(data):
        if isinstance(found, bytes):
            if number == 1:
                key = found
            elif number == 5:
                value = found
        elif number == 2:
            created = found
        elif number == 3:
            modified = found
        elif number == 6:
            lease = found
    return Kv(key, value, created, modified, lease)


def found(data: bytes) -> Found:
    """What a read answered."""
    kvs: list[Kv] = []
    total = 0
    for number, value in fields(data):
        if isinstance(value, bytes):
            if number == 2:
                kvs.append(_kv(value))
        elif number == 4:
            total = value
    return Found(tuple(kvs), total)


def revision(data: bytes) -> int:
    """The store's revision, which every answer has in its header."""
    before = _to_revision(data, 0, _header(data))
    return 0 if before is None else _read_varint(data, before.end())[0]


def _header(data: bytes) -> int:
    """Where an answer's header ends, which comes first, if there is one."""
    return 2 + data[1] if data[:1] == _HEADER else 0


def done(data: bytes) -> Done:
    """What a transaction answered: a header, whether it succeeded if it did, and then the answers."""
    header = _header(data)
    return Done(revision(data), data[header : header + 2] == _SUCCEEDED, data)


def integer(data: bytes, wanted: int) -> int:
    """A number in a message; 0 if it is not there."""
    for number, value in fields(data):
        if number == wanted and isinstance(value, int):
            return value
    return 0


def texts(data: bytes, wanted: int) -> list[bytes]:
    """All texts, or messages, with this number."""
    return [value for number, value in fields(data) if number == wanted and isinstance(value, bytes)]


def told(data: bytes) -> Told:
    """A message on a watch stream."""
    at = compacted = 0
    canceled, reason = False, ""
    events: list[Event] = []
    for number, value in fields(data):
        if isinstance(value, bytes):
            if number == 1:
                at = integer(value, 3)
            elif number == 6:
                reason = value.decode(errors="replace")
            elif number == 11:
                events.append(_event(value))
        elif number == 4:
            canceled = bool(value)
        elif number == 5:
            compacted = value
    return Told(at, canceled, compacted, reason, tuple(events))


def _event(data: bytes) -> Event:
    kvs = texts(data, 2)
    return Event(integer(data, 1) == 1, _kv(kvs[0] if kvs else b""))
