"""The ZooKeeper store answers every request as the memory store does, on a clock that is moved by hand."""

from __future__ import annotations

from against_memory import CLAIMS, QUEUES, SETTINGS, ServerSame, same_claims
from hypothesis import given, settings
from servers_support import OneClock
from zookeeper_support import ClockedZooKeeperStore, shared_url

from onceward.contracts import Store, Want, new_request


class ZooKeeperSame(ServerSame):
    def make_store(self, namespace: str) -> Store:
        return ClockedZooKeeperStore(shared_url(), f"{self.case}: {namespace} {{x}}", self.clock)


ZooKeeperSame.TestCase.settings = settings(SETTINGS, max_examples=10)
TestSameAsMemory = ZooKeeperSame.TestCase


@given(queue=QUEUES, claims=CLAIMS)
@settings(max_examples=25, deadline=None)
def test_g12_g13_claims_take_the_same_runs_in_the_same_order(
    queue: list[tuple[str, int, int, int | None]], claims: list[tuple[list[Want] | None, int, bool]]
) -> None:
    clock = OneClock()
    store = ClockedZooKeeperStore(shared_url(), new_request(), clock)
    same_claims(store, clock, queue, claims)
