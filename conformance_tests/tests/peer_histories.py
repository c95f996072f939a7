"""What locks were asked and said, step by step on a real server, for the suite's checker: other people's, and ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from onceward.conformance.checker import judge
from onceward.conformance.history import EARLY, Kind, Op, Outcome

#: Leases may end late by so much: what etcd adds to a second.
SLACK = 10.0


class Steps:
    """One lock and its clients, one step after the other.

    Attributes:
        history: what was asked and said.
    """

    def __init__(self) -> None:
        self.history: list[Op] = []
        self._held: dict[str, str] = {}

    def acquires(self, client: str, call: Callable[[], bool], *, lease: float | None = None) -> bool:
        """The client asks for the lock, for so many seconds (None: until it is ``ended``)."""
        request = f"{client}-{len(self.history)}"
        granted = self._step(client, Kind.LOCK, request, call, (Outcome.GRANTED, Outcome.REFUSED), lease)
        if granted:
            self._held[client] = request
        return granted

    def ended(self, client: str) -> None:
        """The store is going to end the client's hold now, before its time."""
        now, request = time.monotonic(), self._held[client]
        self.history = [
            replace(op, lease=now - op.inv) if op.kind is Kind.LOCK and op.request == request else op
            for op in self.history
        ]

    def still_has(self, client: str, call: Callable[[], bool]) -> bool:
        """The client asks whether it has the lock still. A yes is true at that moment, or wrong."""
        answers = (Outcome.DONE, Outcome.LOST)
        return self._step(client, Kind.RENEW, self._held[client], call, answers, 2 * EARLY)

    def _step(
        self,
        client: str,
        kind: Kind,
        request: str,
        call: Callable[[], bool],
        answers: tuple[Outcome, Outcome],
        lease: float | None,
    ) -> bool:
        inv = time.monotonic()
        said = call()
        ret = time.monotonic()
        self.history.append(
            Op(
                client=client,
                kind=kind,
                resource="lock",
                request=request,
                inv=inv,
                ret=ret,
                outcome=answers[0] if said else answers[1],
                lease=lease,
            )
        )
        return said


def broken(history: Sequence[Op]) -> set[str]:
    """The promises that the history breaks."""
    return {finding.guarantee for finding in judge(history, slack=SLACK).findings}


def shortest(history: Sequence[Op]) -> list[str]:
    """What is left of a history if nothing more can be left out without losing what it breaks."""
    left = list(history)
    for op in history:
        fewer = [each for each in left if each is not op]
        if broken(fewer) >= broken(history):
            left = fewer
    return [f"{op.client}: {op.kind} {op.outcome}" for op in left]
