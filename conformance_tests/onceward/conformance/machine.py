"""State machines as experiments: Hypothesis draws the operations, every answer is compared with a model.

Draws have a fixed shape and never depend on what the store answers: a rule draws ``pick`` and takes it modulo. Numbers
stay below 100 and texts come from fixed lists, since Hypothesis mixes in constants of whatever modules are loaded.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar, cast

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from onceward.conformance.property import Experiment
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun, OutOfTime
from onceward.contracts import Admission, Lease, LockAnswer, Run, Runner

T = TypeVar("T")

HOLDERS = ("ann", "bob", "cid")
picks = st.integers(0, 99)
holders = st.sampled_from(HOLDERS)


#: The store decides how long a step takes, and a case that is large or hits nothing is no fault of the generator.
_SUPPRESSED = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
    HealthCheck.filter_too_much,
)


def case_settings(*, cases: int, steps: int = 50, shrink: bool = True) -> settings:
    """How Hypothesis is to work: seeded, without a database, without clocks, and without words of its own."""
    return settings(
        max_examples=cases,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=_SUPPRESSED,
    )


def finish(trial: Trial, examine: Callable[[], None]) -> None:
    """Hypothesis has run; the shortest failure that was seen is raised, if there was one.

    Raises:
        Violated: with the shortest history kept in the trial.
        CouldNotRun: the experiment itself broke.
    """
    try:
        with _without_files():
            examine()
    except OutOfTime:
        pass
    except Exception as error:
        # Hypothesis wonders about a case that ends early for lack of time; that is no finding.
        if trial.best is None and not trial.over:
            if isinstance(error, CouldNotRun):
                raise
            raise CouldNotRun(f"the experiment broke: {error!r}") from error
    if trial.best is not None:
        raise trial.best.violation


@contextmanager
def _without_files() -> Iterator[None]:
    """Hypothesis keeps its caches in a folder that is gone afterwards, not in the working directory."""
    with tempfile.TemporaryDirectory(prefix="onceward-hypothesis-", ignore_cleanup_errors=True) as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


def explore(
    machine: Callable[[Trial], RuleBasedStateMachine], *, cases: int, steps: int, shrink: bool = True
) -> Experiment:
    """An experiment of so many cases, each of up to so many operations; a failure is shrunk to its shortest form."""
    how = case_settings(cases=cases, steps=steps, shrink=shrink)

    def experiment(trial: Trial) -> None:
        @seed(trial.seed)
        def make() -> RuleBasedStateMachine:
            return machine(trial)

        # Hypothesis takes any maker of machines, though it is annotated to take classes only.
        maker = cast("type[RuleBasedStateMachine]", make)
        finish(trial, lambda: run_state_machine_as_test(maker, settings=how))

    return experiment


def quietly(experiment: Experiment) -> Experiment:
    """The experiment, without what a job server logs of the failures that it is made to have."""

    def quiet(trial: Trial) -> None:
        log = logging.getLogger("onceward")
        before = log.level
        log.setLevel(logging.CRITICAL + 1)
        try:
            experiment(trial)
        finally:
            log.setLevel(before)

    return quiet


class Machine(RuleBasedStateMachine):
    """A case on a fresh namespace, with a client per holder, a history, and a clock of the model's own."""

    def __init__(self, trial: Trial) -> None:
        super().__init__()
        trial.begin_case()
        self.trial = trial
        self.exact = trial.harness.movable
        self.runner = trial.harness.fresh_runner()
        self._clients: dict[str, Runner] = {HOLDERS[0]: self.runner}
        self._requests = 0
        self.now_ms = 0
        self._origin = self.runner.lifecycle.now()

    def client(self, holder: str) -> Runner:
        """The holder's own client of the store."""
        if holder not in self._clients:
            self._clients[holder] = self.trial.harness.another(self.runner)
        return self._clients[holder]

    def teardown(self) -> None:
        """Every client is closed."""
        for runner in {id(runner): runner for runner in self._clients.values()}.values():
            runner.close()

    def wall(self) -> datetime:
        """The store's clock, as the model knows it."""
        return self._origin + timedelta(milliseconds=self.now_ms) if self.exact else self.runner.lifecycle.now()

    def pass_ms(self, ms: int) -> None:
        """Time passes in the store and in the model; only where the clock can be moved."""
        if self.exact and ms > 0:
            self.trial.harness.advance(timedelta(milliseconds=ms))
            self.now_ms += ms
            self.trial.say(f"-- {ms} ms pass --")

    def request(self) -> str:
        """A request id of this case."""
        self._requests += 1
        return f"r{self._requests}"

    def ask(self, doing: str, call: Callable[[], T]) -> T:
        """The runner's answer; it and the question are in the history, and errors are judged."""
        try:
            answer = call()
        except Exception as error:
            self.trial.say(f"{doing} -> {type(error).__name__}")
            raise self.trial.blame(error, doing) from error
        self.trial.say(f"{doing} -> {told(answer)}")
        return answer

    def expect(self, guarantee: str, holds: bool, said: str | Callable[[], str]) -> None:
        """The promise was evaluated; see ``Trial.expect``."""
        self.trial.expect(guarantee, holds, said)


def told(answer: object) -> str:
    """An answer in a few words."""
    if isinstance(answer, Admission):
        return f"{answer.outcome.value} ({told(answer.run)})"
    if isinstance(answer, Run):
        token = "" if answer.lease is None else f", held by {answer.lease.holder} with token {answer.lease.token}"
        return f"{answer.key}: {answer.status.value}, attempt {answer.attempt}{token}"
    if isinstance(answer, LockAnswer):
        return ("acquired" if answer.acquired else "refused") + f" ({told(answer.lease)})"
    if isinstance(answer, Lease):
        return f"token {answer.token} of {answer.holder}"
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        return "[" + ", ".join(told(item) for item in answer) + "]"
    return str(answer)


def picked(items: Sequence[T], pick: int) -> T | None:
    """One of the items, whatever their number; None of none."""
    return items[pick % len(items)] if items else None
