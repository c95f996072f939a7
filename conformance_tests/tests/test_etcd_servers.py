"""The etcd runner and servers that do not play along: gone, full, locked, strict, or somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from etcd_support import fresh, opened, own_server, shared_url
from servers_support import certificate

from onceward.conformance.faults.framing import GRPC
from onceward.conformance.faults.plan import DELIVERED, LOST, Message, Plan, Treatment, Way
from onceward.conformance.faults.proxy import Proxy
from onceward.conformance.servers.etcd import EtcdServer
from onceward.contracts import (
    CheckIn,
    CheckOut,
    Interest,
    InvalidRequest,
    LockId,
    LockRequest,
    OutcomeUnknown,
    RunId,
    RunSpec,
    StoreMisconfigured,
    StoreUnavailable,
)
from onceward.runners.etcd import EtcdStore, wire
from onceward.runners.etcd.options import options_of
from onceward.runners.factory import open_runner

HOUR = timedelta(hours=1)
RUN = RunId("job", "k")
PASSWORD = "s3cret/%:@"


# -- where it is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("etcd://host:port", "the port must be a number"),
        ("etcd://host/path", "has no path"),
        ("etcd://user@host", "needs both username and password"),
        ("etcd://host?timeout_ms=0", "timeout_ms must be"),
        ("etcd://host?tls_ca=x", "need tls"),
        ("etcd://host?nonsense=1", "nonsense"),
        ("redis://host", "no etcd URL"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, told: str) -> None:
    with pytest.raises(StoreMisconfigured, match=told):
        EtcdStore(url)


def test_a_url_names_members_user_and_tls() -> None:
    options = options_of(f"etcds://ann:{'s3cret%2F%25%3A%40'}@a,b:1,[::1]:2?tls_name=etcd")
    assert options.addresses == ("a:2379", "b:1", "[::1]:2")
    assert (options.username, options.password, options.tls, options.tls_name) == ("ann", PASSWORD, True, "etcd")
    assert options.url == "etcds://ann@a,b:1,[::1]:2"
    assert PASSWORD not in repr(options)


def test_a_member_that_is_gone_is_passed_over() -> None:
    with own_server() as server, opened(f"etcd://127.0.0.1:1,127.0.0.1:{server.port}") as store:
        assert store.health().ok


def test_nobody_there_is_told_as_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match="no member of the cluster can be reached"):
        fresh("etcd://127.0.0.1:1")


def test_a_store_that_is_not_open_says_so() -> None:
    store = EtcdStore(shared_url(), "n")
    with pytest.raises(StoreUnavailable, match="not open"):
        store.check(RUN)
    store.open()
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        store.check(RUN)
    assert not store.health().ok


def test_the_factory_opens_it_by_its_url() -> None:
    with open_runner(shared_url(), namespace="factory", needs=["monotonic_leases", "durable"]) as runner:
        assert runner.lifecycle.health().ok


def test_a_server_that_comes_back_is_used_again_and_watches_go_on() -> None:
    with own_server() as server, opened(server.url) as store:
        with store.watch(Interest(jobs=frozenset({"job"}))) as watch:
            server.kill()
            with pytest.raises((StoreUnavailable, OutcomeUnknown)):
                store.submit([RunSpec.of("job", "k")])
            assert not store.health().ok
            server.start()
            with opened(server.url, store.namespace) as other:
                other.submit([RunSpec.of("job", "later")])
            until = datetime.now(UTC) + timedelta(seconds=30)
            told = False
            while not told and datetime.now(UTC) < until:
                try:
                    told = watch.wait(5)
                except StoreUnavailable:
                    continue
        assert told
        assert store.check(RunId("job", "later")) is not None


# -- who may --------------------------------------------------------------------------------------------------------


@pytest.fixture
def locked() -> Iterator[EtcdServer]:
    """A server that wants a user and a password."""
    with own_server() as server:
        with opened(server.url) as store:
            link = store._link
            link.call("/etcdserverpb.Auth/UserAdd", wire.authenticate("root", PASSWORD), reads=False)
            link.call("/etcdserverpb.Auth/RoleAdd", wire._data(1, b"root"), reads=False)
            link.call("/etcdserverpb.Auth/UserGrantRole", wire.authenticate("root", "root"), reads=False)
            link.call("/etcdserverpb.Auth/AuthEnable", b"", reads=False)
        yield server


def test_user_and_password_open_and_a_lost_login_is_made_again(locked: EtcdServer) -> None:
    url = locked.url.replace("://", "://root:s3cret%2F%25%3A%40@")
    with opened(url) as store:
        assert store.submit([RunSpec.of("job", "k")]) == [True]
        locked.restart()  # it has forgotten all logins
        assert present(store, RUN)
        assert store.submit([RunSpec.of("job", "k2")]) == [True]


def present(store: EtcdStore, run: RunId) -> bool:
    """The run is there; the first try may find that the connection is gone."""
    try:
        return store.check(run) is not None
    except StoreUnavailable:
        return store.check(run) is not None


@pytest.mark.parametrize(
    ("user", "told"),
    [("root:wrong@", "does not accept this user and password"), ("", "wants a user and a password")],
)
def test_a_wrong_password_is_told_and_not_shown(locked: EtcdServer, user: str, told: str) -> None:
    with pytest.raises(StoreMisconfigured, match=told) as caught:
        fresh(locked.url.replace("://", f"://{user}"))
    assert "wrong" not in str(caught.value)


def test_an_expired_certificate_is_told(tmp_path: Path) -> None:
    made, key = certificate(tmp_path, days=-1)
    with (
        own_server("--cert-file", str(made), "--key-file", str(key), scheme="https") as server,
        pytest.raises(StoreMisconfigured, match="certificate"),
    ):
        fresh(f"{server.url}?tls_ca={made}")


def test_tls_with_a_good_and_without_a_known_certificate(tmp_path: Path) -> None:
    made, key = certificate(tmp_path)
    with own_server("--cert-file", str(made), "--key-file", str(key), scheme="https") as server:
        with opened(f"{server.url}?tls_ca={made}") as store:
            assert store.submit([RunSpec.of("job", "k")]) == [True]
        with pytest.raises(StoreMisconfigured, match="certificate"):
            fresh(server.url)
        with pytest.raises((StoreMisconfigured, StoreUnavailable)):
            fresh(f"etcd://127.0.0.1:{server.port}?timeout_ms=2000")
        with pytest.raises(StoreMisconfigured, match="cannot be read"):
            fresh(f"{server.url}?tls_ca={tmp_path / 'nowhere.pem'}")


# -- what it takes --------------------------------------------------------------------------------------------------


def fill(store: EtcdStore) -> None:
    """More is submitted than the server has room for."""
    for number in range(100):
        store.submit([RunSpec.of("fill", f"k{number}", "x" * 50_000)])


def test_a_full_database_refuses_changes_and_loses_nothing() -> None:
    with own_server("--quota-backend-bytes", "400000") as server, opened(server.url) as store:
        held = store.checkin(CheckIn(run=RUN, holder="ann", lease=HOUR)).run.lease
        assert held is not None
        with pytest.raises(StoreUnavailable, match=r"NOSPACE.*Nothing was changed"):
            fill(store)
        found = store.check(RUN)
        assert found is not None
        assert found.lease == held
        with pytest.raises(StoreUnavailable, match="NOSPACE"):
            store.lock(LockRequest(lock=LockId("l"), holder="ann", lease=HOUR))
        assert store.locks() == []


def test_a_server_that_takes_less_than_we_need_is_told_by_its_setting() -> None:
    with own_server("--max-request-bytes", "10000") as server, opened(server.url) as store:
        with pytest.raises(StoreMisconfigured, match="--max-request-bytes"):
            store.submit([RunSpec.of("job", "k", "x" * 200_000)])
        assert store.check(RUN) is None
    with own_server("--max-txn-ops", "10") as server, opened(server.url) as store:
        with pytest.raises(StoreMisconfigured, match="--max-txn-ops"):
            store.submit([RunSpec.of("job", f"k{number}") for number in range(50)])
        assert store.counts() == {}


def test_too_large_a_payload_never_leaves() -> None:
    with opened() as store:
        with pytest.raises(InvalidRequest, match=r"payload.*at most 524288 bytes"):
            store.checkin(CheckIn(run=RUN, holder="ann", payload="x" * 1_600_000))
        assert store.check(RUN) is None


@pytest.mark.parametrize("name", ["", " ", "a\0b", "a\nb", "\ud800", "x" * 257])
def test_a_name_that_no_key_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        RunId(name, "k")


# -- messages -------------------------------------------------------------------------------------------------------


class LosesTheAnswer(Plan):
    """The answer to the first request with a name in it is lost; the request is kept."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.kept: Message | None = None

    async def treat(self, message: Message) -> Treatment:
        if self.kept is None and message.way is Way.REPLY and message.mentions(self.name):
            self.kept = message.request
            return LOST
        return DELIVERED


