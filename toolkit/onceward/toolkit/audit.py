"""What only an operator does, and what is written down about it: taking a lock or a run away from its holder."""

from __future__ import annotations

import getpass
import logging
import os
import socket
from datetime import datetime

from onceward.contracts import (
    CheckIn,
    CheckOut,
    Failure,
    Json,
    Lease,
    LockId,
    OncewardError,
    RunId,
    Runner,
    StoreError,
    checks,
    new_holder,
    new_request,
)
from onceward.contracts.records import stamp_text
from onceward.toolkit.resend import resend

log = logging.getLogger("onceward.audit")

AUDIT_JOB = "onceward:audit"
AUDIT_STAMP = stamp_text({"type": "audit"})


def force_unlock(
    runner: Runner,
    resource: LockId | RunId,
    *,
    reason: str,
    who: str | None = None,
    token: int | None = None,
    journal: Runner | None = None,
) -> Lease | None:
    """The holder has lost the lock or run at once, fenced off by a larger token; the answer is the lease that it had.

    None: nobody held it (or not with that ``token``), and nothing was changed. Either way it is written down as a run
    of the job ``onceward:audit``: before, with who, why and what; and after, with what came of it. A record that is
    still running tells of somebody who was cut off between the two.

    Args:
        runner: where the lock or run is.
        resource: what to take away.
        reason: why, for whoever reads the audit.
        who: who does it; by default the user and host of this process.
        token: only if this is still its newest.
        journal: where the audit is written; by default to ``runner`` itself.

    Raises:
        InvalidRequest: no reason was given.
        StoreUnavailable: nothing was changed.
        OutcomeUnknown: it may have been taken away; look, and ask again.
    """
    if not isinstance(reason, str) or not reason.strip():
        checks.refuse("reason", reason, "some words for whoever reads the audit")
    checks.text("reason", reason, 4_000)
    journal = journal or runner
    audit: dict[str, Json] = {"action": "unlock", **describe(resource), "who": who or whoami(), "reason": reason}
    entry = _write(journal, audit | {"token": token})
    try:
        taken = runner.lifecycle.force_unlock(resource, token=token)
    except OncewardError as error:
        _complete(journal, CheckOut.failed(entry, Failure.of(error)))
        raise
    result: dict[str, Json] = {"unlocked": taken is not None}
    if taken is not None:
        result |= {"holder": taken.holder, "token": taken.token, "expires": taken.expires}
    _complete(journal, CheckOut.succeeded(entry, result))
    return taken


def describe(resource: LockId | RunId) -> dict[str, Json]:
    """What was meant, as data."""
    if isinstance(resource, LockId):
        return {"lock": resource.name}
    return {"job": resource.job, "key": resource.key, "stamp": resource.stamp}


def whoami() -> str:
    """The user and host of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # containers run under numbers that have no name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


def entry_key(moment: datetime, token: int | None = None) -> str:
    """A key that nobody else makes, and that says when: sortable, readable, and the token where there is one."""
    when = f"{moment:%Y%m%dT%H%M%S}.{moment.microsecond // 1000:03d}Z"
    return "-".join([when, *([] if token is None else [str(token)]), new_request()[:12]])


def _write(journal: Runner, audit: Json) -> Lease:
    run = RunId(AUDIT_JOB, entry_key(journal.lifecycle.now()), AUDIT_STAMP)
    request = CheckIn(run=run, holder=new_holder(), payload=audit)
    admission = resend(lambda: journal.executor.checkin(request))
    assert admission.run.lease is not None  # the key is new
    return admission.run.lease


def _complete(journal: Runner, checkout: CheckOut) -> None:
    """What came of it is written down; where the store refuses, that must not hide what was done."""
    try:
        resend(lambda: journal.executor.checkout([checkout]))
    except StoreError as error:
        log.warning("the audit record %s could not be completed: %s", checkout.run, error)
