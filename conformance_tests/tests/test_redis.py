"""The Redis runner on real servers: what it promises about trips, errors, restarts and its own limits."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from redis_support import ClockedRedisStore, fresh, own_server, shared_url
from servers_support import EVERY_VERB, OneClock, certificate
from waiting import answered, until

from onceward.conformance.servers import RedisServer
from onceward.conformance.servers.process import free_port
from onceward.contracts import (
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
    OnAbandoned,
    OnFailed,
    OutcomeUnknown,
    Progress,
    Purge,
    Rearm,
    Renewal,
    Renewed,
    RunId,
    RunQuery,
    RunSpec,
    Status,
    Store,
    StoreMisconfigured,
    StoreUnavailable,
    Want,
    new_holder,
    new_request,
)
from onceward.contracts.records import ATTEMPTS_KEPT
from onceward.runners.redis import TYPE, Options, RedisStore
from onceward.runners.redis.names import escaped, original, prefix, run_of, run_text
from onceward.runners.redis.options import options_of
from onceward.runners.redis.scripts import scripts
from onceward.runners.redis.server import examined
from onceward.runners.redis.target import slot_of
from onceward.runners.redis.wire import connect

LONG = timedelta(hours=1)
BRIEF = timedelta(milliseconds=40)


@pytest.fixture
def store() -> Iterator[RedisStore]:
    made = fresh()
    yield made
    made.close()


def checkin(store: Store, key: str = "1", **more: object) -> CheckIn:
    return CheckIn(run=RunId("job", key), holder="h", **({"lease": LONG} | more))  # type: ignore[arg-type]


def lapse(store: Store, brief: timedelta = BRIEF) -> None:
    """Wait by the server's own clock, which is the one that ends leases."""
    over = store.now() + brief + timedelta(milliseconds=2)
    until(lambda: store.now() >= over)


class Monitor:
    """Counts the commands that clients send; what scripts call inside the server is not a trip."""

    def __init__(self, url: str) -> None:
        self._wire = connect(options_of(url).addresses[0], options_of(url))
        assert self._wire.ask("MONITOR") == "OK"

    def during(self, store: RedisStore, act: Callable[[], object]) -> list[str]:
        self._until_mark(store)
        act()
        return self._until_mark(store)

    def _until_mark(self, store: RedisStore) -> list[str]:
        """The commands until one that is sent now."""
        mark = f"mark-{new_request()}"
        store._link.ask("ECHO", mark)
        seen: list[str] = []
        while mark not in (line := str(self._wire.poll(5))):
            if " lua]" not in line:
                seen.append(line.split('"')[1].upper())
        return seen

    def close(self) -> None:
        self._wire.close()


@pytest.fixture
def monitor(store: RedisStore) -> Iterator[Monitor]:
    made = Monitor(shared_url())
    yield made
    made.close()


def test_each_verb_is_one_trip(store: RedisStore, monitor: Monitor) -> None:
    one = ["EVALSHA"]
    new = checkin(store)
    assert monitor.during(store, lambda: store.checkin(new)) == one
    assert monitor.during(store, lambda: store.checkin(new)) == one, "the repetition"
    assert monitor.during(store, lambda: store.checkin(checkin(store))) == one, "the duplicate"
    lease = store.checkin(new).run.lease
    assert lease is not None
    assert monitor.during(store, lambda: store.check(new.run)) == ["HGETALL"]
    assert monitor.during(store, lambda: store.renew([Renewal(lease=lease)] * 200)) == one
    lock = LockRequest(lock=LockId("l"), holder="h", lease=LONG)
    assert monitor.during(store, lambda: store.lock(lock)) == one
    held = store.lock(lock).lease
    assert held is not None
    assert monitor.during(store, lambda: store.lock(LockRequest(lock=lock.lock, holder="i", lease=LONG))) == one
    assert monitor.during(store, lambda: store.unlock(held)) == one
    specs = [RunSpec.of("queue", str(i)) for i in range(200)]
    assert monitor.during(store, lambda: store.submit(specs)) == one
    claim = Claim.of("queue", holder="h", lease=LONG, limit=200)
    assert monitor.during(store, lambda: store.claim(claim)) == one
    runs = store.claim(claim)
    assert len(runs) == 200
    ends = [CheckOut.succeeded(run.lease) for run in runs if run.lease]
    assert monitor.during(store, lambda: store.checkout(ends)) == one
    assert store.counts("queue") == {"queue": {Status.SUCCEEDED: 200}}


def test_large_batches_are_few_commands_sent_together(store: RedisStore, monitor: Monitor) -> None:
    specs = [RunSpec.of("queue", str(i)) for i in range(1_000)]
    sent = monitor.during(store, lambda: store.submit(specs))
    assert sent == ["EVALSHA"] * 4
    assert store.submit([]) == []
    assert len(store.runs(RunQuery(limit=2_000))) == 1_000


