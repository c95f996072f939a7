"""What is said about many measurements: medians with their spread, percentiles, and ratios of paired rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A median, and the range in which four of five measurements lie."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        ranked = sorted(values)
        return cls(median=percentile(ranked, 50), p10=percentile(ranked, 10), p90=percentile(ranked, 90))


def percentile(ranked: Sequence[float], percent: float) -> float:
    """The value below which ``percent`` of the sorted values lie, interpolated between neighbours.

    Raises:
        ValueError: there are no values.
    """
    if not ranked:
        raise ValueError("a percentile needs at least one value")
    place = (len(ranked) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def ratios(rates: Sequence[float], of: Sequence[float]) -> Spread:
    """How many times ``of`` the rates are, round by round, so that what slows both down cancels out."""
    return Spread.of([rate / base for rate, base in zip(rates, of, strict=True)])
