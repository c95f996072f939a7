"""The certificate for people: a text with a table, and one HTML page that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from onceward.conformance.certificate import Certificate, Result, Verdict, Violation

_COLOURS = {
    Verdict.HOLDS: "green",
    Verdict.VIOLATED: "bold red",
    Verdict.OUT_OF_TIME: "yellow",
    Verdict.NOT_RUN: "red",
    Verdict.SKIPPED: "yellow",
    Verdict.EXCUSED: "yellow",
}


def write_reports(certificate: Certificate, out: Path) -> None:
    """The folder holds certificate.json, report.txt and report.html."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "certificate.json").write_bytes(certificate.as_json() + b"\n")
    (out / "report.txt").write_text(text_report(certificate), encoding="utf-8")
    (out / "report.html").write_text(html_report(certificate), encoding="utf-8")


def text_report(certificate: Certificate, *, width: int = 120) -> str:
    """The report as plain text."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(certificate))
    assert isinstance(console.file, io.StringIO)  # given above
    return console.file.getvalue()


def render(certificate: Certificate) -> RenderableType:
    """The report for a terminal."""
    parts: list[RenderableType] = [Text(line) for line in _head(certificate)]
    if certificate.results:
        parts.append(_table(certificate))
    parts += [told(result.violation) for result in certificate.results if result.violation is not None]
    parts.append(_verdict(certificate))
    return Group(*parts)


def _head(certificate: Certificate) -> Iterator[str]:
    yield f"Onceward conformance suite {certificate.suite_version} (onceward {certificate.onceward_version})"
    yield f"target      {certificate.target}"
    yield f"store       {_pairs(certificate.store)}"
    yield f"traits      {_pairs(certificate.traits)}"
    yield f"python      {certificate.python} on {certificate.platform}"
    yield (
        f"run         seed {certificate.seed}, budget {certificate.budget_seconds:g} s, "
        f"took {certificate.seconds:.1f} s, {certificate.operations:,} operations"
    )
    yield f"faults      {_pairs(certificate.faults) or 'none'}"
    for name, found in certificate.probed.items():
        yield f"probed      {name}: {found}"
    for result in certificate.results:
        for note in result.notes:
            yield f"note        {result.id}: {note}"


def _pairs(values: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if isinstance(values, dict) else ""


def _table(certificate: Certificate) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("property", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("executed", "cases", "operations", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what it promises", ratio=1)
    for result in certificate.results:
        table.add_row(
            result.id,
            Text(result.verdict.value, style=_COLOURS[result.verdict]),
            f"{result.executed:,}",
            f"{result.cases:,}",
            f"{result.operations:,}",
            f"{result.seconds:.1f}",
            Text(_says(result)),
        )
    return table


def _says(result: Result) -> str:
    return f"{result.statement} [{result.reason}]" if result.reason else result.statement


def told(violation: Violation) -> Text:
    """A violation for people: what was promised, what happened, how to see it again."""
    text = Text()
    text.append(f"\nVIOLATED {violation.guarantee}: {violation.promise}\n", style="bold red")
    text.append(f"{violation.happened}\n\n")
    text.append("The shortest history that was found:\n")
    for number, line in enumerate(violation.history, 1):
        text.append(f"  {number:>3}  {line}\n")
    if violation.diagram:
        text.append(f"\n{violation.diagram}\n")
    text.append(f"\nAgain:  {violation.command}\n", style="bold")
    return text


def _verdict(certificate: Certificate) -> Text:
    if certificate.problem:
        return Text(f"\nCOULD NOT RUN: {certificate.problem}", style="bold red")
    text = Text("\n")
    for name, kept in certificate.profiles.items():
        style = "bold green" if kept else "bold red"
        text.append(f"{'conformant' if kept else 'NOT conformant'}: {name}\n", style=style)
    return text


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Conformance of {target}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ padding: .35rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
pre {{ background: #f6f6f6; padding: .8rem; overflow-x: auto; }}
.holds {{ color: #0a7d28; }} .violated, .could {{ color: #b00020; font-weight: bold; }}
.skipped, .excused, .ran {{ color: #9a6700; }}
dt {{ font-weight: bold; }} dd {{ margin: 0 0 .3rem 1rem; }}
</style></head><body>
<h1>{headline}</h1>
<dl>{facts}</dl>
<table><thead><tr><th>property</th><th>verdict</th><th>executed</th><th>cases</th><th>operations</th><th>seconds</th>
<th>what it promises</th></tr></thead><tbody>{rows}</tbody></table>
{violations}
</body></html>
"""


def html_report(certificate: Certificate) -> str:
    """The report as one HTML page without anything from elsewhere."""
    return _PAGE.format(
        target=escape(certificate.target),
        headline=escape(_headline(certificate)),
        facts="".join(_fact(line) for line in _head(certificate)),
        rows="".join(_row(result) for result in certificate.results),
        violations="".join(_section(r.violation) for r in certificate.results if r.violation is not None),
    )


def _headline(certificate: Certificate) -> str:
    if certificate.problem:
        return f"{certificate.target}: could not run: {certificate.problem}"
    kept = [name for name, conforms in certificate.profiles.items() if conforms]
    broken = [name for name, conforms in certificate.profiles.items() if not conforms]
    parts = [f"conformant: {', '.join(kept)}"] if kept else []
    parts += [f"NOT conformant: {', '.join(broken)}"] if broken else []
    return f"{certificate.target}: {'; '.join(parts)}"


def _fact(line: str) -> str:
    name, _, value = line.partition(" ")
    return f"<dt>{escape(name)}</dt><dd>{escape(value.strip())}</dd>"


def _row(result: Result) -> str:
    numbers = (f"{result.executed:,}", f"{result.cases:,}", f"{result.operations:,}", f"{result.seconds:.1f}")
    cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
    kind = result.verdict.value.split()[0]
    counts = ", ".join(f"{name} {count:,}" for name, count in result.executions.items())
    return (
        f'<tr><td>{escape(result.id)}</td><td class="{kind}">{escape(result.verdict.value)}</td>{cells}'
        f"<td>{escape(_says(result))}<br><small>{escape(counts)}</small></td></tr>"
    )


def _section(violation: Violation) -> str:
    history = "\n".join(f"{number:>3}  {line}" for number, line in enumerate(violation.history, 1))
    return (
        f'<h2 class="violated">{escape(violation.guarantee)}: {escape(violation.promise)}</h2>'
        f"<p>{escape(violation.happened)}</p><pre>{escape(history)}</pre>"
        + (f"<pre>{escape(violation.diagram)}</pre>" if violation.diagram else "")
        + f"<p>Again: <code>{escape(violation.command)}</code></p>"
    )
