"""One property under examination: its time, its seed, the case under way, and the shortest failure so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from onceward.conformance.disturb import Faults
from onceward.conformance.harness import Harness
from onceward.conformance.verdicts import OutOfTime, Tally, Violated, attribute
from onceward.contracts import Traits

#: How long a failure may be made shorter before it is reported as it is.
SHRINKING = timedelta(seconds=12)


@dataclass
class Found:
    """A failure with its history, as lines for people."""

    violation: Violated
    history: tuple[str, ...]
    diagram: str = ""


@dataclass
class Trial:
    """What a property is given to run one round, and what it reports into.

    Attributes:
        seed: decides every draw of the round.
        until: monotonic time after which no further case is begun; None: the round is run to its end.
        messages: what is to be done to messages in concurrent histories.
        faults: what was done to clients and stores, by name, counted when it really happened.
        over: the time was up in the middle of a round.
        probed: traits that were tried out, and what was found.
    """

    harness: Harness
    traits: Traits
    tally: Tally
    seed: int = 0
    messages: Faults = Faults.MESSAGES
    until: float | None = None
    cases: int = 0
    operations: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    probed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    best: Found | None = None
    over: bool = False
    tick: Callable[[], None] = lambda: None
    _shrink_until: float = float("inf")

    def begin_case(self) -> None:
        """A new case begins; its history is empty.

        Raises:
            OutOfTime: there is no time left for one.
        """
        moment = time.monotonic()
        if moment > self._shrink_until or (self.best is None and self.until is not None and moment > self.until):
            self.over = True
            raise OutOfTime
        self.cases += 1
        self.log = []
        self.tick()

    def say(self, line: str) -> None:
        """One more operation is in the history of the case."""
        self.operations += 1
        self.log.append(line)

    def expect(self, guarantee: str, holds: bool, said: str | Callable[[], str]) -> None:
        """The promise was evaluated once more, and holds; else the history is kept and ``Violated`` raised."""
        try:
            self.tally.expect(guarantee, holds, said)
        except Violated as violation:
            raise self.keep(violation) from None

    def keep(self, violation: Violated, *, diagram: str = "") -> Violated:
        """The failure is remembered, if it is the shortest of this property so far."""
        if self.best is None:
            self._shrink_until = time.monotonic() + SHRINKING.total_seconds()
        if self.best is None or len(self.log) <= len(self.best.history):
            self.best = Found(violation, tuple(self.log), diagram)
        return violation

    def blame(self, error: Exception, doing: str) -> Exception:
        """The error of a runner that nobody disturbed, as what it means for the verdict."""
        meant = attribute(error, doing)
        return self.keep(meant) if isinstance(meant, Violated) else meant
