"""MongoDB for tests that kill it: a replica set of three, and a standalone server."""

from __future__ import annotations

from collections.abc import Mapping

from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.mongodb import SET, MongoServer
from onceward.conformance.servers.process import ServerProcess

#: Soon enough for tests, and late enough for a machine that is busy with other things.
_ELECTION_MS, _HEARTBEAT_MS = 2_000, 500


class MongoMember(MongoServer):
    """One ``mongod`` of a set. A primary that is told to end does not wait long for others to take over."""

    def __init__(self) -> None:
        super().__init__("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=500")

    def ready(self) -> bool:
        """True once it answers, in whatever state."""
        return bool(self.asked("hello"))

    def asked(self, command: str, value: object = 1) -> Mapping[str, object]:
        """What it answers, also when it does not lead; nothing, if it does not answer."""
        from pymongo import MongoClient
        from pymongo.errors import PyMongoError

        client: MongoClient[dict[str, object]] = MongoClient(
            "127.0.0.1", self.port, directConnection=True, serverSelectionTimeoutMS=1_000, socketTimeoutMS=5_000
        )
        try:
            found: Mapping[str, object] = client.admin.command(command, value)
            return found
        except PyMongoError:
            return {}
        finally:
            client.close()


class MongoAlone(Cluster):
    """One standalone server, with its journal."""

    name = "MongoDB"

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.members[0].port}/onceward"

    def create(self) -> None:
        self.members = (MongoServer(replicated=False),)

    def leader(self) -> ServerProcess | None:
        [server] = self.members
        return server if self.whole() else None

    def whole(self) -> bool:
        [server] = self.members
        return server.running and server.ready()


class MongoCluster(Cluster):
    """Three ``mongod`` that vote; a write that the majority has is never lost."""

    name = "MongoDB replica set"

    def __init__(self) -> None:
        super().__init__()
        self._mongods: tuple[MongoMember, ...] = ()

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        return f"mongodb://{hosts}/onceward?replicaSet={SET}"

    def create(self) -> None:
        self.members = self._mongods = (MongoMember(), MongoMember(), MongoMember())

    def form(self) -> None:
        members = [{"_id": i, "host": f"127.0.0.1:{member.port}"} for i, member in enumerate(self.members)]
        settings = {"electionTimeoutMillis": _ELECTION_MS, "heartbeatIntervalMillis": _HEARTBEAT_MS}
        self._mongods[0].asked("replSetInitiate", {"_id": SET, "members": members, "settings": settings})

    def leader(self) -> ServerProcess | None:
        won = [(term, i) for i, member in enumerate(self._mongods) if (term := _election_won(member)) is not None]
        return self._mongods[max(won)[1]] if won else None

    def whole(self) -> bool:
        said = [member.asked("hello") for member in self._mongods]
        return sum(bool(each.get("isWritablePrimary")) for each in said) == 1 and (
            sum(bool(each.get("secondary")) for each in said) == len(said) - 1
        )


def _election_won(member: MongoMember) -> int | None:
    """The election that it won; None: it does not lead. One that was paused may for a moment think that it does."""
    if not member.running:
        return None
    said = member.asked("hello")
    election = said.get("electionId")
    return int(str(election), 16) if said.get("isWritablePrimary") else None
