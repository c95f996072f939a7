"""Commands of other packages: entry points in the group ``onceward.commands``, imported only when they are called.

An entry point is the command's name and a function with typer's annotations, for example
``conform = "onceward.conformance.cli:conform"``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points

import typer

from onceward.toolkit.cli.answers import Exit, answering, say

GROUP = "onceward.commands"

_SUMMARIES = {
    "bench": "Measure stores side by side, against the raw driver's one round trip.",
    "conform": "Prove (or disprove) that a store keeps its promises.",
    "soak": "Run real job servers on a store, kill them at random, and judge what they did.",
}


def add_commands(app: typer.Typer) -> None:
    """Every installed command is known to the app by its name."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        app.command(
            point.name,
            help=_SUMMARIES.get(point.name, f"See: onceward {point.name} --help"),
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_forward(point))


def _forward(point: EntryPoint) -> Callable[[typer.Context], None]:
    @answering
    def forward(context: typer.Context) -> int | None:
        try:
            return _call(point, context)
        except ImportError as error:
            missing = error.name or ""
            if missing.startswith("onceward.") and not point.module.startswith(missing):
                raise  # a defect of ours, not something to install
            say(f"Error: the command {point.name!r} needs more than is installed here ({error}).")
            say(f"Install it with: pip install '{_requirement(point)}'")
            return Exit.USAGE

    return forward


def _call(point: EntryPoint, context: typer.Context) -> int | None:
    """The command has run; the answer is its exit code, if it gave one."""
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command(point.name)(point.load())
    code = typer.main.get_command(command).main(
        args=list(context.args), prog_name=context.command_path, standalone_mode=False, obj=context.obj
    )
    return code if isinstance(code, int) else None


def _requirement(point: EntryPoint) -> str:
    """What to install: of our own packages the extra that has the package's name."""
    parts = point.module.split(".")
    if parts[0] == "onceward" and len(parts) > 1:
        return f"onceward[{parts[1]}]"
    return point.dist.name if point.dist is not None else parts[0]
