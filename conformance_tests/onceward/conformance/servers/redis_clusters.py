"""Redis for tests that may be killed: a server alone, a primary with replicas and sentinels, and a cluster of nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.process import ServerProcess, free_port
from onceward.conformance.servers.redis import RedisServer

#: The name that sentinels know the primary by.
SERVICE = "onceward"
_QUORUM = 2
#: Soon enough for tests, and late enough for a machine that is busy with other things.
_DOWN_AFTER_MS, _FAILOVER_MS = 2_000, 5_000
#: How often sentinels look and tell; by default every 10 and 2 seconds, which makes a cluster slow to recover.
_SENTINELS_LOOK = ("info-period", 1_000, "publish-period", 500)
_SLOTS = 16384


class RedisMember(RedisServer):
    """A server with the data, and with a file of settings in which it keeps whose replica it is."""

    def __init__(self, *settings: str) -> None:
        super().__init__(*settings, durable=True)

    def command(self) -> Sequence[str]:
        binary, *settings = super().command()
        path = self.folder / "redis.conf"
        path.touch()
        return (binary, str(path), *settings)

    def asked(self, *command: str | int) -> object:
        """What it answers; None, if it does not, or refuses."""
        return asked(self, *command)

    def replication(self) -> Mapping[str, str]:
        """What it says about who follows whom."""
        from onceward.runners.redis.server import information

        return information(str(self.asked("INFO", "replication")))


class RedisSentinel(RedisServer):
    """A server that watches the others and, with its like, makes a replica the primary if that is gone."""

    name = "redis-sentinel"

    def watch(self, primary: RedisServer) -> None:
        """Its file of settings, which it goes on writing to itself, names the primary."""
        lines = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} {_QUORUM}",
            f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} {_FAILOVER_MS}",
            f"dir {self.folder}",
            "bind 127.0.0.1",
            f"port {self.port}",
        ]
        (self.folder / "sentinel.conf").write_text("\n".join(lines) + "\n", encoding="ascii")

    def command(self) -> Sequence[str]:
        return (super().command()[0], str(self.folder / "sentinel.conf"), "--sentinel")

    def ready(self) -> bool:
        """True once it answers; it looks often from then on."""
        return super().ready() and asked(self, "SENTINEL", "DEBUG", *_SENTINELS_LOOK) is not None

    def primary(self) -> int | None:
        """The port of the primary, as far as it knows."""
        found = asked(self, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(str(found[1])) if isinstance(found, list) else None

    def content(self, replicas: int, sentinels: int) -> bool:
        """True if it knows that many others, and takes none of them for dead."""
        primary, others = asked(self, "SENTINEL", "MASTER", SERVICE), asked(self, "SENTINEL", "REPLICAS", SERVICE)
        if not isinstance(primary, list) or not isinstance(others, list):
            return False
        known = _by_name(primary)
        flags = [_by_name(other)["flags"] for other in others]
        return (
            known["flags"] == "master"
            and int(known["num-other-sentinels"]) == sentinels
            and flags == ["slave"] * replicas
        )


class RedisSentinels(Cluster):
    """A primary, two replicas and three sentinels. Replication is asynchronous: a failover may lose what was last."""

    name = "Redis with sentinels"

    def __init__(self) -> None:
        super().__init__()
        self._servers: tuple[RedisMember, ...] = ()
        self._sentinels: tuple[RedisSentinel, ...] = ()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self._sentinels)}/{SERVICE}/0"

    def create(self) -> None:
        self.members = self._servers = (RedisMember(), RedisMember(), RedisMember())
        self.helpers = self._sentinels = (RedisSentinel(), RedisSentinel(), RedisSentinel())
        for sentinel in self._sentinels:
            sentinel.watch(self._servers[0])

    def form(self) -> None:
        for replica in self._servers[1:]:
            replica.asked("REPLICAOF", "127.0.0.1", self._servers[0].port)
            replica.asked("CONFIG", "REWRITE")

    def leader(self) -> ServerProcess | None:
        """The one that most sentinels name, if it knows of it."""
        named = [sentinel.primary() for sentinel in self._sentinels]
        for member in self._servers:
            if named.count(member.port) >= _QUORUM and member.running:
                return member if member.replication().get("role") == "master" else None
        return None

    def whole(self) -> bool:
        leader = next((member for member in self._servers if member is self.leader()), None)
        if leader is None or not all(member.running for member in self._servers):
            return False
        said = leader.replication()
        followed = [said.get(f"slave{i}", "") for i in range(len(self._servers) - 1)]
        if not all("state=online" in each for each in followed):
            return False
        replicas, sentinels = len(self._servers) - 1, len(self._sentinels) - 1
        return all(each.primary() == leader.port and each.content(replicas, sentinels) for each in self._sentinels)


class RedisAlone(Cluster):
    """One server, with every acknowledged write on its disk."""

    name = "Redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.members[0].port}/0"

    def create(self) -> None:
        self.members = (RedisServer(durable=True),)

    def leader(self) -> ServerProcess | None:
        [server] = self.members
        return server if self.whole() else None

    def whole(self) -> bool:
        [server] = self.members
        return isinstance(server, RedisServer) and "loading:0" in str(asked(server, "INFO", "persistence"))


class RedisNodes(Cluster):
    """A Redis Cluster: three nodes that share the slots, each with a replica. Who has the slot 0 counts as leader."""

    name = "Redis Cluster"

    def __init__(self) -> None:
        super().__init__()
        self._nodes: tuple[RedisMember, ...] = ()

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self._nodes[:3])}/0"

    def create(self) -> None:
        timeout = ("--cluster-node-timeout", str(_DOWN_AFTER_MS))
        self.members = self._nodes = tuple(
            RedisMember("--cluster-enabled", "yes", "--cluster-port", str(free_port()), *timeout) for _ in range(6)
        )

    def form(self) -> None:
        first, *others = self._nodes
        buses = {node: node.settings[node.settings.index("--cluster-port") + 1] for node in self._nodes}
        for number, node in enumerate(self._nodes[:3]):
            node.asked("CLUSTER", "ADDSLOTSRANGE", _SLOTS * number // 3, _SLOTS * (number + 1) // 3 - 1)
            node.asked("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in others:
            node.asked("CLUSTER", "MEET", "127.0.0.1", first.port, buses[first])
        self.await_(lambda: all(len(_nodes_known(node)) == len(self._nodes) for node in self._nodes))
        for primary, replica in zip(self._nodes[:3], self._nodes[3:], strict=True):
            replica.asked("CLUSTER", "REPLICATE", str(primary.asked("CLUSTER", "MYID")))

    def namespace(self) -> str:
        """One on the leader's slots, which stay together when another takes over."""
        from onceward.runners.redis.names import prefix
        from onceward.runners.redis.target import slot_of

        while slot_of(prefix(name := super().namespace())) >= _SLOTS // 3:
            pass
        return name

    def leader(self) -> ServerProcess | None:
        for node in self._nodes:
            owner = _owner(node.asked("CLUSTER", "SLOTS"), 0) if node.running else None
            found = next((each for each in self._nodes if each.port == owner and each.running), None)
            if found is not None and found.replication().get("role") == "master":
                return found
        return None

    def hand_over(self) -> None:
        """The leader's replica has taken over its slots, in an orderly way: the old leader answers MOVED."""
        leader = self.leader()
        assert leader is not None  # the cluster is whole
        for node in self._nodes:
            if node.replication().get("master_port") == str(leader.port):
                node.asked("CLUSTER", "FAILOVER")
        self.await_(lambda: self.leader() not in (None, leader))

    def whole(self) -> bool:
        for node in self._nodes:
            if not node.running or "cluster_state:ok" not in str(node.asked("CLUSTER", "INFO")):
                return False
            if any("fail" in line or "disconnected" in line for line in _nodes_known(node)):
                return False
            said = node.replication()
            if said.get("role") == "master" and "state=online" not in said.get("slave0", ""):
                return False
        return True


def asked(server: RedisServer, *command: str | int) -> object:
    """What a server answers; None, if it does not, or refuses."""
    import hiredis

    from onceward.contracts import StoreError
    from onceward.runners.redis.options import Options
    from onceward.runners.redis.wire import connect

    if not server.running:
        return None
    try:
        wire = connect(("127.0.0.1", server.port), Options(connect_timeout_ms=1_000, timeout_ms=1_000))
    except StoreError:
        return None
    try:
        reply = wire.ask(*command)
    except (OSError, hiredis.HiredisError):
        return None
    finally:
        wire.close()
    return None if isinstance(reply, hiredis.ReplyError) else reply


def _by_name(pairs: list[object]) -> Mapping[str, str]:
    return {str(name): str(value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


def _nodes_known(node: RedisMember) -> list[str]:
    return str(node.asked("CLUSTER", "NODES") or "").splitlines()


def _owner(slots: object, slot: int) -> int | None:
    """The port of the node that has the slot."""
    for first, last, owner, *_ in slots if isinstance(slots, list) else ():
        if first <= slot <= last:
            return int(owner[1])
    return None
