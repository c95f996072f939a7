"""Renewal by a thread of its own: how long a lease may be trusted, and how its loss is told.

Time cannot be moved here, since local deadlines go by the process's own monotonic clock. So leases are either so long
that they cannot end within a test, or said to have been sent so long ago that they are over already.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import pytest

from onceward.contracts import (
    Executor,
    InvalidRequest,
    Lease,
    LeaseLost,
    LockId,
    LockRequest,
    OutcomeUnknown,
    Progress,
    Renewal,
    Renewed,
    RunId,
    StoreUnavailable,
)
from onceward.runners.memory import MemoryStore
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.renewal import MARGIN, HeldLease, LostSignal, Renewer, local_end

HOUR = timedelta(hours=1)
PATIENCE = 20.0
"""Seconds after which something that should have happened has not; never reached by a test that passes."""


class Answering(MemoryStore):
    """A store whose renewals answer what the test says, and are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: Callable[[Renewal], Renewed] = lambda renewal: Renewed.HELD
        self.asked: list[Renewal] = []
        self.batches: list[int] = []
        self.heard = threading.Condition()

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        with self.heard:
            self.asked += renewals
            self.batches.append(len(renewals))
            self.heard.notify_all()
        return [self.answers(renewal) for renewal in renewals]

    def wait_for(self, happened: Callable[[], bool]) -> None:
        """Until it has, after some renewal."""
        with self.heard:
            assert self.heard.wait_for(happened, PATIENCE)


def lease(name: str = "k", duration: timedelta | None = HOUR, token: int = 1) -> Lease:
    return Lease(resource=RunId("j", name), holder="ann", token=token, request="r", duration=duration)


def overdue(duration: timedelta = HOUR) -> float:
    """When a lease was sent that should have been renewed by now, and has half of its time left."""
    return lease_time() - duration.total_seconds() / 2


@pytest.fixture
def store() -> Answering:
    return Answering()


@pytest.fixture
def renewer(store: Executor) -> Iterator[Renewer]:
    renewer = Renewer(store)
    yield renewer
    renewer.close()


def keep(renewer: Renewer, of: Lease, sent: float | None = None) -> HeldLease:
    return renewer.keep(of, sent=lease_time() if sent is None else sent)


# -- how long a lease may be trusted ----------------------------------------------------------------------------


def test_a_lease_is_trusted_from_before_the_send_less_a_margin() -> None:
    assert local_end(100.0, timedelta(seconds=10)) == pytest.approx(110.0 - 10 * MARGIN)
    assert local_end(100.0, None) is None


def test_l10_an_answer_that_comes_after_the_lease_is_a_loss_from_the_start(renewer: Renewer) -> None:
    held = keep(renewer, lease(), sent=lease_time() - 3_600)
    assert held.lost.is_set()
    assert held.time_remaining() == timedelta(0)
    with pytest.raises(LeaseLost) as lost:
        held.raise_if_lost()
    assert (lost.value.resource, lost.value.token) == ("j/k", 1)


def test_the_signal_of_loss_needs_no_thread() -> None:
    signal = LostSignal(lease_time() - 1)
    assert signal.is_set()
    assert LostSignal(None).is_set() is False
    assert LostSignal(lease_time() + 3_600).wait(0.0) is False


def test_waiting_for_the_loss_ends_with_the_lease() -> None:
    assert LostSignal(lease_time() + 0.05).wait(PATIENCE)
    assert LostSignal(lease_time() + 0.05).wait()


def test_waiting_for_the_loss_notices_that_the_end_came_nearer() -> None:
    signal = LostSignal(lease_time() + 3_600)
    threading.Timer(0.05, lambda: setattr(signal, "end", lease_time())).start()
    assert signal.wait(PATIENCE)


def test_a_loss_stays_lost_whatever_comes_later(store: Answering, renewer: Renewer) -> None:
    held = keep(renewer, lease(), sent=lease_time() - 3_600)
    assert held.lost.is_set()
    held.settle(Renewed.HELD, Renewal(lease=held.lease, duration=HOUR), sent=lease_time())
    assert held.lost.is_set()
    assert held.time_remaining() == timedelta(0)


