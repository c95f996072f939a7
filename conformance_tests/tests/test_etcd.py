"""The etcd runner on a real server: round trips, leases, what becomes of those who sleep past them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from etcd_support import COMPACT, counted, leases_of, opened, own_server, shared_url

from onceward.conformance.servers.etcd import end_lease
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    Interest,
    Lease,
    LeaseLost,
    LockId,
    LockRequest,
    OutcomeUnknown,
    Purge,
    Renewal,
    Renewed,
    RunId,
    RunQuery,
    RunSpec,
    StoreError,
    StoreUnavailable,
    Want,
    new_request,
)
from onceward.contracts.requests import Ending
from onceward.contracts.runner import Runner
from onceward.runners.clock import ManualClock
from onceward.runners.etcd import EtcdStore, wire
from onceward.runners.etcd.claims import _Taking
from onceward.runners.etcd.rows import MAX_PAYLOAD_BYTES
from onceward.toolkit.locks import Lock

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
RUN = RunId("job", "k")


def enter(store: EtcdStore, run: RunId = RUN, *, lease: timedelta | None = HOUR) -> Lease:
    answer = store.checkin(CheckIn(run=run, holder="ann", lease=lease))
    assert answer.outcome.admitted
    assert answer.run.lease is not None
    return answer.run.lease


def take(store: EtcdStore, name: str = "l", *, lease: timedelta = HOUR) -> Lease:
    answer = store.lock(LockRequest(lock=LockId(name), holder="ann", lease=lease))
    assert answer.acquired
    assert answer.lease is not None
    return answer.lease


# -- round trips ----------------------------------------------------------------------------------------------------


def test_one_trip_each_once_there_is_a_lease() -> None:
    with opened() as store, opened(namespace=store.namespace) as other:
        enter(store, RunId("job", "warm"))
        enter(other, RunId("job", "warm too"))
        with counted(store) as calls, counted(other) as others:
            held = enter(store)
            assert calls == {"Txn": 1}
            assert other.checkin(CheckIn(run=RUN, holder="bob", lease=HOUR)).outcome is CheckInOutcome.RUNNING
            assert others == {"Txn": 1}
            assert store.checkout([CheckOut.succeeded(held)]) == [True]
            assert calls == {"Txn": 2}
            lock = take(store)
            assert calls == {"Txn": 3}
            assert not other.lock(LockRequest(lock=LockId("l"), holder="bob", lease=HOUR)).acquired
            assert others == {"Txn": 2}
            assert store.unlock(lock)
            assert calls == {"Txn": 4}
            store.unlock(take(store))
            assert calls == {"Txn": 6}


def test_a_first_lease_costs_a_trip_and_a_hold_taken_elsewhere_a_look() -> None:
    with opened() as store, opened(namespace=store.namespace) as other:
        with counted(store) as calls:
            held = enter(store)
            assert calls == {"LeaseGrant": 1, "Txn": 1}
        with counted(other) as calls:
            assert other.checkout([CheckOut.succeeded(held)]) == [True]
            assert calls == {"Txn": 2}


def test_a_hundred_take_a_few_trips() -> None:
    with opened() as store:
        with counted(store) as calls:
            assert store.submit([RunSpec.of("job", f"k{n}") for n in range(100)]) == [True] * 100
            assert calls == {"Txn": 1}
        enter(store, RunId("other", "warm"))
        with counted(store) as calls:
            runs = store.claim(Claim.of("job", holder="ann", lease=HOUR, limit=100))
            assert [run.key for run in runs] == [f"k{n}" for n in range(100)]
            # to find the row, to look, a memo's lease, to take: what was submitted here need not be read
            assert calls == {"Txn": 3, "LeaseGrant": 1}
        leases = [run.lease for run in runs if run.lease is not None]
        with counted(store) as calls:
            assert store.renew([Renewal(lease=lease) for lease in leases]) == [Renewed.HELD] * 100
            assert calls["Txn"] == 1
            assert calls["LeaseGrant"] <= 1
        with counted(store) as calls:
            assert store.checkout([CheckOut.succeeded(lease) for lease in leases]) == [True] * 100
            assert calls == {"Txn": 1}
        store.submit([RunSpec.of("job", f"more {n}") for n in range(100)])
        with opened(namespace=store.namespace) as other:
            enter(other, RunId("other", "warm too"))
            with counted(other) as calls:
                assert len(other.claim(Claim.of("job", holder="bob", lease=HOUR, limit=100))) == 100
                # to find the row, to look, twice to read, a memo's lease, to take
                assert calls == {"Txn": 5, "LeaseGrant": 1}


def test_a_claim_that_finds_nothing_is_one_trip_and_leaves_nothing() -> None:
    with opened() as store, counted(store) as calls:
        assert store.claim(Claim.of("job", holder="ann", lease=HOUR)) == []
        assert calls == {"Txn": 1}


def test_runs_of_one_transaction_have_tokens_of_their_own_in_the_order_of_the_claim() -> None:
    with opened() as store:
        store.submit([RunSpec.of("job", f"k{n}", priority=n) for n in range(5)])
        tokens = [run.token for run in store.claim(Claim.of("job", holder="ann", lease=HOUR, limit=5))]
        assert tokens == sorted(set(tokens))


# -- leases ---------------------------------------------------------------------------------------------------------


def test_failed_acquires_leave_no_leases_behind() -> None:
    with own_server() as server, opened(server.url) as holder:
        take(holder, "l")
        enter(holder)
        before = leases_of(holder)
        rival = EtcdStore(server.url, holder.namespace)
        rival.open()
        for number in range(50):
            assert not rival.lock(LockRequest(lock=LockId("l"), holder=f"h{number}", lease=HOUR)).acquired
            assert not rival.checkin(CheckIn(run=RUN, holder=f"h{number}", lease=HOUR)).outcome.admitted
        assert len(leases_of(holder) - before) <= 2, "more than one for each second or so"
        rival.close()
        assert leases_of(holder) == before


def test_a_lease_that_everybody_has_left_is_gone_with_the_next_one() -> None:
    clock = ManualClock()
    with own_server() as server:
        store = EtcdStore(server.url, "n", clock=clock)
        store.open()
        locks = [take(store, f"l{number}") for number in range(5)]
        assert len(leases_of(store)) == 1
        clock.advance(timedelta(seconds=30))
        take(store, "later")
        assert len(leases_of(store)) == 2
        assert all(map(store.unlock, locks))
        clock.advance(timedelta(seconds=30))
        take(store, "last")
        assert len(leases_of(store)) == 2
        store.close()


def test_what_is_renewed_goes_on_alone() -> None:
    """Holds of one moment share a lease; who renews leaves it to the others."""
    with opened() as store:
        first, second = take(store, "a", lease=SECOND), take(store, "b", lease=SECOND)
        assert store.renew([Renewal(lease=second, duration=HOUR)]) == [Renewed.HELD]
        until = time.monotonic() + 10
        with store.watch(Interest(locks=frozenset({"a"}))) as watch:
            while len(alive(store)) > 1 and time.monotonic() < until:
                watch.wait(1)
        assert alive(store) == {"b"}
        assert store.renew([Renewal(lease=first)]) == [Renewed.LOST]


def test_g1_a_claim_that_takes_longer_than_its_lease_has_each_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened() as store:
        store.submit([RunSpec.of("job", "k")])
        take = store._take

        def slow(taking: Any, found: Any) -> bool:
            take(taking, found)
            for run in taking.taken:
                end_lease(shared_url(), store.namespace, run.lease)
            return not found  # so it looks again

        monkeypatch.setattr(store, "_take", slow)
        found = store.claim(Claim.of("job", holder="ann", lease=HOUR, limit=3))
        assert [(run.key, run.attempt) for run in found] == [("k", 1)]


def test_a_run_that_is_given_back_while_a_claim_looks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease had lapsed before the claim, so there is no moment at which it could not be taken."""
    clock, namespace = ManualClock(), new_request()
    store, other = (EtcdStore(shared_url(), namespace, clock=clock) for _ in range(2))
    store.open()
    other.open()
    held = enter(other)
    end_lease(shared_url(), namespace, held)
    call = store._link.call

    def late(method: str, request: bytes, *, reads: bool) -> bytes:
        monkeypatch.undo()
        clock.advance(timedelta(milliseconds=20))
        assert other.checkout([CheckOut(lease=held, ending=Ending.RELEASED)]) == [True]
        return call(method, request, reads=reads)

    monkeypatch.setattr(store._link, "call", late)
    assert [run.key for run in store.claim(Claim.of("job", holder="bob", lease=HOUR))] == ["k"]
    store.close()
    other.close()


