"""Two small plots as SVG text: dots with whiskers on a logarithmic axis, and lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from onceward.benchmarks.report.wording import short
from onceward.benchmarks.stats import Spread

_WIDTH, _LABELS, _ROW = 760, 230, 24
_LEFT, _TOP, _HEIGHT, _FOOT = 70, 16, 260, 46
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One row of a dot plot."""

    label: str
    value: Spread
    style: str = "runner"


def dots(rows: Sequence[Dot], *, unit: str) -> str:
    """One row per dot, the whisker from p10 to p90, on an axis of powers of ten."""
    low, high = _decades([row.value.p10 for row in rows], [row.value.p90 for row in rows])
    height = len(rows) * _ROW + 34

    def x(value: float) -> float:
        return _LABELS + (_WIDTH - _LABELS - 20) * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    parts = [_open(height, f"{unit}, one row per contestant")]
    for power in range(low, high + 1):
        parts.append(
            f'<line class="grid" x1="{x(10.0**power):.1f}" x2="{x(10.0**power):.1f}" y1="0" y2="{height - 30}"/>'
        )
        parts.append(_text(x(10.0**power), height - 16, short(10.0**power), "middle"))
    parts.append(_text(_WIDTH - 20, height - 2, unit, "end"))
    for number, row in enumerate(rows):
        y = number * _ROW + _ROW / 2
        spread = row.value
        parts.append(_text(_LABELS - 10, y + 4, row.label, "end"))
        parts.append(f'<line class="{row.style}" x1="{x(spread.p10):.1f}" x2="{x(spread.p90):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<circle class="{row.style}" cx="{x(spread.median):.1f}" cy="{y}" r="5">'
            f"<title>{escape(row.label)}: {spread.median:,.0f} ({spread.p10:,.0f} to {spread.p90:,.0f})</title>"
            "</circle>"
        )
    return "".join([*parts, "</svg>"])


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], *, across: str, up: str, logarithmic: bool = False
) -> str:
    """One line per series over a common axis; ``logarithmic`` is the axis across. Upwards it starts at zero."""
    points = [point for each in series.values() for point in each]
    top = max(value for _, value in points) * 1.1 or 1.0
    ends = [_position(value, logarithmic) for value, _ in points]
    first, span = min(ends), (max(ends) - min(ends)) or 1.0

    def x(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 30) * (_position(value, logarithmic) - first) / span

    def y(value: float) -> float:
        return _TOP + _HEIGHT * (1 - value / top)

    parts = [_open(_TOP + _HEIGHT + _FOOT + 18 * len(series), f"{up} against {across}")]
    for step in range(5):
        value = top * step / 4
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 30}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(_text(_LEFT - 8, y(value) + 4, short(value), "end"))
    ticks = _ticks([value for value, _ in points])
    parts.extend(_text(x(value), _TOP + _HEIGHT + 18, short(value), "middle") for value in ticks)
    parts.append(_text(_WIDTH - 30, _TOP + _HEIGHT + 36, f"{across}; upwards: {up}", "end"))
    for number, (name, each) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(value):.1f},{y(height):.1f}" for value, height in each)
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>')
        parts.extend(f'<circle fill="{colour}" cx="{x(v):.1f}" cy="{y(h):.1f}" r="2.5"/>' for v, h in each)
        legend = _TOP + _HEIGHT + _FOOT + 18 * number
        parts.append(f'<rect fill="{colour}" x="{_LEFT}" y="{legend}" width="12" height="12"/>')
        parts.append(_text(_LEFT + 18, legend + 10, name, "start"))
    return "".join([*parts, "</svg>"])


def _open(height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label, quote=True)}">'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _decades(lows: Sequence[float], highs: Sequence[float]) -> tuple[int, int]:
    """The powers of ten that enclose all values."""
    low = math.floor(math.log10(max(min(lows), 1e-9)))
    high = math.ceil(math.log10(max(*highs, 1e-9)))
    return low, max(high, low + 1)


def _position(value: float, logarithmic: bool) -> float:
    return math.log10(max(value, 1.0)) if logarithmic else value


def _ticks(values: Sequence[float]) -> Sequence[float]:
    """A few of the places where there is something to see."""
    places = sorted(set(values))
    return places if len(places) <= 6 else [places[round(step * (len(places) - 1) / 5)] for step in range(6)]
