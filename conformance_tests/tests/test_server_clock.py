"""Somebody sets the clock of a server: leases shorten or stretch as the guarantees say, tokens and outcomes stay right.

No runner's clock is replaced: the server itself reads another time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta

import pytest
from servers_support import available

from onceward.conformance.harness import UrlHarness
from onceward.conformance.servers.mongodb import MongoServer
from onceward.conformance.servers.process import ServerMissing, ServerProcess
from onceward.conformance.servers.redis import RedisServer
from onceward.conformance.servers.wall_clock import WallClock
from onceward.contracts import (
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    Lease,
    LeaseClock,
    LockId,
    LockRequest,
    Purge,
    Renewal,
    Renewed,
    RunId,
    Runner,
    RunSpec,
    Status,
)

MINUTE, LEASE = timedelta(minutes=1), timedelta(seconds=45)
LOCK, RUN = LockId("l"), RunId("j", "k")
SERVERS = {
    "redis": RedisServer,
    "mongodb replica set": MongoServer,
    "mongodb standalone": lambda: MongoServer(replicated=False),
}


class Scene:
    """A runner on a server that goes by a clock of its own."""

    def __init__(self, clock: WallClock, runner: Runner) -> None:
        self.clock, self.runner = clock, runner

    def lock(self, holder: str) -> Lease | None:
        """The lock's lease, if it was free."""
        answer = self.runner.executor.lock(LockRequest(lock=LOCK, holder=holder, lease=LEASE))
        return answer.lease if answer.acquired else None

    def checkin(self, holder: str) -> CheckInOutcome:
        return self.runner.executor.checkin(CheckIn(run=RUN, holder=holder, lease=LEASE)).outcome

    def held(self, lease: Lease) -> bool:
        return self.runner.executor.renew([Renewal(lease=lease)]) == [Renewed.HELD]

    def remaining(self) -> timedelta:
        """How long the lock will be held, as the server says."""
        [state] = self.runner.lifecycle.locks()
        assert state.remaining is not None
        return state.remaining


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[WallClock, str]]:
    with ExitStack() as stack:
        clock = stack.enter_context(closing(available(WallClock)))
        process: ServerProcess = available(SERVERS[request.param])
        process.environment = clock.environment
        stack.enter_context(process)
        assert isinstance(process, (RedisServer, MongoServer))
        yield clock, process.url


@pytest.fixture
def scene(server: tuple[WallClock, str]) -> Iterator[Scene]:
    clock, url = server
    with UrlHarness(url).fresh_runner() as runner:
        yield Scene(clock, runner)


def test_the_runner_says_that_its_leases_go_by_that_clock(scene: Scene) -> None:
    assert scene.runner.traits.lease_clock is LeaseClock.WALL
    before = scene.runner.lifecycle.now()
    scene.clock.jump(MINUTE)
    assert MINUTE <= scene.runner.lifecycle.now() - before < MINUTE * 2
    scene.clock.jump(-MINUTE)


def test_set_forward_a_lock_lapses_early_and_its_holder_is_refused(scene: Scene) -> None:
    ann = scene.lock("ann")
    assert ann is not None
    assert scene.lock("bob") is None
    scene.clock.jump(MINUTE)
    bob = scene.lock("bob")
    assert bob is not None
    assert bob.token > ann.token
    assert not scene.held(ann)
    assert not scene.runner.executor.unlock(ann)
    assert scene.held(bob)


def test_set_forward_a_run_is_taken_over_and_the_late_result_is_not_recorded(scene: Scene) -> None:
    ann = scene.runner.executor.checkin(CheckIn(run=RUN, holder="ann", lease=LEASE)).run.lease
    assert ann is not None
    scene.clock.jump(MINUTE)
    taken = scene.runner.executor.checkin(CheckIn(run=RUN, holder="bob", lease=LEASE))
    assert taken.outcome is CheckInOutcome.TAKEN_OVER
    bob = taken.run.lease
    assert bob is not None
    assert bob.token > ann.token
    assert scene.runner.executor.checkout([CheckOut.succeeded(ann, "ann's")]) == [False]
    assert scene.runner.executor.checkout([CheckOut.succeeded(bob, "bob's")]) == [True]
    scene.clock.jump(-2 * MINUTE)
    assert scene.checkin("cid") is CheckInOutcome.DONE
    found = scene.runner.executor.check(RUN)
    assert found is not None
    assert (found.result, found.token) == ("bob's", bob.token)
    scene.clock.jump(MINUTE)


