"""The suite as a whole: determinism by seed, no vacuous pass, what certificates and reports say, exit codes."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from onceward.conformance import Certificate, Harness, MemoryHarness, Verdict, load_target, run_suite, text_report
from onceward.conformance import profiles as all_profiles
from onceward.conformance.certificate import Result
from onceward.conformance.harness import UrlHarness, harness_for_url, without_password
from onceward.conformance.properties import checkin, histories, queue
from onceward.conformance.properties import locks as lock_properties
from onceward.conformance.property import STATEMENTS, Property
from onceward.conformance.suite import run_property
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Tally, Violated
from onceward.contracts import (
    Admission,
    CheckIn,
    CheckInOutcome,
    InvalidRequest,
    LockAnswer,
    LockRequest,
    Runner,
    StoreMisconfigured,
    StoreUnavailable,
    Traits,
)
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore

SHORT = timedelta(seconds=0.1)


class Broken(MemoryHarness):
    """A harness of a broken store in memory."""

    store: type[MemoryStore] = MemoryStore

    def runner(self, clock: ManualClock | None) -> Runner:
        return Runner.of(self.store("n", clock=clock), namespace="n").open()


class AdmitsAll(MemoryStore):
    """Tells everybody that they may run."""

    def checkin(self, request: CheckIn) -> Admission:
        answer = super().checkin(request)
        return msgspec.structs.replace(answer, outcome=CheckInOutcome.ADMITTED)


class AdmitsAllHarness(Broken):
    store = AdmitsAll


class Leaky(MemoryStore):
    """Lets an error of its driver out."""

    def lock(self, request: LockRequest) -> LockAnswer:
        raise KeyError("a driver's own error")


class LeakyHarness(Broken):
    store = Leaky


class Gone(MemoryStore):
    """Cannot be reached."""

    def open(self) -> None:
        raise StoreUnavailable("connection refused")


class GoneHarness(Broken):
    store = Gone


class Boastful(MemoryStore):
    """Claims more than it does."""

    @property
    def traits(self) -> Traits:
        return msgspec.structs.replace(super().traits, durable=True, max_payload_bytes=64 * 1024 * 1024)


class BoastfulHarness(Broken):
    store = Boastful


def log_of(experiment: Property, seed: int) -> list[list[str]]:
    """Every case of a round, as its history."""
    logs: list[list[str]] = []
    harness = MemoryHarness()
    trial = Trial(harness, Traits(durable=False, shared=False), Tally(), seed=seed)
    trial.tick = lambda: logs.append(trial.log)
    experiment.experiment(trial)
    return logs


@pytest.mark.parametrize("member", [checkin.MODEL, lock_properties.MODEL, queue.MODEL], ids=lambda member: member.id)
def test_the_same_seed_makes_the_same_cases(member: Property) -> None:
    first, second, other = log_of(member, 3), log_of(member, 3), log_of(member, 4)
    assert first == second
    assert first != other
    assert sum(map(len, first)) > 100


def test_a_number_of_rounds_makes_the_same_cases_however_long_they_take() -> None:
    excused = {member.id: "another test" for member in all_profiles.PROFILES["lock"] if member.id != "lock.model"}
    once, again = (
        run_suite(MemoryHarness(), profiles=["lock"], budget=timedelta.max, rounds=2, seed=3, excused=excused).results
        for _ in range(2)
    )
    for first, second in zip(once, again, strict=True):
        assert (first.rounds, first.cases, first.operations) == (second.rounds, second.cases, second.operations)
    assert {result.rounds for result in once} == {0, 2}


def test_memory_conforms_with_a_small_budget_and_every_promise_was_evaluated(tmp_path: Path) -> None:
    seen: dict[str, float] = {}
    certificate = run_suite(
        MemoryHarness(), budget=SHORT, seed=1, out=tmp_path, progress=lambda name, part: seen.update({name: part})
    )
    assert {result.id: result.reason for result in certificate.results if result.reason} == {}
    assert certificate.profiles == dict.fromkeys(("checkin", "lock", "queue", "scheduler", "worker"), True)
    assert certificate.conformant
    assert certificate.exit_code == 0
    for result in certificate.results:
        assert result.verdict is Verdict.HOLDS
        assert result.cases > 0
        assert seen[result.id] == 1.0
        for guarantee in member(result.id).guarantees:
            assert result.executions[guarantee] > 0
    assert certificate.faults["client object dropped (crash simulated)"] > 0
    assert "declared only" in certificate.probed["failover"]


def member(identity: str) -> Property:
    """The property with this id."""
    return next(each for each in all_profiles.properties_of(tuple(all_profiles.PROFILES)) if each.id == identity)


def test_the_certificate_says_what_was_run_and_can_be_read_again(tmp_path: Path) -> None:
    certificate = run_suite(MemoryHarness(), profiles=["lock"], budget=SHORT, seed=5, out=tmp_path)
    plain = json.loads((tmp_path / "certificate.json").read_text())
    assert plain["suite_version"]
    assert plain["seed"] == 5
    assert plain["target"] == "memory://"
    assert plain["conformant"] is True
    assert plain["exit_code"] == 0
    assert plain["traits"]["shared"] is False
    assert plain["python"]
    assert plain["platform"]
    assert plain["store"]["store"] == "memory"
    assert msgspec.convert(plain, Certificate) == msgspec.convert(msgspec.to_builtins(certificate), Certificate)
    text = (tmp_path / "report.txt").read_text()
    assert "conformant: lock" in text
    for result in certificate.results:
        assert result.id in text
    page = (tmp_path / "report.html").read_text()
    assert "<table>" in page
    assert "http" not in page


def test_a_violation_is_reported_with_its_shortest_history_and_the_way_to_see_it_again() -> None:
    harness = AdmitsAllHarness()
    harness.name = "my.tests:Harness"
    certificate = run_suite(harness, profiles=["checkin"], budget=SHORT, seed=7)
    assert certificate.exit_code == 1
    assert certificate.profiles == {"checkin": False}
    broken = {result.id: result for result in certificate.results if result.violation is not None}
    violation = broken["checkin.model"].violation
    assert violation is not None
    assert violation.guarantee in STATEMENTS
    assert len(violation.history) <= 3
    assert violation.command == f"onceward conform my.tests:Harness --profile checkin --seed {violation.seed}"
    again = run_property(harness, "checkin.model", budget=timedelta(0), seed=violation.seed)
    assert again.violation is not None
    assert again.violation.history == violation.history
    concurrent = broken["checkin.history"].violation
    assert concurrent is not None
    assert "[1" in concurrent.diagram
    report = text_report(certificate)
    assert "VIOLATED" in report
    assert violation.command in report


def test_an_error_of_a_driver_is_a_violation() -> None:
    result = run_property(LeakyHarness(), "lock.model", budget=SHORT)
    assert result.violation is not None
    assert result.violation.guarantee == "G16"
    assert "KeyError" in result.violation.happened


def test_a_store_that_cannot_be_reached_could_not_be_run() -> None:
    certificate = run_suite(GoneHarness(), profiles=["lock"], budget=SHORT)
    assert certificate.exit_code == 2
    assert "connection refused" in certificate.problem
    assert certificate.profiles == {"lock": False}
    assert "COULD NOT RUN" in text_report(certificate)


def test_claiming_more_than_the_store_does_is_a_violation_or_cannot_be_run() -> None:
    result = run_property(BoastfulHarness(), "store.traits", budget=SHORT)
    assert result.verdict is Verdict.VIOLATED
    assert result.violation is not None
    assert result.violation.guarantee == "A1"
    assert "bytes of JSON" in result.violation.happened


def test_what_the_traits_rule_out_is_skipped_and_never_a_pass() -> None:
    certificate = run_suite(MemoryHarness(), profiles=["durable"], budget=SHORT)
    skipped = [result for result in certificate.results if result.verdict is Verdict.SKIPPED]
    assert {result.id for result in skipped} == {"durable.reopen", "durable.kill"}
    assert all("durable" in result.reason for result in skipped)
    assert not certificate.conformant
    assert certificate.exit_code == 2


def test_an_excuse_is_shown_and_never_a_pass() -> None:
    certificate = run_suite(MemoryHarness(), profiles=["lock"], budget=SHORT, excused={"lock.crash": "see issue 7"})
    excused = next(result for result in certificate.results if result.id == "lock.crash")
    assert (excused.verdict, excused.reason) == (Verdict.EXCUSED, "see issue 7")
    assert not certificate.conformant
    assert "see issue 7" in text_report(certificate)


def planted(monkeypatch: pytest.MonkeyPatch, experiment: Property) -> Result:
    """What becomes of a property of our own."""
    monkeypatch.setattr(all_profiles, "PROFILES", {"own": (experiment,)})
    monkeypatch.setattr("onceward.conformance.suite.PROFILES", {"own": (experiment,)})
    return run_property(MemoryHarness(), experiment.id, budget=SHORT)


def test_a_property_that_evaluates_nothing_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = Property(id="own.idle", statement="Nothing.", guarantees=("G1",), experiment=lambda trial: None)
    result = planted(monkeypatch, idle)
    assert result.verdict is Verdict.OUT_OF_TIME
    assert "G1" in result.reason


def test_a_property_that_leaves_out_one_of_its_promises_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    half = Property(
        id="own.half",
        statement="Half.",
        guarantees=("G1", "G2"),
        experiment=lambda trial: trial.expect("G1", True, "never"),
    )
    result = planted(monkeypatch, half)
    assert result.verdict is Verdict.OUT_OF_TIME
    assert "G2" in result.reason
    assert result.executions == {"G1": result.executed}


def test_a_harness_whose_processes_cannot_open_a_shared_store_cannot_be_run() -> None:
    class Closed(Broken):
        store = type("Shared", (MemoryStore,), {"traits": property(lambda _: Traits(durable=False, shared=True))})

    result = run_property(Closed(), "checkin.history", budget=SHORT)
    assert result.verdict is Verdict.NOT_RUN
    assert "opening()" in result.reason


def test_unknown_profiles_and_properties_are_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidRequest, match="checkin, lock, queue, scheduler, worker, durable"):
        run_suite(MemoryHarness(), profiles=["lok"])
    with pytest.raises(InvalidRequest, match=r"lock\.model"):
        run_property(MemoryHarness(), "lock.modell")


def test_every_guarantee_that_a_property_names_has_a_statement_and_every_property_stands_once() -> None:
    for name, members in all_profiles.PROFILES.items():
        assert members, name
        assert len({each.id for each in members}) == len(members)
        for each in members:
            assert each.guarantees
            assert set(each.guarantees) <= set(STATEMENTS)
            assert each.statement.endswith(".")


class TestTargets:
    def test_a_url_gives_the_harness_that_fits(self, tmp_path: Path) -> None:
        assert isinstance(load_target("memory://"), MemoryHarness)
        made = harness_for_url(f"sqlite:///{tmp_path}/x.db")
        assert made.movable
        assert made.name == f"sqlite:///{tmp_path}/x.db"
        made.close()
        assert isinstance(harness_for_url("redis://localhost"), UrlHarness)

    def test_module_and_attribute_give_a_harness_its_class_or_its_maker(self) -> None:
        made = load_target("onceward.conformance.harness:MemoryHarness")
        assert isinstance(made, MemoryHarness)

    @pytest.mark.parametrize("target", ["nowhere:Thing", "onceward.conformance:Nothing", "text", "json:dumps", ":", ""])
    def test_anything_else_is_refused_with_the_reason(self, target: str) -> None:
        with pytest.raises((StoreMisconfigured, TypeError)):
            load_target(target)

    def test_passwords_are_never_shown(self) -> None:
        assert without_password("redis://ann:secret@host:1/0") == "redis://ann@host:1/0"
        assert without_password("redis://:p@ss@host?db=1&password=x") == "redis://host?db=1&password=***"
        assert without_password("sqlite:///a:b@c.db?synchronous=FULL") == "sqlite:///a:b@c.db?synchronous=FULL"


@pytest.mark.parametrize("identity", ["checkin.model", "lock.model", "queue.model"])
def test_leases_lapse_also_where_the_clock_cannot_be_moved(identity: str) -> None:
    class Patient(Broken):
        movable = False

        def fresh_runner(self) -> Runner:
            return self.runner(None)

        def advance(self, by: timedelta) -> None:
            Harness.advance(self, by)

    result = run_property(Patient(), identity, budget=timedelta(0), seed=2)
    assert result.verdict is Verdict.HOLDS, result
    assert result.executions["G8"] > 0


def test_a_history_that_is_broken_is_shown_as_lanes() -> None:
    trial = Trial(AdmitsAllHarness(), Traits(durable=False, shared=False), Tally(), seed=1)
    with pytest.raises(Violated):
        histories.CHECKIN.experiment(trial)
    assert trial.best is not None
    assert trial.best.history
    assert trial.best.diagram.count("\n") >= 1
