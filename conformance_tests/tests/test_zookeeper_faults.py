"""The ZooKeeper runner when connections, sessions and servers go: what is told, and that nothing is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import timedelta

import pytest
from servers_support import EVERY_VERB
from waiting import answered
from zookeeper_support import expired, fresh, own_server, shared_url

from onceward.conformance.faults.framing import ZOOKEEPER
from onceward.conformance.faults.plan import DELIVERED, AtIndex, Fate, Message, Plan, Treatment, Way
from onceward.conformance.faults.proxy import Proxy
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Interest,
    LockId,
    LockRequest,
    OutcomeUnknown,
    Renewal,
    Renewed,
    RunId,
    Runner,
    RunQuery,
    RunSpec,
    Status,
    StoreMisconfigured,
    StoreUnavailable,
)
from onceward.contracts.errors import StoreError
from onceward.runners.zookeeper import ZooKeeperStore
from onceward.runners.zookeeper.errors import broken, refusal
from onceward.toolkit.locks import Lock

LONG = timedelta(hours=1)


def checkin(key: str = "1", *, holder: str = "h") -> CheckIn:
    return CheckIn(run=RunId("j", key), holder=holder, lease=LONG)


def test_a_server_that_is_gone_is_definitely_unavailable_and_one_that_comes_back_has_lost_nothing() -> None:
    with own_server(durable=True) as server:
        store = ZooKeeperStore(f"{server.url}?connect_timeout_ms=100", "n")
        answered(store.open)
        request = checkin("kept")
        admitted = answered(lambda: store.checkin(request)).run
        server.kill()
        store.health()  # whoever is under way when a server goes does not know the outcome; from then on it is definite
        for verb in EVERY_VERB.values():
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                verb(store)
        assert not store.health().ok
        server.start()
        patient = ZooKeeperStore(server.url, "n")
        patient.open()
        assert patient.check(RunId("j", "kept")) == admitted
        assert admitted.lease is not None
        assert patient.checkout([CheckOut.succeeded(admitted.lease)]) == [True]
        patient.close()
        store.close()


def test_an_answer_that_does_not_come_is_unknown_for_writes_and_unavailable_for_reads() -> None:
    with Proxy(address(shared_url()), ZOOKEEPER) as proxy:
        host, port = proxy.address
        store = answered(lambda: fresh(f"zookeeper://{host}:{port}?timeout_ms=300"))
        known = checkin("0")
        answered(lambda: store.checkin(known))
        proxy.blackhole()
        unknown = checkin("1")
        with pytest.raises(OutcomeUnknown, match="no answer in time"):
            store.checkin(unknown)
        with pytest.raises(StoreUnavailable, match="only to be read"):
            store.check(RunId("j", "1"))
        proxy.heal()
        again = answered(lambda: store.checkin(unknown))
        assert again.outcome is CheckInOutcome.ADMITTED
        assert again.run.attempt == 1
        store.close()


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.RESET])
def test_a_lost_reply_is_settled_by_asking_again_without_another_attempt(fate: Fate) -> None:
    direct = fresh()
    with Proxy(address(shared_url()), ZOOKEEPER) as proxy:
        host, port = proxy.address
        store = fresh(f"zookeeper://{host}:{port}", direct.namespace)
        store.checkin(checkin("0"))
        proxy.plan = AtIndex(0, fate, way=Way.REPLY)
        request = checkin("1")
        with pytest.raises(OutcomeUnknown):
            store.checkin(request)
        again = store.checkin(request)
        assert (again.outcome, again.run.attempt) == (CheckInOutcome.ADMITTED, 1)
        assert again.run == direct.check(RunId("j", "1"))
        store.close()
    direct.close()


def address(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    return host, int(port)


def test_a_late_copy_does_not_take_the_session_of_its_client() -> None:
    """Else the server closes the client's connection, and then the copy's, when the client comes back."""
    kept: list[Message] = []

    class Keep(Plan):
        async def treat(self, message: Message) -> Treatment:
            if message.way is Way.REQUEST and message.mentions(b"copied"):
                kept.append(message)
            return DELIVERED

    with Proxy(address(shared_url()), ZOOKEEPER, Keep()) as proxy:
        store = fresh(f"zookeeper://{proxy.address[0]}:{proxy.address[1]}")
        client = store._link._own_client()
        states, request = list[str](), checkin("copied")
        client.add_listener(states.append)
        proxy.cut()
        assert answered(lambda: store.checkin(request)).outcome is CheckInOutcome.ADMITTED
        came_back = list(states)
        assert proxy.redeliver(kept[-1])
        assert store.checkin(checkin("copied")).outcome is CheckInOutcome.RUNNING
        assert states == came_back
        store.close()


def test_a_lost_session_takes_no_lease_with_it_and_wakes_watches() -> None:
    store = fresh()
    lease = store.checkin(checkin()).run.lease
    held = store.lock(LockRequest(lock=LockId("l"), holder="h", lease=LONG)).lease
    assert lease is not None
    assert held is not None
    with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
        while watch.wait(0):
            pass
        expired(store._link._own_client())
        assert watch.wait(5), "it may have missed something meanwhile"
        while watch.wait(0.1):
            pass
        store.submit([RunSpec.of("j", "2")])
        assert watch.wait(5)
    assert store.renew([Renewal(lease=lease), Renewal(lease=held)]) == [Renewed.HELD] * 2
    assert store.unlock(held)
    assert store.checkout([CheckOut.succeeded(lease)]) == [True]
    store.close()


HOLDER = """
    import sys
    from datetime import timedelta
    from onceward.contracts import *
    from onceward.runners.zookeeper import ZooKeeperStore

    store = ZooKeeperStore(sys.argv[1], sys.argv[2])
    store.open()
    brief = timedelta(seconds=1)
    run = store.checkin(CheckIn(run=RunId("j", "1"), holder="paused", lease=brief)).run.lease
    held = store.lock(LockRequest(lock=LockId("l"), holder="paused", lease=brief)).lease
    print("held", flush=True)
    sys.stdin.readline()
    print(store.checkout([CheckOut.succeeded(run)]), store.unlock(held))
    print([str(answer) for answer in store.renew([Renewal(lease=run), Renewal(lease=held)])], flush=True)
    store.close()
