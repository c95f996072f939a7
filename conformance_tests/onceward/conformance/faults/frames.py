"""What a message is, and what cuts the bytes of a connection into messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.

    Attributes:
        number: the same for a request and its reply, within one connection; None: a reply that nobody asked for.
        answered: a reply to it will come.
        control: no message at all, but something that the protocol needs: it passes as it comes.
        alone: what sends it on a connection of its own; b"": the same bytes, after the greeting.
    """

    data: bytes
    number: int | None
    answered: bool = True
    alone: bytes = b""
    control: bool = False


class Framer(ABC):
    """Cuts the bytes of one direction of one connection into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._count = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The messages that these bytes complete."""
        self._buffer += data
        frames: list[Frame] = []
        while self._buffer and (end := self._end()) is not None:
            message = bytes(self._buffer[:end])
            del self._buffer[:end]
            frames.append(self._frame(message))
        return frames

    @abstractmethod
    def _end(self) -> int | None:
        """The length of the first message in the buffer; None: it is not complete."""

    def _frame(self, data: bytes) -> Frame:
        """By default the n-th request is answered by the n-th reply."""
        self._count += 1
        return Frame(data, self._count)
