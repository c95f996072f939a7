"""arq: coroutines, 50 at a time; it has no bulk, so a hundred jobs are queued at a time side by side."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from arq import Worker, create_pool
from arq.connections import RedisSettings
from arq.worker import func
from tally import Tally, asked


async def main() -> None:
    """Queue, drain, tell."""
    url, name, jobs, *_ = asked()
    tally = Tally(jobs)
    pool = await create_pool(RedisSettings.from_dsn(url), default_queue_name=name)
    began = time.perf_counter()
    for first in range(0, jobs, 100):
        some = range(first, min(first + 100, jobs))
        await asyncio.gather(*(pool.enqueue_job("body", number) for number in some))
    enqueue = time.perf_counter() - began

    async def body(_: dict[Any, Any], number: int) -> None:
        tally(number)

    worker = Worker(
        functions=[func(body, name="body")],
        queue_name=name,
        redis_pool=pool,
        max_jobs=50,
        poll_delay=0.01,
        handle_signals=False,
    )
    working = asyncio.create_task(worker.async_run())
    await tally.wait_async()
    working.cancel()
    tally.told(enqueue=enqueue, package="arq")


asyncio.run(main())
