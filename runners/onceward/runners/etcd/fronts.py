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
#: So many more keys are read than were asked for, since others may take some of them.
_SPARE = 16


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
    ) -> tuple[list[tuple[bytes, Found]], list[At]]:
        """What ``read`` finds in each row below ``scopes``, of which it is told the first key and the end.

        And what the other reads find, with the revision at which that was so.
        """
        while True:
            known = [(scope, self._known(scope)) for scope in scopes]
            rows = [row for _, below in known for row in below]
            gaps = [gap for scope, below in known for gap in _gaps(scope, below)]
            requests = [*also, *(read(row, behind(row)) for row in rows)]
            requests += [wire.read(start, end, limit=1, keys_only=True) for start, end in gaps]
            found = self._found(requests)
            new = [self._row_of(first.found.kvs[0].key) for first in found[len(also) + len(rows) :] if first.found.kvs]
            if not new:
                firsts = [first.found for first in found[len(also) : len(also) + len(rows)]]
                self._drop([row for row, first in zip(rows, firsts, strict=True) if not first.total])
                return list(zip(rows, firsts, strict=True)), found[: len(also)]
            self._learn(new)

    def rows(self, scope: bytes) -> list[bytes]:
        """The rows below ``scope`` that are not empty."""
        firsts, _ = self.look([scope], lambda row, end: wire.read(row, end, limit=1, keys_only=True))
        return [row for row, first in firsts if first.total]

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


class Ahead:
    """The keys that stand first in rows, as far as they were seen, so that a read can end soon behind what it needs.

    The server goes over all keys of a range, however few it is asked for. What is remembered only says where to end: a
    read always begins where the row does, and one that finds too little is done again without an end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: dict[bytes, list[bytes]] = {}

    def end(self, row: bytes, most: int) -> bytes | None:
        """A key soon behind the first ``most``; None: not known."""
        with self._lock:
            keys = self._keys.get(row, ())
            return keys[most + _SPARE] if len(keys) > most + _SPARE else None

    def saw(self, row: bytes, found: Found) -> None:
        """These are the first keys of the row, and all in between."""
        with self._lock:
            keys = self._keys.get(row, [])
            first = found.kvs[0].key if found.kvs else b""
            if len(found.kvs) > len(keys) - bisect_left(keys, first):
                keys = [kv.key for kv in found.kvs]
            self._keys[row] = keys[bisect_left(keys, first) :]

    def forget(self, row: bytes) -> None:
        """Others have taken them."""
        with self._lock:
            self._keys.pop(row, None)


def _gaps(scope: bytes, rows: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """What lies between the rows, and before and behind them."""
    starts = [scope, *(behind(row) for row in rows)]
    return list(zip(starts, [*rows, behind(scope)], strict=True))
