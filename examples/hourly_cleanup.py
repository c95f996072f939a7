"""An hourly clean-up in two servers: each hour it runs once, in one of them.

To see hours pass, the schedule here is every second.

Run it:  python examples/hourly_cleanup.py [URL of a store]
"""

import sys
import tempfile
import threading
from collections import Counter
from datetime import timedelta

from onceward.toolkit.jobs import Job, JobContext
from onceward.toolkit.server import JobServer

ENOUGH = 3


class CleanUp(Job):
    """In earnest: ``schedule = "0 * * * *"``."""

    schedule = "every 1 second"

    def __init__(self, server: str, log: list[tuple[str, str]], done: threading.Event) -> None:
        self.server, self.log, self.done = server, log, done

    def run(self, ctx: JobContext) -> None:
        self.log.append((f"{ctx.scheduled_for:%H:%M:%S}", self.server))
        if len(self.log) >= ENOUGH:
            self.done.set()


def main(url: str) -> None:
    log: list[tuple[str, str]] = []
    done = threading.Event()
    servers = [JobServer.create(url, [CleanUp(name, log, done)], namespace="cleanup") for name in ("one", "two")]
    for server in servers:
        server.start()
    assert done.wait(60)
    for server in servers:
        server.shutdown(timedelta(seconds=10))
    for hour, where in log:
        print(f"the clean-up of {hour} ran in server {where}")
    assert max(Counter(hour for hour, _ in log).values()) == 1, "an hour ran twice"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/jobs.db")
