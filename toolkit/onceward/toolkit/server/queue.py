"""Content-keyed jobs: what is to be done is said by a type and its data, and equal data is done once.

    queue = JobQueue("sqlite:///jobs.db", {"resize": resize, "report": make_report})
    queue.create("resize", {"image": 7, "width": 300})      # however often, by however many producers
    queue.run_all()                                          # or: queue.watch()

The id of a run is its data in canonical form, so that queueing something twice by accident is harmless. What recurs has
a date in its data. Workers may know some types only; a producer needs none.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeAlias

from onceward.contracts import Cancelled, InvalidRequest, Json, Run, RunId, Runner, RunQuery, content_key
from onceward.runners.factory import Source, open_runner
from onceward.toolkit.jobs.context import JobContext
from onceward.toolkit.jobs.job import FunctionJob, Job, job
from onceward.toolkit.jobs.launch import Launched, Launcher
from onceward.toolkit.jobs.retry import Backoff, Retry
from onceward.toolkit.resend import UNKNOWN_OR_UNAVAILABLE, resend
from onceward.toolkit.server.bodies import Inline
from onceward.toolkit.server.capacity import Plan
from onceward.toolkit.server.events import Events
from onceward.toolkit.server.server import JobServer
from onceward.toolkit.server.settings import ServerSettings
from onceward.toolkit.server.worker import Worker

#: Takes the data, and the queue if it has a second parameter; a plain function or a coroutine function.
Executor: TypeAlias = Callable[..., Any]

TRIES = Retry(attempts=3, delay=timedelta(0), backoff=Backoff.FIXED)


class JobQueue:
    """Producer and worker of content-keyed jobs, on any store. A context manager; threads may share it."""

    def __init__(
        self,
        runner: Runner | Source = None,
        executors: Mapping[str, Executor | Job] | None = None,
        *,
        namespace: str | None = None,
        retry: Retry = TRIES,
        lock_lifetime: timedelta = timedelta(seconds=60),
        concurrency: int = 1,
    ) -> None:
        """The store is open.

        Args:
            runner: an open runner (which stays yours to close), or what ``open_runner`` takes.
            executors: what does the work, by type; none for a producer. A ``Job`` has settings of its own.
            namespace: whose queue.
            retry: how often something is tried; by default three times, at once.
            lock_lifetime: when another worker may take over what a dead one had.
            concurrency: while it watches, so many runs at a time.
        """
        self._owns_runner = not isinstance(runner, Runner)
        self.runner = runner if isinstance(runner, Runner) else open_runner(runner, namespace=namespace)
        self._settings = ServerSettings(
            max_concurrency=concurrency, default_concurrency=concurrency, default_lock_lifetime=lock_lifetime
        )
        self._jobs = {name: self._job(name, each, retry) for name, each in (executors or {}).items()}
        self._launcher = Launcher(self.runner.scheduler, self._of)
        self._server: JobServer | None = None
        self._lock = threading.Lock()

    # -- producing ----------------------------------------------------------------------------------------------

    def create(
        self,
        type: str,
        data: Json = None,
        *,
        id: str | None = None,
        priority: int | None = None,
        run_at: datetime | None = None,
        after: timedelta | None = None,
    ) -> Launched:
        """It will be done, once, however often it is created; ``new`` False: it was known.

        Args:
            type: which executor does it.
            data: says fully what is to be done.
            id: what makes it unique, instead of the data.
            priority: higher goes first.
            run_at: not before this instant.
            after: not before so long from now.
        """
        return self._launcher.launch(
            type, data, key=self.key(type, data, id), priority=priority, run_at=run_at, after=after
        )

    def create_many(self, jobs: Iterable[tuple[str, Json]]) -> list[Launched]:
        """All of these (type, data) will be done, each once; in one round trip."""
        specs = [self._launcher.spec(type, data, key=self.key(type, data)) for type, data in jobs]
        unique = {spec.id: spec for spec in specs}
        made = {found.run: found for found in self._launcher.submit(list(unique.values()))} if unique else {}
        return [made[spec.id] for spec in specs]

    @staticmethod
    def key(type: str, data: Json, id: str | None = None) -> str:
        """The key of the run: the id, or else a digest of type and data that is the same in every process."""
        return content_key(type, data) if id is None else id

    def find(self, type: str, data: Json = None, *, id: str | None = None) -> Run | None:
        """What is known of it; None: it was never created, or its record is gone."""
        return self.runner.executor.check(RunId(type, self.key(type, data, id)))

    def cancel(self, type: str, data: Json = None, *, id: str | None = None) -> Cancelled:
        """It will not be done, if it has not begun; if it runs, it is asked to stop. It stays known."""
        return resend(lambda: self.runner.scheduler.cancel(RunId(type, self.key(type, data, id))))

    def runs(self, type: str | None = None, *, limit: int = 100) -> list[Run]:
        """The latest runs of a type, or of all."""
        return list(self.runner.lifecycle.runs(RunQuery(job=type, limit=limit)))

    # -- working ------------------------------------------------------------------------------------------------

    def run(self, *types: str) -> Run | None:
        """One run of these types (none: of all that this queue has executors for) is done here and now.

        The answer is the run as it is then: ended, or waiting for its next try. None: there was nothing to do.
        """
        ran: list[Run] = []
        worker = self._worker(types, ran)
        try:
            worker.claim()
            resend(worker.flusher.flush, on=UNKNOWN_OR_UNAVAILABLE)
        finally:
            worker.close(timedelta(seconds=1))
        return self.runner.executor.check(ran[0].id) if ran else None

    def run_all(self, *types: str) -> int:
        """Nothing of these types is due any more, also not what was created meanwhile; how many attempts were made."""
        ran: list[Run] = []
        worker = self._worker(types, ran)
        try:
            while worker.claim():
                resend(worker.flusher.flush, on=UNKNOWN_OR_UNAVAILABLE)
        finally:
            worker.close(timedelta(seconds=1))
        return len(ran)

    def watch(self, *types: str) -> JobServer:
        """Runs of these types (none: of all) are done in the background as they come, until ``stop``."""
        with self._lock:
            if self._server is not None:
                raise InvalidRequest("types", types, "one watch at a time: stop() the other one first")
            jobs = list(self._chosen(types).values())
            self._server = JobServer.create(self.runner, jobs, settings=self._settings, submit_schedules=False)
            return self._server.start()

    def stop(self, deadline: timedelta = timedelta(seconds=30)) -> None:
        """Nothing more is begun in the background, and what ran has ended or was given back."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown(deadline)

    def close(self) -> None:
        """It does not watch any more, and a store that was opened here is closed."""
        self.stop()
        if self._owns_runner:
            self.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _of(self, type: str) -> Any:
        known = self._jobs.get(type)
        return None if known is None else known.settings()

    def _chosen(self, types: tuple[str, ...]) -> Mapping[str, Job]:
        if not types:
            return self._jobs
        for name in types:
            if name not in self._jobs:
                raise InvalidRequest("types", name, f"types with an executor: {', '.join(self._jobs) or 'none'}")
        return {name: self._jobs[name] for name in types}

    def _worker(self, types: tuple[str, ...], ran: list[Run]) -> Worker:
        plans = {name: Plan(each, each.settings()) for name, each in self._chosen(types).items()}
        events = Events()
        events.on("start", lambda happened: ran.append(happened.run))
        settings = ServerSettings(default_lock_lifetime=self._settings.default_lock_lifetime)
        return Worker(self.runner, settings, lambda: plans, launcher=self._launcher, events=events, bodies=Inline())

    def _job(self, name: str, executor: Executor | Job, retry: Retry) -> Job:
        if isinstance(executor, Job):
            if executor.name != name:
                raise InvalidRequest("executors", name, f"the job's own name, {executor.name!r}")
            return executor
        with_queue = len(inspect.signature(executor).parameters) > 1
        made: FunctionJob
        if inspect.iscoroutinefunction(executor):

            async def run_async(ctx: JobContext) -> Json:
                found: Json = await (executor(ctx.data, self) if with_queue else executor(ctx.data))
                return found

            made = job(name=name, retry=retry)(run_async)
        else:

            def run(ctx: JobContext) -> Json:
                found: Json = executor(ctx.data, self) if with_queue else executor(ctx.data)
                return found

            made = job(name=name, retry=retry)(run)
        return made
