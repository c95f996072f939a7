"""What a measure is, and the raw driver's half of most of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from onceward.benchmarks.raw import Raw
from onceward.benchmarks.rounds import Task
from onceward.contracts import Runner

#: Long enough that nothing lapses while it is measured.
LEASE = timedelta(hours=1)
JOB = "bench"

OfRunner: TypeAlias = Callable[[Runner, int], Task]
OfRaw: TypeAlias = Callable[[Raw, int], Task]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One question, asked of every contestant.

    Attributes:
        name: for ``--only`` and programs.
        title: for people.
        of_runner, of_raw: make the task for a fresh store; they are told the batch.
    """

    name: str
    title: str
    of_runner: OfRunner
    of_raw: OfRaw
    batch: int = 1
    threads: int = 1


class WrongAnswer(Exception):
    """A store did not do what was measured, so the figure would mean nothing."""


def expect(right: bool, what: str) -> None:
    """Nothing, if the answer was right.

    Raises:
        WrongAnswer: it was not.
    """
    if not right:
        raise WrongAnswer(what)


def raw_fresh(raw: Raw, batch: int) -> Task:
    """One round trip that makes new rows."""
    if batch == 1:
        return Task(lambda index: raw.create(f"new-{index}"))
    return Task(lambda index: raw.upsert([f"new-{index}-{item}" for item in range(batch)]))


def raw_again(raw: Raw, batch: int) -> Task:
    """One round trip that changes the rows that the last one changed."""
    keys = [f"again-{item}" for item in range(batch)]
    return Task(lambda _: raw.upsert(keys))


def raw_twice(raw: Raw, _: int) -> Task:
    """Two round trips on one new row."""

    def step(index: int) -> None:
        key = (f"new-{index}",)
        raw.upsert(key)
        raw.upsert(key)

    return Task(step)
