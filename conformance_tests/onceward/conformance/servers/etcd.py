"""An etcd server for tests."""

from __future__ import annotations

import importlib.util
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import cache

from onceward.conformance.servers.harness import ServerHarness
from onceward.conformance.servers.process import ServerMissing, ServerProcess, find_binary, free_port
from onceward.contracts import Lease, LockId, Runner

VARIABLE = "ONCEWARD_TEST_ETCD_URL"
INSTALL = "install it (Debian: apt-get install etcd-server)"


class EtcdServer(ServerProcess):
    """``etcd`` on 127.0.0.1, a cluster of its own.

    Args:
        settings: more of its command line, for example ``"--quota-backend-bytes", "2000000"``.
        scheme: how clients talk to it; ``https`` needs settings with certificates.
    """

    name = "etcd"
    advice = f"{INSTALL}, or set {VARIABLE} to the URL of a running one"

    def __init__(self, *settings: str, scheme: str = "http") -> None:
        self._binary = find_binary("etcd", advice=self.advice)
        super().__init__()
        self._settings, self._scheme = settings, scheme
        self._peer_port, self._health_port = free_port(), free_port()

    @property
    def label(self) -> str:
        """Its name among the others."""
        return f"m{self.port}"

    @property
    def peer_url(self) -> str:
        """How the others reach it."""
        return f"http://127.0.0.1:{self._peer_port}"

    def members(self) -> Sequence[EtcdServer]:
        """The servers of its cluster, itself included."""
        return (self,)

    @property
    def url(self) -> str:
        return f"{'etcds' if self._scheme == 'https' else 'etcd'}://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str]:
        client = f"{self._scheme}://127.0.0.1:{self.port}"
        return (
            self._binary,
            "--name", self.label,
            "--data-dir", str(self.folder / "data"),
            "--listen-client-urls", client,
            "--advertise-client-urls", client,
            "--listen-peer-urls", self.peer_url,
            "--initial-advertise-peer-urls", self.peer_url,
            "--initial-cluster", ",".join(f"{each.label}={each.peer_url}" for each in self.members()),
            "--listen-metrics-urls", f"http://127.0.0.1:{self._health_port}",
            "--log-level", "warn",
            *self._settings,
        )  # fmt: skip

    def ready(self) -> bool:
        """True once it has elected itself and serves."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/health", timeout=1) as answer:
                return b'"true"' in answer.read()
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False


class EtcdHarness(ServerHarness):
    """An etcd cluster by its URL; time passes by itself there. A server of ours can also be restarted.

    The end of a lease need not be waited for: what is held is put on a lease of its own, and that is revoked, which is
    what the cluster's leader does itself when a lease has lapsed. Where processes die, leases are waited out as usual.
    """

    def lapse(self, runner: Runner, lease: Lease) -> None:
        self.wait_out(runner, lease)

    def wait_out(self, runner: Runner, lease: Lease) -> None:
        end_lease(self.url, runner.namespace, lease)

    def _at(self, url: str) -> EtcdHarness:
        return EtcdHarness(url)


def end_lease(url: str, namespace: str, lease: Lease) -> None:
    """The cluster has ended this lease and no other."""
    from onceward.runners.etcd import names, wire
    from onceward.runners.etcd.link import GRANT, REVOKE, Link
    from onceward.runners.etcd.options import options_of

    keys, resource = names.Names(namespace), lease.resource
    key = keys.of(names.ALIVE, resource.name) if isinstance(resource, LockId) else keys.hold(resource)
    own = time.time_ns() // 1_000_000 << 20 | secrets.randbits(20)
    link = Link(options_of(url))
    link.open()
    try:
        link.call(GRANT, wire.grant(own, 60), reads=False)
        moved = False
        while not moved:
            found = link.read(wire.read(key)).kvs
            if not found:
                break
            guard = wire.unchanged(key, found[0].modified)
            moved = link.txn(wire.transaction([guard], [wire.put(key, b"", own)])).succeeded
        link.call(REVOKE, wire.revoke(own), reads=False)
    finally:
        link.close()


def etcd_url() -> str:
    """The server that the environment names, else one of our own that lives as long as this process.

    Raises:
        ServerMissing: there is neither.
    """
    if importlib.util.find_spec("grpc") is None:
        raise ServerMissing("grpcio is not installed; pip install 'onceward[etcd]'")
    return os.environ.get(VARIABLE) or _own().url


@cache
def _own() -> EtcdServer:
    return EtcdServer().start()
