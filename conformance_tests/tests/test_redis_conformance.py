"""The Redis runner passes the suite: on a clock that is moved by hand, and on a durable server as it is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from certificates import broken
from redis_support import ClockedRedisStore, own_server, shared_url
from servers_support import ClockedHarness

from onceward.conformance import run_suite
from onceward.conformance.servers import ServerHarness


@pytest.mark.parametrize("profile", ["checkin", "lock", "queue"])
def test_a_moved_clock(profile: str) -> None:
    certificate = run_suite(
        ClockedHarness(shared_url(), ClockedRedisStore), profiles=[profile], budget=timedelta(seconds=10), seed=1
    )
    assert certificate.profiles == {profile: True}, broken(certificate)


def test_a_durable_server_as_it_is() -> None:
    with own_server(durable=True) as server:
        profiles = ["checkin", "lock", "queue", "durable"]
        certificate = run_suite(ServerHarness(server), profiles=profiles, budget=timedelta(seconds=20), seed=2)
        assert certificate.profiles == dict.fromkeys(profiles, True), broken(certificate)
