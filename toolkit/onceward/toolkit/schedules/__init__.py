"""Schedules: when something is to run, computed alike by every process.

``parse`` makes one of a cron expression, plain English, an instant, an interval or a document. Its *occurrences* are
nominal instants in UTC; the policies say what becomes of those that were missed or that overlap.
"""

from onceward.toolkit.schedules.cron import ALIASES, Expression
from onceward.toolkit.schedules.kinds import CronSchedule, IntervalSchedule, NowSchedule, OnceSchedule
from onceward.toolkit.schedules.parsing import Source, from_dict, parse
from onceward.toolkit.schedules.policies import (
    Due,
    Misfire,
    MisfirePolicy,
    Overlap,
    due_occurrences,
    jittered,
    judge,
)
from onceward.toolkit.schedules.schedule import Schedule
from onceward.toolkit.schedules.wall_clock import Fold, Gap

__all__ = [
    "ALIASES", "CronSchedule", "Due", "Expression", "Fold", "Gap", "IntervalSchedule", "Misfire", "MisfirePolicy",
    "NowSchedule", "OnceSchedule", "Overlap", "Schedule", "Source", "due_occurrences", "from_dict", "jittered", "judge",
    "parse",
]  # fmt: skip
