"""One job server of ours, looked at from inside of its own process: how soon, how large, how idle.

The parent starts this module as a process, so that nothing else is counted; it answers with lines of JSON.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from typing import Any

from onceward.benchmarks.contestants import Place
from onceward.benchmarks.job_servers.order import CHUNK, CONCURRENCY, JOB, PATIENCE
from onceward.benchmarks.measures.footprint import resident
from onceward.toolkit.jobs import job
from onceward.toolkit.server import JobServer, Retention

#: How many times the process looks at its size.
_LOOKS = 40
#: Ended runs are purged at once: it is the process that is measured, and not how many records the store can hold.
_FORGETFUL = Retention(succeeded=timedelta(0), failed=timedelta(0), keep_last=0, at_least=timedelta(0))
_CLEANS = timedelta(milliseconds=500)
#: A server settles for this share of the time in which its idleness is measured.
_SETTLES = 0.2
#: Seconds between two jobs that are timed from submission to start.
PAUSE = 0.02


def answers(place: Place, *order: object) -> Generator[list[float], None, None]:
    """Lines of the child, as they come; closing the iterator ends the child.

    Raises:
        RuntimeError: the child failed.
    """
    command = [sys.executable, "-m", __name__, json.dumps([place.url, place.namespace, *order])]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert child.stdout is not None  # it is a pipe
        try:
            for line in child.stdout:
                yield json.loads(line)
            if child.wait():
                raise RuntimeError(f"the measuring process ended with exit code {child.returncode}")
        finally:
            if child.poll() is None:
                child.kill()


class Service:
    """A server with one job, which tells whoever waits that it has begun."""

    def __init__(self, place: Place, *, on_end: Callable[[object], object] = lambda _: None, **changes: Any) -> None:
        self.began = threading.Event()
        self.at = 0

        @job(name=JOB, concurrency=CONCURRENCY)
        def body() -> None:
            self.at = time.perf_counter_ns()
            self.began.set()

        self.runner = place.open()
        self.server = JobServer.create(self.runner, [body], max_concurrency=CONCURRENCY, **changes)
        self.server.on("success", on_end)

    def __enter__(self) -> Service:
        self.server.start()
        if not self.server.wait_ready():
            raise RuntimeError(f"the server did not get ready: {self.server.health().reasons}")
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.runner.close()


def latency(service: Service) -> int:
    """Nanoseconds from the submission of one job to the start of its body, in a server that has nothing to do."""
    time.sleep(PAUSE)
    service.began.clear()
    began = time.perf_counter_ns()
    service.server.launch(JOB)
    if not service.began.wait(PATIENCE):
        raise RuntimeError("a job did not begin")
    return service.at - began


def grow(place: Place, jobs: int) -> Iterator[tuple[int, int]]:
    """The process's size before, while and after so many jobs went through a server."""
    done, ended = threading.Event(), itertools.count(1)
    goal = 0

    def count(_: object) -> None:
        if next(ended) == goal:
            done.set()

    with Service(place, on_end=count, retention=_FORGETFUL, clean_every=_CLEANS) as service:
        launcher = service.server.launcher
        looks = {jobs * look // _LOOKS for look in range(1, _LOOKS + 1)}
        yield 0, resident()
        for first in range(0, jobs, CHUNK):
            size = min(CHUNK, jobs - first)
            goal += size
            done.clear()
            launcher.submit([launcher.spec(JOB, number) for number in range(first, first + size)])
            if not done.wait(PATIENCE):
                raise RuntimeError(f"jobs did not end: {service.server.health().reasons}")
            if any(first < look <= first + size for look in looks):
                yield first + size, resident()


def idle(place: Place, seconds: float) -> tuple[float, float]:
    """For how long a server had nothing to do, and how many seconds of a core it took meanwhile."""
    with Service(place) as service:
        latency(service)
        time.sleep(seconds * _SETTLES)
        began, used = time.monotonic(), time.process_time()
        time.sleep(seconds)
        return time.monotonic() - began, time.process_time() - used


def main(argument: str) -> None:
    """The child: answers as JSON, one per line."""
    url, namespace, what, much = json.loads(argument)
    place = Place(url=url, namespace=namespace)
    for answer in grow(place, much) if what == "grow" else [idle(place, much)]:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
