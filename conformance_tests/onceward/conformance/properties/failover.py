"""Servers are lost while clients are at work: what was acknowledged stays, and clients find whoever leads next."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

from onceward.conformance.clients import Cast, Episode, run_threads
from onceward.conformance.faults.servers import Deed, ServerNemesis
from onceward.conformance.harness import Harness
from onceward.conformance.history import Kind, Op, Outcome
from onceward.conformance.properties.histories import accuse, drain, final_records, judged, no_problems
from onceward.conformance.property import Experiment, Property
from onceward.conformance.recorder import ListRecorder
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun, Violated
from onceward.contracts import Ending, Failover, RunId, Runner, Status, Traits

CLIENTS = 6
#: Until all deeds are done; the pace keeps histories short enough to be judged.
STEPS, PACE = 10**9, 0.02
#: What must hold whoever leads. Not among it: that refusals are justified (L6), since a new leader may let leases last
#: longer than they were asked for, which costs waiting and nothing else.
SAFETY = frozenset({"G1", "G2", "G3", "G4", "G6", "G12", "C2", "C3", "L4", "L7"})
LEADERS = (Deed.KILL_LEADER, Deed.PAUSE_LEADER, Deed.ROLLING_RESTART)
RESTARTS = (Deed.KILL_ALL,)
FOLLOWING = (Deed.KILL_FOLLOWER, Deed.PAUSE_FOLLOWER)


def soak(workload: str, deeds: Sequence[Deed], *, limited: bool = False) -> Experiment:
    """An experiment: clients play ``workload`` until all deeds are done, in an order that the seed decides."""

    def experiment(trial: Trial) -> None:
        trial.begin_case()
        with trial.harness.timed_runner() as runner:
            episode = _played(trial, runner, workload, deeds)
            no_problems(trial, episode)
            _judge(trial, episode, limited=limited)
        with _reopened(trial.harness, runner) as runner:
            if workload == "queue":
                drain(trial, runner, episode, _lease(trial.traits))
            if workload == "checkin":
                final_records(trial, runner, episode)

    return experiment


def restarts(trial: Trial) -> None:
    """Check-ins and locks go on after all servers were killed at once."""
    for workload in ("checkin", "lock"):
        soak(workload, RESTARTS)(trial)


def _lease(traits: Traits) -> timedelta:
    """Ends while nobody leads, and now and then without that."""
    return max(traits.min_lease, traits.lease_granularity, timedelta(milliseconds=300))


def _played(trial: Trial, runner: Runner, workload: str, deeds: Sequence[Deed]) -> Episode:
    cluster = trial.harness.cluster()
    if cluster is None:
        raise CouldNotRun("the harness has no cluster() whose servers it may disturb")
    order = random.Random(f"servers/{trial.seed}").sample(deeds, len(deeds))
    cast = Cast(workload=workload, clients=CLIENTS, steps=STEPS, lease=_lease(trial.traits), seed=trial.seed, pace=PACE)

    def torment(recorders: Sequence[ListRecorder]) -> None:
        nemesis = ServerNemesis(cluster, lambda moment: all(each.answered > moment for each in recorders))
        try:
            nemesis.torment(order)
        except Violated as violation:
            raise trial.keep(violation) from None
        finally:
            trial.faults.update(nemesis.faults)
        trial.tally.add("A2", len(order))

    episode = run_threads(trial.harness, runner, cast, meanwhile=torment)
    trial.faults.update(episode.faults)
    trial.operations += len(episode.history)
    return episode


def _judge(trial: Trial, episode: Episode, *, limited: bool) -> None:
    """The checker finds nothing that no loss of a server excuses."""
    report = judged(trial, episode, limited=limited)
    for guarantee, times in report.evaluated.items():
        if guarantee in SAFETY:
            trial.tally.add(guarantee, times)
    findings = [finding for finding in report.findings if finding.guarantee in SAFETY]
    if findings:
        raise accuse(trial, min(findings, key=lambda finding: len(finding.evidence)), episode)


def _reopened(harness: Harness, runner: Runner) -> Runner:
    """A client that saw nothing of all that."""
    opening = harness.opening(runner)
    if opening is None:
        raise CouldNotRun("the harness has no opening() by which others reach the store")
    return opening.open()


def lossy_followers(trial: Trial) -> None:
    """The same, unless a leader is lost besides."""
    cluster = trial.harness.cluster()
    leader = None if cluster is None else cluster.leader()
    try:
        followers(trial)
    except Violated as violation:
        if cluster is not None and cluster.leader() is not leader:
            raise CouldNotRun("the servers changed their leader by themselves, which may lose writes") from violation
        raise


def lossy(trial: Trial, deeds: Sequence[Deed] = LEADERS) -> None:
    """Leaders are lost where that may lose writes: clients must go on, and only what was lost is counted."""
    trial.begin_case()
    with trial.harness.timed_runner() as runner:
        episode = _played(trial, runner, "checkin", deeds)
        no_problems(trial, episode)
    findings = {finding.guarantee for finding in judged(trial, episode).findings if finding.guarantee in SAFETY}
    with _reopened(trial.harness, runner) as runner:
        done, lost = _check_outs(runner, episode)
    broken = f"; broken by it: {', '.join(sorted(findings))}" if findings else ""
    trial.notes.append(
        f"of {done} acknowledged check-outs {lost} were lost{broken}; this store does not promise better"
    )


def _check_outs(runner: Runner, episode: Episode) -> tuple[int, int]:
    """How many check-outs were acknowledged as final, and how many of these are not what is recorded."""
    told = {
        op.own: op
        for op in episode.history
        if op.kind is Kind.CHECKOUT and op.ending == Ending.SUCCEEDED.value and op.outcome is Outcome.DONE
    }
    return len(told), sum(not _recorded(runner, op) for op in told.values())


def _recorded(runner: Runner, op: Op) -> bool:
    """The run has ended by this check-out, and not by that of somebody who was admitted once more."""
    run = runner.executor.check(RunId(*op.resource.split("/", 1)))
    return run is not None and run.status is Status.SUCCEEDED and run.attempts[-1].request == op.request


def followers(trial: Trial) -> None:
    """Neither check-ins nor locks notice that a follower is lost."""
    for workload in ("checkin", "lock"):
        soak(workload, FOLLOWING)(trial)


FOLLOWERS = Property(
    id="failover.followers",
    statement="The loss of a server that does not lead breaks no promise.",
    guarantees=("G1", "G2", "G3", "G4", "G6", "G16", "L4", "A2"),
    experiment=followers,
    failover=(Failover.SAFE,),
    weight=2.0,
)
CHECKIN = Property(
    id="failover.checkin",
    statement="Whichever server is lost: nobody is admitted twice, and no acknowledged check-out is lost.",
    guarantees=("G1", "G2", "G4", "G6", "G16", "A2"),
    experiment=soak("checkin", LEADERS),
    failover=(Failover.SAFE,),
    weight=3.0,
)
LOCK = Property(
    id="failover.lock",
    statement="Whichever server is lost: locks stay exclusive, tokens increase, and no guarded update is lost.",
    guarantees=("G2", "G3", "G4", "G16", "L4", "A2"),
    experiment=soak("lock", LEADERS),
    failover=(Failover.SAFE,),
    weight=3.0,
)
QUEUE = Property(
    id="failover.queue",
    statement="Whichever server is lost: what was submitted is worked off, each run by one at a time.",
    guarantees=("G1", "G2", "G6", "G16", "J6", "A2"),
    experiment=soak("queue", LEADERS, limited=True),
    failover=(Failover.SAFE,),
    weight=3.0,
)
LOSSY_FOLLOWERS = Property(
    id="lossy-failover.followers",
    statement=FOLLOWERS.statement,
    guarantees=FOLLOWERS.guarantees,
    experiment=lossy_followers,
    failover=(Failover.LOSSY,),
    weight=2.0,
)
LOSSY = Property(
    id="lossy-failover.leader",
    statement="When the leader is lost, clients go on with the next one, and are told no error but ours.",
    guarantees=("G16", "A2"),
    experiment=lossy,
    failover=(Failover.LOSSY,),
    weight=3.0,
)
RESTART = Property(
    id="restart.killed",
    statement="All servers are killed at once and started again: nothing that was acknowledged is lost.",
    guarantees=("G1", "G2", "G3", "G4", "G6", "G16", "L4", "A2"),
    experiment=restarts,
    needs=("durable",),
    failover=(Failover.SAFE, Failover.NONE),
    weight=2.0,
)
