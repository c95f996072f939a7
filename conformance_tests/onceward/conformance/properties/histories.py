"""Concurrent histories: threads always, processes where the store is shared; then the checker, then the final state."""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from onceward.conformance.checker import Finding, Judgement, Report, judge
from onceward.conformance.clients import Cast, Episode, run_processes, run_threads
from onceward.conformance.diagram import lanes, lines, shown
from onceward.conformance.faults.soak import disturbed
from onceward.conformance.harness import Harness
from onceward.conformance.history import Kind, Outcome
from onceward.conformance.nemesis import Nemesis
from onceward.conformance.property import Experiment, Property
from onceward.conformance.recorder import ListRecorder
from onceward.conformance.register import ThreadRegister
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun, OutOfTime, Violated
from onceward.conformance.workloads import JOB, MAX_RUNNING, Worker
from onceward.contracts import CheckOut, Claim, Ending, RunId, Runner, RunQuery, RunSpec, Status, Traits

THREADS, THREAD_STEPS = 6, 24
PROCESSES, PROCESS_STEPS = 4, 30
JUDGING = timedelta(seconds=30)


def lease_for(traits: Traits, *, processes: bool) -> timedelta:
    """As short as the store allows, so that many leases lapse; longer for processes, which may have to share a core."""
    shortest = max(traits.min_lease, traits.lease_granularity)
    return max(shortest, timedelta(milliseconds=250 if processes else 120))


def history(workload: str, *, limited: bool = False, ordered: bool = False) -> Experiment:
    """An experiment: one history of threads, and one of processes where the store is shared."""

    def experiment(trial: Trial) -> None:
        _episode(trial, workload, processes=False, limited=limited, ordered=ordered)
        if trial.traits.shared:
            _episode(trial, workload, processes=True, limited=limited, ordered=ordered)

    return experiment


def _episode(trial: Trial, workload: str, *, processes: bool, limited: bool, ordered: bool) -> None:
    trial.begin_case()
    runner = trial.harness.timed_runner()
    lease = lease_for(trial.traits, processes=processes)
    cast = Cast(
        workload=workload,
        clients=PROCESSES if processes else THREADS,
        steps=PROCESS_STEPS if processes else THREAD_STEPS,
        lease=lease,
        seed=trial.seed,
    )
    try:
        before = _backlog(trial, runner, lease) if ordered else None
        with disturbed(trial, runner.namespace, lease) as (harness, begin):
            play = _in_processes if processes else _in_threads
            episode = play(harness, runner, cast, begin)
        if before is not None:
            episode.history[:0] = before.history
        trial.faults.update(episode.faults)
        trial.operations += len(episode.history)
        no_problems(trial, episode)
        _judge(trial, episode, limited=limited, ordered=ordered)
        if workload in ("queue", "backlog"):
            drain(trial, runner, episode, lease)
        if workload == "checkin":
            final_records(trial, runner, episode)
    finally:
        runner.close()


def _in_threads(harness: Harness, runner: Runner, cast: Cast, begin: Callable[[], None]) -> Episode:
    opening = harness.opening(runner)
    first = runner if opening is None else opening.open()
    try:
        return run_threads(harness, first, cast, begin=begin)
    finally:
        if first is not runner:
            first.close()


