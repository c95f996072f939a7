"""What bodies do, as the world outside of the store sees it: one line per begin and end, appended to one file.

Times are of the machine's monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from onceward.toolkit.jobs import JobContext


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """A body began or ended."""

    what: str
    at: float
    pid: int
    job: str
    key: str
    attempt: int
    token: int
    lost: bool = False


class Journal:
    """Writes effects; a line is one write, so that lines of several processes do not mix.

    Args:
        path: of the file, shared by all servers.
        server: what stands for this one; None: its process's id.
    """

    def __init__(self, path: Path, server: int | None = None) -> None:
        self._server = os.getpid() if server is None else server
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, ctx: JobContext) -> None:
        """It is written down."""
        effect = Effect(
            what=what,
            at=time.monotonic(),
            pid=self._server,
            job=ctx.job,
            key=ctx.key,
            attempt=ctx.attempt,
            token=ctx.token,
            lost=ctx.lost.is_set(),
        )
        os.write(self._file, msgspec.json.encode(effect) + b"\n")

    @contextmanager
    def body(self, ctx: JobContext) -> Iterator[None]:
        """A body: its begin, and its end unless its process dies before."""
        self.note("begin", ctx)
        try:
            yield
        finally:
            self.note("end", ctx)


class Body(msgspec.Struct, kw_only=True):
    """One body as it ran; ``end`` None: nobody saw it end."""

    begin: Effect
    end: Effect | None = None

    @property
    def run(self) -> tuple[str, str]:
        """Which run it was for."""
        return self.begin.job, self.begin.key


def read(path: Path) -> list[Body]:
    """All bodies, in the order in which they began."""
    bodies: dict[tuple[int, str, str, int], Body] = {}
    if not path.exists():
        return []
    for line in path.read_bytes().splitlines():
        try:
            effect = msgspec.json.decode(line, type=Effect)
        except msgspec.DecodeError:
            continue  # the last line of a process that was killed
        place = effect.pid, effect.job, effect.key, effect.token
        if effect.what == "begin":
            bodies[place] = Body(begin=effect)
        elif place in bodies:
            bodies[place].end = effect
    return sorted(bodies.values(), key=lambda body: body.begin.at)