def test_a_request_can_be_delivered_late_on_a_connection_of_its_own() -> None:
    with own_server() as server, opened(server.url, "n") as direct:
        plan = LosesTheAnswer(b"h/job/k")
        with Proxy(("127.0.0.1", server.port), GRPC, plan) as proxy:
            with opened(f"etcd://127.0.0.1:{proxy.address.port}", "n") as store:
                request = CheckIn(run=RUN, holder="ann", lease=HOUR)
                with pytest.raises(OutcomeUnknown, match="send the same request again"):
                    store.checkin(request)
                held = store.checkin(request).run.lease
                assert held is not None
                assert store.checkout([CheckOut.succeeded(held)]) == [True]
                before = direct.check(RUN)
                assert plan.kept is not None
                assert b"onceward" in proxy.redeliver(plan.kept), "it was answered by what is there"
                assert direct.check(RUN) == before
                wipe(direct)
                proxy.redeliver(plan.kept)
                assert direct.check(RUN) is not None, "where nothing is left of it, it is a check-in like any other"
            wipe(direct)
            proxy.redeliver(plan.kept)
            assert direct.check(RUN) is None, "but not after its lease: that went with the store that was closed"


def wipe(store: EtcdStore) -> None:
    """Nothing is left of the namespace."""
    prefix = store._names.prefix
    store._link.txn(wire.transaction((), [wire.delete(prefix, prefix[:-1] + b"0")]))
