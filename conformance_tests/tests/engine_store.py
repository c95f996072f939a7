"""Stores for tests of the job server: in memory and on SQLite, with a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from redis_support import ClockedRedisStore, shared_url

from onceward.contracts import Json, OutcomeUnknown, Run, RunId, Runner, Store, StoreUnavailable, new_request
from onceward.runners.clock import ManualClock
from onceward.runners.memory import MemoryStore
from onceward.runners.sqlite import SqliteStore
from onceward.toolkit.jobs import FunctionJob, Job, Launcher, job
from onceward.toolkit.server.bodies import Bodies, Inline
from onceward.toolkit.server.capacity import Plan
from onceward.toolkit.server.events import Events
from onceward.toolkit.server.settings import ServerSettings
from onceward.toolkit.server.worker import Worker

KINDS = ("memory", "sqlite", "redis")


def make_store(kind: str, clock: ManualClock, folder: Path) -> Store:
    match kind:
        case "memory":
            return MemoryStore(clock=clock)
        case "sqlite":
            return SqliteStore(folder / "jobs.db", clock=clock)
        case _:
            return ClockedRedisStore(shared_url(), new_request(), clock)


class Flaky(MemoryStore):
    """A store that is away, or whose answers get lost, when the test says so."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        super().__init__(clock=clock)
        self.away = threading.Event()
        self.lose: dict[str, int] = {}
        self.calls: list[str] = []
        self._real: dict[str, Callable[..., Any]] = {}
        for verb in ("claim", "checkout", "renew", "submit", "now", "configs", "write_config", "read_config", "counts"):
            setattr(self, verb, self._disturbed(verb, getattr(self, verb)))

    def _disturbed(self, verb: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(verb)
            if self.away.is_set():
                raise StoreUnavailable("the store is away")
            answer = real(*args, **kwargs)
            if self.lose.get(verb, 0) > 0:
                self.lose[verb] -= 1
                raise OutcomeUnknown("the answer was lost")
            return answer

        return call


_benches: list[Bench] = []


def close_benches() -> None:
    """Nothing is renewed any more by any bench of the test that ends."""
    while _benches:
        _benches.pop().close()


class Bench:
    """A worker whose rounds the test makes, its bodies inline unless it says otherwise."""

    def __init__(
        self,
        store: Store,
        *jobs: Job,
        bodies: Bodies | None = None,
        settings: ServerSettings | None = None,
        plans: Mapping[str, Plan] | None = None,
    ) -> None:
        self.store = store
        self.runner = Runner.of(store, namespace="test")
        self.plans = dict(plans or {each.name: Plan(each, each.settings()) for each in jobs})
        self.launcher = Launcher(store, lambda name: self.plans[name].settings if name in self.plans else None)
        self.events = Events()
        self.worker = Worker(
            self.runner,
            settings or ServerSettings(max_concurrency=100, default_concurrency=100),
            lambda: self.plans,
            launcher=self.launcher,
            events=self.events,
            bodies=bodies or Inline(),
        )
        _benches.append(self)

    def submit(self, job: str, key: str = "k", data: Json = None, **options: Any) -> RunId:
        return self.launcher.launch(job, data, key=key, **options).run

    def work(self) -> int:
        """One claim, its bodies, and their check-outs."""
        started = self.worker.claim()
        self.worker.flusher.flush()
        return started

    def work_all(self) -> int:
        total = 0
        while started := self.work():
            total += started
        return total

    def run(self, run: RunId) -> Run:
        found = self.store.check(run)
        assert found is not None
        return found

    def close(self) -> None:
        self.worker.close(timedelta(seconds=1))


def failing(error: BaseException, **options: Any) -> FunctionJob:
    @job(name="failing", **options)
    def body() -> None:
        raise error

    return body


def statuses(runs: Sequence[Run]) -> dict[str, str]:
    return {run.key: run.status.value for run in runs}
