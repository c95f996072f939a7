"""A real store that is down when a server starts, comes, goes away in the middle, and comes back: nothing is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import etcd_support
import mongodb_support
import pytest
import redis_support
import zookeeper_support
from waiting import answered

from onceward.conformance.servers.process import ServerProcess
from onceward.contracts import RunQuery, Status, new_request
from onceward.toolkit.jobs import JobContext, job
from onceward.toolkit.server import JobServer
from onceward.toolkit.server.loops import LoopState

PATIENCE = 60.0
PROMPT = timedelta(seconds=PATIENCE)
#: Each store, with options by which a client soon notices that nobody answers.
STORES: dict[str, tuple[Callable[[], ServerProcess], str]] = {
    "redis": (lambda: redis_support.own_server(durable=True), "timeout_ms=500"),
    "mongodb": (mongodb_support.own_server, "timeout_ms=1000&serverSelectionTimeoutMS=500&connectTimeoutMS=500"),
    "etcd": (etcd_support.own_server, "timeout_ms=1000"),
    "zookeeper": (lambda: zookeeper_support.own_server(durable=True), "timeout_ms=1000&connect_timeout_ms=500"),
}


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for other threads; fails when it never comes."""
    pause, left = threading.Event(), PATIENCE
    while not condition():
        assert left > 0, what
        pause.wait(0.02)
        left -= 0.02


class Scene:
    """A job server on a store that the test stops and starts."""

    def __init__(self, store: ServerProcess, options: str) -> None:
        self.store = store
        self.began, self.go = threading.Event(), threading.Event()
        self.ran: Counter[str] = Counter()
        lock = threading.Lock()

        @job(name="body")
        def body(ctx: JobContext) -> str:
            with lock:
                self.ran[ctx.key] += 1
            if ctx.key == "slow":
                self.began.set()
                self.go.wait(PATIENCE)
            return ctx.key

        url = str(store.url)  # type: ignore[attr-defined]  # every one of STORES has it
        url += ("&" if "?" in url else "?") + options
        self.server = JobServer.create(
            url, [body], namespace=new_request(), max_concurrency=2, process_every=timedelta(milliseconds=200)
        )

    def starts_before_its_store(self) -> None:
        """The server waits, says so, and works as soon as there is a store."""
        self.server.start()
        until(lambda: self.server.health().loops["start"].failures > 0, "it tries")
        health = self.server.health()
        assert (health.live, health.ready, health.degraded) == (True, False, True)
        assert any(reason.startswith("start: degraded: StoreUnavailable") for reason in health.reasons), health.reasons
        self.store.start()
        assert self.server.wait_ready(PROMPT)
        first = answered(lambda: self.server.launch("body", key="first")).run
        assert answered(lambda: self.server.wait(first, PROMPT)).result == "first"

    def outlives_an_outage(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """A body ends while the store is away, and others wait: each ends once, in its first attempt."""
        server = self.server
        keys = ("slow", *(f"{n}" for n in range(5)))
        runs = [answered(partial(server.launch, "body", key=key)).run for key in keys]
        assert self.began.wait(PATIENCE)
        self.store.kill()
        self.go.set()
        until(lambda: server.health().loops["check-out"].state is LoopState.DEGRADED, "the end cannot be sent")
        until(lambda: server.health().loops["claim"].state is LoopState.DEGRADED, "nothing can be claimed")
        health = server.health()
        assert (health.live, health.degraded, health.unsent > 0) == (True, True, True)
        assert any(reason.startswith("check-out: degraded: ") for reason in health.reasons), health.reasons
        meanwhile()
        self.store.start()
        ended = [answered(partial(server.wait, run, PROMPT)) for run in runs]
        assert [(run.status, run.attempt, run.crashes) for run in ended] == [(Status.SUCCEEDED, 1, 0)] * len(runs)
        assert set(self.ran.values()) == {1}
        until(lambda: not server.health().degraded, f"it is well again: {server.health().reasons}")
        assert len(answered(lambda: server.runner.lifecycle.runs(RunQuery(job="body")))) == 1 + len(runs)

    def close(self) -> None:
        self.go.set()
        self.server.shutdown(timedelta(seconds=5))
        self.store.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", STORES)
def test_a_server_starts_before_its_store_and_outlives_an_outage_of_it(kind: str) -> None:
    make, options = STORES[kind]
    scene = Scene(make(), options)
    try:
        scene.starts_before_its_store()
        scene.outlives_an_outage()
    finally:
        scene.close()
