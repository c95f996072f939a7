"""Watches on a SQLite file: woken by other processes' and this process's commits of interest, and by time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from onceward.contracts import (
    CheckIn,
    CheckOut,
    Claim,
    ConfigWrite,
    Interest,
    LockId,
    LockRequest,
    RunId,
    RunSpec,
    StoreUnavailable,
)
from onceward.runners.clock import ManualClock
from onceward.runners.sqlite import SqliteStore

HOUR = timedelta(hours=1)
LONG = 30.0
RUN = RunId("job", "key")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def stores(tmp_path: Path, clock: ManualClock) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    """The one that waits, and another with connections of its own, as in another process."""
    pair = SqliteStore(tmp_path / "watch.db", clock=clock), SqliteStore(tmp_path / "watch.db", clock=clock)
    for store in pair:
        store.open()
    yield pair
    for store in pair:
        store.close()


INTERESTS: list[tuple[Interest, Callable[[SqliteStore], object]]] = [
    (Interest(jobs=frozenset({"q"})), lambda store: store.submit([RunSpec.of("q", "1")])),
    (Interest(locks=frozenset({"l"})), lambda store: store.force_unlock(LockId("l"))),
    (Interest(runs=frozenset({RUN})), lambda store: store.checkout([finish(store)])),
    (Interest(configs=True), lambda store: store.write_config(ConfigWrite(name="c", document=1, expected_version=0))),
]


def finish(store: SqliteStore) -> CheckOut:
    run = store.check(RUN)
    assert run is not None
    assert run.lease is not None
    return CheckOut.succeeded(run.lease)


def prepare(store: SqliteStore) -> None:
    store.checkin(CheckIn(run=RUN, holder="me"))
    store.lock(LockRequest(lock=LockId("l"), holder="me", lease=HOUR))


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize(("interest", "change"), INTERESTS)
def test_a_change_between_the_look_and_the_wait_is_not_missed(
    stores: tuple[SqliteStore, SqliteStore],
    interest: Interest,
    change: Callable[[SqliteStore], object],
    same_process: bool,
) -> None:
    waiter, other = stores
    prepare(other)
    with waiter.watch(interest) as watch:
        assert not watch.wait(0)
        change(waiter if same_process else other)
        assert watch.wait(0)
        assert interest.jobs or not watch.wait(0)


@pytest.mark.parametrize(("interest", "change"), INTERESTS)
def test_a_waiting_thread_is_woken(
    stores: tuple[SqliteStore, SqliteStore], interest: Interest, change: Callable[[SqliteStore], object]
) -> None:
    waiter, other = stores
    prepare(other)
    answers: list[bool] = []
    with waiter.watch(interest) as watch:
        thread = threading.Thread(target=lambda: answers.append(watch.wait(LONG)))
        thread.start()
        change(other)
        thread.join(LONG)
    assert answers == [True]


@pytest.mark.parametrize(("interest", "change"), INTERESTS)
def test_what_concerns_others_wakes_nobody(
    stores: tuple[SqliteStore, SqliteStore], interest: Interest, change: Callable[[SqliteStore], object]
) -> None:
    waiter, other = stores
    prepare(other)
    with waiter.watch(interest) as watch:
        other.submit([RunSpec.of("elsewhere", "1")])
        other.checkin(CheckIn(run=RunId("elsewhere", "2"), holder="me"))
        assert not watch.wait(0)
        change(other)
        assert watch.wait(0)


def test_time_brings_due_runs_and_lapses(stores: tuple[SqliteStore, SqliteStore], clock: ManualClock) -> None:
    waiter, other = stores
    with waiter.watch(Interest(jobs=frozenset({"q"}), locks=frozenset({"l"}))) as watch:
        other.submit([RunSpec(id=RunId("q", "1"), after=HOUR)])
        assert not watch.wait(0)
        clock.advance(HOUR)
        assert watch.wait(0)
        assert not watch.wait(0)
        assert other.claim(Claim.of("q", holder="me", lease=HOUR))
        assert not watch.wait(0)
        clock.advance(HOUR)
        assert watch.wait(0)
        assert not watch.wait(0)
        other.lock(LockRequest(lock=LockId("l"), holder="me", lease=HOUR))
        assert watch.wait(0)
        assert not watch.wait(0)
        clock.advance(HOUR)
        assert watch.wait(0)


@pytest.mark.parametrize("what", ["watch", "store"])
def test_closing_ends_the_wait(stores: tuple[SqliteStore, SqliteStore], what: str) -> None:
    waiter, _ = stores
    watch = waiter.watch(Interest(configs=True))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(watch.wait(LONG)))
    thread.start()
    (watch if what == "watch" else waiter).close()
    thread.join(LONG)
    assert answers == [False]
    watch.close()
    assert not watch.wait(LONG)


def test_a_closed_store_has_no_watches(stores: tuple[SqliteStore, SqliteStore]) -> None:
    waiter, _ = stores
    waiter.close()
    with pytest.raises(StoreUnavailable):
        waiter.watch(Interest(configs=True))
