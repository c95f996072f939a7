"""Celery: the solo pool, its quickest for short jobs, which fetches many at a time; results are not kept."""

from __future__ import annotations

import threading
import time

from celery import Celery
from tally import Tally, asked

url, name, jobs, *_ = asked()
tally = Tally(jobs)
app = Celery("bench", broker=url)
app.conf.update(
    task_default_queue=name,
    task_ignore_result=True,
    worker_prefetch_multiplier=100,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
)


@app.task(name="body")
def body(number: int) -> None:
    """Count."""
    tally(number)


began = time.perf_counter()
with app.producer_pool.acquire(block=True) as producer:
    for number in range(jobs):
        body.apply_async((number,), producer=producer)
enqueue = time.perf_counter() - began


def finish() -> None:
    """Tell, once all is done."""
    tally.wait()
    tally.told(enqueue=enqueue, package="celery")


threading.Thread(target=finish, daemon=True).start()
app.worker_main(
    ["worker", "--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
)
