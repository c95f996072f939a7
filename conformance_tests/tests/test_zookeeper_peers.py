"""The message scheduler finds what is wrong with kazoo's Lock after its session was lost, in a short history."""

from __future__ import annotations

import contextlib
import time
from urllib.parse import urlsplit

from kazoo.client import KazooClient  # type: ignore[import-untyped]
from kazoo.exceptions import KazooException, NoNodeError  # type: ignore[import-untyped]
from zookeeper_support import shared_url

from onceward.conformance.faults.contest import Contender, Contest, Memory, Said, Standing
from onceward.conformance.faults.framing import ZOOKEEPER
from onceward.conformance.faults.proxy import Address
from onceward.conformance.properties.messages import scheduled
from onceward.conformance.servers.zookeeper import ZooKeeperHarness
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Tally, Violated
from onceward.contracts import Traits, new_request

_TRAITS = Traits(durable=True, shared=True)


def connected(address: Address) -> KazooClient:
    client = KazooClient(hosts=f"{address.host}:{address.port}", timeout=10)
    client.start()
    return client


class KazooLock(Contest):
    """``kazoo.recipe.lock.Lock``, used as its documents say. A hold is over when the session of its holder is."""

    dialect = ZOOKEEPER
    noun = "lock"
    resends = False
    memory = Memory.NEVER

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.address = Address(parts.hostname or "127.0.0.1", parts.port or 2181)
        self._root = f"/peer-{new_request()}"
        self.mention = self._root.encode()
        self.path = self._root
        self.direct = connected(self.address)
        self.direct.create(self._root)
        self.contenders: list[KazooContender] = []

    def contender(self, address: Address, name: str) -> Contender:
        self.contenders.append(KazooContender(self, address))
        return self.contenders[-1]

    def begin(self, case: int) -> None:
        self.path = f"{self._root}/{case}"
        self.direct.create(self.path)  # with it, the lock's first message is the one that matters

    def first(self) -> str | None:
        """The node of whoever has it."""
        names = self.direct.get_children(self.path)
        return min(names, key=lambda name: name[-10:]) if names else None

    def standing(self) -> Standing:
        with contextlib.suppress(NoNodeError):
            name = self.first()
            return Standing(None if name is None else self.direct.get(f"{self.path}/{name}")[0].decode())
        return Standing(None)

    def lapse(self) -> None:
        """The holder's session has ended at the server, as it does when nothing was heard of it for too long."""
        name = self.first()
        assert name is not None  # somebody holds it
        owner = self.direct.exists(f"{self.path}/{name}").ephemeralOwner
        client = next(each.client for each in self.contenders if (each.client.client_id or (0,))[0] == owner)
        thief = KazooClient(hosts=f"{self.address.host}:{self.address.port}", client_id=client.client_id)
        thief.start()
        thief.stop()
        thief.close()
        while client.client_id is None or client.client_id[0] == owner:
            time.sleep(0.005)  # until the holder has a new session, and was told that the old one is lost

    def close(self) -> None:
        self.direct.delete(self._root, recursive=True)
        self.direct.stop()
        self.direct.close()


class KazooContender(Contender):
    """A client of kazoo's."""

    def __init__(self, contest: KazooLock, address: Address) -> None:
        self._contest = contest
        self.client = connected(address)

    def acquire(self, request: str) -> Said:
        self._lock = self.client.Lock(self._contest.path, identifier=request)
        with contextlib.suppress(KazooException):
            return Said.GRANTED if self._lock.acquire(blocking=False) else Said.REFUSED
        return Said.UNKNOWN

    def release(self, request: str) -> Said:
        with contextlib.suppress(KazooException):
            return Said.RELEASED if self._lock.release() else Said.LOST
        return Said.UNKNOWN

    def close(self) -> None:
        self.client.stop()
        self.client.close()


def test_kazoos_lock_is_caught_and_the_history_is_short() -> None:
    trial = Trial(ZooKeeperHarness(shared_url()), _TRAITS, Tally(), seed=0)
    with contextlib.suppress(Violated):
        scheduled(lambda _: KazooLock(shared_url()), cases=30)(trial)
    assert trial.best is not None, f"not caught in {trial.cases} cases"
    assert trial.best.violation.guarantee in ("L6", "L7", "G3", "G4", "G7")
    assert len(trial.best.history) <= 12, trial.best.history
    print(trial.best.violation, trial.best.history)
