"""The conformance suite: proves, or disproves, that a store keeps the contracts.

    from onceward.conformance import load_target, run_suite

    certificate = run_suite(load_target("sqlite:///jobs.db"), profiles=["checkin", "lock"])
    assert certificate.conformant

Names are loaded when they are used: Hypothesis is needed only to run the suite, not to import this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onceward.conformance.certificate import Certificate, Result, Verdict, Violation
    from onceward.conformance.harness import (
        Harness,
        MemoryHarness,
        Opening,
        SqliteHarness,
        UrlHarness,
        harness_for_url,
        load_target,
    )
    from onceward.conformance.pytest_base import RunnerConformance
    from onceward.conformance.report import html_report, render, text_report, write_reports
    from onceward.conformance.suite import run_suite

_HOMES = {
    "Certificate": "certificate",
    "Harness": "harness",
    "MemoryHarness": "harness",
    "Opening": "harness",
    "Result": "certificate",
    "RunnerConformance": "pytest_base",
    "SqliteHarness": "harness",
    "UrlHarness": "harness",
    "Verdict": "certificate",
    "Violation": "certificate",
    "harness_for_url": "harness",
    "html_report": "report",
    "load_target": "harness",
    "render": "report",
    "run_suite": "suite",
    "text_report": "report",
    "write_reports": "report",
}

__all__ = [
    "Certificate",
    "Harness",
    "MemoryHarness",
    "Opening",
    "Result",
    "RunnerConformance",
    "SqliteHarness",
    "UrlHarness",
    "Verdict",
    "Violation",
    "harness_for_url",
    "html_report",
    "load_target",
    "render",
    "run_suite",
    "text_report",
    "write_reports",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
