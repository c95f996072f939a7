"""A server as a child process: private, on this machine only, and gone when its user is."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_READY_WITHIN = 20.0
_ENDS_WITHIN = 10.0
_LOOK_EVERY = 0.02
#: Somebody else may take a port between our finding it free and the server's binding it.
PORTS_TRIED = 5
_LOWEST_PORT = 10_000
#: Linux keeps what is written here in memory; servers that sync their files then do not wait for each other's disk.
_MEMORY, _ROOM = "/dev/shm", 4 * 1024**3
_RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class ServerMissing(Exception):
    """There is no such server here; the text says how to get one.

    Tests skip for it on a laptop and fail where ``CI`` is set: see ``excusable``.
    """

    @property
    def excusable(self) -> bool:
        """True where it is nobody's fault that the server is missing."""
        return os.environ.get("CI", "").lower() in ("", "0", "false")


def find_binary(name: str, *, advice: str) -> str:
    """The path of a program.

    Raises:
        ServerMissing: it is not installed; ``advice`` says how to get it.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin")
    if found is None:
        raise ServerMissing(f"{name} is not installed; {advice}")
    return found


def free_port() -> int:
    """A port that nobody listens on now.

    It is none that the system gives to clients: else a connection could take it while its server is down for a moment.
    """
    end = _first_of_clients()
    while True:
        port = _LOWEST_PORT + secrets.randbelow(end - _LOWEST_PORT)  # not seeded: other processes look for ports too
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def _first_of_clients() -> int:
    """Below it are no ports of clients; as Linux has it by default where the system does not tell."""
    with suppress(OSError, ValueError):
        first = int(_RANGE_OF_CLIENTS.read_text().split()[0])
        if first > _LOWEST_PORT + 1_000:
            return first
    return 32_768


def in_memory() -> str | None:
    """A folder whose files are in memory, if there is one with room for the data of a few servers."""
    try:
        room = os.statvfs(_MEMORY)
    except (OSError, AttributeError):
        return None
    return _MEMORY if os.access(_MEMORY, os.W_OK) and room.f_bavail * room.f_frsize >= _ROOM else None


class ServerProcess(ABC):
    """One server in one folder. It may be killed and started again on the same data and the same port.

    Attributes:
        port: where it listens, on 127.0.0.1.
        folder: its data and its log; gone after ``close``.
        environment: what is in its environment besides what is in ours.
        on_disk: the folder is on a disk. Otherwise it is in memory where the system has room for that: kills, stops and
            restarts of the server show the same there, and only a power cut would not.
    """

    name = "server"
    on_disk = False

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"onceward-{self.name}-", dir=None if self.on_disk else in_memory()))
        self.environment: Mapping[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        _all.add(self)

    @property
    @abstractmethod
    def url(self) -> str:
        """How to reach it."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The command line that starts it in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """True once it answers."""

    @property
    def log(self) -> str:
        """What it has written so far."""
        path = self.folder / "server.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """It runs and answers; on another port, if this one was taken the first time."""
        for tried in range(PORTS_TRIED):
            self.spawn()
            if self._await_ready():
                return self
            self.kill()
            if "in use" not in self.log or tried == PORTS_TRIED - 1:
                break
            self.port = free_port()
        raise RuntimeError(f"{self.name} did not start within {_READY_WITHIN} seconds:\n{self.log[-2000:]}")

    def spawn(self) -> None:
        """Its process runs; nobody has waited for it to answer."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await_ready(self) -> bool:
        assert self._process is not None  # just started
        until = time.monotonic() + _READY_WITHIN
        while time.monotonic() < until and self._process.poll() is None:
            if self.ready():
                return True
            time.sleep(_LOOK_EVERY)
        return False

    @property
    def running(self) -> bool:
        """True while its process exists, also if it is paused."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """The server gets a signal."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def pause(self) -> None:
        """It does nothing any more, and its connections stay open."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on where it was paused."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone at once, with no chance to write anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """It has ended in an orderly way."""
        self._end(signal.SIGTERM)

    def _end(self, how: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, how)
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_ENDS_WITHIN)

    def restart(self) -> None:
        """It was killed and runs again, on the same data."""
        self.kill()
        self.start()

    def close(self) -> None:
        """No process and no file of it is left. May be called twice."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        _all.discard(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_all: weakref.WeakSet[ServerProcess] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for server in list(_all):
        server.close()
