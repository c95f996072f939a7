"""Watches: told by the cluster of every change, a lapsed lease's too, and woken by the time of what comes due.

A watch knows from which revision on it has to be told, so nothing is missed while its connection breaks and is made
again. If the history since then is compacted meanwhile, it tells to look again. The time of the next run that is due
is asked for, since the cluster has no clock.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import msgspec

from onceward.contracts.errors import StoreError, StoreUnavailable
from onceward.contracts.records import Status
from onceward.contracts.requests import Interest
from onceward.contracts.scheduler import Watch
from onceward.contracts.transitions import Now
from onceward.runners.etcd import errors, names, wire
from onceward.runners.etcd.fronts import Fronts
from onceward.runners.etcd.link import Link
from onceward.runners.etcd.names import Names

_ASK_AFTER = 5.0
_AGAIN_AFTER = 0.2
#: Further than it will be until it looks again; no longer, since the server goes over all that lies between.
_LOOK_AHEAD_MS = 10_000


class _Ended(msgspec.Struct):
    status: Status


_decode_status = msgspec.json.Decoder(_Ended).decode


class EtcdWatch(Watch):
    """A stream of changes of interest, read by a thread of its own."""

    def __init__(
        self,
        interest: Interest,
        keys: Names,
        link: Link,
        scheduled: Fronts,
        *,
        now: Callable[[], Now],
        told: Callable[[bytes, bytes, int], None],
        forget: Callable[[EtcdWatch], None],
    ) -> None:
        self._names, self._link, self._scheduled = keys, link, scheduled
        self._now, self._told_of, self._forget = now, told, forget
        self._jobs = [f"{names.escaped(job)}/".encode() for job in sorted(interest.jobs)]
        self._ranges = list(_ranges(interest, keys))
        self._changed = threading.Condition()
        self._told = False
        self._failure: StoreError | None = None
        self._closed = False
        self._next = math.inf
        """When the next run that nobody was told of is due, by our wall clock in milliseconds."""
        self._seen = now().wall
        """Runs that were due by then have been told."""
        self._since = 0
        self._call: Any = None
        self._heard = False
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def start(self) -> EtcdWatch:
        """Changes from now on are told."""
        self._since = self._current()
        self._learn()
        threading.Thread(target=self._listen, name="onceward-etcd-watch", daemon=True).start()
        return self

    def wait(self, timeout: float) -> bool:
        """See ``Watch.wait``."""
        deadline = time.monotonic() + timeout
        asked = 0.0
        while not self._closed:
            if self._jobs and time.monotonic() >= asked + _ASK_AFTER and not self._told:
                self._learn()
                asked = time.monotonic()
            with self._changed:
                if self._told:
                    self._told = False
                    return not self._closed
                if self._failure is not None:
                    failure, self._failure = self._failure, None
                    raise failure
                wall = self._now().wall
                if self._next <= wall:
                    self._seen, self._next = wall, math.inf
                    return not self._closed
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, (self._next - wall) / 1000, _ASK_AFTER))
        return False

    def close(self) -> None:
        """See ``Watch.close``."""
        with self._changed:
            self._closed = True
            call = self._call
            self._changed.notify_all()
        self._forget(self)
        self._requests.put(None)
        if call is not None:
            call.cancel()

    def _current(self) -> int:
        return wire.revision(self._link.call("/etcdserverpb.KV/Range", wire.read(self._names.prefix), reads=True)) + 1

    def _learn(self) -> None:
        """When the next run is due that nobody was told of is known."""
        if not self._jobs:
            return
        since, until = b"%015d" % (self._seen + 1), b"%015d" % (self._now().wall + _LOOK_AHEAD_MS)
        fronts, _ = self._scheduled.look(
            [self._names.prefix + names.SCHEDULED + job for job in self._jobs],
            lambda row, _: wire.read(row + since, row + until, limit=1, keys_only=True),
        )
        moments = [self._names.place_of(first.kvs[0].key).run_at for _, first in fronts if first.kvs]
        with self._changed:
            self._next = min(moments, default=math.inf)

    # -- in the watch's own thread ------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._closed and self._ranges:
            try:
                self._stream()
            except errors.Compacted:
                self._since = 0
                self._tell()
            except StoreError as error:
                self._fail(error)
            except grpc.RpcError as error:
                self._broken(error)
            except Exception as error:  # whatever it is, whoever waits must hear of it
                self._fail(StoreUnavailable(f"the watch on etcd at {self._link.where} has ended: {error!r}"))
            time.sleep(0 if self._closed else _AGAIN_AFTER)

    def _stream(self) -> None:
        """Everything is told until the stream ends."""
        if not self._since:
            self._since = self._current()
        call = self._link.watch(self._asking(self._since))
        with self._changed:
            self._call = call
            if self._closed:
                call.cancel()
        for data in call:
            self._heard = True
            told = wire.told(data)
            if told.compacted:
                raise errors.Compacted(told.reason)
            if told.canceled:
                raise StoreUnavailable(f"etcd at {self._link.where} has ended a watch: {told.reason}")
            self._note(told)

    def _broken(self, error: grpc.RpcError) -> None:
        """A stream that worked is made again; one that has brought nothing at all is told to whoever waits."""
        failure = errors.told(error, self._link.where, reads=True)
        worked, self._heard = self._heard, False
        if isinstance(failure, errors.Compacted):
            self._since = 0
            self._tell()
        elif isinstance(failure, StoreError) and not worked:
            self._fail(failure)

    def _asking(self, since: int) -> Iterator[bytes]:
        for number, (key, end, deletions) in enumerate(self._ranges):
            yield wire.watch(key, end, since=since, deletions=deletions, puts=not deletions, number=number + 1)
        self._requests.get()  # the stream stays open as long as there may be more to ask

    def _note(self, told: wire.Told) -> None:
        look = False
        for event in told.events:
            self._since = max(self._since, event.kv.modified + 1)
            look = self._matters(event) or look
        if look:
            self._tell()

    def _matters(self, event: wire.Event) -> bool:
        """It is worth looking now."""
        kind = event.kv.key[len(self._names.prefix) :][:2]
        if kind == names.SCHEDULED:
            self._told_of(event.kv.key, event.kv.value, event.kv.modified)
            moment = self._names.place_of(event.kv.key).run_at
            if moment > self._now().wall:
                with self._changed:
                    self._next = min(self._next, moment)
                    self._changed.notify_all()
                return False
        if kind == names.RECORD:
            return _decode_status(event.kv.value).status.ended
        return True

    def _tell(self) -> None:
        with self._changed:
            self._told, self._failure = True, None
            self._changed.notify_all()

    def _fail(self, failure: StoreError) -> None:
        with self._changed:
            self._failure = failure
            self._changed.notify_all()


def _ranges(interest: Interest, keys: Names) -> Iterator[tuple[bytes, bytes, bool]]:
    """What is to be watched: from where to where, and whether it is what goes away that matters."""
    for job in sorted(interest.jobs):
        scheduled, held = keys.of(names.SCHEDULED, job, ""), keys.of(names.HOLD, job, "")
        yield scheduled, names.behind(scheduled), False
        yield held, names.behind(held), True
    for name in sorted(interest.locks):
        yield keys.of(names.ALIVE, name), b"", True
    for run in sorted(interest.runs):
        yield keys.record(run), b"", False
    if interest.configs:
        configs = keys.of(names.CONFIG, "")
        yield configs, names.behind(configs), False
