"""Job servers side by side: each lap is a process that queues jobs and works them off, and the laps take turns."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from onceward.benchmarks.contestants import Contestant
from onceward.benchmarks.job_servers.order import CONCURRENCY, PATIENCE, Answer, Order
from onceward.benchmarks.job_servers.rivals import CannotInstall, Rival
from onceward.benchmarks.records import DRAIN, ENQUEUE, Absent, Broken, Comparison, Result, Role, Row
from onceward.benchmarks.stats import Spread, percentile, ratios

#: Seconds for a process to start and to stop, besides its jobs.
_AROUND = 60.0
_TITLES = {DRAIN: "jobs worked off", ENQUEUE: "jobs queued, in bulk where that is possible"}


class Refused(Exception):
    """A lap whose figures do not count; says why."""


@dataclass(slots=True, kw_only=True)
class Server:
    """A job server in the contest, and its laps so far."""

    name: str
    role: Role
    command: Sequence[str]
    order: Callable[[], Order]
    note: str = ""
    version: str = ""
    laps: list[Answer] = field(default_factory=list)

    def lap(self) -> None:
        """One more lap.

        Raises:
            Refused: the process failed, or did not run each job exactly once.
        """
        order = self.order()
        answer = ran([*self.command, order.text])
        if fault := answer.fault(order.jobs):
            raise Refused(fault)
        self.version = answer.version
        self.laps.append(
            msgspec.structs.replace(answer, drain=order.jobs / answer.drain, enqueue=order.jobs / answer.enqueue)
        )

    def rates(self, measure: str) -> list[float]:
        """Jobs per second in each lap."""
        return [lap.drain if measure == DRAIN else lap.enqueue for lap in self.laps]


def ran(command: Sequence[str]) -> Answer:
    """What the program answered with its last line."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE + _AROUND,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{type(error).__name__}: {error}") from error
    lines = done.stdout.strip().splitlines()
    try:
        return msgspec.json.decode(lines[-1], type=Answer)
    except (IndexError, msgspec.DecodeError):
        said = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line.strip()]
        raise Refused(f"exit code {done.returncode}: {said[-1] if said else 'it said nothing'}") from None


@dataclass(kw_only=True)
class Contest:
    """Our job server on one store, and those of others that use such a store.

    Attributes:
        jobs: of a lap.
        rounds: laps of each.
        told: hears how many rounds are over.
    """

    contestant: Contestant
    rivals: Sequence[Rival]
    jobs: int
    rounds: int
    told: Callable[[int], object] = lambda done: None
    complete: bool = field(default=True, init=False)

    def run(self) -> Iterator[Row]:
        """A result per job server for draining and for queueing, ours compared with each, and who has no figures."""
        servers = [self._ours()]
        for rival in self._fitting():
            try:
                servers.append(self._theirs(rival))
            except CannotInstall as error:
                yield Absent(contestant=rival.name, install=f"{rival.install}: {error}")
        try:
            for number in range(self.rounds):
                turn = number % max(1, len(servers))
                for server in [*servers[turn:], *servers[:turn]]:
                    try:
                        server.lap()
                    except Refused as error:
                        servers.remove(server)
                        yield Broken(measure=f"{DRAIN}, {server.name}", reason=str(error))
                self.told(number + 1)
        except KeyboardInterrupt:
            self.complete = False
        yield from self._rows(servers)

    def _fitting(self) -> list[Rival]:
        """The rivals that can be measured on this contestant's store.

        On a Redis server of somebody's they would leave keys behind that are not told from his, so there is none.
        """
        own = self.contestant
        if own.kind == "redis" and not own.private:
            return []
        return [each for each in self.rivals if each.kind == own.kind and each.durable in (None, own.durable)]

    def _ours(self) -> Server:
        own = self.contestant

        def order() -> Order:
            place = own.fresh()
            return Order(
                url=place.url,
                name=place.namespace,
                jobs=self.jobs,
                folder=str(own.folder),
            )

        note = ", ".join(filter(None, (own.note, f"{CONCURRENCY} jobs at a time in threads, leases and check-outs on")))
        command = [sys.executable, "-m", "onceward.benchmarks.job_servers.ours"]
        return Server(name=own.name, role=Role.RUNNER, command=command, order=order, note=note)

    def _theirs(self, rival: Rival) -> Server:
        own, jobs = self.contestant, max(1, int(self.jobs * rival.share))

        def order() -> Order:
            return Order(
                url=own.server,
                name=own.fresh().namespace,
                jobs=jobs,
                folder=str(own.folder),
                durable=rival.durable is not False,
            )

        return Server(name=rival.name, role=Role.PEER, command=rival.command(), order=order, note=rival.note)

    def _rows(self, servers: Sequence[Server]) -> Iterator[Row]:
        whole = min((len(server.laps) for server in servers), default=0)
        if not whole:
            return
        for measure in (DRAIN, ENQUEUE):
            yield from (self._result(measure, server, whole) for server in servers)
            ours, *others = servers
            if ours.role is Role.RUNNER:
                yield from (self._comparison(measure, ours, other, whole) for other in others)

    def _result(self, measure: str, server: Server, rounds: int) -> Result:
        rates = server.rates(measure)[:rounds]
        each = sorted(1e6 / rate for rate in rates)
        return Result(
            measure=measure,
            title=_TITLES[measure],
            contestant=f"{server.name} {server.version}".strip(),
            role=server.role,
            batch=1,
            threads=1,
            rounds=rounds,
            calls=rounds,
            rate=Spread.of(rates),
            p50_us=percentile(each, 50),
            p99_us=percentile(each, 99),
            note=server.note,
            complete=self.complete,
        )

    def _comparison(self, measure: str, ours: Server, other: Server, rounds: int) -> Comparison:
        return Comparison(
            measure=measure,
            title=_TITLES[measure],
            contestant=ours.name,
            against=other.name,
            ratio=ratios(ours.rates(measure)[:rounds], other.rates(measure)[:rounds]),
            rounds=rounds,
            complete=self.complete,
        )
