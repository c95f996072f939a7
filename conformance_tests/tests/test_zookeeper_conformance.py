"""The ZooKeeper runner passes the suite: on a clock that is moved by hand, and on a durable server as it is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from certificates import broken
from zookeeper_support import ClockedZooKeeperStore, OneClock, own_server, shared_url

from onceward.conformance import run_suite
from onceward.conformance.harness import UrlHarness, new_namespace
from onceward.conformance.servers import ServerHarness
from onceward.contracts import Runner


class ClockedHarness(UrlHarness):
    """Machines move the clock of the test; threads and processes use the runner as it ships."""

    movable = True

    def __init__(self) -> None:
        super().__init__(shared_url())
        self.clock = OneClock()

    def fresh_runner(self) -> Runner:
        return self._clocked(new_namespace())

    def timed_runner(self) -> Runner:
        return super().fresh_runner()

    def another(self, runner: Runner) -> Runner:
        return self._clocked(runner.namespace)

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)

    def _clocked(self, namespace: str) -> Runner:
        store = ClockedZooKeeperStore(self.url, namespace, self.clock)
        return Runner.of(store, namespace=namespace, url=self.name).open()


@pytest.mark.parametrize("profile", ["checkin", "lock"])
def test_a_moved_clock(profile: str) -> None:
    certificate = run_suite(ClockedHarness(), profiles=[profile], budget=timedelta(seconds=2), seed=1)
    assert certificate.profiles == {profile: True}, broken(certificate)


def test_a_durable_server_as_it_is() -> None:
    with own_server(durable=True) as server:
        profiles = ["queue", "durable"]
        certificate = run_suite(ServerHarness(server), profiles=profiles, budget=timedelta(seconds=2), seed=2)
        assert certificate.profiles == dict.fromkeys(profiles, True), broken(certificate)
