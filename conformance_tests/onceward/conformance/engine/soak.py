"""The soak: server processes on one store, mixed jobs, random SIGKILL and SIGSTOP, and a verdict on what they did."""

from __future__ import annotations

import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec

from onceward.conformance.engine import effects
from onceward.conformance.engine.child import SetUp
from onceward.conformance.engine.jobs import MIX, Crashing
from onceward.conformance.engine.members import Member, ProcessMember, ThreadMember
from onceward.conformance.engine.verdict import Ends, Judged, judge
from onceward.conformance.faults import DIALECTS, AtRandom, Fate, Proxy, Way
from onceward.conformance.faults.soak import PAST_THE_LEASE
from onceward.conformance.harness import Harness, Opening
from onceward.contracts import Run, Runner, RunQuery, RunSpec, Status, StoreError, StoreMisconfigured, checks
from onceward.contracts.records import Record
from onceward.toolkit.jobs import Launcher
from onceward.toolkit.resend import resend

_LIVE = frozenset({Status.SCHEDULED, Status.RUNNING})
_BATCH = 200
_LOOK_EVERY = 0.05
_CRASHING_PER_CENT = 1
#: A lost or late message costs a server seconds, so there are fewer than in histories of single requests.
_RATES = {(Way.REPLY, Fate.LOSE): 0.002, (Way.REQUEST, Fate.LOSE): 0.001, (Way.REPLY, Fate.RESET): 0.003}
_LATE = 0.0005


class SoakPlan(Record, frozen=True, kw_only=True):
    """How a soak goes.

    Attributes:
        servers: so many server processes at a time; one that died is replaced.
        runs: so many are submitted before the first server starts; schedules and parents add to them.
        kills: so many servers are killed, at random moments.
        pauses: so many are stopped for longer than a lease, and continued.
        lease: of every run; a run whose server died goes on after it.
        messages: where the harness knows the server's address, messages of the servers are lost and come late.
        patience: after so long without any run's end, it is stuck.
        seed: decides the mix, the victims and the moments.
    """

    servers: int = 3
    runs: int = 5_000
    concurrency: int = 8
    kills: int = 10
    pauses: int = 0
    lease: timedelta = timedelta(seconds=3)
    messages: bool = False
    patience: timedelta = timedelta(seconds=60)
    ticking: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        checks.whole("servers", self.servers, 1, 64)
        checks.whole("runs", self.runs, 1, 1_000_000)
        checks.whole("kills", self.kills, 0, 100_000)
        checks.whole("pauses", self.pauses, 0, 100_000)
        checks.required_lease("lease", self.lease)


class SoakReport(Record, frozen=True, kw_only=True):
    """How a soak went. ``ok``: every promise was kept, and everything ended."""

    judged: Judged
    stuck: int
    seconds: float
    faults: dict[str, int]

    @property
    def ok(self) -> bool:
        """True: nothing to complain of."""
        return not self.judged.problems and not self.stuck


