"""The clients of the message scheduler, their gates, and what is known about the resource that they want."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from onceward.conformance.faults.contest import Contender, Contest, Standing
from onceward.conformance.faults.gate import Gate, Held, gated
from onceward.conformance.faults.plan import DELIVERED, Fate
from onceward.conformance.faults.proxy import Proxy

NAMES = ("ann", "bob")


@dataclass
class Op:
    """An operation under way.

    Attributes:
        held_before: its request held the resource when this sending began.
        others: somebody else held the resource at some time since it began.
        mine: its own request held it at some time since it began.
        stale: somebody else had it after this request, before the operation began.
        asked: messages of this sending that came to the gate.
        meddled: a late copy of a request was delivered since this sending began.
        unknown: an earlier sending has an unknown outcome.
    """

    verb: str
    request: str
    stale: bool = False
    held_before: bool = False
    others: bool = False
    mine: bool = False
    sends: int = 0
    asked: int = 0
    meddled: bool = False
    unknown: bool = False


@dataclass
class Lane:
    """A client with its gate, and what it does in the case."""

    name: str
    proxy: Proxy
    gate: Gate
    contender: Contender
    thread: ThreadPoolExecutor
    op: Op | None = None
    held: Held | None = None
    has: str | None = None
    busy: bool = False
    """A request of its is under way: an event will come."""
    cut: bool = False
    """Its connection was broken, and it has not been answered since."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a case, as it can be taken again: the name of a rule, and what was drawn for it."""

    rule: str
    pick: int = 0
    fate: Fate = Fate.LOSE


class Stage:
    """The clients, for many cases.

    Attributes:
        script: the steps of the latest case that went wrong.
    """

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self.lanes: list[Lane] = []
        self.cases = 0
        self.script: list[Step] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in NAMES:
                proxy, gate = gated(self.contest.address, self.contest.dialect, self.contest.mention)
                gate.shut = False  # until the client has opened the store
                stack.enter_context(proxy)
                contender = self.contest.contender(proxy.address, name)
                stack.callback(contender.close)
                thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix=f"onceward-{name}"))
                self.lanes.append(Lane(name, proxy, gate, contender, thread))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def begin(self) -> None:
        """A new case on a fresh resource; every gate is shut."""
        self.cases += 1
        self.contest.begin(self.cases)
        for lane in self.lanes:
            lane.op = lane.held = lane.has = None
            lane.gate.shut = True

    def end(self) -> None:
        """Every operation has ended: whatever was held is delivered."""
        for lane in self.lanes:
            lane.gate.shut = False
            while lane.busy:
                if lane.held is not None:
                    lane.held.decide(DELIVERED)
                event = lane.gate.next()
                lane.held = event if isinstance(event, Held) else None
                lane.busy = isinstance(event, Held)
            lane.op = None


@dataclass
class Truth:
    """Who held the resource when, as it was seen after each step.

    Attributes:
        over: requests whose hold has ended, however; the newest last.
        lapsed: those whose hold ended by time.
        superseded: those after whom somebody else has held it.
        given_back: those whose holder has asked to release it.
        retaken: those of whom a late copy took it once more, where that is nothing that the store can know.
    """

    standing: Standing = field(default_factory=lambda: Standing(None))
    newest_token: int = -1
    over: list[str] = field(default_factory=list)
    lapsed: set[str] = field(default_factory=set)
    superseded: set[str] = field(default_factory=set)
    given_back: set[str] = field(default_factory=set)
    retaken: set[str] = field(default_factory=set)