"""


def test_g4_a_process_that_was_stopped_past_its_lease_is_refused_every_write() -> None:
    store = fresh()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), shared_url(), store.namespace],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        os.kill(process.pid, signal.SIGSTOP)
        with store.watch(Interest(jobs=frozenset({"j"}), locks=frozenset({"l"}))) as watch:
            while (run := store.checkin(checkin(holder="next")).run).lease.holder != "next":  # type: ignore[union-attr]
                assert watch.wait(20)
            while not store.lock(LockRequest(lock=LockId("l"), holder="next", lease=LONG)).acquired:
                assert watch.wait(20)
        before = store.runs(RunQuery()), store.locks()
        os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert process.stdout.readline() == "[False] False\n"
        assert process.stdout.readline() == "['lost', 'lost']\n"
        now = store.runs(RunQuery()), store.locks()
        assert now[0] == before[0]
        assert [state.lease for state in now[1]] == [state.lease for state in before[1]]
        assert run.status is Status.RUNNING
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.communicate()
        store.close()


def test_a_watch_outlives_its_server() -> None:
    with own_server(durable=True) as server:
        store = ZooKeeperStore(f"{server.url}?connect_timeout_ms=300", "n")
        answered(store.open)
        with store.watch(Interest(jobs=frozenset({"j"}))) as watch:
            while watch.wait(0):
                pass
            server.kill()
            assert watch.wait(5), "it may miss something from now on"
            with pytest.raises(StoreUnavailable):
                watch.wait(5)
            server.start()
            assert answered(lambda: watch.wait(5)), "it may have missed something meanwhile"
            while answered(lambda: watch.wait(0.1)):
                pass
            assert answered(lambda: store.submit([RunSpec.of("j", "1")])) == [True]
            assert answered(lambda: watch.wait(5))
        store.close()


def test_a_quota_that_is_used_up_refuses_and_loses_nothing() -> None:
    with own_server("enforceQuota=true", options=["-Dzookeeper.enforceQuota=true"]) as server:
        store = fresh(server.url, "n")
        kept = store.checkin(checkin("kept")).run
        count = len(store.runs(RunQuery()))
        client = store._link._own_client()
        client.ensure_path("/zookeeper/quota/onceward")
        limits = b"count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=10"
        client.create("/zookeeper/quota/onceward/zookeeper_limits", limits)
        client.create("/zookeeper/quota/onceward/zookeeper_stats", b"count=10,bytes=10")
        with pytest.raises(StoreError, match="quota"):
            store.checkin(checkin("more"))
        assert len(store.runs(RunQuery())) == count
        assert store.check(RunId("j", "kept")) == kept
        store.close()


def test_what_servers_say_is_told_apart() -> None:
    assert isinstance(refusal(-102, "h"), StoreMisconfigured)
    assert isinstance(refusal(-115, "h"), StoreMisconfigured)
    assert isinstance(refusal(-6, "h"), StoreMisconfigured)
    assert "read-only" in str(refusal(-119, "h"))
    assert isinstance(refusal(-119, "h"), StoreUnavailable)
    assert isinstance(refusal(-4711, "h"), StoreUnavailable)
    assert isinstance(broken("h", "why", reads=True), StoreUnavailable)
    assert isinstance(broken("h", "why", reads=False), OutcomeUnknown)


def test_a_lock_that_is_lost_is_told_to_its_holder_at_once() -> None:
    """The renewal after a third of the lease is refused, and sets the event."""
    store = fresh()
    runner = Runner.of(store, namespace=store.namespace)
    held = Lock(runner, "l", lease=timedelta(seconds=1)).acquire()
    other = fresh(namespace=store.namespace)
    assert other.force_unlock(LockId("l")) is not None
    assert held.lost.wait(5)
    other.close()
    store.close()


def test_g5_neither_refusals_nor_watches_leave_anything_on_the_server() -> None:
    with own_server("4lw.commands.whitelist=mntr") as server:
        store, rival = fresh(server.url, "n"), fresh(server.url, "n")
        store.checkin(checkin("k"))
        store.lock(LockRequest(lock=LockId("l"), holder="h", lease=LONG))
        interest = Interest(jobs=frozenset({"j"}), locks=frozenset({"l"}), runs=frozenset({RunId("j", "k")}))

        def kept(after: int) -> dict[str, str]:
            for number in range(after):
                assert rival.checkin(checkin("k", holder=f"h{number}")).outcome is CheckInOutcome.RUNNING
                wish = LockRequest(lock=LockId("l"), holder=f"h{number}", lease=LONG)
                assert not rival.lock(wish).acquired
                with rival.watch(interest):
                    pass
            lines = str(store._link._own_client().command(b"mntr")).splitlines()
            wanted = ("zk_znode_count", "zk_watch_count", "zk_ephemerals_count")
            return {line.split()[0]: line.split()[1] for line in lines if line.startswith(wanted)}

        once = kept(1)
        assert len(once) == 3
        assert kept(50) == once
        rival.close()
        store.close()


class Deaf(Plan):
    """A server that takes connections, and answers on all but the first of them."""

    def __init__(self) -> None:
        self.greetings = 0

    async def treat(self, message: Message) -> Treatment:
        if message.way is Way.REQUEST and message.data[4:8] == bytes(4):  # the beginning of a session
            self.greetings += 1
            if self.greetings == 1:
                await asyncio.Event().wait()
        return DELIVERED


def test_a_connection_that_was_taken_and_is_never_answered_is_given_up() -> None:
    """So do servers that are just starting. Kazoo alone waits for ten seconds, as long as a session lasts."""
    plan = Deaf()
    with Proxy(address(shared_url()), ZOOKEEPER, plan) as proxy:
        store = fresh(f"zookeeper://{proxy.address[0]}:{proxy.address[1]}?connect_timeout_ms=2000")
        assert store.checkin(checkin()).outcome is CheckInOutcome.ADMITTED
        assert plan.greetings == 2
        store.close()


def test_g17_closing_does_not_wait_for_a_server_that_does_not_answer() -> None:
    with Proxy(address(shared_url()), ZOOKEEPER) as proxy:
        store = answered(lambda: fresh(f"zookeeper://{proxy.address[0]}:{proxy.address[1]}?connect_timeout_ms=300"))
        proxy.blackhole()
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            store.now()
        closing = threading.Thread(target=store.close)
        closing.start()
        closing.join(6)
        assert not closing.is_alive(), "kazoo alone waits for ten seconds"
