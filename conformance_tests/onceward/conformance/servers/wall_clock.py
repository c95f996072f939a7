"""A wall clock of a server's own, which a test sets while the server runs: as when somebody sets a machine's clock."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from onceward.conformance.servers.process import ServerMissing

_ADVICE = "install it (Debian: apt-get install gcc libc6-dev)"
_OFFSET = struct.Struct("=q")


class WallClock:
    """The machine's clock, until it is set. For servers that read the time through libc, such as Redis and MongoDB.

    Attributes:
        environment: makes a server that is started with it go by this clock.

    Raises:
        ServerMissing: there is no C compiler, or the system has no preloading of libraries.
    """

    def __init__(self) -> None:
        library = _library()
        self._folder = Path(tempfile.mkdtemp(prefix="onceward-clock-"))
        path = self._folder / "offset"
        path.write_bytes(_OFFSET.pack(0))
        with path.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), _OFFSET.size)
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "ONCEWARD_CLOCK": str(path)}

    def jump(self, by: timedelta) -> None:
        """The clock was set forward, or back, by so much."""
        (before,) = _OFFSET.unpack(self._offset[:])
        self._offset[:] = _OFFSET.pack(before + by // timedelta(microseconds=1))

    def close(self) -> None:
        """No file of it is left; servers that go by it keep the time that they have."""
        self._offset.close()
        shutil.rmtree(self._folder, ignore_errors=True)


@cache
def _library() -> Path:
    """The shim, compiled; kept as long as this process."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not sys.platform.startswith("linux"):
        raise ServerMissing("a server's clock can be set on Linux only")
    if compiler is None:
        raise ServerMissing(f"a C compiler is not installed; {_ADVICE}")
    folder = tempfile.TemporaryDirectory(prefix="onceward-clock-")
    _kept.append(folder)
    library = Path(folder.name) / "clock_shim.so"
    with as_file(files("onceward.conformance.servers") / "clock_shim.c") as source:
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise ServerMissing(f"the C compiler could not make a library; {_ADVICE}. It said: {done.stderr[-500:]}")
    return library


_kept: list[tempfile.TemporaryDirectory[str]] = []
