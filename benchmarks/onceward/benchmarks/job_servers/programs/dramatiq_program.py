"""dramatiq: 8 threads, as its documentation has it; it has no bulk."""

from __future__ import annotations

import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from tally import Tally, asked

url, name, jobs, *_ = asked()
tally = Tally(jobs)
broker = RedisBroker(url=url, namespace=name)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="jobs")
def body(number: int) -> None:
    """Count."""
    tally(number)


began = time.perf_counter()
for number in range(jobs):
    body.send(number)
enqueue = time.perf_counter() - began
worker = dramatiq.Worker(broker, worker_threads=8)
worker.start()
tally.wait()
tally.told(enqueue=enqueue, package="dramatiq")