def test_a_lease_for_ever_is_neither_renewed_nor_lost(store: Answering, renewer: Renewer) -> None:
    held = keep(renewer, lease(duration=None), sent=0.0)
    assert held.time_remaining() is None
    held.raise_if_lost()
    held.touch(HOUR)
    assert held.time_remaining() is None
    assert [renewal.duration for renewal in store.asked] == [None]


# -- renewing ---------------------------------------------------------------------------------------------------


def test_leases_are_renewed_at_a_third_and_trusted_longer_then(store: Answering, renewer: Renewer) -> None:
    sent = overdue()
    held = keep(renewer, lease(), sent=sent)
    store.wait_for(lambda: len(store.asked) == 1)
    assert wait_until(lambda: held.renewed > sent)
    assert held.time_remaining() > HOUR * 0.9  # type: ignore[operator]
    assert not held.lost.is_set()


def wait_until(happened: Callable[[], bool]) -> bool:
    """Whether it happened; what is waited for here is another thread's next step."""
    pause, end = threading.Event(), lease_time() + PATIENCE
    while not happened() and lease_time() < end:
        pause.wait(0.002)
    return happened()


def test_a_young_lease_is_left_alone(store: Answering, renewer: Renewer) -> None:
    young, old = keep(renewer, lease("young")), keep(renewer, lease("old"), sent=overdue())
    store.wait_for(lambda: bool(store.asked))
    assert [renewal.lease for renewal in store.asked] == [old.lease]
    assert not young.lost.is_set()


def test_many_leases_are_renewed_in_few_batches(store: Answering, renewer: Renewer) -> None:
    gate = threading.Event()

    def wait_first(renewal: Renewal) -> Renewed:
        assert gate.wait(PATIENCE)
        return Renewed.HELD

    store.answers = wait_first
    for number in range(100):
        keep(renewer, lease(f"k{number}"), sent=overdue())
    gate.set()
    store.wait_for(lambda: len(store.asked) == 100)
    assert len(store.batches) <= 3


def test_a_lost_lease_is_told_at_once_and_no_other(store: Answering, renewer: Renewer) -> None:
    store.answers = lambda renewal: Renewed.LOST if renewal.lease.token == 2 else Renewed.HELD
    well, lost = keep(renewer, lease("a", token=1), overdue()), keep(renewer, lease("b", token=2), overdue())
    assert lost.lost.wait(PATIENCE)
    assert lost.time_remaining() == timedelta(0)
    assert not well.lost.is_set()


def test_a_request_to_stop_is_passed_on_and_the_lease_kept(store: Answering, renewer: Renewer) -> None:
    store.answers = lambda renewal: Renewed.CANCELLING
    held = keep(renewer, lease(), overdue())
    assert held.cancelled.wait(PATIENCE)
    assert not held.lost.is_set()


def test_a_stopped_lease_is_neither_renewed_nor_reported_lost(store: Answering, renewer: Renewer) -> None:
    store.answers = lambda renewal: Renewed.LOST
    stopped = keep(renewer, lease("stopped"), sent=lease_time())
    stopped.stop()
    other = keep(renewer, lease("other"), sent=overdue())
    assert other.lost.wait(PATIENCE)
    assert [renewal.lease for renewal in store.asked] == [other.lease]
    assert not stopped.lost.is_set()


def test_g9_a_store_that_comes_back_in_time_costs_nothing(store: Answering, renewer: Renewer) -> None:
    brief = timedelta(seconds=8)
    failures = [StoreUnavailable("away"), OutcomeUnknown("perhaps"), ValueError("a bug of the runner")]

    def fail_first(renewal: Renewal) -> Renewed:
        if failures:
            raise failures.pop()
        return Renewed.HELD

    store.answers = fail_first
    sent = overdue(brief)
    held = keep(renewer, lease(duration=brief), sent=sent)
    assert wait_until(lambda: held.renewed > sent)
    assert len(store.asked) == 4
    assert not held.lost.is_set()


