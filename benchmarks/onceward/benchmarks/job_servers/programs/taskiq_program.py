"""taskiq on a Redis list: coroutines, 50 at a time; it has no bulk, so a hundred are queued at a time side by side."""

from __future__ import annotations

import asyncio
import time

from tally import Tally, asked
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker


async def main() -> None:
    """Queue, drain, tell."""
    url, name, jobs, *_ = asked()
    tally = Tally(jobs)
    broker = ListQueueBroker(url, queue_name=name)

    @broker.task(task_name="body")
    async def body(number: int) -> None:
        tally(number)

    await broker.startup()
    began = time.perf_counter()
    for first in range(0, jobs, 100):
        await asyncio.gather(*(body.kiq(number) for number in range(first, min(first + 100, jobs))))
    enqueue = time.perf_counter() - began
    working = asyncio.create_task(run_receiver_task(broker, max_async_tasks=50, max_prefetch=50))
    await tally.wait_async()
    working.cancel()
    tally.told(enqueue=enqueue, package="taskiq")


asyncio.run(main())