def test_scripts_are_loaded_again_when_the_server_forgot_them(store: RedisStore) -> None:
    store._link.ask("SCRIPT", "FLUSH")
    assert store.checkin(checkin(store)).outcome is CheckInOutcome.ADMITTED
    store._link.ask("SCRIPT", "FLUSH")
    assert store.submit([RunSpec.of("a", str(i)) for i in range(600)]) == [True] * 600


def test_real_leases_lapse_by_the_servers_clock(store: RedisStore) -> None:
    first = store.checkin(checkin(store, lease=BRIEF))
    assert store.checkin(checkin(store)).outcome is CheckInOutcome.RUNNING
    lapse(store)
    assert first.run.lease is not None
    assert store.renew([Renewal(lease=first.run.lease)]) == [Renewed.LOST]
    second = store.checkin(checkin(store))
    assert second.outcome is CheckInOutcome.TAKEN_OVER
    assert second.run.token > first.run.token
    assert store.checkout([CheckOut.succeeded(first.run.lease)]) == [False]
    assert second.run.lease is not None
    assert store.checkout([CheckOut.succeeded(second.run.lease)]) == [True]


def test_claims_go_by_priority_then_time_then_submission_among_due_and_lapsed(store: RedisStore) -> None:
    store.submit([RunSpec.of("j", "low", priority=-1), RunSpec.of("j", "mid"), RunSpec.of("j", "mid2")])
    store.submit([RunSpec.of("k", "top", priority=9)])
    assert [run.key for run in store.claim(Claim.of("j", "k", holder="h", lease=BRIEF, limit=2))] == ["top", "mid"]
    lapse(store)
    taken = store.claim(Claim(holder="i", lease=LONG, limit=9))
    assert [run.key for run in taken] == ["top", "mid", "mid2", "low"]
    assert [run.attempts[-1].takeover for run in taken] == [True, True, False, False]


def test_max_running_counts_live_leases_only(store: RedisStore) -> None:
    store.submit([RunSpec.of("j", str(i)) for i in range(5)])
    want = (Want(job="j", max_running=2),)
    assert len(store.claim(Claim(holder="h", lease=BRIEF, limit=5, wants=want))) == 2
    assert store.claim(Claim(holder="i", lease=LONG, limit=5, wants=want)) == []
    lapse(store)
    assert [run.key for run in store.claim(Claim(holder="i", lease=LONG, limit=5, wants=want))] == ["0", "1"]


def test_attempts_are_bounded_and_late_copies_of_those_kept_are_known(store: RedisStore) -> None:
    requests = [checkin(store, on_failed=OnFailed.RERUN) for _ in range(ATTEMPTS_KEPT + 5)]
    for request in requests:
        lease = store.checkin(request).run.lease
        assert lease is not None
        assert store.checkout([CheckOut.failed(lease)]) == [True]
    run = store.check(requests[0].run)
    assert run is not None
    assert [attempt.number for attempt in run.attempts] == list(range(6, ATTEMPTS_KEPT + 6))
    assert [attempt.request for attempt in run.attempts] == [request.request for request in requests[5:]]
    assert store.checkin(requests[5]).outcome is CheckInOutcome.FAILED, "a late copy"
    assert store.checkin(requests[-1]).outcome is CheckInOutcome.FAILED, "a late copy"
    fields = store._link.ask("HKEYS", f"{prefix(store.namespace)}r:{run_text(run.id)}")
    assert isinstance(fields, list)
    assert sum(re.fullmatch(r"a\d+", str(field)) is not None for field in fields) == ATTEMPTS_KEPT - 1


def test_a_run_that_was_cancelled_and_rearmed_before_its_first_attempt(store: RedisStore) -> None:
    store.submit([RunSpec.of("j", "1")])
    store.cancel(RunId("j", "1"))
    assert store.rearm([Rearm(run=RunId("j", "1"), token=0)]) == [True]
    (run,) = store.claim(Claim.of("j", holder="h", lease=LONG))
    assert (run.rearmed, run.ended, run.attempt) == (False, None, 1)


def test_g7_late_copies_of_requests_change_nothing(store: RedisStore) -> None:
    request = checkin(store)
    lease = store.checkin(request).run.lease
    assert lease is not None
    again = CheckOut.retry(lease)
    assert store.checkout([again]) == [True]
    assert store.checkin(request).outcome is CheckInOutcome.SCHEDULED, "its attempt is over"
    assert store.checkout([again]) == [True]
    taken = store.checkin(checkin(store))
    assert taken.outcome is CheckInOutcome.ADMITTED
    assert store.checkout([again]) == [True], "recorded before"
    assert store.check(taken.run.id) == taken.run

    lock = LockRequest(lock=LockId("l"), holder="h", lease=LONG)
    held = store.lock(lock).lease
    assert held is not None
    assert [store.lock(lock).lease, store.unlock(held), store.unlock(held)] == [held, True, True]
    assert not store.lock(lock).acquired, "it was granted and let go"
    assert store.lock(LockRequest(lock=LockId("l"), holder="i", lease=LONG)).acquired
    assert not store.unlock(held)

    write = ConfigWrite(name="c", document=1, expected_version=0)
    first = store.write_config(write)
    assert first is not None
    assert store.write_config(write) == first
    assert store.write_config(ConfigWrite(name="c", document=None, expected_version=1)) is not None
    assert store.read_config("c") is None
    later = store.write_config(ConfigWrite(name="c", document=2, expected_version=0))
    assert later is not None
    assert later.version == 3, "a version never comes back"


