"""Where things stand: the keys of a namespace.

    r/JOB/KEY[/STAMP]               the run
    h/JOB/KEY[/STAMP]               it is held: there as long as its lease lives
    q/JOB/PRIORITY/RUN_AT/SEQUENCE  it is scheduled (highest priority first)      value: KEY[/STAMP]
    x/JOB/PRIORITY/RUN_AT/SEQUENCE  it is running                                 value: KEY[/STAMP]
    d/JOB/STATUS/ENDED/SEQUENCE     it has ended                                  value: KEY[/STAMP]
    s/JOB/SEQUENCE                  it exists                                     value: KEY[/STAMP]
    m/REQUEST                       what a claim has taken
    l/NAME, a/NAME                  a lock's newest lease; it is held
    c/NAME                          a configuration

A run has exactly one of q, x and d. Names are escaped, so that no name can reach out of its place, and numbers have a
fixed width, so that the order of keys is the order of numbers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote

from onceward.contracts.checks import refuse
from onceward.contracts.records import PRIORITY_HIGHEST, LockId, Run, RunId, Status
from onceward.contracts.times import to_ms

#: The same names come again and again.
_KEPT = 4_096
_plain = re.compile(r"[A-Za-z0-9_.~:-]*").fullmatch

SCHEDULED, RUNNING, ENDED, EXISTING = b"q/", b"x/", b"d/", b"s/"
RECORD, HOLD, MEMO, LOCK, ALIVE, CONFIG = b"r/", b"h/", b"m/", b"l/", b"a/", b"c/"


@lru_cache(_KEPT)
def escaped(name: str) -> str:
    """The name without slashes and whatever else means something in a key."""
    if _plain(name):
        return name
    try:
        return quote(name, safe=":")
    except UnicodeEncodeError:
        refuse("name", name, "text without lone surrogates")


@lru_cache(_KEPT)
def part(name: str) -> bytes:
    """The name as it stands in keys."""
    return escaped(name).encode()


def original(text: bytes) -> str:
    """The name that was escaped."""
    return unquote(text.decode())


def behind(prefix: bytes) -> bytes:
    """The first key after all that begin with ``prefix``, which ends with a slash."""
    return prefix[:-1] + b"0"


class Place(NamedTuple):
    """A key in q or x, taken apart; its order is the order of claims."""

    rank: int
    run_at: int
    sequence: int
    job: bytes


class Names:
    """The keys of one namespace."""

    def __init__(self, namespace: str) -> None:
        self.prefix = f"onceward/{escaped(namespace)}/".encode()

    def of(self, kind: bytes, *parts: str | bytes) -> bytes:
        """A key, or with an empty last part a prefix."""
        return self.prefix + kind + b"/".join([p if isinstance(p, bytes) else part(p) for p in parts])

    def lock(self, lock: LockId) -> tuple[bytes, bytes]:
        """A lock's newest lease, and its hold."""
        name = part(lock.name)
        return self.prefix + LOCK + name, self.prefix + ALIVE + name

    def record(self, run: RunId) -> bytes:
        return self.prefix + RECORD + path(run)

    def hold(self, run: RunId) -> bytes:
        return self.prefix + HOLD + path(run)

    def existing(self, run: Run) -> bytes:
        return self.of(EXISTING, run.id.job, b"%016d" % run.sequence)

    def place(self, run: Run) -> tuple[bytes, bytes]:
        """The one of q, x and d that says what a run does, and its value."""
        tail = tail_of(run.id)
        if run.status.ended:
            assert run.ended is not None  # it has ended
            return self.of(ENDED, run.id.job, run.status, b"%015d/%016d" % (to_ms(run.ended), run.sequence)), tail
        kind = SCHEDULED if run.status is Status.SCHEDULED else RUNNING
        rank = PRIORITY_HIGHEST - run.priority
        return self.of(kind, run.id.job, b"%03d/%015d/%016d" % (rank, to_ms(run.run_at), run.sequence)), tail

    def parts(self, key: bytes) -> list[bytes]:
        """What stands between the slashes, without the namespace and the kind."""
        return key[len(self.prefix) + 2 :].split(b"/")

    def place_of(self, key: bytes) -> Place:
        """A key in q or x, taken apart."""
        job, rank, run_at, sequence = self.parts(key)
        return Place(int(rank), int(run_at), int(sequence), job)

    def run_of(self, key: bytes) -> RunId:
        """The run that a key in r or h is of."""
        job, *tail = self.parts(key)
        return run_named(job, b"/".join(tail))


@lru_cache(_KEPT)
def path(run: RunId) -> bytes:
    """A run in keys."""
    return f"{escaped(run.job)}/".encode() + tail_of(run)


@lru_cache(_KEPT)
def tail_of(run: RunId) -> bytes:
    """A run among those of its job."""
    if run.stamp:
        return f"{escaped(run.key)}/{escaped(run.stamp)}".encode()
    return escaped(run.key).encode()


def run_named(job: bytes, tail: bytes) -> RunId:
    """The run of a job that such a tail names."""
    key, _, stamp = tail.partition(b"/")
    return RunId(original(job), original(key), original(stamp))
