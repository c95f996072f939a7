"""A cluster without servers: one SQLite file, whose store forgets what a fault tells it to forget."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from onceward.conformance.harness import Opening, SqliteHarness, new_namespace
from onceward.conformance.servers.cluster import Cluster
from onceward.conformance.servers.process import ServerProcess
from onceward.contracts import Failover, Purge, Runner, Traits
from onceward.runners.sqlite import SqliteStore

_FAILOVER = {each.value: each for each in Failover}


class Member(ServerProcess):
    """A server that only says whether it runs."""

    def __init__(self, lost: Callable[[Member], None]) -> None:
        super().__init__()
        self._lost, self._runs = lost, True

    @property
    def url(self) -> str:
        return "pretended://"

    def command(self) -> list[str]:
        raise AssertionError("it is no program")

    def ready(self) -> bool:
        return self._runs

    @property
    def running(self) -> bool:
        return self._runs

    def kill(self) -> None:
        if self._runs:
            self._runs = False
            self._lost(self)

    stop = pause = kill

    def spawn(self) -> None:
        self._runs = True

    resume = spawn


class PretendedCluster(Cluster):
    """The first member that runs leads. When a leader is lost, ``forget`` is called."""

    def __init__(self, forget: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._forget = forget
        self.create()

    @property
    def url(self) -> str:
        return "pretended://"

    def create(self) -> None:
        self.members = [Member(self._lost) for _ in range(3)]
        self._leader: ServerProcess = self.members[0]

    def _lost(self, member: Member) -> None:
        if member is self._leader:
            self._forget()
            self._leader = next((each for each in self.members if each.running), member)

    def leader(self) -> ServerProcess | None:
        return self._leader if self._leader.running else None

    def whole(self) -> bool:
        return all(member.running for member in self.members)


class PretendedStore(SqliteStore):
    """SQLite that claims to have a failover."""

    failover: Failover

    @property
    def traits(self) -> Traits:
        return replace(super().traits, failover=self.failover)


def open_pretended(path: str, namespace: str, failover: str) -> Runner:
    store = PretendedStore(Path(path), namespace=namespace, synchronous="OFF")
    store.failover = _FAILOVER[failover]
    return Runner.of(store, namespace=namespace, url="pretended://")


class PretendedHarness(SqliteHarness):
    """What ``forget`` does to a runner of the namespace happens whenever a leader is lost."""

    def __init__(self, forget: Callable[[Runner], object], failover: Failover = Failover.SAFE) -> None:
        super().__init__()
        self._failover = failover
        self._forget = forget
        self._namespace = ""
        self._cluster = PretendedCluster(self._lose)

    def timed_runner(self) -> Runner:
        self._namespace = new_namespace()
        return self._opening().open()

    def opening(self, runner: Runner) -> Opening:
        return self._opening()

    def _opening(self) -> Opening:
        arguments = {"path": str(self.path), "namespace": self._namespace, "failover": self._failover.value}
        return Opening(call="failover_support:open_pretended", arguments=arguments)

    def _lose(self) -> None:
        with self._opening().open() as runner:
            self._forget(runner)

    def cluster(self) -> Cluster:
        return self._cluster

    def close(self) -> None:
        self._cluster.close()
        super().close()


def nothing(runner: Runner) -> None:
    """A safe failover."""


def ended_runs(runner: Runner) -> None:
    """What was checked out is forgotten, as by an asynchronous replica."""
    runner.lifecycle.purge(Purge(older_than=timedelta(0), limit=100_000))


def locks(runner: Runner) -> None:
    """Who holds which lock is forgotten."""
    for state in runner.lifecycle.locks():
        runner.lifecycle.force_unlock(state.lease.resource)
