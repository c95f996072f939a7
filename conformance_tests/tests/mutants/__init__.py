"""Runners with one planted bug each, every one a bug that a real system has or had. The suite must catch them all.

A suite that cannot fail proves nothing, so this is the test of the tests. Each mutant is a healthy store with one
method changed; its docstring says whose bug it is (numbers as in the tables of the peers that we studied).
"""

from . import checkins, configs, endings, inputs, locks, operators, queues, races, sqlites, watches
from .planted import MUTANTS, Mutant

__all__ = [
    "MUTANTS",
    "Mutant",
    "checkins",
    "configs",
    "endings",
    "inputs",
    "locks",
    "operators",
    "queues",
    "races",
    "sqlites",
    "watches",
]
