"""What the soak's store and journal say together: was every promise kept? Pure: data in, problems out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from onceward.conformance.engine.effects import Body
from onceward.conformance.engine.jobs import CLUSTER_LIMIT, IN_PROCESS, SWIFT
from onceward.contracts import Run, Status
from onceward.contracts.records import Record
from onceward.toolkit.jobs.launch import nominal_time

_FAILS = ("Hopeless", "Fatal")
#: How often runs of a job fail in all, crashes not counted.
_FAILURES = {"Hopeless": SWIFT.attempts, "Fatal": 1, "Failing": 2}
_MOST_SHOWN = 10


class Ends(Record, frozen=True, kw_only=True):
    """What happened to server processes, on the clock of the journal.

    Attributes:
        died: when each of those that died or were killed was seen to be gone, by pid.
        paused: pids of those that were stopped for a while: their bodies may run on stale leases when they wake.
    """

    died: Mapping[int, float]
    paused: frozenset[int]


class Judged(Record, frozen=True, kw_only=True):
    """The verdict.

    Attributes:
        problems: promises that were broken, with their ids; empty: all were kept.
        bodies: how many bodies began.
        takeovers: runs that were taken over from a server that died.
        starved: bodies whose lease ran out although their server lived: the machine was too slow to renew it.
    """

    problems: tuple[str, ...]
    runs: int
    bodies: int
    takeovers: int
    starved: int


def judge(runs: Sequence[Run], bodies: Sequence[Body], ends: Ends) -> Judged:
    """All that was promised, looked at."""
    by_run: dict[tuple[str, str], list[Body]] = defaultdict(list)
    for body in bodies:
        by_run[body.run].append(body)
    starved = [body for body in bodies if body.end is not None and body.end.lost and body.begin.pid not in ends.paused]
    problems = [
        *_ended(runs, by_run),
        *_tokens(by_run),
        *_overlaps(by_run, ends),
        *_limits(bodies, ends),
        *_order(runs, bodies),
        *_occurrences(runs),
    ]
    return Judged(
        problems=tuple(problems),
        runs=len(runs),
        bodies=len(bodies),
        takeovers=sum(run.crashes for run in runs),
        starved=len(starved),
    )


def _ended(runs: Sequence[Run], by_run: Mapping[tuple[str, str], list[Body]]) -> Iterable[str]:
    """Every run ended, once, as its job says; and what was recorded is what a body did."""
    for run in runs:
        right = Status.FAILED if run.job in _FAILS else Status.SUCCEEDED
        if run.status is not right:
            yield f"J6: {run.id} is {run.status}, not {right}"
        ran = by_run.get((run.job, run.key), [])
        last = [body for body in ran if body.begin.token == run.token]
        if len(last) != 1:
            yield f"G6: {run.id} ended with token {run.token}, which {len(last)} bodies had"
        expected = _FAILURES.get(run.job)
        if expected is not None and run.failures != expected:
            yield f"retry law: {run.id} failed {run.failures} times, not {expected}"


def _tokens(by_run: Mapping[tuple[str, str], list[Body]]) -> Iterable[str]:
    """G1, G2: each attempt began once, and tokens increase with attempts."""
    for run, ran in by_run.items():
        known = sorted((body.begin.attempt, body.begin.token) for body in ran)
        if len({attempt for attempt, _ in known}) != len(known):
            yield f"G1: an attempt of {run} began twice: {known}"
        if any(later[1] <= earlier[1] for earlier, later in pairwise(known)):
            yield f"G2: tokens of {run} do not increase: {known}"


def _overlaps(by_run: Mapping[tuple[str, str], list[Body]], ends: Ends) -> Iterable[str]:
    """G3, G9: nobody begins a run while another body of it goes on whose server lives and was never stopped."""
    for run, ran in by_run.items():
        for earlier, later in pairwise(ran):
            if earlier.begin.pid in ends.paused or (earlier.end is not None and earlier.end.lost):
                continue
            over = _over(earlier, ends)
            if over is None or later.begin.at < over:
                yield f"G9: {run} began again as attempt {later.begin.attempt} while {earlier.begin.attempt} went on"


def _limits(bodies: Sequence[Body], ends: Ends) -> Iterable[str]:
    """G12: limits of the namespace and of each process, at each moment."""
    steps: list[tuple[float, int, Body]] = []
    for body in bodies:
        over = _over(body, ends)
        if body.begin.pid in ends.paused or over is None or (body.end is not None and body.end.lost):
            continue
        if over > body.begin.at:
            steps += [(body.begin.at, 1, body), (over, -1, body)]
    limits = {"Limited": CLUSTER_LIMIT, "Ordered": 1}
    running: dict[str, list[Body]] = defaultdict(list)
    here: Counter[tuple[int, str]] = Counter()
    for _, change, body in sorted(steps, key=lambda step: (step[0], step[1])):
        job, pid = body.begin.job, body.begin.pid
        here[pid, job] += change
        if change < 0:
            running[job].remove(body)
            continue
        running[job].append(body)
        if len(running[job]) > limits.get(job, len(bodies)):
            went = ", ".join(_told(each, ends) for each in running[job])
            yield f"G12: {len(running[job])} runs of {job} at once: {went}"
        if here[pid, job] > IN_PROCESS:
            yield f"G12: {here[pid, job]} runs of {job} at once in process {pid}"


def _order(runs: Sequence[Run], bodies: Sequence[Body]) -> Iterable[str]:
    """G13: runs of one job that were all due began by priority, then by submission."""
    wanted = sorted((run for run in runs if run.job == "Ordered"), key=lambda run: (-run.priority, run.sequence))
    began = list(dict.fromkeys(body.begin.key for body in bodies if body.begin.job == "Ordered"))
    for right, found in zip(wanted, began, strict=False):
        if right.key != found:
            yield f"G13: Ordered/{found} began when it was Ordered/{right.key}'s turn, whose attempts {_history(right)}"
            return


def _history(run: Run) -> str:
    """How a run's attempts went, for the reader of a problem."""
    return ", ".join(f"#{each.number} began {each.started:%H:%M:%S.%f}: {each.ending}" for each in run.attempts)


def _occurrences(runs: Sequence[Run]) -> Iterable[str]:
    """G10: each occurrence made one run, and none between the first and the last is missing."""
    times = sorted(at for run in runs if run.job == "Ticking" and (at := nominal_time(run.key)) is not None)
    for earlier, later in pairwise(times):
        if (later - earlier).total_seconds() != 1:
            yield f"G10: no occurrence between {earlier} and {later}"


def _over(body: Body, ends: Ends) -> float | None:
    """When the body was over: its end, or that of its process; None: nobody knows."""
    return body.end.at if body.end is not None else ends.died.get(body.begin.pid)


def _told(body: Body, ends: Ends) -> str:
    """One body, for the reader of a problem; times in seconds on the journal's clock."""
    begin, over = body.begin, _over(body, ends)
    end = "goes on" if over is None else f"{over:.3f}{'' if body.end is not None else ' with its process'}"
    return f"{begin.key} #{begin.attempt} token {begin.token} in process {begin.pid} from {begin.at:.3f} to {end}"


def shown(problems: Sequence[str]) -> list[str]:
    """The first problems, and how many more there are."""
    rest = len(problems) - _MOST_SHOWN
    return [*problems[:_MOST_SHOWN], *([f"... and {rest} more"] if rest > 0 else [])]
