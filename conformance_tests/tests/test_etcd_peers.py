"""What other people's locks on etcd do without any fault, and ours do not: two holders, and leases left behind."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

import etcd3gw
from etcd_support import leases_of, opened, own_server
from tooz import coordination

from onceward.contracts import LockId, LockRequest, new_request
from onceward.runners.etcd import EtcdStore

HOUR = timedelta(hours=1)
ATTEMPTS = 20


def client(store: EtcdStore) -> etcd3gw.Etcd3Client:
    parts = urlsplit(store.options.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return etcd3gw.client(host=parts.hostname, port=parts.port)


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


def test_each_failed_acquire_of_tooz_leaves_a_lease() -> None:
    with own_server() as server, opened(server.url) as store:
        parts = urlsplit(server.url)
        people = [
            coordination.get_coordinator(f"etcd3+http://{parts.hostname}:{parts.port}", name) for name in (b"a", b"b")
        ]
        for each in people:
            each.start()
        ann, bob = (each.get_lock(b"nightly") for each in people)
        assert ann.acquire()
        before = leases_of(store)
        for _ in range(ATTEMPTS):
            assert not bob.acquire(blocking=False)
        assert len(leases_of(store) - before) == ATTEMPTS
        for each in people:
            each.stop()
