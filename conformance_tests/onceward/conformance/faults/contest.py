"""Something that several clients want, each by its own way to the server: what the message scheduler examines.

Whatever can be acquired and released fits: the locks, check-ins and claims of a runner, and other people's locks.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass

from onceward.conformance.faults.framing import Dialect
from onceward.conformance.faults.proxy import Address


class Said(enum.StrEnum):
    """What a client was told about one sending of a request."""

    GRANTED = "granted"
    REFUSED = "refused"
    RELEASED = "released"
    LOST = "lost"
    UNKNOWN = "unknown"
    """It may be done or not."""
    UNAVAILABLE = "unavailable"
    """It is definitely not done."""


class Memory(enum.StrEnum):
    """For how long a request whose hold is over is recognised as a late copy."""

    ALWAYS = "always"
    NEWEST = "newest"
    """Until somebody else has had it."""
    NEVER = "never"
    """A copy is asked anew once nothing is held."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it is now, seen past all gates.

    Attributes:
        request: the acquiring request whose hold is live; None: nobody holds it.
        token: of that hold, where there are tokens.
        grants: the requests that were ever granted, in order, where that is on record.
    """

    request: str | None
    token: int | None = None
    grants: tuple[str, ...] = ()


class Contender(ABC):
    """One client. Each method is one sending of one request; the same arguments make the same request."""

    @abstractmethod
    def acquire(self, request: str) -> Said:
        """It is the client's, or somebody else's."""

    @abstractmethod
    def release(self, request: str) -> Said:
        """What ``request`` acquired is given back."""

    @abstractmethod
    def close(self) -> None:
        """No connection is left."""


class Contest(ABC):
    """The resource, one after the other for each case.

    Attributes:
        address, dialect: where the server listens, and how it talks.
        mention: what the messages that matter have in them.
        noun: what is held, for histories.
        resends: clients send a request again until they know its outcome; otherwise they give up at once.
        memory: for how long late copies are recognised.
        work_counts: a release of a lapsed hold that nobody took over is accepted, and repeated ones stay so.
    """

    address: Address
    dialect: Dialect
    mention: bytes
    noun: str
    resends: bool = True
    memory: Memory = Memory.ALWAYS
    work_counts: bool = False

    @abstractmethod
    def contender(self, address: Address, name: str) -> Contender:
        """A client that reaches the server by that address."""

    @abstractmethod
    def begin(self, case: int) -> None:
        """From now on it is about a fresh resource that nobody holds."""

    @abstractmethod
    def standing(self) -> Standing:
        """How it is now."""

    @abstractmethod
    def lapse(self) -> None:
        """The live hold is over by the store's clock."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is left of the contest."""
