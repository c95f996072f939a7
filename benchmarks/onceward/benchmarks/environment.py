"""Where a benchmark ran: what a reader needs to know before comparing figures."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
from datetime import UTC, datetime

from onceward.benchmarks.records import Environment
from onceward.benchmarks.rounds import Pace


def environment(pace: Pace, *, quick: bool) -> Environment:
    """This machine, now."""
    return Environment(
        started=datetime.now(UTC),
        onceward=_version(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        cpus=os.cpu_count() or 1,
        load=load(),
        quick=quick,
        rounds=pace.rounds,
        lap_seconds=pace.seconds,
    )


def load() -> float | None:
    """The load average of the last minute, where the system has one."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version() -> str:
    try:
        return importlib.metadata.version("onceward")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
