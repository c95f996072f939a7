"""Locks: taken once, kept while the holder lives, given up for good, and never somebody else's."""

# ruff: noqa: PT012  what raises is the end of the block, so the block is the body of a job
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest

from onceward.contracts import (
    Executor,
    InvalidRequest,
    Lease,
    LeaseLost,
    LockAnswer,
    LockId,
    LockNotAcquired,
    LockRequest,
    OutcomeUnknown,
    Renewal,
    Renewed,
    Runner,
    StoreUnavailable,
    WaitTimeout,
    Watch,
)
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore
from onceward.toolkit import locks as locks_module
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.locks import Lock, look, wait_until_free

LEASE = timedelta(seconds=30)


class Faulty:
    """An executor whose calls can be made to fail: before the store sees them, or after."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.asked: list[LockRequest] = []
        self.delay: Callable[[], None] = lambda: None

    def lock(self, request: LockRequest) -> LockAnswer:
        self.asked.append(request)
        if self.before:
            raise self.before.pop(0)
        answer = self.store.lock(request)
        self.delay()
        if self.after:
            raise self.after.pop(0)
        return answer

    def unlock(self, lease: Lease) -> bool:
        return self.store.unlock(lease)

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        return self.store.renew(renewals)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[MemoryStore]:
    store = MemoryStore(namespace="tests", clock=clock)
    store.open()
    yield store
    store.close()


@pytest.fixture
def runner(store: MemoryStore) -> Runner:
    return Runner.of(store, namespace="tests")


@pytest.fixture
def faulty(store: MemoryStore) -> Faulty:
    return Faulty(store)


@pytest.fixture
def faulty_runner(faulty: Faulty, store: MemoryStore) -> Runner:
    executor: Executor = faulty  # type: ignore[assignment]  # only the lock's half of it
    return Runner(executor=executor, scheduler=store, lifecycle=store, namespace="tests")


def holders(runner: Runner) -> list[str]:
    return [lock.lease.holder for lock in runner.lifecycle.locks()]


def test_one_holder_at_a_time_and_tokens_grow(runner: Runner) -> None:
    first, second = Lock(runner, "a", holder="h1"), Lock(runner, "a", holder="h2")
    with first:
        token = first.token
        with pytest.raises(LockNotAcquired, match=r"Can't lock to execute job 'a'\.") as refusal:
            second.acquire()
        assert refusal.value.holder == "h1"
        assert holders(runner) == ["h1"]
    with second:
        assert second.token > token
    assert holders(runner) == []


def test_not_reentrant_also_for_the_same_object(runner: Runner) -> None:
    lock = Lock(runner, "a")
    with lock:
        assert not lock.try_acquire()
        assert not Lock(runner, "a", holder=lock.held.lease.holder).try_acquire()
    assert lock.try_acquire()
    assert lock.release()
    assert not lock.release()


def test_an_object_whose_lease_lapsed_must_be_released_before_it_is_taken_again(
    runner: Runner, clock: ManualClock
) -> None:
    lock = Lock(runner, "a")
    held = lock.acquire()
    clock.advance(LEASE)
    assert not lock.try_acquire()
    assert not lock.release()
    assert held.stopped
    assert lock.try_acquire()
    assert lock.token > held.token


def test_token_of_a_lock_that_is_not_held(runner: Runner) -> None:
    with pytest.raises(LeaseLost):
        _ = Lock(runner, "a").token


def test_a_dead_holders_lock_is_free_after_its_lease_and_not_before(runner: Runner, clock: ManualClock) -> None:
    dead = LockRequest(lock=LockId("a"), holder="dead", lease=LEASE)
    assert runner.executor.lock(dead).acquired
    clock.advance(LEASE - timedelta(milliseconds=1))
    assert not Lock(runner, "a").try_acquire()
    clock.advance(timedelta(milliseconds=1))
    with Lock(runner, "a"):
        pass


def test_waiting_ends_when_the_holder_lets_go(runner: Runner) -> None:
    held = Lock(runner, "a", holder="h1")
    held.acquire()
    got: list[int] = []
    waiting = threading.Thread(target=lambda: got.append(Lock(runner, "a", wait=timedelta(minutes=5)).acquire().token))
    waiting.start()
    token = held.token
    assert held.release()
    waiting.join(timeout=60)
    assert got
    assert got[0] > token


def test_waiting_ends_when_the_holders_lease_lapses(runner: Runner, clock: ManualClock) -> None:
    assert runner.executor.lock(LockRequest(lock=LockId("a"), holder="dead", lease=LEASE)).acquired
    lock = Lock(runner, "a", wait=timedelta(minutes=5))
    waiting = threading.Thread(target=lock.acquire)
    waiting.start()
    clock.advance(LEASE)
    waiting.join(timeout=60)
    assert lock.token
    assert lock.release()


class BlindWatch(Watch):
    """Sees nothing, and lets the time pass that it is told to wait."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.waited: list[float] = []

    def wait(self, timeout: float) -> bool:
        self.waited.append(timeout)
        self.clock.advance(timedelta(seconds=timeout))
        return False

    def close(self) -> None:
        pass


