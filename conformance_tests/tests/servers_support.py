"""What the tests of all stores on servers share: a server or a skip, a certificate, a clock to move, every verb."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from onceward.conformance.harness import UrlHarness, new_namespace
from onceward.conformance.servers import ServerMissing
from onceward.conformance.servers.process import find_binary
from onceward.contracts import (
    CheckIn,
    Claim,
    ConfigWrite,
    Interest,
    LockId,
    LockRequest,
    Purge,
    Rearm,
    RunId,
    Runner,
    RunQuery,
    RunSpec,
    Store,
)
from onceward.runners.clock import ManualClock

T = TypeVar("T")
LONG = timedelta(hours=1)


def available(make: Callable[[], T]) -> T:
    """What ``make`` makes; where the server is missing, the test is skipped, or fails where CI is set."""
    try:
        return make()
    except ServerMissing as error:
        if error.excusable:
            pytest.skip(str(error))
        pytest.fail(str(error))


def certificate(folder: Path, *, days: int = 2, host: str = "IP:127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate for ``host``, and its key; with a negative number of days it has expired."""
    openssl = available(lambda: find_binary("openssl", advice="it makes the certificate for this test"))
    made, key, request, extra = (folder / name for name in ("cert.pem", "key.pem", "request.pem", "extra"))
    extra.write_text(f"subjectAltName={host}\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    sign = ("-signkey", str(key), "-days", str(days), "-extfile", str(extra))
    for words in (
        ("req", "-new", *curve, "-nodes", "-keyout", str(key), "-out", str(request), "-subj", "/CN=server"),
        ("x509", "-req", "-in", str(request), "-out", str(made), *sign),
    ):
        subprocess.run([openssl, *words], check=True, capture_output=True)
    return made, key


class OneClock(ManualClock):
    """A server has but one clock: leases go by the wall, too."""

    def elapsed_ms(self) -> int:
        return self.wall_ms()


class ClockedHarness(UrlHarness):
    """Machines move the clock that ``clocked`` stores go by; threads and processes use the runner as it ships."""

    movable = True

    def __init__(self, url: str, clocked: Callable[[str, str, OneClock], Store]) -> None:
        super().__init__(url)
        self.clock = OneClock()
        self._clocked = clocked

    def fresh_runner(self) -> Runner:
        return self._runner(new_namespace())

    def timed_runner(self) -> Runner:
        return super().fresh_runner()

    def another(self, runner: Runner) -> Runner:
        return self._runner(runner.namespace)

    def advance(self, by: timedelta) -> None:
        self.clock.advance(by)

    def _runner(self, namespace: str) -> Runner:
        return Runner.of(self._clocked(self.url, namespace, self.clock), namespace=namespace, url=self.name).open()


#: A call of everything that a store can be asked, but for what needs a lease.
EVERY_VERB: Mapping[str, Callable[[Store], object]] = {
    "checkin": lambda store: store.checkin(CheckIn(run=RunId("j", "1"), holder="h", lease=LONG)),
    "claim": lambda store: store.claim(Claim.of("j", holder="h", lease=LONG)),
    "check": lambda store: store.check(RunId("j", "1")),
    "lock": lambda store: store.lock(LockRequest(lock=LockId("l"), holder="h", lease=LONG)),
    "submit": lambda store: store.submit([RunSpec.of("j", "1")]),
    "cancel": lambda store: store.cancel(RunId("j", "1")),
    "rearm": lambda store: store.rearm([Rearm(run=RunId("j", "1"), token=1)]),
    "force_unlock": lambda store: store.force_unlock(LockId("l")),
    "write_config": lambda store: store.write_config(ConfigWrite(name="c", document=1, expected_version=0)),
    "read_config": lambda store: store.read_config("c"),
    "configs": lambda store: store.configs(),
    "runs": lambda store: store.runs(RunQuery()),
    "locks": lambda store: store.locks(),
    "counts": lambda store: store.counts(),
    "purge": lambda store: store.purge(Purge(older_than=LONG)),
    "now": lambda store: store.now(),
    "watch": lambda store: store.watch(Interest(jobs=frozenset({"j"}))),
}