def alive(store: EtcdStore) -> set[str]:
    states = store.locks()
    return {str(s.lease.resource)[5:] for s in states if s.remaining is None or s.remaining > timedelta(0)}


def test_a_lapse_comes_after_the_lease_within_what_is_declared_and_is_told() -> None:
    with opened() as store:
        with store.watch(Interest(locks=frozenset({"l"}))) as watch:
            began = time.monotonic()
            take(store, lease=SECOND)
            told = watch.wait(20)
            took = time.monotonic() - began
        assert told
        assert took >= 1
        answer = store.lock(LockRequest(lock=LockId("l"), holder="bob", lease=HOUR))
        assert answer.acquired


_SLEEPER = """
import sys
from datetime import timedelta
from onceward.contracts import *
from onceward.runners.etcd import EtcdStore

store = EtcdStore(sys.argv[1], sys.argv[2])
store.open()
second = timedelta(seconds=1)
run = store.checkin(CheckIn(run=RunId("job", "k"), holder="sleeper", lease=second)).run.lease
lock = store.lock(LockRequest(lock=LockId("l"), holder="sleeper", lease=second)).lease
print("held", flush=True)
sys.stdin.readline()
print(store.renew([Renewal(lease=run), Renewal(lease=lock)]), store.checkout([CheckOut.succeeded(run, "late")]),
      store.unlock(lock), flush=True)
"""


