"""The pytest plugin: ``pytest --onceward-runner TARGET`` adds one test per property of the suite.

Loaded in every pytest run of an environment that has Onceward, so it imports nothing of the suite until it is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from onceward.conformance.harness import Harness


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the plugin."""
    group = parser.getgroup("onceward", "conformance of an Onceward store")
    group.addoption(
        "--onceward-runner",
        metavar="TARGET",
        help="examine this store: a URL, or module:attribute of a harness; adds one test per property",
    )
    group.addoption(
        "--onceward-profile",
        metavar="NAME",
        action="append",
        help="a profile to keep (repeatable); default: every one whose traits the store declares",
    )
    group.addoption(
        "--onceward-budget",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="time for all properties together (default: 60)",
    )
    group.addoption("--onceward-seed", metavar="N", type=int, default=0, help="seed of the first round (default: 0)")


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """One test per property of the profiles is added."""
    target = config.getoption("--onceward-runner")
    if not target:
        return
    from onceward.conformance.harness import load_target
    from onceward.conformance.profiles import PROFILES, fitting, properties_of
    from onceward.contracts import InvalidRequest, StoreMisconfigured

    try:
        harness = load_target(target)
        runner = harness.timed_runner()
        profiles = config.getoption("--onceward-profile") or fitting(
            runner.lifecycle.traits, networked=harness.server() is not None
        )
        runner.close()
        members = properties_of(profiles)
    except (InvalidRequest, StoreMisconfigured) as error:
        raise pytest.UsageError(f"--onceward-runner: {error}; profiles: {', '.join(PROFILES)}") from error
    config.add_cleanup(harness.close)
    share = float(config.getoption("--onceward-budget") or 0) / max(1, len(members))
    items.extend(
        ConformanceItem.from_parent(
            session, name=f"onceward[{member.id}]", harness=harness, identity=member.id, share=share
        )
        for member in members
    )


class ConformanceItem(pytest.Item):
    """A test that runs one property against the store of the command line."""

    def __init__(self, *, harness: Harness, identity: str, share: float, **rest: Any) -> None:
        super().__init__(**rest)
        self.harness = harness
        self.identity = identity
        self.share = share

    def runtest(self) -> None:
        """The property holds."""
        from datetime import timedelta

        from onceward.conformance.pytest_base import demand
        from onceward.conformance.suite import run_property

        seed = int(self.config.getoption("--onceward-seed") or 0)
        demand(run_property(self.harness, self.identity, budget=timedelta(seconds=self.share), seed=seed))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The violation for people, without Python's traceback."""
        if isinstance(excinfo.value, pytest.fail.Exception):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, int | None, str]:
        """Where the test stands: in the suite, not in a file."""
        return "onceward.conformance", None, f"{self.identity} of {self.harness.name}"
