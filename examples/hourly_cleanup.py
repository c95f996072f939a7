"""An hourly clean-up in two servers, each a process of its own: each hour it runs once, in one of them.

To see hours pass, the schedule here is every second.

Run it:  python examples/hourly_cleanup.py [URL of a store]
"""

import logging
import subprocess
import sys
import tempfile
import threading
from collections import Counter

from onceward.contracts import RunQuery, Status
from onceward.runners.factory import open_runner
from onceward.toolkit.jobs import Job, JobContext
from onceward.toolkit.server import JobServer

ENOUGH = 3
NAMESPACE = "cleanup"


class CleanUp(Job):
    """In earnest: ``schedule = "0 * * * *"``."""

    schedule = "every 1 second"

    def __init__(self, server: str) -> None:
        self.server = server

    def run(self, ctx: JobContext) -> dict[str, str]:
        return {"hour": f"{ctx.scheduled_for:%H:%M:%S}", "server": self.server}


def serve(url: str, name: str) -> None:
    """One server: it works until it is told to end."""
    logging.getLogger("onceward").setLevel(logging.ERROR)
    JobServer.create(url, [CleanUp(name)], namespace=NAMESPACE).run()


def main(url: str) -> None:
    servers = [subprocess.Popen([sys.executable, __file__, "--serve", url, name]) for name in ("one", "two")]
    done = RunQuery(job="CleanUp", statuses=frozenset({Status.SUCCEEDED}), oldest_first=True)
    with open_runner(url, namespace=NAMESPACE) as runner:
        while len(runs := runner.lifecycle.runs(done)) < ENOUGH:
            threading.Event().wait(0.1)
    for server in servers:
        server.terminate()
    results = [run.result for run in runs if isinstance(run.result, dict)]
    for result in results:
        print(f"the clean-up of {result['hour']} ran in server {result['server']}")
    assert max(Counter(str(result["hour"]) for result in results).values()) == 1, "an hour ran twice"
    assert [server.wait(30) for server in servers] == [0, 0]


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(*sys.argv[-2:])
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/jobs.db")
