"""Clocks for the embedded stores: the machine's, and one that tests (and users' tests) move by hand."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from onceward.contracts.times import span_ms, to_ms

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    """The machine's clocks. ``elapsed_ms`` never jumps and goes on while the machine sleeps, where the system can."""

    def __init__(self) -> None:
        self._source = getattr(time, "CLOCK_BOOTTIME", None)

    def elapsed_ms(self) -> int:
        """Milliseconds since the machine's boot, the same for all of its processes."""
        if self._source is None:
            return time.monotonic_ns() // 1_000_000
        return time.clock_gettime_ns(self._source) // 1_000_000

    def wall_ms(self) -> int:
        """UTC, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until it is moved. Thread-safe."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._lock = threading.Lock()
        self._elapsed = 1_000_000
        self._wall = to_ms(start)

    def elapsed_ms(self) -> int:
        """The lease clock."""
        return self._elapsed

    def wall_ms(self) -> int:
        """The due clock."""
        return self._wall

    def advance(self, by: timedelta) -> None:
        """Time passes: both clocks go on."""
        with self._lock:
            self._elapsed += span_ms(by)
            self._wall += span_ms(by)

    def jump_wall(self, by: timedelta) -> None:
        """Somebody sets the wall clock, forward or back; the lease clock does not notice."""
        with self._lock:
            self._wall += span_ms(by)


def boot_id() -> str:
    """A text that is the same until the machine boots again, and for all of its processes.

    Linux has one; macOS too, behind sysctl. Elsewhere "" is the answer: then a store cannot tell a boot from a
    clock that stands earlier than it did, and must treat that as a boot.
    """
    if _BOOT_ID.exists():
        return _BOOT_ID.read_text(encoding="ascii").strip()
    if sys.platform == "darwin":
        return _sysctl("kern.bootsessionuuid")
    return ""


def _sysctl(name: str) -> str:
    library = ctypes.CDLL(ctypes.util.find_library("c"))
    size = ctypes.c_size_t(256)
    buffer = ctypes.create_string_buffer(size.value)
    failed = library.sysctlbyname(name.encode(), buffer, ctypes.byref(size), None, 0)
    return "" if failed else buffer.value.decode("ascii", "replace")
