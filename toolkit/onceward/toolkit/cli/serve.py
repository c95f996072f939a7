"""Commands of the job server: ``serve``, ``run``, ``jobs``, ``enable``, ``disable``, ``retry``, ``discard``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from onceward.contracts import InvalidRequest, Json, Run, RunId, Runner, RunQuery, Status, parse
from onceward.toolkit.cli.answers import Exit, answering, say
from onceward.toolkit.cli.durations import short
from onceward.toolkit.cli.options import JsonOption, NamespaceOption, Place, RunnerOption, open_place
from onceward.toolkit.cli.output import moment, print_json, print_table, run_fields
from onceward.toolkit.durations import parse_duration

if TYPE_CHECKING:
    from onceward.toolkit.server.configs import JobConfig

_STATES = (Status.SCHEDULED, Status.RUNNING, Status.SUCCEEDED, Status.FAILED)
JobArgument = Annotated[str, typer.Argument(help="The job.", show_default=False)]


@answering
def serve(
    context: typer.Context,
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE...", help="Where the jobs are: modules (shop.jobs), folders or files.", show_default=False
        ),
    ],
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="So many runs at a time.")] = 1,
    per_job: Annotated[
        int | None, typer.Option(min=1, help="So many of one job that does not say otherwise. Default: --concurrency.")
    ] = None,
    deadline: Annotated[str, typer.Option(metavar="TIME", help="How long a shutdown may take.")] = "30s",
    schedules: Annotated[bool, typer.Option("--schedules/--no-schedules", help="Submit what schedules say.")] = True,
    plugins: Annotated[bool, typer.Option("--plugins", help="Also jobs that installed packages offer.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what is wrong.")] = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Work: run the jobs of these modules, until SIGTERM or Ctrl-C. Start as many as you like.

    The first signal lets what runs end, up to --deadline; a second one does not wait. Exit code 1: something was given
    back unfinished, or left to lapse.
    """
    from onceward.toolkit.server import JobServer
    from onceward.toolkit.server.scanner import plugin_jobs

    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    place = context.find_object(Place) or Place()
    server = JobServer.create(
        runner if runner is not None else place.runner,
        [*modules, *(plugin_jobs() if plugins else [])],
        namespace=namespace if namespace is not None else place.namespace,
        max_concurrency=concurrency,
        default_concurrency=per_job or concurrency,
        shutdown_deadline=parse_duration(deadline, field="--deadline"),
        submit_schedules=schedules,
    )
    names = ", ".join(sorted(server.manager.jobs()))
    say(f"Serving {names} on {server.runner.url}, namespace {server.runner.namespace}.")
    report = server.run()
    return Exit.OK if report.clean else Exit.NO


@answering
def run(
    context: typer.Context,
    job: JobArgument,
    data: Annotated[str | None, typer.Option(metavar="JSON", help="What the job gets as ctx.data.")] = None,
    key: Annotated[str | None, typer.Option(help="What makes it unique; the same key never runs twice.")] = None,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="Not before so long from now: 10m.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Until it has ended; exit code 1 if it did not succeed.")
    ] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="With --wait: for at most so long.")] = "1h",
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Submit one run of a job; servers run it. Exit code 1: this key was known already, or (with --wait) it failed."""
    from onceward.toolkit.jobs import Launcher
    from onceward.toolkit.server.configs import Configs
    from onceward.toolkit.waiting import wait_for_end

    payload = _parsed(data)
    limit = parse_duration(timeout, field="--timeout")
    delay = None if after is None else parse_duration(after, field="--after")
    with open_place(context, runner, namespace, create=True) as place:
        config = Configs(place).get(job)
        if config is None:
            say(f"No server has known the job {job!r} so far; the run waits until one does.")
        launcher = Launcher(place.scheduler, lambda name: None if config is None else config.settings())
        launched = launcher.launch(job, payload, key=key, priority=priority, after=delay)
        found = wait_for_end(place, launched.run, limit) if wait else place.executor.check(launched.run)
    if found is None:
        say(f"{launched.run} has not ended in {timeout}.")
        return Exit.NO
    if as_json:
        print_json(run_fields(found))
    else:
        _say_run(found, new=launched.new)
    return Exit.OK if (found.status is Status.SUCCEEDED if wait else launched.new) else Exit.NO


@answering
def jobs(
    context: typer.Context,
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """List the jobs that servers have known: enabled or not, when they run, and how many runs there are."""
    from onceward.toolkit.server.configs import Configs, read

    with open_place(context, runner, namespace) as place:
        documents, counts, now = Configs(place).documents(), place.lifecycle.counts(), place.lifecycle.now()
    rows = []
    for name in sorted({*documents, *counts}):
        config = read(documents[name]) if name in documents else None
        if config is None and not counts[name].get(Status.SCHEDULED):
            continue  # runs of somebody else, not of a job server
        row = _job_fields(name, config, counts.get(name, {}), now)
        if as_json:
            print_json(row)
        else:
            rows.append([_cell(value) for value in row.values()])
    if rows:
        print_table(["job", "state", "schedule", "next", *map(str, _STATES)], rows)
    elif not as_json:
        say("No job is known here: start a server with onceward serve, or look at --runner and --namespace.")


@answering
def enable(
    context: typer.Context, job: JobArgument, runner: RunnerOption = None, namespace: NamespaceOption = None
) -> None:
    """Let a job's runs start again, on all servers. What its schedule missed meanwhile stays missed."""
    from onceward.toolkit.server.configs import Configs

    with open_place(context, runner, namespace) as place:
        Configs(place).enable(job)
    say(f"{job} is enabled.")


