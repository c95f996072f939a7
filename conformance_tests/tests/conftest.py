"""What all tests share: the line at the end that says how many mutants the suite has caught."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """``mutants caught: N of N``, with the names of those that were not."""
    outcomes = {
        str(value): outcome
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in getattr(report, "user_properties", [])
        if name == "mutant"
    }
    if not outcomes:
        return
    missed = sorted(name for name, outcome in outcomes.items() if outcome != "passed")
    terminalreporter.section("mutants")
    terminalreporter.write_line(f"mutants caught: {len(outcomes) - len(missed)} of {len(outcomes)}")
    for name in missed:
        terminalreporter.write_line(f"not caught: {name}")
