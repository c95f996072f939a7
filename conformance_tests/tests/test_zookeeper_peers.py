"""What the suite's checker says of kazoo's Lock after its session was lost, in the fewest real steps; and of ours."""

from __future__ import annotations

import time
from datetime import timedelta

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from peer_histories import Steps, broken, shortest
from zookeeper_support import expired, fresh, shared_url

from onceward.contracts import Lease, LockId, LockRequest, Renewal, Renewed, new_request
from onceward.runners.zookeeper import ZooKeeperStore

BRIEF = timedelta(milliseconds=500)


def test_kazoos_lock_is_caught_after_its_session_was_lost() -> None:
    hosts, path, steps = shared_url().partition("://")[2], f"/peer-{new_request()}", Steps()
    ann, bob = clients = [KazooClient(hosts=hosts) for _ in range(2)]
    for client in clients:
        client.start()
    mine, theirs = ann.Lock(path), bob.Lock(path)
    assert steps.acquires("ann", lambda: mine.acquire(blocking=False))
    assert not steps.acquires("bob", lambda: theirs.acquire(blocking=False))
    steps.ended("ann")
    expired(ann)
    assert steps.acquires("bob", lambda: theirs.acquire(timeout=10))
    assert steps.still_has("bob", lambda: theirs.is_acquired)
    assert steps.still_has("ann", lambda: mine.is_acquired), "connected again, and still sure of it"
    assert mine.release(), "and its release is called a success"
    assert broken(steps.history) == {"G3"}
    assert shortest(steps.history) == ["ann: lock granted", "bob: lock granted", "ann: renew done"]
    theirs.release()
    bob.delete(path, recursive=True)
    for client in clients:
        client.stop()
        client.close()


def test_ours_says_that_it_was_lost() -> None:
    steps, leases = Steps(), dict[str, Lease | None]()
    ann = fresh()
    bob = fresh(namespace=ann.namespace)

    def take(store: ZooKeeperStore, who: str) -> bool:
        answer = store.lock(LockRequest(lock=LockId("l"), holder=who, lease=BRIEF))
        leases[who] = answer.lease
        return answer.acquired

    assert steps.acquires("ann", lambda: take(ann, "ann"), lease=BRIEF.total_seconds())
    expired(ann._link._own_client())
    while not steps.acquires("bob", lambda: take(bob, "bob"), lease=BRIEF.total_seconds()):
        time.sleep(0.02)  # the real clock of a server cannot be moved
    mine = leases["ann"]
    assert mine is not None
    assert not steps.still_has("ann", lambda: ann.renew([Renewal(lease=mine)]) == [Renewed.HELD])
    assert not ann.unlock(mine)
    assert not broken(steps.history)
    ann.close()
    bob.close()
