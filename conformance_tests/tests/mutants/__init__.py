"""Runners with one planted bug each: bugs that real systems have or had, and their next of kin. All must be caught.

A suite that cannot fail proves nothing, so this is the test of the tests. Each mutant is a healthy store with one
method changed; its docstring says whose bug it is. G1 to G17 and J, L, P are ids of guarantees; D, M, S, T and higher
numbers of G are rows of docs/seeds.md.
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
