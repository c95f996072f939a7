"""The command line ``onceward``."""

from __future__ import annotations


def main() -> None:
    """The command that was asked for has run, and the process ends with its exit code."""
    from onceward.toolkit.cli.app import build

    build()(prog_name="onceward")
