"""Watches: ZooKeeper tells of changes of the lists and records of interest, and a timer of what comes due or lapses.

ZooKeeper tells of each thing once, then it must be asked to again. That takes some messages, so it is done at the next
``wait``: whoever was told should first do something about it. What has changed in between is found by its zxid.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from onceward.contracts.records import LockId
from onceward.contracts.requests import Interest
from onceward.contracts.scheduler import Watch
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.locks import lock_in
from onceward.runners.zookeeper.names import NEVER, Layout
from onceward.runners.zookeeper.settle import found_in
from onceward.runners.zookeeper.survey import Surveyor


class Nudges:
    """Who wants to hear of which path. ZooKeeper tells each path once; then it must be asked to again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: dict[str, set[Callable[[], None]]] = {}

    def reset(self) -> None:
        """Nobody is told anything; for a forked child."""
        self._lock = threading.Lock()
        self._wanted = {}

    def want(self, paths: list[str], nudge: Callable[[], None]) -> None:
        """``nudge`` is called once something is told of one of the paths."""
        with self._lock:
            for path in paths:
                self._wanted.setdefault(path, set()).add(nudge)

    def forget(self, nudge: Callable[[], None]) -> None:
        """``nudge`` is not called any more."""
        with self._lock:
            for path in [path for path, wanted in self._wanted.items() if nudge in wanted]:
                self._wanted[path].discard(nudge)
                if not self._wanted[path]:
                    del self._wanted[path]

    def changed(self, path: str | None) -> None:
        """A path has changed; None: any may have, since the connection was lost."""
        with self._lock:
            if path is None:
                nudges = {nudge for wanted in self._wanted.values() for nudge in wanted}
            else:
                nudges = set(self._wanted.get(path, ()))
        for nudge in nudges:
            nudge()


class ZooKeeperWatch(Watch):
    """Woken by changes, and at moments when something may come due or lapse."""

    def __init__(self, interest: Interest, link: Link, layout: Layout, nudges: Nudges) -> None:
        self._interest, self._link, self._layout, self._nudges = interest, link, layout, nudges
        self._surveyor = Surveyor(link, layout)
        self._changed = threading.Event()
        self._closed = False
        self._moments: list[int] = []
        """When something comes due or may lapse, by the server's time."""
        self._told: tuple[int, float] = (0, -1)
        """The zxid and the server's time up to which whoever waits has looked, or is going to."""
        self._armed = False
        """Every change from now on is told."""
        self._nudge = self._changed.set
        _, now = self._arm()
        self._told = (0, now)

    def wait(self, timeout: float) -> bool:
        """See ``Watch.wait``."""
        deadline = time.monotonic() + timeout
        if not self._over() and not self._armed:
            latest, _ = self._arm()
            if latest > self._told[0]:
                return self._tell()
        while not self._over():
            wall = self._link.wall()
            upcoming = min((moment for moment in self._moments if moment > self._told[1]), default=math.inf)
            left = max(0.0, deadline - time.monotonic())
            if wall >= upcoming or self._changed.wait(min(left, (upcoming - wall) / 1000)):
                self._armed = False
                return self._tell()
            if left <= 0:
                return False
        return False

    def _tell(self) -> bool:
        """Whoever waits looks now, and sees what there is by now."""
        self._told = (self._link.heard, self._link.wall())
        return not self._over()

    def _over(self) -> bool:
        return self._closed or self._link.closed

    def close(self) -> None:
        """See ``Watch.close``. The server forgets what it was asked when it has told it, or with the connection."""
        self._closed = True
        self._nudges.forget(self._nudge)
        self._changed.set()

    def _arm(self) -> tuple[int, int]:
        """From now on every change is told, and moments are known; the zxid of the latest change, and the time."""
        self._changed.clear()
        nodes = [self._layout.run(run) for run in self._interest.runs]
        locks = [self._layout.lock(LockId(name)) for name in self._interest.locks]
        nodes += locks + ([self._layout.configs] if self._interest.configs else [])
        lists: list[str] = []
        latest = 0
        while True:  # until nothing has grown below what is watched, while it was asked for
            self._nudges.want([*nodes, *lists], self._nudge)
            latest = max(latest, self._link.watch(nodes, lists))
            survey = self._surveyor.survey(sorted(self._interest.jobs), need=1)
            if set(survey.lists) <= set(lists):
                break
            lists = survey.lists
        moments: list[int] = [due.waiting.run_at for job in survey.jobs for due in job.first]
        moments += [held.end for job in survey.jobs for held, _ in job.held if held.end < NEVER]
        for node in self._link.read(locks).nodes if locks else ():
            entry = lock_in(found_in(node))
            if entry is not None and entry.held:
                moments.append(entry.until)
        self._moments, self._armed = moments, True
        return latest, survey.stamp.wall
