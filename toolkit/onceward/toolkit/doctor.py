"""Is everything well? Looks at what is installed, at the store, and at the jobs and servers of one namespace.

Only looks: nothing is changed. Each look is one ``Finding``, in words for people and in facts for programs; neither
holds a password, since runners never show one.
"""

from __future__ import annotations

import enum
import platform
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from onceward.contracts import (
    DueClock,
    Failover,
    InvalidRequest,
    LeaseClock,
    Lifecycle,
    Run,
    Runner,
    RunnerType,
    RunQuery,
    Status,
    Traits,
)
from onceward.contracts.records import Record
from onceward.toolkit import versions
from onceward.toolkit.server.configs import Configs, JobConfig, read
from onceward.toolkit.server.presence import ServerSeen, seen
from onceward.toolkit.server.ticker import cursors

#: A clock that differs by more is worth setting.
CLOCK_TOLERANCE = timedelta(seconds=1)
#: What is due for longer than this waits for something.
LATE = timedelta(minutes=5)
#: A lease that is over for longer than this waits for somebody with room.
_LAPSED_FOR = timedelta(minutes=1)
#: Something that runs for longer than this is worth a look.
_LONG = timedelta(hours=1)
_PAGE, _PAGES = 1_000, 10
_CLOCK_ASKED = 3
_NAMED = 5