def test_g2_a_forced_run_is_fenced_off_from_its_holder_and_its_request(store: RedisStore) -> None:
    request = checkin(store, on_abandoned=OnAbandoned.RERUN)
    lease = store.checkin(request).run.lease
    assert lease is not None
    assert store.force_unlock(request.run, token=lease.token + 1) is None
    assert store.force_unlock(request.run, token=lease.token) == lease
    assert store.force_unlock(request.run) is None
    assert store.checkin(request).outcome is CheckInOutcome.ABANDONED, "a late copy of what was forced"
    assert store.renew([Renewal(lease=lease)]) == [Renewed.LOST]
    assert store.checkout([CheckOut.succeeded(lease)]) == [False]
    taken = store.checkin(checkin(store))
    assert taken.outcome is CheckInOutcome.TAKEN_OVER
    assert [attempt.token for attempt in taken.run.attempts] == [lease.token, taken.run.token]
    assert taken.run.token > lease.token + 1


def test_g4_a_guessed_token_is_not_enough(store: RedisStore) -> None:
    lease = store.checkin(checkin(store)).run.lease
    held = store.lock(LockRequest(lock=LockId("l"), holder="h", lease=LONG)).lease
    assert lease is not None
    assert held is not None
    forged, forged_lock = replace(lease, request="guess"), replace(held, request="guess")
    assert store.renew([Renewal(lease=forged), Renewal(lease=forged_lock)]) == [Renewed.LOST, Renewed.LOST]
    assert store.checkout([CheckOut.succeeded(forged)]) == [False]
    assert not store.unlock(forged_lock)
    assert store.renew([Renewal(lease=replace(lease, token=2**80))]) == [Renewed.LOST]
    with pytest.raises(InvalidRequest):
        store.renew([Renewal(lease=replace(lease, request="\ud800"))])


def test_a_clock_that_goes_back_stretches_leases_and_leaves_tokens_alone() -> None:
    clock = OneClock()
    store = ClockedRedisStore(shared_url(), new_request(), clock)
    store.open()
    store.submit([RunSpec.of("j", key) for key in "12"])
    first, second = store.claim(Claim.of("j", holder="h", lease=timedelta(minutes=1), limit=2))
    assert first.lease is not None
    assert second.lease is not None
    look = Claim(holder="i", lease=LONG, wants=(Want(job="j", limit=0),))
    again = Claim.of("j", holder="i", lease=LONG, limit=5)
    clock.advance(timedelta(minutes=2))
    assert store.claim(look) == [], "it has seen them lapse"
    clock.jump_wall(timedelta(minutes=-2))
    assert store.renew([Renewal(lease=first.lease)]) == [Renewed.HELD]
    assert store.claim(again) == [], "they are held again"
    clock.advance(timedelta(minutes=2))
    taken = store.claim(again)
    assert [run.key for run in taken] == ["1", "2"]
    assert min(run.token for run in taken) > max(first.token, second.token)
    assert store.checkout([CheckOut.succeeded(first.lease), CheckOut.succeeded(second.lease)]) == [False, False]
    assert store.checkout([CheckOut.succeeded(run.lease) for run in taken if run.lease]) == [True, True]
    assert store.claim(again) == []
    keys = store._link.ask("KEYS", prefix(store.namespace) + "[dx]:*")
    assert keys == [], "nothing is left in the lists of what runs"
    store.close()


def test_tokens_and_sequences_go_on_behind_a_purge(store: RedisStore) -> None:
    first = store.checkin(checkin(store)).run
    assert first.lease is not None
    store.checkout([CheckOut.succeeded(first.lease)])
    assert store.purge(Purge(older_than=timedelta(0))) == 1
    assert store.check(first.id) is None
    again = store.checkin(checkin(store)).run
    assert again.token > first.token
    assert again.sequence > first.sequence


def test_a_purge_leaves_nothing_behind_but_the_counter(store: RedisStore) -> None:
    run = store.checkin(checkin(store)).run
    store.submit([RunSpec.of("q", "1", priority=3)])
    (claimed,) = store.claim(Claim.of("q", holder="h", lease=LONG))
    store.checkout([CheckOut.succeeded(lease) for lease in (run.lease, claimed.lease) if lease])
    lease = store.lock(LockRequest(lock=LockId("l"), holder="h", lease=timedelta(milliseconds=1))).lease
    assert lease is not None
    lapse(store, timedelta(milliseconds=5))
    assert store.purge(Purge(older_than=timedelta(0))) == 2
    assert store._link.ask("KEYS", prefix(store.namespace).replace("[", "?") + "*") == [f"{prefix(store.namespace)}n"]


