"""The schedule loop of the job server on a store: any number of servers, each occurrence one run, each wish one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from msgspec import structs

from onceward.conformance.machine import HOLDERS, Machine, explore, holders, quietly
from onceward.conformance.property import Property
from onceward.conformance.trial import Trial
from onceward.contracts import (
    Cancelled,
    ConfigDoc,
    ConfigWrite,
    Interest,
    Json,
    RunId,
    RunQuery,
    RunSpec,
    Scheduler,
    Watch,
)
from onceward.toolkit.jobs import Job, JobContext, Misfire, MisfirePolicy, Overlap, job
from onceward.toolkit.jobs.launch import nominal_time
from onceward.toolkit.server import JobServer
from onceward.toolkit.server.bodies import Inline
from onceward.toolkit.server.configs import JobConfig

TICKING, WISHED = "ticking", "wished"
SECOND = timedelta(seconds=1)
#: Where time passes by itself, a case may wait so often.
_WAITS = 2


class Died(Exception):
    """The process is gone; nothing of it handles this."""


class Cut(Scheduler):
    """A client whose process dies right after, or right before, one of its requests is sent."""

    def __init__(self, inner: Scheduler) -> None:
        self.inner = inner
        self.after: str | None = None
        self.before: str | None = None

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        self._die("submit", self.before)
        answer = self.inner.submit(specs)
        self._die("submit", self.after)
        return answer

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        self._die("write", self.before)
        answer = self.inner.write_config(write)
        self._die("write", self.after)
        return answer

    def _die(self, verb: str, wanted: str | None) -> None:
        if verb == wanted:
            raise Died

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        return self.inner.reschedule(run, run_at=run_at)

    def cancel(self, run: RunId) -> Cancelled:
        return self.inner.cancel(run)

    def watch(self, interest: Interest) -> Watch:
        return self.inner.watch(interest)

    def read_config(self, name: str) -> ConfigDoc | None:
        return self.inner.read_config(name)

    def configs(self) -> Sequence[ConfigDoc]:
        return self.inner.configs()


class SchedulerMachine(Machine):
    """G10, G11: servers start, die between any two requests, are edited; no occurrence is run twice, none is lost."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.ran: Counter[str] = Counter()
        self.wished, self.wish_open = 0, False
        self.edits: dict[str, int] = {}
        self.waits = 0
        self.cuts: dict[str, Cut] = {}
        self.servers: dict[str, JobServer] = {}
        self.retired: list[JobServer] = []
        for holder in HOLDERS:
            self._start(holder)

    def _start(self, holder: str) -> None:
        """A server starts, in place of the one that this holder had."""
        if holder in self.servers:
            self.retired.append(self.servers[holder])
        client = self.client(holder)
        cut = self.cuts[holder] = Cut(client.scheduler)
        self.servers[holder] = server = JobServer.create(
            replace(client, scheduler=cut), self._jobs(), bodies=Inline(), max_concurrency=50, default_concurrency=50
        )
        self.ask(f"{holder} starts a server", lambda: (server.manager.refresh(), server.ticker.round())[0])
        self.wish_open = False  # it has served what was wished

    def _jobs(self) -> list[Job]:
        @job(
            name=TICKING,
            schedule="every 1 second",
            misfire=Misfire(policy=MisfirePolicy.ALL, limit=10_000),
            overlap=Overlap.ALLOW,
        )
        def ticking(ctx: JobContext) -> None:
            self.ran[ctx.key] += 1

        @job(name=WISHED)
        def wished(ctx: JobContext) -> None:
            self.ran[ctx.key] += 1

        return [ticking, wished]

    @rule(holder=holders)
    def tick(self, holder: str) -> None:
        """One round of a server: what is due is submitted, claimed and run."""
        self.ask(f"{holder}: a round", lambda: self._round(holder))

    def _round(self, holder: str) -> int:
        server, ran = self.servers[holder], 0
        server.ticker.round()
        while started := server.worker.claim():
            server.worker.flusher.flush()
            ran += started
        return ran

    @rule(holder=holders, verb=st.sampled_from(("submit", "write")), sent=st.booleans())
    def die(self, holder: str, verb: str, sent: bool) -> None:
        """A server dies in a round, at or after one of its requests, and is started again."""
        self.time_passes(1_000)  # so that something is due
        cut = self.cuts[holder]
        cut.after, cut.before = (verb, None) if sent else (None, verb)
        try:
            self.servers[holder].ticker.round()
        except Died:
            self.trial.say(f"{holder}: died {'after' if sent else 'before'} {verb}")
            self.trial.faults["job server died between two requests (simulated)"] += 1
            self._start(holder)
        else:
            cut.after = cut.before = None

    @rule(ms=st.sampled_from((300, 1_000, 2_500, 7_000)))
    def time_passes(self, ms: int) -> None:
        """Time passes; occurrences become due."""
        if self.exact:
            self.pass_ms(ms)
        elif self.waits < _WAITS:
            self.waits += 1
            self.trial.harness.advance(SECOND)

    @rule(holder=holders)
    def wish(self, holder: str) -> None:
        """Somebody wants a run now; a wish that nobody has served yet is not doubled."""
        configs = self.servers[holder].manager.configs
        self.ask(f"{holder}: run {WISHED} now", lambda: configs.ask_run_now(WISHED).version)
        self.wished += not self.wish_open
        self.wish_open = True

    @rule(holder=holders, other=holders, value=st.integers(1, 9))
    def edit(self, holder: str, other: str, value: int) -> None:
        """Two people edit the job's configuration, one in the middle of the other's edit."""
        first, second = (self.servers[each].manager.configs for each in (holder, other))
        between: list[dict[str, Json]] = [{"concurrency": value}]

        def change(present: JobConfig) -> JobConfig:
            while between:
                second.override(WISHED, between.pop())
            return structs.replace(present, overrides={**present.overrides, "priority": value})

        doing = f"{holder}: priority={value}, and in the middle of it {other}: concurrency={value}"
        self.ask(doing, lambda: first.change(WISHED, change).version)
        self.edits = {"priority": value, "concurrency": value}

    @rule(holder=holders)
    def refresh(self, holder: str) -> None:
        """A server reads the configurations, and serves what is wished."""
        self.ask(f"{holder}: refresh", self.servers[holder].manager.refresh)
        self.wish_open = False

    @rule(holder=holders)
    def settle(self, holder: str) -> None:
        """A server works for a while undisturbed: nothing is missing then."""
        self.refresh(holder)
        self.tick(holder)
        runs = self.runner.lifecycle.runs(RunQuery(limit=10_000))
        times = sorted(at for run in runs if run.job == TICKING and (at := nominal_time(run.key)) is not None)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        self.expect("G10", all(gap == SECOND for gap in gaps), lambda: f"occurrences are missing: {gaps}")
        wishes = sum(run.job == WISHED for run in runs)
        self.expect("G11", wishes == self.wished, lambda: f"{self.wished} wishes made {wishes} runs")
        config = self.servers[holder].manager.configs.get(WISHED)
        found = {} if config is None else dict(config.overrides)
        self.expect("G11", found == self.edits, lambda: f"edited {self.edits}, found {found}")

    @invariant()
    def once_each(self) -> None:
        """No occurrence and no wish has run twice."""
        twice = [key for key, times in self.ran.items() if times > 1]
        self.expect("G10", not twice, lambda: f"ran twice: {twice}")

    def teardown(self) -> None:
        """Nothing is renewed any more."""
        for server in [*self.servers.values(), *self.retired]:
            server.worker.close(timedelta(seconds=1))
        super().teardown()


MODEL = Property(
    id="scheduler.occurrences",
    statement="Any number of job servers on the store make one run of each occurrence and of each wish, and lose none.",
    guarantees=("G10", "G11"),
    experiment=quietly(explore(SchedulerMachine, cases=8, steps=25)),
)
