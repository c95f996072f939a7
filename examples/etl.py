"""ETL in three phases: each phase launches the next one, and a phase that is tried again launches nothing twice.

Run it:  python examples/etl.py [URL of a store]
"""

import sys
import tempfile
from datetime import timedelta

from onceward.contracts import Json, RunId
from onceward.toolkit.jobs import JobContext, Retry, RetryableError, job
from onceward.toolkit.server import JobServer

SWIFT = Retry(attempts=3, delay=timedelta(milliseconds=50))


@job(lock_lifetime=timedelta(minutes=30))
def extract(ctx: JobContext) -> Json:
    rows: list[Json] = [{"id": number, "price": number * 10} for number in range(1, 6)]
    ctx.launch("transform", {"day": ctx.data, "rows": rows}, key=f"transform {ctx.data}")
    return {"rows": len(rows)}


@job(lock_lifetime=timedelta(hours=1), retry=SWIFT)
def transform(ctx: JobContext) -> Json:
    assert isinstance(ctx.data, dict)
    rows = ctx.data["rows"]
    assert isinstance(rows, list)
    total = 0
    for number, row in enumerate(rows, 1):
        assert isinstance(row, dict)
        total += int(str(row["price"]))
        ctx.progress(len(rows), number, "rows")
    ctx.launch("load", {"day": ctx.data["day"], "total": total}, key=f"load {ctx.data['day']}")
    if ctx.attempt == 1:
        raise RetryableError("the network went away after the launch")
    return {"total": total}


@job(lock_lifetime=timedelta(minutes=30))
def load(ctx: JobContext) -> Json:
    with ctx.once(f"insert {ctx.key}") as step:
        if step.first:
            step.result = "inserted"
    return {"loaded": ctx.data, "how": step.result}


def main(url: str) -> None:
    day = "2026-01-31"
    with JobServer.create(url, [extract, transform, load], namespace="etl", max_concurrency=3) as server:
        server.launch("extract", day, key=day)
        server.launch("extract", day, key=day)  # by accident, or by another server
        found = server.wait(RunId("load", f"load {day}"), timedelta(seconds=60))
        print(f"load ended as {found.status} in attempt {found.attempt}: {found.result}")
        transformed = server.wait(RunId("transform", f"transform {day}"))
        print(f"transform needed {transformed.attempt} attempts")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/jobs.db")
