"""What becomes of each message on its way: decided by a plan, carried out by the proxy."""

from __future__ import annotations

import enum
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias


class Way(enum.StrEnum):
    """Where a message goes."""

    REQUEST = "request"
    REPLY = "reply"


class Fate(enum.StrEnum):
    """What may become of a message."""

    DELIVER = "delivered"
    LOSE = "lost"
    """It never arrives; the connection ends, as when a machine or a switch dies."""
    RESET = "reset"
    """A half of it arrives, then the connection is reset."""
    DUPLICATE = "duplicated"
    """A request is delivered, and once it is answered, delivered again, byte by byte, on another connection."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """A fate, and the seconds that pass before it is carried out."""

    fate: Fate = Fate.DELIVER
    after: float = 0.0


DELIVERED = Treatment()
LOST = Treatment(Fate.LOSE)


@dataclass(frozen=True, slots=True)
class Message:
    """A message on its way.

    Attributes:
        greeting: what was sent first on its connection, and must come first on another one.
        request: of a reply, what it answers, where that is known.
        alone: what sends a request on a connection of its own; b"": the greeting, and then the same bytes.
    """

    way: Way
    data: bytes = field(repr=False)
    greeting: tuple[bytes, ...] = field(default=(), repr=False)
    request: Message | None = None
    alone: bytes = field(default=b"", repr=False)

    def mentions(self, name: bytes) -> bool:
        """True if it, or the request that it answers, has the name in it."""
        return name in self.data or (self.request is not None and name in self.request.data)


class Plan(ABC):
    """Decides about messages, one after the other in each direction of a connection; may take its time."""

    @abstractmethod
    async def treat(self, message: Message) -> Treatment:
        """What is to be done with the message. Runs in the proxy's thread."""


class Deliver(Plan):
    """Nothing happens to any message."""

    async def treat(self, message: Message) -> Treatment:
        return DELIVERED


#: How often what happens to a message, by direction and fate.
Rates: TypeAlias = Mapping[tuple[Way, Fate], float]

#: Much more than a network does, so that a short run meets them; few enough that most requests are answered.
COMMON: Rates = {(Way.REPLY, Fate.LOSE): 0.01, (Way.REQUEST, Fate.LOSE): 0.005, (Way.REPLY, Fate.RESET): 0.003}


class AtRandom(Plan):
    """Messages that mention a name are lost and late at given rates, decided by a seed.

    Args:
        mention: messages without it are left alone.
        late: how often a reply comes late; delay: how late.
    """

    def __init__(
        self, seed: int, *, mention: bytes = b"", rates: Rates = COMMON, late: float = 0.01, delay: timedelta
    ) -> None:
        self._rng = random.Random(f"messages/{seed}")
        self._mention, self._rates = mention, rates
        self._late, self._delay = late, delay.total_seconds()

    async def treat(self, message: Message) -> Treatment:
        draw = self._rng.random()
        if not message.mentions(self._mention):
            return DELIVERED
        for (way, fate), rate in self._rates.items():
            if way is message.way:
                if draw < rate:
                    return Treatment(fate)
                draw -= rate
        late = message.way is Way.REPLY and draw < self._late
        return Treatment(after=self._delay) if late else DELIVERED


class AtIndex(Plan):
    """The n-th message, counted in both directions, has a fate; all others are delivered.

    Attributes:
        hit: the message was there.
    """

    def __init__(self, index: int, fate: Fate, *, way: Way | None = None) -> None:
        self._left, self._fate, self._way = index, fate, way
        self.hit = False

    async def treat(self, message: Message) -> Treatment:
        if self._way not in (None, message.way):
            return DELIVERED
        self._left -= 1
        if self._left != -1:
            return DELIVERED
        self.hit = True
        return Treatment(self._fate)