def test_who_was_stopped_past_its_lease_writes_nothing_any_more() -> None:
    with opened() as store:
        command = [sys.executable, "-c", _SLEEPER, shared_url(), store.namespace]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sleeper:
            assert sleeper.stdout is not None
            assert sleeper.stdin is not None
            assert sleeper.stdout.readline() == "held\n"
            sleeper.send_signal(signal.SIGSTOP)
            try:
                with store.watch(Interest(jobs=frozenset({"job"}), locks=frozenset({"l"}))) as watch:
                    newer = _taken_over(store, watch)
            finally:
                sleeper.send_signal(signal.SIGCONT)
            answers = sleeper.communicate("go\n", timeout=30)[0]
        assert answers == "[<Renewed.LOST: 'lost'>, <Renewed.LOST: 'lost'>] [False] False\n"
        found = store.check(RUN)
        assert found is not None
        assert (found.lease, found.result) == (newer, None)


def _taken_over(store: EtcdStore, watch: object) -> Lease:
    """Somebody else has the run and the lock, as soon as that can be."""
    request = CheckIn(run=RUN, holder="bob", lease=HOUR)
    lock = LockRequest(lock=LockId("l"), holder="bob", lease=HOUR)
    until = time.monotonic() + 20
    while True:
        assert time.monotonic() < until
        watch.wait(1)  # type: ignore[attr-defined]
        answer, locked = store.checkin(request), store.lock(lock)
        if answer.outcome.admitted and locked.acquired:
            assert answer.run.lease is not None
            return answer.run.lease


def test_another_id_is_taken_where_somebody_has_a_lease_with_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, drawn = ManualClock(), iter([1, 1, 2])
    monkeypatch.setattr("onceward.runners.etcd.leases.secrets.randbits", lambda _: next(drawn))
    with own_server() as server:
        for name in ("a", "b"):
            store = EtcdStore(server.url, "n", clock=clock)
            store._link.open()
            take(store, name)
        assert len(leases_of(store)) == 2


