"""Answers on stdout: tables and text for people, JSON for programs; the same facts in both."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from onceward.contracts import Attempt, Json, Lease, LockId, LockState, Run, canonical

if TYPE_CHECKING:
    from rich.console import Console

Fields = Mapping[str, object]


def print_json(document: object) -> None:
    """One JSON document stands on one line of stdout."""
    print(json.dumps(document, ensure_ascii=False, default=_plain), flush=True)  # noqa: T201  this is the command line


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """A table stands on stdout; nothing is cut off when that is a file or a pipe."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console().print(table)


def print_fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values stand on stdout, one per line."""
    known = list(pairs)
    width = max(len(name) for name, _ in known)
    for name, value in known:
        print(f"{name:<{width}}  {visible(value)}")  # noqa: T201  this is the command line


def console(*, stderr: bool = False) -> Console:
    """A console for stdout or stderr, wide enough for everything where it is no terminal."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=10_000)


def interactive() -> bool:
    """True if a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def visible(text: str) -> str:
    """Text that cannot play tricks on a terminal: what is not printable is shown by its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def moment(at: datetime | None) -> str:
    """An instant for people, in UTC."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def data(value: Json) -> object:
    """A payload or result as it travels: the canonical JSON, dates marked as such."""
    found: object = json.loads(canonical(value))
    return found


def run_fields(run: Run) -> dict[str, object]:
    """All there is to know of a run, as JSON."""
    return {
        "job": run.job,
        "key": run.key,
        "stamp": json.loads(run.id.stamp) if run.id.stamp else None,
        "status": run.status,
        "attempt": run.attempt,
        "failures": run.failures,
        "crashes": run.crashes,
        "max_crashes": run.max_crashes,
        "priority": run.priority,
        "run_at": run.run_at,
        "created": run.created,
        "started": run.started,
        "ended": run.ended,
        "token": run.token,
        "lease": None if run.lease is None else lease_fields(run.lease),
        "cancel_requested": run.cancel_requested,
        "progress": None if run.progress is None else _struct(run.progress),
        "error": None if run.error is None else _struct(run.error),
        "payload": data(run.payload),
        "result": data(run.result),
        "attempts": [_attempt(attempt) for attempt in run.attempts],
    }


def lock_fields(lock: LockState) -> dict[str, object]:
    """All there is to know of a held lock, as JSON."""
    assert isinstance(lock.lease.resource, LockId)  # the listing is of locks
    remaining = None if lock.remaining is None else round(lock.remaining.total_seconds() * 1000)
    return {
        "name": lock.lease.resource.name,
        **lease_fields(lock.lease),
        "acquired": lock.acquired,
        "remaining_ms": remaining,
        "lapsed": remaining is not None and remaining <= 0,
        "note": lock.note,
    }


def lease_fields(lease: Lease) -> dict[str, object]:
    """A lease, as JSON."""
    duration = None if lease.duration is None else round(lease.duration.total_seconds() * 1000)
    return {"holder": lease.holder, "token": lease.token, "lease_ms": duration, "expires": lease.expires}


def _attempt(attempt: Attempt) -> dict[str, object]:
    fields = _struct(attempt)
    return {name: fields[name] for name in fields if name not in ("request", "checkout")}


def _struct(record: object) -> dict[str, object]:
    import msgspec

    found = msgspec.to_builtins(record, builtin_types=(datetime,))
    assert isinstance(found, dict)  # that is what a struct becomes
    return found


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is no JSON")