def test_purge_keeps_the_last_and_stops_at_its_limit(store: RedisStore) -> None:
    for i in range(6):
        lease = store.checkin(checkin(store, str(i))).run.lease
        assert lease is not None
        store.checkout([CheckOut.succeeded(lease) if i % 2 else CheckOut.failed(lease)])
        lapse(store, timedelta(milliseconds=1))
    assert store.purge(Purge(older_than=LONG)) == 0
    assert store.purge(Purge(older_than=timedelta(0), keep_last=4, limit=1)) == 1
    assert [run.key for run in store.runs(RunQuery(oldest_first=True))] == ["1", "2", "3", "4", "5"]
    assert store.purge(Purge(older_than=timedelta(0), keep_last=2, statuses=frozenset({Status.FAILED}))) == 1
    assert [run.key for run in store.runs(RunQuery(oldest_first=True))] == ["1", "3", "4", "5"]


def test_listing_goes_on_when_matches_are_rare(store: RedisStore) -> None:
    store.submit([RunSpec.of("j", f"{i}") for i in range(12_000)])
    store.submit([RunSpec(id=RunId("j", "5", '{"a":1}'))])
    found = store.runs(RunQuery(job="j", key="5", oldest_first=True))
    assert [run.id.stamp for run in found] == ["", '{"a":1}']
    assert [run.id.stamp for run in store.runs(RunQuery(key="5"))] == ['{"a":1}', ""]
    seen, after = [], None
    while page := store.runs(RunQuery(after=after, limit=5_000, oldest_first=True)):
        seen += [run.sequence for run in page]
        after = seen[-1]
    assert seen == list(range(1, 12_002))


def test_names_stay_in_their_place() -> None:
    wild = ("a:b", "{x}", "%41", "ü ", "*?[", "a/b", "%", "–")
    assert [original(escaped(name)) for name in wild] == list(wild)
    ids = [RunId(a, b, s) for a in wild for b in wild for s in ("", '{"k":"v:}"}')]
    texts = {run_text(run) for run in ids}
    assert len(texts) == len(ids)
    assert {run_of(text) for text in texts} == set(ids)
    assert prefix("a}{b").count("}") == 1
    assert slot_of(prefix("default")) == slot_of(prefix("default") + "r:{other}")


def test_wild_names_do_not_touch_each_other(store: RedisStore) -> None:
    other = RedisStore(shared_url(), store.namespace + ":r")
    other.open()
    ids = [RunId(job, key) for job in ("a", "a:b", "a%3Ab", "{x}") for key in ("1", "1:", "b:1")]
    assert all(store.checkin(CheckIn(run=run, holder="h")).outcome.admitted for run in ids)
    assert {run.id for run in store.runs(RunQuery())} == set(ids)
    assert other.runs(RunQuery()) == []
    other.close()


@pytest.mark.parametrize("size", [1, 100_000])
def test_payloads_come_back_as_they_went(store: RedisStore, size: int) -> None:
    payload = {"text": "ü\x00\x1f\n" * size, "n": [1, 2.5, None, True]}
    store.checkin(checkin(store, payload=payload))
    run = store.check(RunId("job", "1"))
    assert run is not None
    assert run.payload == payload


def test_input_that_cannot_be_stored_never_reaches_the_server(store: RedisStore, monitor: Monitor) -> None:
    def refused(act: Callable[[], object]) -> list[str]:
        with pytest.raises(InvalidRequest):
            act()
        return []

    lease = store.checkin(checkin(store)).run.lease
    assert lease is not None
    big = "x" * (16 * 1024 * 1024)
    assert monitor.during(store, lambda: refused(lambda: store.checkin(checkin(store, "2", payload=big)))) == []
    assert monitor.during(store, lambda: refused(lambda: store.counts("\ud800"))) == []
    assert monitor.during(store, lambda: refused(lambda: store.checkout([CheckOut.succeeded(lease, "\ud800")]))) == []


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gone() -> RedisStore:
    with own_server() as server:
        store = RedisStore(server.url, "n")
        store.open()
    store.health()  # whoever is under way when a server goes does not know the outcome; from then on it is definite
    return store