def test_a_revoked_lease_is_a_lapse() -> None:
    with opened() as store:
        held = enter(store)
        end_lease(shared_url(), store.namespace, held)
        assert [run.id for run in store.runs(RunQuery(lapsed=True))] == [RUN]
        assert store.renew([Renewal(lease=held)]) == [Renewed.LOST]
        assert store.checkin(CheckIn(run=RUN, holder="bob", lease=HOUR)).outcome is CheckInOutcome.TAKEN_OVER
        assert store.checkout([CheckOut.succeeded(held)]) == [False]


def test_a_job_is_told_that_its_lease_is_gone() -> None:
    """Lapsed in the cluster while its holder is alive, as after an operator's revocation: the next renewal tells."""
    with opened() as store:
        lock = Lock(Runner.of(store, namespace=store.namespace), "l", lease=timedelta(seconds=3))
        lock.acquire()
        end_lease(shared_url(), store.namespace, lock.held.lease)
        assert lock.lost.wait(60)
        with pytest.raises(LeaseLost):
            lock.held.raise_if_lost()
        assert not lock.release()


def test_what_is_renewed_in_time_never_lapses() -> None:
    """G9: leases are moved to younger ones in time; nothing lapses of what is renewed."""
    with opened() as store:
        store.submit([RunSpec.of("job", f"k{number}") for number in range(300)])
        runs = store.claim(Claim.of("job", holder="ann", lease=timedelta(seconds=2), limit=300))
        leases = [run.lease for run in runs if run.lease is not None] + [take(store, lease=timedelta(seconds=2))]
        ends = time.monotonic() + 7
        while time.monotonic() < ends:
            assert set(store.renew([Renewal(lease=lease) for lease in leases])) == {Renewed.HELD}
            with store.watch(Interest(locks=frozenset({"l"}))) as watch:
                assert not watch.wait(0.5), "the lock was let go of"
        assert store.runs(RunQuery(lapsed=True)) == []


def test_a_lease_that_the_cluster_has_lost_is_replaced() -> None:
    """An operator may revoke what nobody stands on yet; the next acquire notices and takes another lease."""
    with opened() as store:
        first = take(store)
        store._link.revoke([lent.id for lent in store._leases._current.values()])
        second = take(store)
        assert second.token > first.token


@pytest.mark.parametrize(("error", "stand"), [(StoreUnavailable("full"), 0), (OutcomeUnknown("no answer"), 1)])
def test_a_lease_is_given_back_where_nothing_was_done(
    monkeypatch: pytest.MonkeyPatch, error: StoreError, stand: int
) -> None:
    with opened() as store:
        store.unlock(take(store))
        monkeypatch.setattr(store._link, "txn", Mock(side_effect=error))
        with pytest.raises(type(error)):
            take(store)
        assert sum(store._leases._used.values()) == stand


WHO = wire._whole(1, 2**64 - 1) + wire._whole(2, 2**63 + 0x18)


@pytest.mark.parametrize("revision", [0, 1, 127, 128, 0x18, 2**40])
@pytest.mark.parametrize("succeeded", [True, False])
@pytest.mark.parametrize("rest", [b"", wire._data(3, b"")])
def test_an_answer_is_read_whatever_its_header_says(revision: int, succeeded: bool, rest: bytes) -> None:
    number, result = wire._whole(3, revision), wire._whole(2, succeeded) + rest
    headers = [wire._data(1, who + number + wire._whole(4, term)) for who in (b"", WHO) for term in (0, 7)]
    for header in [*headers, *([] if revision else [b""])]:
        done = wire.done(header + result)
        assert (done.revision, done.succeeded, done.answers) == (revision, succeeded, [b""] if rest else [])


# -- the queue ------------------------------------------------------------------------------------------------------


