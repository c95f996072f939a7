"""The job server: declare jobs, start as many processes as you like, and every run is run once.

server = JobServer.create("redis://localhost", jobs=[CleanUp, poll], max_concurrency=8)
server.run()                      # until SIGTERM or SIGINT

with JobServer.create("sqlite:///jobs.db", jobs=[CleanUp]) as server:   # or inside of another program
    server.launch("CleanUp", {"older_than": 30})
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from msgspec.structs import replace

from onceward.contracts import (
    Interest,
    InvalidRequest,
    Json,
    Run,
    RunId,
    Runner,
    StoreMisconfigured,
    StoreUnavailable,
    WaitTimeout,
    checks,
)
from onceward.runners.factory import Source, make_runner
from onceward.toolkit.jobs.job import Job
from onceward.toolkit.jobs.launch import Launched, Launcher
from onceward.toolkit.server.bodies import Bodies, Mixed
from onceward.toolkit.server.closing import shut_down
from onceward.toolkit.server.events import Event, Events, JobEvent
from onceward.toolkit.server.health import ServerHealth, ShutdownReport
from onceward.toolkit.server.listening import Listener
from onceward.toolkit.server.loops import Loop, LoopState
from onceward.toolkit.server.maintenance import Maintenance
from onceward.toolkit.server.manager import JobManager
from onceward.toolkit.server.presence import Presence
from onceward.toolkit.server.scanner import FileWatch, JobSource, found_jobs
from onceward.toolkit.server.settings import ServerSettings
from onceward.toolkit.server.signals import handled
from onceward.toolkit.server.status import JobStatus, job_status
from onceward.toolkit.server.ticker import Ticker
from onceward.toolkit.server.worker import Worker
from onceward.toolkit.waiting import wait_for_end

log = logging.getLogger("onceward.server")

#: A server is ready while the store has answered within this time.
_READY_FOR = 60.0


class JobServer:
    """One process's share of the work: it schedules, claims, runs, retries, cleans up. Start any number of them.

    A context manager: started at its beginning, shut down at its end.

    Attributes:
        events: tells of starts and ends of runs: ``server.events.on("fail", alert)``.
        manager: the jobs, and their configurations.
    """

    def __init__(
        self,
        runner: Runner,
        jobs: Iterable[Job],
        settings: ServerSettings,
        *,
        needs: Collection[str] = (),
        owns_runner: bool = True,
        bodies: Bodies | None = None,
        keep_overrides: bool = False,
    ) -> None:
        self.runner, self.settings = runner, settings
        self.events = Events()
        self.manager = JobManager(runner, keep_overrides=keep_overrides)
        self.manager.add(jobs)
        self.launcher = Launcher(runner.scheduler, self.manager.settings)
        self.worker = Worker(
            runner,
            settings,
            self.manager.plans,
            launcher=self.launcher,
            events=self.events,
            bodies=bodies or Mixed(),
        )
        self.ticker = Ticker(runner, self.launcher, self.manager.scheduled)
        self.maintenance = Maintenance(runner, settings.retention, lambda: self.manager.jobs().keys())
        self.files = FileWatch(self.manager.jobs().values())
        self.presence = Presence(
            runner, self.worker.holder, self.worker.renewer, self.manager.checksums, settings.most_held
        )
        self.owns_runner = owns_runner
        self._needs = needs
        self._ready, self._asked = threading.Event(), threading.Event()
        self._starting, self._closing = threading.Lock(), threading.Lock()
        self._started = False
        self._report: ShutdownReport | None = None
        self.loops, self.listeners = self._make_loops()

    @classmethod
    def create(
        cls,
        runner: Runner | Source = None,
        jobs: Iterable[JobSource] = (),
        *,
        namespace: str | None = None,
        needs: Collection[str] = (),
        keep_overrides: bool = False,
        bodies: Bodies | None = None,
        settings: ServerSettings | None = None,
        **changes: Any,
    ) -> Self:
        """A server that is not started yet. A store that is down now is no error: the server waits for it.

        Args:
            runner: an open runner (which stays yours to close), or what ``open_runner`` takes: a URL, a mapping, a TOML
                file, None for the default store.
            jobs: job classes, jobs, decorated functions, or names of modules and paths of folders to look for them.
            namespace: whose jobs; servers of one application share it.
            needs: traits without which the store is refused, such as ``["durable", "shared"]``.
            keep_overrides: new code keeps what configurations say instead of it.
            bodies: where bodies run; for tests.
            settings: what holds for the server.
            changes: fields of ``ServerSettings`` that differ: ``max_concurrency=8``.

        Raises:
            InvalidRequest: a job or a setting cannot be; names it.
            StoreMisconfigured: the store can never work like this.
        """
        settings = settings or ServerSettings()
        for name, value in changes.items():
            if name not in ServerSettings.__struct_fields__:
                raise InvalidRequest(name, value, f"any of {', '.join(ServerSettings.__struct_fields__)}")
        given = isinstance(runner, Runner)
        if isinstance(runner, Runner) and namespace is not None and namespace != runner.namespace:
            raise InvalidRequest("namespace", namespace, f"that of the runner given, {runner.namespace!r}, or none")
        return cls(
            runner if isinstance(runner, Runner) else make_runner(runner, namespace=namespace),
            found_jobs(jobs),
            replace(settings, **changes),
            needs=needs,
            owns_runner=not given,
            bodies=bodies,
            keep_overrides=keep_overrides,
        )

    # -- its life -----------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """The server works, or will as soon as the store answers: see ``health`` and ``wait_ready``.

        Nothing happens if it was started before; a server that was shut down stays so.

        Raises:
            StoreMisconfigured: the store can never work like this.
        """
        with self._starting:
            if self._started or self._asked.is_set():
                return self
            self._started = True
        try:
            self._open()
        except StoreUnavailable as error:
            log.warning("the store is not available yet: %s", error)
        except BaseException:
            self._started = False
            raise
        self.loops["start"].start()
        return self

    def wait_ready(self, timeout: timedelta = timedelta(seconds=30)) -> bool:
        """True: the store is open, the configurations are read, the loops run."""
        return self._ready.wait(timeout.total_seconds())

    def run(self) -> ShutdownReport:
        """The server has worked until SIGTERM, SIGINT or ``stop``, and was shut down. Call it from the main thread."""
        with handled(self.stop, self.force):
            self.start()
            while not self._asked.wait(1.0):
                pass
            return self.shutdown()

    def stop(self) -> None:
        """``run`` ends; nothing else happens here. For signal handlers and other threads."""
        self._asked.set()

    def force(self) -> None:
        """A shutdown under way does not wait for bodies any longer."""
        self.worker.hurry()

    def shutdown(self, deadline: timedelta | None = None) -> ShutdownReport:
        """Nothing runs here any more, or it is reported; returns within the deadline, whatever the store does (G17).

        No run is claimed any more; bodies are told by ``ctx.stopping``, and their leases are renewed until they end or
        time is up; what then still runs is given back. Later calls get the same report.
        """
        limit = self.settings.shutdown_deadline if deadline is None else deadline
        checks.delay("deadline", limit)
        self.stop()
        with self._closing:
            if self._report is None:
                self._report = shut_down(self, limit)
            return self._report

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    # -- using it -----------------------------------------------------------------------------------------------

    def launch(self, job: str, data: Json = None, **options: Any) -> Launched:
        """A run of a job is submitted; see ``Launcher.launch``."""
        return self.launcher.launch(job, data, **options)

    def wait(self, run: RunId, timeout: timedelta = timedelta(seconds=60)) -> Run:
        """The run as it ended, wherever it ran.

        Raises:
            WaitTimeout: it did not end in time.
        """
        found = wait_for_end(self.runner, run, timeout)
        if found is None:
            raise WaitTimeout(f"{run} has not ended in {timeout}")
        return found

    def on(self, event: Event | str, listener: Callable[[JobEvent], object]) -> None:
        """``listener`` hears of every such event of this server; see ``Events``."""
        self.events.on(event, listener)

    # -- looking ------------------------------------------------------------------------------------------------

    def health(self) -> ServerHealth:
        """How the server is now; asks nobody, so it never waits."""
        loops = {name: loop.health() for name, loop in self.loops.items()}
        bad = {
            name: health for name, health in loops.items() if health.state not in (LoopState.IDLE, LoopState.RUNNING)
        }
        broken = [name for name, health in bad.items() if health.state in (LoopState.STALLED, LoopState.DEAD)]
        reasons = [f"{name}: {health.state}: {health.error or 'no answer'}" for name, health in bad.items()]
        reasons += [f"configuration of {job}: {problem}" for job, problem in self.manager.problems.items()]
        reasons += [f"schedule of {job}: {problem}" for job, problem in dict(self.ticker.problems).items()]
        reasons += [f"{run} goes on although its lease is lost" for run in self.worker.overdue()]
        reasons += [f"{n} runs of unknown job {job!r} are parked" for job, n in self.maintenance.parked.items()]
        if self.maintenance.lapsed:
            reasons.append(
                f"{self.maintenance.lapsed} runs are held on leases that are over; no server had room for them"
            )
        reasons += [f"{path} has changed: start the server again to load it" for path in self.files.changed()]
        if not self._ready.is_set():
            reasons.append("not started, or the store has not answered yet")
        return ServerHealth(
            live=not broken,
            ready=self._ready.is_set() and not self._asked.is_set() and self._answered_lately(),
            degraded=bool(reasons),
            reasons=tuple(reasons),
            running=self.worker.running_by_job(),
            unsent=len(self.worker.flusher),
            events=self.events.counts(),
            parked=dict(self.maintenance.parked),
            loops=loops,
        )

    def status(self, job: str) -> JobStatus:
        """How a job is, on all servers together: its latest run, its progress, its next run; asks the store."""
        return job_status(self.runner, job)

    def _answered_lately(self) -> bool:
        """True if any loop that asks the store has had an answer lately."""
        ages = [self.loops[name].health().since_success for name in ("claim", "configurations", "maintenance")]
        return any(age is not None and age < _READY_FOR for age in ages)

    # -- its loops ----------------------------------------------------------------------------------------------

    def _make_loops(self) -> tuple[Mapping[str, Loop], tuple[Listener, ...]]:
        worker, settings, every = self.worker, self.settings, self.settings.process_every.total_seconds()
        claim, mind = Loop("claim", worker.round), Loop("mind", worker.mind)
        # When the store is back, ends are sent before anybody asks for runs that lapsed meanwhile.
        flush = Loop("check-out", self._flush, longest_pause=0.5)
        configs, schedule = Loop("configurations", self._refresh), Loop("schedule", self.ticker.round)
        for_work = Listener(self.runner.scheduler, self._of_work, claim.now, every=every, pause=worker.deaf_for)
        for_configs = Listener(
            self.runner.scheduler,
            lambda: Interest(configs=True),
            configs.wake,
            every=settings.reconcile_every.total_seconds(),
        )
        self.launcher.on_due = claim.wake
        worker.on_room, worker.on_minded, worker.flusher.wake = claim.wake, mind.wake, flush.wake
        loops = [
            Loop("start", self._begin), flush, mind, claim, configs, Loop("listen for work", for_work.round),
            Loop("listen for configurations", for_configs.round), Loop("maintenance", self._maintain),
        ]  # fmt: skip
        if settings.submit_schedules:
            loops.append(schedule)
        return {loop.name: loop for loop in loops}, (for_work, for_configs)

    def _open(self) -> None:
        self.runner.open()
        missing = self.runner.traits.missing(self._needs)
        if missing:
            self.runner.close()
            raise StoreMisconfigured(f"{self.runner.url} does not give what was asked for: {', '.join(missing)}")

    def _begin(self) -> None:
        """The store is open, and all loops run; tried again until it is so."""
        if self._ready.is_set():
            return
        self._open()
        self.presence.keep()  # first, so that nobody takes what this server knows for code that no server has
        self.manager.refresh()
        if self.loops["start"].stopping:
            return
        for name, loop in self.loops.items():
            if name != "start":
                loop.start()  # one that was told to stop meanwhile ends at once
        self._ready.set()
        self.loops["start"].stop()
        log.info(
            "ready: %d jobs in namespace %r on %s", len(self.manager.jobs()), self.runner.namespace, self.runner.url
        )

    def _flush(self) -> None:
        self.worker.flusher.flush()

    def _of_work(self) -> Interest:
        return Interest(jobs=frozenset(name for name, plan in self.manager.plans().items() if plan.enabled))

    def follow(self) -> None:
        """What configurations say, and what was added to the manager, holds from now on; no need to wait for a loop."""
        self.presence.keep()
        if self.manager.refresh():
            for name in ("claim", "schedule"):
                if name in self.loops:
                    self.loops[name].wake()
            for listener in self.listeners:
                listener.follow()

    def _refresh(self) -> float:
        self.follow()
        return self.settings.reconcile_every.total_seconds()

    def _maintain(self) -> float:
        self.maintenance.round(self.manager.configs.documents())
        return self.settings.clean_every.total_seconds()
