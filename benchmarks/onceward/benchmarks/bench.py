"""One run of the benchmark: every measure in turn, each with one lane per contestant in interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from onceward.benchmarks.apart import NotToBeHad
from onceward.benchmarks.contestants import Contestant
from onceward.benchmarks.environment import environment
from onceward.benchmarks.job_servers.measures import Jobs, Progress
from onceward.benchmarks.measures import MEASURES, Measure
from onceward.benchmarks.measures.footprint import measured
from onceward.benchmarks.measures.measure import raw_again
from onceward.benchmarks.measures.queue import claim, claim_checkout
from onceward.benchmarks.peers import Peer
from onceward.benchmarks.records import (
    BATCHING,
    FOOTPRINT,
    LENGTH,
    Absent,
    Broken,
    Comparison,
    Footprint,
    Growth,
    Point,
    Result,
    Role,
    Row,
)
from onceward.benchmarks.rounds import Lane, Pace, Round, Task, interleave
from onceward.benchmarks.stats import Spread, percentile, ratios
from onceward.contracts import Runner

#: Claims per lap against queues of a length: few, so that the shortest queue keeps its length.
_CLAIMS_PER_LAP = 200
#: What is claimed and checked out at a time, where that is compared with one by one.
_BATCH = 100


def silent(what: str, done: int, total: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure, and for how long.

    Attributes:
        lengths: queue lengths for the cost of a claim; fewer than two: it is left out.
        checkins: how many for the memory of a process; 0: it is left out.
        jobs: what to measure of whole job servers; None: nothing.
        batching: whether claim and check-out one by one are compared with a hundred at a time.
    """

    contestants: Sequence[Contestant]
    peers: Sequence[Peer] = ()
    measures: Sequence[Measure] = MEASURES
    lengths: Sequence[int] = ()
    checkins: int = 0
    batching: bool = False
    jobs: Jobs | None = None
    pace: Pace = field(default_factory=Pace)
    quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A lane, and what its results say besides the figures."""

    lane: Lane
    contestant: str
    role: Role
    against: str | None = None
    length: int | None = None
    note: str = ""


@dataclass
class Bench:
    """Measures what the plan says, and yields rows as they are known.

    Attributes:
        complete: False once Ctrl-C ended a measure; what was measured until then has been yielded.
    """

    plan: Plan
    progress: Progress = silent
    complete: bool = field(default=True, init=False)

    def run(self) -> Iterator[Row]:
        """All rows but the verdicts and the end."""
        yield environment(self.plan.pace, quick=self.plan.quick)
        yield from self._absent()
        for name, part in self._parts():
            try:
                yield from part()
            except KeyboardInterrupt:
                self.complete = False
            except Exception as error:  # one measure's trouble must not cost the figures of the others
                yield Broken(measure=name, reason=f"{type(error).__name__}: {error}")
            if not self.complete:
                return

    def _absent(self) -> Iterator[Absent]:
        """The peers that cannot be measured. What needs an environment of its own has one by then, if it can be had."""
        for peer in self.plan.peers:
            why = ""
            if peer.apart is not None:
                if all(each.kind != peer.beside for each in self.plan.contestants):
                    continue
                self.progress(f"installing {peer.name} in {peer.apart.folder}", 0, 1)
                try:
                    peer.apart.make()
                except NotToBeHad as error:
                    why = f"; {error}"
            if not peer.installed:
                yield Absent(contestant=peer.name, install=f"{peer.install}{why}")

    def _parts(self) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
        for measure in self.plan.measures:
            yield measure.name, partial(self._measure, measure)
        for contestant in self.plan.contestants if self.plan.batching else ():
            yield BATCHING, partial(self._batching, contestant)
        for contestant in self.plan.contestants if len(self.plan.lengths) > 1 else ():
            yield LENGTH, partial(self._length, contestant)
        # What a process keeps in memory does not depend on durability, so the last (quickest) of each kind will do.
        kinds = {contestant.kind: contestant for contestant in self.plan.contestants}
        for contestant in kinds.values() if self.plan.checkins else ():
            yield FOOTPRINT, partial(self._footprint, contestant)
        if self.plan.jobs is not None:
            yield from self.plan.jobs.parts(self.plan.contestants, self.progress)

    def _measure(self, measure: Measure) -> Iterator[Row]:
        with ExitStack() as stack:
            entrants = [
                entrant for each in self.plan.contestants for entrant in self._side_by_side(measure, each, stack)
            ]
            peers = list(self._peers(measure, stack))
            entrants += [entrant for _, entrant in peers]
            rounds = self._rounds(measure.name, [entrant.lane for entrant in entrants], self.plan.pace)
            yield from results(measure.name, measure.title, entrants, rounds, complete=self.complete)
            for contestant, peer in peers if rounds else ():
                if contestant is not None:
                    yield self._compared(measure.name, measure.title, contestant.name, peer.lane.name, rounds)

    def _compared(self, name: str, title: str, lane: str, against: str, rounds: Sequence[Round]) -> Comparison:
        ratio = ratios([each[lane].rate for each in rounds], [each[against].rate for each in rounds])
        return Comparison(
            measure=name,
            title=title,
            contestant=lane,
            against=against,
            ratio=ratio,
            rounds=len(rounds),
            complete=self.complete,
        )

    def _side_by_side(self, measure: Measure, contestant: Contestant, stack: ExitStack) -> Iterator[Entrant]:
        """The contestant and its raw driver."""
        raw_name = f"{contestant.name}, raw" if contestant.raw else None
        task = measure.of_runner(stack.enter_context(contestant.fresh().open()), measure.batch)
        yield _entrant(measure, contestant.name, Role.RUNNER, task, against=raw_name, note=contestant.note)
        if contestant.raw and raw_name:
            raw = contestant.raw()
            stack.callback(raw.close)
            yield _entrant(measure, raw_name, Role.RAW, measure.of_raw(raw, measure.batch))

    def _peers(self, measure: Measure, stack: ExitStack) -> Iterator[tuple[Contestant | None, Entrant]]:
        """Each peer once, with the contestant on whose server it is, if it needs one."""
        folder = self.plan.contestants[-1].folder
        for peer in self.plan.peers:
            hosts = [each for each in self.plan.contestants if each.kind == peer.beside] if peer.beside else [None]
            for host in hosts[:1] if peer.installed and measure.name in peer.entries else ():
                place = host.server if host is not None else str(folder / f"{peer.package}-{measure.name}")
                task = peer.entries[measure.name](place)
                stack.callback(task.close)
                yield host, _entrant(measure, peer.name, Role.PEER, task, note=peer.note)

    def _batching(self, contestant: Contestant) -> Iterator[Row]:
        """One by one and in batches in the same rounds, so that what a batch saves can be told."""
        title, entrants = "claim + check-out", []
        with ExitStack() as stack:
            for batch in (1, _BATCH):
                task = claim_checkout(stack.enter_context(contestant.fresh().open()), batch)
                name = f"{contestant.name}, {'one by one' if batch == 1 else f'batches of {batch}'}"
                entrants.append(
                    Entrant(lane=Lane(name=name, task=task, batch=batch), contestant=name, role=Role.RUNNER)
                )
            one, many = (entrant.lane for entrant in entrants)
            rounds = self._rounds(f"{BATCHING}, {contestant.name}", [one, many], self.plan.pace)
            yield from results(BATCHING, title, entrants, rounds, complete=self.complete)
            if rounds:
                yield self._compared(BATCHING, title, many.name, one.name, rounds)

    def _length(self, contestant: Contestant) -> Iterator[Row]:
        """Queues of all lengths in the same rounds, so that their costs can be told apart from the machine's moods."""
        lengths, title = sorted(self.plan.lengths), "claim against queue length"
        pace = replace(self.plan.pace, rounds=2 * self.plan.pace.rounds, most_steps=_CLAIMS_PER_LAP)
        with ExitStack() as stack:
            entrants = [
                self._queue(contestant, stack.enter_context(contestant.fresh().open()), each) for each in lengths
            ]
            if contestant.raw:
                raw = contestant.raw()
                stack.callback(raw.close)
                lane = Lane(name=f"{contestant.name}, raw", task=raw_again(raw, 1))
                entrants.append(Entrant(lane=lane, contestant=lane.name, role=Role.RAW))
            rounds = self._rounds(f"{LENGTH}, {contestant.name}", [entrant.lane for entrant in entrants], pace)
            yield from results(LENGTH, title, entrants, rounds, complete=self.complete)
            yield from growth(contestant.name, entrants[: len(lengths)], rounds, complete=self.complete)

    def _queue(self, contestant: Contestant, runner: Runner, length: int) -> Entrant:
        name = f"{contestant.name}, {length:,} queued"
        task = claim(runner, 1, length=length, told=lambda done: self.progress(f"filling: {name}", done, length))
        against = f"{contestant.name}, raw" if contestant.raw else None
        lane = Lane(name=name, task=task)
        return Entrant(lane=lane, contestant=contestant.name, role=Role.RUNNER, against=against, length=length)

    def _rounds(self, what: str, lanes: Sequence[Lane], pace: Pace) -> list[Round]:
        """The rounds that were completed; fewer than the pace asks for if Ctrl-C was pressed."""
        rounds: list[Round] = []
        try:
            self.progress(what, 0, pace.rounds)
            for each in interleave(lanes, pace):
                rounds.append(each)
                self.progress(what, len(rounds), pace.rounds)
        except KeyboardInterrupt:
            self.complete = False
        return rounds

    def _footprint(self, contestant: Contestant) -> Iterator[Row]:
        points: list[Point] = []
        try:
            for point in measured(contestant.fresh(), self.plan.checkins):
                points.append(point)
                self.progress(f"{FOOTPRINT}, {contestant.name}", point.done, self.plan.checkins)
        except KeyboardInterrupt:
            self.complete = False
        if points:
            yield Footprint(
                contestant=contestant.name,
                asked=self.plan.checkins,
                points=tuple(points),
                inside=contestant.inside,
                complete=self.complete,
            )


