"""The etcd runner passes the suite, with messages lost, late and repeated; everything at once is for the command line.

``onceward conform etcd://127.0.0.1:2379 --budget 120s`` also lets clients die and waits for their leases.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from etcd_support import own_server, shared_url

from onceward.conformance.certificate import Verdict
from onceward.conformance.servers.etcd import EtcdHarness
from onceward.conformance.suite import run_property

QUICK = (
    "checkin.race",
    "store.payloads",
    "store.traits",
    "store.inputs",
    "lock.model",
    "lock.race",
    "queue.race",
    "queue.configs",
    "queue.config_race",
    "queue.watch",
    "durable.reopen",
    "lock.messages",
    "checkin.messages",
    "queue.messages",
    "messages.cuts",
)
THOROUGH = ("checkin.model", "queue.model")


@pytest.mark.parametrize("identity", [*QUICK, *THOROUGH])
def test_a_property_holds(identity: str) -> None:
    result = run_property(EtcdHarness(shared_url()), identity, budget=timedelta(seconds=1), seed=1)
    assert result.verdict is Verdict.HOLDS, result


def test_what_was_acknowledged_is_there_after_the_server_was_killed() -> None:
    with own_server() as server:
        result = run_property(EtcdHarness(server), "durable.kill", budget=timedelta(seconds=1), seed=1)
    assert result.verdict is Verdict.HOLDS, result
