"""What stands first in each of many rows of keys, without knowing the rows: those that were seen, and the gaps between.

A row is all keys with the same beginning, for example the scheduled runs of one job and priority. The rows that this
process has seen are read together; a look into each gap between them finds a row that is new. So one trip does, once
the rows are known, however long they are.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from typing import NamedTuple

from onceward.runners.etcd import wire
from onceward.runners.etcd.link import Link
from onceward.runners.etcd.names import behind
from onceward.runners.etcd.wire import Found

#: So many reads go into one transaction.
_AT_ONCE = 100
#: So many rows that were empty are still looked at.
_EMPTY_KEPT = 32


class At(NamedTuple):
    """What a read found, and at which revision."""

    found: Found
    revision: int


class Fronts:
    """The rows below some prefixes.

    Args:
        depth: how many slashes a row's beginning has.
    """

    def __init__(self, link: Link, *, depth: int) -> None:
        self._link = link
        self._depth = depth
        self._lock = threading.Lock()
        self._rows: list[bytes] = []

    def look(
        self, scopes: Sequence[bytes], read: Callable[[bytes, bytes], bytes], *, also: Sequence[bytes] = ()
    ) -> tuple[list[Found], list[At]]:
        """What ``read`` finds in each row below ``scopes`` that is not empty, from its first key to its end.

        And what the other reads find, with the revision at which that was so.
        """
        while True:
            rows = [row for scope in scopes for row in self._known(scope)]
            gaps = [gap for scope in scopes for gap in _gaps(scope, self._known(scope))]
            requests = [*also, *(read(row, behind(row)) for row in rows)]
            requests += [wire.read(start, end, limit=1, keys_only=True) for start, end in gaps]
            found = self._found(requests)
            new = [self._row_of(first.found.kvs[0].key) for first in found[len(also) + len(rows) :] if first.found.kvs]
            if not new:
                firsts = [first.found for first in found[len(also) : len(also) + len(rows)]]
                self._drop([row for row, first in zip(rows, firsts, strict=True) if not first.total])
                return [first for first in firsts if first.total], found[: len(also)]
            self._learn(new)

    def rows(self, scope: bytes) -> list[bytes]:
        """The rows below ``scope`` that are not empty."""
        firsts, _ = self.look([scope], lambda row, end: wire.read(row, end, limit=1, keys_only=True))
        return [self._row_of(first.kvs[0].key) for first in firsts]

    def _found(self, requests: Sequence[bytes]) -> list[At]:
        found: list[At] = []
        for at in range(0, len(requests), _AT_ONCE):
            part = [wire.get(request) for request in requests[at : at + _AT_ONCE]]
            done = self._link.txn(wire.transaction((), part), reads=True)
            found += [At(done.found(index), done.revision) for index in range(len(part))]
        return found

    def _known(self, scope: bytes) -> list[bytes]:
        with self._lock:
            start, end = bisect_left(self._rows, scope), bisect_left(self._rows, behind(scope))
            return self._rows[start:end]

    def _row_of(self, key: bytes) -> bytes:
        return b"".join(part + b"/" for part in key.split(b"/")[: self._depth])

    def _learn(self, rows: Sequence[bytes]) -> None:
        with self._lock:
            for row in rows:
                if row not in self._rows:
                    insort(self._rows, row)

    def _drop(self, rows: Sequence[bytes]) -> None:
        if len(rows) > _EMPTY_KEPT:
            with self._lock:
                self._rows = [row for row in self._rows if row not in set(rows[_EMPTY_KEPT:])]


def _gaps(scope: bytes, rows: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """What lies between the rows, and before and behind them."""
    starts = [scope, *(behind(row) for row in rows)]
    return list(zip(starts, [*rows, behind(scope)], strict=True))