@pytest.mark.parametrize("verb", EVERY_VERB)
def test_a_server_that_is_gone_is_definitely_unavailable(gone: RedisStore, verb: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot be reached|did not answer"):
        EVERY_VERB[verb](gone)
    assert not gone.health().ok


def test_a_closed_store_says_so(store: RedisStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        store.checkin(checkin(store))
    store.open()
    store.checkin(checkin(store))


def test_an_answer_that_does_not_come_is_unknown_for_writes_and_unavailable_for_reads() -> None:
    with own_server() as server:
        store = RedisStore(server.url + "?timeout_ms=150&connect_timeout_ms=150", "n")
        answered(store.open)
        server.signal(19)  # SIGSTOP
        with pytest.raises(OutcomeUnknown, match="no answer in time"):
            store.checkin(checkin(store))
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            store.checkin(checkin(store, "2"))  # connects to a kernel that accepts for a server that sleeps
        server.signal(18)  # SIGCONT
        request = checkin(store, "3")
        assert answered(lambda: store.checkin(request)).outcome is CheckInOutcome.ADMITTED
        server.signal(19)
        with pytest.raises(StoreUnavailable):
            store.check(RunId("job", "1"))
        server.signal(18)
        store.close()


def test_a_lost_reply_is_settled_by_asking_again() -> None:
    with own_server() as server:
        store = RedisStore(server.url, "n")
        store.open()
        request = checkin(store)
        wire = store._link._wire
        assert wire is not None
        feed = wire._feed

        def lose(size: int = 0) -> None:
            feed(size)
            raise ConnectionResetError("the reply is lost")

        wire._feed = lose  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown, match="send the same request again"):
            store.checkin(request)
        again = store.checkin(request)
        assert (again.outcome, again.run.attempt) == (CheckInOutcome.ADMITTED, 1)
        assert store.checkin(checkin(store)).outcome is CheckInOutcome.RUNNING
        store.close()


def test_memory_used_up_refuses_new_work_and_lets_work_end() -> None:
    with own_server() as server:
        store = RedisStore(server.url, "n")
        store.open()
        held = [store.checkin(checkin(store, str(i))).run.lease for i in range(3)]
        lock = store.lock(LockRequest(lock=LockId("l"), holder="h", lease=LONG)).lease
        store.submit([RunSpec.of("q", "0")])
        store._link.ask("CONFIG", "SET", "maxmemory", "1kb")
        for refused in (
            lambda: store.checkin(checkin(store, "new")),
            lambda: store.submit([RunSpec.of("q", "1")]),
            lambda: store.claim(Claim.of("q", holder="h", lease=LONG)),
            lambda: store.lock(LockRequest(lock=LockId("m"), holder="h", lease=LONG)),
        ):
            with pytest.raises(StoreUnavailable, match="maxmemory"):
                refused()
        assert store.counts() == {"job": {Status.RUNNING: 3}, "q": {Status.SCHEDULED: 1}}
        assert lock is not None
        assert store.renew([Renewal(lease=lease, progress=Progress(done=1)) for lease in (*held, lock) if lease])
        assert store.checkout([CheckOut.succeeded(lease) for lease in held if lease]) == [True] * 3
        assert store.unlock(lock)
        assert [store.cancel(RunId("q", "0")), store.purge(Purge(older_than=timedelta(0)))][1] == 4
        store.close()


def test_a_server_that_forgets_keys_when_memory_is_short_is_refused() -> None:
    forgetful = own_server("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    with forgetful, pytest.raises(StoreMisconfigured, match="noeviction"):
        RedisStore(forgetful.url, "n").open()


def test_passwords_are_needed_checked_and_never_shown() -> None:
    with own_server(password="s3cret/@:") as server:
        base = f"127.0.0.1:{server.port}/0"
        with pytest.raises(StoreMisconfigured, match="wants a password"):
            RedisStore(f"redis://{base}", "n").open()
        with pytest.raises(StoreMisconfigured, match="does not accept") as caught:
            RedisStore(f"redis://:wr0ng@{base}", "n").open()
        assert "wr0ng" not in str(caught.value)
        good = RedisStore(f"redis://default:s3cret%2F%40%3A@{base}", "n")
        good.open()
        for shown in (repr(good.options), str(good.health()), good.options.url, str(TYPE.build(good.options, "n"))):
            assert "s3cret" not in shown
        good._link.ask("ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@read", "+info", "+script")
        weak = RedisStore(f"redis://weak:pw@{base}", "n")
        with pytest.raises(StoreMisconfigured, match="may not do that"):
            weak.open()
        good.close()


def test_a_password_that_nobody_asked_for_and_a_database_that_is_not_there() -> None:
    host = options_of(shared_url()).hosts[0]
    with pytest.raises(StoreMisconfigured, match=r"has no password|does not accept"):
        RedisStore(f"redis://:nope@{host}/0", "n").open()
    with pytest.raises(StoreMisconfigured, match="no database 99"):
        RedisStore(f"redis://{host}/99", "n").open()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("redis_version:6.2.14\narch_bits:64\nrole:master", "Redis 6.2.14; Onceward needs Redis 7 or newer"),
        ("redis_version:7.2.5\narch_bits:32\nrole:master", "a 32-bit program"),
    ],
)
def test_a_server_whose_scripts_cannot_do_it_is_refused(said: str, why: str) -> None:
    """No such server is at hand: this is what it says of itself."""
    with pytest.raises(StoreMisconfigured, match=why):
        examined(lambda *_: said, Options())


