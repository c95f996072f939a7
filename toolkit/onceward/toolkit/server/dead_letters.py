"""Dead letters: runs that FAILED for good. They stay until somebody retries or discards them, or retention ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

from msgspec.structs import replace

from onceward.contracts import (
    CheckIn,
    CheckOut,
    Failure,
    OnFailed,
    Rearm,
    Run,
    RunId,
    Runner,
    RunQuery,
    Status,
    new_holder,
)
from onceward.toolkit.audit import whoami
from onceward.toolkit.resend import resend

_PAGE = 200
#: So long may the discarding itself take; if its process dies in between, the run is FAILED again after this.
_LEASE = timedelta(seconds=30)


def dead_letters(runner: Runner, job: str | None = None) -> Iterator[Run]:
    """The runs that FAILED, the oldest first."""
    query = RunQuery(job=job, statuses=frozenset({Status.FAILED}), oldest_first=True, limit=_PAGE)
    while True:
        page = runner.lifecycle.runs(query)
        yield from page
        if len(page) < _PAGE:
            return
        query = replace(query, after=page[-1].sequence)


def retry(runner: Runner, runs: Sequence[Run]) -> Sequence[bool]:
    """The runs are due again, with a fresh budget of attempts; False: it is not as it was seen, and nothing changed."""
    rearms = [Rearm(run=run.id, token=run.token) for run in runs]
    return resend(lambda: runner.lifecycle.rearm(rearms))


def discard(runner: Runner, run: RunId, *, reason: str = "discarded", who: str | None = None) -> bool:
    """The dead letter has ended as CANCELLED, with who and why in its history; False: it is none (any more).

    It is taken by a check-in, which exactly one caller is granted, and ended by that: so it never runs in between. If
    this process dies between the two, the run is FAILED as before.
    """
    request = CheckIn(run=run, holder=new_holder(), lease=_LEASE, on_failed=OnFailed.RERUN, max_crashes=0)
    found = runner.executor.check(run)
    if found is None or found.status is not Status.FAILED:
        return False  # a check-in would make an absent one, or take one that waits
    admission = resend(lambda: runner.executor.checkin(request))
    if not admission.outcome.admitted or admission.run.lease is None:
        return False
    if admission.run.attempt == 1:  # it was deleted meanwhile, and this has made it anew
        note = Failure(type="Discarded", message="it had been deleted meanwhile")
    else:
        note = Failure(type="Discarded", message=f"{reason} (by {who or whoami()})")
    checkout = CheckOut.cancelled(admission.run.lease, note)
    return resend(lambda: runner.executor.checkout([checkout]))[0]


def retry_all(runner: Runner, job: str | None = None) -> int:
    """All dead letters (of one job) are due again; their number."""
    return _in_bulk(runner, job, lambda page: sum(retry(runner, page)))


def discard_all(runner: Runner, job: str | None = None, *, reason: str = "discarded", who: str | None = None) -> int:
    """All dead letters (of one job) are discarded; their number."""
    return _in_bulk(runner, job, lambda page: sum(discard(runner, run.id, reason=reason, who=who) for run in page))


def _in_bulk(runner: Runner, job: str | None, do: Callable[[Sequence[Run]], int]) -> int:
    done, page = 0, []
    for run in list(dead_letters(runner, job)):
        page.append(run)
        if len(page) == _PAGE:
            done, page = done + do(page), []
    return done + (do(page) if page else 0)
