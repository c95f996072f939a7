"""Options that several commands share, and how a command comes to its runner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from onceward.contracts import Runner
from onceward.runners.factory import open_runner

RunnerOption = Annotated[
    str | None,
    typer.Option(
        "--runner",
        metavar="URL",
        help="The store: a URL such as sqlite:///jobs.db, or a TOML file. Default: ONCEWARD_RUNNER, "
        "else sqlite:///onceward.db.",
        show_default=False,
    ),
]
NamespaceOption = Annotated[
    str | None, typer.Option("--namespace", metavar="NAME", help="Which application's jobs.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where commands work unless they say otherwise themselves."""

    runner: str | None = None
    namespace: str | None = None


def open_place(context: typer.Context, runner: str | None, namespace: str | None, *, create: bool = False) -> Runner:
    """The runner that was asked for, here or before the command's name, is open.

    Unless ``create`` says so, none is made: what a command looks at or changes is there already, or the path is wrong.
    """
    place = context.find_object(Place) or Place()
    return open_runner(
        runner if runner is not None else place.runner,
        namespace=namespace if namespace is not None else place.namespace,
        create=create,
    )
