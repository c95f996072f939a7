"""The command ``onceward conform``: a store's certificate, with live progress."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceward.conformance.disturb import Faults
from onceward.contracts import InvalidRequest, StoreError
from onceward.runners.factory import open_runner
from onceward.toolkit.cli.answers import Exit, answering, complain
from onceward.toolkit.cli.options import JsonOption
from onceward.toolkit.cli.output import console
from onceward.toolkit.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from onceward.conformance.certificate import Certificate
    from onceward.conformance.harness import Harness


@answering
def conform(
    target: Annotated[
        str,
        typer.Argument(
            help="A store's URL (sqlite:///x.db, memory://), or module:harness, or servers that are started for it: "
            "redis, mongodb, etcd, zookeeper, "
            "cluster://mongodb, cluster://etcd, cluster://zookeeper, cluster://redis-sentinel, cluster://redis-cluster "
            "(or one server: cluster://mongodb-alone, cluster://redis-alone)."
        ),
    ],
    profile: Annotated[
        list[str] | None,
        typer.Option(help="Only this list of promises; may be repeated. Default: all that the store declares."),
    ] = None,
    budget: Annotated[str, typer.Option(metavar="TIME", help="How long to try: 60s, 10m.")] = "60s",
    seed: Annotated[int | None, typer.Option(min=0, help="Try the same again as a run with this seed.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write certificate.json, report.txt and report.html there.")
    ] = None,
    faults: Annotated[
        Faults,
        typer.Option(
            help="messages: they are lost, late and repeated on the way to a server. server: leaders and followers of "
            "a cluster://... are killed, paused and restarted. none: nothing is disturbed."
        ),
    ] = Faults.MESSAGES,
    as_json: JsonOption = False,
) -> Exit:
    """Prove (or disprove) that a store keeps its promises.

    Exit codes: 0 conformant, 1 a promise was broken, 2 it could not be run, or not all of it.
    """
    from onceward.conformance.harness import load_target

    time = parse_duration(budget, field="--budget")
    sys.path.insert(0, os.getcwd())  # where an author's own harness is
    try:
        harness = load_target(target)
        _openable(target, harness, faults)
    except (InvalidRequest, StoreError) as error:
        complain(error)
        return Exit.USAGE
    with closing(harness):
        certificate = _examined(harness, profiles=profile, budget=time, seed=seed, out=out, faults=faults)
    if as_json:
        typer.echo(certificate.as_json())
    else:
        from onceward.conformance.report import render

        found = console()
        found.print(render(certificate), width=found.width if found.is_terminal else 160)
        if out is not None:
            typer.echo(f"Written to {out}: certificate.json, report.txt, report.html", err=True)
    return Exit(certificate.exit_code)


def _openable(target: str, harness: Harness, faults: Faults) -> None:
    """What a URL names can be opened; else it could not be examined, which is not a broken promise."""
    if faults is Faults.SERVER and harness.cluster() is None:
        raise InvalidRequest(
            "faults",
            faults.value,
            "messages or none for this target; server needs cluster://..., or a harness's cluster()",
        )
    if "://" in target and harness.cluster() is None:
        open_runner(target).close()


def _examined(
    harness: Harness,
    *,
    profiles: Sequence[str] | None,
    budget: timedelta,
    seed: int | None,
    out: Path | None,
    faults: Faults,
) -> Certificate:
    """The certificate; while it is made, stderr shows how far it is, if that is a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    from onceward.conformance.suite import run_suite

    screen = console(stderr=True)
    columns = (SpinnerColumn("line"), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as display:
        tasks: dict[str, TaskID] = {}

        def show(property_id: str, fraction: float) -> None:
            if property_id not in tasks:
                tasks[property_id] = display.add_task(property_id, total=1.0)
            display.update(tasks[property_id], completed=fraction)

        return run_suite(harness, profiles=profiles, budget=budget, seed=seed, out=out, progress=show, faults=faults)