class State(enum.StrEnum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; may be as it should be."""
    WRONG = "wrong"


class Finding(Record, frozen=True, kw_only=True):
    """One look: at what, what it means, in words, and in facts."""

    about: str
    state: State
    text: str
    facts: Mapping[str, object] = {}


def environment(kind: RunnerType | None = None) -> Iterator[Finding]:
    """What is installed here: Python, Onceward, and the drivers of this kind of runner."""
    facts = {"onceward": versions.of_onceward(), "python": platform.python_version(), "system": platform.platform()}
    text = f"Onceward {facts['onceward']}, Python {facts['python']}, {facts['system']}"
    yield Finding(about="installed", state=State.OK, text=text, facts=facts)
    if kind is None or kind.extra is None:
        return
    found = versions.of_extra(kind.extra)
    missing = [wanted for wanted, version in found.items() if version is None]
    text = ", ".join(f"{wanted}: {version or 'not installed'}" for wanted, version in found.items())
    if missing:
        text += f"; pip install 'onceward[{kind.extra}]'"
    yield Finding(about="driver", state=State.WRONG if missing else State.OK, text=text, facts=found)


def store(runner: Runner) -> Iterator[Finding]:
    """The store behind an open runner: does it answer, what does it promise, what time does it have?"""
    health = runner.lifecycle.health()
    facts = {"url": runner.url, "latency_ms": round(health.latency.total_seconds() * 1000, 3), **health.details}
    said = ", ".join(f"{name} {value}" for name, value in health.details.items() if name not in _NOT_SAID)
    text = f"{runner.url} answers in {facts['latency_ms']:.1f} ms ({said})"
    if not health.ok:
        text = f"{runner.url} does not answer: {health.details.get('reason', 'no reason is known')}"
    yield Finding(about="store", state=State.OK if health.ok else State.WRONG, text=text, facts=facts)
    if health.ok:
        yield _promises(runner.traits)
        yield _clock(runner.lifecycle, runner.traits)


_NOT_SAID = ("store", "url", "where", "path", "reason")


def _promises(traits: Traits) -> Finding:
    weak = []
    if not traits.durable:
        weak.append("what was acknowledged may be lost when the store's server ends")
    if not traits.shared:
        weak.append("other processes do not see it")
    if traits.failover is Failover.LOSSY:
        weak.append("a failover may lose what was acknowledged, and admit a key twice")
    if traits.lease_clock is LeaseClock.WALL:
        good = "leases end by the store's wall clock: slew it, never step it"
    else:
        good = "leases end by a clock that nobody sets"
    text = "; ".join([*weak, good]) if weak else f"durable, shared; {good}"
    facts = {name: _plain(getattr(traits, name)) for name in traits.__struct_fields__}
    return Finding(about="promises", state=State.NOTE if weak else State.OK, text=text, facts=facts)


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else value


def _clock(lifecycle: Lifecycle, traits: Traits) -> Finding:
    """How far this machine's clock is ahead of the store's, as exactly as the quickest of a few answers tells."""
    if traits.due_clock is DueClock.CLIENT:
        text = "due times are judged by the clocks of the processes, since this store has none to ask: keep them equal"
        return Finding(about="clock", state=State.NOTE, text=text)
    ahead, doubt = min((_ahead(lifecycle) for _ in range(_CLOCK_ASKED)), key=lambda found: found[1])
    off = abs(ahead) - doubt > CLOCK_TOLERANCE
    words = "ahead of" if ahead >= timedelta(0) else "behind"
    text = f"this machine is {_ms(abs(ahead)):.0f} ms {words} the store (to within {_ms(doubt):.0f} ms)"
    if off:
        text += "; times that processes give (run_at) are wrong by as much: set the clock of one of the two"
    facts = {"ahead_ms": round(_ms(ahead), 3), "within_ms": round(_ms(doubt), 3)}
    return Finding(about="clock", state=State.WRONG if off else State.OK, text=text, facts=facts)


def _ahead(lifecycle: Lifecycle) -> tuple[timedelta, timedelta]:
    before = datetime.now(UTC)
    there = lifecycle.now()
    after = datetime.now(UTC)
    half = max(after - before, timedelta(0)) / 2
    return before + half - there, half + timedelta(milliseconds=1)


def _ms(span: timedelta) -> float:
    return span / timedelta(milliseconds=1)


# -- one namespace ----------------------------------------------------------------------------------------------------


class _Seen(NamedTuple):
    """What there is in a namespace."""

    now: datetime
    servers: Sequence[ServerSeen]
    configs: Mapping[str, JobConfig]
    counts: Mapping[str, Mapping[Status, int]]
    waiting: Mapping[str, Sequence[Run]]
    """What is due, by job, as much as was looked at."""

    def unserved(self, job: str) -> bool:
        """True if no server that lives has the job's code."""
        return not any(server.jobs is None or job in server.jobs for server in self.servers)


def namespace(runner: Runner, *, late: timedelta = LATE) -> Iterator[Finding]:
    """The jobs and servers of an open runner's namespace: who lives, what waits, what failed, what hangs."""
    documents = runner.scheduler.configs()
    configs: dict[str, JobConfig] = {}
    broken: dict[str, str] = {}
    for job, document in Configs(runner).documents().items():
        try:
            configs[job] = read(document)
        except InvalidRequest as error:
            broken[job] = str(error)
    now = runner.lifecycle.now()
    found = _Seen(
        now=now,
        servers=seen(runner.lifecycle.locks()),
        configs=configs,
        counts=runner.lifecycle.counts(),
        waiting=_waiting(runner.lifecycle, now),
    )
    yield _servers(found, runner.namespace)
    yield _configurations(found, broken)
    yield from _schedules(found, {job: cursor.at for job, cursor in cursors(documents).items()}, late)
    yield from _queue(found, late)
    yield _running(runner.lifecycle, found)
    yield _dead_letters(found)


def _waiting(lifecycle: Lifecycle, now: datetime) -> Mapping[str, Sequence[Run]]:
    """What is due, the oldest submissions first, until there is some or enough was looked at."""
    query = RunQuery(statuses=frozenset({Status.SCHEDULED}), oldest_first=True, limit=_PAGE)
    due: dict[str, list[Run]] = defaultdict(list)
    for _ in range(_PAGES):
        page = lifecycle.runs(query)
        for run in page:
            if run.run_at <= now:
                due[run.job].append(run)
        if due or len(page) < _PAGE:
            break
        query = replace(query, after=page[-1].sequence)
    return due


def _servers(found: _Seen, name: str) -> Finding:
    facts = {"namespace": name, "alive": [server.holder for server in found.servers]}
    kinds = sorted({server.version for server in found.servers})
    if not found.servers:
        needed = bool(found.waiting) or any(config.enabled for config in found.configs.values())
        text = f"no job server lives in namespace {name!r}"
        text += ": start one with onceward serve" if needed else ", and there is nothing for one to do"
        return Finding(about="servers", state=State.WRONG if needed else State.NOTE, text=text, facts=facts)
    text = f"{len(found.servers)} alive in namespace {name!r}: {_some([each.holder for each in found.servers])}"
    if len(kinds) > 1:
        text += f"; they differ in their version: {', '.join(kinds)}"
    return Finding(about="servers", state=State.NOTE if len(kinds) > 1 else State.OK, text=text, facts=facts)


def _configurations(found: _Seen, broken: Mapping[str, str]) -> Finding:
    disabled = sorted(job for job, config in found.configs.items() if not config.enabled)
    facts = {"jobs": sorted(found.configs), "disabled": disabled, "broken": broken}
    text = f"{len(found.configs) + len(broken)} jobs are known"
    if disabled:
        text += f"; disabled: {_some(disabled)} (see: onceward enable)"
    for job, problem in broken.items():
        text += f"; the document of {job} cannot be, and what held before goes on: {problem}"
    state = State.WRONG if broken else State.NOTE if disabled else State.OK
    return Finding(about="jobs", state=state, text=text, facts=facts)


def _schedules(found: _Seen, dealt_with: Mapping[str, datetime | None], late: timedelta) -> Iterator[Finding]:
    """Enabled jobs with an occurrence that nobody has dealt with for too long."""
    coming = []
    for job, config in sorted(found.configs.items()):
        schedule = config.settings().schedule
        if schedule is None or not config.enabled:
            continue
        known = [at for at in (dealt_with.get(job), config.enabled_at) if at is not None]
        missed = schedule.next_after(max(known)) if known else None
        if missed is not None and missed < found.now - late:
            text = f"{job} ({schedule.text}) has made no run since {_at(missed)}: no server serves its schedule"
            yield Finding(about="schedule", state=State.WRONG, text=text, facts={"job": job, "missed": missed})
        elif (following := schedule.next_after(found.now)) is not None:
            coming.append((following, job))
    if coming:
        next_at, job = min(coming)
        text = f"{len(coming)} are served; the next is {job} at {_at(next_at)}"
        yield Finding(about="schedule", state=State.OK, text=text, facts={"next": next_at, "job": job})


def _queue(found: _Seen, late: timedelta) -> Iterator[Finding]:
    """Why what is due does not run."""
    for job, runs in sorted(found.waiting.items()):
        config, oldest = found.configs.get(job), min(run.run_at for run in runs)
        waits = found.now - oldest
        facts = {"job": job, "due": len(runs), "oldest": oldest, "waits_s": waits.total_seconds()}
        text = f"{job}: {len(runs)} due{' or more' if len(runs) >= _PAGE else ''}, the oldest since {_at(oldest)}"
        state = State.WRONG
        if config is not None and not config.enabled:
            state, text = State.NOTE, f"{text}, since the job is disabled"
        elif not found.servers:
            text += "; no job server lives"
        elif found.unserved(job):
            text += "; no server that lives knows this job, so they are parked"
        elif waits > late:
            text += "; servers are full, or the job's max_running is reached: see onceward runs --status running"
        else:
            state = State.OK
        yield Finding(about="queue", state=state, text=text, facts=facts)
    if not found.waiting:
        yield Finding(about="queue", state=State.OK, text="nothing is due", facts={"due": 0})


def _running(lifecycle: Lifecycle, found: _Seen) -> Finding:
    """What runs, for how long, and whose lease is over without anybody having taken it over."""
    running = lifecycle.runs(RunQuery(statuses=frozenset({Status.RUNNING}), oldest_first=True, limit=_PAGE))
    over = [run for run in running if run.job in found.configs and _over_for(run, found.now) > _LAPSED_FOR]
    longest = max((found.now - run.started for run in running if run.started is not None), default=timedelta(0))
    facts = {"running": len(running), "longest_s": longest.total_seconds(), "lapsed": [str(run.id) for run in over]}
    text = f"{len(running)} run" + (f", the longest for {longest}" if running else "")
    if over:
        text += f"; nobody has taken over {_some([str(run.id) for run in over])}, whose lease is over"
        return Finding(about="running", state=State.WRONG, text=text, facts=facts)
    return Finding(about="running", state=State.NOTE if longest > _LONG else State.OK, text=text, facts=facts)


def _over_for(run: Run, now: datetime) -> timedelta:
    expires = run.lease.expires if run.lease is not None else None
    return timedelta(0) if expires is None else now - expires


def _dead_letters(found: _Seen) -> Finding:
    failed = Counter({job: states.get(Status.FAILED, 0) for job, states in found.counts.items()})
    total = failed.total()
    worst = [f"{job}: {number}" for job, number in failed.most_common() if number]
    text = (
        f"{total} runs have failed for good ({_some(worst)}); see: onceward runs --status failed" if total else "none"
    )
    facts = {job: number for job, number in failed.items() if number}
    return Finding(about="dead letters", state=State.NOTE if total else State.OK, text=text, facts=facts)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
