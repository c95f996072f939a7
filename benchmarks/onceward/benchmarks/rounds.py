"""Interleaved rounds: every lane runs one lap per round, and who goes first rotates.

A machine's speed drifts, so two things are only comparable when they ran next to each other. A round lasts a
fraction of a second, and ratios are taken within it.
"""

from __future__ import annotations

import gc
import itertools
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

Nanoseconds: TypeAlias = Callable[[], int]


def _nothing(_: range) -> None:
    return


def _closed() -> None:
    return


@dataclass(frozen=True, slots=True)
class Task:
    """What is timed, one call at a time; every call has an index of its own.

    Attributes:
        step: the timed call.
        prepare: what a lap needs first, told the indexes of its steps; not timed.
        close: lets go of what the task holds.
    """

    step: Callable[[int], object]
    prepare: Callable[[range], object] = _nothing
    close: Callable[[], object] = _closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One contestant's part in a measure: its task, how many items a step handles, and from how many threads."""

    name: str
    task: Task
    batch: int = 1
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One lane's part of one round. ``latencies`` are nanoseconds per step."""

    items: int
    seconds: float
    latencies: Sequence[int] = field(repr=False)

    @property
    def rate(self) -> float:
        """Items per second."""
        return self.items / self.seconds


#: One lap of every lane, by the lane's name.
Round: TypeAlias = Mapping[str, Lap]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to measure: so many rounds, with laps of about ``seconds`` but at most ``most_steps``."""

    rounds: int = 15
    seconds: float = 0.1
    most_steps: int = 20_000


def interleave(lanes: Sequence[Lane], pace: Pace, *, clock: Nanoseconds = time.perf_counter_ns) -> Iterator[Round]:
    """Yields complete rounds, after a calibration and a warm-up round that do not count.

    Each lane's laps have the same number of steps in all rounds; the garbage collector rests while a lap is timed.
    """
    if len({lane.name for lane in lanes}) != len(lanes):
        raise ValueError("lanes need names of their own")
    steps = {lane.name: _calibrated(lane, pace, clock) for lane in lanes}
    first = {name: -count for name, count in steps.items()}  # the warm-up ends where the counting starts
    with _settled_heap():
        for number in range(-1, pace.rounds):
            laps: dict[str, Lap] = {}
            for lane in _rotated(lanes, number):
                start = first[lane.name]
                first[lane.name] = start + steps[lane.name]
                laps[lane.name] = lap(lane, range(start, first[lane.name]), clock=clock)
            if number >= 0:
                yield {lane.name: laps[lane.name] for lane in lanes}


def lap(lane: Lane, indexes: range, *, clock: Nanoseconds = time.perf_counter_ns) -> Lap:
    """Prepares the steps, then times them, shared out among the lane's threads."""
    lane.task.prepare(indexes)
    with _no_garbage_collection():
        stints = [_stint(lane.task.step, indexes, clock)] if lane.threads == 1 else _together(lane, indexes, clock)
    began, ended = min(stamps[0] for stamps in stints), max(stamps[-1] for stamps in stints)
    latencies = array("q")
    for stamps in stints:
        latencies.extend(later - earlier for earlier, later in itertools.pairwise(stamps))
    return Lap(items=len(indexes) * lane.batch, seconds=max(ended - began, 1) / 1e9, latencies=latencies)


def _stint(step: Callable[[int], object], indexes: range, clock: Nanoseconds) -> array[int]:
    """When the steps began, and when each one ended."""
    stamps = array("q", [clock()])
    note = stamps.append
    for index in indexes:
        step(index)
        note(clock())
    return stamps


def _together(lane: Lane, indexes: range, clock: Nanoseconds) -> list[array[int]]:
    """The stints of several threads that start at the same moment; a thread's error is raised here."""
    start = threading.Barrier(lane.threads)

    def work(number: int) -> array[int]:
        start.wait()
        return _stint(lane.task.step, indexes[number :: lane.threads], clock)

    with ThreadPoolExecutor(max_workers=lane.threads) as pool:
        return [work.result() for work in [pool.submit(work, number) for number in range(lane.threads)]]


def _calibrated(lane: Lane, pace: Pace, clock: Nanoseconds) -> int:
    """How many steps make a lap of about the wanted length: doubled until the length can be told."""
    steps, used = lane.threads, -(2**40)  # indexes far from those that count
    while True:
        taken = lap(lane, range(used, used + steps), clock=clock).seconds
        used += steps
        if taken >= pace.seconds / 4 or steps * 2 > pace.most_steps:
            wanted = int(steps * pace.seconds / taken)
            return max(lane.threads, min(wanted, pace.most_steps))
        steps *= 2


def _rotated(lanes: Sequence[Lane], number: int) -> Sequence[Lane]:
    turn = number % len(lanes) if lanes else 0
    return [*lanes[turn:], *lanes[:turn]]


@contextmanager
def _settled_heap() -> Iterator[None]:
    """What exists by now (a store with a million runs, say) is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