def test_a_store_that_stays_away_loses_the_lease_at_its_local_end(store: Answering, renewer: Renewer) -> None:
    def away(renewal: Renewal) -> Renewed:
        raise StoreUnavailable("away")

    store.answers = away
    brief = timedelta(milliseconds=300)
    held = keep(renewer, lease(duration=brief))
    assert held.lost.wait(PATIENCE)
    assert lease_time() >= held.renewed + brief.total_seconds() * (1 - MARGIN)
    assert store.asked


def test_failures_of_long_leases_do_not_delay_short_ones(store: Answering, renewer: Renewer) -> None:
    def long_ones_fail(renewal: Renewal) -> Renewed:
        if renewal.duration == HOUR:
            raise StoreUnavailable("away")
        return Renewed.HELD

    store.answers = long_ones_fail
    keep(renewer, lease("long"), overdue())
    store.wait_for(lambda: bool(store.asked))
    brief = timedelta(minutes=1)
    sent = overdue(brief)
    short = keep(renewer, lease("short", brief), sent)
    assert wait_until(lambda: short.renewed > sent)


def test_g9_a_store_that_hangs_cannot_keep_a_loss_secret(store: Answering) -> None:
    gate = threading.Event()

    def hang(renewal: Renewal) -> Renewed:
        gate.wait(PATIENCE)
        return Renewed.HELD

    store.answers = hang
    renewer = Renewer(store)
    brief = timedelta(milliseconds=200)
    held = keep(renewer, lease(duration=brief), sent=overdue(brief))
    assert held.lost.wait(PATIENCE)
    gate.set()
    renewer.close()
    assert held.lost.is_set()


def test_a_refused_renewal_ends_in_a_loss_and_not_in_a_loop(store: Answering, renewer: Renewer) -> None:
    def refuse(renewal: Renewal) -> Renewed:
        raise InvalidRequest("lease", 1, "another one")

    store.answers = refuse
    held = keep(renewer, lease(), overdue())
    assert wait_until(lambda: held.stopped)
    assert len(store.asked) == 1


def test_g9_a_body_that_never_sleeps_keeps_its_lock() -> None:
    """The body holds the interpreter all the time; the renewal thread must get its turn nevertheless."""
    store = MemoryStore()
    lock = LockRequest(lock=LockId("l"), holder="ann", lease=timedelta(seconds=1))
    sent = lease_time()
    answer = store.lock(lock)
    assert answer.lease is not None
    renewer = Renewer(store)
    held = renewer.keep(answer.lease, sent=sent)
    while lease_time() < sent + 2.5:
        sum(range(20_000))
    assert not held.lost.is_set()
    assert not store.lock(LockRequest(lock=LockId("l"), holder="bob", lease=HOUR)).acquired
    renewer.close()
    assert store.unlock(answer.lease)


# -- touch ------------------------------------------------------------------------------------------------------


def test_a_touch_renews_now_and_may_change_the_duration(store: Answering, renewer: Renewer) -> None:
    held = keep(renewer, lease(duration=timedelta(minutes=1)))
    held.touch(HOUR)
    assert held.time_remaining() > HOUR * 0.9  # type: ignore[operator]
    held.touch()
    held.progress(3, 10, "on the way")
    assert [renewal.duration for renewal in store.asked] == [HOUR] * 3
    assert store.asked[-1].progress == Progress(done=3, total=10, message="on the way")


def test_a_touch_to_a_shorter_duration_is_renewed_sooner(store: Answering, renewer: Renewer) -> None:
    held = keep(renewer, lease())
    held.touch(timedelta(seconds=3))
    store.wait_for(lambda: len(store.asked) >= 2)
    assert not held.lost.is_set()