def test_set_back_a_lease_lasts_longer_and_nobody_else_gets_in(scene: Scene) -> None:
    ann = scene.lock("ann")
    assert scene.checkin("ann") is CheckInOutcome.ADMITTED
    scene.clock.jump(-MINUTE)
    assert MINUTE < scene.remaining() <= MINUTE + LEASE
    assert scene.lock("bob") is None
    assert scene.checkin("bob") is CheckInOutcome.RUNNING
    scene.clock.jump(LEASE)  # by now it would be over
    assert scene.lock("bob") is None
    assert scene.checkin("bob") is CheckInOutcome.RUNNING
    scene.clock.jump(MINUTE)
    bob = scene.lock("bob")
    assert ann is not None
    assert bob is not None
    assert bob.token > ann.token
    assert scene.checkin("bob") is CheckInOutcome.TAKEN_OVER
    scene.clock.jump(-LEASE)


def test_a_renewal_sets_the_end_by_the_clock_as_it_is_then(scene: Scene) -> None:
    ann = scene.lock("ann")
    assert ann is not None
    scene.clock.jump(-MINUTE)
    assert scene.held(ann)
    assert scene.remaining() <= LEASE
    scene.clock.jump(MINUTE)


def test_tokens_increase_however_often_the_clock_is_set(scene: Scene) -> None:
    tokens: list[int] = []
    for by in (MINUTE, -MINUTE, -MINUTE, MINUTE, MINUTE, -MINUTE):
        lock = scene.lock("ann")
        run = scene.runner.executor.checkin(CheckIn(run=RunId("j", "again"), holder="ann", lease=LEASE)).run.lease
        assert lock is not None
        assert run is not None
        tokens.append(run.token)
        assert scene.runner.executor.unlock(lock)
        assert scene.runner.executor.checkout([CheckOut.succeeded(run)]) == [True]
        scene.clock.jump(by)
        scene.runner.lifecycle.purge(Purge(older_than=timedelta(0)))
        if scene.runner.executor.check(RunId("j", "again")) is not None:  # it ended in the future, as the clock is now
            scene.clock.jump(MINUTE)
            scene.runner.lifecycle.purge(Purge(older_than=timedelta(0)))
            scene.clock.jump(-MINUTE)
    assert tokens == sorted(set(tokens))


def test_what_is_due_comes_with_the_clock_and_work_goes_on_after_it_was_set_back(scene: Scene) -> None:
    later = scene.runner.lifecycle.now() + LEASE
    scene.runner.scheduler.submit([RunSpec(id=RunId("due", "1"), run_at=later), RunSpec.of("due", "2")])
    claim = Claim.of("due", holder="ann", lease=LEASE, limit=5)
    assert [run.key for run in scene.runner.executor.claim(claim)] == ["2"]
    scene.clock.jump(MINUTE)
    first = scene.runner.executor.claim(Claim.of("due", holder="bob", lease=LEASE, limit=5))
    assert sorted(run.key for run in first) == ["1", "2"]
    scene.clock.jump(-MINUTE)
    assert scene.runner.executor.checkout([CheckOut.succeeded(run.lease) for run in first if run.lease]) == [True] * 2
    assert scene.runner.lifecycle.counts("due") == {"due": {Status.SUCCEEDED: 2}}


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from onceward.conformance.servers import wall_clock

    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ServerMissing, match="apt-get install gcc"):
        wall_clock._library.__wrapped__()
