"""The store in memory: many threads, moved clocks, watches, order, purge, and nothing that grows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar, cast

import pytest

from onceward.contracts import (
    Cancelled,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    ConfigWrite,
    Interest,
    InvalidRequest,
    Json,
    Lease,
    LockId,
    LockRequest,
    Purge,
    Rearm,
    Renewal,
    Renewed,
    Run,
    RunId,
    RunQuery,
    RunSpec,
    Status,
    Want,
)
from onceward.runners.clock import ManualClock, SystemClock
from onceward.runners.memory import MemoryStore

T = TypeVar("T")
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[MemoryStore]:
    store = MemoryStore(clock=clock)
    yield store
    store.close()


def at_once(threads: int, work: Callable[[int], T]) -> list[T]:
    """What each thread answered; all of them start together."""
    start = threading.Barrier(threads)

    def begin(number: int) -> T:
        start.wait(10)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return [future.result(30) for future in [pool.submit(begin, number) for number in range(threads)]]


def take(store: MemoryStore, *jobs: str, limit: int = 1, lease: timedelta = HOUR) -> list[Run]:
    return list(store.claim(Claim.of(*jobs, holder="ann", lease=lease, limit=limit)))


def keys(runs: list[Run]) -> list[str]:
    return [run.key for run in runs]


def lease_of(run: Run) -> Lease:
    assert run.lease is not None
    return run.lease


# -- exactly one ------------------------------------------------------------------------------------------------


def test_g1_of_many_threads_one_is_admitted_to_each_run(store: MemoryStore) -> None:
    def everything(number: int) -> list[str]:
        requests = [CheckIn(run=RunId("j", f"k{i}"), holder=f"h{number}", lease=HOUR) for i in range(200)]
        return [each.run.key for each in requests if store.checkin(each).outcome.admitted]

    admitted = [key for each in at_once(8, everything) for key in each]
    assert sorted(admitted) == sorted(f"k{i}" for i in range(200))


def test_g1_of_many_threads_one_claims_each_run(store: MemoryStore) -> None:
    store.submit([RunSpec.of("j", f"k{i}") for i in range(400)])

    def drain(number: int) -> list[Run]:
        mine: list[Run] = []
        while found := store.claim(Claim.of("j", holder=f"h{number}", lease=HOUR, limit=7)):
            mine += found
        return mine

    claimed = [run for each in at_once(8, drain) for run in each]
    assert sorted(keys(claimed)) == sorted(f"k{i}" for i in range(400))
    assert len({run.token for run in claimed}) == 400


def test_g12_max_running_holds_between_threads(store: MemoryStore) -> None:
    store.submit([RunSpec.of("j", f"k{i}") for i in range(100)])

    def greedy(number: int) -> int:
        wants = (Want(job="j", max_running=5),)
        return sum(len(store.claim(Claim(holder=f"h{number}", lease=HOUR, limit=3, wants=wants))) for _ in range(9))

    assert sum(at_once(8, greedy)) == 5
    assert store.counts()["j"] == {Status.RUNNING: 5, Status.SCHEDULED: 95}


def test_g3_of_many_threads_one_gets_the_lock(store: MemoryStore) -> None:
    lock = LockId("l")
    answers = at_once(8, lambda number: store.lock(LockRequest(lock=lock, holder=f"h{number}", lease=HOUR)))
    (winner,) = [answer for answer in answers if answer.acquired]
    assert all(answer.lease == winner.lease for answer in answers)


# -- order and time ---------------------------------------------------------------------------------------------


def test_g13_priority_then_time_then_submission_across_jobs(store: MemoryStore, clock: ManualClock) -> None:
    store.submit(
        [
            RunSpec(id=RunId("a", "low"), priority=-5),
            RunSpec(id=RunId("a", "later"), after=SECOND),
            RunSpec(id=RunId("b", "first")),
            RunSpec(id=RunId("a", "second")),
            RunSpec(id=RunId("b", "high"), priority=5, after=SECOND),
            RunSpec(id=RunId("b", "never"), after=HOUR),
        ]
    )
    clock.advance(SECOND)
    assert keys(take(store, "a", "b", limit=10)) == ["high", "first", "second", "later", "low"]


def test_g13_a_lapsed_run_takes_its_old_place(store: MemoryStore, clock: ManualClock) -> None:
    store.submit([RunSpec.of("j", "one"), RunSpec.of("j", "two"), RunSpec.of("j", "urgent", priority=9)])
    assert keys(take(store, "j", limit=2, lease=SECOND)) == ["urgent", "one"]
    clock.advance(SECOND)
    assert keys(take(store, "j", limit=9)) == ["urgent", "one", "two"]


def test_a_renewal_may_shorten_a_lease_and_the_queue_notices(store: MemoryStore, clock: ManualClock) -> None:
    store.submit([RunSpec.of("j", "k")])
    (run,) = take(store, "j")
    assert store.renew([Renewal(lease=lease_of(run), duration=SECOND)]) == [Renewed.HELD]
    clock.advance(SECOND)
    assert keys(take(store, "j")) == ["k"]


def test_a_renewed_run_is_left_alone_until_its_new_end(store: MemoryStore, clock: ManualClock) -> None:
    store.submit([RunSpec.of("j", "k")])
    (run,) = take(store, "j", lease=SECOND)
    for _ in range(5):
        clock.advance(SECOND * 0.9)
        assert take(store, "j") == []
        assert store.renew([Renewal(lease=lease_of(run))]) == [Renewed.HELD]
    clock.advance(SECOND)
    assert keys(take(store, "j")) == ["k"]


def test_the_wall_clock_may_go_back_without_losing_what_was_due(store: MemoryStore, clock: ManualClock) -> None:
    store.submit([RunSpec(id=RunId("j", "k"), after=SECOND)])
    clock.advance(SECOND)
    watch = store.watch(Interest(jobs=frozenset({"j"})))
    watch.wait(0)
    clock.jump_wall(-HOUR)
    assert take(store, "j") == []
    clock.jump_wall(HOUR)
    assert keys(take(store, "j")) == ["k"]


def test_leases_do_not_end_by_a_jump_of_the_wall_clock(store: MemoryStore, clock: ManualClock) -> None:
    lock = LockRequest(lock=LockId("l"), holder="ann", lease=SECOND)
    assert store.lock(lock).acquired
    clock.jump_wall(HOUR)
    assert not store.lock(LockRequest(lock=LockId("l"), holder="bob", lease=SECOND)).acquired
    clock.advance(SECOND)
    assert store.lock(LockRequest(lock=LockId("l"), holder="bob", lease=SECOND)).acquired


def test_rescheduling_moves_a_run_both_ways(store: MemoryStore, clock: ManualClock) -> None:
    run = RunId("j", "k")
    store.submit([RunSpec(id=run, after=HOUR), RunSpec.of("j", "other")])
    assert store.reschedule(run, run_at=store.now() - SECOND)
    assert keys(take(store, "j", limit=2)) == ["k", "other"]
    assert not store.reschedule(run, run_at=store.now())
    store.checkout([CheckOut.released(lease_of(cast(Run, store.check(run))))])
    assert store.reschedule(run, run_at=store.now() + HOUR)
    assert take(store, "j", limit=2) == []


# -- repetition -------------------------------------------------------------------------------------------------


def test_g7_a_repeated_claim_answers_with_what_it_still_holds(store: MemoryStore) -> None:
    store.submit([RunSpec.of("j", f"k{i}") for i in range(4)])
    request = Claim.of("j", holder="ann", lease=HOUR, limit=2)
    first = store.claim(request)
    assert store.claim(request) == first
    store.checkout([CheckOut.succeeded(lease_of(first[0]))])
    assert store.claim(request) == [first[1]]
    store.checkout([CheckOut.succeeded(lease_of(first[1]))])
    assert keys(list(store.claim(request))) == ["k2", "k3"]


def test_g7_a_repeated_submission_is_true_again_and_another_one_false(store: MemoryStore) -> None:
    spec = RunSpec.of("j", "k", {"n": 1})
    assert store.submit([spec, RunSpec.of("j", "k", {"n": 2})]) == [True, False]
    assert store.submit([spec]) == [True]
    assert cast(Run, store.check(spec.id)).payload == {"n": 1}


def test_g11_versions_of_configurations_never_come_back(store: MemoryStore) -> None:
    first = ConfigWrite(name="c", document={"a": 1}, expected_version=0)
    made = store.write_config(first)
    assert made is not None
    assert store.write_config(first) == made
    assert store.write_config(ConfigWrite(name="c", document={"a": 9}, expected_version=0)) is None
    gone = store.write_config(ConfigWrite(name="c", document=None, expected_version=1))
    assert gone is not None
    assert gone.document == {"a": 1}
    assert store.read_config("c") is None
    assert store.configs() == []
    again = store.write_config(ConfigWrite(name="c", document={"a": 2}, expected_version=0))
    assert again is not None
    assert again.version > made.version


# -- what comes in and goes out ---------------------------------------------------------------------------------


def test_payloads_are_the_stores_own(store: MemoryStore) -> None:
    items: list[Json] = [1]
    payload: Json = {"items": items}
    store.submit([RunSpec.of("j", "k", payload)])
    items.append(2)
    (run,) = take(store, "j")
    assert run.payload == {"items": [1]}
    cast(dict[str, list[Json]], run.payload)["items"].append(3)
    assert cast(Run, store.check(run.id)).payload == {"items": [1]}


def test_g16_one_bad_item_in_a_batch_means_nothing_of_it_is_done(store: MemoryStore) -> None:
    nan = float("nan")
    with pytest.raises(InvalidRequest, match="payload"):
        store.submit([RunSpec.of("j", "good"), RunSpec.of("j", "bad", nan)])
    assert store.runs(RunQuery()) == []
    store.submit([RunSpec.of("j", "a"), RunSpec.of("j", "b")])
    one, two = (lease_of(run) for run in take(store, "j", limit=2))
    with pytest.raises(InvalidRequest, match="result"):
        store.checkout([CheckOut.succeeded(one), CheckOut.succeeded(two, nan)])
    assert store.counts("j")["j"] == {Status.RUNNING: 2}
    with pytest.raises(InvalidRequest, match="payload"):
        store.checkin(CheckIn(run=RunId("j", "c"), holder="h", payload=nan))
    assert store.check(RunId("j", "c")) is None


def test_listings_page_through_everything_once(store: MemoryStore) -> None:
    store.submit([RunSpec.of("a" if i % 2 else "b", f"k{i}") for i in range(10)])
    newest = store.runs(RunQuery(limit=4))
    assert [run.key for run in newest] == ["k9", "k8", "k7", "k6"]
    rest = store.runs(RunQuery(after=newest[-1].sequence))
    assert [run.key for run in rest] == ["k5", "k4", "k3", "k2", "k1", "k0"]
    oldest = store.runs(RunQuery(job="a", oldest_first=True, limit=2))
    assert [run.key for run in oldest] == ["k1", "k3"]
    assert [run.key for run in store.runs(RunQuery(job="a", oldest_first=True, after=oldest[-1].sequence))] == [
        "k5",
        "k7",
        "k9",
    ]
    assert store.runs(RunQuery(key="k3"))[0].job == "a"
    assert store.runs(RunQuery(job="b", key="k3", stamp="")) == []
    assert len(store.runs(RunQuery(job="a", key="k3", stamp=""))) == 1
    assert store.runs(RunQuery(statuses=frozenset({Status.RUNNING}))) == []


def test_lapsed_runs_can_be_listed(store: MemoryStore, clock: ManualClock) -> None:
    store.submit([RunSpec.of("j", "dead"), RunSpec.of("j", "well")])
    take(store, "j", lease=SECOND)
    take(store, "j", lease=HOUR)
    clock.advance(SECOND)
    assert [run.key for run in store.runs(RunQuery(lapsed=True))] == ["dead"]


# -- purge, force, re-arm ---------------------------------------------------------------------------------------


def finish(store: MemoryStore, *names: str, job: str = "j") -> None:
    store.submit([RunSpec.of(job, name) for name in names])
    for run in take(store, job, limit=len(names)):
        store.checkout([CheckOut.succeeded(lease_of(run))])


def left(store: MemoryStore) -> list[str]:
    return [run.key for run in store.runs(RunQuery(oldest_first=True))]


def test_g14_purge_takes_only_what_ended_long_enough_ago(store: MemoryStore, clock: ManualClock) -> None:
    finish(store, "old")
    clock.advance(SECOND)
    finish(store, "new")
    store.submit([RunSpec.of("j", "running"), RunSpec(id=RunId("j", "scheduled"), after=HOUR)])
    take(store, "j", lease=SECOND)
    assert store.purge(Purge(older_than=timedelta(seconds=1, milliseconds=1))) == 0
    assert store.purge(Purge(older_than=SECOND)) == 1
    assert left(store) == ["new", "running", "scheduled"]
    clock.advance(HOUR * 2)
    assert store.purge(Purge(older_than=timedelta(0))) == 1
    assert left(store) == ["running", "scheduled"]


def test_purge_keeps_the_latest_of_each_job_and_heeds_its_limit(store: MemoryStore) -> None:
    finish(store, "a1", "a2", "a3", job="a")
    finish(store, "b1", job="b")
    zero = timedelta(0)
    assert store.purge(Purge(older_than=zero, keep_last=1, limit=1)) == 1
    assert left(store) == ["a2", "a3", "b1"]
    assert store.purge(Purge(older_than=zero, keep_last=1)) == 1
    assert left(store) == ["a3", "b1"]
    assert store.purge(Purge(older_than=zero, statuses=frozenset({Status.FAILED}))) == 0
    assert store.purge(Purge(older_than=zero, job="b")) == 1
    assert left(store) == ["a3"]


def test_purge_works_after_the_wall_clock_went_back(store: MemoryStore, clock: ManualClock) -> None:
    clock.advance(HOUR)
    finish(store, "from the future")
    clock.jump_wall(-HOUR)
    finish(store, "old")
    clock.advance(SECOND)
    assert store.purge(Purge(older_than=SECOND)) == 1
    assert left(store) == ["from the future"]


def test_g2_tokens_go_on_behind_a_purge(store: MemoryStore) -> None:
    finish(store, "k")
    before = cast(Run, store.check(RunId("j", "k"))).token
    assert store.purge(Purge(older_than=timedelta(0))) == 1
    finish(store, "k")
    assert cast(Run, store.check(RunId("j", "k"))).token > before


def test_forcing_a_run_fences_its_holder_off(store: MemoryStore) -> None:
    store.submit([RunSpec.of("j", "k")])
    (run,) = take(store, "j")
    assert store.force_unlock(run.id, token=run.token + 1) is None
    assert store.force_unlock(run.id, token=run.token) == run.lease
    assert store.force_unlock(run.id) is None
    assert store.renew([Renewal(lease=lease_of(run))]) == [Renewed.LOST]
    assert store.checkout([CheckOut.succeeded(lease_of(run))]) == [False]
    (again,) = take(store, "j")
    assert again.token > run.token + 1


def test_forcing_a_lock_fences_its_holder_off(store: MemoryStore) -> None:
    lock = LockId("l")
    request = LockRequest(lock=lock, holder="ann", lease=HOUR)
    lease = store.lock(request).lease
    assert lease is not None
    assert store.force_unlock(lock) == lease
    assert not store.unlock(lease)
    assert store.renew([Renewal(lease=lease)]) == [Renewed.LOST]
    after = store.lock(LockRequest(lock=lock, holder="bob", lease=HOUR)).lease
    assert after is not None
    assert after.token > lease.token + 1
    assert store.force_unlock(LockId("unknown")) is None


def test_ended_runs_are_rearmed_by_their_newest_token(store: MemoryStore) -> None:
    finish(store, "k")
    run = RunId("j", "k")
    token = cast(Run, store.check(run)).token
    asked = [Rearm(run=run, token=token - 1), Rearm(run=run, token=token), Rearm(run=RunId("j", "no"), token=0)]
    assert store.rearm(asked) == [False, True, False]
    assert keys(take(store, "j")) == ["k"]


def test_cancel_answers_for_every_state(store: MemoryStore) -> None:
    run = RunId("j", "k")
    assert store.cancel(run) is Cancelled.ABSENT
    store.submit([RunSpec(id=run)])
    assert store.cancel(run) is Cancelled.CANCELLED
    assert take(store, "j") == []
    assert store.checkin(CheckIn(run=run, holder="h")).outcome is CheckInOutcome.CANCELLED


# -- locks ------------------------------------------------------------------------------------------------------


def test_g7_a_late_copy_of_a_lock_request_is_not_granted_again(store: MemoryStore, clock: ManualClock) -> None:
    request = LockRequest(lock=LockId("l"), holder="ann", lease=SECOND)
    lease = store.lock(request).lease
    assert lease is not None
    assert store.lock(request).lease == lease
    assert store.unlock(lease)
    assert store.unlock(lease)
    late = store.lock(request)
    assert (late.acquired, late.lease) == (False, None)


def test_a_lock_that_has_lapsed_is_not_its_holders_any_more(store: MemoryStore, clock: ManualClock) -> None:
    lease = store.lock(LockRequest(lock=LockId("l"), holder="ann", lease=SECOND)).lease
    assert lease is not None
    clock.advance(SECOND)
    assert store.renew([Renewal(lease=lease)]) == [Renewed.LOST]
    assert not store.unlock(lease)
    (state,) = store.locks()
    assert state.remaining == timedelta(0)


def test_locks_are_listed_by_name_while_they_are_held(store: MemoryStore) -> None:
    for name in ("b", "a", "c"):
        store.lock(LockRequest(lock=LockId(name), holder="ann", lease=HOUR, note=f"note {name}"))
    freed = store.locks()[1].lease
    store.unlock(freed)
    assert [(state.lease.resource, state.note) for state in store.locks()] == [
        (LockId("a"), "note a"),
        (LockId("c"), "note c"),
    ]


# -- watches ----------------------------------------------------------------------------------------------------


def woken(store: MemoryStore, interest: Interest, change: Callable[[], object]) -> bool:
    """Whether a change wakes a watch that a thread is waiting on already."""
    with store.watch(interest) as watch, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(watch.wait, 5.0)
        change()
        return waiting.result(10)


def test_g15_a_watch_is_woken_by_every_kind_of_change(store: MemoryStore, clock: ManualClock) -> None:
    run, lock = RunId("j", "k"), LockId("l")
    job, ending = Interest(jobs=frozenset({"j"})), Interest(runs=frozenset({run}))
    assert woken(store, job, lambda: store.submit([RunSpec(id=run, after=SECOND)]))
    assert woken(store, job, lambda: clock.advance(SECOND))
    (held,) = take(store, "j", lease=SECOND)
    assert woken(store, job, lambda: clock.advance(SECOND))
    assert woken(store, ending, lambda: store.checkout([CheckOut.succeeded(lease_of(held))]))
    lease = store.lock(LockRequest(lock=lock, holder="ann", lease=SECOND)).lease
    assert lease is not None
    freed = Interest(locks=frozenset({"l"}))
    assert woken(store, freed, lambda: store.unlock(lease))
    store.lock(LockRequest(lock=lock, holder="ann", lease=SECOND))
    assert woken(store, freed, lambda: clock.advance(SECOND))
    store.lock(LockRequest(lock=lock, holder="ann", lease=SECOND))
    assert woken(store, freed, lambda: store.force_unlock(lock))
    write = ConfigWrite(name="c", document={}, expected_version=0)
    assert woken(store, Interest(configs=True), lambda: store.write_config(write))


def test_g15_a_change_between_the_look_and_the_wait_is_not_missed(store: MemoryStore) -> None:
    with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
        assert not watch.wait(0)
        store.submit([RunSpec.of("j", "k")])
        assert watch.wait(0)
        assert not watch.wait(0)


def test_a_watch_is_not_woken_by_what_it_is_not_for(store: MemoryStore) -> None:
    with store.watch(Interest(jobs=frozenset({"j"}), runs=frozenset({RunId("other", "x")}))) as watch:
        store.submit([RunSpec.of("other", "k"), RunSpec.of("other", "x")])
        store.lock(LockRequest(lock=LockId("j"), holder="ann", lease=HOUR))
        store.write_config(ConfigWrite(name="j", document={}, expected_version=0))
        assert not watch.wait(0)


def test_g17_closing_ends_watches_and_forgets_them(store: MemoryStore) -> None:
    watch = store.watch(Interest(jobs=frozenset({"j"})))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(watch.wait, 60.0)
        store.close()
        assert waiting.result(10) is False
    watch.close()
    store.close()
    assert not store._watches


# -- nothing grows ----------------------------------------------------------------------------------------------


def hints(store: MemoryStore) -> int:
    queue = store._runs._queues["j"]
    return len(queue._waiting) + len(queue._leased) + len(queue._ready)


def test_hints_of_one_run_do_not_pile_up(store: MemoryStore) -> None:
    store.submit([RunSpec.of("j", "k")])
    for _ in range(2_000):
        (run,) = take(store, "j")
        assert store.checkout([CheckOut.released(lease_of(run))]) == [True]
    assert hints(store) <= 300
    for _ in range(2_000):
        store.reschedule(RunId("j", "k"), run_at=store.now() + HOUR)
    assert hints(store) <= 300


def test_nothing_is_lost_when_hints_are_dropped(store: MemoryStore, clock: ManualClock) -> None:
    specs = [RunSpec(id=RunId("j", f"k{i}"), priority=i % 7, after=SECOND * (i % 3)) for i in range(900)]
    store.submit(specs)
    for spec in specs[::2]:
        store.reschedule(spec.id, run_at=store.now() + SECOND)
    taken = take(store, "j", limit=100, lease=SECOND)
    clock.advance(SECOND * 2)
    assert len(taken) == 100
    assert sorted(keys(take(store, "j", limit=1_000))) == sorted(spec.id.key for spec in specs)


def test_r1_refused_requests_leave_nothing(store: MemoryStore) -> None:
    run, lock = RunId("j", "k"), LockId("l")
    store.checkin(CheckIn(run=run, holder="ann", lease=HOUR))
    store.lock(LockRequest(lock=lock, holder="ann", lease=HOUR))
    before = (hints(store), store._token, store._sequence, len(store._runs._held_by), len(store._locks._entries))
    for _ in range(500):
        assert not store.checkin(CheckIn(run=run, holder="bob", lease=HOUR)).outcome.admitted
        assert not store.lock(LockRequest(lock=lock, holder="bob", lease=HOUR)).acquired
        assert take(store, "j") == []
    after = (hints(store), store._token, store._sequence, len(store._runs._held_by), len(store._locks._entries))
    assert after == before


def test_ended_and_purged_runs_leave_nothing(store: MemoryStore) -> None:
    finish(store, *(f"k{i}" for i in range(50)))
    assert store._runs._held_by == {}
    assert store.purge(Purge(older_than=timedelta(0))) == 50
    assert (len(store._runs), len(store._runs._ended), hints(store)) == (0, 0, 0)


# -- clocks -----------------------------------------------------------------------------------------------------


def test_the_machines_clock_goes_on_and_a_manual_one_only_when_moved(clock: ManualClock) -> None:
    system = SystemClock()
    assert system.elapsed_ms() <= system.elapsed_ms()
    before = (clock.elapsed_ms(), clock.wall_ms())
    clock.advance(SECOND)
    assert (clock.elapsed_ms(), clock.wall_ms()) == (before[0] + 1_000, before[1] + 1_000)
    clock.jump_wall(-HOUR)
    assert (clock.elapsed_ms(), clock.wall_ms()) == (before[0] + 1_000, before[1] + 1_000 - 3_600_000)
