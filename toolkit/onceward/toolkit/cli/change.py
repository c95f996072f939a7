"""Commands that change the store: ``unlock`` and ``purge``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

import typer
from msgspec.structs import replace

from onceward.contracts import InvalidRequest, Lifecycle, LockId, Purge, RunId, RunQuery, Status
from onceward.toolkit.audit import AUDIT_JOB, force_unlock
from onceward.toolkit.cli.answers import Exit, answering, say
from onceward.toolkit.cli.durations import short
from onceward.toolkit.cli.look import parse_stamp
from onceward.toolkit.cli.options import JsonOption, NamespaceOption, RunnerOption, open_place
from onceward.toolkit.cli.output import interactive, lease_fields, moment, print_json
from onceward.toolkit.durations import parse_duration

_BATCH = 1_000
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@answering
def unlock(
    context: typer.Context,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is written down.")],
    name: Annotated[str | None, typer.Argument(help="The lock.", show_default=False)] = None,
    run: Annotated[
        tuple[str, str] | None, typer.Option("--run", metavar="JOB KEY", help="Not a lock but this run.")
    ] = None,
    stamp: Annotated[str | None, typer.Option(metavar="JSON", help="With --run: the run's stamp.")] = None,
    token: Annotated[int | None, typer.Option(min=0, help="Only if this is still its newest token.")] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Take a lock (or a run) away from its holder, who is fenced off from then on. Exit code 1: nobody held it.

    The work of the old holder may go on for a while, but nothing that carries its token is accepted any more. Who did
    this, when and why is written down as a run of the job "onceward:audit".
    """
    resource = _resource(name, run, stamp)
    with open_place(context, runner, namespace) as place:
        if not yes and not _confirmed(f"Take {resource} away from its holder?"):
            return Exit.USAGE
        taken = force_unlock(place, resource, reason=reason, token=token)
    if as_json:
        print_json({"resource": str(resource), "unlocked": taken is not None} | (lease_fields(taken) if taken else {}))
    elif taken is not None:
        until = f", lease until {moment(taken.expires)}" if taken.expires else ""
        say(f"Taken from {taken.holder} (token {taken.token}{until}). See: onceward runs --job {AUDIT_JOB}")
    else:
        say(f"Nobody holds {resource}{'' if token is None else f' with token {token}'}. Nothing was changed.")
    return Exit.OK if taken is not None else Exit.NO


@answering
def purge(
    context: typer.Context,
    older_than: Annotated[str, typer.Option(metavar="TIME", help="Ended so long ago: 24h, 7d.")],
    job: Annotated[str | None, typer.Option(help="Only this job.")] = None,
    status: Annotated[
        list[Status] | None, typer.Option(help="succeeded, failed or cancelled; may be repeated. Default: all three.")
    ] = None,
    keep_last: Annotated[int, typer.Option(min=0, help="Keep so many of the latest of each job.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Delete records of ended runs, never of live ones; without --job those of the audit, too.

    A key whose record is gone may be admitted again: how long records are kept is how long duplicates are known.
    """
    age = parse_duration(older_than, field="--older-than")
    statuses = frozenset(status) if status else Purge(older_than=age).statuses
    request = Purge(older_than=age, job=job, statuses=statuses, keep_last=keep_last, limit=_BATCH)
    if dry_run and keep_last:
        raise InvalidRequest("--dry-run", "--keep-last", "one of the two")
    with open_place(context, runner, namespace) as place:
        if dry_run:
            number = _count(place.lifecycle, request)
        else:
            of = f"of job {job!r}" if job is not None else "of all jobs"
            if not yes and not _confirmed(f"Delete records {of} that ended more than {short(age)} ago?"):
                return Exit.USAGE
            number = 0
            for number in _purge(place.lifecycle, request):
                if interactive():
                    say(f"{number} deleted ...")
    if as_json:
        print_json({"matching" if dry_run else "deleted": number})
    else:
        say(f"{number} runs would be deleted." if dry_run else f"{number} runs deleted.")
    return Exit.OK


def _resource(name: str | None, run: tuple[str, str] | None, stamp: str | None) -> LockId | RunId:
    if run is not None and name is None:
        return RunId(*run, stamp="" if stamp is None else parse_stamp(stamp))
    if name is not None and run is None and stamp is None:
        return LockId(name)
    raise InvalidRequest("NAME", name, "either the name of a lock, or --run JOB KEY (and its --stamp)")


def _confirmed(question: str) -> bool:
    """True if a person said yes; without a person to ask, it takes ``--yes``."""
    if not interactive():
        say(f"{question} There is nobody to ask: add --yes.")
        return False
    return typer.confirm(question, err=True)


def _purge(lifecycle: Lifecycle, request: Purge) -> Iterator[int]:
    """Batch after batch is gone; the total after each."""
    total = 0
    while True:
        gone = lifecycle.purge(request)
        total += gone
        yield total
        if gone < request.limit:
            return


def _count(lifecycle: Lifecycle, request: Purge) -> int:
    """How many runs match, without touching them."""
    latest = lifecycle.now() - request.older_than if request.older_than < timedelta(days=36_500) else None
    query = RunQuery(job=request.job, statuses=request.statuses, limit=_BATCH, oldest_first=True)
    number = 0
    while True:
        page = lifecycle.runs(query)
        number += sum(latest is not None and run.ended is not None and run.ended <= latest for run in page)
        if len(page) < _BATCH:
            return number
        query = replace(query, after=page[-1].sequence)
