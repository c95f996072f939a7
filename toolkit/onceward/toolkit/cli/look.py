"""Commands that only look: ``runs``, ``show``, ``locks``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer
from msgspec.structs import replace

from onceward.contracts import InvalidRequest, Lifecycle, LockId, LockState, Run, RunQuery, Status, canonical
from onceward.contracts.records import stamp_text
from onceward.toolkit.cli.answers import Exit, answering, say
from onceward.toolkit.cli.durations import parse_moment, short
from onceward.toolkit.cli.options import JsonOption, NamespaceOption, RunnerOption, open_place
from onceward.toolkit.cli.output import (
    lock_fields,
    moment,
    print_fields,
    print_json,
    print_table,
    run_fields,
)

_PAGE = 1_000


@answering
def runs(
    context: typer.Context,
    job: Annotated[str | None, typer.Option(help="Only this job.")] = None,
    status: Annotated[list[Status] | None, typer.Option(help="Only runs in this status; may be repeated.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Only runs created since: 24h, 7d, or 2026-01-31T12:00Z.")
    ] = None,
    lapsed: Annotated[bool, typer.Option("--lapsed", help="Only running ones whose lease has run out.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """List runs, the newest first; with --json one document per line."""
    with open_place(context, runner, namespace) as place:
        now = place.lifecycle.now()
        start = None if since is None else parse_moment(since, now=now, field="--since")
        query = RunQuery(job=job, statuses=frozenset(status or Status), lapsed=lapsed, limit=min(limit, _PAGE))
        found = _first(place.lifecycle, query, limit=limit, start=start)
        if as_json:
            for run in found:
                print_json(run_fields(run))
            return
        rows = [_row(run, now) for run in found]
    if rows:
        print_table(["job", "key", "status", "attempt", "started", "took", "holder / error"], rows)
    else:
        say(f"No run matches in {place.url}, namespace {place.namespace}.")


@answering
def show(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The job.")],
    key: Annotated[str, typer.Argument(help="The run's key.")],
    stamp: Annotated[
        str | None, typer.Option(metavar="JSON", help="The run's stamp, where several runs share job and key.")
    ] = None,
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> Exit:
    """Show everything about one run, with its attempts. Exit code 1: there is no such run."""
    with open_place(context, runner, namespace) as place:
        query = RunQuery(job=job, key=key, stamp=None if stamp is None else parse_stamp(stamp))
        found = place.lifecycle.runs(query)
        now = place.lifecycle.now()
    if not found:
        say(f"There is no run {job}/{key} in {place.url}, namespace {place.namespace}.")
        return Exit.NO
    if len(found) > 1:
        stamps = " or ".join(f"--stamp '{run.id.stamp or '{}'}'" for run in found)
        raise InvalidRequest("--stamp", stamp, f"one of the stamps under which this run exists: {stamps}")
    if as_json:
        print_json(run_fields(found[0]))
    else:
        _print_run(found[0], now)
    return Exit.OK


@answering
def locks(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those by which job servers say that they live.")] = False,
    as_json: JsonOption = False,
    runner: RunnerOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """List the locks that are held, also lapsed ones that nobody has taken since; with --json one per line."""
    from onceward.toolkit.server.presence import is_server

    with open_place(context, runner, namespace) as place:
        found = [lock for lock in place.lifecycle.locks() if every or not is_server(lock)]
    if as_json:
        for lock in found:
            print_json(lock_fields(lock))
    elif found:
        print_table(["lock", "holder", "token", "acquired", "lapses in", "note"], [_lock_row(lock) for lock in found])
    else:
        say(f"No lock is held in {place.url}, namespace {place.namespace}.")


def parse_stamp(text: str) -> str:
    """The canonical text of a stamp that somebody typed.

    Raises:
        InvalidRequest: it is no JSON object of plain values.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("--stamp", text, 'a JSON object, for example \'{"app": "shop"}\'')
    return stamp_text(found)


def _first(lifecycle: Lifecycle, query: RunQuery, *, limit: int, start: datetime | None) -> Iterator[Run]:
    """Up to ``limit`` runs, the newest first, until they were created before ``start``."""
    while limit > 0:
        page = lifecycle.runs(query)
        for run in page[:limit]:
            if start is not None and run.created < start:
                return
            yield run
        if len(page) < query.limit:
            return
        limit -= len(page)
        query = replace(query, after=page[-1].sequence)


def _row(run: Run, now: datetime) -> Sequence[str]:
    detail = run.lease.holder if run.lease else ""
    if run.error is not None:
        detail = f"{run.error.type}: {run.error.message}"
    return [run.job, run.key, _status(run, now), str(run.attempt), moment(run.started), _took(run, now), detail]


def _status(run: Run, now: datetime) -> str:
    if run.status is Status.SCHEDULED:
        return f"scheduled {moment(run.run_at)}" if run.run_at > now else "scheduled (due)"
    expires = run.lease.expires if run.lease else None
    return f"{run.status} (lapsed)" if expires is not None and expires <= now else str(run.status)


def _took(run: Run, now: datetime) -> str:
    if run.started is None:
        return ""
    return short((run.ended or max(now, run.started)) - run.started)


def _lock_row(lock: LockState) -> Sequence[str]:
    assert isinstance(lock.lease.resource, LockId)  # the listing is of locks
    left = "never" if lock.remaining is None else short(lock.remaining)
    if lock.remaining is not None and lock.remaining <= timedelta(0):
        left = "lapsed"
    lease = lock.lease
    return [lock.lease.resource.name, lease.holder, str(lease.token), moment(lock.acquired), left, lock.note or ""]


def _print_run(run: Run, now: datetime) -> None:
    pairs = [
        ("job", run.job),
        ("key", run.key),
        ("stamp", run.id.stamp),
        ("status", _status(run, now)),
        ("created", moment(run.created)),
        ("run at", moment(run.run_at)),
        ("started", moment(run.started)),
        ("ended", moment(run.ended)),
        ("took", _took(run, now)),
        ("attempts", f"{run.attempt} ({run.failures} failed, {run.crashes} abandoned)"),
        ("token", str(run.token)),
        ("holder", run.lease.holder if run.lease else ""),
        ("lease until", moment(run.lease.expires) if run.lease else ""),
        ("cancel", "requested" if run.cancel_requested else ""),
        ("progress", _progress(run)),
        ("payload", "" if run.payload is None else canonical(run.payload)),
        ("result", "" if run.result is None else canonical(run.result)),
        ("error", f"{run.error.type}: {run.error.message}" if run.error else ""),
    ]
    print_fields((name, value) for name, value in pairs if value)
    if run.attempts:
        _print_attempts(run)


def _progress(run: Run) -> str:
    if run.progress is None:
        return ""
    total = "" if run.progress.total is None else f" of {run.progress.total}"
    return f"{run.progress.done}{total} {run.progress.message}".strip()


def _print_attempts(run: Run) -> None:
    rows = [
        [
            f"{attempt.number}{' (takeover)' if attempt.takeover else ''}",
            str(attempt.token),
            moment(attempt.started),
            moment(attempt.ended),
            str(attempt.ending or "running"),
            attempt.holder,
            f"{attempt.error.type}: {attempt.error.message}" if attempt.error else "",
        ]
        for attempt in run.attempts
    ]
    print_table(["attempt", "token", "started", "ended", "ending", "holder", "error"], rows)
