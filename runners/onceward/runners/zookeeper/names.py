"""Where things are: names of users as parts of paths, and the layout of a namespace.

::

    /onceward/<namespace>/clock                                  written to learn the server's time
                         /jobs/<job>/runs/<bucket>/<run>         the record of a run, from its creation to its purge
                                    /live/<end>-<request>-<run>  a run that is held; its lease ends at <end> or later
                                    /queue/<priority>/<page>/<run_at><sequence><run>    a run that waits
                         /locks/<bucket>/<lock>
                         /configs/<configuration>

Jobs and namespaces are escaped, so that they can be listed; everything else is named by a digest, so that no name is
too long, means something in a path, or crowds one node's list of children.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from urllib.parse import quote, unquote
from zlib import crc32

from onceward.contracts.checks import refuse
from onceward.contracts.records import PRIORITY_HIGHEST, LockId, RunId

#: Into so many nodes the runs of a job, and the locks, are spread: a million have 16,000 names each, half a megabyte.
BUCKETS = 64
NEVER = 0xFFFF_FFFF_FFFF

_plain = re.compile(r"(?!\.+$)[A-Za-z0-9_.~-]+").fullmatch


def escaped(name: str) -> str:
    """The name without slashes and whatever else means something in a path."""
    if _plain(name):
        return name
    try:
        text = quote(name, safe="")
    except UnicodeEncodeError:
        refuse("name", name, "text without lone surrogates")
    return text if _plain(text) or "%" in text else text.replace(".", "%2E")


def original(text: str) -> str:
    """The name that was escaped."""
    return unquote(text) if "%" in text else text


def digest(*parts: str) -> str:
    """A short name for these texts, which have no NUL in them."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def buckets(above: str) -> list[str]:
    """All the buckets below a node."""
    return [f"{above}/{number:02x}" for number in range(BUCKETS)]


#: Which bucket a digest is in, by its first two digits.
_BUCKET = {f"{number:02x}": f"{number % BUCKETS:02x}" for number in range(256)}


def in_bucket(name: str) -> str:
    """A digest below its bucket."""
    return f"{_BUCKET[name[:2]]}/{name}"


class Layout:
    """The paths of one namespace."""

    def __init__(self, chroot: str, namespace: str) -> None:
        self.root = f"{chroot}/onceward/{escaped(namespace)}"
        self.clock = f"{self.root}/clock"
        self.jobs = f"{self.root}/jobs"
        self.locks = f"{self.root}/locks"
        self.configs = f"{self.root}/configs"

    def job(self, job: str) -> str:
        """Everything of a job."""
        return f"{self.jobs}/{escaped(job)}"

    def run(self, run: RunId) -> str:
        """The record of a run."""
        return self.run_named(run.job, digest(run.key, run.stamp))

    def run_named(self, job: str, name: str) -> str:
        """The record of the job's run with this digest."""
        return f"{self.runs(job)}/{in_bucket(name)}"

    def runs(self, job: str) -> str:
        """What the job's records are below, in buckets."""
        return f"{self.job(job)}/runs"

    def live(self, job: str) -> str:
        """What lists the job's runs that are held."""
        return f"{self.job(job)}/live"

    def queue(self, job: str) -> str:
        """What lists the priorities of the job's runs that wait; its version counts claims with a limit on running."""
        return f"{self.job(job)}/queue"

    def lock(self, lock: LockId) -> str:
        """The record of a lock."""
        return f"{self.locks}/{in_bucket(digest(lock.name))}"

    def config(self, name: str) -> str:
        """The record of a configuration."""
        return f"{self.configs}/{digest(name)}"


def parent(path: str) -> str:
    """The node above."""
    return path.rpartition("/")[0]


class Held(NamedTuple):
    """What the name of a node below ``live`` says: when to look at the run, who asked for it, and which it is."""

    end: int
    request: str
    run: str


def mark(request: str) -> str:
    """What the names of a request's runs have in common, and seldom with those of others."""
    return f"{crc32(request.encode()):08x}"


def live_name(end: int, request: str, run: str) -> str:
    """The name of a held run below ``live``."""
    return f"{min(end, NEVER):012x}-{mark(request)}-{run}"


def held(name: str) -> Held:
    """What such a name says."""
    end, request, run = name.split("-")
    return Held(int(end, 16), request, run)


def priority_name(priority: int) -> str:
    """The name of a priority below ``queue``: the highest comes first."""
    return f"{PRIORITY_HIGHEST - priority:03d}"


def priority_of(name: str) -> int:
    """The priority that is named so."""
    return PRIORITY_HIGHEST - int(name)


def rank(run_at: int, sequence: int) -> str:
    """The order of runs of one priority, as text; names of pages are such ranks, too."""
    return f"{run_at:012x}{sequence:014x}"


#: The page that takes what no other page takes; it is never removed.
FIRST_PAGE = rank(0, 0)


class Waiting(NamedTuple):
    """What the name of a node below a page says."""

    run_at: int
    sequence: int
    run: str


def waiting(name: str) -> Waiting:
    """What such a name says."""
    return Waiting(int(name[:12], 16), int(name[12:26], 16), name[26:])
