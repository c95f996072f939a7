"""The job manager: which jobs this server knows, and what holds for each of them right now."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from msgspec.structs import replace

from onceward.contracts import ConfigDoc, InvalidRequest, Runner, checks, new_request
from onceward.contracts.records import Record
from onceward.toolkit.jobs.job import Job
from onceward.toolkit.jobs.launch import Launcher
from onceward.toolkit.jobs.settings import JobSettings, Where, job_name
from onceward.toolkit.server.capacity import Plan
from onceward.toolkit.server.configs import UNNAMED, Configs, JobConfig, read
from onceward.toolkit.server.presence import seen
from onceward.toolkit.server.scanner import source_of

log = logging.getLogger("onceward.server")


class Scheduled(Record, frozen=True, kw_only=True):
    """A plan, with what the schedule loop has to know of its document."""

    plan: Plan
    config: JobConfig


class JobManager:
    """The jobs of this process, and their documents in the store. ``refresh`` brings the two together.

    Attributes:
        configs: the documents of all jobs; edit them here, and all servers follow.
        problems: documents that cannot be, by job; what held before goes on.
    """

    def __init__(self, runner: Runner, *, keep_overrides: bool = False) -> None:
        self._runner = runner
        self.configs = Configs(runner)
        self.problems: Mapping[str, str] = {}
        self._keep_overrides = keep_overrides
        self._launcher = Launcher(runner.scheduler, self.settings)
        self._jobs: dict[str, Job] = {}
        self._registered: set[str] = set()
        self._checksums: dict[str, str] = {}
        self._known: Mapping[str, Scheduled] = MappingProxyType({})
        self._plans: Mapping[str, Plan] = MappingProxyType({})
        self._lock = threading.RLock()

    # -- which jobs there are -----------------------------------------------------------------------------------

    def add(self, jobs: Iterable[Job]) -> None:
        """These jobs are known from the next ``refresh`` on; one of the same name is replaced.

        Raises:
            InvalidRequest: a job's settings cannot be; two of these have one name; or one that is to run in a process
                of its own stands where no process can load it from.
        """
        jobs = list(jobs)
        for job in jobs:
            job_name(job.name)
            job.settings()
            if job.where == Where.PROCESS:
                source_of(job)  # a process of its own could not load it
        checks.distinct("jobs", [job.name for job in jobs])
        with self._lock:
            for job in jobs:
                self._jobs[job.name] = job
                self._checksums[job.name] = job.checksum()
                self._registered.discard(job.name)

    def jobs(self) -> Mapping[str, Job]:
        """The jobs that this process has the code of."""
        with self._lock:
            return dict(self._jobs)

    def checksums(self) -> Mapping[str, str]:
        """What tells the code of each job that this process has from other code of it."""
        with self._lock:
            return dict(self._checksums)

    def plans(self) -> Mapping[str, Plan]:
        """What is to be run, and how; the same object until something changes."""
        return self._plans

    def scheduled(self) -> Mapping[str, Scheduled]:
        """The jobs with their documents."""
        return self._known

    def settings(self, job: str) -> JobSettings | None:
        """What holds for a job; None: this server does not know it."""
        known = self._known.get(job)
        return None if known is None else known.plan.settings

    # -- the documents ------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """What holds is what the documents say now; True if that is something else than before.

        Jobs that are new get a document; wishes for a run at once are served.

        Raises:
            StoreError: it could not be done now; what held before goes on.
        """
        with self._lock:
            jobs = dict(self._jobs)
            self._register(jobs)
            documents = self.configs.documents()
            if self._taken_back(jobs, documents):
                documents = self.configs.documents()
            known, problems = {}, {}
            for name, job in jobs.items():
                if name not in documents:  # somebody deleted it: the next round writes it anew
                    self._registered.discard(name)
                    continue
                try:
                    known[name] = self._read(name, job, documents)
                except InvalidRequest as error:
                    problems[name] = str(error)
                    if name in self._known:
                        known[name] = self._known[name]
            self._report(problems)
            changed = known != dict(self._known)
            if changed:
                self._known = MappingProxyType(known)
                self._plans = MappingProxyType({name: each.plan for name, each in known.items()})
        for each in known.values():
            self._serve_wish(each.config)
        return changed

    def _register(self, jobs: Mapping[str, Job]) -> None:
        for name, job in jobs.items():
            if name in self._registered:
                continue
            try:
                config = self._registered_as(name, job)
            except InvalidRequest:  # somebody wrote a document that cannot be; refresh() says so
                continue
            self._registered.add(name)
            if (schedule := config.settings().schedule) is not None:
                log.info("job %r: %s", name, schedule.explain())

    def _registered_as(self, name: str, job: Job, *, take_back: bool = False) -> JobConfig:
        return self.configs.registered(
            name,
            checksum=self._checksums[name],
            settings=job.settings(),
            keep_overrides=self._keep_overrides,
            take_back=take_back,
        )

    def _taken_back(self, jobs: Mapping[str, Job], documents: Mapping[str, ConfigDoc]) -> bool:
        """Documents by newer code that no living server has any more, as after a rollback, are by ours again."""
        newer = {}
        for name in jobs:
            with suppress(KeyError, InvalidRequest):  # not there, or it cannot be: refresh() sees to it
                if (there := read(documents[name]).checksum) != self._checksums[name]:
                    newer[name] = there
        if not newer:
            return False
        servers = seen(self._runner.lifecycle.locks())
        gone = [name for name, there in newer.items() if not any(server.has(name, there) for server in servers)]
        for name in gone:
            log.warning("job %r: no server has the code any more whose settings hold; ours hold again", name)
            self._registered_as(name, jobs[name], take_back=True)
        return bool(gone)

    def _read(self, name: str, job: Job, documents: Mapping[str, ConfigDoc]) -> Scheduled:
        config = read(documents[name])
        return Scheduled(plan=Plan(job, config.settings(), enabled=config.enabled), config=config)

    def _report(self, problems: Mapping[str, str]) -> None:
        for name, problem in problems.items():
            if self.problems.get(name) != problem:
                log.error("the configuration of job %r cannot be, what held before goes on: %s", name, problem)
        self.problems = dict(problems)

    def _serve_wish(self, config: JobConfig) -> None:
        """One run per wish: its key is the wish's id, so that all servers that see it submit the same run."""
        if config.run_now == UNNAMED:
            wish = new_request()
            config = self.configs.change(
                config.job, lambda now: replace(now, run_now=wish) if now.run_now == UNNAMED else now
            )
        if (served := config.run_now) is None or served == UNNAMED:
            return
        self._launcher.launch(config.job, config.settings().data, key=f"run-now:{served}")
        self.configs.change(config.job, lambda now: replace(now, run_now=None) if now.run_now == served else now)
