"""Calls of several threads share trips: in order, without loss, and whatever happens to the one that carries."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from onceward.contracts import OutcomeUnknown
from onceward.runners.combining import Combiner

PATIENCE = 10.0


class Store:
    """Answers each request with its tenfold once the test lets the trip come back."""

    def __init__(self) -> None:
        self.trips: list[Sequence[int]] = []
        self.gates: list[threading.Event] = []
        self.changed = threading.Condition()

    def set_off(self, requests: Sequence[int]) -> Callable[[], list[int | BaseException]]:
        gate = threading.Event()
        with self.changed:
            self.trips.append(list(requests))
            self.gates.append(gate)
            self.changed.notify_all()
        return partial(self._finish, requests, gate)

    def _finish(self, requests: Sequence[int], gate: threading.Event) -> list[int | BaseException]:
        assert gate.wait(PATIENCE)
        return [ValueError(request) if request < 0 else request * 10 for request in requests]

    def left(self, count: int) -> None:
        """So many trips have set off."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.trips) >= count, PATIENCE)


class Callers(ThreadPoolExecutor):
    """Threads whose place in the line is the order in which they were started."""

    def __init__(self, combiner: Combiner[int, int]) -> None:
        super().__init__(max_workers=16)
        self._combiner = combiner

    def start(self, request: int) -> Callable[[], int]:
        """Stands in line, as somebody is under way."""
        before = len(self._combiner._line)
        future = self.submit(self._combiner.call, request)
        while len(self._combiner._line) == before and not future.done():
            time.sleep(0)
        return partial(future.result, PATIENCE)

    def first(self, store: Store, request: int) -> Callable[[], int]:
        """Sets off at once, as nobody is under way."""
        trips = len(store.trips)
        future = self.submit(self._combiner.call, request)
        store.left(trips + 1)
        return partial(future.result, PATIENCE)


def test_a_lone_caller_makes_a_trip_of_its_own() -> None:
    store = Store()
    combiner: Combiner[int, int] = Combiner(store.set_off)
    with Callers(combiner) as callers:
        for number in (1, 2):
            answer = callers.submit(combiner.call, number)
            store.left(number)
            store.gates[-1].set()
            assert answer.result(PATIENCE) == number * 10
    assert store.trips == [[1], [2]]


def test_what_gathers_meanwhile_shares_the_next_trip_which_sets_off_before_answers_are_handed_out() -> None:
    store = Store()
    combiner: Combiner[int, int] = Combiner(store.set_off, most=3)
    with Callers(combiner) as callers:
        answers = [callers.first(store, 1), *(callers.start(number) for number in (2, 3, 4, 5))]
        store.gates[0].set()
        assert answers[0]() == 10
        assert store.trips == [[1], [2, 3, 4]], "whoever has an answer has sent what had gathered"
        answers += [callers.start(number) for number in (-6, 7)]
        store.gates[1].set()
        assert [answer() for answer in answers[1:4]] == [20, 30, 40]
        store.left(3)
        store.gates[2].set()
        assert answers[4]() == 50
        with pytest.raises(ValueError, match="-6"):
            answers[5]()
        assert answers[6]() == 70
    assert store.trips == [[1], [2, 3, 4], [5, -6, 7]]


def test_nobody_waits_for_ever_when_a_trip_is_interrupted() -> None:
    store = Store()

    def set_off(requests: Sequence[int]) -> Callable[[], list[int | BaseException]]:
        finish = store.set_off(requests)
        if 2 in requests:
            raise KeyboardInterrupt
        if 4 in requests:
            return partial(_interrupt, store.gates[-1])
        return finish

    combiner: Combiner[int, int] = Combiner(set_off)
    with Callers(combiner) as callers:
        first, *others = [callers.first(store, 1), callers.start(2), callers.start(3)]
        store.gates[0].set()
        with pytest.raises(KeyboardInterrupt):  # its own trip was over: it was about to send the next one
            first()
        for answer in others:
            with pytest.raises(OutcomeUnknown, match="interrupted"):
                answer()
        first, *others = [callers.first(store, 4), callers.start(5)]
        store.gates[-1].set()
        with pytest.raises(KeyboardInterrupt):
            first()
        store.left(4)
        store.gates[-1].set()
        assert others[0]() == 50
    assert combiner.exclusively(lambda: None, timeout=0), "nobody is under way"


def _interrupt(gate: threading.Event) -> list[int | BaseException]:
    assert gate.wait(PATIENCE)
    raise KeyboardInterrupt


def test_a_caller_that_is_interrupted_in_line_leaves_its_place_to_somebody() -> None:
    store = Store()
    combiner: Combiner[int, int] = Combiner(store.set_off)

    def interrupt() -> None:
        while not combiner._line:
            time.sleep(0)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with Callers(combiner) as callers, ctrl_c():
        first = callers.first(store, 1)
        callers.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            combiner.call(2)
        third = callers.start(3)
        store.gates[0].set()
        store.left(2)
        store.gates[1].set()
        assert (first(), third()) == (10, 30)
    assert store.trips == [[1], [2, 3]]


@contextmanager
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, whatever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_exclusively_waits_for_the_trip_and_goes_on_with_the_line() -> None:
    store = Store()
    combiner: Combiner[int, int] = Combiner(store.set_off)
    with Callers(combiner) as callers:
        first = callers.first(store, 1)
        assert not combiner.exclusively(lambda: None, timeout=0)
        store.gates[0].set()
        assert first() == 10
        with ThreadPoolExecutor(1) as other:
            began, end = threading.Event(), threading.Event()

            def action() -> None:
                began.set()
                assert end.wait(PATIENCE)

            done = other.submit(combiner.exclusively, action, timeout=PATIENCE)
            assert began.wait(PATIENCE)
            second = callers.start(2)
            assert store.trips == [[1]]
            end.set()
            assert done.result(PATIENCE)
        store.left(2)
        store.gates[1].set()
        assert second() == 20


def test_many_threads_get_their_own_answers() -> None:
    def at_once(requests: Sequence[int]) -> Callable[[], list[int | BaseException]]:
        return lambda: [request * 10 for request in requests]

    combiner: Combiner[int, int] = Combiner(at_once, most=5)
    numbers = range(4_000)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(combiner.call, numbers, timeout=60)) == [number * 10 for number in numbers]
