"""What may be set for the MongoDB runner, and how it stands in a URL."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, unquote

import msgspec
from msgspec import field

from onceward.contracts.errors import StoreMisconfigured
from onceward.runners import urls

DATABASE = "onceward"
_FORM = (
    "mongodb://user:password@host1:27017,host2/database?replicaSet=rs0, or mongodb+srv://user:password@host/database"
)

#: What MongoDB's URLs can say and ours cannot, since every promise rests on it.
_FIXED = {
    "w": "writes are acknowledged by the majority",
    "journal": "writes are acknowledged once they are in the journal",
    "wtimeoutms": "timeout_ms bounds it",
    "readpreference": "everything is read from the primary",
    "readconcernlevel": "it is majority, or linearizable with linearizable=true",
    "retrywrites": "it is on, and every request is recognised by its own id as well",
    "tz_aware": "instants are in UTC",
}


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the MongoDB runner. Names with capitals are the driver's own, and mean what they mean there.

    Attributes:
        hosts: ``host`` or ``host:port`` of some members of the replica set, or of the server.
        srv: the one host names a DNS record that lists them.
        database: where the collections ``runs``, ``locks`` and ``configs`` are.
        username, password: of the user; it needs ``readWrite`` on the database.
        timeout_ms: longest wait for an answer, and for a majority.
        linearizable: single runs and configurations are read so that not even a deposed primary can answer with
            what was true a few seconds ago; each such read costs up to 100 ms on an idle server.
    """

    hosts: tuple[str, ...] = ("localhost",)
    srv: bool = False
    database: str = DATABASE
    username: str = ""
    password: str = ""
    timeout_ms: int = 10_000
    linearizable: bool = False
    server_selection_timeout_ms: int = field(default=5_000, name="serverSelectionTimeoutMS")
    connect_timeout_ms: int = field(default=5_000, name="connectTimeoutMS")
    max_pool_size: int = field(default=100, name="maxPoolSize")
    app_name: str = field(default="onceward", name="appName")
    replica_set: str = field(default="", name="replicaSet")
    direct_connection: bool = field(default=False, name="directConnection")
    load_balanced: bool = field(default=False, name="loadBalanced")
    compressors: str = ""
    auth_source: str = field(default="", name="authSource")
    auth_mechanism: str = field(default="", name="authMechanism")
    tls: bool | None = None
    tls_ca_file: str = field(default="", name="tlsCAFile")
    tls_certificate_key_file: str = field(default="", name="tlsCertificateKeyFile")
    tls_certificate_key_file_password: str = field(default="", name="tlsCertificateKeyFilePassword")
    tls_allow_invalid_certificates: bool = field(default=False, name="tlsAllowInvalidCertificates")
    tls_allow_invalid_hostnames: bool = field(default=False, name="tlsAllowInvalidHostnames")

    def __post_init__(self) -> None:
        for name in ("timeout_ms", "server_selection_timeout_ms", "connect_timeout_ms", "max_pool_size"):
            if not 1 <= getattr(self, name) <= 3_600_000:
                raise ValueError(f"{name} must be a whole number from 1 to 3600000")
        if not self.hosts or not all(self.hosts):
            raise ValueError(f"hosts must name a server: {_FORM}")
        if self.srv and len(self.hosts) != 1:
            raise ValueError("mongodb+srv:// takes one host, without a port")
        if not self.database or any(c in '/\\. "$*<>:|?\0' for c in self.database) or len(self.database.encode()) > 63:
            raise ValueError('database must be 1 to 63 bytes without /\\. "$*<>:|? and NUL')

    def __repr__(self) -> str:
        return f"Options({self.url})"

    @property
    def url(self) -> str:
        """Where it is, for people; without the password."""
        user = f"{self.username}@" if self.username else ""
        return f"mongodb{'+srv' if self.srv else ''}://{user}{','.join(self.hosts)}/{self.database}"

    def for_driver(self) -> dict[str, object]:
        """Keyword arguments of ``MongoClient``, but for the hosts. What is not set is left to the driver."""
        ours = ("hosts", "srv", "database", "timeout_ms", "linearizable")
        given = {
            part.encode_name: getattr(self, part.name)
            for part in msgspec.structs.fields(Options)
            if part.name not in ours and getattr(self, part.name) not in ("", None, False)
        }
        if self.tls is False:
            given["tls"] = False
        return given


def from_url(url: SplitResult) -> Mapping[str, object]:
    """The options that stand in the URL in front of its query.

    Raises:
        StoreMisconfigured: the URL names no host, or its query asks for what cannot be changed; says what to write.
    """
    for name, _ in parse_qsl(url.query, keep_blank_values=True):
        if name.lower() in _FIXED:
            raise StoreMisconfigured(f"runner 'mongodb' takes no option {name!r}: {_FIXED[name.lower()]}")
    options = urls.authority(url)
    if "hosts" not in options:
        raise StoreMisconfigured(f"a MongoDB URL needs a host: {_FORM}")
    if url.path.strip("/"):
        options["database"] = unquote(url.path.strip("/"))
    if url.scheme == "mongodb+srv":
        options["srv"] = True
    return options


def options_of(url: str) -> Options:
    """The options that a URL stands for; see ``urls``."""
    return urls.options_of(
        url,
        Options,
        name="MongoDB",
        schemes=("mongodb", "mongodb+srv"),
        from_url=from_url,
        forms=_FORM,
    )
