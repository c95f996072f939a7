"""A ZooKeeper server for tests."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from onceward.conformance.servers.process import ServerMissing, ServerProcess, find_binary

VARIABLE = "ONCEWARD_TEST_ZOOKEEPER_URL"
INSTALL = "install it (Debian: apt-get install zookeeper)"
_JAR = Path("/usr/share/java/zookeeper.jar")
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
#: A server keeps its latest 500 transactions, each nearly three times: 1.4 GB where records are as long as they may be.
_HEAP = "-Xmx2g"
#: A request to begin a session: protocol, latest zxid, timeout in ms, id and password of an earlier one, read-only.
_HELLO = struct.pack("!iiqiqi16s?", 45, 0, 0, 4000, 0, 16, b"", False)
#: The answer: its length, protocol, timeout, id, password, read-only.
_WELCOME = struct.calcsize("!iiiqi16s?")


class ZooKeeperServer(ServerProcess):
    """A single server on 127.0.0.1, from the jar of the Debian package.

    Args:
        settings: more lines of its configuration file.
        durable: every write is synchronised with the disk before it is acknowledged, as ZooKeeper does by default.
        options: more options of Java, for example ``"-Dzookeeper.enforceQuota=true"``.
    """

    name = "zookeeper"
    advice = f"{INSTALL}, or set {VARIABLE} to the URL of a running one"

    def __init__(self, *settings: str, durable: bool = True, options: Sequence[str] = ()) -> None:
        self._java = find_binary("java", advice=self.advice)
        if not _JAR.exists():
            raise ServerMissing(f"{_JAR} is not there; {self.advice}")
        super().__init__()
        self._settings = settings
        self._options = (*options, f"-Dzookeeper.forceSync={'yes' if durable else 'no'}")

    @property
    def url(self) -> str:
        return f"zookeeper://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self.folder / "data"

    def configuration(self) -> Sequence[str]:
        """The lines of its configuration file."""
        return (
            "tickTime=500",
            f"dataDir={self.data}",
            f"clientPort={self.port}",
            "clientPortAddress=127.0.0.1",
            "admin.enableServer=false",
            "maxClientCnxns=0",
            *self._settings,
        )

    def command(self) -> Sequence[str]:
        configuration = self.folder / "zoo.cfg"
        configuration.write_text("\n".join(self.configuration()) + "\n", encoding="utf-8")
        return (
            self._java,
            _HEAP,
            "-XX:+UseSerialGC",
            *self._options,
            "-cp",
            str(_JAR),
            _MAIN,
            str(configuration),
        )

    def ready(self) -> bool:
        """True once a session can be begun."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as sock:
                return begins_session(sock)
        except OSError:
            return False


def begins_session(sock: socket.socket) -> bool:
    """True if the server at the other end begins a session; it ends with the connection."""
    sock.sendall(_HELLO)
    with sock.makefile("rb") as answer:
        return len(answer.read(_WELCOME)) == _WELCOME


def zookeeper_url() -> str:
    """The server that the environment names, else one of our own that lives as long as this process.

    Raises:
        ServerMissing: there is neither.
    """
    return os.environ.get(VARIABLE) or _own().url


@cache
def _own() -> ZooKeeperServer:
    return ZooKeeperServer(durable=False).start()
