"""The command line's commands and global options."""

from __future__ import annotations

from typing import Annotated

import typer

from onceward.toolkit import versions
from onceward.toolkit.cli import change, demo, doctor, look, serve
from onceward.toolkit.cli.answers import EXIT_CODES, answering
from onceward.toolkit.cli.options import JsonOption, NamespaceOption, Place, RunnerOption
from onceward.toolkit.cli.output import print_json
from onceward.toolkit.cli.plugins import add_commands
from onceward.toolkit.cli.schedule import build_schedule


def build() -> typer.Typer:
    """The app, with the commands of all installed packages."""
    app = typer.Typer(
        help="Jobs that run exactly once across many processes, on the store that you have.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_start)
    app.command()(demo.demo)
    app.command()(serve.serve)
    app.command()(serve.run)
    app.command()(serve.jobs)
    app.command()(serve.enable)
    app.command()(serve.disable)
    app.command()(serve.retry)
    app.command()(serve.discard)
    app.command()(doctor.doctor)
    app.command()(look.runs)
    app.command()(look.show)
    app.command()(look.locks)
    app.command()(change.unlock)
    app.command()(change.purge)
    app.add_typer(build_schedule(), name="schedule")
    app.command()(version)
    add_commands(app)
    return app


@answering
def version(as_json: JsonOption = False) -> None:
    """Say which version of Onceward this is."""
    if as_json:
        print_json({"onceward": versions.of_onceward()})
    else:
        print(versions.of_onceward())  # noqa: T201  this is the command line


def _show_version(wanted: bool) -> None:
    if wanted:
        print(versions.of_onceward())  # noqa: T201  this is the command line
        raise typer.Exit


def _start(
    context: typer.Context,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Say which version this is.")
    ] = False,
) -> None:
    context.obj = Place(runner=runner, namespace=namespace)
