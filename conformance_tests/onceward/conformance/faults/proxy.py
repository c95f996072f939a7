"""A proxy between a store's clients and its server that loses, delays and repeats messages. Needs no rights.

One thread with one event loop serves all connections. Within a direction of a connection messages stay in order, so
one that is held back holds back what follows it, as in a network.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

from onceward.conformance.faults.frames import Framer
from onceward.conformance.faults.framing import WHOLE, Dialect
from onceward.conformance.faults.plan import Deliver, Fate, Message, Plan, Way

T = TypeVar("T")

_CHUNK = 65536
_ANSWERED_WITHIN = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

#: What counts as a fault, and how reports call it.
_FAULTS = {
    (Way.REQUEST, Fate.LOSE): "request lost",
    (Way.REPLY, Fate.LOSE): "reply lost",
    (Way.REQUEST, Fate.RESET): "connection reset within a request",
    (Way.REPLY, Fate.RESET): "connection reset within a reply",
}
LATE = {Way.REQUEST: "request delivered late", Way.REPLY: "reply delivered late"}
TWICE = "request delivered twice"
REFUSED = "connection refused"
BLACKHOLE = "message held in a blackhole"


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Proxy:
    """Listens on a free port of this machine and passes everything on to ``target``, as ``plan`` says.

    Attributes:
        plan: may be exchanged at any time.
        faults: what was really done, by name.
    """

    def __init__(self, target: tuple[str, int], dialect: Dialect = WHOLE, plan: Plan | None = None) -> None:
        self.target = Address(*target)
        self.dialect = dialect
        self.plan: Plan = plan or Deliver()
        self.faults: Counter[str] = Counter()
        self.refusing = False
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="onceward-proxy", daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname()[:2])
        self._healed = asyncio.Event()
        self._healed.set()

    def start(self) -> Self:
        """Connections are taken."""
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, sock=self._listener))
        return self

    def close(self) -> None:
        """No connection and no thread is left. May be called twice."""
        if self._loop.is_closed():
            return
        if self._thread.is_alive():
            self._run(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._listener.close()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what tests do ------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Every connection has ended, whatever was under way; the answer is how many there were."""
        return self._run(self._cut())

    def refuse(self, refusing: bool = True) -> None:
        """New connections are closed at once (or taken again); those that stand go on."""
        self.refusing = refusing

    def blackhole(self) -> None:
        """From now on nothing arrives, and nobody is told."""
        self._run(self._set_healed(False))

    def heal(self) -> None:
        """What the blackhole held arrives, and everything after it."""
        self._run(self._set_healed(True))

    def redeliver(self, message: Message) -> bytes:
        """A request has arrived once more, on a connection of its own; the answer is the reply that nobody gets."""
        return self._run(self.deliver_again(message))

    # -- in the thread of the proxy -----------------------------------------------------------------------------

    async def deliver_again(self, message: Message) -> bytes:
        """See ``redeliver``."""
        reader, writer = await asyncio.open_connection(*self.target)
        framer = self.dialect.replies()
        reply = b""
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN):
                for data in (message.alone,) if message.alone else (*message.greeting, message.data):
                    writer.write(data)
                    reply = await _one_reply(reader, framer)
        finally:
            writer.close()
        self.faults[TWICE] += 1
        return reply

    async def way_is_open(self) -> None:
        """The blackhole, if there is one, has healed."""
        if not self._healed.is_set():
            self.faults[BLACKHOLE] += 1
            await self._healed.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.faults[REFUSED] += 1
            _end(writer, reset=True)
            return
        try:
            upstream = await asyncio.open_connection(*self.target)
        except OSError:
            _end(writer)
            return
        link = _Link(self, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.serve()
        except asyncio.CancelledError:
            pass  # the proxy is closed: nobody waits for this task, and asyncio would write to the log
        finally:
            self._links.discard(link)

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.end()
        return len(links)

    async def _set_healed(self, healed: bool) -> None:
        (self._healed.set if healed else self._healed.clear)()

    async def _stop(self) -> None:
        self._server.close()
        await self._cut()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One client's connection and its counterpart at the server."""

    def __init__(self, proxy: Proxy, client: _Streams, server: _Streams) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._greeting: tuple[bytes, ...] = ()
        self._asked: dict[int, Message] = {}
        self._again: set[int] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> None:
        """The connection has ended, and all that it had sent before was delivered, or lost on purpose."""
        for _, writer in (self._client, self._server):
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        requests = asyncio.create_task(self._requests())
        replies = asyncio.create_task(self._replies())
        self._tasks = [requests, replies]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if requests.done() and not replies.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ANSWERED_WITHIN):
                        await self._quiet.wait()
        finally:
            self.end()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def end(self, *, reset: bool = False) -> None:
        """Both sides are closed; the client's is reset if asked so."""
        _end(self._client[1], reset=reset)
        _end(self._server[1])
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _requests(self) -> None:
        framer = self._proxy.dialect.requests()
        while data := await _some(self._client[0]):
            for frame in framer.feed(data):
                if frame.control:
                    await self._pass_control(frame.data, self._server[1])
                    continue
                message = Message(Way.REQUEST, frame.data, self._greeting, alone=frame.alone)
                if frame.answered and frame.number is not None:
                    self._asked[frame.number] = message
                    self._quiet.clear()
                fate = await self._pass(message, self._server[1])
                if greeting := self._proxy.dialect.greeting(frame.data):
                    self._greeting += (greeting,)
                if fate is Fate.DUPLICATE and frame.number is not None:
                    self._again.add(frame.number)
                elif fate is not Fate.DELIVER:
                    return

    async def _replies(self) -> None:
        framer = self._proxy.dialect.replies()
        while data := await _some(self._server[0]):
            for frame in framer.feed(data):
                if frame.control:
                    await self._pass_control(frame.data, self._client[1])
                    continue
                asked = self._asked.pop(frame.number, None) if frame.number is not None else None
                if asked is not None and frame.number in self._again:
                    with suppress(OSError):
                        await self._proxy.deliver_again(asked)
                fate = await self._pass(Message(Way.REPLY, frame.data, request=asked), self._client[1])
                if not self._asked:
                    self._quiet.set()
                if fate is not Fate.DELIVER:
                    return

    async def _pass_control(self, data: bytes, to: asyncio.StreamWriter) -> None:
        await self._proxy.way_is_open()
        to.write(data)
        with suppress(OSError):
            await to.drain()

    async def _pass(self, message: Message, to: asyncio.StreamWriter) -> Fate:
        """The message has met its fate. After one that did not arrive, the connection has ended."""
        treatment = await self._proxy.plan.treat(message)
        faults = self._proxy.faults
        if treatment.after:
            await asyncio.sleep(treatment.after)
            faults[LATE[message.way]] += 1
        await self._proxy.way_is_open()
        fate = treatment.fate
        if fate is Fate.DUPLICATE and message.way is Way.REPLY:
            fate = Fate.DELIVER  # a client has no use for two
        if (message.way, fate) in _FAULTS:
            faults[_FAULTS[message.way, fate]] += 1
        if fate is not Fate.LOSE:
            to.write(message.data if fate is not Fate.RESET else message.data[: max(1, len(message.data) // 2)])
            with suppress(OSError):
                await to.drain()
        if fate in (Fate.LOSE, Fate.RESET):
            self.end(reset=fate is Fate.RESET)
        return fate


async def _some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_CHUNK)
    except OSError:
        return b""


async def _one_reply(reader: asyncio.StreamReader, framer: Framer) -> bytes:
    while True:
        data = await reader.read(_CHUNK)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        for frame in framer.feed(data):
            if frame.number is not None:
                return frame.data


def _end(writer: asyncio.StreamWriter, *, reset: bool = False) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    if reset and sock is not None and sock.fileno() != -1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        writer.transport.abort()
        return
    writer.close()
