"""What the server is, and what that means for our promises."""

from __future__ import annotations

from typing import NamedTuple

from onceward.contracts.errors import StoreMisconfigured
from onceward.contracts.traits import Failover, LeaseClock, Traits
from onceward.runners.mongodb.documents import MAX_PAYLOAD_BYTES
from onceward.runners.mongodb.terms import Doc

_OLDEST = (4, 4)


class Server(NamedTuple):
    """A primary of a replica set, or a standalone server.

    Attributes:
        replicated: it is part of a replica set: it has a cluster time and change streams.
        members: how many servers have the data.
        version: of the server.
    """

    replicated: bool
    members: int
    version: tuple[int, ...]
    persistent: bool

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "replica set" if self.replicated else "standalone"

    def traits(self, *, linearizable: bool) -> Traits:
        """What the store promises on it."""
        return Traits(
            durable=self.persistent,
            shared=True,
            # With other members, one that was deposed and has not noticed yet may be read for a few seconds.
            linearizable=linearizable or self.members == 1,
            native_wait=self.replicated,
            lease_clock=LeaseClock.WALL,
            failover=Failover.SAFE if self.replicated else Failover.NONE,
            max_payload_bytes=MAX_PAYLOAD_BYTES,
        )


def examined(hello: Doc, build: Doc, where: str) -> Server:
    """What the answers to ``hello`` and ``buildInfo`` say.

    Raises:
        StoreMisconfigured: it is too old, no server of data, or leads to several replica sets.
    """
    version = tuple(build.get("versionArray", (0,))[:3])
    if version < _OLDEST:
        raise StoreMisconfigured(f"MongoDB at {where} is version {build.get('version')}; Onceward needs 4.4 or newer")
    if hello.get("isreplicaset") or hello.get("arbiterOnly"):
        raise StoreMisconfigured(
            f"MongoDB at {where} is part of a replica set that has not been initiated, or its arbiter"
        )
    if hello.get("msg") == "isdbgrid":
        # There $$NOW is the clock of the mongos that was asked, and its cluster time may lag behind the shards'.
        raise StoreMisconfigured(
            f"MongoDB at {where} is a mongos; what Onceward promises is not proven on sharded clusters. "
            "Give the URL of one replica set"
        )
    members = len(hello.get("hosts", ())) + len(hello.get("passives", ())) or 1
    persistent = "inMemory" not in build.get("storageEngines", ()) or "wiredTiger" in build.get("storageEngines", ())
    return Server(replicated="setName" in hello, members=members, version=version, persistent=persistent)
