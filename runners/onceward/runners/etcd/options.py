"""What may be set for the etcd runner, and how it stands in a URL."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult

import msgspec

from onceward.contracts.errors import StoreMisconfigured
from onceward.runners import urls

PORT = 2379
_FORMS = "etcd://user:password@host1:2379,host2:2379, etcds://... for TLS"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the etcd runner.

    Attributes:
        hosts: ``host`` or ``host:port`` of some members of the cluster; one that is gone is passed over.
        username, password: of the etcd user; "": without.
        tls: encrypted; the certificate of the server is checked.
        tls_ca, tls_cert, tls_key: files in PEM; "": the usual authorities, no certificate of our own.
        tls_name: the name that stands in the server's certificate, where it is not the host's.
        timeout_ms: longest wait for an answer.
    """

    hosts: tuple[str, ...] = (f"localhost:{PORT}",)
    username: str = ""
    password: str = ""
    tls: bool = False
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_name: str = ""
    timeout_ms: int = 5_000

    def __post_init__(self) -> None:
        if not 1 <= self.timeout_ms <= 3_600_000:
            raise ValueError("timeout_ms must be a whole number from 1 to 3600000")
        if not self.hosts:
            raise ValueError("hosts must name a member of the cluster")
        for host in self.hosts:
            urls.host_and_port(host, PORT)
        if bool(self.username) != bool(self.password):
            raise ValueError("a user needs both username and password")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("a certificate of our own needs both tls_cert and tls_key")
        if not self.tls and (self.tls_ca or self.tls_cert or self.tls_name):
            raise ValueError("tls_ca, tls_cert and tls_name need tls; write etcds:// in the URL")

    def __repr__(self) -> str:
        return f"Options({self.url})"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The hosts, with their ports."""
        found = (urls.host_and_port(host, PORT) for host in self.hosts)
        return tuple(f"{host or 'localhost'}:{port}" for host, port in found)

    @property
    def url(self) -> str:
        """Where it is, for people; without a password."""
        user = f"{self.username}@" if self.username else ""
        return f"{'etcds' if self.tls else 'etcd'}://{user}{','.join(self.hosts)}"


def from_url(url: SplitResult) -> Mapping[str, object]:
    """Options that stand in the URL itself."""
    options = urls.authority(url)
    if url.scheme == "etcds":
        options["tls"] = True
    if url.path.strip("/"):
        raise StoreMisconfigured(f"an etcd URL has no path; {url.path!r} is too much. Write for example {_FORMS}")
    return options


def options_of(url: str) -> Options:
    """The options that a URL stands for; see ``urls``."""
    return urls.options_of(
        url,
        Options,
        name="etcd",
        schemes=("etcd", "etcds"),
        from_url=from_url,
        forms=_FORMS,
    )
