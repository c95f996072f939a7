"""What there is of jobs that may be claimed: the lists of what is held, and the front of the queues.

A look into lists of lists takes a trip for each level. But they seldom change their shape, so the lists that the last
look needed are asked for together with the first; only what turns out to be missing takes another trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import FIRST_PAGE, Held, Layout, Waiting, held, original, waiting
from onceward.runners.zookeeper.tickets import Stamp

#: So many further pages are asked for at once, when the first does not suffice.
_PAGES_AHEAD = 3
#: The lists of so many jobs are remembered.
_REMEMBERED = 256


class Due(NamedTuple):
    """A run that waits, in the order of claims."""

    priority: str
    waiting: Waiting
    path: str
    """Of the node that lists it."""


class JobSeen(NamedTuple):
    """A job as it was seen.

    Attributes:
        gate: version of its queue, which claims with a limit on running raise.
        held: what runs, with the paths that list it.
        first: what waits, from the front of each priority, due or not.
        empty: pages that nothing waits on, and that are of no use.
    """

    job: str
    gate: int
    held: list[tuple[Held, str]]
    first: list[Due]
    empty: list[str]


class Survey(NamedTuple):
    """What there was when the clock was written, or later."""

    stamp: Stamp
    jobs: list[JobSeen]
    lists: list[str]
    """What was read; a change of these is worth a look."""


class Surveyor:
    """Looks at jobs."""

    def __init__(self, link: Link, layout: Layout) -> None:
        self._link, self._layout = link, layout
        self._shapes: dict[str, tuple[str, ...]] = {}
        self._known: tuple[str, ...] = ()

    def survey(self, jobs: Sequence[str] | None, *, need: int) -> Survey:
        """The jobs (None: all that there are), with as many that wait as are needed, where there are so many due."""
        return _Looking(self._link, self._layout, need).look(jobs, self)

    def guess(self, jobs: Sequence[str] | None) -> tuple[tuple[str, ...], list[str]]:
        """The jobs that there probably are, and the lists that were needed the last time."""
        probably = self._known if jobs is None else tuple(jobs)
        return probably, [path for job in probably for path in self._shapes.get(job, ())]

    def learn(self, jobs: Sequence[str], all_there_are: bool, shapes: dict[str, tuple[str, ...]]) -> None:
        """This is what was needed now."""
        if all_there_are:
            self._known = tuple(jobs)
        if len(self._shapes) > _REMEMBERED:
            self._shapes = {}
        self._shapes = self._shapes | shapes


class _Looking:
    """One look."""

    def __init__(self, link: Link, layout: Layout, need: int) -> None:
        self._link, self._layout, self._need = link, layout, need
        self._lists: dict[str, list[str] | None] = {}
        self._gates: dict[str, int] = {}
        self._now = 0

    def look(self, jobs: Sequence[str] | None, surveyor: Surveyor) -> Survey:
        probably, shape = surveyor.guess(jobs)
        basics = [path for job in probably for path in (self._layout.live(job), self._layout.queue(job))]
        above = [self._layout.jobs] if jobs is None else []
        lists = list(dict.fromkeys([*above, *basics, *shape]))
        gates = [self._layout.queue(job) for job in probably]
        seen = self._link.look(gates, lists)
        self._now = seen.stamp.wall
        self._add(gates, [None if node is None else node.stat.version for node in seen.nodes], lists, seen.lists)
        certain = list(probably)
        if jobs is None:
            certain = sorted(original(name) for name in self._lists[self._layout.jobs] or ())
        while missing := [path for job in certain for path in self._missing(job)]:
            gates = [path for path in missing if path in {self._layout.queue(job) for job in certain}]
            more = self._link.read(gates, missing)
            versions = [None if node is None else node.stat.version for node in more.nodes]
            self._add(gates, versions, missing, more.lists)
        found = [self._seen(job) for job in certain if self._lists.get(self._layout.queue(job)) is not None]
        surveyor.learn(certain, jobs is None, {each.job: tuple(self._shape(each.job)) for each in found})
        return Survey(seen.stamp, found, list(self._lists))

    def _add(
        self,
        gates: Sequence[str],
        versions: Sequence[int | None],
        lists: Sequence[str],
        names: Sequence[list[str] | None],
    ) -> None:
        self._gates |= {path: version for path, version in zip(gates, versions, strict=True) if version is not None}
        self._lists |= dict(zip(lists, names, strict=True))

    def _missing(self, job: str) -> list[str]:
        """Lists that must be read before it is known what is at the front of the job's queue."""
        queue, live = self._layout.queue(job), self._layout.live(job)
        if queue not in self._lists or live not in self._lists:
            return [queue, live]
        missing = []
        for priority in self._priorities(job):
            if priority not in self._lists:
                missing.append(priority)
                continue
            needed = self._needed(priority)
            missing += [page for page in needed if page not in self._lists][:_PAGES_AHEAD]
        return missing

    def _priorities(self, job: str) -> list[str]:
        """The priorities that must be read, highest first, as far as is known by now."""
        queue, due = self._layout.queue(job), 0
        needed = []
        for name in sorted(self._lists[queue] or ()):
            if due >= self._need:
                break  # nobody comes to what is behind so many
            needed.append(f"{queue}/{name}")
            pages = self._needed(needed[-1]) if needed[-1] in self._lists else ()
            names = (each for page in pages for each in self._lists.get(page) or ())
            due += sum(waiting(each).run_at <= self._now for each in names)
        return needed

    def _needed(self, priority: str) -> list[str]:
        """The pages that must be read, as far as is known by now."""
        pages, names = sorted(self._lists[priority] or ()), list[str]()
        needed = []
        for at, page in enumerate(pages):
            beyond = at > 0 and waiting(page).run_at > self._now
            enough = sum(name < page for name in names) >= self._need
            if (beyond and names) or enough:
                break
            needed.append(f"{priority}/{page}")
            names += self._lists.get(needed[-1]) or ()
        return needed

    def _shape(self, job: str) -> list[str]:
        """The lists that a look at this job needed, without those that were empty."""
        priorities = self._priorities(job)
        pages = [page for path in priorities for page in self._needed(path)]
        return priorities + [page for page in pages if self._lists.get(page) or page.endswith(FIRST_PAGE)]

    def _seen(self, job: str) -> JobSeen:
        queue, live = self._layout.queue(job), self._layout.live(job)
        first: list[Due] = []
        empty: list[str] = []
        for priority in self._priorities(job):
            name = priority.rpartition("/")[2]
            for page in self._needed(priority):
                below = self._lists.get(page)
                first += [Due(name, waiting(each), f"{page}/{each}") for each in below or ()]
                if below == [] and not page.endswith(FIRST_PAGE):
                    empty.append(page)
        first.sort()
        running = [(held(each), f"{live}/{each}") for each in self._lists.get(live) or ()]
        return JobSeen(job, self._gates.get(queue, 0), running, first, empty)
