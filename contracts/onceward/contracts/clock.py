"""The two clocks of an embedded store, so that tests and users can move them."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Milliseconds; leases are judged by ``elapsed_ms``, due times by ``wall_ms``."""

    def elapsed_ms(self) -> int:
        """Time since an epoch of this boot: never jumps, the same for all processes of the machine."""
        ...

    def wall_ms(self) -> int:
        """UTC, in milliseconds since 1970."""
        ...
