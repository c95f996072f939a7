"""The message scheduler: clients whose every request and reply is held until Hypothesis says what becomes of it.

Exactly one thing happens at a time, so concurrency is deterministic, every interleaving of messages can be reached,
and a race shrinks to the fewest steps that show it. After each step the store is looked at past the gates, so it is
known at each moment who holds what, and each answer is judged by what was true while its question was under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from onceward.conformance.faults.contest import Memory, Said, Standing
from onceward.conformance.faults.gate import Finished, Held
from onceward.conformance.faults.plan import DELIVERED, LOST, Fate, Message, Treatment, Way
from onceward.conformance.faults.stage import Lane, Op, Stage, Step, Truth
from onceward.conformance.machine import picks
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Violated, attribute
from onceward.contracts import OncewardError

#: So often a request is sent before its client gives up.
SENDS = 5
#: So many leases end in a case; each is waited for.
LAPSES = 2

breaks = st.sampled_from((Fate.LOSE, Fate.RESET))


def where_possible(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The rule is drawn only where it has something to do."""
    return precondition(lambda self: self.possible(name))


class Messages(RuleBasedStateMachine):
    """A case: operations and messages, one step at a time."""

    def __init__(self, trial: Trial, stage: Stage) -> None:
        super().__init__()
        trial.begin_case()
        self.trial, self.stage, self.contest = trial, stage, stage.contest
        self.truth = Truth()
        self.kept: list[tuple[str, Message]] = []
        self.script: list[Step] = []
        self._requests = 0
        stage.begin()

    def teardown(self) -> None:
        """Nothing is under way any more; how the shortest failure came about is kept."""
        self.stage.end()
        if self.trial.best is not None and self.trial.best.history == tuple(self.trial.log):
            self.stage.script = self.script

    # -- what may happen ----------------------------------------------------------------------------------------

    @where_possible("start")
    @rule(pick=picks)
    def start(self, pick: int) -> None:
        """A client that has nothing asks for it; one that has it gives it back."""
        self._note("start", pick)
        lane = self.one(pick, op=False)
        if lane.has is None:
            self._requests += 1
            lane.op = Op("acquire", f"r{self._requests}")
        else:
            lane.op = Op("release", lane.has, stale=lane.has in self.truth.superseded)
            self.truth.given_back.add(lane.has)
        self._send(lane)

    @where_possible("deliver")
    @rule(pick=picks)
    def deliver(self, pick: int) -> None:
        """The message that waits arrives."""
        self._note("deliver", pick)
        self._decide(self.one(pick, op=True), DELIVERED, "is delivered")

    @where_possible("let_through")
    @rule(pick=picks)
    def let_through(self, pick: int) -> None:
        """The message that waits arrives, and so does whatever follows until the operation has ended."""
        self._note("let_through", pick)
        lane = self.one(pick, op=True)
        while lane.op is not None:
            self._decide(lane, DELIVERED, "is delivered")

    @where_possible("lose")
    @rule(pick=picks, fate=breaks)
    def lose(self, pick: int, fate: Fate) -> None:
        """The message that waits does not arrive, or not in one piece, and the connection is gone."""
        self._note("lose", pick, fate)
        verb = "is lost" if fate is Fate.LOSE else "is cut in half"
        self._decide(self.one(pick, op=True), Treatment(fate), verb)

    @where_possible("hold_back")
    @rule(pick=picks)
    def hold_back(self, pick: int) -> None:
        """The request that waits is kept on the way, while its client thinks that it is lost."""
        self._note("hold_back", pick)
        lane = self.one(pick, op=True, way=Way.REQUEST)
        assert lane.held is not None  # and an operation, whose request it is
        assert lane.op is not None
        self.kept.append((f"{lane.name}'s {lane.op.verb}({lane.op.request})", lane.held.message))
        self._decide(lane, LOST, "is held back on the way")

    @where_possible("duplicate")
    @rule(pick=picks)
    def duplicate(self, pick: int) -> None:
        """The request that waits arrives twice, one after the other."""
        self._note("duplicate", pick)
        lane = self.one(pick, op=True, way=Way.REQUEST)
        assert lane.op is not None  # whose request it is
        lane.op.meddled = True
        self._decide(lane, Treatment(Fate.DUPLICATE), "is delivered twice")

    @where_possible("deliver_late")
    @rule(pick=picks)
    def deliver_late(self, pick: int) -> None:
        """A request that was held back arrives after all."""
        self._note("deliver_late", pick)
        what, message = self.kept.pop(pick % len(self.kept))
        for lane in self.lanes(op=True):
            assert lane.op is not None  # asked for
            lane.op.meddled = True
        self.trial.say(f"{what}, held back before, is delivered now")
        self.trial.faults["request is delivered late"] += 1
        self.stage.lanes[0].proxy.redeliver(message)
        self._look()

    @where_possible("lapse")
    @rule()
    def lapse(self) -> None:
        """The lease of whoever holds it ends."""
        self._note("lapse")
        holder = self.truth.standing.request
        assert holder is not None  # see the precondition
        self.trial.say(f"-- the lease of {holder} ends --")
        self.trial.faults["lease ended before its time"] += 1
        self.truth.lapsed.add(holder)
        self.contest.lapse()
        self._look()

    @where_possible("forget")
    @rule(pick=picks)
    def forget(self, pick: int) -> None:
        """A client that has it and does nothing starts anew, as after a crash."""
        self._note("forget", pick)
        lane = self.one(pick, op=False)
        if lane.has is not None:
            self.trial.say(f"{lane.name} forgets {lane.has}")
            lane.has = None

    def possible(self, name: str) -> bool:
        """The rule of that name has something to do."""
        match name:
            case "start":
                return bool(self.lanes(op=False))
            case "hold_back" | "duplicate":
                return bool(self.lanes(op=True, way=Way.REQUEST))
            case "deliver_late":
                return bool(self.kept)
            case "lapse":
                return self.truth.standing.request is not None and len(self.truth.lapsed) < LAPSES
            case "forget":
                return any(lane.has for lane in self.lanes(op=False))
            case _:
                return bool(self.lanes(op=True))

    def take(self, step: Step) -> None:
        """A step that was taken before is taken again, if it is possible."""
        acts: Mapping[str, Callable[[int], None]] = {
            "start": self.start,
            "deliver": self.deliver,
            "let_through": self.let_through,
            "hold_back": self.hold_back,
            "duplicate": self.duplicate,
            "deliver_late": self.deliver_late,
            "forget": self.forget,
            "lapse": lambda pick: self.lapse(),
            "lose": lambda pick: self.lose(pick, step.fate),
        }
        if self.possible(step.rule):
            acts[step.rule](step.pick)

    def _note(self, name: str, pick: int = 0, fate: Fate = Fate.LOSE) -> None:
        self.script.append(Step(name, pick, fate))

    def lanes(self, *, op: bool, way: Way | None = None) -> list[Lane]:
        """The clients that are in an operation, or not; whose message on that way waits."""
        found = [lane for lane in self.stage.lanes if (lane.op is not None) is op]
        return [lane for lane in found if way is None or (lane.held is not None and lane.held.way is way)]

    def one(self, pick: int, *, op: bool, way: Way | None = None) -> Lane:
        """The client of that number if it is one of these, else the first that is; so steps stay what they were."""
        wanted, found = self.stage.lanes[pick % len(self.stage.lanes)], self.lanes(op=op, way=way)
        return wanted if wanted in found else found[0]

    # -- one step -----------------------------------------------------------------------------------------------

    def _send(self, lane: Lane) -> None:
        op = lane.op
        assert op is not None  # started by the caller
        op.sends, op.asked, op.meddled = op.sends + 1, 0, False
        op.held_before = self.truth.standing.request == op.request
        again = " again" if op.sends > 1 else ""
        self.trial.say(f"{lane.name} sends {op.verb}({self.contest.noun}, {op.request}){again}")
        self._look()
        call = lane.contender.acquire if op.verb == "acquire" else lane.contender.release
        lane.busy = True
        lane.thread.submit(lane.gate.finished, lambda: call(op.request))
        self._follow(lane)

    def _decide(self, lane: Lane, treatment: Treatment, verb: str) -> None:
        held, lane.held = lane.held, None
        assert held is not None  # in an operation, a client's next message waits
        self.trial.say(f"{lane.name}'s {held.way} {verb}")
        if treatment.fate in (Fate.LOSE, Fate.RESET):
            lane.cut = True
        if treatment is not DELIVERED:
            self.trial.faults[f"{held.way} {verb}"] += 1
        held.decide(treatment)
        self._follow(lane)

    def _follow(self, lane: Lane) -> None:
        """The client has come to its next message, or to the end of its sending, which is judged."""
        event = lane.gate.next()
        lane.busy = isinstance(event, Held)
        lane.held = event if isinstance(event, Held) else None
        self._look()
        assert lane.op is not None  # who was followed
        if isinstance(event, Held):
            lane.op.asked += event.way is Way.REQUEST
            return
        said = self._said(lane, lane.op, event)
        self.trial.say(f"{lane.name} is told: {said}")
        self._outcomes(lane, lane.op, said)
        if said not in (Said.UNKNOWN, Said.UNAVAILABLE):
            lane.cut = False
        lane.op.unknown |= said is Said.UNKNOWN
        again = said is Said.UNKNOWN or (said is Said.UNAVAILABLE and lane.op.unknown)
        if again and self.contest.resends and lane.op.sends < SENDS:
            self._send(lane)
            return
        op, lane.op = lane.op, None
        (self._acquired if op.verb == "acquire" else self._released)(lane, op, said)

    def _said(self, lane: Lane, op: Op, event: Finished) -> Said:
        error = event.error
        self._expect(
            "G16", error is None or isinstance(error, OncewardError), lambda: f"{lane.name} was given {error!r}"
        )
        if isinstance(error, Exception):
            found = attribute(error, f"{op.verb}({op.request})")
            raise self.trial.keep(found) if isinstance(found, Violated) else found
        assert isinstance(event.answer, Said)  # what contenders answer
        return event.answer

    def _look(self) -> None:
        """What is true now is known, and agrees with what was true before."""
        truth, now = self.truth, self.contest.standing()
        before, truth.standing = truth.standing, now
        if before.request is not None and before.request != now.request:
            fine = before.request in truth.lapsed or before.request in truth.given_back
            self._expect("G3", fine, lambda: f"{before.request} lost it to {now.request}, live and not released")
            truth.over.append(before.request)
        if now.request is not None and now.request != before.request:
            self._taken(now)
        for lane in self.stage.lanes:
            if lane.op is not None:
                lane.op.mine |= now.request == lane.op.request
                lane.op.others |= now.request not in (None, lane.op.request)

    def _taken(self, now: Standing) -> None:
        """Somebody has it now who did not have it before."""
        truth = self.truth
        truth.superseded.update(request for request in truth.over if request != now.request)
        if now.token is not None:
            self._expect("G2", now.token > truth.newest_token, lambda: f"{now.token} after {truth.newest_token}")
            truth.newest_token = now.token
        again = now.request in truth.over
        known = self.contest.memory is Memory.ALWAYS
        known |= self.contest.memory is Memory.NEWEST and bool(truth.over) and truth.over[-1] == now.request
        self._expect("G7", not (again and known), lambda: f"a late copy of {now.request} took it once more")
        if again and now.request is not None:
            truth.retaken.add(now.request)
            truth.superseded.discard(now.request)
        twice = len(set(now.grants)) < len(now.grants) and self.contest.memory is Memory.ALWAYS
        self._expect("G7", not twice, lambda: f"one request was granted twice: {now.grants}")

    # -- judgement ----------------------------------------------------------------------------------------------

    def _outcomes(self, lane: Lane, op: Op, said: Said) -> None:
        """Done, not done and unknown are told apart."""
        holds = self.truth.standing.request == op.request
        if said is Said.UNAVAILABLE and not op.meddled and op.request not in self.truth.lapsed:
            applied = holds is not op.held_before
            self._expect("O1", not applied, lambda: f"{op.verb}({op.request}) was called unavailable, but is done")
        if said is Said.UNKNOWN:
            possible = op.asked > 0 or lane.cut
            self._expect("O1", possible, lambda: f"{op.verb}({op.request}) was called unknown, but was never sent")

    def _acquired(self, lane: Lane, op: Op, said: Said) -> None:
        truth = self.truth
        if said is Said.GRANTED:
            self._expect("G7", op.mine, lambda: f"{op.request} was told that it was granted, but it never was")
            lane.has = op.request
        elif said is Said.REFUSED:
            justified = op.others or op.request in truth.over
            mine = " (it has it itself)" if truth.standing.request == op.request else ""
            self._expect("L6", justified, lambda: f"{op.request} was refused, but nobody else ever had it{mine}")

    def _released(self, lane: Lane, op: Op, said: Said) -> None:
        truth, lane.has = self.truth, None
        if said in (Said.RELEASED, Said.LOST):
            holds = truth.standing.request == op.request and op.request not in truth.retaken
            self._expect("G7", not holds, lambda: f"{op.request} was told {said}, but still holds it")
        if said is Said.RELEASED:
            self._expect("G4", not op.stale, lambda: f"the release of {op.request} was accepted, but it was stale")
        elif said is Said.LOST:
            gone, superseded = op.request in truth.lapsed, op.request in truth.superseded
            possible = gone and superseded if self.contest.work_counts else gone or superseded
            self._expect("L7", possible, lambda: f"{op.request} was told that it had lost it, but it had not")

    def _expect(self, guarantee: str, holds: bool, said: Callable[[], str]) -> None:
        self.trial.expect(guarantee, holds, said)
