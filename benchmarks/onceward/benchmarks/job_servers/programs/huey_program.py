"""huey on SQLite: one thread, which is its quickest there; a job is gone from the store once it begins."""

from __future__ import annotations

import time
from pathlib import Path

from huey import SqliteHuey
from tally import Tally, asked

_, name, jobs, folder, durable = asked()
tally = Tally(jobs)
huey = SqliteHuey(name, filename=str(Path(folder) / f"{name}.db"), results=False, fsync=durable)


@huey.task()
def body(number: int) -> None:
    """Count."""
    tally(number)


began = time.perf_counter()
for number in range(jobs):
    body(number)
enqueue = time.perf_counter() - began
consumer = huey.create_consumer(workers=1, periodic=False, initial_delay=0.001, max_delay=0.01)
consumer.start()
tally.wait()
tally.told(enqueue=enqueue, package="huey")
