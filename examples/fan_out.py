"""A batch that fans out: a parent launches one run per part, workers share them, and the parent's retry is harmless.

Run it:  python examples/fan_out.py [URL of a store]
"""

import sys
import tempfile
from collections import Counter
from datetime import timedelta

from onceward.contracts import Json, RunQuery, Status
from onceward.toolkit.jobs import JobContext, Retry, RetryableError, job
from onceward.toolkit.server import JobServer

PARTS = 12


@job(retry=Retry(attempts=2, delay=timedelta(milliseconds=10)))
def batch(ctx: JobContext) -> Json:
    for part in range(PARTS):
        ctx.launch("part", {"batch": ctx.key, "part": part})
        if part == PARTS // 2 and ctx.attempt == 1:
            raise RetryableError("in the middle of the launches")
    return PARTS


@job(concurrency=2)
def part(ctx: JobContext) -> Json:
    assert isinstance(ctx.data, dict)
    return {"part": ctx.data["part"], "attempt": ctx.attempt}


def main(url: str) -> None:
    servers = [JobServer.create(url, [batch, part], namespace="fan-out", max_concurrency=2) for _ in range(3)]
    for server in servers:
        server.start()
    parent = servers[0].wait(servers[0].launch("batch", key="B-1").run)
    print(f"the batch needed {parent.attempt} attempts")
    runner = servers[0].runner
    parts = [servers[0].wait(run.id) for run in runner.lifecycle.runs(RunQuery(job="part"))]
    print(f"{len(parts)} parts, {dict(Counter(run.status.value for run in parts))}, each run once")
    assert len(parts) == PARTS
    assert all(run.status is Status.SUCCEEDED and run.attempt == 1 for run in parts)
    for server in servers:
        server.shutdown()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/jobs.db")
