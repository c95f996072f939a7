"""What the suite's checker says of kazoo's Lock after its session was lost, in four real steps; and of ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from zookeeper_support import expired, fresh, shared_url

from onceward.conformance.checker import Judgement, judge
from onceward.conformance.history import Kind, Op, Outcome
from onceward.contracts import Lease, LockId, LockRequest, new_request

LEASE = timedelta(milliseconds=500)


def timed(client: str, kind: Kind, call: Callable[[], bool]) -> Op:
    """The step as the checker gets it; both ask for a hold that ends by itself, with the session or the lease."""
    inv = time.monotonic()
    said = call()
    ret = time.monotonic()
    if kind is Kind.LOCK:
        outcome = Outcome.GRANTED if said else Outcome.REFUSED
    else:
        outcome = Outcome.DONE if said else Outcome.LOST
    lease = 3600.0 if kind is Kind.LOCK else None
    return Op(client=client, kind=kind, resource="l", request=client, inv=inv, ret=ret, outcome=outcome, lease=lease)


def test_kazoos_lock_is_caught_after_its_session_was_lost() -> None:
    hosts, path = shared_url().partition("://")[2], f"/peer-{new_request()}"
    clients = [KazooClient(hosts=hosts) for _ in range(2)]
    for client in clients:
        client.start()
    mine, theirs = (client.Lock(path) for client in clients)
    history = [timed("ann", Kind.LOCK, lambda: mine.acquire(blocking=False))]
    expired(clients[0])
    history.append(timed("bob", Kind.LOCK, lambda: theirs.acquire(timeout=10)))
    assert mine.is_acquired, "connected again, and still sure of it"
    history.append(timed("ann", Kind.UNLOCK, mine.release))
    history.append(timed("bob", Kind.UNLOCK, theirs.release))
    clients[1].delete(path, recursive=True)
    for client in clients:
        client.stop()
        client.close()
    report = judge(history)
    assert report.judgement is Judgement.VIOLATED
    assert {finding.guarantee for finding in report.findings} & {"G3", "G4", "L7"}, report.findings
    assert len(history) == 4


def test_ours_says_that_it_was_lost() -> None:
    store = fresh()
    other = fresh(namespace=store.namespace)
    leases: dict[str, Lease] = {}

    def take(client: str, lease: timedelta) -> bool:
        answer = (store if client == "ann" else other).lock(LockRequest(lock=LockId("l"), holder=client, lease=lease))
        if answer.acquired and answer.lease is not None:
            leases[client] = answer.lease
        return answer.acquired

    history = [timed("ann", Kind.LOCK, lambda: take("ann", LEASE))]
    expired(store._link._own_client())
    while (attempt := timed("bob", Kind.LOCK, lambda: take("bob", timedelta(hours=1)))).outcome is Outcome.REFUSED:
        time.sleep(0.02)  # the real clock of a server cannot be moved
    history += [attempt, timed("ann", Kind.UNLOCK, lambda: store.unlock(leases["ann"]))]
    assert [op.outcome for op in history] == [Outcome.GRANTED, Outcome.GRANTED, Outcome.LOST]
    assert other.unlock(leases["bob"])
    store.close()
    other.close()