@answering
def disable(
    context: typer.Context, job: JobArgument, runner: RunnerOption = None, namespace: NamespaceOption = None
) -> None:
    """Start no further run of a job, on any server. Runs under way go on; what is due waits."""
    from onceward.toolkit.server.configs import Configs

    with open_place(context, runner, namespace) as place:
        Configs(place).disable(job)
    say(f"{job} is disabled.")


@answering
def retry(
    context: typer.Context,
    job: JobArgument,
    key: Annotated[str | None, typer.Argument(help="The failed run.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All failed runs of the job.")] = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Run failed runs again, with a fresh budget of attempts. Exit code 1: there was none."""
    from onceward.toolkit.server import dead_letters

    _one_or_all(key, every)
    with open_place(context, runner, namespace) as place:
        if key is None:
            number = dead_letters.retry_all(place, job)
        else:
            number = sum(dead_letters.retry(place, _failed(place, job, key)))
    say(f"{number} runs of {job} are due again.")
    return Exit.OK if number else Exit.NO


@answering
def discard(
    context: typer.Context,
    job: JobArgument,
    key: Annotated[str | None, typer.Argument(help="The failed run.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="All failed runs of the job.")] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is written down.")] = "discarded",
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Give failed runs up for good: they end as cancelled, with who and why. Exit code 1: there was none."""
    from onceward.toolkit.server import dead_letters

    _one_or_all(key, every)
    with open_place(context, runner, namespace) as place:
        if key is None:
            number = dead_letters.discard_all(place, job, reason=reason)
        else:
            number = int(dead_letters.discard(place, RunId(job, key), reason=reason))
    say(f"{number} runs of {job} are discarded.")
    return Exit.OK if number else Exit.NO


def _one_or_all(key: str | None, every: bool) -> None:
    if (key is None) != every:
        raise InvalidRequest("KEY", key, "either the key of one run, or --all")


def _failed(place: Runner, job: str, key: str) -> Sequence[Run]:
    return place.lifecycle.runs(RunQuery(job=job, key=key, statuses=frozenset({Status.FAILED}), stamp=""))


def _parsed(text: str | None) -> Json:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidRequest("--data", text, f"JSON ({error})") from None


def _say_run(run: Run, *, new: bool) -> None:
    took = "" if run.ended is None or run.started is None else f" after {short(run.ended - run.started)}"
    say(f"{run.id}: {run.status}{took}{'' if new else ' (it was known already)'}")
    if run.error is not None:
        say(f"  {run.error.type}: {run.error.message}")
    if run.result is not None:
        print_json(run_fields(run)["result"])


def _job_fields(name: str, config: JobConfig | None, counts: Mapping[Status, int], now: datetime) -> dict[str, object]:
    schedule = None if config is None else config.settings().schedule
    return {
        "job": name,
        "state": "unknown" if config is None else "enabled" if config.enabled else "disabled",
        "schedule": None if schedule is None else schedule.text,
        "next": None if schedule is None or config is None or not config.enabled else schedule.next_after(now),
        **{status.value: counts.get(status, 0) for status in _STATES},
    }


def _cell(value: object) -> str:
    return moment(value) if isinstance(value, datetime) else "" if value is None else str(value)
