"""What is measured. A measure makes a task for any runner, and one of as many round trips for any raw driver."""

from __future__ import annotations

from onceward.benchmarks.measures.measure import Measure
from onceward.benchmarks.measures.queue import QUEUE
from onceward.benchmarks.measures.right_to_run import RIGHT_TO_RUN

__all__ = ["MEASURES", "Measure"]

#: All measures whose rounds hold one lane per contestant, in the order of running.
MEASURES: tuple[Measure, ...] = (*RIGHT_TO_RUN, *QUEUE)