def _entrant(
    measure: Measure, name: str, role: Role, task: Task, *, against: str | None = None, note: str = ""
) -> Entrant:
    batch = 1 if role is Role.PEER else measure.batch
    lane = Lane(name=name, task=task, batch=batch, threads=measure.threads)
    return Entrant(lane=lane, contestant=name, role=role, against=against, note=note)


def results(
    measure: str, title: str, entrants: Sequence[Entrant], rounds: Sequence[Round], *, complete: bool = True
) -> Iterator[Result]:
    """What the rounds say about each entrant; nothing if there is no complete round."""
    rates = _rates(entrants, rounds)
    for entrant in entrants if rounds else ():
        lane = entrant.lane
        latencies = sorted(ns for each in rounds for ns in each[lane.name].latencies)
        yield Result(
            measure=measure,
            title=title,
            contestant=entrant.contestant,
            role=entrant.role,
            batch=lane.batch,
            threads=lane.threads,
            length=entrant.length,
            rounds=len(rounds),
            calls=len(latencies),
            rate=Spread.of(rates[lane.name]),
            p50_us=percentile(latencies, 50) / 1_000,
            p99_us=percentile(latencies, 99) / 1_000,
            against=entrant.against,
            ratio=ratios(rates[lane.name], rates[entrant.against]) if entrant.against else None,
            note=entrant.note,
            complete=complete,
        )


def growth(
    contestant: str, queues: Sequence[Entrant], rounds: Sequence[Round], *, complete: bool = True
) -> Iterator[Growth]:
    """How the cost of a claim grew from the shortest of the queues to the longest."""
    if not rounds:
        return
    shortest, longest = queues[0], queues[-1]
    rates = _rates(queues, rounds)
    yield Growth(
        measure=LENGTH,
        contestant=contestant,
        shortest=shortest.length or 0,
        longest=longest.length or 0,
        factor=ratios(rates[shortest.lane.name], rates[longest.lane.name]),
        complete=complete,
    )


def _rates(entrants: Sequence[Entrant], rounds: Sequence[Round]) -> Mapping[str, list[float]]:
    return {entrant.lane.name: [each[entrant.lane.name].rate for each in rounds] for entrant in entrants}
