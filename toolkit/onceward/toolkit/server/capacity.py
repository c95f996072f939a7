"""How much more this process can start now: of all jobs, and of each."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from onceward.contracts import Want
from onceward.toolkit.jobs.job import Job
from onceward.toolkit.jobs.settings import JobSettings, Where
from onceward.toolkit.server.settings import ServerSettings

#: A process that runs no more than this at a time claims all of it at once.
_WHOLE = 8


@dataclass(frozen=True)
class Plan:
    """A job as it is to be run now: its code, and what holds for it."""

    job: Job
    settings: JobSettings
    enabled: bool = True

    @cached_property
    def in_event_loop(self) -> bool:
        """True for a coroutine function, unless it has a process of its own."""
        return self.job.is_async and self.job.where == Where.THREAD


class Capacity:
    """Counts what runs here. It is asked before each claim, so that nothing is taken that has to wait."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, jobs: Iterable[str]) -> None:
        """One more run of each of these jobs is here."""
        with self._lock:
            self._running.update(jobs)

    def give_back(self, job: str) -> None:
        """One run of the job is over."""
        with self._lock:
            self._running[job] -= 1
            if not self._running[job]:
                del self._running[job]

    def running(self) -> Mapping[str, int]:
        """How many runs of each job are here."""
        with self._lock:
            return dict(self._running)

    def wants(self, plans: Mapping[str, Plan]) -> tuple[int, tuple[Want, ...]]:
        """How many runs to claim now, and of which jobs; nothing if none could start.

        That is half of all that may run here at the most, so that one half is claimed while the other one runs.
        """
        with self._lock:
            free = self._settings.most_held - self._running.total()
            if free <= 0:
                return 0, ()
            wants = [self._want(name, plan, free) for name, plan in plans.items() if plan.enabled]
            found = tuple(want for want in wants if want.limit)
            half = max(_WHOLE, (self._settings.most_held + 1) // 2)
            return (min(free, half) if found else 0), found

    def _want(self, name: str, plan: Plan, free: int) -> Want:
        most = self._settings.most_of(plan.settings) - self._running[name]
        return Want(
            job=name,
            limit=max(0, min(free, most)),
            max_running=plan.settings.cluster_limit,
            lease=self._settings.lifetime_of(plan.settings),
        )
