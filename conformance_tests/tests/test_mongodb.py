"""The MongoDB runner on real servers: what it promises about trips, indexes, errors, restarts and bad input."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from bson.timestamp import Timestamp
from mongodb_support import ClockedMongoStore, Trips, fresh, own_server, shared_url
from msgspec.structs import replace
from pymongo.errors import (
    AutoReconnect,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)
from pymongo.monitoring import CommandSucceededEvent
from servers_support import OneClock
from waiting import until

from onceward.conformance.servers.process import free_port
from onceward.contracts import (
    Admission,
    Cancelled,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    ConfigWrite,
    Failover,
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
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    Want,
    new_request,
)
from onceward.runners.mongodb import TYPE, MongoStore, checkins, documents
from onceward.runners.mongodb.errors import translated
from onceward.runners.mongodb.link import Docs
from onceward.runners.mongodb.options import options_of
from onceward.runners.mongodb.stream import Stream
from onceward.runners.mongodb.terms import Doc

LONG = timedelta(hours=1)
BRIEF = timedelta(milliseconds=40)
FIND_AND_MODIFY = ["findAndModify"]


@pytest.fixture
def trips() -> Trips:
    return Trips()


@pytest.fixture
def store(trips: Trips) -> Iterator[MongoStore]:
    made = fresh(listeners=(trips,))
    yield made
    made.close()


def checkin(key: str = "k", **more: object) -> CheckIn:
    return CheckIn(run=RunId("job", key), holder="ann", lease=LONG, **more)  # type: ignore[arg-type]


def claim(limit: int, *wants: Want, lease: timedelta = LONG) -> Claim:
    return Claim(holder="ann", lease=lease, limit=limit, wants=wants or None)


# -- trips --------------------------------------------------------------------------------------------------------


def test_one_trip_for_check_in_new_and_duplicate_and_check_out(store: MongoStore, trips: Trips) -> None:
    request = checkin()
    assert trips.of(lambda: store.checkin(request)) == FIND_AND_MODIFY
    assert trips.of(lambda: store.checkin(request)) == FIND_AND_MODIFY
    assert trips.of(lambda: store.checkin(checkin())) == FIND_AND_MODIFY
    lease = store.checkin(request).run.lease
    assert lease is not None
    assert trips.of(lambda: store.renew([Renewal(lease=lease)])) == FIND_AND_MODIFY
    assert trips.of(lambda: store.checkout([CheckOut.succeeded(lease)])) == ["update"]
    assert trips.of(lambda: store.checkin(checkin())) == FIND_AND_MODIFY


def test_one_trip_for_lock_refused_or_not_and_unlock(store: MongoStore, trips: Trips) -> None:
    request = LockRequest(lock=LockId("l"), holder="ann", lease=LONG)
    assert trips.of(lambda: store.lock(request)) == FIND_AND_MODIFY
    assert trips.of(lambda: store.lock(LockRequest(lock=LockId("l"), holder="bob", lease=LONG))) == FIND_AND_MODIFY
    lease = store.lock(request).lease
    assert lease is not None
    assert trips.of(lambda: store.renew([Renewal(lease=lease)])) == ["update"]
    assert trips.of(lambda: store.unlock(lease)) == FIND_AND_MODIFY


def test_few_trips_for_batches(store: MongoStore, trips: Trips) -> None:
    specs = [RunSpec.of("job", str(i)) for i in range(300)]
    assert trips.of(lambda: store.submit(specs)) == ["update"]
    assert trips.of(lambda: store.submit(specs)) == ["update", "find"]
    request = claim(250, Want(job="job"))
    assert trips.of(lambda: store.claim(request)) == ["aggregate", "update"]
    assert trips.of(lambda: store.claim(request)) == ["aggregate"]
    leases = [run.lease for run in store.claim(request) if run.lease is not None]
    assert trips.of(lambda: store.renew([Renewal(lease=lease) for lease in leases])) == ["update", "find"]
    assert trips.of(lambda: store.checkout([CheckOut.succeeded(lease) for lease in leases])) == ["update"]
    limited = claim(50, Want(job="job", max_running=10))
    assert trips.of(lambda: store.claim(limited)) == ["aggregate", "update"]
    assert len(store.claim(limited)) == 10


def test_claims_after_a_lapse_take_four_trips(store: MongoStore, trips: Trips) -> None:
    store.submit([RunSpec.of("job", "k")])
    [run] = store.claim(claim(1, lease=timedelta(milliseconds=1)))
    until(lambda: run.lease is not None and run.lease.expires is not None and store.now() > run.lease.expires)
    assert trips.of(lambda: store.claim(claim(1))) == ["aggregate", "update", "aggregate", "update"]


# -- indexes ------------------------------------------------------------------------------------------------------


def examined(plan: dict[str, object]) -> tuple[set[str], int, int]:
    """The stages of a plan, and how many keys and documents it has looked at."""
    stages: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("stage"), str):
                stages.add(node["stage"])
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    planner = plan["queryPlanner"]
    assert isinstance(planner, dict)
    walk(planner["winningPlan"])
    stats = plan["executionStats"]
    assert isinstance(stats, dict)
    return stages, stats["totalKeysExamined"], stats["totalDocsExamined"]


@pytest.mark.parametrize("job", ["job", ""])
def test_g13_claims_read_what_they_take_and_one_key_per_priority(store: MongoStore, job: str) -> None:
    later = timedelta(days=1)
    store.submit([RunSpec(id=RunId("job", f"l{i}"), priority=i % 5 + 1, after=later) for i in range(500)])
    store.submit([RunSpec(id=RunId("job", f"d{i}"), priority=i % 3) for i in range(500)])
    match, sort, limit, _ = store._next(job, 10)
    find = {"find": "runs", "filter": match["$match"], "sort": sort["$sort"], "limit": limit["$limit"]}
    command = {"explain": find, "verbosity": "executionStats"}
    stages, keys, documents = examined(store._link.database.command(command))
    assert stages.isdisjoint({"COLLSCAN", "SORT"}), stages
    assert documents == 10
    assert keys <= 10 + 2 * 6
    assert [run.priority for run in store.claim(claim(200, Want(job="job")))] == [2] * 166 + [1] * 34


# -- watches ------------------------------------------------------------------------------------------------------


def test_g15_a_watch_for_jobs_is_told_of_what_can_be_claimed_and_of_nothing_else(store: MongoStore) -> None:
    limited = claim(1, Want(job="job", max_running=2))
    with store.watch(Interest(jobs=frozenset({"job"}))) as watch:

        def told(action: Callable[[], object], patience: float) -> bool:
            while watch.wait(0.0):
                pass
            action()
            return watch.wait(patience)

        assert told(lambda: store.submit([RunSpec.of("job", each) for each in "abc"]), 20)
        [free] = [run.lease for run in store.claim(claim(1)) if run.lease]
        assert not told(lambda: store.checkout([CheckOut.succeeded(free)]), 0.5)
        assert not told(lambda: store.checkin(checkin("of-a-caller")), 0.5)
        [placed] = [run.lease for run in store.claim(limited) if run.lease]
        assert told(lambda: store.checkout([CheckOut.succeeded(placed)]), 20), "a place is free again"


def test_a_stream_is_not_awaited_while_there_are_many_writes(store: MongoStore) -> None:
    stream = Stream(store._link, {})

    def busy(since: Timestamp, newest: Timestamp) -> bool:
        stream._mark = since, time.monotonic() - 0.2
        stream._judge(newest)
        return stream._busy

    assert busy(Timestamp(7, 1), Timestamp(7, 1_000_000))
    assert busy(Timestamp(7, 1), Timestamp(8, 1)), "nobody knows how many there were until the end of the second"
    assert not busy(Timestamp(7, 1), Timestamp(7, 2))
    assert not busy(Timestamp(7, 1), Timestamp(8, 1))
    stream.close()


# -- limits and tokens --------------------------------------------------------------------------------------------


class _Slow(Trips):
    """A minute goes by whenever something is written."""

    def __init__(self, clock: OneClock) -> None:
        super().__init__()
        self._clock = clock

    def succeeded(self, event: CommandSucceededEvent) -> None:
        if event.command_name == "update":
            self._clock.advance(timedelta(minutes=1))


def test_g1_a_claim_that_takes_longer_than_its_lease_has_each_run_once() -> None:
    clock = OneClock()
    store = ClockedMongoStore(shared_url(), new_request(), clock, listeners=(_Slow(clock),))
    store.open()
    store.submit([RunSpec(id=RunId("job", "crashes"), max_crashes=0), RunSpec.of("job", "fine")])
    assert [run.key for run in store.claim(Claim.of("job", holder="ann", lease=timedelta(seconds=30)))] == ["crashes"]
    clock.advance(timedelta(minutes=1))
    found = store.claim(Claim.of("job", holder="bob", lease=timedelta(seconds=30), limit=3))
    assert [(run.key, run.attempt) for run in found] == [("fine", 1)]
    store.close()


class _Piecemeal:
    """The collection, whose aggregations read each of their parts at a moment of its own: more is not promised."""

    def __init__(self, runs: Docs, between: Callable[[int], None]) -> None:
        self._runs, self._between = runs, between

    def __getattr__(self, name: str) -> object:
        return getattr(self._runs, name)

    def aggregate(self, stages: list[Doc], **options: Any) -> Iterator[Doc]:
        parts = [[stage for stage in stages if "$unionWith" not in stage]]
        parts += [stage["$unionWith"]["pipeline"] for stage in stages if "$unionWith" in stage]
        for place, part in enumerate(parts):
            self._between(place)
            yield from self._runs.aggregate(part, **options)


@pytest.mark.parametrize("moment", range(4))
def test_g13_a_lease_that_is_seen_to_lapse_in_the_middle_of_a_look_keeps_its_turn(moment: int) -> None:
    """Of a job with one place: the run whose server died comes first, whenever another process notices that."""
    clock = OneClock()
    store, other = (ClockedMongoStore(shared_url(), namespace, clock) for namespace in [new_request()] * 2)
    store.open()
    other.open()
    alone = Want(job="job", max_running=1)
    store.submit([RunSpec.of("job", "first"), RunSpec.of("job", "second")])
    assert [run.key for run in other.claim(claim(1, alone, lease=timedelta(seconds=30)))] == ["first"]
    seen: list[int] = []

    def between(place: int) -> None:
        if place == moment and not seen:
            seen.append(place)
            clock.advance(timedelta(minutes=1))
            other._queue_lapsed(None)  # the first half of somebody else's claim

    store._link._runs = _Piecemeal(store._link.runs, between)  # type: ignore[assignment]
    taken = [run.key for run in store.claim(claim(1, alone))]
    assert seen, "the look has fewer parts than that"
    assert taken in ([], ["first"])
    store.close()
    other.close()


def test_g12_the_limit_holds_while_many_claim_at_once(store: MongoStore) -> None:
    store.submit([RunSpec.of("job", str(i)) for i in range(60)])
    others = [MongoStore(shared_url(), store.namespace) for _ in range(3)]
    most: list[int] = []
    taken: list[str] = []

    def work(mine: MongoStore) -> None:
        while len(taken) < 60:
            for run in mine.claim(claim(5, Want(job="job", max_running=4))):
                assert run.lease is not None
                most.append(store.counts("job")["job"].get(run.status, 0))
                assert mine.checkout([CheckOut.succeeded(run.lease)]) == [True]
                taken.append(run.key)

    for other in others:
        other.open()
    threads = [threading.Thread(target=work, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for other in others:
        other.close()
    assert sorted(taken, key=int) == [str(i) for i in range(60)]
    assert 1 <= max(most) <= 4


def test_g12_a_request_to_cancel_leaves_a_run_its_place_and_its_claim(store: MongoStore) -> None:
    store.submit([RunSpec.of("job", str(i)) for i in range(3)])
    request = claim(3, Want(job="job", max_running=1))
    [run] = store.claim(request)
    assert store.cancel(run.id) is Cancelled.REQUESTED
    assert [held.id for held in store.claim(request)] == [run.id]
    assert store._link.runs.find_one({"_id": store._key(run.id)}, {"_id": 0, "slot": 1}) == {"slot": 0}
    assert store.claim(claim(3, Want(job="job", max_running=1))) == []


def test_g2_tokens_go_on_behind_a_purge_and_after_the_tombstone_is_gone(store: MongoStore) -> None:
    tokens = []
    for i in range(4):
        lease = store.checkin(checkin()).run.lease
        assert lease is not None
        tokens.append(lease.token)
        assert store.checkout([CheckOut.succeeded(lease)]) == [True]
        assert store.purge(Purge(older_than=timedelta(0))) == 1
        assert store.runs(RunQuery()) == []
        if i == 2:  # a day later, at most a second of which matters
            end = tokens[-1] // 1024 / 1000 + 1
            until(lambda end=end: store.now().timestamp() > end)  # type: ignore[misc]
            assert store._link.runs.delete_many({"_id.ns": store.namespace}).deleted_count == 1
    assert tokens == sorted(set(tokens))


def test_sequences_of_concurrent_check_ins_are_distinct(store: MongoStore) -> None:
    def work(which: int) -> None:
        for i in range(10):
            store.checkin(checkin(f"{which}-{i}"))

    threads = [threading.Thread(target=work, args=(which,)) for which in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    runs = store.runs(RunQuery(limit=1_000))
    assert len({run.sequence for run in runs}) == len(runs) == 120


def test_check_ins_that_share_trips_get_the_answers_of_single_ones(store: MongoStore, trips: Trips) -> None:
    known, purged = checkin("known"), checkin("purged")
    held = store.checkin(known)
    lease = store.checkin(purged).run.lease
    assert lease is not None
    store.checkout([CheckOut.succeeded(lease)])
    store.purge(Purge(older_than=timedelta(0)))
    batch = [checkin("new"), checkin("known"), checkin("new"), checkin("purged"), known]
    shown: list[object] = []
    assert trips.of(lambda: shown.extend(store._carry_checkins(batch))) == ["aggregate", "insert", *FIND_AND_MODIFY]
    made = [documents.entry_of(each["doc"]).run for each in shown if isinstance(each, dict)]
    assert [run.key for run in made] == ["new", "known", "new", "purged", "known"]
    assert [run.origin == request.request for run, request in zip(made, batch, strict=True)] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert made[0] == made[2]
    assert made[1] == made[4] == replace(held.run, payload=None)
    assert made[3].token > lease.token
    assert trips.of(lambda: store._carry_checkins(batch)) == ["aggregate", "update"]


def test_g1_many_who_share_trips_are_admitted_once(monkeypatch: pytest.MonkeyPatch, store: MongoStore) -> None:
    monkeypatch.setattr(checkins, "_FEW", 0)
    answers: list[tuple[int, Admission]] = []

    def work() -> None:
        answers.extend((i, store.checkin(checkin(str(i)))) for i in range(15))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(i for i, answer in answers if answer.outcome.admitted) == list(range(15))
    assert len(answers) == 12 * 15
    assert len({(i, answer.run.token, answer.run.sequence) for i, answer in answers}) == 15


# -- bad input ----------------------------------------------------------------------------------------------------

ODD = ("$where", "a.b", "$$ROOT", "{$gt: ''}", "_id", "$literal", "ü/:*", "..")


@pytest.mark.parametrize("text", ODD)
def test_g16_names_and_values_are_never_operators(store: MongoStore, text: str) -> None:
    payload = {text: {"$gt": 1, "$where": "1"}, "$set": [text], "nul\0": "\0"}
    run = RunId.of(text, text, {text: text})
    made = store.checkin(CheckIn(run=run, holder=text, request=text, lease=LONG, payload=payload))
    assert made.outcome is CheckInOutcome.ADMITTED
    assert store.check(run) == made.run
    assert made.run.payload == payload
    lease = made.run.lease
    assert lease is not None
    assert store.checkout([CheckOut.succeeded(lease, payload)]) == [True]
    assert store.runs(RunQuery(job=text, key=text))[0].result == payload
    lock = LockRequest(lock=LockId(text), holder=text, request=text, lease=LONG, note=text)
    assert store.lock(lock).acquired
    assert [(state.lease.resource, state.note) for state in store.locks()] == [(LockId(text), text)]
    written = store.write_config(ConfigWrite(name=text, document=payload, expected_version=0, request=text))
    assert written is not None
    assert store.read_config(text) == written
    assert store.submit([RunSpec(id=RunId(text, "2"), payload=payload, request=text)]) == [True]
    assert [claimed.payload for claimed in store.claim(claim(1, Want(job=text)))] == [payload]


def test_g16_too_much_is_refused_before_it_is_sent(store: MongoStore, trips: Trips) -> None:
    with pytest.raises(InvalidRequest, match="payload"):
        trips.of(lambda: store.checkin(checkin(payload="x" * store.traits.max_payload_bytes)))
    assert trips.names == []
    most = "x" * (store.traits.max_payload_bytes - 2)
    lease = store.checkin(checkin(payload=most)).run.lease
    assert lease is not None
    assert store.checkout([CheckOut.succeeded(lease, most)]) == [True]


# -- servers ------------------------------------------------------------------------------------------------------


def test_nobody_there() -> None:
    url = f"mongodb://127.0.0.1:{free_port()}/?serverSelectionTimeoutMS=50"
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        MongoStore(url).open()
    with pytest.raises(StoreUnavailable, match="closed"):
        MongoStore(url).checkin(checkin())


def test_wrong_password_says_so_without_it() -> None:
    with own_server(replicated=False, user="ann", password="right-one") as server:
        with pytest.raises(StoreMisconfigured, match="user and password") as caught:
            MongoStore(server.url.replace("right-one", "wrong-one")).open()
        assert "wrong-one" not in str(caught.value)
        with pytest.raises(StoreMisconfigured, match="role readWrite"):
            MongoStore(server.url.replace("ann:right-one@", "").replace("?authSource=admin", "")).open()
        store = fresh(server.url)
        assert store.checkin(checkin()).outcome is CheckInOutcome.ADMITTED
        assert "right-one" not in repr(store.options) + str(store.health())
        store.close()


def test_a_standalone_server_declares_what_it_cannot_promise() -> None:
    with own_server(replicated=False) as server:
        store = fresh(server.url)
        assert store.traits.failover is Failover.NONE
        assert not store.traits.native_wait
        assert store.health().details["kind"] == "standalone"
        with store.watch(Interest(locks=frozenset({"l"}))) as watch:
            assert not watch.wait(0)
            store.lock(LockRequest(lock=LockId("l"), holder="ann", lease=LONG))
            assert watch.wait(20)
        store.close()


def test_g6_no_acknowledged_check_out_is_lost_when_the_server_is_killed() -> None:
    with own_server() as server:
        store = fresh(server.url + "&serverSelectionTimeoutMS=20000")
        done, stop = soak(store)
        until(lambda: len(done) > 20)
        for _ in range(2):
            before = len(done)
            server.restart()
            until(lambda before=before: len(done) > before + 20, within=60)  # type: ignore[misc]
        stop()
        found = {run.key: run for run in store.runs(RunQuery(limit=100_000))}
        assert all(found[key].result == key and found[key].attempt == 1 for key in done)
        store.close()


def insist(ended: threading.Event, ask: Callable[[], object]) -> object:
    """The same request, again and again until it is answered; None: it was told to stop."""
    while not ended.is_set():
        try:
            return ask()
        except (OutcomeUnknown, StoreUnavailable):
            continue
    return None


def soak(store: MongoStore) -> tuple[list[str], Callable[[], None]]:
    """Threads that check in and out until they are stopped; the keys whose check-out was acknowledged."""
    done: list[str] = []
    ended = threading.Event()

    def in_and_out(key: str) -> None:
        request = checkin(key)
        admission = insist(ended, lambda: store.checkin(request))
        if isinstance(admission, Admission) and admission.run.lease is not None:
            out = CheckOut.succeeded(admission.run.lease, key)
            if insist(ended, lambda: store.checkout([out])) == [True]:
                done.append(key)

    def work(which: int) -> None:
        number = itertools.count()
        while not ended.is_set():
            in_and_out(f"{which}-{next(number)}")

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()

    def stop() -> None:
        ended.set()
        for thread in threads:
            thread.join(60)

    return done, stop


def test_g16_a_killed_server_gives_our_errors_only() -> None:
    with own_server() as server:
        store = fresh(server.url + "&serverSelectionTimeoutMS=50&timeout_ms=1000")
        watch = store.watch(Interest(configs=True))
        lease = store.lock(LockRequest(lock=LockId("l"), holder="ann", lease=LONG)).lease
        assert lease is not None
        server.kill()
        asks: list[Callable[[], object]] = [
            lambda: store.checkin(checkin()),
            lambda: store.unlock(lease),
            lambda: store.renew([Renewal(lease=lease)]),
            lambda: store.claim(claim(1)),
            lambda: store.submit([RunSpec.of("job", "k")]),
            lambda: store.runs(RunQuery()),
            lambda: store.counts(),
            lambda: store.purge(Purge(older_than=LONG)),
            lambda: store.now(),
            lambda: watch.wait(5),
        ]
        for ask in asks:
            with pytest.raises(StoreError):
                ask()
        assert not store.health().ok
        started = time.monotonic()
        store.close()
        assert time.monotonic() - started < 10


def _refused(error: AutoReconnect) -> AutoReconnect:
    """As the driver raises it where nobody listens any more."""
    error.__cause__ = ConnectionRefusedError()
    return error


@pytest.mark.parametrize(
    ("error", "wanted", "of_read"),
    [
        (ServerSelectionTimeoutError("no"), StoreUnavailable, StoreUnavailable),
        (AutoReconnect("reset"), OutcomeUnknown, StoreUnavailable),
        (NetworkTimeout("late"), OutcomeUnknown, StoreUnavailable),
        # The driver repeats writes, and tells of the last try: the first one may have been applied.
        (_refused(AutoReconnect("connection refused")), OutcomeUnknown, StoreUnavailable),
        (WaitQueueTimeoutError("no connection"), OutcomeUnknown, StoreUnavailable),
        (WTimeoutError("majority", 64, {}), OutcomeUnknown, StoreUnavailable),
        (WriteConcernError("majority", 100, {}), OutcomeUnknown, StoreUnavailable),
        (OperationFailure("not authorized", 13), StoreMisconfigured, StoreMisconfigured),
        (OperationFailure("auth failed", 18), StoreMisconfigured, StoreMisconfigured),
        (OperationFailure("not primary", 10107), StoreUnavailable, StoreUnavailable),
        (OperationFailure("too large", 10334), InvalidRequest, InvalidRequest),
        (OperationFailure("?", 99999), OutcomeUnknown, StoreUnavailable),
    ],
)
def test_three_outcomes_are_kept_apart(
    error: OperationFailure, wanted: type[Exception], of_read: type[Exception]
) -> None:
    assert type(translated(error, "there", reads=False)) is wanted
    assert type(translated(error, "there", reads=True)) is of_read


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mongodb://h/?w=1", "majority"),
        ("mongodb://h/?readPreference=secondary", "primary"),
        ("mongodb:///db", "needs a host"),
        ("mongodb://h/?timeout_ms=0", "timeout_ms"),
        ("mongodb://h/a.b", "database"),
        ("mongodb://u:secret@h/?nonsense=1", "nonsense"),
        ("http://u:secret@h/", "no MongoDB URL"),
    ],
)
def test_urls_that_cannot_work_say_why(url: str, reason: str) -> None:
    with pytest.raises(StoreMisconfigured, match=reason) as caught:
        options_of(url)
    assert "secret" not in str(caught.value)


def test_urls_are_taken_apart() -> None:
    options = options_of("mongodb+srv://u%40:p%2F@cluster.example/app?replicaSet=rs0&tls=true&timeout_ms=500")
    assert (options.srv, options.username, options.password) == (True, "u@", "p/")
    assert (options.hosts, options.database, options.timeout_ms) == (("cluster.example",), "app", 500)
    driver = options.for_driver()
    assert (driver["replicaSet"], driver["tls"]) == ("rs0", True)
    assert options.url == "mongodb+srv://u@@cluster.example/app"
    assert options_of("mongodb://h").database == "onceward"
    assert TYPE.name == TYPE.extra == "mongodb"


def test_a_forked_child_has_a_client_of_its_own(store: MongoStore) -> None:
    store.checkin(checkin())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, store.checkin(checkin("of the child")).outcome.value.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == b"admitted"
    os.waitpid(child, 0)
    assert store.checkin(checkin("of the child")).outcome is CheckInOutcome.RUNNING
    lock = store.lock(LockRequest(lock=LockId("l"), holder="ann", lease=LONG))
    assert lock.lease is not None
    assert store.renew([Renewal(lease=lock.lease), Renewal(lease=lock.lease)]) == [Renewed.HELD, Renewed.HELD]