def test_a_shorter_touch_with_an_unknown_outcome_is_trusted_no_longer(store: Answering, renewer: Renewer) -> None:
    held = keep(renewer, lease())

    def unknown(renewal: Renewal) -> Renewed:
        raise OutcomeUnknown("perhaps")

    store.answers = unknown
    with pytest.raises(OutcomeUnknown):
        held.touch(timedelta(seconds=30))
    assert held.time_remaining() < timedelta(seconds=31)  # type: ignore[operator]


def test_a_touch_of_a_lost_lease_says_so_and_asks_nobody(store: Answering, renewer: Renewer) -> None:
    held = keep(renewer, lease(), sent=lease_time() - 3_600)
    with pytest.raises(LeaseLost):
        held.touch()
    assert store.asked == []


def test_a_touch_that_is_refused_is_a_loss(store: Answering, renewer: Renewer) -> None:
    store.answers = lambda renewal: Renewed.LOST
    held = keep(renewer, lease())
    with pytest.raises(LeaseLost):
        held.touch()
    assert held.lost.is_set()


def test_g16_a_bad_touch_changes_nothing(store: Answering, renewer: Renewer) -> None:
    held = keep(renewer, lease())
    with pytest.raises(InvalidRequest):
        held.touch(timedelta(seconds=-1))
    assert (held.duration, store.asked) == (HOUR, [])

    def too_short(renewal: Renewal) -> Renewed:
        raise InvalidRequest("duration", renewal.duration, "at least 2 seconds in this store")

    store.answers = too_short
    with pytest.raises(InvalidRequest):
        held.touch(timedelta(seconds=1))
    assert held.duration == HOUR


def test_a_touch_and_the_thread_never_renew_one_lease_at_once(store: Answering, renewer: Renewer) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def count(renewal: Renewal) -> Renewed:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        threading.Event().wait(0.005)
        with lock:
            inside -= 1
        return Renewed.HELD

    store.answers = count
    held = keep(renewer, lease(duration=timedelta(seconds=1)))
    for _ in range(60):
        held.renewed -= 0.5  # the thread thinks that it is late
        held.touch()
    assert most == 1


# -- beginnings and ends ----------------------------------------------------------------------------------------


def test_there_is_no_thread_without_a_lease(store: Answering) -> None:
    renewer = Renewer(store)
    assert renewer._thread is None
    held = keep(renewer, lease())
    first = renewer._thread
    assert first is not None
    assert first.daemon
    held.stop()
    renewer.wake()
    first.join(PATIENCE)
    assert not first.is_alive()
    keep(renewer, lease())
    assert renewer._thread is not first
    renewer.close()


def test_g17_close_ends_the_thread_and_may_be_called_twice(store: Answering) -> None:
    renewer = Renewer(store)
    held = keep(renewer, lease())
    thread = renewer._thread
    assert thread is not None
    renewer.close()
    assert not thread.is_alive()
    renewer.close()
    assert not held.lost.is_set()
    Renewer(store).close()


def test_g17_close_does_not_wait_for_a_store_that_hangs(store: Answering) -> None:
    gate = threading.Event()

    def hang(renewal: Renewal) -> Renewed:
        gate.wait(PATIENCE)
        return Renewed.HELD

    store.answers = hang
    renewer = Renewer(store)
    keep(renewer, lease(), overdue())
    store.wait_for(lambda: bool(store.asked))
    renewer.close(timeout=0.01)
    assert not gate.is_set()
    gate.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_childs_leases_are_renewed_by_a_thread_of_its_own(store: Answering, renewer: Renewer) -> None:
    keep(renewer, lease("parent"))
    with renewer._changed:  # the worst moment: the lock is taken, and in the child nobody will ever release it
        child = os.fork()
        if child == 0:
            os._exit(0 if _renews_in_child(store, renewer) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def _renews_in_child(store: Answering, renewer: Renewer) -> bool:
    try:
        store.heard = threading.Condition()
        sent = overdue()
        held = renewer.keep(lease("child"), sent=sent)
        renewed = wait_until(lambda: held.renewed > sent)
        return renewed and [renewal.lease for renewal in store.asked] == [held.lease]
    except BaseException:
        return False
