"""Pattern 3, a distributed batch: a coordinator makes the batches known, and workers share them.

Each worker is a process of its own, and tries every batch; WORKER_ID says who it is.

Run it:  python examples/batch.py [URL of a store]
"""

import logging
import os
import subprocess
import sys
import tempfile
from datetime import timedelta

from onceward.contracts import Json
from onceward.toolkit.director import Director

JOB = "batch-processor"
BATCHES = {f"batch-{number:03d}": list(range(number * 10, number * 10 + number)) for number in range(1, 10)}


def worker(url: str) -> None:
    """One worker: it processes the batches that are not taken."""
    logging.getLogger("onceward").setLevel(logging.ERROR)
    worker_id = os.environ["WORKER_ID"]
    with Director(url, namespace="batch::coordination", lease=timedelta(seconds=30)) as director:

        @director.checkin(JOB, key="{{batch_id}}")
        def process(batch_id: str, items: list[int]) -> Json:
            results = [item * item for item in items]
            return {"processed": len(results), "worker": worker_id}

        for batch_id, items in BATCHES.items():
            process(batch_id, items)


def coordinate(url: str) -> None:
    """The coordinator starts the workers and waits for the batches, not for the workers."""
    command = [sys.executable, __file__, "--worker", url]
    workers = [subprocess.Popen(command, env={**os.environ, "WORKER_ID": str(each)}) for each in (1, 2, 3)]
    with Director(url, namespace="batch::coordination") as director:
        for batch_id, items in BATCHES.items():
            run = director.wait(JOB, batch_id, timeout=timedelta(seconds=60))
            print(f"{batch_id}: {len(items)} items, {run.result}, admitted {run.attempt} time")
        print(f"in the end: {director.stats()}")
    for process in workers:
        process.wait()


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker(sys.argv[-1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            coordinate(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/batch.db")
