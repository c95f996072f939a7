"""What is done to the servers of a store while clients are at work, and what must be the case afterwards."""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Callable, Sequence

from onceward.conformance.servers.cluster import PATIENCE, Cluster
from onceward.conformance.servers.process import ServerProcess
from onceward.conformance.verdicts import CouldNotRun, Violated


class Deed(enum.StrEnum):
    """What may be done; named as the certificate lists it."""

    KILL_LEADER = "leader killed (SIGKILL)"
    PAUSE_LEADER = "leader paused until another led (SIGSTOP)"
    KILL_FOLLOWER = "follower killed (SIGKILL)"
    PAUSE_FOLLOWER = "follower paused (SIGSTOP)"
    KILL_ALL = "all servers killed at once (SIGKILL) and started again"
    ROLLING_RESTART = "all servers restarted, one after the other"


class ServerNemesis:
    """One deed after the other. What it does is counted only when it was really done.

    Args:
        answered: says whether every client was answered something that it had asked after that moment.
    """

    def __init__(self, cluster: Cluster, answered: Callable[[float], bool]) -> None:
        self._cluster = cluster
        self._answered = answered
        self.faults: Counter[str] = Counter()

    def torment(self, deeds: Sequence[Deed]) -> None:
        """All was done; in the end all servers run and agree, and all clients are answered.

        Raises:
            Violated: clients were not answered, though most servers were there and one led.
            CouldNotRun: the servers themselves did not recover.
        """
        self._clients_go_on("at the beginning")
        for deed in deeds:
            leader = self._leader()
            if deed is Deed.ROLLING_RESTART:
                self._restart_all(leader)
            elif deed is Deed.KILL_ALL:
                self._kill_all()
            else:
                follows = deed in (Deed.KILL_FOLLOWER, Deed.PAUSE_FOLLOWER)
                victim = next(each for each in self._cluster.members if (each is leader) is not follows)
                self._lose(victim, deed, pausing=deed in (Deed.PAUSE_LEADER, Deed.PAUSE_FOLLOWER))
            self.faults[deed.value] += 1

    def _lose(self, victim: ServerProcess, deed: Deed, *, pausing: bool) -> None:
        (victim.pause if pausing else victim.kill)()
        try:
            self._await(lambda: self._cluster.leader() not in (None, victim), f"nobody led after: {deed.value}")
            self._clients_go_on(f"after: {deed.value}")
        finally:
            (victim.resume if pausing else victim.spawn)()
        self._recovered(f"after: {deed.value}, and its return")

    def _kill_all(self) -> None:
        for member in self._cluster.members:
            member.kill()
        for member in self._cluster.members:
            member.spawn()
        self._recovered("after all servers were killed")

    def _restart_all(self, leader: ServerProcess) -> None:
        """The leader comes last, as one does it."""
        for member in [*(each for each in self._cluster.members if each is not leader), leader]:
            member.stop()
            try:
                self._clients_go_on("while a server restarted")
            finally:
                member.spawn()
            self._recovered("after a server restarted")

    def _recovered(self, when: str) -> None:
        self._await(self._cluster.whole, f"the servers did not become one again {when}")
        self._clients_go_on(when)

    def _leader(self) -> ServerProcess:
        self._await(lambda: self._cluster.leader() is not None, "nobody leads")
        leader = self._cluster.leader()
        if leader is None:
            raise CouldNotRun("the servers change their leader all the time")
        return leader

    def _clients_go_on(self, when: str) -> None:
        moment = time.monotonic()
        if not self._cluster.await_(lambda: self._answered(moment)):
            raise Violated("A2", f"not every client was answered within {PATIENCE:.0f} seconds {when}")

    def _await(self, state: Callable[[], bool], otherwise: str) -> None:
        if not self._cluster.await_(state):
            raise CouldNotRun(otherwise)
