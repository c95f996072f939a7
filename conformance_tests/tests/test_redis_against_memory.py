"""The Redis store answers every request as the memory store does, on a clock that its scripts are told."""

from __future__ import annotations

from against_memory import BURIED, CLAIMS, QUEUES, SETTINGS, ServerSame, same_claims
from hypothesis import example, given, settings
from redis_support import ClockedRedisStore, shared_url
from servers_support import OneClock

from onceward.contracts import Store, Want, new_request


class RedisSame(ServerSame):
    def make_store(self, namespace: str) -> Store:
        return ClockedRedisStore(shared_url(), f"{self.case}: {namespace} {{x}}", self.clock)


RedisSame.TestCase.settings = SETTINGS
TestSameAsMemory = RedisSame.TestCase


@given(queue=QUEUES, claims=CLAIMS)
@example(**BURIED)
@settings(max_examples=80, deadline=None)
def test_g12_g13_claims_take_the_same_runs_in_the_same_order(
    queue: list[tuple[str, int, int, int | None]], claims: list[tuple[list[Want] | None, int, bool]]
) -> None:
    clock = OneClock()
    store = ClockedRedisStore(shared_url(), new_request(), clock)
    same_claims(store, clock, queue, claims)
