"""Concurrent histories with messages lost and late: without them, few stores ever fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from onceward.conformance.disturb import Faults
from onceward.conformance.faults.framing import DIALECTS
from onceward.conformance.faults.plan import AtRandom
from onceward.conformance.faults.proxy import Proxy
from onceward.conformance.harness import Harness
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun

#: A late reply comes when its lease is over.
PAST_THE_LEASE = 1.25


@contextmanager
def disturbed(trial: Trial, namespace: str, lease: timedelta) -> Iterator[tuple[Harness, Callable[[], None]]]:
    """The harness whose openings go through a proxy, and what begins the disturbance once all clients are open.

    Where there is no server, or nothing is to be disturbed: the harness as it is. What fired is in the trial.
    """
    server = trial.harness.server()
    if server is None or trial.messages is Faults.NONE:
        yield trial.harness, lambda: None
        return
    plan = AtRandom(trial.seed, mention=namespace.encode(), delay=lease * PAST_THE_LEASE)
    with Proxy((server.host, server.port), DIALECTS[server.dialect]) as proxy:
        through = trial.harness.through(proxy.address)
        if through is None:
            raise CouldNotRun("the harness has a server(), but no through() for a proxy before it")

        def begin() -> None:
            proxy.plan = plan

        yield through, begin
        trial.faults.update(proxy.faults)
