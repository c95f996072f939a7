"""Locks, check-ins and claims under the message scheduler."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from onceward.conformance.faults.contest import Contest
from onceward.conformance.faults.runners import CheckIns, Claims, Locks
from onceward.conformance.faults.scheduler import Messages
from onceward.conformance.faults.shorten import shorten
from onceward.conformance.faults.stage import Stage
from onceward.conformance.harness import Harness
from onceward.conformance.machine import explore
from onceward.conformance.property import Experiment, Property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Violated


def scheduled(contest: Callable[[Harness], Contest], *, cases: int = 10, steps: int = 30) -> Experiment:
    """An experiment of so many cases on one stage; a failure is shrunk to its shortest form."""

    def experiment(trial: Trial) -> None:
        with ExitStack() as stack:
            made = contest(trial.harness)
            stack.callback(made.close)
            stage = stack.enter_context(Stage(made))
            try:
                explore(lambda trial: Messages(trial, stage), cases=cases, steps=steps, shrink=False)(trial)
            except Violated:
                shorten(trial, stage)
                assert trial.best is not None  # kept when it was found
                raise trial.best.violation from None

    return experiment


_PROMISED = ("G2", "G3", "G7", "G16", "L6", "O1")

LOCK = Property(
    id="lock.messages",
    statement="Whatever messages are lost, late or repeated: a lock request sent again has its first answer.",
    guarantees=(*_PROMISED, "G4", "L7"),
    experiment=scheduled(Locks),
    network=True,
    weight=1.5,
)
CHECKIN = Property(
    id="checkin.messages",
    statement="Whatever messages are lost, late or repeated: a check-in or check-out sent again counts once.",
    guarantees=(*_PROMISED, "G4"),
    experiment=scheduled(CheckIns),
    network=True,
    weight=1.5,
)
CLAIM = Property(
    id="queue.messages",
    statement="Whatever messages are lost, late or repeated: a claim sent again takes nothing more.",
    guarantees=(*_PROMISED, "G4"),
    experiment=scheduled(Claims),
    network=True,
    weight=1.5,
)
