"""A ZooKeeper ensemble of three for tests."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.process import ServerMissing, ServerProcess, find_binary, free_port

_ADVICE = "install it (Debian: apt-get install zookeeper default-jre-headless)"
_JAR = Path("/usr/share/java/zookeeper.jar")
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
#: A leader is given up after 5 ticks: soon enough for tests, and late enough for a machine that is busy.
_SETTINGS = """\
tickTime=400
initLimit=25
syncLimit=5
maxSessionTimeout=60000
admin.enableServer=false
4lw.commands.whitelist=srvr,ruok
"""


class ZooKeeperMember(ServerProcess):
    """One server of the ensemble; ``peers`` are all of them, itself included."""

    name = "zookeeper"

    def __init__(self) -> None:
        self._java = find_binary("java", advice=_ADVICE)
        if not _JAR.exists():
            raise ServerMissing(f"ZooKeeper is not installed; {_ADVICE}")
        super().__init__()
        self.follow_port, self.election_port = free_port(), free_port()
        self.peers: Sequence[ZooKeeperMember] = (self,)

    def command(self) -> Sequence[str]:
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        (data / "myid").write_text(str(self.peers.index(self) + 1), encoding="ascii")
        servers = "".join(
            f"server.{number}=127.0.0.1:{peer.follow_port}:{peer.election_port}\n"
            for number, peer in enumerate(self.peers, 1)
        )
        places = f"dataDir={data}\nclientPort={self.port}\nclientPortAddress=127.0.0.1\n"
        path = self.folder / "zoo.cfg"
        path.write_text(_SETTINGS + places + servers, encoding="ascii")
        small = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
        return (self._java, *small, "-cp", str(_JAR), _MAIN, str(path))

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
    """Three servers that vote; what the majority has is never lost."""

    name = "ZooKeeper ensemble"

    def __init__(self) -> None:
        super().__init__()
        self._servers: tuple[ZooKeeperMember, ...] = ()

    @property
    def url(self) -> str:
        return f"zookeeper://{','.join(f'127.0.0.1:{member.port}' for member in self.members)}"

    def create(self) -> None:
        self.members = self._servers = (ZooKeeperMember(), ZooKeeperMember(), ZooKeeperMember())
        for member in self._servers:
            member.peers = self._servers

    def leader(self) -> ServerProcess | None:
        leading = [member for member in self._servers if member.mode() == "leader"]
        return leading[0] if len(leading) == 1 else None

    def whole(self) -> bool:
        return sorted(member.mode() for member in self._servers) == ["follower", "follower", "leader"]
