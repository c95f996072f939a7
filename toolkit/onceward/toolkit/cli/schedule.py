"""Commands that need no store: ``schedule explain`` and ``schedule preview``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from onceward.toolkit.cli.answers import Exit, answering, say
from onceward.toolkit.cli.durations import parse_moment
from onceward.toolkit.cli.options import JsonOption
from onceward.toolkit.cli.output import moment, print_fields, print_json, print_table
from onceward.toolkit.schedules import Fold, Gap, Schedule, parse

_When = Annotated[
    str, typer.Argument(metavar="EXPR", help="A schedule, in quotes: '*/5 * * * *', 'at 9:30 on weekdays', '@daily'.")
]
_Zone = Annotated[str, typer.Option("--timezone", "-z", metavar="ZONE", help="By whose clock: an IANA zone.")]
_Start = Annotated[str | None, typer.Option("--start", metavar="WHEN", help="Nothing before: 2026-01-31T12:00Z.")]
_End = Annotated[str | None, typer.Option("--end", metavar="WHEN", help="Nothing after.")]
_Gap = Annotated[Gap | None, typer.Option("--gap", help="What becomes of times that the clock skips.")]
_Fold = Annotated[Fold | None, typer.Option("--fold", help="What becomes of times that the clock shows twice.")]


def build_schedule() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(help="Look at schedules, without a store.", no_args_is_help=True)
    group.command()(explain)
    group.command()(preview)
    return group


@answering
def explain(
    when: _When,
    timezone: _Zone = "UTC",
    start: _Start = None,
    end: _End = None,
    gap: _Gap = None,
    fold: _Fold = None,
    as_json: JsonOption = False,
) -> None:
    """Say in words what a schedule means, and what happens when clocks are changed."""
    schedule = _parse(when, timezone, start, end, gap, fold)
    upcoming = schedule.preview(1)
    if as_json:
        following = upcoming[0] if upcoming else None
        print_json({**schedule.to_dict(), "explanation": schedule.explain(), "next": following})
        return
    pairs = [
        ("schedule", schedule.text),
        ("timezone", schedule.timezone),
        ("meaning", schedule.explain()),
        ("next", f"{moment(upcoming[0].astimezone(UTC))} ({upcoming[0].isoformat()})" if upcoming else ""),
    ]
    print_fields((name, value) for name, value in pairs if value)


@answering
def preview(
    when: _When,
    timezone: _Zone = "UTC",
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="So many.")] = 5,
    after: Annotated[
        str | None, typer.Option("--after", metavar="WHEN", help="From then on: 2026-01-31T12:00Z. Default: now.")
    ] = None,
    start: _Start = None,
    end: _End = None,
    gap: _Gap = None,
    fold: _Fold = None,
    as_json: JsonOption = False,
) -> Exit:
    """List the next occurrences, by the zone's clock and in UTC. Exit code 1: there are none."""
    schedule = _parse(when, timezone, start, end, gap, fold)
    found = schedule.preview(count, _moment("--after", after))
    if as_json:
        for occurrence in found:
            print_json({"occurrence": occurrence.astimezone(UTC), "local": occurrence.isoformat()})
    elif found:
        rows = [[f"{each:%a %Y-%m-%d %H:%M:%S %z}", moment(each.astimezone(UTC))] for each in found]
        print_table([schedule.timezone, "UTC"], rows)
    if not found:
        say(f"There is no occurrence to list. {schedule.explain()}")
    return Exit.OK if found else Exit.NO


def _parse(
    when: str, timezone: str, start: str | None, end: str | None, gap: Gap | None, fold: Fold | None
) -> Schedule:
    first, last = _moment("--start", start), _moment("--end", end)
    return parse(when, timezone=timezone, start=first, end=last, gap=gap, fold=fold)


def _moment(option: str, text: str | None) -> datetime | None:
    return None if text is None else parse_moment(text, now=datetime.now(UTC), field=option)
