"""The test of the suite: every runner with a planted bug is refused a certificate, and healthy ones get it.

The summary of a run says how many were caught. What a mutant stands for is told in ``mutants/``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest
from mutants import MUTANTS, Mutant  # pyright: ignore[reportMissingImports]

from onceward.conformance import trial
from onceward.conformance.certificate import Certificate, Result, Verdict
from onceward.conformance.harness import Harness, MemoryHarness, SqliteHarness
from onceward.conformance.profiles import PROFILES
from onceward.conformance.properties import watches
from onceward.conformance.suite import run_suite

ROUNDS = 20
"""Of each property, with the same seeds however slow the machine is; no mutant needs more than a third of them."""
HEALTHY_BUDGET = timedelta(seconds=15)
SEED = 4711


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is not made shorter, and a wake-up that is missed is not waited for so long."""
    monkeypatch.setattr(trial, "SHRINKING", timedelta(0))
    monkeypatch.setattr(watches, "PATIENCE", 2.0)


def examined(
    harness: Harness,
    profile: str,
    only: tuple[str, ...],
    *,
    budget: timedelta = timedelta.max,
    rounds: float = math.inf,
) -> Certificate:
    """The certificate of a run of these properties of the profile."""
    excused = {member.id: "another test" for member in PROFILES[profile] if member.id not in only}
    try:
        return run_suite(harness, profiles=[profile], budget=budget, rounds=rounds, seed=SEED, excused=excused)
    finally:
        harness.close()


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_mutant_is_caught(mutant: Mutant, record_property: Callable[[str, object], None]) -> None:
    record_property("mutant", mutant.name)
    certificate = examined(mutant.harness(), mutant.profile, mutant.caught_by, rounds=ROUNDS)
    violations = [result for result in certificate.results if result.verdict is Verdict.VIOLATED]
    assert violations, f"{mutant.name} was not caught: {mutant.bug}\n{verdicts(certificate)}"
    assert {result.id for result in violations} <= set(mutant.caught_by)
    assert certificate.exit_code == 1
    assert not certificate.conformant
    for result in violations:
        assert result.violation is not None
        assert result.violation.happened
        assert result.violation.guarantee


def verdicts(certificate: Certificate) -> str:
    """What became of each property that was run."""
    run = [result for result in certificate.results if result.verdict is not Verdict.EXCUSED]
    return "\n".join([f"{each.id}: {each.verdict.value} {each.reason}" for each in run] + [certificate.problem])


def properties_that_mutants_need() -> dict[str, tuple[str, ...]]:
    """Every property that some mutant is caught by, by profile."""
    wanted = {(mutant.profile, name) for mutant in MUTANTS for name in mutant.caught_by}
    return {profile: tuple(sorted(name for p, name in wanted if p == profile)) for profile, _ in sorted(wanted)}


HEALTHY = [
    (kind, profile)
    for kind in (MemoryHarness, SqliteHarness)
    for profile in properties_that_mutants_need()
    if not (kind is MemoryHarness and profile == "durable")
]


@pytest.mark.parametrize(("kind", "profile"), HEALTHY, ids=lambda each: getattr(each, "__name__", each))
def test_a_healthy_store_is_not_accused(kind: Callable[[], Harness], profile: str) -> None:
    certificate = examined(kind(), profile, properties_that_mutants_need()[profile], budget=HEALTHY_BUDGET)
    assert not certificate.violated, [(each.id, each.violation) for each in certificate.results if each.violation]
    run = [result for result in certificate.results if result.verdict is not Verdict.EXCUSED]
    assert [result.verdict for result in run] == [Verdict.HOLDS] * len(run), verdicts(certificate)
    assert all(executed(result) for result in run)


def executed(result: Result) -> bool:
    """Something was really looked at."""
    return result.executed > 0


def test_each_mutant_says_whose_bug_it_is_and_where_it_must_be_seen() -> None:
    assert len(MUTANTS) >= 20
    for mutant in MUTANTS:
        assert mutant.bug
        assert mutant.caught_by
        assert set(mutant.caught_by) <= {member.id for member in PROFILES[mutant.profile]}, mutant.name
