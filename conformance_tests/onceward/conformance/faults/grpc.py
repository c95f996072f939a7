"""gRPC over HTTP/2: a message is what completes a request or an answer on its stream; the rest passes as it comes.

Many calls share a connection, each on a stream of its own. A header may be abbreviated by what came earlier on its
connection, so on a connection of its own a request is sent with its headers written out.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from onceward.conformance.faults.frames import Frame, Framer

if TYPE_CHECKING:
    from hpack import Decoder

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = struct.Struct(">BHBBI")
_DATA, _HEADERS, _SETTINGS, _CONTINUATION = 0, 1, 4, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 1, 4, 8, 32
_PREFIXED = 5
"""Before a message stands whether it is compressed (one byte), and its length (four)."""


class _Http2(Framer):
    """Frames of HTTP/2, and which of them complete a message."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: dict[int, bytearray] = defaultdict(bytearray)

    def _end(self) -> int | None:
        if len(self._buffer) < _HEADER.size:
            return None
        if self._buffer.startswith(_PREFACE[: _HEADER.size]):
            return len(_PREFACE) if len(self._buffer) >= len(_PREFACE) else None
        high, low, *_ = _HEADER.unpack_from(self._buffer)
        length = _HEADER.size + (high << 16) + low
        return length if len(self._buffer) >= length else None

    def _frame(self, data: bytes) -> Frame:
        if data == _PREFACE:
            return Frame(data, None, answered=False, control=True)
        _, _, kind, flags, stream = _HEADER.unpack_from(data)
        return self._of_stream(data, kind, flags, stream & 0x7FFFFFFF, _payload(data, kind, flags))

    def _of_stream(self, data: bytes, kind: int, flags: int, stream: int, payload: bytes) -> Frame:
        raise NotImplementedError

    def _completed(self, stream: int, payload: bytes) -> bytes | None:
        """The gRPC message on a stream that this part completes, with what stands before it."""
        parts = self._parts[stream]
        parts += payload
        if len(parts) < _PREFIXED or len(parts) < _PREFIXED + int.from_bytes(parts[1:_PREFIXED], "big"):
            return None
        return bytes(self._parts.pop(stream))


class GrpcRequests(_Http2):
    """From client to server."""

    def __init__(self) -> None:
        super().__init__()
        from hpack import Decoder

        self._decoder: Decoder = Decoder()
        self._headers: dict[int, bytes] = {}

    def _of_stream(self, data: bytes, kind: int, flags: int, stream: int, payload: bytes) -> Frame:
        if kind in (_HEADERS, _CONTINUATION):
            self._headers[stream] = self._headers.get(stream, b"") + payload
            if flags & _END_HEADERS:
                self._headers[stream] = _written_out(
                    (bytes(header[0]), bytes(header[1]))
                    for header in self._decoder.decode(self._headers[stream], raw=True)
                )
        if kind == _DATA and (message := self._completed(stream, payload)) is not None:
            return Frame(data, stream, alone=_alone(self._headers.pop(stream, b""), message))
        return Frame(data, None, answered=False, control=True)


class GrpcReplies(_Http2):
    """From server to client: a message, or headers that end a stream without one, which is an error."""

    def __init__(self) -> None:
        super().__init__()
        self._answered: set[int] = set()

    def _of_stream(self, data: bytes, kind: int, flags: int, stream: int, payload: bytes) -> Frame:
        if kind == _DATA and self._completed(stream, payload) is not None:
            self._answered.add(stream)
            return Frame(data, stream)
        if kind == _HEADERS and flags & _END_STREAM:
            if stream not in self._answered:
                return Frame(data, stream)
            self._answered.discard(stream)
        return Frame(data, None, control=True)


def _payload(data: bytes, kind: int, flags: int) -> bytes:
    """What a frame carries, without padding and priority."""
    start, end = _HEADER.size, len(data)
    if kind in (_DATA, _HEADERS) and flags & _PADDED:
        end -= data[start]
        start += 1
    if kind == _HEADERS and flags & _PRIORITY:
        start += 5
    return data[start:end]


def _written_out(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers that refer to nothing that came before: each a literal that is not to be remembered."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(value: bytes) -> bytes:
    if len(value) < 127:
        return bytes((len(value),)) + value
    rest, size = len(value) - 127, bytearray((127,))
    while rest >= 128:
        size.append(rest & 127 | 128)
        rest >>= 7
    return bytes(size) + bytes((rest,)) + value


def _alone(headers: bytes, message: bytes) -> bytes:
    """A connection with one request."""
    return b"".join(
        (
            _PREFACE,
            _http2(_SETTINGS, 0, 0, b""),
            _http2(_HEADERS, _END_HEADERS, 1, headers),
            _http2(_DATA, _END_STREAM, 1, message),
        )
    )


def _http2(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEADER.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload
