"""The MongoDB store answers every request as the memory store does, on a clock that its pipelines are told."""

from __future__ import annotations

from against_memory import BURIED, CLAIMS, QUEUES, SETTINGS, Numbers, ServerSame, same_claims
from hypothesis import example, given, settings
from mongodb_support import ClockedMongoStore, shared_url
from servers_support import OneClock

from onceward.contracts import Lease, LockId, Run, RunId, Store, Want, new_request


class MongoSame(ServerSame):
    """Tokens grow per resource here, and not across them; so they correspond resource by resource."""

    in_order = False  # the writes of one request go to the server together

    def __init__(self) -> None:
        super().__init__()
        self.of: RunId | LockId | None = None
        self.tokens: dict[RunId | LockId | None, Numbers] = {}

    def make_store(self, namespace: str) -> Store:
        return ClockedMongoStore(shared_url(), f"{self.case}: {namespace} $x.y", self.clock)

    def compare(self, ours: object, theirs: object, where: str) -> None:
        if isinstance(ours, (Run, Lease)):
            self.of = ours.id if isinstance(ours, Run) else ours.resource
        super().compare(ours, theirs, where)

    def compare_field(self, name: str, ours: object, theirs: object, where: str) -> None:
        if name == "token" and isinstance(ours, int) and isinstance(theirs, int):
            self.tokens.setdefault(self.of, Numbers()).match(ours, theirs, where)
        else:
            super().compare_field(name, ours, theirs, where)


MongoSame.TestCase.settings = SETTINGS
TestSameAsMemory = MongoSame.TestCase


@given(queue=QUEUES, claims=CLAIMS)
@example(**BURIED)
@settings(max_examples=80, deadline=None)
def test_g12_g13_claims_take_the_same_runs_in_the_same_order(
    queue: list[tuple[str, int, int, int | None]], claims: list[tuple[list[Want] | None, int, bool]]
) -> None:
    clock = OneClock()
    store = ClockedMongoStore(shared_url(), new_request(), clock)
    same_claims(store, clock, queue, claims)
