"""The MongoDB runner passes the suite: on a clock that is moved by hand, and on real servers as they are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from certificates import broken
from mongodb_support import ClockedMongoStore, OneClock, own_server, shared_url

from onceward.conformance import run_suite
from onceward.conformance.harness import UrlHarness, new_namespace
from onceward.conformance.servers import ServerHarness
from onceward.contracts import Runner


class ClockedHarness(UrlHarness):
    """Machines move the clock of their pipelines; threads and processes use the runner as it ships."""

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
        return Runner.of(ClockedMongoStore(self.url, namespace, self.clock), namespace=namespace, url=self.name).open()


@pytest.mark.parametrize("profile", ["checkin", "lock", "queue"])
def test_a_moved_clock(profile: str) -> None:
    certificate = run_suite(ClockedHarness(), profiles=[profile], budget=timedelta(seconds=4), seed=1)
    assert certificate.profiles == {profile: True}, broken(certificate)


@pytest.mark.parametrize("replicated", [True, False], ids=["replica set", "standalone"])
def test_a_server_as_it_is(replicated: bool) -> None:
    with own_server(replicated=replicated) as server:
        profiles = ["checkin", "lock", "queue", "durable", "messages"]
        certificate = run_suite(ServerHarness(server), profiles=profiles, budget=timedelta(seconds=15), seed=2)
        assert certificate.profiles == dict.fromkeys(profiles, True), broken(certificate)
