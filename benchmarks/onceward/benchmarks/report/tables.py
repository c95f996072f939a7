"""The rows as tables in a terminal, and as plain text."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from onceward.benchmarks.records import (
    Absent,
    Broken,
    Comparison,
    End,
    Environment,
    Footprint,
    Growth,
    Idle,
    Result,
    Role,
    Row,
    Standing,
    Verdict,
)
from onceward.benchmarks.report import wording

#: Of text that no terminal bounds.
WIDTH = 110
_COLOUR = {
    Standing.MET: "green",
    Standing.MISSED: "red",
    Standing.PARTLY: "yellow",
    Standing.UNMEASURED: "dim",
}

Kind = TypeVar("Kind", bound=Row)


def of(kind: type[Kind], rows: Sequence[Row]) -> list[Kind]:
    """The rows of one kind."""
    return [row for row in rows if isinstance(row, kind)]


def printed(rows: Sequence[Row], console: Console) -> None:
    """Everything that was measured stands on the console."""
    for part in _parts(rows):
        console.print(part)


def text(rows: Sequence[Row]) -> str:
    """Everything that was measured, as plain text."""
    console = Console(file=io.StringIO(), width=WIDTH, no_color=True, highlight=False)
    printed(rows, console)
    assert isinstance(console.file, io.StringIO)  # two lines above
    return console.file.getvalue()


def _parts(rows: Sequence[Row]) -> Iterator[RenderableType]:
    for environment in of(Environment, rows):
        yield escape(wording.environment(environment))
    if results := of(Result, rows):
        yield _results(results)
        yield escape(wording.EXPLAINED)
    if comparisons := of(Comparison, rows):
        yield _comparisons(comparisons)
    if any(isinstance(row, Growth | Footprint | Idle) for row in rows):
        yield _long_runs(rows)
    for note in dict.fromkeys(f"{row.contestant}: {row.note}" for row in results if row.note):
        yield escape(note)
    for absent in of(Absent, rows):
        yield f"[yellow]not measured:[/] {escape(absent.contestant)} is not installed ({escape(absent.install)})"
    for broken in of(Broken, rows):
        yield f"[red]failed:[/] {escape(broken.measure)}: {escape(broken.reason)}"
    if verdicts := of(Verdict, rows):
        yield _verdicts(verdicts)
    for end in of(End, rows):
        yield escape(wording.end(end))


def _results(results: Sequence[Result]) -> Table:
    table = Table("", title="Rates and latencies", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("per second", "p10–p90", "p50 µs", "p99 µs", "of raw"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading, group in itertools.groupby(results, key=_heading):
        table.add_row(f"[bold]{escape(heading)}[/]")
        for row in group:
            table.add_row(
                escape(f"  {row.contestant}" + ("" if row.length is None else f", {wording.short(row.length)} queued")),
                wording.rate(row.rate),
                wording.between(row.rate),
                wording.micros(row.p50_us),
                wording.micros(row.p99_us),
                wording.ratio(row.ratio),
                style=None if row.role is Role.RUNNER else "dim",
            )
    return table


def _heading(row: Result) -> str:
    return wording.measure(row) + wording.unfinished(row)


def _comparisons(rows: Sequence[Comparison]) -> Table:
    table = _table("in the same rounds", "contestant", "against", "measured")
    for row in rows:
        what = row.title + wording.unfinished(row)
        table.add_row(what, escape(row.contestant), escape(row.against), f"{wording.ratio(row.ratio)} times as fast")
    return table


def _long_runs(rows: Sequence[Row]) -> Table:
    table = _table("over the long run", "contestant", "measured")
    for growth in of(Growth, rows):
        what = f"cost of a claim, {growth.longest:,} queued against {growth.shortest:,}" + wording.unfinished(growth)
        table.add_row(what, escape(growth.contestant), f"{wording.ratio(growth.factor)} times as much")
    for size in of(Footprint, rows):
        what = f"memory over {size.points[-1].done:,} {size.what}" + wording.unfinished(size)
        table.add_row(what, escape(size.contestant), wording.footprint(size))
    for idle in of(Idle, rows):
        table.add_row(f"idle job server, {idle.seconds:.0f} s", escape(idle.contestant), wording.idle(idle))
    return table


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    table = _table("target", "contestant", "measured", "verdict")
    for row in verdicts:
        colour = _COLOUR[row.standing]
        table.add_row(row.target, escape(row.contestant), wording.verdict(row), f"[{colour}]{row.standing}[/]")
    return table


def _table(*headings: str) -> Table:
    return Table(*headings, box=box.SIMPLE_HEAD, pad_edge=False)
