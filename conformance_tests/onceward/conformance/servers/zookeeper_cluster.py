"""A ZooKeeper ensemble of three for tests."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.process import ServerProcess, free_port
from onceward.conformance.servers.zookeeper import INSTALL, ZooKeeperServer

#: A leader is given up after 4 ticks: soon enough for tests, and late enough for a machine that is busy.
_SETTINGS = ("initLimit=20", "syncLimit=4", "maxSessionTimeout=60000", "4lw.commands.whitelist=srvr,ruok")
#: Three of them run on one machine, and do not get old. Of two sizes of the heap Java takes the last.
_SMALL = ("-Xmx128m", "-XX:TieredStopAtLevel=1")


class ZooKeeperMember(ZooKeeperServer):
    """One server of the ensemble; ``peers`` are all of them, itself included."""

    advice = INSTALL

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        super().__init__(*_SETTINGS, options=(*_SMALL, *options))
        self.follow_port, self.election_port = free_port(), free_port()
        self.peers: Sequence[ZooKeeperMember] = (self,)

    def configuration(self) -> Sequence[str]:
        servers = (
            f"server.{number}=127.0.0.1:{peer.follow_port}:{peer.election_port}"
            for number, peer in enumerate(self.peers, 1)
        )
        return (*super().configuration(), *servers)

    def command(self) -> Sequence[str]:
        self.data.mkdir(exist_ok=True)
        (self.data / "myid").write_text(str(self.peers.index(self) + 1), encoding="ascii")
        return super().command()

    def ready(self) -> bool:
        """True once it answers, also while it has no leader."""
        return self.asked("ruok") == "imok"

    def mode(self) -> str:
        """``leader``, ``follower``, or nothing while it serves nobody."""
        lines = self.asked("srvr").splitlines()
        return next((line.removeprefix("Mode: ") for line in lines if line.startswith("Mode: ")), "")

    def asked(self, word: str) -> str:
        """What it answers to a command of four letters; nothing, if it does not."""
        if not self.running:
            return ""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as sock:
                sock.sendall(word.encode())
                return b"".join(iter(lambda: sock.recv(4096), b"")).decode(errors="replace")
        except OSError:
            return ""


class ZooKeeperCluster(Cluster):
    """Three servers that vote; what the majority has is never lost.

    Args:
        options: more options of Java, for each of them.
    """

    name = "ZooKeeper ensemble"

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        super().__init__()
        self._options = options
        self._servers: tuple[ZooKeeperMember, ...] = ()

    @property
    def url(self) -> str:
        return f"zookeeper://{','.join(f'127.0.0.1:{member.port}' for member in self.members)}"

    def create(self) -> None:
        one, two, three = (ZooKeeperMember(options=self._options) for _ in range(3))
        self.members = self._servers = (one, two, three)
        for member in self._servers:
            member.peers = self._servers

    def leader(self) -> ServerProcess | None:
        leading = [member for member in self._servers if member.mode() == "leader"]
        return leading[0] if len(leading) == 1 else None

    def whole(self) -> bool:
        return sorted(member.mode() for member in self._servers) == ["follower", "follower", "leader"]