def _in_processes(harness: Harness, runner: Runner, cast: Cast, begin: Callable[[], None]) -> Episode:
    opening = harness.opening(runner)
    if opening is None:
        raise CouldNotRun("the store says that processes may share it, but the harness has no opening() for them")
    with tempfile.TemporaryDirectory(prefix="onceward-clients-") as folder:
        nemesis = Nemesis(cast.seed, kills=cast.clients // 2, pauses=2)
        return run_processes(opening, cast, Path(folder), nemesis, begin=begin)


def no_problems(trial: Trial, episode: Episode) -> None:
    """No client saw an error that must not come out."""
    trial.tally.add("G16")
    for problem in episode.problems[:1]:
        guarantee, _, message = problem.partition("|")
        raise trial.keep(Violated(guarantee, message))


def judged(trial: Trial, episode: Episode, *, limited: bool = False, ordered: bool = False) -> Report:
    """What the checker says of the history.

    Raises:
        OutOfTime: it was too long for it.
    """
    traits = trial.traits
    slack = (traits.expiry_slack + traits.lease_granularity + timedelta(milliseconds=2)).total_seconds()
    report = judge(
        episode.history,
        slack=slack,
        limits={JOB: MAX_RUNNING} if limited else None,
        ordered=ordered,
        until=time.monotonic() + JUDGING.total_seconds(),
    )
    if report.judgement is Judgement.OUT_OF_TIME:
        trial.notes.append(f"a history of {len(episode.history)} operations was not judged in time")
        raise OutOfTime
    return report


def _judge(trial: Trial, episode: Episode, *, limited: bool, ordered: bool) -> None:
    """The checker holds the history for possible."""
    report = judged(trial, episode, limited=limited, ordered=ordered)
    for guarantee, times in report.evaluated.items():
        trial.tally.add(guarantee, times)
    if report.findings:
        raise accuse(trial, min(report.findings, key=lambda finding: len(finding.evidence)), episode)


def accuse(trial: Trial, finding: Finding, episode: Episode) -> Violated:
    """The violation, with the part of the history that shows it."""
    ops = shown(finding.evidence, episode.history)
    trial.log = list(lines(ops))
    return trial.keep(Violated(finding.guarantee, f"{finding.resource}: {finding.message}"), diagram=lanes(ops))


def _backlog(trial: Trial, runner: Runner, lease: timedelta) -> Episode:
    """Runs of random priority wait before the first claim."""
    rng = random.Random(f"backlog/{trial.seed}")
    recorder = ListRecorder()
    worker = _worker(runner, "producer", recorder, lease)
    specs = [
        RunSpec(id=RunId(JOB, f"b{number}"), priority=rng.choice((-5, 0, 0, 7)), request=worker.request())
        for number in range(120)
    ]
    for start in range(0, len(specs), 20):
        worker.submit(specs[start : start + 20])
    episode = Episode()
    episode.take(recorder)
    return episode


def _worker(runner: Runner, client: str, recorder: ListRecorder, lease: timedelta) -> Worker:
    return Worker(
        runner=runner, client=client, recorder=recorder, register=ThreadRegister(), seed=0, steps=0, lease=lease
    )


def drain(trial: Trial, runner: Runner, episode: Episode, lease: timedelta) -> None:
    """After the clients are gone, all that was submitted can be worked off: nothing was lost.

    That may take as long as it takes, on a busy machine; lost is what nobody gets while everything has lapsed long ago.
    """
    submitted = {op.resource for op in episode.history if op.kind is Kind.SUBMIT and op.outcome is Outcome.DONE}
    patience = 20 * lease.total_seconds() + 10
    until, got = time.monotonic() + patience, set[RunId]()
    try:
        while time.monotonic() < until:
            request = Claim(holder="janitor", lease=timedelta(seconds=30), limit=100)
            runs = runner.executor.claim(request)
            if runs:
                leases = [run.lease for run in runs if run.lease is not None]
                runner.executor.checkout([CheckOut.succeeded(lease) for lease in leases])
                if not got.issuperset(run.id for run in runs):  # it goes on
                    until = time.monotonic() + patience
                got.update(run.id for run in runs)
            elif not runner.lifecycle.runs(RunQuery(statuses=frozenset({Status.SCHEDULED, Status.RUNNING}), limit=1)):
                break
            else:
                time.sleep(lease.total_seconds() / 10)
        ended = _ended(runner)
    except Exception as error:
        raise trial.blame(error, "working off what was left") from error
    lost = sorted(submitted - ended)
    trial.expect("J6", not lost, lambda: f"{len(lost)} submitted runs never ended, for example {lost[:3]}")


def _ended(runner: Runner) -> set[str]:
    statuses = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})
    return {str(run.id) for run in runner.lifecycle.runs(RunQuery(job=JOB, statuses=statuses, limit=100_000))}


def final_records(trial: Trial, runner: Runner, episode: Episode) -> None:
    """What is recorded in the end is what clients were told."""
    final: dict[str, list[str]] = defaultdict(list)
    open_ended: set[str] = set()
    for op in episode.history:
        if op.kind is Kind.CHECKOUT and op.ending == Ending.SUCCEEDED.value:
            if op.outcome is Outcome.DONE:
                final[op.resource].append(op.client)
            elif op.outcome is Outcome.UNKNOWN:
                open_ended.add(op.resource)
    for resource in sorted({op.resource for op in episode.history if op.kind is Kind.CHECKIN}):
        job, _, key = resource.partition("/")
        try:
            run = runner.executor.check(RunId(job, key))
        except Exception as error:
            raise trial.blame(error, f"check({resource})") from error
        done = run is not None and run.status is Status.SUCCEEDED
        if resource not in open_ended:
            told = bool(final[resource])
            trial.expect("G6", done is told, lambda r=resource, t=told, f=run: f"{r}: told {t}, recorded {f}")  # type: ignore[misc]


CHECKIN = Property(
    id="checkin.history",
    statement="Clients that run at the same time, come late, repeat themselves and die are never admitted twice.",
    guarantees=("G1", "G2", "G3", "G4", "G6", "C2", "C3", "L6"),
    experiment=history("checkin"),
    weight=1.5,
)
LOCK = Property(
    id="lock.history",
    statement="Clients that run at the same time never hold a lock together, and no guarded update is lost.",
    guarantees=("G2", "G3", "G4", "L4", "L6"),
    experiment=history("lock"),
    weight=1.5,
)
QUEUE = Property(
    id="queue.history",
    statement="Clients that claim at the same time share the work without overlap, within the limit, losing nothing.",
    guarantees=("G1", "G2", "G4", "G6", "G12", "J6"),
    experiment=history("queue", limited=True),
    weight=1.5,
)
ORDER = Property(
    id="queue.order",
    statement="Claims that do not overlap in time take the runs in their order.",
    guarantees=("G1", "G13", "J6"),
    experiment=history("backlog", ordered=True),
)
