"""The ZooKeeper runner and servers that want to know who it is, that it wants to know, or that take no writes now."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from servers_support import available, certificate
from zookeeper_support import fresh, own_server

from onceward.conformance.servers.process import free_port
from onceward.conformance.servers.zookeeper import ZooKeeperServer, begins_session
from onceward.conformance.servers.zookeeper_cluster import ZooKeeperCluster, ZooKeeperMember
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Lease,
    LockId,
    LockRequest,
    RunId,
    StoreMisconfigured,
    StoreUnavailable,
)
from onceward.runners.zookeeper import ZooKeeperStore

RUN = RunId("job", "k")
WISH = CheckIn(run=RUN, holder="ann", lease=timedelta(hours=1))
SECRET = "s3cret/%:@"
WRITTEN_OUT = "s3cret%2F%25%3A%40"


def at(server: ZooKeeperServer, user: str = "", query: str = "") -> str:
    """The server's URL, for somebody."""
    return server.url.replace("://", f"://{user}") + query


# -- users --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["", "ann:wrong@", "bob:pass@"])
def test_what_a_user_made_is_nobody_elses(other: str) -> None:
    with own_server() as server:
        store = fresh(at(server, f"ann:{WRITTEN_OUT}@"), "n")
        admitted = store.checkin(WISH).run
        with pytest.raises(StoreMisconfigured, match="belongs to another user") as refused:
            fresh(at(server, other), "n").checkin(CheckIn(run=RUN, holder="bob", lease=WISH.lease))
        assert "wrong" not in str(refused.value)
        assert store.check(RUN) == admitted
        store.close()


JAAS = f"""Server {{
    org.apache.zookeeper.server.auth.DigestLoginModule required user_ann="{SECRET}";
}};
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeperServer]:
    """A server that lets in whoever logs in by SASL, and nobody else."""
    jaas = tmp_path_factory.mktemp("sasl") / "jaas.conf"
    jaas.write_text(JAAS)
    options = [
        f"-Djava.security.auth.login.config={jaas}",
        "-Dzookeeper.authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        "-Dzookeeper.sessionRequireClientSASLAuth=true",
    ]
    with own_server(options=options) as server:
        yield server


def test_sasl_lets_in_who_knows_the_password(strict: ZooKeeperServer) -> None:
    store = fresh(at(strict, f"ann:{WRITTEN_OUT}@", "?sasl=digest-md5"))
    assert store.checkin(WISH).outcome is CheckInOutcome.ADMITTED
    acls, _ = store._link._own_client().get_acls(store._layout.run(RUN)) or ((), None)
    assert {acl.id.id for acl in acls} == {"ann"}
    store.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")  # kazoo printed a traceback
@pytest.mark.parametrize(
    ("user", "query", "told"),
    [
        ("ann:wrong@", "?sasl=digest-md5", "does not accept this user and password"),
        ("bob:pass@", "?sasl=digest-md5", "does not accept this user and password"),
        ("", "", "it wants SASL"),
        ("ann:pass@", "", "it wants SASL"),
    ],
)
def test_sasl_tells_who_is_not_let_in(strict: ZooKeeperServer, user: str, query: str, told: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreMisconfigured, match=told) as refused:
        fresh(at(strict, user, query))
    assert "wrong" not in str(refused.value)
    assert time.monotonic() - began < 5, "it need not be waited for"


def test_sasl_without_its_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(StoreMisconfigured, match=r"needs pure-sasl: pip install 'onceward\[zookeeper\]'"):
        fresh("zookeeper://ann:pass@localhost?sasl=digest-md5")


# -- TLS ----------------------------------------------------------------------------------------------------------


#: What Debian's jar of ZooKeeper forgets to name among the libraries that it needs for TLS.
_NETTY = ("/usr/share/java/netty-codec.jar", "/usr/share/java/netty-resolver.jar")


class SecureServer(ZooKeeperServer):
    """Also listens on a port with TLS."""

    def __init__(self, made: Path, key: Path) -> None:
        store = made.with_name("both.pem")
        store.write_text(key.read_text() + made.read_text())
        self.secure = free_port()
        provided = "org.apache.zookeeper.server.NettyServerCnxnFactory"
        options = [
            f"-Dzookeeper.serverCnxnFactory={provided}",
            f"-Dzookeeper.ssl.keyStore.location={store}",
            "-Dzookeeper.ssl.clientAuth=none",
        ]
        super().__init__(f"secureClientPort={self.secure}", durable=False, options=options)

    def command(self) -> Sequence[str]:
        *before, main, configuration = super().command()
        return (*before[:-1], ":".join((before[-1], *_NETTY)), main, configuration)

    def ready(self) -> bool:
        """With TLS, too: Java takes its time for the first handshake, more than tests of bad certificates wait."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection(("127.0.0.1", self.secure), timeout=5) as plain,
                context.wrap_socket(plain) as sock,
            ):
                return super().ready() and begins_session(sock)
        except OSError:
            return False

    @property
    def safely(self) -> str:
        """How to reach it with TLS."""
        return f"zookeeper://127.0.0.1:{self.secure}?tls=true&connect_timeout_ms=1500"


