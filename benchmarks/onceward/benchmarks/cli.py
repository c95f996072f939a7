"""``onceward bench``: measure, show, and judge by the targets."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from onceward.benchmarks.bench import Bench, Plan
from onceward.benchmarks.contestants import DEFAULT_URLS, PRIVATE, Contestant, contestants
from onceward.benchmarks.environment import load
from onceward.benchmarks.job_servers import measures as of_servers
from onceward.benchmarks.job_servers.measures import Jobs
from onceward.benchmarks.job_servers.rivals import RIVALS
from onceward.benchmarks.measures import MEASURES
from onceward.benchmarks.peers import PEERS
from onceward.benchmarks.records import BATCHING, FOOTPRINT, LENGTH, Broken, End, Row, Standing, Verdict, encode
from onceward.benchmarks.report import WIDTH, page, printed, text
from onceward.benchmarks.rounds import Pace
from onceward.benchmarks.verdicts import FULL_CHECKINS, FULL_LENGTH, verdicts
from onceward.contracts import StoreError

_QUICK = Pace(rounds=7, seconds=0.03)
_LENGTHS = (1_000, 10_000, 100_000, FULL_LENGTH)
_QUICK_MOST = 100_000
_NAMES = (*(measure.name for measure in MEASURES), BATCHING, LENGTH, FOOTPRINT, *of_servers.NAMES)

MISSED, COULD_NOT, INTERRUPTED = 1, 2, 130


def bench(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]...",
            help=f"Runners to measure; all embedded ones unless given. {', '.join(PRIVATE)}: on a server of our own.",
        ),
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Other people's tools in the same rounds.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Shorter laps and queues, fewer rounds.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only measures whose name starts so; may be repeated.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds per measure.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs through the process whose memory is measured; 1,000,000 by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for bench.jsonl, bench.txt and bench.html.", file_okay=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON lines instead of tables.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if a target is missed.")] = False,
) -> None:
    """Measure runners next to the raw driver's round trips, in interleaved rounds.

    Exit codes: 0 measured; 1 a target is missed (with --check); 2 something could not be measured;
    130 interrupted, with what was measured until then reported.
    """
    errors = Console(stderr=True)
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        with contestants(urls or DEFAULT_URLS) as found:
            plan = _plan(found, peers=peers, quick=quick, only=only or [], rounds=rounds)
            plan = replace(plan, jobs=_jobs(only or [], peers=peers, quick=quick, rounds=rounds, flow=jobs))
            rows = _measured(plan, errors, lines=json)
    except (StoreError, OSError, UnknownMeasure) as error:
        errors.print(f"onceward bench: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(COULD_NOT) from error
    if not json:
        console = Console()
        printed(rows, console if console.is_terminal else Console(width=WIDTH))
    if out is not None:
        _write(rows, out)
    raise typer.Exit(_code(rows, check=check))


class UnknownMeasure(Exception):
    """``--only`` names no measure."""

    def __init__(self, name: str) -> None:
        known = ", ".join(_NAMES)
        super().__init__(f"--only {name!r} names no measure; there are: {known}")


def _plan(found: Sequence[Contestant], *, peers: bool, quick: bool, only: Sequence[str], rounds: int | None) -> Plan:
    for each in only:
        if not any(name.startswith(each) for name in _NAMES):
            raise UnknownMeasure(each)
    wanted = {name for name in _NAMES if not only or name.startswith(tuple(only))}
    pace = _QUICK if quick else Pace()
    lengths = [length for length in _LENGTHS if not quick or length <= _QUICK_MOST]
    return Plan(
        contestants=found,
        peers=PEERS if peers else (),
        measures=[measure for measure in MEASURES if measure.name in wanted],
        batching=BATCHING in wanted,
        lengths=lengths if LENGTH in wanted else (),
        checkins=(_QUICK_MOST if quick else FULL_CHECKINS) if FOOTPRINT in wanted else 0,
        pace=pace if rounds is None else replace(pace, rounds=rounds),
        quick=quick,
    )


def _jobs(only: Sequence[str], *, peers: bool, quick: bool, rounds: int | None, flow: int | None) -> Jobs:
    names = [name for name in of_servers.NAMES if not only or name.startswith(tuple(only))]
    chosen = Jobs(names=names, rivals=RIVALS if peers else ())
    if quick:
        chosen = replace(chosen, jobs=1_000, rounds=3, flow=20_000, idle_seconds=3.0)
    return replace(chosen, rounds=rounds or chosen.rounds, flow=flow or chosen.flow)


def _measured(plan: Plan, errors: Console, *, lines: bool) -> list[Row]:
    """All rows; with ``lines`` each is on standard output as soon as it is known. Ctrl-C ends it early and cleanly."""
    rows: list[Row] = []
    began = time.monotonic()

    def note(row: Row) -> None:
        rows.append(row)
        if lines:
            sys.stdout.write(encode(row) + "\n")
            sys.stdout.flush()

    shown = _Shown(errors)
    run = Bench(plan, progress=shown)
    with shown.bars if errors.is_terminal else nullcontext():
        try:
            for row in run.run():
                note(row)
        except KeyboardInterrupt:
            run.complete = False
    for verdict in verdicts(rows):
        note(verdict)
    seconds = round(time.monotonic() - began, 1)
    note(End(ended=datetime.now(UTC), seconds=seconds, load=load(), complete=run.complete))
    return rows


class _Shown:
    """Progress on standard error: a moving bar in a terminal, one line per measure elsewhere."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=console, transient=True)
        self._console = console
        self._what = ""
        self._bar = self.bars.add_task("starting", total=None)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what = what
            self.bars.reset(self._bar, description=what, total=total)
            if not self._console.is_terminal:
                self._console.print(what, markup=False, highlight=False)
        self.bars.update(self._bar, completed=done)


def _write(rows: Sequence[Row], folder: Path) -> None:
    (folder / "bench.jsonl").write_text("".join(encode(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "bench.txt").write_text(text(rows), encoding="utf-8")
    (folder / "bench.html").write_text(page(rows), encoding="utf-8")


def _code(rows: Sequence[Row], *, check: bool) -> int:
    if any(isinstance(row, End) and not row.complete for row in rows):
        return INTERRUPTED
    if any(isinstance(row, Broken) for row in rows):
        return COULD_NOT
    standings = {row.standing for row in rows if isinstance(row, Verdict)}
    if check and Standing.MISSED in standings:
        return MISSED
    return COULD_NOT if check and standings <= {Standing.UNMEASURED} else 0
