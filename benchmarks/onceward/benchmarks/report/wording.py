"""How figures and measures are written, in tables and on the page alike."""

from __future__ import annotations

from onceward.benchmarks.records import End, Environment, Footprint, Idle, Result, Row, Verdict
from onceward.benchmarks.stats import Spread

_MIB = 1024 * 1024

EXPLAINED = (
    "Medians over interleaved rounds, with the range from the 10th to the 90th percentile of the rounds. "
    "Latencies are of single calls. 'of raw' is the rate in relation to the raw driver's round trips, with the same "
    "durability, in the same round: as many upserts as the call has round trips, in one transaction per batch."
)


def measure(row: Result) -> str:
    """What was measured, for people."""
    parts = [row.title]
    if row.batch > 1:
        parts.append(f"batches of {row.batch}")
    if row.threads > 1:
        parts.append(f"{row.threads} threads")
    return ", ".join(parts)


def rate(spread: Spread) -> str:
    """Items per second."""
    return f"{spread.median:,.0f}"


def between(spread: Spread) -> str:
    """The range of a rate."""
    return f"{short(spread.p10)}–{short(spread.p90)}"


def short(value: float) -> str:
    """Three digits, with k or M behind them where the number is large."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def ratio(spread: Spread | None) -> str:
    """A ratio with its range; a dash where there is none."""
    return "–" if spread is None else f"{spread.median:.2f} ({spread.p10:.2f}–{spread.p90:.2f})"


def micros(value: float) -> str:
    """Microseconds, to three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def mebibytes(size: float) -> str:
    """Bytes in MiB."""
    return f"{size / _MIB:,.1f} MiB"


def footprint(row: Footprint) -> str:
    """How large the process was, and what that makes per check-in."""
    first, last = row.points[0], row.points[-1]
    grown = last.resident - first.resident
    each = (
        f", {grown / (last.done - first.done):,.1f} bytes per {row.what.removesuffix('s')}"
        if last.done > first.done
        else ""
    )
    inside = "; the store's records lie in the process" if row.inside else ""
    return f"{mebibytes(first.resident)} to {mebibytes(last.resident)}{each}{inside}"


def idle(row: Idle) -> str:
    """How much of a core it took."""
    return f"{row.share:.2%} of a core"


def verdict(row: Verdict) -> str:
    """What was measured for a target, and what was wanted."""
    measured = (
        "nothing" if row.measured is None else f"{row.measured:.2g}" if row.measured < 0.1 else f"{row.measured:.2f}"
    )
    note = f", {row.note}" if row.note else ""
    return f"{measured} ({row.bound}{note})"


def environment(row: Environment) -> str:
    """Where and how it was measured."""
    load = "" if row.load is None else f", load {row.load}"
    quick = ", quick" if row.quick else ""
    return (
        f"{row.started:%Y-%m-%d %H:%M} UTC, onceward {row.onceward}, Python {row.python}, SQLite {row.sqlite}, "
        f"{row.system} {row.machine}, {row.cpus} CPUs{load}; "
        f"{row.rounds} rounds of {row.lap_seconds:g} s per lap{quick}"
    )


def end(row: End) -> str:
    """How it ended."""
    load = "" if row.load is None else f", load {row.load} at the end"
    state = "complete" if row.complete else "INTERRUPTED: what stands here was measured before"
    return f"{state}, after {row.seconds:,.0f} s{load}"


def unfinished(row: Row) -> str:
    """A mark on what was interrupted."""
    return " (incomplete)" if getattr(row, "complete", True) is False else ""
