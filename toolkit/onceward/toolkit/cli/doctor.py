"""The command ``doctor``: is everything well, here, in the store, and with the jobs?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from onceward.contracts import OncewardError, StoreUnavailable
from onceward.runners.factory import kind_of
from onceward.toolkit.cli.answers import Exit, answering, complain
from onceward.toolkit.cli.options import JsonOption, NamespaceOption, Place, RunnerOption, open_place
from onceward.toolkit.cli.output import print_json, visible
from onceward.toolkit.durations import parse_duration

if TYPE_CHECKING:
    from onceward.toolkit.doctor import Finding


@answering
def doctor(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(metavar="[URL]", help="The store, as --runner takes it, or a TOML file.", show_default=False),
    ] = None,
    late: Annotated[str, typer.Option(metavar="TIME", help="What is due for longer waits too long.")] = "5m",
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Say whether everything is well: what is installed, the store and its clock, servers, queue, schedules, failures.

    Changes nothing. Exit codes: 0 all is well (also with notes), 1 something is wrong, 2 it could not be asked like
    this, 3 the store is not available.
    """
    from onceward.toolkit.doctor import State, environment, store
    from onceward.toolkit.doctor import namespace as of_namespace

    patience = parse_duration(late, field="--late")
    place = context.find_object(Place) or Place()
    source = next((each for each in (url, runner, place.runner) if each is not None), None)
    found: list[Finding] = []
    problem: OncewardError | None = None
    try:
        found += environment(kind_of(source))
        with open_place(context, source, namespace) as opened:
            found += store(opened)
            if found[-1].about == "store":  # it stopped answering
                raise StoreUnavailable(found[-1].text)
            found += of_namespace(opened, late=patience)
    except OncewardError as error:
        problem = error
        found = found or list(environment())
    _show(found, problem, as_json=as_json)
    if problem is not None:
        return complain(problem)
    return Exit.NO if any(each.state is State.WRONG for each in found) else Exit.OK


def _show(found: list[Finding], problem: OncewardError | None, *, as_json: bool) -> None:
    if as_json:
        checks = [
            {"about": each.about, "state": each.state, "text": each.text, "facts": dict(each.facts)} for each in found
        ]
        well = problem is None and all(each.state != "wrong" for each in found)
        print_json({"ok": well, "error": None if problem is None else str(problem), "checks": checks})
        return
    width = max(len(each.about) for each in found)
    for each in found:
        print(f"{each.state:<5}  {each.about:<{width}}  {visible(each.text)}")  # noqa: T201  this is the command line