def test_a_limit_holds_whatever_other_processes_do_between_look_and_take() -> None:
    with opened() as store, opened(namespace=store.namespace) as other:
        store.submit([RunSpec.of("job", f"k{n}") for n in range(4)])
        want = Want(job="job", max_running=1)
        look, rival = store._look, []

        def interrupted(taking: object) -> object:
            found = look(taking)  # type: ignore[arg-type]
            if not rival:
                rival.extend(other.claim(Claim(holder="bob", lease=HOUR, wants=(want,))))
            return found

        store._look = interrupted  # type: ignore[method-assign, assignment]
        assert store.claim(Claim(holder="ann", lease=HOUR, limit=3, wants=(want,))) == []
        assert len(rival) == 1


def test_a_run_that_is_given_back_between_two_looks_is_not_overlooked() -> None:
    """It had lapsed when the claim looked at what is due, and is due when it looks at what has lapsed."""
    with opened() as store, opened(namespace=store.namespace) as other:
        held = enter(other)
        end_lease(shared_url(), store.namespace, held)
        look = store._lapsed

        def interrupted(job: bytes) -> Iterator[object]:
            other.checkout([CheckOut.released(held)])
            return look(job)

        store._lapsed = interrupted  # type: ignore[method-assign, assignment]
        assert [run.id for run in store.claim(Claim.of("job", holder="bob", lease=HOUR))] == [RUN]


# -- claims without a look ------------------------------------------------------------------------------------------


@pytest.fixture
def quiet() -> Iterator[EtcdStore]:
    """A store that has looked at a job of which nothing runs and nothing waits, and has just submitted a run of it."""
    with opened() as store:
        store.claim(Claim.of("job", holder="ann", lease=HOUR, limit=3))  # it has leases from now on
        enter(store, RunId("other", "warm"))
        store._memo(_Taking(Claim.of("job", holder="ann", lease=HOUR)), [RUN], store._now())
        assert store.claim(Claim.of("job", holder="ann", lease=HOUR, limit=3)) == []
        store.submit([RunSpec.of("job", "k")])
        yield store


def claimed(store: EtcdStore, *, limit: int = 3, want: Want | None = None) -> list[str]:
    wants = (want or Want(job="job"),)
    return [run.key for run in store.claim(Claim(holder="ann", lease=HOUR, limit=limit, wants=wants))]


def test_a_lone_run_that_was_submitted_here_is_taken_in_one_trip(quiet: EtcdStore) -> None:
    with counted(quiet) as calls:
        assert claimed(quiet) == ["k"]
        assert calls == {"Txn": 1}
        assert claimed(quiet) == []
        assert calls == {"Txn": 2}, "what runs now makes a look necessary"


