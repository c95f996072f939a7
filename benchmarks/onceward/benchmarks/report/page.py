"""The rows as one HTML page that needs nothing else: no script, no font, no picture from anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from onceward.benchmarks.records import (
    LENGTH,
    Absent,
    Broken,
    Comparison,
    End,
    Environment,
    Footprint,
    Idle,
    Result,
    Role,
    Row,
    Verdict,
)
from onceward.benchmarks.report import wording
from onceward.benchmarks.report.plots import Dot, dots, lines
from onceward.benchmarks.report.tables import of

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2937; --paper: #ffffff; --faint: #9ca3af; --rule: #e5e7eb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7eb; --paper: #111827; --faint: #6b7280; --rule: #374151; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--rule); }
td.figure { text-align: right; white-space: nowrap; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.grid { stroke: var(--rule); }
line.runner { stroke: #2563eb; stroke-width: 3; } circle.runner { fill: #2563eb; }
line.raw { stroke: var(--faint); stroke-width: 3; } circle.raw { fill: var(--faint); }
line.peer { stroke: #d97706; stroke-width: 3; } circle.peer { fill: #d97706; }
.runner { color: #2563eb; } .raw { color: var(--faint); } .peer { color: #d97706; }
.met { color: #059669; } .missed { color: #dc2626; }
"""


def page(rows: Sequence[Row]) -> str:
    """A whole document: targets first, then a plot per measure, then all figures."""
    body = "\n".join(_parts(rows))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Onceward benchmark</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _parts(rows: Sequence[Row]) -> Iterator[str]:
    results = of(Result, rows)
    yield "<h1>Onceward benchmark</h1>"
    yield from _paragraphs(wording.environment(row) for row in of(Environment, rows))
    yield from _paragraphs(wording.end(row) for row in of(End, rows))
    if verdicts := of(Verdict, rows):
        yield "<h2>Targets</h2>" + _verdicts(verdicts)
    if results:
        yield "<h2>Rates</h2>"
        yield from _paragraphs([wording.EXPLAINED])
        yield '<p><b class="runner">● Onceward</b> <b class="raw">● raw driver</b> <b class="peer">● peer</b></p>'
        yield from _rate_plots([row for row in results if row.measure != LENGTH])
    if comparisons := of(Comparison, rows):
        yield "<h2>In the same rounds</h2>" + _comparisons(comparisons)
    yield from _length_plot(results)
    for what in ("check-ins", "jobs"):
        yield from _memory_plot([row for row in of(Footprint, rows) if not row.inside and row.what == what])
    yield from _paragraphs(
        f"Idle job server, {row.contestant}: {wording.idle(row)} in {row.seconds:.0f} s" for row in of(Idle, rows)
    )
    if results:
        yield "<h2>All figures</h2>" + _figures(results)
    yield from _paragraphs(dict.fromkeys(f"{row.contestant}: {row.note}" for row in results if row.note))
    yield from _paragraphs(f"Not measured: {row.contestant} ({row.install})" for row in of(Absent, rows))
    yield from _paragraphs(f"Failed: {row.measure}: {row.reason}" for row in of(Broken, rows))


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    return (f"<p>{escape(text)}</p>" for text in texts)


def _rate_plots(results: Sequence[Result]) -> Iterator[str]:
    for _, group in itertools.groupby(results, key=lambda row: row.measure):
        members = list(group)
        yield f"<h3>{escape(wording.measure(members[0]) + wording.unfinished(members[0]))}</h3>"
        yield dots([Dot(label=row.contestant, value=row.rate, style=row.role) for row in members], unit="per second")


def _length_plot(results: Sequence[Result]) -> Iterator[str]:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in results:
        if row.length is not None:
            series.setdefault(row.contestant, []).append((row.length, 1e6 / row.rate.median))
    if series:
        yield "<h2>Cost of a claim against queue length</h2>"
        yield lines(series, across="runs in the queue", up="microseconds per claim", logarithmic=True)


def _memory_plot(footprints: Sequence[Footprint]) -> Iterator[str]:
    if footprints:
        what = footprints[0].what
        yield f"<h2>Memory of the process over many {what}</h2>"
        yield lines(
            {row.contestant: [(p.done, p.resident / (1024 * 1024)) for p in row.points] for row in footprints},
            across="check-ins of new keys" if what == "check-ins" else what,
            up="MiB resident",
        )


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    cells = (
        f"<tr><td>{escape(row.target)}</td><td>{escape(row.contestant)}</td><td>{escape(wording.verdict(row))}</td>"
        f'<td class="{row.standing.split()[0]}">{escape(row.standing)}</td></tr>'
        for row in verdicts
    )
    return f"<table><tr><th>target<th>contestant<th>measured<th>verdict</tr>{''.join(cells)}</table>"


def _comparisons(rows: Sequence[Comparison]) -> str:
    cells = (
        f"<tr><td>{escape(row.title + wording.unfinished(row))}</td><td>{escape(row.contestant)}</td>"
        f"<td>{escape(row.against)}</td>"
        f'<td class="figure">{escape(wording.ratio(row.ratio))} times as fast</td></tr>'
        for row in rows
    )
    return f"<table><tr><th>measure<th>contestant<th>against<th>measured</tr>{''.join(cells)}</table>"


def _figures(results: Sequence[Result]) -> str:
    headings = ("measure", "contestant", "per second", "p10–p90", "p50 µs", "p99 µs", "of raw")
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f"<table><tr>{head}</tr>{''.join(_figure(row) for row in results)}</table>"


def _figure(row: Result) -> str:
    queued = "" if row.length is None else f", {row.length:,} queued"
    words = (wording.measure(row) + wording.unfinished(row), row.contestant + queued)
    figures = (
        wording.rate(row.rate),
        wording.between(row.rate),
        wording.micros(row.p50_us),
        wording.micros(row.p99_us),
        wording.ratio(row.ratio),
    )
    cells = [f"<td>{escape(word)}</td>" for word in words]
    cells += [f'<td class="figure">{escape(figure)}</td>' for figure in figures]
    return f'<tr class="{row.role if row.role is not Role.RUNNER else "own"}">{"".join(cells)}</tr>'
