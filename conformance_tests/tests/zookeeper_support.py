"""What the tests of the ZooKeeper runner share: a server, and stores on a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from servers_support import available
from waiting import until

from onceward.conformance.servers.zookeeper import ZooKeeperServer, zookeeper_url
from onceward.contracts import new_request
from onceward.contracts.clock import Clock
from onceward.runners.zookeeper import ZooKeeperStore
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.wire import Multi, Node, Stat


def shared_url() -> str:
    return available(zookeeper_url)


def own_server(*settings: str, durable: bool = False, options: Sequence[str] = ()) -> ZooKeeperServer:
    return available(lambda: ZooKeeperServer(*settings, durable=durable, options=options))


def fresh(url: str | None = None, namespace: str | None = None) -> ZooKeeperStore:
    """An open store on a namespace of its own."""
    store = ZooKeeperStore(url or shared_url(), namespace or new_request())
    store.open()
    return store


def expired(client: KazooClient) -> None:
    """The server has ended the client's session: somebody with its id and password said good-bye for it."""
    before = client.client_id
    thief = KazooClient(hosts=",".join(f"{host}:{port}" for host, port in client.hosts or ()), client_id=before)
    thief.start()
    thief.stop()
    thief.close()
    until(lambda: client.client_id not in (None, before))


#: When each transaction was made, by the clock of its test. Zxids of one server are never given twice.
_made: dict[int, int] = {}


class ClockedLink(Link):
    """Everything that the server says about time is exchanged for what the test's clock said then."""

    clock: Clock

    def exchange(self, requests: Sequence[Any], *, reads: bool) -> list[Any]:
        answers = super().exchange(requests, reads=reads)
        return [
            self._clocked(answer, isinstance(request, Multi)) for request, answer in zip(requests, answers, strict=True)
        ]

    def _clocked(self, answer: Any, written: bool) -> Any:
        if not isinstance(answer, list):
            return answer
        for part in answer:
            if written and isinstance(part, Stat):
                _made.setdefault(part.mzxid, self.clock.wall_ms())
        return [self._moved(part) for part in answer]

    def _moved(self, part: Any) -> Any:
        if isinstance(part, Node):
            return part._replace(stat=self._moved(part.stat))
        if not isinstance(part, Stat):
            return part
        now = self.clock.wall_ms()  # also for what another thread has just written, and has not been told of yet
        return part._replace(mtime=_made.setdefault(part.mzxid, now))

    def wall(self) -> int:
        return self.clock.wall_ms()


class ClockedZooKeeperStore(ZooKeeperStore):
    """A store that goes by a clock of the test's."""

    def __init__(self, url: str, namespace: str, clock: Clock) -> None:
        self._clock = clock
        super().__init__(url, namespace)

    def _make_link(self) -> Link:
        link = ClockedLink(self.options, self._layout.clock, self._nudges.changed)
        link.clock = self._clock
        return link
