"""A gate that holds each message until it is told what becomes of it: concurrency, one step at a time."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from dataclasses import dataclass

from onceward.conformance.faults.framing import Dialect
from onceward.conformance.faults.plan import DELIVERED, Message, Plan, Treatment, Way
from onceward.conformance.faults.proxy import Proxy
from onceward.conformance.verdicts import CouldNotRun

#: A client that neither asks nor answers for so long hangs.
PATIENCE = 15.0


class Held:
    """A message that waits at the gate."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._loop = asyncio.get_running_loop()
        self._decision: asyncio.Future[Treatment] = self._loop.create_future()

    @property
    def way(self) -> Way:
        return self.message.way

    def decide(self, treatment: Treatment) -> None:
        """The message meets this fate now; nothing happens if its connection has ended meanwhile."""
        self._loop.call_soon_threadsafe(self._settle, treatment)

    def _settle(self, treatment: Treatment) -> None:
        if not self._decision.done():
            self._decision.set_result(treatment)

    async def wait(self) -> Treatment:
        """What was decided."""
        return await self._decision


@dataclass(frozen=True, slots=True)
class Finished:
    """A client's operation has ended; ``error`` is what it raised."""

    answer: object = None
    error: BaseException | None = None


class Gate(Plan):
    """Holds what mentions a name while it is shut, and tells whoever waits for the next event of its one client.

    Attributes:
        mention: messages without it pass.
        shut: nothing passes without a decision.
    """

    def __init__(self, mention: bytes) -> None:
        self.mention = mention
        self.shut = True
        self._events: queue.SimpleQueue[Held | Finished] = queue.SimpleQueue()

    async def treat(self, message: Message) -> Treatment:
        if not self.shut or not message.mentions(self.mention):
            return DELIVERED
        held = Held(message)
        self._events.put(held)
        return await held.wait()

    def finished(self, call: Callable[[], object]) -> None:
        """The operation was carried out (in the caller's thread) and its end is the client's next event."""
        try:
            answer = call()
        except BaseException as error:  # what came out of the client is for the controller to judge
            self._events.put(Finished(error=error))
        else:
            self._events.put(Finished(answer))

    def next(self) -> Held | Finished:
        """What the client does next.

        Raises:
            CouldNotRun: it hangs.
        """
        try:
            return self._events.get(timeout=PATIENCE)
        except queue.Empty:
            raise CouldNotRun(f"a client has neither asked nor answered for {PATIENCE:.0f} s") from None


def gated(target: tuple[str, int], dialect: Dialect, mention: bytes) -> tuple[Proxy, Gate]:
    """A proxy, not started yet, that is a gate for one client."""
    gate = Gate(mention)
    return Proxy(target, dialect, gate), gate
