"""The command ``demo``: several processes, one pile of orders, one of them killed; everything is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceward.toolkit.cli.answers import Exit, answering, say
from onceward.toolkit.cli.options import JsonOption, Place, RunnerOption
from onceward.toolkit.cli.output import console, print_fields, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from onceward.toolkit.demo_report import DemoProgress, DemoReport

#: Where nobody watches, progress is said this often: whenever so many per cent more are done.
_STEP = 20


@answering
def demo(
    context: typer.Context,
    orders: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Orders in JSON lines. Default: examples/orders.jsonl.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="So many processes.")] = 4,
    kill: Annotated[bool, typer.Option("--kill/--no-kill", help="Kill one of them in the middle of an order.")] = True,
    as_json: JsonOption = False,
    runner: RunnerOption = None,
) -> Exit:
    """Watch processes share 2,000 orders without doing one twice, while one of them is killed.

    Without --runner the store is a temporary SQLite file. Exit codes: 0 every order was checked out exactly once,
    1 some order was not, 2 it could not be run.
    """
    from onceward.toolkit.demo import DemoFailed, run_demo

    place = context.find_object(Place) or Place()
    url = runner if runner is not None else place.runner
    try:
        with _display() as show:
            report = run_demo(orders, url=url, workers=workers, kill=kill, on_progress=show)
    except DemoFailed as error:
        say(f"Error: {error}")
        return Exit.USAGE
    if as_json:
        print_json(report_fields(report))
    else:
        _print_report(report)
    return Exit.OK if report.ok else Exit.NO


def report_fields(report: DemoReport) -> dict[str, object]:
    """The report as JSON."""
    import msgspec

    fields: dict[str, object] = msgspec.to_builtins(report, str_keys=True)
    return {"ok": report.ok, "throughput": round(report.throughput, 1), **fields}


@contextmanager
def _display() -> Iterator[Callable[[DemoProgress], None]]:
    """Shows each progress on stderr: in place on a terminal, else a line now and then."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield _Lines()
        return
    from rich.live import Live

    with Live(console=screen, refresh_per_second=10) as live:
        yield lambda progress: live.update(_picture(progress))


class _Lines:
    """Progress as lines of text."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, progress: DemoProgress) -> None:
        share = 100 * progress.ended // max(progress.orders, 1)
        if share < self._next:
            return
        self._next = share - share % _STEP + _STEP
        say(f"{progress.ended:,} of {progress.orders:,} orders done, {progress.refused:,} duplicates refused")


def _picture(progress: DemoProgress) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Text(f"{progress.ended:,} of {progress.orders:,} orders   {progress.seconds:.1f} s")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("worker", "pid"):
        table.add_column(name)
    for name in ("orders done", "duplicates refused"):
        table.add_column(name, justify="right")
    table.add_column("")
    for worker in progress.workers:
        state = Text("working", "green") if worker.alive else Text("gone", "dim")
        if worker.killed:
            state = Text("killed (SIGKILL)", "bold red")
        table.add_row(str(worker.worker), str(worker.pid), f"{worker.ended:,}", f"{worker.refused:,}", state)
    bar = ProgressBar(total=max(progress.orders, 1), completed=progress.ended, width=60)
    return Group(head, bar, table, Text(_story(progress)))


def _story(progress: DemoProgress) -> str:
    if progress.killed is None:
        return ""
    if progress.takeovers:
        return f"A worker was killed in the middle of order {progress.killed}; another one took it over."
    return f"A worker was killed in the middle of order {progress.killed}; its lease is running out ..."


def _print_report(report: DemoReport) -> None:
    print_fields(
        [
            ("orders", f"{report.orders:,} ({report.completed:,} completed, {report.failed:,} failed as they should)"),
            (
                "workers",
                f"{report.workers}" + (f", one killed in the middle of {report.killed}" if report.killed else ""),
            ),
            ("admitted check-ins", f"{report.admitted:,}"),
            ("refused duplicates", f"{report.refused:,}"),
            ("takeovers", f"{report.takeovers:,}"),
            ("check-outs per order", _per_order(report.checkouts_per_order)),
            ("starts per order", _per_order(report.bodies_per_order)),
            ("throughput", f"{report.throughput:,.0f} orders per second, {report.seconds:.1f} s in all"),
        ]
    )
    for name, found in (("Checked out twice", report.twice), ("Not checked out", report.missing)):
        if found:
            say(f"{name}: {len(found):,}, for example {', '.join(found[:5])}")
    for problem in report.problems:
        say(f"Problem: {problem}")
    if report.ok:
        say("Every order was checked out exactly once.")


def _per_order(counts: Mapping[int, int]) -> str:
    """How many orders have how many, as in ``exactly 1: 2,000 orders``."""
    return ", ".join(f"exactly {times}: {orders:,} orders" for times, orders in counts.items())
