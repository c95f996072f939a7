"""Retry with state: attempts of one run share what was done before, and steps that were done are not done again.

Run it:  python examples/retry_with_state_server.py [URL of a store]
"""

import sys
import tempfile
from datetime import timedelta

from onceward.contracts import Json
from onceward.toolkit.jobs import Backoff, JobContext, Retry, RetryableError, job
from onceward.toolkit.server import JobEvent, JobServer

charged: list[str] = []


@job(retry=Retry(attempts=3, delay=timedelta(milliseconds=50), backoff=Backoff.EXPONENTIAL, jitter=0.0))
def payment(ctx: JobContext) -> Json:
    with ctx.once(f"charge {ctx.key}") as step:
        if step.first:
            charged.append(ctx.key)
            step.result = {"receipt": f"R-{ctx.key}"}
    if ctx.attempt < 3:
        raise RetryableError(f"attempt {ctx.attempt}: the mail server is busy")
    return {"success": True, "attempt": ctx.attempt, "data": step.result}


def main(url: str) -> None:
    def told(happened: JobEvent) -> None:
        assert happened.checkout is not None
        print(f"{happened.event} of {happened.run.key}: again in {happened.checkout.after}")

    with JobServer.create(url, [payment], namespace="payments") as server:
        server.on("retry", told)
        run = server.wait(server.launch("payment", key="T-7").run)
        print(f"ended as {run.status}: {run.result}; charged {len(charged)} time")
        assert len(charged) == 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/jobs.db")
