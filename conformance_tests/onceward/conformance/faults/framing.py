"""Where one message ends and the next begins, for the proxy: it needs to know no more of a store's protocol."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onceward.conformance.faults.frames import Frame, Framer
from onceward.conformance.faults.grpc import GrpcReplies, GrpcRequests


class Whole(Framer):
    """What arrives together is one message: for protocols that the proxy does not know, one request at a time."""

    def _end(self) -> int | None:
        return len(self._buffer)


class Resp(Framer):
    """The protocol of Redis, versions 2 and 3, inline commands too; what a server pushes answers nothing."""

    def _end(self) -> int | None:
        at, left = 0, 1
        while left:
            line = self._buffer.find(b"\r\n", at)
            if line < 0:
                return None
            kind, size = bytes(self._buffer[at : at + 1]), self._buffer[at + 1 : line]
            at, left = line + 2, left - 1
            if kind in (b"$", b"=", b"!"):
                at += int(size) + 2 if int(size) >= 0 else 0
            elif kind in (b"*", b"~", b">"):
                left += max(0, int(size))
            elif kind == b"%":
                left += 2 * int(size)
            elif kind == b"|":  # facts about the value that follows
                left += 2 * int(size) + 1
            if at > len(self._buffer):
                return None
        return at

    def _frame(self, data: bytes) -> Frame:
        return Frame(data, None) if data.startswith(b">") else super()._frame(data)


_HEADER = struct.Struct("<iiii")
_OP_MSG, _MORE_TO_COME = 2013, 2


class Mongo(Framer):
    """The wire protocol of MongoDB: every message begins with its length.

    Args:
        replies: the messages are answers, and name the request that they answer.
    """

    def __init__(self, *, replies: bool) -> None:
        super().__init__()
        self._replies = replies

    def _end(self) -> int | None:
        if len(self._buffer) < _HEADER.size:
            return None
        length = max(_HEADER.size, int(_HEADER.unpack_from(self._buffer)[0]))
        return length if len(self._buffer) >= length else None

    def _frame(self, data: bytes) -> Frame:
        _, request, answers, code = _HEADER.unpack_from(data)
        flags = int.from_bytes(data[16:20], "little") if code == _OP_MSG else 0
        return Frame(data, answers if self._replies else request, not flags & _MORE_TO_COME)


_LENGTH = struct.Struct("!i")


class ZooKeeper(Framer):
    """The protocol of ZooKeeper: every message begins with its length, then comes the number that the client gave it.

    The first message of a connection, in either direction, has none: it begins the session. What is told of watched
    nodes has the number -1, and answers nothing.
    """

    def _end(self) -> int | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + max(0, int(_LENGTH.unpack_from(self._buffer)[0]))
        return end if len(self._buffer) >= end else None

    def _frame(self, data: bytes) -> Frame:
        self._count += 1
        if self._count == 1:
            return Frame(data, 0)
        number = int(_LENGTH.unpack_from(data, _LENGTH.size)[0])
        return Frame(data, None if number == -1 else number)


def _no_greeting(_: bytes) -> bytes:
    return b""


def _zookeeper_greeting(data: bytes) -> bytes:
    """The beginning of a session (version 0 of the protocol), and who the client is (number -4).

    A copy begins a session of its own: a server closes the connection whose session is taken up on another one.
    """
    if data[4:8] == b"\0\0\0\0":
        return data[:20] + bytes(8) + data[28:]
    return data if data[4:8] == b"\xff\xff\xff\xfc" else b""


@dataclass(frozen=True)
class Dialect:
    """How a store's clients and its server talk.

    Attributes:
        requests, replies: make a framer for one direction of a connection.
        greeting: what of this request a copy of a later one must send first to be understood; nothing of most.
    """

    name: str
    requests: Callable[[], Framer]
    replies: Callable[[], Framer]
    greeting: Callable[[bytes], bytes] = _no_greeting


def _redis_greeting(data: bytes) -> bytes:
    greets = data[:64].upper().partition(b"\r\n")[2].startswith((b"$4\r\nAUTH", b"$6\r\nSELECT", b"$5\r\nHELLO"))
    return data if greets else b""


WHOLE = Dialect("whole", Whole, Whole)
RESP = Dialect("resp", Resp, Resp, _redis_greeting)
MONGO = Dialect("mongo", lambda: Mongo(replies=False), lambda: Mongo(replies=True))
GRPC = Dialect("grpc", GrpcRequests, GrpcReplies)
ZOOKEEPER = Dialect("zookeeper", ZooKeeper, ZooKeeper, _zookeeper_greeting)

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (WHOLE, RESP, MONGO, GRPC, ZOOKEEPER)}
