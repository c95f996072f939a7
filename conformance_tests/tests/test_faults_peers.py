"""The message scheduler finds what is wrong with other people's locks, in its shortest form, and passes ours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from peer_locks import PeerContest, PythonRedisLock, RedisPyLock
from redis_support import shared_url

from onceward.conformance.faults.contest import Contest
from onceward.conformance.faults.runners import Locks
from onceward.conformance.harness import UrlHarness
from onceward.conformance.properties.messages import scheduled
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Tally, Violated
from onceward.contracts import Traits

CASES = 60
_TRAITS = Traits(durable=False, shared=True)


def examine(contest: Callable[[], Contest], seed: int = 0, cases: int = CASES) -> Trial:
    """A round of the scheduler on that contest; what it found is in the trial."""
    trial = Trial(UrlHarness(shared_url()), _TRAITS, Tally(), seed=seed)
    with contextlib.suppress(Violated):
        scheduled(lambda _: contest(), cases=cases)(trial)
    return trial


@pytest.mark.parametrize("peer", [RedisPyLock, PythonRedisLock])
def test_a_peer_is_caught_and_the_history_is_short(peer: type[PeerContest]) -> None:
    trial = examine(lambda: peer(shared_url()))
    assert trial.best is not None, f"not caught in {trial.cases} cases"
    assert trial.best.violation.guarantee in ("L6", "L7", "G7")
    assert len(trial.best.history) <= 9, trial.best.history
    assert any(" is lost" in line or " is cut in half" in line for line in trial.best.history), trial.best.history


def test_ours_passes_the_same_cases() -> None:
    trial = examine(lambda: Locks(UrlHarness(shared_url())), cases=CASES)
    assert trial.best is None
    assert trial.cases >= CASES
    assert min(trial.tally.executions[name] for name in ("G3", "G4", "G7", "L6", "L7")) > 10
