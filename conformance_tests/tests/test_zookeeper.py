"""The ZooKeeper runner on a real server: what is particular to it. The rest is in the suite and in the comparison."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from servers_support import OneClock
from waiting import until
from zookeeper_support import ClockedZooKeeperStore, fresh, shared_url

from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    Failure,
    Interest,
    InvalidRequest,
    LockId,
    LockRequest,
    OutcomeUnknown,
    Purge,
    Renewal,
    Renewed,
    RunId,
    RunQuery,
    RunSpec,
    Status,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    Want,
    new_request,
)
from onceward.contracts.records import ATTEMPTS_KEPT
from onceward.contracts.requests import Ending
from onceward.runners.zookeeper import ZooKeeperStore
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import FIRST_PAGE, escaped, original
from onceward.runners.zookeeper.options import options_of
from onceward.runners.zookeeper.rows import MAX_PAYLOAD_BYTES
from onceward.runners.zookeeper.tickets import Stamp
from onceward.runners.zookeeper.wire import Op, Refused

LONG, SHORT = timedelta(hours=1), timedelta(seconds=1)


@pytest.fixture
def store() -> Iterator[ZooKeeperStore]:
    store = fresh()
    yield store
    store.close()


@pytest.fixture
def clock() -> OneClock:
    return OneClock()


@pytest.fixture
def pair(clock: OneClock) -> Iterator[tuple[ZooKeeperStore, ZooKeeperStore]]:
    """Two clients of one namespace, on a clock that is moved by hand."""
    namespace = new_request()
    stores = [ClockedZooKeeperStore(shared_url(), namespace, clock) for _ in range(2)]
    for store in stores:
        store.open()
    yield stores[0], stores[1]
    for store in stores:
        store.close()


def checkin(key: str = "1", *, holder: str = "h", lease: timedelta = LONG, **fields: Any) -> CheckIn:
    return CheckIn(run=RunId("j", key), holder=holder, lease=lease, **fields)


def lock(name: str = "l", *, holder: str = "h", lease: timedelta = LONG) -> LockRequest:
    return LockRequest(lock=LockId(name), holder=holder, lease=lease)


# -- round trips ------------------------------------------------------------------------------------------------------


class Trips:
    """Counts flights of messages to the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        exchange = Link.exchange

        def counted(link: Link, requests: Sequence[Any], *, reads: bool) -> list[Any]:
            self.count += 1
            return exchange(link, requests, reads=reads)

        monkeypatch.setattr(Link, "exchange", counted)

    def of(self, call: Callable[[], Any]) -> int:
        before = self.count
        call()
        return self.count - before


