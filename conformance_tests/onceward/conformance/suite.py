"""Runs the properties against a store within a budget of time, and says what they found."""

from __future__ import annotations

import math
import platform
import secrets
import shlex
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from onceward.conformance.certificate import SUITE_VERSION, Certificate, Result, Verdict, Violation
from onceward.conformance.disturb import Faults
from onceward.conformance.harness import Harness
from onceward.conformance.profiles import PROFILES, fitting, profile_of, properties_of
from onceward.conformance.property import STATEMENTS, Property
from onceward.conformance.report import write_reports
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun, OutOfTime, Tally, Violated
from onceward.contracts import InvalidRequest, OncewardError, Traits

#: Rounds that are tried, whatever the budget, until everything that a property promises was evaluated.
ENOUGH = 6

#: How far a property is: its id, and the part of its time that has passed.
ProgressCallback = Callable[[str, float], None]


def silent(property_id: str, fraction: float) -> None:
    """Progress that nobody looks at."""


def run_suite(
    harness: Harness,
    *,
    profiles: Sequence[str] | None = None,
    budget: timedelta = timedelta(seconds=60),
    rounds: float = math.inf,
    seed: int | None = None,
    out: Path | None = None,
    progress: ProgressCallback = silent,
    excused: Mapping[str, str] | None = None,
    faults: Faults = Faults.MESSAGES,
) -> Certificate:
    """The certificate of the store behind ``harness``; never raises for what the store does.

    Every property runs at least one complete round, whatever the budget; more rounds follow, each with the next
    seed, until the property's share of the time is over. The same seed gives the same rounds.

    Args:
        harness: how to reach the store, and how to make time pass in it.
        profiles: names; None: every profile whose needed traits the store declares.
        budget: time for everything.
        rounds: of each property at the most; with a seed and enough time, the same everywhere.
        seed: of the first round; None: a random one, which the certificate tells.
        out: folder for certificate.json, report.txt and report.html; None: nothing is written.
        progress: called with a property's id and how far it is, from 0 to 1.
        excused: properties that are not to be run, with the reason; the report shows it, and it is never a pass.
        faults: what is done to messages, where the harness knows the server's address, or to servers of its own.

    Raises:
        InvalidRequest: there is no such profile.
    """
    if profiles is not None:
        properties_of(profiles)
    began, started = time.monotonic(), datetime.now(UTC)
    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    base = _base(harness, chosen, budget, started)
    try:
        traits, store = _smoke(harness)
    except Exception as error:
        problem = f"the store cannot be examined: {type(error).__name__}: {error}"
        certificate = msgspec.structs.replace(
            base, problem=problem, profiles=dict.fromkeys(profiles or (), False), seconds=time.monotonic() - began
        )
    else:
        asked = tuple(profiles) if profiles is not None else fitting(traits, **_reach(harness, faults))
        end = began + budget.total_seconds()
        examination = Examination(harness, traits, asked, chosen, end, progress, faults, rounds)
        results = examination.run(excused or {})
        certificate = msgspec.structs.replace(
            base,
            store=store,
            traits=msgspec.to_builtins(traits),
            probed=dict(examination.probed),
            profiles={name: _conforms(name, results) for name in asked},
            results=results,
            operations=sum(result.operations for result in results),
            faults=dict(sum((Counter(result.faults) for result in results), Counter[str]())),
            seconds=time.monotonic() - began,
        )
    if out is not None:
        write_reports(certificate, out)
    return certificate


def _base(harness: Harness, seed: int, budget: timedelta, started: datetime) -> Certificate:
    return Certificate(
        suite_version=SUITE_VERSION,
        onceward_version=_version(),
        python=platform.python_version(),
        platform=platform.platform(),
        target=harness.name or type(harness).__name__,
        started=started,
        seconds=0.0,
        seed=seed,
        budget_seconds=budget.total_seconds(),
    )


def _version() -> str:
    try:
        return version("onceward")
    except PackageNotFoundError:
        return "unknown"


def _smoke(harness: Harness) -> tuple[Traits, Mapping[str, str | int | float | bool]]:
    """The store opens and answers; else nothing more is tried."""
    runner = harness.timed_runner()
    try:
        health = runner.lifecycle.health()
        if not health.ok:
            raise CouldNotRun(f"its health is not ok: {dict(health.details)}")
        return runner.lifecycle.traits, health.details
    finally:
        runner.close()


def _reach(harness: Harness, faults: Faults) -> dict[str, bool]:
    """Whether messages, and servers, can be disturbed and are to be."""
    return {
        "networked": faults is Faults.MESSAGES and harness.server() is not None,
        "clustered": faults is Faults.SERVER and harness.cluster() is not None,
    }


def _conforms(profile: str, results: Sequence[Result]) -> bool:
    held = {result.id for result in results if result.verdict is Verdict.HOLDS}
    return all(member.id in held for member in PROFILES[profile])