def test_a_replica_is_refused_and_a_primary_with_one_is_lossy() -> None:
    with own_server() as primary, own_server("--replicaof", "127.0.0.1", str(primary.port)) as replica:
        await_replica(replica)
        with pytest.raises(StoreMisconfigured, match="read-only replica"):
            RedisStore(replica.url, "n").open()
        store = RedisStore(primary.url + "?wait_replicas=1", "n")
        store.open()
        assert store.traits.failover is Failover.LOSSY
        request = checkin(store)
        assert store.checkin(request).outcome is CheckInOutcome.ADMITTED
        store._link.ask("CONFIG", "SET", "repl-timeout", "1000")
        replica.kill()
        lonely = RedisStore(primary.url + "?wait_replicas=1&timeout_ms=600", store.namespace)
        answered(lonely.open)
        with pytest.raises(OutcomeUnknown, match="0 replicas have it"):
            lonely.checkin(checkin(store, "2"))
        assert lonely.check(RunId("job", "2")) is not None
        lonely.close()
        store.close()


def test_a_primary_that_becomes_a_replica_refuses_definitely() -> None:
    with own_server() as other, own_server() as server:
        store = RedisStore(server.url, "n")
        store.open()
        store._link.ask("REPLICAOF", "127.0.0.1", str(other.port))
        with pytest.raises(StoreUnavailable, match="read-only replica"):
            store.checkin(checkin(store))
        store._link.ask("REPLICAOF", "NO", "ONE")
        assert store.checkin(checkin(store)).outcome is CheckInOutcome.ADMITTED
        store.close()


def await_replica(replica: RedisServer) -> None:
    wire = connect(("127.0.0.1", replica.port), Options())
    until(lambda: "master_link_status:up" in str(wire.ask("INFO", "replication")))
    wire.close()


# -- durability -------------------------------------------------------------------------------------------------------


def test_what_is_promised_about_durability_is_what_the_server_does() -> None:
    with own_server() as server:
        store = fresh(server.url)
        assert not store.traits.durable
        assert store.traits.failover is Failover.NONE
        for appendonly, appendfsync, durable in (("yes", "everysec", False), ("yes", "always", True)):
            store._link.ask("CONFIG", "SET", "appendonly", appendonly, "appendfsync", appendfsync)
            store.close()
            store.open()
            assert store.traits.durable is durable
        store.close()


@dataclass
class Soak:
    """Threads that check the same runs in and out; what is unavailable or unknown is settled by asking again."""

    store: RedisStore
    admitted: list[str] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def work(self, holder: str) -> None:
        try:
            for number in itertools.takewhile(lambda _: not self.stop.is_set(), itertools.count()):
                self.one(CheckIn(run=RunId("j", str(number)), holder=holder, lease=LONG))
        except BaseException as error:
            self.errors.append(error)

    def one(self, request: CheckIn) -> None:
        answer = answered(lambda: self.store.checkin(request))
        if answer.outcome.admitted and answer.run.lease is not None:
            self.admitted.append(request.run.key)
            end = CheckOut.succeeded(answer.run.lease, request.holder)
            assert answered(lambda: self.store.checkout([end])) == [True], "an acknowledged admission is gone"
            self.recorded.append(request.run.key)


