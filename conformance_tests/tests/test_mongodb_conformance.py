"""The MongoDB runner passes the suite: on a clock that is moved by hand, and on real servers as they are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from certificates import broken
from mongodb_support import ClockedMongoStore, own_server, shared_url
from servers_support import ClockedHarness

from onceward.conformance import run_suite
from onceward.conformance.servers import ServerHarness


@pytest.mark.parametrize("profile", ["checkin", "lock", "queue"])
def test_a_moved_clock(profile: str) -> None:
    certificate = run_suite(
        ClockedHarness(shared_url(), ClockedMongoStore), profiles=[profile], budget=timedelta(seconds=4), seed=1
    )
    assert certificate.profiles == {profile: True}, broken(certificate)


@pytest.mark.parametrize("replicated", [True, False], ids=["replica set", "standalone"])
def test_a_server_as_it_is(replicated: bool) -> None:
    with own_server(replicated=replicated) as server:
        profiles = ["checkin", "lock", "queue", "durable", "messages"]
        certificate = run_suite(ServerHarness(server), profiles=profiles, budget=timedelta(seconds=15), seed=2)
        assert certificate.profiles == dict.fromkeys(profiles, True), broken(certificate)
