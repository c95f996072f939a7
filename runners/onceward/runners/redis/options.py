"""What may be set for the Redis runner, and how it stands in a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult, unquote

import msgspec

from onceward.runners import urls

Mode = Literal["single", "sentinel", "cluster"]
PORT, SENTINEL_PORT = 6379, 26379

_FORMS = (
    "redis://user:password@host:6379/0, rediss://... for TLS, unix:///path/of/socket, "
    "redis+sentinel://host1:26379,host2/service/0, redis+cluster://host1:6379,host2"
)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the Redis runner.

    Attributes:
        hosts: ``host`` or ``host:port`` of the server, of the sentinels, or of some nodes of the cluster.
        path: of a Unix socket, instead of hosts.
        mode: what the hosts are.
        service: name that the sentinels know the primary by.
        db: number of the database; a cluster has only 0.
        username, password: of the ACL user; only a password means the user ``default``.
        sentinel_username, sentinel_password: of the sentinels themselves.
        tls: encrypted, also to sentinels; the certificate is checked unless ``tls_verify`` is false.
        tls_ca, tls_cert, tls_key: files in PEM; "": the system's authorities, no certificate of our own.
        wait_replicas: a write is acknowledged once so many replicas have it; otherwise its outcome is unknown.
        timeout_ms: longest wait for an answer.
        connect_timeout_ms: longest wait for a connection.
    """

    hosts: tuple[str, ...] = (f"localhost:{PORT}",)
    path: str = ""
    mode: Mode = "single"
    service: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    sentinel_username: str = ""
    sentinel_password: str = ""
    tls: bool = False
    tls_verify: bool = True
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    wait_replicas: int = 0
    timeout_ms: int = 5_000
    connect_timeout_ms: int = 3_000

    def __post_init__(self) -> None:
        for name, least, most in (
            ("db", 0, 2**31),
            ("wait_replicas", 0, 100),
            ("timeout_ms", 1, 3_600_000),
            ("connect_timeout_ms", 1, 3_600_000),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be a whole number from {least} to {most}")
        if self.mode == "sentinel" and not self.service:
            raise ValueError("a sentinel needs service, the name of the primary: redis+sentinel://host:26379/service")
        if self.mode == "cluster" and self.db:
            raise ValueError("a cluster has only the database 0")
        if not self.path and not self.hosts:
            raise ValueError("hosts must name a server, or path a Unix socket")
        for host in self.hosts:
            urls.host_and_port(host, PORT)

    def __repr__(self) -> str:
        return f"Options({self.url})"

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """The hosts, with their ports."""
        default = SENTINEL_PORT if self.mode == "sentinel" else PORT
        found = (urls.host_and_port(host, default) for host in self.hosts)
        return tuple((host.strip("[]") or "localhost", port) for host, port in found)

    @property
    def url(self) -> str:
        """Where it is, for people; without a password."""
        if self.path:
            return f"unix://{self.path}" + (f"?db={self.db}" if self.db else "")
        scheme = ("rediss" if self.tls else "redis") + ("" if self.mode == "single" else f"+{self.mode}")
        user = f"{self.username}@" if self.username else ""
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}://{user}{','.join(self.hosts)}{service}/{self.db}"


def from_url(url: SplitResult) -> Mapping[str, object]:
    """Options that stand in the URL itself."""
    options = urls.authority(url)
    scheme, _, mode = url.scheme.partition("+")
    path = unquote(url.path).strip("/")
    if scheme == "unix":
        return options | {"path": unquote(url.path)}
    if scheme == "rediss":
        options["tls"] = True
    if mode:
        options["mode"] = mode
    if mode == "sentinel":
        options["service"], _, path = path.partition("/")
    if path:
        options["db"] = path
    return options


def options_of(url: str) -> Options:
    """The options that a URL stands for; see ``urls``."""
    return urls.options_of(
        url,
        Options,
        name="Redis",
        schemes=("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
        from_url=from_url,
        forms=_FORMS,
    )
