"""Runs that wait, in order, in lists of bounded length: a sorted list made of nodes.

Below ``queue/<priority>`` there are pages, and below each page the runs that wait, named by their rank (``run_at``,
then order of submission). The name of a page is a bound: every run on it ranks there or behind. A run goes onto the
last page whose bound it has reached, so pages follow one another in order, but for this: a run may stand on an
earlier page than it would today, since the later page was made after it. Whoever reads pages in order may therefore
rely on what ranks before the bound of the first page that it has not read, and on nothing else.

A page is full with so many runs; the next one for it makes a new page. Pages that are empty are removed, except the
first. A page that is not there any more refuses what is to be put onto it, and then the list of pages is read again.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Sequence

from onceward.runners.zookeeper import wire
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import FIRST_PAGE, Layout, priority_name, rank, waiting
from onceward.runners.zookeeper.wire import Op

#: So many runs are on a page, or a batch more, which is counted when it is written.
_FULL = 256


class Pages:
    """Finds the page for a run that is to wait."""

    def __init__(self, link: Link, layout: Layout) -> None:
        self._link, self._layout = link, layout
        self._bounds: dict[tuple[str, int], list[str]] = {}
        self._room: dict[tuple[str, int, str], int] = {}
        self._lock = threading.Lock()

    def place(self, job: str, priority: int, run_at: int, sequence: int, run: str) -> tuple[str, tuple[Op, ...]]:
        """Where the run is to wait, below ``queue``, and what must be made for that in the same transaction."""
        with self._lock:
            return self._placed((job, priority), rank(run_at, sequence), run)

    def _placed(self, where: tuple[str, int], key: str, run: str) -> tuple[str, tuple[Op, ...]]:
        bounds = self._bounds.get(where) or self._load(where)
        page = bounds[bisect_right(bounds, key) - 1]
        made: tuple[Op, ...] = ()
        if self._room.get((*where, page), 0) <= 0 and self._count(where, page) <= 0:
            full, page = page, self._divide(where, page, key)
            if page != full:
                made = (wire.create(self._path(where, page), b"", self._link.acl),)
        self._room[(*where, page)] -= 1
        return f"{priority_name(where[1])}/{page}/{key}{run}", made

    def forget(self, job: str) -> None:
        """The job's pages are not as we knew them."""
        with self._lock:
            for where in [where for where in self._bounds if where[0] == job]:
                for page in self._bounds.pop(where):
                    self._room.pop((*where, page), None)

    def reset(self) -> None:
        """Nobody is looking; for a forked child."""
        self._lock = threading.Lock()

    def _path(self, where: tuple[str, int], page: str = "") -> str:
        above = f"{self._layout.queue(where[0])}/{priority_name(where[1])}"
        return f"{above}/{page}" if page else above

    def _load(self, where: tuple[str, int]) -> list[str]:
        names = self._link.read(lists=[self._path(where)]).lists[0]
        if names is None or FIRST_PAGE not in names:
            self._link.make([self._path(where), self._path(where, FIRST_PAGE)])
            names = [*(names or ()), FIRST_PAGE]
        self._bounds[where] = sorted(names)
        return self._bounds[where]

    def _count(self, where: tuple[str, int], page: str) -> int:
        """How many more runs the page can take, as the server says."""
        node = self._link.read([self._path(where, page)]).nodes[0]
        room = _FULL - (0 if node is None else node.stat.children)
        self._room[(*where, page)] = room
        return room

    def _divide(self, where: tuple[str, int], page: str, key: str) -> str:
        """The bound of a new page that the key has reached and that other keys like it will reach, too."""
        names = self._link.read(lists=[self._path(where, page)]).lists[0]
        bound = _bound(page, sorted(names or ()), key)
        bounds = self._bounds[where]
        if bound not in bounds:
            insort(bounds, bound)
        self._room[(*where, bound)] = _FULL
        return bound


def _bound(page: str, names: Sequence[str], key: str) -> str:
    if not names or key > names[-1]:
        return key  # the usual case: runs wait behind those that came before
    first, last, at = (waiting(name).run_at for name in (names[0], names[-1], key))
    lowest = waiting(page).run_at
    low = max((lowest + at) // 2, at - (last - first)) if key < names[0] else (first + at) // 2
    bound = rank(low, 0)
    return bound if page < bound <= key else key
