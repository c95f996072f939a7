"""The profiles of the job server: healthy stores hold them, and stores with a planted bug do not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis_support import ClockedRedisStore, shared_url
from servers_support import ClockedHarness

from onceward.conformance import Harness, MemoryHarness, Verdict, trial
from onceward.conformance.harness import SqliteHarness
from onceward.conformance.suite import run_property
from onceward.contracts import CheckOut, Claim, ConfigDoc, ConfigWrite, Purge, Run, Runner, RunSpec
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore

PROPERTIES = ("scheduler.occurrences", "worker.model")


@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
@pytest.mark.parametrize("identity", PROPERTIES)
def test_a_healthy_store_holds(store: str, identity: str, tmp_path: Path) -> None:
    harness: Harness = MemoryHarness()
    if store == "sqlite":
        harness = SqliteHarness(tmp_path / "engine.db")
    elif store == "redis":
        harness = ClockedHarness(shared_url(), ClockedRedisStore)
    result = run_property(harness, identity, budget=timedelta(seconds=1), seed=3)
    assert result.verdict is Verdict.HOLDS, result
    assert result.faults, "servers died on the way"


class ForgetsRuns(MemoryStore):
    """An ended run's key may be submitted again, as where completed jobs are removed at once."""

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        self.purge(Purge(older_than=timedelta(0)))
        return super().submit(specs)


class LastWriteWins(MemoryStore):
    """Configurations are written whatever their version."""

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        found = self.read_config(write.name)
        return super().write_config(replace(write, expected_version=0 if found is None else found.version))


class NoFence(MemoryStore):
    """A check-out counts whoever sends it: with the newest token in place of its own."""

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        newest = [(each, self.check(each.run)) for each in checkouts]
        return super().checkout(
            [each if run is None or run.lease is None else replace(each, lease=run.lease) for each, run in newest]
        )


class NoLimit(MemoryStore):
    """Limits of the namespace are not looked at."""

    def claim(self, request: Claim) -> Sequence[Run]:
        wants = tuple(replace(want, max_running=None) for want in request.wants or ())
        return super().claim(replace(request, wants=wants))


class LosesReleased(MemoryStore):
    """What is given back, or retried, is not recorded."""

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        kept = [each for each in checkouts if each.ending.value not in ("released", "retry")]
        super().checkout(kept)
        return [True] * len(checkouts)


@pytest.mark.parametrize(
    ("bug", "identity", "guarantees"),
    [
        (ForgetsRuns, "scheduler.occurrences", {"G10", "G11"}),
        (LastWriteWins, "scheduler.occurrences", {"G10", "G11"}),
        (NoFence, "worker.model", {"G4", "G6", "J6", "G17"}),
        (NoLimit, "worker.model", {"G12"}),
        (LosesReleased, "worker.model", {"G17", "G6", "J6"}),
    ],
)
def test_a_planted_bug_is_caught(
    bug: type[MemoryStore], identity: str, guarantees: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SHRINKING", timedelta(seconds=0.5))

    class Broken(MemoryHarness):
        def runner(self, clock: ManualClock | None) -> Runner:
            return Runner.of(bug("n", clock=clock), namespace="n").open()

    result = run_property(Broken(), identity, budget=timedelta(seconds=2), seed=3)
    assert result.verdict is Verdict.VIOLATED, result
    assert result.violation is not None
    assert result.violation.guarantee in guarantees