def test_waiting_looks_again_when_the_lease_lapses_even_if_no_watch_tells(
    runner: Runner, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = BlindWatch(clock)
    monkeypatch.setattr(runner.scheduler, "watch", lambda interest: watch)
    assert runner.executor.lock(LockRequest(lock=LockId("a"), holder="dead", lease=LEASE)).acquired
    with Lock(runner, "a", wait=timedelta(days=1)):
        assert len(watch.waited) == 1
        assert LEASE.total_seconds() <= watch.waited[0] < 2 * LEASE.total_seconds()


def test_a_request_that_was_released_before_is_not_used_again(runner: Runner) -> None:
    """A late copy of it is refused although nobody has the lock; asking goes on under another id."""
    spent = LockRequest(lock=LockId("a"), holder="h", lease=LEASE)
    answer = runner.executor.lock(spent)
    assert answer.lease is not None
    assert runner.executor.unlock(answer.lease)
    lease, _ = locks_module.take(runner, spent, wait=timedelta(minutes=1))
    assert lease.request != spent.request


def test_a_grant_that_was_told_late_is_trusted_only_for_what_is_left(
    faulty: Faulty, faulty_runner: Runner, clock: ManualClock
) -> None:
    faulty.after = [OutcomeUnknown("the reply was lost")]
    faulty.delay = lambda: clock.advance(timedelta(seconds=20))
    lock = Lock(faulty_runner, "a", lease=LEASE)
    left = lock.acquire().time_remaining()
    assert left is not None
    assert left <= timedelta(seconds=10)


def test_waiting_in_vain_changes_nothing(runner: Runner) -> None:
    with Lock(runner, "a", holder="h1"):
        with pytest.raises(LockNotAcquired):
            Lock(runner, "a", wait=timedelta(milliseconds=20)).acquire()
        assert holders(runner) == ["h1"]


def test_losing_the_lock_is_said_at_the_end_of_a_clean_body(runner: Runner, clock: ManualClock) -> None:
    lock = Lock(runner, "a")
    with pytest.raises(LeaseLost), lock:
        clock.advance(LEASE)
        thief = LockRequest(lock=LockId("a"), holder="thief", lease=LEASE)
        assert runner.executor.lock(thief).acquired
    assert holders(runner) == ["thief"]


def test_losing_the_lock_does_not_hide_the_bodys_own_error(runner: Runner, clock: ManualClock) -> None:
    with pytest.raises(ZeroDivisionError), Lock(runner, "a"):
        clock.advance(LEASE)
        _ = 1 / 0


def test_a_forced_unlock_is_noticed_by_renewal(runner: Runner) -> None:
    lock = Lock(runner, "a", lease=timedelta(milliseconds=300))  # renewed each 100 ms
    with pytest.raises(LeaseLost), lock:
        assert runner.lifecycle.force_unlock(LockId("a")) is not None
        assert lock.lost.wait(60)


def test_released_in_the_body(runner: Runner) -> None:
    with Lock(runner, "a") as lock:
        assert lock.release()
    assert holders(runner) == []


def test_looking_at_a_lock(runner: Runner, clock: ManualClock) -> None:
    assert look(runner, "a") is None
    with Lock(runner, "a", holder="h", note="why"), Lock(runner, "b"):
        state = look(runner, "a")
        assert state is not None
        assert (state.lease.holder, state.note, state.remaining) == ("h", "why", LEASE)
    assert look(runner, "a") is None
    assert runner.executor.lock(LockRequest(lock=LockId("a"), holder="dead", lease=LEASE)).acquired
    clock.advance(LEASE)
    assert look(runner, "a") is None


def test_waiting_until_a_lock_is_free(runner: Runner, clock: ManualClock) -> None:
    wait_until_free(runner, "a", timeout=timedelta(0))
    lock = Lock(runner, "a")
    lock.acquire()
    with pytest.raises(WaitTimeout, match="'a'"):
        wait_until_free(runner, "a", timeout=timedelta(milliseconds=10))
    threading.Timer(0.05, lock.release).start()
    wait_until_free(runner, "a", timeout=timedelta(minutes=5))
    assert runner.executor.lock(LockRequest(lock=LockId("a"), holder="dead", lease=LEASE)).acquired
    threading.Timer(0.05, clock.advance, [LEASE]).start()
    wait_until_free(runner, "a", timeout=timedelta(minutes=5))


def test_a_lost_reply_is_settled_by_the_same_request(faulty: Faulty, faulty_runner: Runner) -> None:
    faulty.after = [OutcomeUnknown("the reply was lost")]
    with Lock(faulty_runner, "a"):
        assert len(holders(faulty_runner)) == 1
    assert len({request.request for request in faulty.asked}) == 1
    assert len(faulty.asked) == 2
    assert holders(faulty_runner) == []


def test_a_store_that_is_away_is_definite(faulty: Faulty, faulty_runner: Runner) -> None:
    faulty.before = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        Lock(faulty_runner, "a").acquire()
    assert holders(faulty_runner) == []


def test_a_lock_that_stays_unknown_is_given_back_in_the_background(
    faulty: Faulty, faulty_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks_module, "_GIVE_BACK_PAUSE", 0.01)
    faulty.after = [OutcomeUnknown("lost") for _ in range(8)]
    with pytest.raises(OutcomeUnknown):
        Lock(faulty_runner, "a").acquire()
    for thread in [t for t in threading.enumerate() if t.name == "onceward-give-back"]:
        thread.join(timeout=60)
    assert not faulty.after
    assert holders(faulty_runner) == []


def test_a_grant_that_comes_too_late_is_not_reported_as_held(
    faulty: Faulty, faulty_runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    monkeypatch.setattr(locks_module, "lease_time", lambda: lease_time() + ahead)

    def slow() -> None:
        nonlocal ahead
        ahead += LEASE.total_seconds()

    faulty.delay = slow
    with pytest.raises(LockNotAcquired):
        Lock(faulty_runner, "a", lease=LEASE).acquire()
    assert holders(faulty_runner) == []


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 257, "\ud800"])
def test_names_that_are_not_accepted(runner: Runner, name: str) -> None:
    with pytest.raises(InvalidRequest, match="lock name"):
        Lock(runner, name)


def test_times_that_are_not_accepted(runner: Runner) -> None:
    with pytest.raises(InvalidRequest, match="lease"):
        Lock(runner, "a", lease=timedelta(0))
    with pytest.raises(InvalidRequest, match="wait"):
        Lock(runner, "a", wait=timedelta(seconds=-1))
    with pytest.raises(InvalidRequest, match="wait"):
        Lock(runner, "a").acquire(wait=timedelta(seconds=-1))
