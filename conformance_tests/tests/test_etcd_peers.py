"""What other people's locks on etcd do without any fault, and ours do not: two holders, and leases left behind.

The suite finds the two holders by itself: its message scheduler with etcd3gw, its checker with tooz.
"""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import etcd3gw
from etcd_support import leases_of, opened, own_server, shared_url
from peer_histories import Steps, broken, shortest
from peer_locks_etcd import Etcd3gwBlock
from tooz import coordination

from onceward.conformance.faults.contest import Contest
from onceward.conformance.faults.runners import Locks
from onceward.conformance.properties.messages import scheduled
from onceward.conformance.servers.etcd import EtcdHarness
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Tally, Violated
from onceward.contracts import Lease, LockId, LockRequest, Renewal, Renewed, Traits, new_request
from onceward.runners.etcd import EtcdStore

HOUR = timedelta(hours=1)
ATTEMPTS = 20
CASES = 20


def client(store: EtcdStore) -> etcd3gw.Etcd3Client:
    host, _, port = store.options.addresses[0].rpartition(":")
    return etcd3gw.client(host=host, port=int(port))


def test_two_blocks_of_etcd3gw_are_entered_together() -> None:
    """The history: ann enters, bob enters. ``acquire`` says False, and the block is entered nevertheless."""
    with own_server() as server, opened(server.url) as store:
        ann, bob = (client(store).lock("nightly", ttl=60) for _ in range(2))
        inside = []
        with ann:
            inside.append("ann")
            with bob:
                inside.append("bob")
                assert ann.is_acquired()
        assert inside == ["ann", "bob"]


def test_each_failed_acquire_of_etcd3gw_leaves_a_lease_and_ours_none() -> None:
    with own_server() as server, opened(server.url) as store:
        assert client(store).lock("nightly", ttl=600).acquire()
        before = leases_of(store)
        for _ in range(ATTEMPTS):
            assert not client(store).lock("nightly", ttl=600).acquire()
        theirs = leases_of(store)
        assert len(theirs - before) == ATTEMPTS

        store.lock(LockRequest(lock=LockId("nightly"), holder="ann", lease=HOUR))
        held = leases_of(store)
        with opened(server.url, store.namespace) as rival:
            for _ in range(ATTEMPTS):
                request = LockRequest(lock=LockId("nightly"), holder=new_request(), lease=HOUR)
                assert not rival.lock(request).acquired
        assert leases_of(store) == held


def coordinators(url: str) -> tuple[Any, Any]:
    """Two clients of tooz whose locks end after a second, unless they are kept alive."""
    parts = urlsplit(url)
    place = f"etcd3+http://{parts.hostname}:{parts.port}?lock_timeout=1"
    ann, bob = (coordination.get_coordinator(place, name) for name in (b"ann", b"bob"))
    ann.start()
    bob.start()
    return ann, bob


def test_each_failed_acquire_of_tooz_leaves_a_lease() -> None:
    with own_server() as server, opened(server.url) as store:
        ann, bob = coordinators(server.url)
        assert ann.get_lock(b"nightly").acquire(timeout=600)
        before = leases_of(store)
        for _ in range(ATTEMPTS):
            assert not bob.get_lock(b"nightly").acquire(blocking=False, timeout=600)
        assert len(leases_of(store) - before) == ATTEMPTS
        ann.stop()
        bob.stop()


# -- what the suite says ------------------------------------------------------------------------------------------


def examine(contest: Contest) -> Trial:
    """A round of the message scheduler; what it found is in the trial."""
    trial = Trial(EtcdHarness(shared_url()), Traits(durable=True, shared=True), Tally())
    with contextlib.suppress(Violated):
        scheduled(lambda _: contest, cases=CASES)(trial)
    return trial


def test_etcd3gws_block_is_caught_by_the_message_scheduler() -> None:
    trial = examine(Etcd3gwBlock(shared_url()))
    assert trial.best is not None, f"not caught in {trial.cases} cases"
    assert trial.best.violation.guarantee == "G7"
    assert "was told that it was granted, but it never was" in trial.best.violation.message
    assert len(trial.best.history) <= 9, trial.best.history
    assert not [line for line in trial.best.history if "lost" in line or "cut" in line or "twice" in line]


def test_our_lock_passes_the_same_cases() -> None:
    trial = examine(Locks(EtcdHarness(shared_url())))
    assert trial.best is None
    assert trial.cases >= CASES


def test_toozs_lock_is_caught_by_the_checker_after_its_lease_has_ended() -> None:
    """Whoever keeps its lock alive by tooz's ``heartbeat`` is never told that it has lost it."""
    ann, bob = coordinators(shared_url())
    name, steps = new_request().encode(), Steps()
    mine, theirs = ann.get_lock(name), bob.get_lock(name)
    assert steps.acquires("ann", lambda: mine.acquire(blocking=False), lease=1)
    while not steps.acquires("bob", lambda: theirs.acquire(blocking=False), lease=1):
        time.sleep(0.05)  # the real clock of a server cannot be moved
    assert steps.still_has("bob", theirs.heartbeat)
    assert steps.still_has("ann", mine.heartbeat)
    assert mine.acquired
    assert broken(steps.history) == {"G3"}
    assert shortest(steps.history) == ["ann: lock granted", "bob: lock granted", "ann: renew done"]
    ann.stop()
    bob.stop()


def test_ours_says_that_its_lease_has_ended() -> None:
    steps = Steps()
    with opened() as ann, opened(namespace=ann.namespace) as bob:
        leases: dict[str, Lease | None] = {}

        def take(store: EtcdStore, who: str) -> bool:
            answer = store.lock(LockRequest(lock=LockId("l"), holder=who, lease=timedelta(seconds=1)))
            leases[who] = answer.lease
            return answer.acquired

        assert steps.acquires("ann", lambda: take(ann, "ann"), lease=1)
        while not steps.acquires("bob", lambda: take(bob, "bob"), lease=1):
            time.sleep(0.05)  # the real clock of a server cannot be moved
        mine = leases["ann"]
        assert mine is not None
        assert not steps.still_has("ann", lambda: ann.renew([Renewal(lease=mine)]) == [Renewed.HELD])
    assert not broken(steps.history)
