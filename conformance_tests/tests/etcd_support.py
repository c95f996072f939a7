"""What the tests of the etcd runner share: a server, stores whose calls are counted, and the cluster's own view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from servers_support import available

from onceward.conformance.servers.etcd import EtcdServer, etcd_url
from onceward.contracts import new_request
from onceward.runners.etcd import EtcdStore, wire

LEASES = "/etcdserverpb.Lease/LeaseLeases"
COMPACT = "/etcdserverpb.KV/Compact"


def shared_url() -> str:
    return available(etcd_url)


def own_server(*settings: str, scheme: str = "http") -> EtcdServer:
    return available(lambda: EtcdServer(*settings, scheme=scheme))


def fresh(url: str | None = None, namespace: str | None = None) -> EtcdStore:
    """An open store on a namespace of its own."""
    store = EtcdStore(url or shared_url(), namespace or new_request())
    store.open()
    return store


@contextmanager
def opened(url: str | None = None, namespace: str | None = None) -> Iterator[EtcdStore]:
    """The same, closed afterwards."""
    store = fresh(url, namespace)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def counted(store: EtcdStore) -> Iterator[Counter[str]]:
    """How often each method of the cluster was called meanwhile."""
    calls: Counter[str] = Counter()
    link, call = store._link, store._link.call

    def counting(method: str, request: bytes, *, reads: bool) -> bytes:
        calls[method.rpartition("/")[2]] += 1
        return call(method, request, reads=reads)

    link.call = counting  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        del link.call


def leases_of(store: EtcdStore) -> set[int]:
    """Every lease that the cluster knows."""
    answer = store._link.call(LEASES, b"", reads=True)
    return {wire.integer(lease, 1) for lease in wire.texts(answer, 2)}
