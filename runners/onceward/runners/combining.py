"""Concurrent calls of one process share trips to the store, and a lone caller pays nothing for it.

Whoever finds nobody under way carries its own request at once. Whoever finds somebody under way waits in line; when
the trip is over, the first in line carries everything that has gathered. So batches grow with the load by themselves,
without a timer and without a thread of ours.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

from onceward.contracts.errors import OutcomeUnknown

Request = TypeVar("Request")
Answer = TypeVar("Answer")


_INTERRUPTED = OutcomeUnknown("the thread that carried this request was interrupted; send the same request again")


class _Waiting(Generic[Request, Answer]):
    """A request in line. Its lock is released once it is answered, or once it is its turn to lead.

    Answers are handed on: who has got one wakes the ``next`` who has. Waking all at once would only make them wait for
    each other, as one thread at a time runs Python.
    """

    __slots__ = ("answer", "leads", "next", "request", "turn")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: Answer | BaseException = _INTERRUPTED
        self.leads = False
        self.next: _Waiting[Request, Answer] | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class Combiner(Generic[Request, Answer]):
    """Carries requests of all threads, one batch at a time.

    Args:
        carry: one trip: an answer for each request, in order; an exception as an answer is raised to its caller.
            Called by one thread at a time.
        most: so many requests go into one trip.
    """

    def __init__(
        self,
        carry: Callable[[Sequence[Request]], Sequence[Answer | BaseException]],
        *,
        most: int = 256,
    ) -> None:
        self._carry = carry
        self._most = most
        self.reset()

    def reset(self) -> None:
        """Nobody is under way and nobody waits; for a forked child, where the other threads are gone."""
        self._leading = threading.Lock()
        self._line: deque[_Waiting[Request, Answer]] = deque()

    def call(self, request: Request) -> Answer:
        """The answer to ``request``, which may have shared its trip with others."""
        alone = self._leading.acquire(blocking=False)
        answer = self._lead(request) if alone else self._stand_in_line(request)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def _stand_in_line(self, request: Request) -> Answer | BaseException:
        waiting: _Waiting[Request, Answer] = _Waiting(request)
        self._line.append(waiting)
        self._next_leader()  # the one that was under way may have looked at the line before
        waiting.turn.acquire()
        if waiting.leads:
            return self._lead(request)
        if waiting.next is not None:
            waiting.next.turn.release()
        return waiting.answer

    def exclusively(self, action: Callable[[], None], *, timeout: float) -> bool:
        """``action`` has run while nothing was under way; False: something was, for all of ``timeout`` seconds."""
        if not self._leading.acquire(timeout=timeout):
            return False
        try:
            action()
        finally:
            self._leading.release()
            self._next_leader()
        return True

    def _lead(self, request: Request) -> Answer | BaseException:
        """Carry this request and those in line; called with ``_leading`` held, which is released here."""
        others: list[_Waiting[Request, Answer]] = []
        try:
            if not self._line:
                return self._carry((request,))[0]
            others = self._taken_along()
            answer, *answers = self._carry([request, *(other.request for other in others)])
            for other, theirs in zip(others, answers, strict=True):
                other.answer = theirs
            return answer
        finally:
            self._leading.release()
            if self._line:  # before answers are handed out, so that the store has something to do meanwhile
                self._next_leader()
            if others:
                others[0].turn.release()

    def _taken_along(self) -> list[_Waiting[Request, Answer]]:
        others = [self._line.popleft() for _ in range(min(len(self._line), self._most - 1))]
        for other, following in pairwise(others):
            other.next = following
        return others

    def _next_leader(self) -> None:
        """If nobody is under way, the first in line is told to lead."""
        while self._line and self._leading.acquire(blocking=False):
            try:
                first = self._line.popleft()
            except IndexError:  # somebody else took it along
                self._leading.release()
                continue
            first.leads = True
            first.turn.release()
            return
