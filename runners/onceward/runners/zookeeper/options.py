"""What may be set for the ZooKeeper runner, and how it stands in a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult, unquote

import msgspec

from onceward.runners import urls

PORT = 2181
_FORMS = "zookeeper://host:2181, zookeeper://user:password@host1,host2:2182,host3/chroot?session_ms=10000"


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the ZooKeeper runner.

    Attributes:
        hosts: ``host`` or ``host:port`` of the members of one ensemble, or of the single server.
        chroot: everything of ours is below this path; it is made if it is not there.
        username, password: for digest authentication; what we create then belongs to this user alone.
        sasl: authenticate by SASL instead: ``digest-md5`` with user name and password, ``gssapi`` with a ticket.
        tls: encrypted; certificate and host name are checked unless ``tls_verify`` is false.
        tls_ca, tls_cert, tls_key: files in PEM; "": the system's authorities, no certificate of our own.
        session_ms: how long the server keeps a session whose connection is gone, and how soon we notice that it is.
        timeout_ms: longest wait for an answer.
        connect_timeout_ms: longest wait for a connection.
    """

    hosts: tuple[str, ...] = (f"localhost:{PORT}",)
    chroot: str = ""
    username: str = ""
    password: str = ""
    sasl: Literal["", "digest-md5", "gssapi"] = ""
    tls: bool = False
    tls_verify: bool = True
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    session_ms: int = 10_000
    timeout_ms: int = 10_000
    connect_timeout_ms: int = 5_000

    def __post_init__(self) -> None:
        for name in ("session_ms", "timeout_ms", "connect_timeout_ms"):
            if not 1 <= getattr(self, name) <= 3_600_000:
                raise ValueError(f"{name} must be a whole number from 1 to 3600000")
        if not self.hosts:
            raise ValueError("hosts must name a server")
        for host in self.hosts:
            if not urls.host_and_port(host, PORT)[0]:
                raise ValueError(f"host {host!r} has no name: write host or host:port, separated by commas")
        if self.chroot and not _is_path(self.chroot):
            raise ValueError(f"chroot must be a path such as /apps/orders, not {self.chroot!r}")
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password belong together: zookeeper://user:password@host")
        if self.sasl == "digest-md5" and not self.username:
            raise ValueError("sasl=digest-md5 needs a user name and a password")

    def __repr__(self) -> str:
        return f"Options({self.url})"

    @property
    def url(self) -> str:
        """Where it is, for people; without a password."""
        user = f"{self.username}@" if self.username else ""
        return f"zookeeper://{user}{','.join(self.hosts)}{self.chroot}"


def from_url(url: SplitResult) -> Mapping[str, object]:
    """Options that stand in the URL itself."""
    options = urls.authority(url)
    if url.path.strip("/"):
        options["chroot"] = "/" + unquote(url.path).strip("/")
    return options


def options_of(url: str) -> Options:
    """The options that a URL stands for; see ``urls``."""
    return urls.options_of(
        url,
        Options,
        name="ZooKeeper",
        schemes=("zookeeper", "zk"),
        from_url=from_url,
        forms=_FORMS,
    )


def _is_path(path: str) -> bool:
    parts = path.split("/")
    plain = path.isprintable() and path == path.encode("utf-8", "replace").decode()
    return plain and parts[0] == "" and all(part not in ("", ".", "..", "zookeeper") for part in parts[1:])
