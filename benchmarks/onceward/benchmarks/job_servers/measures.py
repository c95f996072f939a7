"""What is measured of whole job servers, store by store."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from onceward.benchmarks.contestants import Contestant
from onceward.benchmarks.job_servers.contest import Contest
from onceward.benchmarks.job_servers.rivals import Rival
from onceward.benchmarks.job_servers.service import PAUSE, Service, answers, latency
from onceward.benchmarks.measures.measure import raw_fresh
from onceward.benchmarks.records import (
    DRAIN,
    ENQUEUE,
    IDLE,
    LATENCY,
    SERVER_MEMORY,
    Footprint,
    Idle,
    Point,
    Result,
    Role,
    Row,
)
from onceward.benchmarks.stats import Spread, percentile, ratios

#: In the order of running; draining and queueing are of the same laps.
NAMES = (DRAIN, ENQUEUE, LATENCY, SERVER_MEMORY, IDLE)
_STARTS_PER_ROUND = 10


class Progress(Protocol):
    """Hears what is going on."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What to measure of job servers, and how much.

    Attributes:
        names: of the measures.
        rivals: other people's job servers in the same rounds.
        jobs: of a lap.
        rounds: laps of each job server.
        flow: jobs that go through one process while its memory is measured.
        idle_seconds: how long it is watched doing nothing.
    """

    names: Collection[str] = ()
    rivals: Sequence[Rival] = ()
    jobs: int = 10_000
    rounds: int = 5
    flow: int = 1_000_000
    idle_seconds: float = 10.0

    def parts(
        self, contestants: Sequence[Contestant], progress: Progress
    ) -> Iterator[tuple[str, Callable[[], Iterator[Row]]]]:
        """Each measure of each contestant, by name; Ctrl-C comes out of it after what was measured until then."""
        shared = [each for each in contestants if not each.inside]  # other processes cannot see the others' stores
        for each in shared if {DRAIN, ENQUEUE} & set(self.names) else ():
            yield DRAIN, partial(self._contest, each, progress)
        for each in shared if LATENCY in self.names else ():
            yield LATENCY, partial(self._latency, each, progress)
        # What a process takes does not depend on durability, so the last (quickest) of each kind will do.
        kinds = {each.kind: each for each in shared}
        for each in kinds.values() if SERVER_MEMORY in self.names else ():
            yield SERVER_MEMORY, partial(self._memory, each, progress)
        for each in kinds.values() if IDLE in self.names else ():
            yield IDLE, partial(self._idle, each, progress)

    def _contest(self, contestant: Contestant, progress: Progress) -> Iterator[Row]:
        what = f"{DRAIN}, {contestant.name}"
        progress(what, 0, self.rounds)
        contest = Contest(
            contestant=contestant,
            rivals=self.rivals,
            jobs=self.jobs,
            rounds=self.rounds,
            told=lambda done: progress(what, done, self.rounds),
        )
        for row in contest.run():
            if not isinstance(row, Result) or row.measure in self.names:
                yield row
        if not contest.complete:
            raise KeyboardInterrupt

    def _latency(self, contestant: Contestant, progress: Progress) -> Iterator[Row]:
        """From the submission of a job to its start in an idle server, with round trips of the raw driver between."""
        starts: list[list[int]] = []
        trips: list[list[int]] = []
        rounds = 3 * self.rounds
        with ExitStack() as stack:
            service = stack.enter_context(Service(contestant.fresh()))
            trip = None
            if contestant.raw:
                raw = contestant.raw()
                stack.callback(raw.close)
                trip = raw_fresh(raw, 1).step
            for number in range(-1, rounds):
                progress(f"{LATENCY}, {contestant.name}", max(0, number), rounds)
                some = [latency(service) for _ in range(_STARTS_PER_ROUND)]
                bare = [_timed(trip, number * _STARTS_PER_ROUND + each) for each in range(_STARTS_PER_ROUND) if trip]
                if number >= 0:  # the round before the first warms up
                    starts.append(some)
                    trips.append(bare)
        raw_name = f"{contestant.name}, raw"
        raw_rates = _rates(trips) if trip else None
        yield _result(contestant.name, Role.RUNNER, starts, against=raw_name if trip else None, base=raw_rates)
        if trip:
            yield _result(raw_name, Role.RAW, trips)

    def _memory(self, contestant: Contestant, progress: Progress) -> Iterator[Row]:
        points: list[Point] = []
        interrupted = False
        try:
            for done, size in answers(contestant.fresh(), "grow", self.flow):
                points.append(Point(int(done), int(size)))
                progress(f"{SERVER_MEMORY}, {contestant.name}", int(done), self.flow)
        except KeyboardInterrupt:
            interrupted = True
        if points:
            yield Footprint(
                contestant=contestant.name,
                asked=self.flow,
                points=tuple(points),
                inside=contestant.inside,
                what="jobs",
                complete=not interrupted,
            )
        if interrupted:
            raise KeyboardInterrupt

    def _idle(self, contestant: Contestant, progress: Progress) -> Iterator[Row]:
        progress(f"{IDLE}, {contestant.name}", 0, 1)
        for seconds, cpu in answers(contestant.fresh(), "idle", self.idle_seconds):
            yield Idle(contestant=contestant.name, seconds=seconds, cpu=cpu)


def _timed(trip: Callable[[int], object], index: int) -> int:
    """Nanoseconds of one round trip of the raw driver, on a machine that has been as idle as before a submission."""
    time.sleep(PAUSE)
    began = time.perf_counter_ns()
    trip(index)
    return time.perf_counter_ns() - began


def _rates(rounds: Sequence[Sequence[int]]) -> list[float]:
    """Per second, by the median of each round."""
    return [1e9 / percentile(sorted(each), 50) for each in rounds]


def _result(
    name: str,
    role: Role,
    rounds: Sequence[Sequence[int]],
    *,
    against: str | None = None,
    base: Sequence[float] | None = None,
) -> Result:
    every = sorted(ns for each in rounds for ns in each)
    rates = _rates(rounds)
    return Result(
        measure=LATENCY,
        title="from submission to start, in an idle job server",
        contestant=name,
        role=role,
        batch=1,
        threads=1,
        rounds=len(rounds),
        calls=len(every),
        rate=Spread.of(rates),
        p50_us=percentile(every, 50) / 1_000,
        p99_us=percentile(every, 99) / 1_000,
        against=against,
        ratio=None if base is None else ratios(rates, base),
    )
