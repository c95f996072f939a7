"""What can be configured about the SQLite runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult, unquote

import msgspec

from onceward.contracts.errors import StoreMisconfigured

Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of the SQLite runner.

    Attributes:
        path: of the database file; relative to the working directory when the runner is made. It belongs on a local
            file system: SQLite's locks and shared memory do not work over a network.
        synchronous: when SQLite waits for the disk. "FULL" (or "EXTRA"): an acknowledged write survives a power cut.
            "NORMAL", "OFF": it survives the end of every process, but a power cut may undo the latest ones.
        create: the file is made if it is not there.
        busy_timeout_ms: how long a request waits for other processes' transactions before it is given up.
    """

    path: str = "onceward.db"
    synchronous: Synchronous = "FULL"
    create: bool = True
    busy_timeout_ms: int = 5_000

    def __post_init__(self) -> None:
        if not 0 <= self.busy_timeout_ms <= 3_600_000:
            raise ValueError("busy_timeout_ms: allowed are 0 to 3600000 (an hour)")


def from_url(url: SplitResult) -> Mapping[str, object]:
    """``sqlite:///jobs.db`` is relative to the working directory, ``sqlite:////var/lib/jobs.db`` absolute."""
    if url.netloc and url.netloc != "localhost":
        raise StoreMisconfigured(
            f"sqlite://{url.netloc}... names a host, and SQLite has none: "
            f"write sqlite:///{url.netloc}{url.path} for a relative path, or sqlite:////... for an absolute one"
        )
    path = unquote(url.path)[1:]
    return {"path": path} if path else {}