def test_a_run_is_known_as_soon_as_the_watch_tells_of_it(quiet: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet.checkout(
        [CheckOut.succeeded(run.lease) for run in quiet.claim(Claim.of("job", holder="a", lease=HOUR)) if run.lease]
    )
    assert claimed(quiet) == []
    call, got, watch = quiet._link.call, list[str](), quiet.watch(Interest(jobs=frozenset({"job"})))

    def before_the_answer(method: str, request: bytes, *, reads: bool) -> bytes:
        answer = call(method, request, reads=reads)
        if not reads:
            monkeypatch.undo()
            while (b"job/", 1) not in [(job, len(known.waiting)) for job, known in quiet._quiet._jobs.items()]:
                assert watch.wait(10)
            with counted(quiet) as calls:
                got[:] = claimed(quiet)
                assert calls == {"Txn": 1}
        return answer

    monkeypatch.setattr(quiet._link, "call", before_the_answer)
    quiet.submit([RunSpec.of("job", "k2")])
    assert got == ["k2"]
    watch.close()


def test_g13_what_others_have_submitted_meanwhile_has_its_turn(quiet: EtcdStore) -> None:
    with opened(namespace=quiet.namespace) as other:
        other.submit([RunSpec.of("job", "urgent", priority=5)])
    assert claimed(quiet, limit=1) == ["urgent"]


def test_g13_what_others_have_submitted_meanwhile_is_not_left_behind(quiet: EtcdStore) -> None:
    with opened(namespace=quiet.namespace) as other:
        other.submit([RunSpec(id=RunId("job", "earlier"), run_at=quiet.now() - HOUR), RunSpec.of("job", "later")])
    assert claimed(quiet) == ["earlier", "k", "later"]


def test_g13_what_has_lapsed_meanwhile_keeps_its_place(quiet: EtcdStore) -> None:
    with opened(namespace=quiet.namespace) as other:
        other.submit([RunSpec(id=RunId("job", "before"), run_at=quiet.now() - HOUR)])
        (run,) = other.claim(Claim.of("job", holder="bob", lease=HOUR))
        assert run.lease is not None
        end_lease(shared_url(), quiet.namespace, run.lease)
    assert claimed(quiet, limit=1) == ["before"]


def _given_back(store: EtcdStore) -> None:
    (run,) = store.claim(Claim.of("job", holder="bob", lease=HOUR))
    assert run.lease is not None
    assert store.checkout([CheckOut.released(run.lease, at=run.run_at)]) == [True]


def _let_lapse(store: EtcdStore) -> None:
    (run,) = store.claim(Claim.of("job", holder="bob", lease=HOUR))
    assert run.lease is not None
    end_lease(shared_url(), store.namespace, run.lease)


def _put_where_it_was(store: EtcdStore) -> None:
    (run,) = store.runs(RunQuery(key="k", job="job"))
    assert store.reschedule(run.id, run_at=run.run_at)


@pytest.mark.parametrize("limited", [True, False], ids=["without a look", "with a look"])
@pytest.mark.parametrize("meanwhile", [_given_back, _let_lapse, _put_where_it_was])
def test_g13_what_others_have_written_meanwhile_has_its_turn(
    quiet: EtcdStore, meanwhile: Callable[[EtcdStore], None], limited: bool
) -> None:
    """What this process remembers of the run is of no use any more; it is still the first one."""
    quiet.submit([RunSpec.of("job", "k2")])
    with opened(namespace=quiet.namespace) as other:
        meanwhile(other)
    claim = Claim(holder="ann", lease=HOUR, limit=3, wants=(Want(job="job"),) if limited else None)
    assert [run.key for run in quiet.claim(claim)] == ["k", "k2"]


def test_g12_what_others_have_begun_meanwhile_counts(quiet: EtcdStore) -> None:
    with opened(namespace=quiet.namespace) as other:
        enter(other, RunId("job", "begun"))
    assert claimed(quiet, want=Want(job="job", max_running=1)) == []
    assert claimed(quiet, want=Want(job="job", max_running=2)) == ["k"]


def test_g1_what_others_have_taken_or_changed_meanwhile_is_not_taken(quiet: EtcdStore) -> None:
    with opened(namespace=quiet.namespace) as other:
        other.cancel(RUN)
        assert claimed(quiet) == []
        quiet.submit([RunSpec.of("job", "k2")])
        assert [run.key for run in other.claim(Claim.of("job", holder="bob", lease=HOUR))] == ["k2"]
        assert claimed(quiet) == []


def test_g7_a_claim_without_a_look_that_is_repeated_answers_the_same(quiet: EtcdStore) -> None:
    request = Claim.of("job", holder="ann", lease=HOUR)
    (first,) = quiet.claim(request)
    quiet.submit([RunSpec.of("job", "k2")])
    assert quiet.claim(request) == [first]


def test_a_run_that_others_gave_back_is_not_taken_for_what_it_was_here() -> None:
    """What this process knows of it is that it runs; only a look tells that it does not any more."""
    with opened() as store, opened(namespace=store.namespace) as other:
        held = enter(store)
        assert other.checkout([CheckOut.released(held)]) == [True]
        assert claimed(store) == ["k"]


def test_a_claim_goes_over_a_few_keys_of_a_long_queue() -> None:
    """The server goes over all keys of a range, however few are asked for: so ranges have to be short."""
    with opened() as store:
        store.submit([RunSpec.of("job", f"k{number:04}") for number in range(3_000)])
        assert gone_over(store) >= 2_000, "the first look has no end to go by"
        assert [gone_over(store) <= 100 for _ in range(5)] == [True] * 5
        store.submit([RunSpec(id=RunId("job", "earlier"), run_at=store.now() - HOUR)])
        assert store.claim(Claim.of("job", holder="ann", lease=HOUR))[0].key == "earlier"
        with opened(namespace=store.namespace) as other:
            others = other.claim(Claim.of("job", holder="bob", lease=HOUR, limit=2_500))
        assert len(others) == 2_500
        left = store.claim(Claim.of("job", holder="ann", lease=HOUR, limit=1_000))
        assert [run.key for run in left] == [f"k{number:04}" for number in range(2_518, 3_000)]


def gone_over(store: EtcdStore) -> int:
    """How many keys there were in all ranges that a claim of three runs has read."""
    ask, totals = store._link.call, list[int]()

    def noting(method: str, request: bytes, *, reads: bool) -> bytes:
        answer = ask(method, request, reads=reads)
        if method.endswith("Txn") and reads:
            done = wire.done(answer)
            totals.extend(done.found(index).total for index in range(len(done.answers)))
        return answer

    store._link.call = noting  # type: ignore[method-assign]
    assert len(store.claim(Claim.of("job", holder="ann", lease=HOUR, limit=3))) == 3
    del store._link.call
    return sum(totals)


def test_a_purge_leaves_no_key_of_a_run() -> None:
    with opened() as store:
        for number in range(3):
            held = enter(store, RunId("job", f"k{number}"))
            store.checkout([CheckOut.succeeded(held)])
        assert store.purge(Purge(older_than=timedelta(0))) == 3
        prefix = store._names.prefix
        assert store._link.read(wire.read(prefix, prefix[:-1] + b"0")).kvs == ()


def test_a_watch_looks_again_when_history_was_compacted_meanwhile() -> None:
    with own_server() as server, opened(server.url) as store:
        for number in range(5):
            enter(store, RunId("job", str(number)))
        watch = store.watch(Interest(configs=True))
        store._link.call(COMPACT, wire._whole(1, watch._since - 1), reads=False)
        watch._since = 1  # where a watch stands that was cut off for long
        server.restart()  # its stream ends, and a new one asks from there
        until = time.monotonic() + 30
        told = False
        while not told and time.monotonic() < until:
            with suppress(StoreUnavailable):
                told = watch.wait(5)
        watch.close()
        assert told


# -- names and sizes ------------------------------------------------------------------------------------------------


def test_namespaces_and_names_with_slashes_do_not_meet() -> None:
    namespace = new_request()
    with opened(namespace=namespace) as store, opened(namespace=f"{namespace}/r") as other:
        enter(store, RunId("a", "b/c"))
        assert store.check(RunId("a/b", "c")) is None
        assert store.check(RunId("a", "b", '{"c":1}')) is None
        assert other.runs(RunQuery()) == []
        assert [str(run.id) for run in store.runs(RunQuery())] == ["a/b/c"]
        take(store, "..")
        assert [str(state.lease.resource) for state in store.locks()] == ["lock .."]


def test_the_largest_payload_and_result_and_a_long_history_fit_into_one_request() -> None:
    from onceward.contracts import Ending, Failure

    text = "x" * (MAX_PAYLOAD_BYTES - 2)
    error = Failure(type="E", message="\n" * 4_000, trace='"' * 16_000)
    with opened() as store:
        request = CheckIn(run=RUN, holder="ann", lease=HOUR, payload=text)
        held = store.checkin(request).run.lease
        for _ in range(22):
            assert held is not None
            assert store.checkout([CheckOut(lease=held, ending=Ending.RETRY, error=error)]) == [True]
            held = store.checkin(CheckIn(run=RUN, holder="ann", lease=HOUR)).run.lease
        assert held is not None
        assert store.checkout([CheckOut.failed(held, error, result=text)]) == [True]
        found = store.check(RUN)
        assert found is not None
        assert (found.payload, found.result, found.error) == (text, text, error)
        assert len(found.attempts) == 20
