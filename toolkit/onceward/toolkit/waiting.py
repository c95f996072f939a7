"""Waiting for a run to end, woken by the store."""

from __future__ import annotations

import time
from datetime import timedelta

from onceward.contracts import Interest, Run, RunId, Runner, checks

_LOOK_EVERY = 1.5


def wait_for_end(runner: Runner, run: RunId, timeout: timedelta) -> Run | None:
    """The run as it ended, also if it had ended before, or is yet to be made; None: not in time."""
    checks.delay("timeout", timeout)
    end = time.monotonic() + timeout.total_seconds()
    with runner.scheduler.watch(Interest(runs=frozenset({run}))) as watch:
        while True:
            found = runner.executor.check(run)
            if found is not None and found.status.ended:
                return found
            left = end - time.monotonic()
            if left <= 0:
                return None
            watch.wait(min(left, _LOOK_EVERY))
