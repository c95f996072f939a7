"""One server process of the soak: ``python -m onceward.conformance.engine.child`` with its set-up on standard input.

It serves until its parent ends it: by SIGTERM, by SIGKILL, or by closing its standard input.
"""

from __future__ import annotations

import logging
import os
import threading
from datetime import timedelta
from pathlib import Path

import msgspec

from onceward.conformance.engine.effects import Journal
from onceward.conformance.engine.jobs import EVERY
from onceward.conformance.harness import Opening
from onceward.contracts import Runner
from onceward.toolkit.server import JobServer


class SetUp(msgspec.Struct, frozen=True, kw_only=True):
    """What a server has to know."""

    opening: Opening | None
    journal: str
    lease: timedelta
    concurrency: int
    ticking: bool


def main() -> None:
    """The server has served."""
    logging.basicConfig(level=logging.CRITICAL)  # its jobs fail on purpose
    line = b"".join(iter(lambda: os.read(0, 1), b"\n"))
    setup = msgspec.json.decode(line, type=SetUp)
    assert setup.opening is not None  # that is why it is a process
    with setup.opening.open() as runner:
        server = server_of(runner, Journal(Path(setup.journal)), setup)
        threading.Thread(target=_until_parent_is_gone, args=(server,), daemon=True).start()
        server.run()


def server_of(runner: Runner, journal: Journal, setup: SetUp) -> JobServer:
    """The server that this set-up describes, not started yet."""
    return JobServer.create(
        runner,
        [kind(journal, setup.lease) for kind in EVERY if setup.ticking or kind.__name__ != "Ticking"],
        max_concurrency=setup.concurrency,
        default_lock_lifetime=setup.lease,
        process_every=timedelta(milliseconds=500),
        shutdown_deadline=timedelta(seconds=10),
    )


def _until_parent_is_gone(server: JobServer) -> None:
    while os.read(0, 1024):  # not by sys.stdin, whose lock would be missed at the end
        pass
    server.stop()


if __name__ == "__main__":
    main()