def run_property(harness: Harness, identity: str, *, budget: timedelta = timedelta(seconds=5), seed: int = 0) -> Result:
    """What became of one property; see ``run_suite``."""
    profiles = tuple(PROFILES)
    member = next((member for member in properties_of(profiles) if member.id == identity), None)
    if member is None:
        raise InvalidRequest("property", identity, ", ".join(each.id for each in properties_of(profiles)))
    try:
        traits, _ = _smoke(harness)
    except Exception as error:
        reason = f"the store cannot be examined: {type(error).__name__}: {error}"
        return Result(id=member.id, statement=member.statement, verdict=Verdict.NOT_RUN, reason=reason)
    examination = Examination(harness, traits, profiles, seed, time.monotonic() + budget.total_seconds(), silent)
    return examination.one(member, budget.total_seconds())


def _never(member: Property, trial: Trial) -> list[str]:
    """What the property promises and no round has evaluated yet."""
    return [name for name in member.guarantees if not trial.tally.executions[name]]


@dataclass
class Examination:
    """Divides the time over the properties and runs them one after the other."""

    harness: Harness
    traits: Traits
    profiles: Sequence[str]
    seed: int
    end: float
    progress: ProgressCallback
    faults: Faults = Faults.MESSAGES
    rounds: float = math.inf
    probed: dict[str, str] = field(default_factory=dict)

    def run(self, excused: Mapping[str, str]) -> tuple[Result, ...]:
        """One result per property, in the order of the profiles."""
        results: list[Result] = []
        members = properties_of(self.profiles)
        waiting = sum(member.weight for member in members)
        for member in members:
            left = max(0.0, self.end - time.monotonic())
            share = left * member.weight / waiting
            waiting -= member.weight
            results.append(self.one(member, share, excused.get(member.id)))
        return tuple(results)

    def one(self, member: Property, share: float, excuse: str | None = None) -> Result:
        """The property was run for its share of the time."""
        missing = member.missing(self.traits, **_reach(self.harness, self.faults))
        if missing is not None:
            return Result(id=member.id, statement=member.statement, verdict=Verdict.SKIPPED, reason=missing)
        if excuse is not None:
            return Result(id=member.id, statement=member.statement, verdict=Verdict.EXCUSED, reason=excuse)
        began = time.monotonic()
        trial = Trial(self.harness, self.traits, Tally(), messages=self.faults)
        trial.tick = lambda: self.progress(member.id, min(0.99, (time.monotonic() - began) / max(share, 0.01)))
        verdict, reason, rounds = self._rounds(member, trial, began + share)
        self.probed.update(trial.probed)
        self.progress(member.id, 1.0)
        return Result(
            id=member.id,
            statement=member.statement,
            verdict=verdict,
            reason=reason,
            executions={name: trial.tally.executions[name] for name in sorted(trial.tally.executions)},
            cases=trial.cases,
            operations=trial.operations,
            rounds=rounds,
            seconds=time.monotonic() - began,
            faults=dict(trial.faults),
            notes=tuple(trial.notes),
            violation=self._violation(member, trial) if verdict is Verdict.VIOLATED else None,
        )

    def _rounds(self, member: Property, trial: Trial, until: float) -> tuple[Verdict, str, int]:
        """Round after round, each with the next seed, until one fails, or the time or their number is over."""
        rounds = 0
        while rounds < self.rounds and (
            rounds == 0 or time.monotonic() < until or (rounds < ENOUGH and _never(member, trial))
        ):
            trial.seed = self.seed + rounds
            trial.until = until if rounds and not _never(member, trial) else None
            rounds += 1
            try:
                member.experiment(trial)
            except OutOfTime:
                pass
            except Violated as violation:
                if trial.best is None:
                    trial.keep(violation)
                return Verdict.VIOLATED, "", rounds
            except (CouldNotRun, OncewardError, OSError) as error:
                return Verdict.NOT_RUN, f"{type(error).__name__}: {error}", rounds
        never = _never(member, trial)
        if never:
            return Verdict.OUT_OF_TIME, f"never evaluated: {', '.join(never)}", rounds
        return Verdict.HOLDS, "", rounds

    def _violation(self, member: Property, trial: Trial) -> Violation:
        assert trial.best is not None  # kept by whoever raised it
        found = trial.best
        profile = profile_of(member.id, self.profiles)
        target = shlex.quote(self.harness.name)
        faults = "" if self.faults is Faults.MESSAGES else f" --faults {self.faults}"
        return Violation(
            guarantee=found.violation.guarantee,
            promise=STATEMENTS.get(found.violation.guarantee, ""),
            happened=found.violation.message,
            history=found.history,
            diagram=found.diagram,
            seed=trial.seed,
            command=f"onceward conform {target} --profile {profile} --seed {trial.seed}{faults}",
        )
