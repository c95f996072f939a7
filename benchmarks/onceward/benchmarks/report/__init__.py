"""The same rows for people: as tables in a terminal, and as one HTML page with plots."""

from __future__ import annotations

from onceward.benchmarks.report.page import page
from onceward.benchmarks.report.tables import WIDTH, printed, text

__all__ = ["WIDTH", "page", "printed", "text"]
