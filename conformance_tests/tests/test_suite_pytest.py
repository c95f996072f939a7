"""The suite in other people's pytest runs: the base class, the options, and not being in the way."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

SUBCLASS = """
from datetime import timedelta
from onceward.conformance import MemoryHarness, RunnerConformance

class TestMine(RunnerConformance):
    profiles = ("lock",)
    budget = timedelta(seconds=0.1)
    excused = {"lock.history": "the machine has one core"}

    def harness(self):
        return MemoryHarness()
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """A run of its own process, as users have it."""
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist", *arguments)


def test_the_base_class_makes_one_test_per_property_and_shows_excuses(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUBCLASS)
    result = run(pytester, "-v", "-rx")
    result.assert_outcomes(passed=5, xfailed=1)
    result.stdout.fnmatch_lines(["*test_property*lock.model*PASSED*", "*the machine has one core*"])


def test_a_violation_fails_the_test_with_the_history_and_without_a_traceback(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from datetime import timedelta
        from onceward.conformance import MemoryHarness, RunnerConformance
        from onceward.contracts import Runner
        from onceward.runners.memory import MemoryStore

        class Broken(MemoryStore):
            def unlock(self, lease):
                super().unlock(lease)
                return True

        class Harness(MemoryHarness):
            def runner(self, clock):
                return Runner.of(Broken("n", clock=clock), namespace="n").open()

        class TestBroken(RunnerConformance):
            profiles = ("lock",)
            budget = timedelta(seconds=0.1)

            def harness(self):
                return Harness()
        """
    )
    result = run(pytester, "-k", "lock.model")
    result.assert_outcomes(failed=1, deselected=5)
    result.stdout.fnmatch_lines(["*VIOLATED G4*", "*shortest history*", "*unlock*token*", "*Again:*onceward conform*"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('excused = {"lock.model": " "}', "give a reason"),
        ('excused = {"lock.modell": "a reason"}', "must name a property"),
        ("def test_property(self): pass", "overrides test_property"),
    ],
)
def test_nothing_is_switched_off_silently(pytester: pytest.Pytester, line: str, complaint: str) -> None:
    pytester.makepyfile(
        f"""
        from onceward.conformance import RunnerConformance

        class TestMine(RunnerConformance):
            profiles = ("lock",)
            {line}
        """
    )
    result = run(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{complaint}*"])


def test_a_target_on_the_command_line_adds_a_test_per_property(pytester: pytest.Pytester) -> None:
    options = ("--onceward-profile", "lock", "--onceward-budget", "0.5", "--onceward-seed", "3")
    result = run(pytester, "--onceward-runner", "memory://", *options, "-v")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["*onceward?lock.model?*PASSED*"])


def test_a_wrong_target_is_told_as_a_usage_error(pytester: pytest.Pytester) -> None:
    result = run(pytester, "--onceward-runner", "nowhere:Thing")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*onceward-runner*nowhere*"])


def test_other_peoples_runs_do_not_import_the_suite(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_light():
            loaded = [name for name in sys.modules if name.startswith("onceward.") or name == "hypothesis.stateful"]
            assert loaded in ([], ["onceward.conformance", "onceward.conformance.pytest_plugin"])
        """
    )
    result = run(pytester, "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)


def test_importing_the_package_needs_no_hypothesis() -> None:
    code = "import sys, onceward.conformance as c; c.load_target; c.Certificate; print('hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
