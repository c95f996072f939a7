"""The ZooKeeper runner passes the suite: on a clock that is moved by hand, and on a durable server as it is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from certificates import broken
from servers_support import ClockedHarness
from zookeeper_support import ClockedZooKeeperStore, own_server, shared_url

from onceward.conformance import run_suite
from onceward.conformance.servers import ServerHarness


@pytest.mark.parametrize("profile", ["checkin", "lock"])
def test_a_moved_clock(profile: str) -> None:
    certificate = run_suite(
        ClockedHarness(shared_url(), ClockedZooKeeperStore), profiles=[profile], budget=timedelta(seconds=2), seed=1
    )
    assert certificate.profiles == {profile: True}, broken(certificate)


def test_a_durable_server_as_it_is() -> None:
    with own_server(durable=True) as server:
        profiles = ["queue", "durable"]
        certificate = run_suite(ServerHarness(server), profiles=profiles, budget=timedelta(seconds=2), seed=2)
        assert certificate.profiles == dict.fromkeys(profiles, True), broken(certificate)