def test_tls_with_a_certificate_that_is_known(tmp_path: Path) -> None:
    made, key = certificate(tmp_path)
    with available(lambda: SecureServer(made, key)) as server:
        store = fresh(f"{server.safely}&tls_ca={made}")
        assert store.checkin(WISH).outcome is CheckInOutcome.ADMITTED
        store.close()
        with pytest.raises(StoreMisconfigured, match=r"certificate of 127\.0\.0\.1:\d+ is not accepted: self.signed"):
            fresh(server.safely)
        with pytest.raises(StoreMisconfigured, match="no TLS connection can be made"):
            fresh(server.safely.replace(str(server.secure), str(server.port)) + f"&tls_ca={made}")
        with pytest.raises(StoreMisconfigured, match=r"nowhere\.pem' cannot be read"):
            fresh(f"{server.safely}&tls_ca={tmp_path / 'nowhere.pem'}")


@pytest.mark.parametrize(
    ("days", "host", "told"), [(-1, "IP:127.0.0.1", "certificate has expired"), (2, "DNS:other", "mismatch")]
)
def test_tls_with_a_certificate_that_is_not_good(tmp_path: Path, days: int, host: str, told: str) -> None:
    made, key = certificate(tmp_path, days=days, host=host)
    with (
        available(lambda: SecureServer(made, key)) as server,
        pytest.raises(StoreMisconfigured, match=rf"is not accepted: .*{told}"),
    ):
        fresh(f"{server.safely}&tls_ca={made}")


# -- read-only ----------------------------------------------------------------------------------------------------


def test_a_read_only_server_takes_nothing_and_nothing_is_lost() -> None:
    """A member that has lost the others serves reads to who asks for that. We never read what may be old."""
    with available(lambda: ZooKeeperCluster(options=["-Dreadonlymode.enabled=true"])) as cluster:
        first, *others = cluster.members
        store = ZooKeeperStore(f"zookeeper://127.0.0.1:{first.port}?connect_timeout_ms=500", "n")
        store.open()
        lease = store.checkin(WISH).run.lease
        assert lease is not None
        for other in others:
            other.kill()
        assert isinstance(first, ZooKeeperMember)
        assert cluster.await_(lambda: first.mode() == "read-only")
        for attempt in (
            lambda: store.checkin(CheckIn(run=RunId("job", "2"), holder="ann")),
            lambda: store.check(RUN),
            lambda: store.lock(LockRequest(lock=LockId("l"), holder="ann", lease=timedelta(hours=1))),
        ):
            with pytest.raises(StoreUnavailable, match="no quorum that takes writes"):
                attempt()
        store.close()
        for other in others:
            other.spawn()
        assert cluster.await_(cluster.whole)
        _ends_well(f"zookeeper://127.0.0.1:{first.port}", lease)


def _ends_well(url: str, lease: Lease) -> None:
    store = fresh(url, "n")
    assert store.check(RunId("job", "2")) is None
    assert store.checkout([CheckOut.succeeded(lease)]) == [True]
    store.close()