def test_how_many_trips_each_verb_takes(store: ZooKeeperStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.checkin(checkin("first"))  # makes the job's nodes
    store.submit([RunSpec.of("j", "first too")])
    store.claim(Claim.of("j", holder="h", lease=LONG))
    first = store.lock(lock("first")).lease
    assert first is not None
    trips = Trips(monkeypatch)
    held = store.checkin(checkin("2")).run.lease
    assert held is not None
    assert trips.of(lambda: store.checkin(checkin("3"))) == 1
    assert trips.of(lambda: store.checkout([CheckOut.succeeded(held)])) == 1
    assert trips.of(lambda: store.unlock(first)) == 1
    assert trips.of(lambda: store.lock(lock("first"))) == 1
    assert trips.of(lambda: store.lock(lock("second"))) == 1
    assert trips.of(lambda: store.lock(lock("second"))) == 1, "it is known to be held, so it is only looked at"
    assert trips.of(lambda: store.check(RunId("j", "3"))) == 1
    assert trips.of(lambda: store.now()) == 1
    assert trips.of(lambda: store.submit([RunSpec.of("j", "4")])) == 1, "nobody else asks for the time"
    later = RunSpec(id=RunId("j", "4 later"), after=LONG)
    assert trips.of(lambda: store.submit([later])) == 2, "how late that is, must be known"
    assert trips.of(lambda: store.submit([RunSpec.of("j", f"5-{i}") for i in range(100)])) <= 3
    assert trips.of(lambda: store.claim(Claim.of("j", holder="h", lease=LONG))) == 2, "we know what we have submitted"
    hundred = Claim.of("j", holder="h", lease=LONG, limit=100)
    assert trips.of(lambda: store.claim(hundred)) == 2
    leases = [run.lease for run in store.claim(hundred) if run.lease is not None]
    assert len(leases) == 100
    assert trips.of(lambda: store.renew([Renewal(lease=lease) for lease in leases])) == 2
    assert trips.of(lambda: store.checkout([CheckOut.succeeded(lease) for lease in leases])) == 1
    assert trips.of(lambda: store.claim(Claim.of("j", holder="h", lease=LONG))) == 1, "there is nothing to claim"


def test_another_client_needs_a_look_first(store: ZooKeeperStore, monkeypatch: pytest.MonkeyPatch) -> None:
    other = fresh(namespace=store.namespace)
    run = store.checkin(checkin()).run
    assert run.lease is not None
    lease = run.lease
    trips = Trips(monkeypatch)
    assert trips.of(lambda: other.checkin(checkin("1", holder="i"))) == 1, "it does not know the job yet"
    assert trips.of(lambda: other.checkin(checkin("1", holder="i"))) == 2, "not made, so looked at"
    assert trips.of(lambda: other.checkout([CheckOut.succeeded(lease)])) == 2
    store.submit([RunSpec.of("j", f"s-{i}") for i in range(101)])
    assert len(other.claim(Claim.of("j", holder="i", lease=LONG))) == 1  # it knows the shape of the queue from now on
    assert trips.of(lambda: other.claim(Claim.of("j", holder="i", lease=LONG, limit=100))) == 3
    other.close()


# -- G4: stale holders, also those that write without a look ---------------------------------------------------------


def test_g4_a_holder_that_wakes_up_late_is_refused_everything(
    pair: tuple[ZooKeeperStore, ZooKeeperStore], clock: OneClock
) -> None:
    mine, theirs = pair
    old, held = mine.checkin(checkin(lease=SHORT)).run.lease, mine.lock(lock(lease=SHORT)).lease
    assert old is not None
    assert held is not None
    clock.advance(2 * SHORT)
    taken = theirs.checkin(checkin(holder="i"))
    assert taken.outcome is CheckInOutcome.TAKEN_OVER
    assert taken.run.token > old.token
    assert theirs.lock(lock(holder="i")).acquired
    before = theirs.runs(RunQuery()), theirs.locks()
    assert mine.checkout([CheckOut.succeeded(old)]) == [False]
    assert mine.renew([Renewal(lease=old), Renewal(lease=held)]) == [Renewed.LOST] * 2
    assert not mine.unlock(held)
    assert (theirs.runs(RunQuery()), theirs.locks()) == before


def test_g4_versions_that_begin_anew_after_a_purge_deceive_nobody(
    pair: tuple[ZooKeeperStore, ZooKeeperStore], clock: OneClock
) -> None:
    """The record that is made after a purge has the version that the stale holder remembers."""
    mine, theirs = pair
    old, held = mine.checkin(checkin(lease=SHORT)).run.lease, mine.lock(lock(lease=SHORT)).lease
    assert old is not None
    assert held is not None
    clock.advance(2 * SHORT)
    taken = theirs.checkin(checkin(holder="i")).run.lease
    assert taken is not None
    theirs.checkout([CheckOut.succeeded(taken)])
    clock.advance(SHORT)
    assert theirs.purge(Purge(older_than=timedelta(0))) == 1
    newer, newer_lock = theirs.checkin(checkin(holder="k")).run.lease, theirs.lock(lock(holder="k")).lease
    assert newer is not None
    assert newer_lock is not None
    assert newer.token > taken.token > old.token
    assert newer_lock.token > held.token
    assert mine.checkout([CheckOut.succeeded(old)]) == [False]
    assert not mine.unlock(held)
    assert mine.renew([Renewal(lease=old), Renewal(lease=held)]) == [Renewed.LOST] * 2
    run = theirs.check(newer.resource)  # type: ignore[arg-type]
    assert run is not None
    assert run.lease == newer
    assert [state.lease for state in theirs.locks()] == [newer_lock]


def test_an_unlock_after_the_lapse_changes_nothing_to_be_seen(
    pair: tuple[ZooKeeperStore, ZooKeeperStore], clock: OneClock
) -> None:
    """It is written without a look, and says "if it has not lapsed": the server's time of that write decides."""
    mine, theirs = pair
    held = mine.lock(lock(lease=SHORT)).lease
    assert held is not None
    clock.advance(SHORT)
    before = theirs.locks()
    assert not mine.unlock(held)
    assert theirs.locks() == before
    assert [state.lease for state in before] == [held]
    assert theirs.lock(lock(holder="i")).acquired


def test_g2_tokens_and_sequences_go_on_behind_a_purge(store: ZooKeeperStore) -> None:
    run = store.checkin(checkin()).run
    assert run.lease is not None
    store.checkout([CheckOut.succeeded(run.lease)])
    assert store.purge(Purge(older_than=timedelta(0))) == 1
    again = store.checkin(checkin()).run
    assert (again.attempt, again.token > run.token, again.sequence > run.sequence) == (1, True, True)


def test_sequences_of_one_batch_and_of_concurrent_checkins_are_unique(store: ZooKeeperStore) -> None:
    store.submit([RunSpec.of("j", f"s{i}") for i in range(300)])
    threads = [threading.Thread(target=lambda i=i: store.checkin(checkin(f"c{i}"))) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sequences = [run.sequence for run in store.runs(RunQuery(limit=1000))]
    assert len(set(sequences)) == 340
    assert max(sequences) < 2**53
    submitted = [run.key for run in store.runs(RunQuery(oldest_first=True, limit=1000)) if run.key[0] == "s"]
    assert submitted == [f"s{i}" for i in range(300)]


# -- queues -----------------------------------------------------------------------------------------------------------


def pages(store: ZooKeeperStore) -> dict[str, int]:
    """The pages of the job's only priority, and how many runs wait on each."""
    queue = store._layout.queue("j")
    priority = (store._link.read(lists=[queue]).lists[0] or [])[0]
    names = sorted(store._link.read(lists=[f"{queue}/{priority}"]).lists[0] or ())
    below = store._link.read(lists=[f"{queue}/{priority}/{name}" for name in names]).lists
    return {name: len(each or ()) for name, each in zip(names, below, strict=True)}


def test_a_submission_that_others_have_come_before_looks_and_tries_without_less_often(
    store: ZooKeeperStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = fresh(namespace=store.namespace)
    store.submit([RunSpec.of("j", "first")])
    trips, taken = Trips(monkeypatch), list[int]()
    for number in range(12):
        other.now()
        taken.append(trips.of(lambda number=number: store.submit([RunSpec.of("j", str(number))])))  # type: ignore[misc]
    assert taken == [3, 2, 3, 2, 2, 3, 2, 2, 2, 2, 3, 2]
    while (last := trips.of(lambda: store.submit([RunSpec.of("j", new_request())]))) == 2:
        taken.append(last)
    assert len(taken) == 19
    assert [trips.of(lambda: store.submit([RunSpec.of("j", new_request())])) for _ in range(3)] == [1, 1, 1]
    other.close()


def test_g13_submissions_with_and_without_a_look_are_claimed_in_their_order(
    pair: tuple[ZooKeeperStore, ZooKeeperStore],
) -> None:
    """Time stands still, so that only their order counts."""
    names = [str(number) for number in range(60)]
    for name in names:
        chosen = pair[int(name) // 7 % 2]  # several in a row without a look, and then somebody else's
        if name.endswith("5"):
            chosen.checkin(checkin(f"beside {name}"))
        chosen.submit([RunSpec.of("j", name)])
    listed = [run for run in pair[0].runs(RunQuery(job="j", oldest_first=True, limit=1000)) if run.key in names]
    assert [run.key for run in listed] == names
    assert len({run.sequence for run in listed}) == len(names)
    found = [run.key for _ in names for run in pair[1].claim(Claim.of("j", holder="h", lease=LONG))]
    assert found == names


@pytest.mark.parametrize("order", ["same", "rising", "falling", "mixed"])
def test_no_list_of_a_queue_grows_without_bound_and_g13_the_order_is_kept(store: ZooKeeperStore, order: str) -> None:
    count, then = 2_400, datetime.fromisoformat("2020-01-01T00:00Z")
    shift = {"same": lambda i: 0, "rising": lambda i: i, "falling": lambda i: -i, "mixed": lambda i: i * 7919 % count}
    at = [then + timedelta(seconds=shift[order](i)) for i in range(count)]
    assert all(store.submit([RunSpec(id=RunId("j", str(i)), run_at=at[i]) for i in range(count)]))
    found = pages(store)
    assert max(found.values()) <= 256 + 128, "a page may get a batch more, which was counted before it was written"
    assert len(found) <= 60, "neither are there many with little on them"
    claimed = [
        run.key for _ in range(4) for run in store.claim(Claim.of("j", holder="h", lease=LONG, limit=count // 4))
    ]
    assert claimed == [str(i) for i in sorted(range(count), key=lambda i: (at[i], i))]
    assert store.claim(Claim.of("j", holder="h", lease=LONG)) == []
    store.claim(Claim.of("j", holder="h", lease=LONG))
    assert set(pages(store)) <= {FIRST_PAGE, max(found)}, "empty pages are gone"
    assert store.submit([RunSpec.of("j", "one more")]) == [True]
    assert [run.key for run in store.claim(Claim.of("j", holder="h", lease=LONG))] == ["one more"]


def test_a_client_that_does_not_know_that_a_page_is_gone_finds_out(store: ZooKeeperStore) -> None:
    other = fresh(namespace=store.namespace)
    then = datetime.fromisoformat("2020-01-01T00:00Z")
    for start in (0, 600):
        store.submit([RunSpec(id=RunId("j", str(start + i)), run_at=then) for i in range(600)])
    assert other.submit([RunSpec.of("j", "knows the pages")]) == [True]
    for _ in range(3):
        store.claim(Claim.of("j", holder="h", lease=LONG, limit=1_000))
    assert other.submit([RunSpec.of("j", "found out")]) == [True]
    assert [run.key for run in store.claim(Claim.of("j", holder="h", lease=LONG))] == ["found out"]
    other.close()


def test_g12_claims_of_many_clients_never_exceed_the_limit(store: ZooKeeperStore) -> None:
    store.submit([RunSpec.of("j", str(i)) for i in range(40)])
    clients = [fresh(namespace=store.namespace) for _ in range(3)]
    most: list[int] = []

    def work(client: ZooKeeperStore) -> None:
        for _ in range(6):
            claim = Claim(holder="h", lease=LONG, limit=3, wants=(Want(job="j", max_running=4),))
            for run in client.claim(claim):
                live = client.runs(RunQuery(job="j", statuses=frozenset({run.status})))
                most.append(len(live))
                assert run.lease is not None
                client.checkout([CheckOut.succeeded(run.lease)])

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < max(most) <= 4
    for client in clients:
        client.close()


@pytest.mark.parametrize("budget", [None, 0])
def test_g12_a_renewal_that_comes_late_does_not_bring_a_lapsed_run_back_beside_what_was_taken_since(
    pair: tuple[ZooKeeperStore, ZooKeeperStore], clock: OneClock, monkeypatch: pytest.MonkeyPatch, budget: int | None
) -> None:
    """Whoever renews looks in time, and writes when the lease has lapsed and another run was taken in its stead."""
    mine, theirs = pair
    wants = (Want(job="j", max_running=1),)
    mine.submit([RunSpec(id=RunId("j", "lapses"), max_crashes=budget)])
    lease = mine.claim(Claim(holder="a", lease=SHORT, limit=1, wants=wants))[0].lease
    assert lease is not None
    mine.submit([RunSpec.of("j", "goes first", priority=1)])
    commit = Link.commit

    def late(link: Link, transactions: Sequence[Sequence[Op]]) -> list[Stamp | Refused | StoreError]:
        monkeypatch.setattr(Link, "commit", commit)
        clock.advance(2 * SHORT)
        taken = theirs.claim(Claim(holder="b", lease=LONG, limit=1, wants=wants))
        assert [run.key for run in taken] == ["goes first"]
        return commit(link, transactions)

    monkeypatch.setattr(Link, "commit", late)
    assert mine.renew([Renewal(lease=lease)]) == [Renewed.LOST]
    assert theirs.claim(Claim(holder="b", lease=LONG, limit=1, wants=wants)) == []


def test_g12_a_claim_in_parts_does_not_go_on_where_somebody_else_came_between(
    store: ZooKeeperStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part is refused, since another claim took a part of it; by then there is no room for the second."""
    other = fresh(namespace=store.namespace)
    wants = (Want(job="j", max_running=2),)
    store.submit([RunSpec.of("j", "1"), RunSpec.of("j", "2")])
    commit = Link.commit

    def overtaken(link: Link, transactions: Sequence[Sequence[Op]]) -> list[Stamp | Refused | StoreError]:
        monkeypatch.undo()
        other.submit([RunSpec.of("j", "0", priority=1)])
        taken = other.claim(Claim(holder="b", lease=LONG, limit=2, wants=wants))
        assert [run.key for run in taken] == ["0", "1"]
        return commit(link, transactions)

    monkeypatch.setattr("onceward.runners.zookeeper.claims.MOST_TOGETHER", 1)
    monkeypatch.setattr(Link, "commit", overtaken)
    assert store.claim(Claim(holder="a", lease=LONG, limit=2, wants=wants)) == []
    assert store.counts("j")["j"] == {Status.RUNNING: 2, Status.SCHEDULED: 1}
    other.close()


@pytest.mark.parametrize("refused", [0, 1, 2])
@pytest.mark.parametrize("unknown", [False, True])
def test_a_claim_that_is_refused_in_part_says_what_it_has_got(
    store: ZooKeeperStore, monkeypatch: pytest.MonkeyPatch, refused: int, unknown: bool
) -> None:
    """No claim says that nothing was changed while a part of it was; what is unknown of one part is unknown of all."""
    store.submit([RunSpec.of("j", str(number)) for number in range(3)])
    monkeypatch.setattr("onceward.runners.zookeeper.claims.MOST_TOGETHER", 1)
    commit = Link.commit

    def partly(link: Link, transactions: Sequence[Sequence[Op]]) -> list[Stamp | Refused | StoreError]:
        done = commit(link, [each for number, each in enumerate(transactions) if number != refused])
        return [*done[:refused], OutcomeUnknown("?") if unknown else StoreUnavailable("quota"), *done[refused:]]

    request = Claim.of("j", holder="h", lease=LONG, limit=3)
    with monkeypatch.context() as patched:
        patched.setattr(Link, "commit", partly)
        if unknown:
            with pytest.raises(OutcomeUnknown):
                store.claim(request)
        else:
            assert len(store.claim(request)) == 2
    assert len(store.claim(request)) == 2
    assert store.counts("j")["j"] == {Status.RUNNING: 2, Status.SCHEDULED: 1}


def test_a_run_that_is_renewed_is_not_looked_at_by_every_claim(
    store: ZooKeeperStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = store.checkin(checkin(lease=timedelta(milliseconds=60))).run
    assert run.lease is not None
    over = run.lease.expires
    assert over is not None
    assert store.renew([Renewal(lease=run.lease, duration=LONG)]) == [Renewed.HELD]
    until(lambda: store.now() > over)
    store.claim(Claim.of("j", holder="h", lease=LONG))
    trips = Trips(monkeypatch)
    assert trips.of(lambda: store.claim(Claim.of("j", holder="h", lease=LONG))) == 1


# -- names, sizes, options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "..", ".", "...", "zookeeper", "a b", "ü/漢", "%2F", "\u202e", "x" * 128])
def test_names_stay_in_their_place(name: str) -> None:
    assert "/" not in escaped(name)
    assert escaped(name).strip(".")
    assert original(escaped(name)) == name
    store = fresh(namespace=f"{name[:60]}{new_request()[:8]}")
    assert store.checkin(CheckIn(run=RunId(name, name), holder="h", lease=LONG)).outcome is CheckInOutcome.ADMITTED
    assert store.lock(lock(name)).acquired
    assert [run.id for run in store.runs(RunQuery())] == [RunId(name, name)]
    store.close()


def test_input_that_cannot_be_stored_never_reaches_the_server(
    store: ZooKeeperStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = store.checkin(checkin()).run.lease
    assert lease is not None
    trips = Trips(monkeypatch)
    for call in (
        lambda: store.checkin(checkin("2", payload="x" * 1_100_000)),
        lambda: store.submit([RunSpec.of("j", "3", "x" * MAX_PAYLOAD_BYTES)]),
        lambda: store.checkout([CheckOut.succeeded(lease, "x" * MAX_PAYLOAD_BYTES)]),
        lambda: store.checkin(checkin("a\0b")),
        lambda: store.lock(lock("\ud800")),
        lambda: store.counts("\ud800"),
    ):
        with pytest.raises(InvalidRequest):
            call()
    assert trips.count == 0
    assert store.checkout([CheckOut.succeeded(lease, "x" * (MAX_PAYLOAD_BYTES - 2))]) == [True]


def test_a_record_that_would_be_too_long_leaves_out_the_oldest_traces(store: ZooKeeperStore) -> None:
    big = "x" * (MAX_PAYLOAD_BYTES - 2)
    store.submit([RunSpec.of("j", "1", big)])
    error = Failure(type="E", message="m" * 4_000, trace="漢" * 16_000)
    for _ in range(ATTEMPTS_KEPT):
        (run,) = store.claim(Claim.of("j", holder="h", lease=LONG))
        assert run.lease is not None
        assert store.checkout([CheckOut.retry(run.lease, error)]) == [True]
    (run,) = store.claim(Claim.of("j", holder="h", lease=LONG))
    assert run.lease is not None
    assert store.checkout([CheckOut(lease=run.lease, ending=Ending.FAILED, error=error, result=big)]) == [True]
    kept = store.check(RunId("j", "1"))
    assert kept is not None
    assert (kept.payload, kept.result, len(kept.attempts)) == (big, big, ATTEMPTS_KEPT)
    assert kept.attempts[-1].error == error
    assert kept.attempts[0].error is not None
    assert "left out" in kept.attempts[0].error.message


def test_urls_say_where_the_ensemble_is() -> None:
    made = options_of("zookeeper://us%40er:p%3Aw@h1:2182,h2,[::1]:7/apps/a?session_ms=4000&tls=true")
    assert (made.hosts, made.chroot) == (("h1:2182", "h2", "[::1]:7"), "/apps/a")
    assert (made.username, made.password, made.session_ms, made.tls) == ("us@er", "p:w", 4000, True)
    assert made.url == "zookeeper://us@er@h1:2182,h2,[::1]:7/apps/a"
    assert options_of("zk://").hosts == ("localhost:2181",)


@pytest.mark.parametrize(
    "url",
    [
        "zookeeper://user:secret@h:port", "zookeeper://user:secret@h:0", "zookeeper://h,,i", "http://user:secret@h",
        "zookeeper://h/a/../b", "zookeeper://h/zookeeper", "zookeeper://h?sesion_ms=1", "zookeeper://h?session_ms=0",
        "zookeeper://user@h", "zookeeper://h?sasl=digest-md5", "zookeeper://h?sasl=plain",
    ],
)  # fmt: skip
def test_urls_that_make_no_sense_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(StoreMisconfigured) as caught:
        options_of(url)
    assert "secret" not in str(caught.value)


def test_a_chroot_is_made_and_kept_to(store: ZooKeeperStore) -> None:
    top = f"/t-{new_request()[:8]}"
    inside = fresh(f"{shared_url()}{top}/deep", store.namespace)
    assert inside.checkin(checkin()).outcome is CheckInOutcome.ADMITTED
    assert store.runs(RunQuery()) == []
    assert store._link.read(lists=[f"{top}/deep"]).lists[0] == ["onceward"]
    inside.close()


def test_one_of_several_hosts_suffices() -> None:
    url = shared_url().replace("zookeeper://", "zookeeper://127.0.0.1:1,")
    store = fresh(url)
    assert store.checkin(checkin()).outcome is CheckInOutcome.ADMITTED
    store.close()


def test_what_a_user_made_belongs_to_the_user() -> None:
    place = f"/t-{new_request()[:8]}"
    url = shared_url()
    mine = fresh(f"{url.replace('://', '://ann:secret@')}{place}", "n")
    assert mine.checkin(checkin()).outcome is CheckInOutcome.ADMITTED
    for user in ("ann:wrong@", "bob:secret@", ""):
        other = ZooKeeperStore(f"{url.replace('://', f'://{user}')}{place}", "n")
        with pytest.raises(StoreMisconfigured, match="belongs to another user") as caught:
            other.open()
        assert "secret" not in str(caught.value)
        other.close()
    again = fresh(f"{url.replace('://', '://ann:secret@')}{place}", "n")
    assert again.checkin(checkin()).outcome is CheckInOutcome.RUNNING
    mine.close()
    again.close()


# -- processes and threads --------------------------------------------------------------------------------------------


def test_threads_share_trips_and_each_gets_its_own_answer(store: ZooKeeperStore) -> None:
    answers: dict[str, list[bool]] = {str(i): [] for i in range(40)}

    def work(holder: str) -> None:
        for key, won in answers.items():
            run = store.checkin(checkin(key, holder=holder))
            assert run.run.key == key
            won.append(run.outcome.admitted and run.run.lease is not None and run.run.lease.holder == holder)

    threads = [threading.Thread(target=work, args=(f"h{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sum(won) == 1 and len(won) == 8 for won in answers.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_connection_of_its_own(store: ZooKeeperStore) -> None:
    store.checkin(checkin("parent"))
    child = os.fork()
    if child == 0:
        fine = store.checkin(checkin("child")).outcome is CheckInOutcome.ADMITTED
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.checkin(checkin("child")).outcome is CheckInOutcome.RUNNING
    assert store.checkin(checkin("parent2")).outcome is CheckInOutcome.ADMITTED


def test_a_closed_store_says_so_and_can_be_opened_again(store: ZooKeeperStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.checkin(checkin())
    store.open()
    assert store.checkin(checkin()).outcome is CheckInOutcome.ADMITTED


def test_a_watch_ends_when_its_store_is_closed(store: ZooKeeperStore) -> None:
    watch = store.watch(Interest(jobs=frozenset({"j"})))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(watch.wait(60)))
    thread.start()
    store.close()
    thread.join(10)
    assert answers == [False]
    assert not watch.wait(0)
    watch.close()


def test_watches_see_what_comes_due_and_what_lapses(store: ZooKeeperStore) -> None:
    soon = timedelta(milliseconds=150)
    with store.watch(Interest(jobs=frozenset({"j"}), locks=frozenset({"l"}))) as watch:
        store.submit([RunSpec(id=RunId("j", "1"), after=soon)])
        assert claimed_by_watching(store, watch.wait, soon) == 1
        assert claimed_by_watching(store, watch.wait, LONG) == 1, "its lease has lapsed"
        assert store.lock(lock(lease=soon)).acquired
        while not store.lock(lock(holder="i")).acquired:
            assert watch.wait(5)


def claimed_by_watching(store: ZooKeeperStore, wait: Callable[[float], bool], lease: timedelta) -> int:
    """Looks only when it is told to."""
    while wait(5):
        if runs := store.claim(Claim.of("j", holder="h", lease=lease)):
            return len(runs)
    return 0
