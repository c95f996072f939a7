"""Concurrent calls of one process share trips to the store, and a lone caller pays nothing for it.

Whoever finds nobody under way sets off with its own request at once. Whoever finds somebody under way waits in line.
Who comes back from a trip first sends whatever has gathered, so that the store has something to do, and only then hands
out answers; the next trip is seen through by the first of those whose requests are on it. So batches grow with the load
by themselves, without a timer and without a thread of ours.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Generic, TypeAlias, TypeVar

from onceward.contracts.errors import OutcomeUnknown

Request = TypeVar("Request")
Answer = TypeVar("Answer")
#: Waits for the answers of a trip: one for each request, in order; an exception as an answer is raised to its caller.
Finish: TypeAlias = Callable[[], "Sequence[Answer | BaseException]"]

_INTERRUPTED = OutcomeUnknown("the thread that carried this request was interrupted; send the same request again")


class _Waiting(Generic[Request, Answer]):
    """A request in line. Its lock is released once it is answered, or once it is its turn to see a trip through.

    Answers are handed on: who has got one wakes the ``next`` who has. Waking all at once would only make them wait for
    each other, as one thread at a time runs Python.
    """

    __slots__ = ("answer", "finish", "leads", "next", "others", "request", "turn")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: Answer | BaseException = _INTERRUPTED
        self.next: _Waiting[Request, Answer] | None = None
        self.leads = False
        self.others: Sequence[_Waiting[Request, Answer]] = ()
        self.finish: Finish[Answer] = _interrupted
        self.turn = threading.Lock()
        self.turn.acquire()


class Combiner(Generic[Request, Answer]):
    """Carries requests of all threads, one batch at a time.

    Args:
        set_off: sends the requests of one trip, and answers with what waits for their answers. Neither is called
            before the trip before is over.
        alone: carries the one request of a lone caller there and back, where that takes less than ``set_off`` does.
        most: so many requests go into one trip.
    """

    def __init__(
        self,
        set_off: Callable[[Sequence[Request]], Finish[Answer]],
        *,
        alone: Callable[[Request], Answer | BaseException] | None = None,
        most: int = 256,
    ) -> None:
        self._set_off = set_off
        self._alone = alone or (lambda request: set_off((request,))()[0])
        self._most = most
        self.reset()

    def reset(self) -> None:
        """Nobody is under way and nobody waits; for a forked child, where the other threads are gone."""
        self._under_way = threading.Lock()
        self._line: deque[_Waiting[Request, Answer]] = deque()

    def call(self, request: Request) -> Answer:
        """The answer to ``request``, which may have shared its trip with others."""
        if self._under_way.acquire(blocking=False):
            try:
                answer = self._alone(request)
            finally:
                self._next_trip()
        else:
            answer = self._stand_in_line(request)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def exclusively(self, action: Callable[[], None], *, timeout: float) -> bool:
        """``action`` has run while nothing was under way; False: something was, for all of ``timeout`` seconds."""
        if not self._under_way.acquire(timeout=timeout):
            return False
        try:
            action()
        finally:
            self._next_trip()
        return True

    def _stand_in_line(self, request: Request) -> Answer | BaseException:
        waiting: _Waiting[Request, Answer] = _Waiting(request)
        try:
            self._line.append(waiting)
            if self._under_way.acquire(blocking=False):  # who was under way may have looked at the line before
                self._next_trip()
            waiting.turn.acquire()
        except BaseException:  # Ctrl-C: others rely on this place in the line, so somebody else takes it
            threading.Thread(target=self._take_place, args=(waiting,), daemon=True).start()
            raise
        return self._take_turn(waiting)

    def _take_place(self, waiting: _Waiting[Request, Answer]) -> None:
        waiting.turn.acquire()
        self._take_turn(waiting)

    def _take_turn(self, waiting: _Waiting[Request, Answer]) -> Answer | BaseException:
        if waiting.leads:
            return self._see_through(waiting.finish, waiting.others)
        if waiting.next is not None:
            waiting.next.turn.release()
        return waiting.answer

    def _see_through(
        self, finish: Finish[Answer], others: Sequence[_Waiting[Request, Answer]]
    ) -> Answer | BaseException:
        """Wait for the trip's answers, send the next trip on its way, then hand the answers on; the first is ours."""
        try:
            answer, *answers = finish()
            for other, theirs in zip(others, answers, strict=True):
                other.answer = theirs
            return answer
        finally:
            try:
                self._next_trip()
            finally:
                if others:
                    others[0].turn.release()

    def _next_trip(self) -> None:
        """What has gathered is on its way, or nobody is under way; called by whoever was."""
        while not self._line:
            self._under_way.release()
            if not self._line or not self._under_way.acquire(blocking=False):
                return
        first, *others = trip = [self._line.popleft() for _ in range(min(len(self._line), self._most))]
        for other, following in pairwise(others):
            other.next = following
        first.leads, first.others = True, others
        try:
            first.finish = self._set_off([waiting.request for waiting in trip])
        finally:
            first.turn.release()


def undivided(
    carry: Callable[[Sequence[Request]], Sequence[Answer | BaseException]],
) -> Callable[[Sequence[Request]], Finish[Answer]]:
    """A way to set off that leaves all of the trip, which cannot be sent ahead, to who sees it through."""
    return lambda requests: partial(carry, requests)


def _interrupted() -> Sequence[BaseException]:
    raise _INTERRUPTED
