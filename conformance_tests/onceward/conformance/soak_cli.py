"""The command ``onceward soak``: real servers, killed at random, and a verdict on what they did."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import Annotated

import typer

from onceward.contracts import StoreError
from onceward.toolkit.cli.answers import Exit, answering, complain, say
from onceward.toolkit.cli.options import JsonOption
from onceward.toolkit.cli.output import print_fields, print_json
from onceward.toolkit.durations import parse_duration


@answering
def soak(
    target: Annotated[
        str,
        typer.Argument(
            help="A store's URL (sqlite:///x.db); or the name of a store, of which a server is started (memory, "
            "sqlite, redis, mongodb, etcd, zookeeper); or servers that copy each other (cluster://mongodb); "
            "or module:harness."
        ),
    ],
    servers: Annotated[int, typer.Option(min=1, help="So many server processes at a time.")] = 3,
    runs: Annotated[int, typer.Option(min=1, help="So many runs of mixed jobs.")] = 5_000,
    kills: Annotated[int, typer.Option(min=0, help="So many servers are killed, and replaced.")] = 10,
    pauses: Annotated[int, typer.Option(min=0, help="So many are stopped past their leases.")] = 0,
    messages: Annotated[
        bool, typer.Option("--messages", help="Lose and delay messages on the way to the store's server.")
    ] = False,
    lease: Annotated[str, typer.Option(metavar="TIME", help="Of every run.")] = "3s",
    patience: Annotated[str, typer.Option(metavar="TIME", help="Nothing ends for so long: it is stuck.")] = "60s",
    seed: Annotated[int, typer.Option(min=0, help="Decides the mix, the victims and the moments.")] = 0,
    as_json: JsonOption = False,
) -> Exit:
    """Run real job servers on a store, kill them at random, and judge: did every run end once, within its limits?

    Exit codes: 0 every promise was kept, 1 one was broken or something is stuck, 2 it could not be run.
    """
    import msgspec

    from onceward.conformance.engine.soak import SoakPlan
    from onceward.conformance.engine.soak import soak as soak_store
    from onceward.conformance.engine.verdict import shown
    from onceward.conformance.harness import load_target

    plan = SoakPlan(
        servers=servers,
        runs=runs,
        kills=kills,
        pauses=pauses,
        messages=messages,
        lease=parse_duration(lease, field="--lease"),
        patience=parse_duration(patience, field="--patience"),
        seed=seed,
    )
    sys.path.insert(0, os.getcwd())  # where an author's own harness is
    try:
        harness = load_target(target)
    except StoreError as error:
        complain(error)
        return Exit.USAGE
    with closing(harness):
        report = soak_store(harness, plan, on_progress=_Lines(runs))
    if as_json:
        print_json({"ok": report.ok, **msgspec.to_builtins(report)})
        return Exit.OK if report.ok else Exit.NO
    judged = report.judged
    print_fields(
        [
            ("runs", f"{judged.runs:,}, of which {report.stuck:,} did not end"),
            ("bodies that began", f"{judged.bodies:,}"),
            ("taken over", f"{judged.takeovers:,}"),
            *((fault, f"{times:,}") for fault, times in sorted(report.faults.items())),
            ("leases lost by a slow machine", f"{judged.starved:,}"),
            ("took", f"{report.seconds:.1f} s"),
        ]
    )
    for problem in shown(judged.problems):
        say(f"Broken: {problem}")
    say("Every run ended once, within its limits, in its order." if report.ok else "NOT every promise was kept.")
    return Exit.OK if report.ok else Exit.NO


class _Lines:
    """Progress, a line whenever a tenth more has ended."""

    def __init__(self, runs: int) -> None:
        self._runs, self._next = runs, 0.9

    def __call__(self, left: int) -> None:
        if left <= self._runs * self._next:
            say(f"{left:,} left ...")
            self._next = left / self._runs - 0.1
