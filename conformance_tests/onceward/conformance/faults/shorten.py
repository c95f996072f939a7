"""A failure of the message scheduler, made as short as it gets: stretches of steps are left out, then single ones.

Hypothesis takes away a few draws at a time, and each time the case must fail still; but a client that comes, gets the
resource and goes is many draws, which only together can be spared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onceward.conformance.faults.scheduler import Messages
from onceward.conformance.faults.stage import Stage, Step
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import CouldNotRun, OutOfTime, Violated


def shorten(trial: Trial, stage: Stage) -> None:
    """The failure that the trial keeps has no step that could be left out, unless the time for it was up."""
    script = list(stage.script)
    try:
        shorter: list[Step] | None = script
        while shorter is not None:
            script = shorter
            shorter = next((each for each in _shorter(script) if _fails(trial, stage, each)), None)
    except (OutOfTime, CouldNotRun):
        pass  # the shortest so far is kept


def _shorter(script: Sequence[Step]) -> Iterator[list[Step]]:
    """The script with a stretch left out, long ones first; then with simpler draws."""
    size = len(script) // 2
    while size:
        for at in range(0, len(script) - size + 1, max(1, size // 2)):
            yield [*script[:at], *script[at + size :]]
        size //= 2
    for at, step in enumerate(script):
        for plain in (Step("deliver", step.pick), Step(step.rule)):
            if _mischief(step) > _mischief(plain) or (step.rule == plain.rule and step != plain):
                yield [*script[:at], plain, *script[at + 1 :]]


def _mischief(step: Step) -> int:
    return step.rule in ("lose", "hold_back", "duplicate")


def _fails(trial: Trial, stage: Stage, script: Sequence[Step]) -> bool:
    """The script breaks a promise, the same or another one; the trial keeps the failure if it is the shortest."""
    machine = Messages(trial, stage)
    try:
        for step in script:
            machine.take(step)
    except Violated:
        return True
    finally:
        machine.teardown()
    return False