class Soak:
    """The servers, and what is done to them."""

    def __init__(self, plan: SoakPlan, opening: Opening | None, runner: Runner, folder: Path) -> None:
        self.plan, self.runner = plan, runner
        self.journal = folder / "effects.jsonl"
        self.setup = SetUp(
            opening=opening,
            journal=str(self.journal),
            lease=plan.lease,
            concurrency=plan.concurrency,
            ticking=plan.ticking,
        )
        self._alone = opening is None
        self.members: list[Member] = []
        self.died: dict[int, float] = {}
        self.paused: set[int] = set()
        self.faults: Counter[str] = Counter()
        self._random = random.Random(f"soak/{plan.seed}")
        self._deeds = ["kill"] * plan.kills + ["pause"] * plan.pauses
        self._random.shuffle(self._deeds)
        self._left = plan.runs

    def submit(self) -> None:
        """All runs are in the queue, in a random order."""
        names = [kind.__name__ for kind, share in MIX.items() for _ in range(share)]
        kinds = [self._random.choice(names) for _ in range(self.plan.runs)]
        crashing = 0 if self._alone else max(1, self.plan.runs * _CRASHING_PER_CENT // 100)
        for place in range(crashing):
            kinds[place * 7 % len(kinds)] = Crashing.__name__
        self._random.shuffle(kinds)
        launcher = Launcher(self.runner.scheduler)
        specs = [
            msgspec.structs.replace(
                launcher.spec(kind, key=f"{number:06}", priority=self._random.choice((-5, 0, 0, 5))), max_crashes=None
            )
            for number, kind in enumerate(kinds)
        ]
        for start in range(0, len(specs), _BATCH):
            batch: Sequence[RunSpec] = specs[start : start + _BATCH]
            resend(lambda batch=batch: self.runner.scheduler.submit(batch))  # type: ignore[misc]

    def run(self, on_progress: Callable[[int], None]) -> int:
        """Everything has ended, or nothing moves any more; how many runs have not ended."""
        self.members = [self._member() for _ in range(self.plan.servers)]
        moved, next_deed = time.monotonic(), self._pause()
        while True:
            left = self._unended()
            if left != self._left:
                moved, self._left = time.monotonic(), left
                on_progress(left)
            if (not left and not self._deeds) or time.monotonic() - moved > self.plan.patience.total_seconds():
                return left
            self._replace()
            if time.monotonic() >= next_deed and self._deeds:
                self._torment(self._deeds.pop())
                next_deed = self._pause()
            time.sleep(_LOOK_EVERY)

    def close(self) -> None:
        """No server is left."""
        for member in self.members:
            member.end()

    def _pause(self) -> float:
        return time.monotonic() + self.plan.lease.total_seconds() * self._random.uniform(0.3, 1.0)

    def _unended(self) -> int:
        try:
            counts = self.runner.lifecycle.counts()
        except StoreError:
            return self._left
        live = {name: sum(found.get(status, 0) for status in _LIVE) for name, found in counts.items()}
        live.pop("Ticking", None)  # goes on for as long as servers do
        return sum(live.values())

    def _replace(self) -> None:
        for place, member in enumerate(self.members):
            if not member.alive:
                self._gone(member, "server process ended by its job")
                self.members[place] = self._member()

    def _torment(self, deed: str) -> None:
        victim = self._random.choice([member for member in self.members if member.alive] or [None])
        if victim is None:
            return
        if deed == "kill":
            victim.kill()
            self._gone(victim, victim.killed)
            self.members[self.members.index(victim)] = self._member()
            return
        self.paused.add(victim.number)
        victim.pause(self.plan.lease.total_seconds() * 1.3)
        self.faults[victim.paused] += 1

    def _member(self) -> Member:
        return ThreadMember(self.setup, self.runner) if self._alone else ProcessMember(self.setup)

    def _gone(self, member: Member, how: str) -> None:
        assert member.died is not None  # it is not alive
        self.died[member.number] = member.died
        member.close()
        self.faults[how] += 1


def soak(
    harness: Harness, plan: SoakPlan | None = None, *, on_progress: Callable[[int], None] = lambda left: None
) -> SoakReport:
    """Everything was run, and judged.

    Where no other process can reach the store, servers are threads of this one: instead of being killed they are cut
    off from the store, and no job ends its process.

    Raises:
        StoreMisconfigured: messages were to be lost, and the harness does not know where they go.
    """
    plan = plan or SoakPlan()
    began = time.monotonic()
    with harness.timed_runner() as runner, tempfile.TemporaryDirectory(prefix="onceward-soak-") as folder:
        with _reached(harness, plan) as (through, faults):
            state = Soak(plan, through.opening(runner), runner, Path(folder))
            state.submit()
            with _quiet():
                try:
                    stuck = state.run(on_progress)
                finally:
                    state.close()
            state.faults.update(faults)
        runs = [run for run in _all(runner) if not _late(run)]
        ends = Ends(died=state.died, paused=frozenset(state.paused))
        judged = judge(runs, effects.read(state.journal), ends)
    return SoakReport(judged=judged, stuck=stuck, seconds=time.monotonic() - began, faults=dict(state.faults))


@contextmanager
def _quiet() -> Iterator[None]:
    """Servers that are threads of this process do not log: their jobs fail on purpose."""
    log = logging.getLogger("onceward")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


@contextmanager
def _reached(harness: Harness, plan: SoakPlan) -> Iterator[tuple[Harness, Counter[str]]]:
    """The harness by which servers reach the store, directly or through a proxy, and what the proxy did."""
    if not plan.messages:
        yield harness, Counter()
        return
    server = harness.server()
    if server is None:
        raise StoreMisconfigured(f"{harness.name}: nobody knows where its server listens, so messages cannot be lost")
    disturb = AtRandom(plan.seed, rates=_RATES, late=_LATE, delay=plan.lease * PAST_THE_LEASE)
    with Proxy((server.host, server.port), DIALECTS[server.dialect], disturb) as proxy:
        through = harness.through(proxy.address)
        if through is None:
            raise StoreMisconfigured(f"{harness.name} has a server(), but no through() for a proxy before it")
        yield through, proxy.faults


def _all(runner: Runner) -> list[Run]:
    query, found = RunQuery(oldest_first=True, limit=1_000), list[Run]()
    while True:
        page = runner.lifecycle.runs(query)
        found += page
        if len(page) < query.limit:
            return found
        query = msgspec.structs.replace(query, after=page[-1].sequence)


def _late(run: Run) -> bool:
    """The last occurrences, for which no server was there any more."""
    return run.job == "Ticking" and run.status in _LIVE
