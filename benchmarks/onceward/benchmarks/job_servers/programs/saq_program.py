"""saq: coroutines, 50 at a time; it has no bulk, so a hundred jobs are queued at a time side by side."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from saq import Queue, Worker
from tally import Tally, asked


async def main() -> None:
    """Queue, drain, tell."""
    url, name, jobs, *_ = asked()
    tally = Tally(jobs)
    queue = Queue.from_url(url, name=name)
    await queue.connect()
    began = time.perf_counter()
    for first in range(0, jobs, 100):
        some = range(first, min(first + 100, jobs))
        await asyncio.gather(*(queue.enqueue("body", number=number) for number in some))
    enqueue = time.perf_counter() - began

    async def body(_: Any, *, number: int) -> None:
        tally(number)

    worker = Worker(queue, functions=[("body", body)], concurrency=50)
    working = asyncio.create_task(worker.start())
    await tally.wait_async()
    working.cancel()
    tally.told(enqueue=enqueue, package="saq")


asyncio.run(main())