def test_g6_a_killed_server_with_aof_always_has_lost_nothing_acknowledged() -> None:
    with own_server(durable=True) as server:
        soak = Soak(fresh(server.url))
        assert soak.store.traits.durable
        threads = [threading.Thread(target=soak.work, args=(f"h{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            enough = len(soak.recorded) + 50
            until(lambda enough=enough: bool(soak.errors) or len(soak.recorded) >= enough)  # type: ignore[misc]
            server.restart()
        soak.stop.set()
        for thread in threads:
            thread.join()
        assert soak.errors == []
        assert len(set(soak.admitted)) == len(soak.admitted), "G1: admitted twice"
        ended = RunQuery(statuses=frozenset({Status.SUCCEEDED}), limit=100_000)
        assert {run.key for run in soak.store.runs(ended)} == set(soak.recorded), (
            "G6: an acknowledged check-out is gone"
        )
        soak.store.close()


# -- processes and threads --------------------------------------------------------------------------------------------


def test_threads_share_trips_and_each_gets_its_own_answer(store: RedisStore) -> None:
    answers: dict[str, list[bool]] = {str(i): [] for i in range(200)}

    def work(holder: str) -> None:
        for key, won in answers.items():
            run = store.checkin(CheckIn(run=RunId("j", key), holder=holder, lease=LONG))
            assert run.run.key == key
            won.append(run.outcome.admitted and run.run.lease is not None and run.run.lease.holder == holder)

    threads = [threading.Thread(target=work, args=(f"h{i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sum(won) == 1 and len(won) == 12 for won in answers.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_a_connection_of_its_own(store: RedisStore) -> None:
    store.checkin(checkin(store, "parent"))
    child = os.fork()
    if child == 0:
        fine = store.checkin(checkin(store, "child")).outcome is CheckInOutcome.ADMITTED
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.checkin(checkin(store, "child")).outcome is CheckInOutcome.RUNNING
    assert store.checkin(checkin(store, "parent2")).outcome is CheckInOutcome.ADMITTED


# -- watches ----------------------------------------------------------------------------------------------------------


def woken(store: RedisStore, interest: Interest, act: Callable[[], object]) -> bool:
    with store.watch(interest) as watch:
        assert not watch.wait(0.02)
        thread = threading.Timer(0.05, act)
        thread.start()
        try:
            return watch.wait(5)
        finally:
            thread.join()


def test_watches_are_told_of_what_is_of_interest(store: RedisStore) -> None:
    other = RedisStore(shared_url(), store.namespace)
    other.open()
    jobs = Interest(jobs=frozenset({"j:1"}))
    assert woken(store, jobs, lambda: other.submit([RunSpec.of("j:1", "1")]))
    run = RunId("j:1", "1")
    (claimed,) = other.claim(Claim.of("j:1", holder="h", lease=LONG))
    assert claimed.lease is not None
    lease = claimed.lease
    assert woken(store, Interest(runs=frozenset({run})), lambda: other.checkout([CheckOut.succeeded(lease)]))
    write = ConfigWrite(name="c", document=1, expected_version=0)
    assert woken(store, Interest(configs=True), lambda: other.write_config(write))
    held = other.lock(LockRequest(lock=LockId("l x"), holder="h", lease=LONG)).lease
    assert held is not None
    assert woken(store, Interest(locks=frozenset({"l x"})), lambda: other.unlock(held))
    other.close()


def test_watches_see_what_comes_due_and_what_lapses(store: RedisStore) -> None:
    soon = timedelta(milliseconds=120)
    with store.watch(Interest(jobs=frozenset({"j"}), locks=frozenset({"l"}))) as watch:
        store.submit([RunSpec(id=RunId("j", "1"), after=soon)])
        assert watch.wait(5)
        assert len(store.claim(Claim.of("j", holder="h", lease=soon))) == 1
        assert watch.wait(5)
        assert len(store.claim(Claim.of("j", holder="h", lease=LONG))) == 1
        store.lock(LockRequest(lock=LockId("l"), holder="h", lease=soon))
        assert watch.wait(5)
        assert store.lock(LockRequest(lock=LockId("l"), holder="i", lease=LONG)).acquired
        assert not watch.wait(0.02)


def test_a_change_between_the_look_and_the_wait_is_not_missed(store: RedisStore) -> None:
    with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
        store.submit([RunSpec.of("j", "1")])
        assert watch.wait(0)


def test_a_watch_ends_when_it_or_its_store_is_closed(store: RedisStore) -> None:
    watch = store.watch(Interest(jobs=frozenset({"j"})))
    answers: list[bool] = []
    listens, told = threading.Event(), watch._told

    def telling(seconds: float) -> bool:
        listens.set()
        return told(seconds)

    watch._told = telling  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: answers.append(watch.wait(60)))
    thread.start()
    assert listens.wait(5)
    store.close()
    thread.join(5)
    assert answers == [False]
    assert not watch.wait(0)
    watch.close()


def test_a_watch_outlives_its_connection() -> None:
    with own_server() as server:
        store = fresh(server.url)
        with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
            store._link.ask("CLIENT", "KILL", "TYPE", "pubsub")
            assert watch.wait(5), "something may have changed meanwhile"
            assert not watch.wait(0.02)
            store.submit([RunSpec.of("j", "1")])
            assert watch.wait(5)
            server.kill()
            with pytest.raises(StoreUnavailable):
                watch.wait(5)
            server.start()
            assert watch.wait(5)
        store.close()


# -- options ----------------------------------------------------------------------------------------------------------


def test_urls_say_where_the_server_is() -> None:
    made = options_of("rediss://us%40er:p%3Aw@h1:6390/3?wait_replicas=2&tls_verify=false")
    assert (made.username, made.password, made.addresses, made.db) == ("us@er", "p:w", (("h1", 6390),), 3)
    assert (made.tls, made.tls_verify, made.wait_replicas) == (True, False, 2)
    sentinel = options_of("redis+sentinel://h1,h2:7/main/1?sentinel_password=x")
    assert (sentinel.mode, sentinel.service, sentinel.db) == ("sentinel", "main", 1)
    assert sentinel.addresses == (("h1", 26379), ("h2", 7))
    cluster = options_of("redis+cluster://[::1]:7000,b")
    assert (cluster.mode, cluster.addresses) == ("cluster", (("::1", 7000), ("b", 6379)))
    assert options_of("unix:///run/redis.sock?db=2").path == "/run/redis.sock"
    assert options_of("redis://").addresses == (("localhost", 6379),)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/x",
        "redis://h/?nonsense=1",
        "redis://:pass@h:port/0",
        "redis://:pass@h/0?timeout_ms=0",
        "redis+sentinel://:pass@h/",
        "redis+cluster://:pass@h/1",
        "http://:pass@h",
        "redis://:pass@[h",
        "redis+other://:pass@h",
    ],
)
def test_urls_that_make_no_sense_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(StoreMisconfigured) as caught:
        options_of(url)
    assert "pass@" not in str(caught.value)


def test_a_unix_socket_works() -> None:
    with own_server("--unixsocket", "redis.sock") as server:
        store = fresh(f"unix://{server.folder}/redis.sock")
        assert store.checkin(checkin(store)).outcome is CheckInOutcome.ADMITTED
        with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
            store.submit([RunSpec.of("j", "1")])
            assert watch.wait(5)
        store.close()


def test_a_plain_url_to_a_cluster_node_and_a_cluster_url_to_a_plain_server_are_explained() -> None:
    with own_server("--cluster-enabled", "yes", "--cluster-port", str(free_port())) as node:
        with pytest.raises(StoreMisconfigured, match=r"redis\+cluster://"):
            RedisStore(node.url, "n").open()
        wire = connect(("127.0.0.1", node.port), Options())
        wire.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wire.close()
        store = RedisStore(f"redis+cluster://127.0.0.1:{node.port}", "n")
        answered(store.open)  # a cluster that was just made needs a moment to say so
        assert store.checkin(checkin(store)).outcome is CheckInOutcome.ADMITTED
        store.submit([RunSpec.of("j", str(i)) for i in range(3)])
        assert len(store.claim(Claim.of("j", holder="h", lease=LONG, limit=5))) == 3
        with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
            store.submit([RunSpec.of("j", "9")])
            assert watch.wait(5)
        store.close()
    with pytest.raises(StoreMisconfigured, match="no node of a cluster"):
        RedisStore(shared_url().replace("redis://", "redis+cluster://"), "n").open()


def test_sentinels_lead_to_the_primary() -> None:
    with own_server() as primary:
        sentinel = own_server("--sentinel")
        (sentinel.folder / "sentinel.conf").write_text(f"sentinel monitor main 127.0.0.1 {primary.port} 1\n")
        plain = sentinel.command()
        sentinel.command = lambda: (  # type: ignore[method-assign]
            plain[0], str(sentinel.folder / "sentinel.conf"), "--sentinel", "--port", str(sentinel.port)
        )  # fmt: skip
        with sentinel:
            store = RedisStore(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0", "n")
            store.open()
            assert store.checkin(checkin(store)).outcome is CheckInOutcome.ADMITTED
            assert store.traits.failover is Failover.LOSSY
            store.close()
            with pytest.raises(StoreMisconfigured, match="no primary named 'other'"):
                RedisStore(f"redis+sentinel://127.0.0.1:{sentinel.port}/other/0", "n").open()


def test_every_script_says_what_it_takes_gives_and_promises() -> None:
    for name, script in scripts().items():
        assert script.text.startswith("#!lua"), name
        assert f"--[[ {name}: " in script.text, name
        assert "KEYS[1]" in script.text, name
        assert "Returns" in script.text, name
        assert "--@include" not in script.text, name


def test_ordinary_runs_stay_in_the_servers_compact_form(store: RedisStore) -> None:
    lease = store.checkin(CheckIn(run=RunId("job", "1"), holder=new_holder(), lease=LONG)).run.lease
    key = f"{prefix(store.namespace)}r:job:1:"
    assert store._link.ask("OBJECT", "ENCODING", key) == "listpack"
    assert lease is not None
    store.checkout([CheckOut.succeeded(lease, "fine")])
    assert store._link.ask("OBJECT", "ENCODING", key) == "listpack"


def test_tls_checks_the_certificate_and_works(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    port = free_port()
    files = ("--tls-cert-file", str(cert), "--tls-key-file", str(key), "--tls-ca-cert-file", str(cert))
    with own_server("--tls-port", str(port), *files, "--tls-auth-clients", "no"):
        url = f"rediss://127.0.0.1:{port}/0"
        with pytest.raises(StoreMisconfigured, match="certificate is not accepted"):
            RedisStore(url, "n").open()
        for accepted in (f"?tls_ca={cert}", "?tls_verify=false"):
            store = fresh(url + accepted)
            for key_of_run in "123":
                assert store.checkin(checkin(store, key_of_run)).outcome is CheckInOutcome.ADMITTED
                lapse(store, timedelta(milliseconds=3))
            with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
                assert not watch.wait(0.05)
                store.submit([RunSpec.of("j", "1", "x" * 200_000)])
                assert watch.wait(5)
            assert len(store.runs(RunQuery())) == 4
            store.close()
