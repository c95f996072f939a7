"""Three etcd servers for tests."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence

from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.etcd import INSTALL, EtcdServer
from onceward.conformance.servers.process import ServerProcess

#: Soon enough for tests, and late enough for a machine that is busy with other things.
_TIMES = ("--heartbeat-interval", "200", "--election-timeout", "2000")


class EtcdMember(EtcdServer):
    """One ``etcd``; ``peers`` are all of them, itself included."""

    advice = INSTALL

    def __init__(self) -> None:
        super().__init__(*_TIMES)
        self.peers: Sequence[EtcdMember] = (self,)

    def members(self) -> Sequence[EtcdServer]:
        return self.peers

    def ready(self) -> bool:
        """True once it answers, with or without a leader."""
        return bool(self.status())

    def status(self) -> Mapping[str, object]:
        """What it says of itself, by the JSON gateway; nothing, if it does not answer."""
        return self.asked("/v3/maintenance/status", {})

    def healthy(self) -> bool:
        """True if it can read what the majority has agreed on."""
        return bool(self.asked("/v3/kv/range", {"key": "aGVhbHRo"}))

    def asked(self, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
        """What the JSON gateway answers; nothing, if it does not."""
        if not self.running:
            return {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                found: Mapping[str, object] = json.load(answer)
                return found
        except (OSError, ValueError):
            return {}


class EtcdCluster(Cluster):
    """Three members that vote; what the majority has is never lost."""

    name = "etcd cluster"

    def __init__(self) -> None:
        super().__init__()
        self._etcds: tuple[EtcdMember, ...] = ()

    @property
    def url(self) -> str:
        return f"etcd://{','.join(f'127.0.0.1:{member.port}' for member in self.members)}"

    def create(self) -> None:
        self.members = self._etcds = (EtcdMember(), EtcdMember(), EtcdMember())
        for member in self._etcds:
            member.peers = self._etcds

    def leader(self) -> ServerProcess | None:
        """The one that says so in the latest term. One that was paused may for a moment think that it leads."""
        said = [(int(str(state["raftTerm"])), i) for i, state in enumerate(self._states()) if _leads(state)]
        return self._etcds[max(said)[1]] if said else None

    def whole(self) -> bool:
        states = self._states()
        if not all(states) or not all(member.healthy() for member in self._etcds):
            return False
        agreed = {(state["raftTerm"], state.get("leader")) for state in states}
        return len(agreed) == 1 and sum(map(_leads, states)) == 1

    def _states(self) -> Sequence[Mapping[str, object]]:
        return [member.status() for member in self._etcds]


def _leads(state: Mapping[str, object]) -> bool:
    header = state.get("header")
    return isinstance(header, dict) and "leader" in state and state["leader"] == header.get("member_id")
