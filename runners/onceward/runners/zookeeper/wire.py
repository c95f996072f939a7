"""Two requests that kazoo lacks or has only in part, in the protocol of ZooKeeper.

``MultiRead`` (3.6 and later) reads many nodes in one message, each answered for itself. ``Multi`` is a transaction
whose steps were made into bytes before, once, and that answers with the stat of what it has changed: zxid and time of
the transaction are in there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

_INT = struct.Struct("!i")
_HEADER = struct.Struct("!i?i")
_STAT = struct.Struct("!qqqqiiiqiiq")
_END = _HEADER.pack(-1, True, -1)

_CREATE, _DELETE, _GET, _SET, _CHILDREN, _CHECK, _MULTI, _MULTI_READ, _ERROR = 1, 2, 4, 5, 8, 13, 14, 22, -1
#: In a transaction that failed: what would have worked, and what was not tried any more.
_ROLLED_BACK = (0, -2)


class Stat(NamedTuple):
    """What a server knows of a node: zxids and times of its creation and its latest change, and versions."""

    czxid: int
    mzxid: int
    ctime: int
    mtime: int
    version: int
    cversion: int
    aversion: int
    owner: int
    length: int
    children: int
    pzxid: int


class Op(NamedTuple):
    """One step of a transaction, ready to be sent."""

    kind: int
    body: bytes

    @property
    def stamps(self) -> bool:
        """True if the transaction answers with a stat because of it."""
        return self.kind == _SET


def create(path: str, data: bytes, acl: bytes) -> Op:
    """A new node; fails if it exists, or its parent does not."""
    return Op(_CREATE, _text(path) + _blob(data) + acl + _INT.pack(0))


def change(path: str, data: bytes, version: int = -1) -> Op:
    """Other data; fails if the version is another one."""
    return Op(_SET, _text(path) + _blob(data) + _INT.pack(version))


def delete(path: str, version: int = -1) -> Op:
    """No such node; fails if it has children, or the version is another one."""
    return Op(_DELETE, _text(path) + _INT.pack(version))


def check(path: str, version: int) -> Op:
    """Nothing; fails if the version is another one."""
    return Op(_CHECK, _text(path) + _INT.pack(version))


class Refused(NamedTuple):
    """A transaction that changed nothing: the code of the error, and which step it was about."""

    code: int
    step: int


class Multi:
    """All steps are done, or none.

    The answer is a list with one item: the ``Stat`` of the last change (None: nodes were only made), or ``Refused``.
    """

    type = _MULTI

    def __init__(self, ops: Sequence[Op]) -> None:
        self._ops = ops

    def serialize(self) -> bytes:
        parts: list[bytes] = []
        for op in self._ops:
            parts.append(_HEADER.pack(op.kind, False, -1))
            parts.append(op.body)
        parts.append(_END)
        return b"".join(parts)

    @staticmethod
    def deserialize(data: bytes, at: int) -> list[Stat | Refused | None]:
        stat: Stat | None = None
        step = 0
        while True:
            kind, done, _ = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            if done:
                return [stat]
            if kind == _ERROR:
                code = _INT.unpack_from(data, at)[0]
                at += _INT.size
                if code not in _ROLLED_BACK:
                    return [Refused(code, step)]
            elif kind == _CREATE:
                at += _INT.size + int(_INT.unpack_from(data, at)[0])
            elif kind == _SET:
                stat = Stat._make(_STAT.unpack_from(data, at))
                at += _STAT.size
            step += 1


class Node(NamedTuple):
    """What a node holds, and what the server knows of it."""

    data: bytes
    stat: Stat


class MultiRead:
    """For each path what it holds, or the names below it; None where there is no such node.

    Args:
        nodes: paths whose data is wanted.
        lists: paths whose children are wanted.
    """

    type = _MULTI_READ

    def __init__(self, nodes: Sequence[str], lists: Sequence[str] = ()) -> None:
        self._nodes, self._lists = nodes, lists

    def serialize(self) -> bytes:
        parts: list[bytes] = []
        for kind, paths in ((_GET, self._nodes), (_CHILDREN, self._lists)):
            for path in paths:
                parts += (_HEADER.pack(kind, False, -1), _text(path), b"\0")
        parts.append(_END)
        return b"".join(parts)

    @staticmethod
    def deserialize(data: bytes, at: int) -> list[Node | list[str] | Refused | None]:
        answers: list[Node | list[str] | Refused | None] = []
        while True:
            kind, done, _ = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            if done:
                return answers
            if kind == _ERROR:
                code = _INT.unpack_from(data, at)[0]
                answers.append(None if code == NO_NODE else Refused(code, len(answers)))
                at += _INT.size
            elif kind == _GET:
                length = max(0, int(_INT.unpack_from(data, at)[0]))
                at += _INT.size
                stat = Stat._make(_STAT.unpack_from(data, at + length))
                answers.append(Node(data[at : at + length], stat))
                at += length + _STAT.size
            else:
                names, at = _names(data, at)
                answers.append(names)


NO_NODE, BAD_VERSION, NODE_EXISTS, NOT_EMPTY = -101, -103, -110, -111
#: Somebody else was there before.
CONFLICTS = frozenset({NO_NODE, BAD_VERSION, NODE_EXISTS, NOT_EMPTY})


def _names(data: bytes, at: int) -> tuple[list[str], int]:
    count = int(_INT.unpack_from(data, at)[0])
    at += _INT.size
    names = []
    for _ in range(count):
        length = int(_INT.unpack_from(data, at)[0])
        at += _INT.size
        names.append(str(data[at : at + length], "utf-8"))
        at += length
    return names, at


def _text(text: str) -> bytes:
    return _blob(text.encode())


def _blob(data: bytes) -> bytes:
    return _INT.pack(len(data)) + data


def acl_bytes(acl: Sequence[tuple[int, str, str]]) -> bytes:
    """An access list of (permissions, scheme, id), ready to be sent."""
    entries = (_INT.pack(permissions) + _text(scheme) + _text(whom) for permissions, scheme, whom in acl)
    return _INT.pack(len(acl)) + b"".join(entries)
