"""Runs as people of the oJob Director know them: one flat record, and four numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from onceward.contracts import Attempt, Failure, Json, Run, Status, parse
from onceward.contracts.records import Record
from onceward.contracts.times import to_ms


def seed_view(run: Run) -> dict[str, Json]:
    """The run as one flat mapping: the stamp's fields, name, uuid, status, timestamp, and the result once it ended.

    ``timestamp`` is when it was started last (in ms since 1970). ``result`` is absent while it runs; a failure without
    a result of its own shows as ``{"success": False, "error": message}``.
    """
    view: dict[str, Json] = {**_stamp(run), "name": run.job, "uuid": run.key, "status": run.status.value}
    view["timestamp"] = to_ms(run.started or run.created)
    if run.status.ended:
        view["result"] = _result(run)
    if run.error is not None:
        view["error"] = run.error.message
    if run.progress is not None:
        view["progress"] = {
            "total": run.progress.total, "done": run.progress.done, "message": run.progress.message,
        }  # fmt: skip
    view["attempts"] = [_attempt(attempt) for attempt in run.attempts]
    return view


def _stamp(run: Run) -> Mapping[str, Json]:
    if not run.id.stamp:
        return {}
    stamp = parse(run.id.stamp)
    assert isinstance(stamp, Mapping)  # checks.stamp let nothing else pass
    return stamp


def _result(run: Run) -> Json:
    if run.status is Status.FAILED and run.result is None:
        return {"success": False, "error": run.error.message if run.error else ""}
    return run.result


def _attempt(attempt: Attempt) -> dict[str, Json]:
    return {
        "n": attempt.number,
        "fence": attempt.token,
        "owner": attempt.holder,
        "start": to_ms(attempt.started),
        "end": None if attempt.ended is None else to_ms(attempt.ended),
        "outcome": None if attempt.ending is None else attempt.ending.value,
        "error": _message(attempt.error),
    }


def _message(error: Failure | None) -> str | None:
    return None if error is None else error.message


class Stats(Record, frozen=True, kw_only=True):
    """How many runs there are, and in which state.

    Attributes:
        completed: ended well.
        processing: held by somebody now, or by somebody who died.
        waiting: due later.
    """

    total: int = 0
    completed: int = 0
    failed: int = 0
    processing: int = 0
    waiting: int = 0
    cancelled: int = 0

    def __str__(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__struct_fields__})


def stats_of(counted: Iterable[Mapping[Status, int]]) -> Stats:
    """The numbers of several jobs together."""
    counts = dict.fromkeys(Status, 0)
    for of_job in counted:
        for status, count in of_job.items():
            counts[status] += count
    return Stats(
        total=sum(counts.values()),
        completed=counts[Status.SUCCEEDED],
        failed=counts[Status.FAILED],
        processing=counts[Status.RUNNING],
        waiting=counts[Status.SCHEDULED],
        cancelled=counts[Status.CANCELLED],
    )
