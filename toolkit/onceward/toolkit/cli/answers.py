"""Exit codes, and errors as one readable line instead of a traceback."""

from __future__ import annotations

import enum
import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from onceward.contracts import (
    InvalidRequest,
    OncewardError,
    OutcomeUnknown,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)

P = ParamSpec("P")

EXIT_CODES = (
    "Exit codes: 0 done, or the answer is yes; 1 the answer is no (not found, not held, violated); 2 wrong usage, "
    "bad input, or it could not run; 3 the store is not available, or the outcome is not known; 130 interrupted."
)


class Exit(enum.IntEnum):
    """What the process ends with."""

    OK = 0
    NO = 1
    USAGE = 2
    STORE = 3
    INTERRUPTED = 130


def answering(command: Callable[P, int | None]) -> Callable[P, None]:
    """The command, ending the process with the code that it returns or that stands for its error."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code: int = command(*args, **kwargs) or Exit.OK
        except OncewardError as error:
            code = complain(error)
        except KeyboardInterrupt:
            say("Interrupted.")
            code = Exit.INTERRUPTED
        raise typer.Exit(code)

    return run


def complain(error: OncewardError) -> Exit:
    """The error is on stderr, in words, with what to do; the answer is the code that stands for it."""
    say(f"Error: {error}")
    for note in getattr(error, "__notes__", ()):
        say(f"  {note}")
    match error:
        case InvalidRequest() | StoreMisconfigured():
            return Exit.USAGE
        case StoreUnavailable():
            say("Nothing was changed. Check that the store is up and that --runner (or ONCEWARD_RUNNER) leads to it.")
            return Exit.STORE
        case OutcomeUnknown():
            say("It may or may not have been done. Look at the store, then ask again.")
            return Exit.STORE
        case StoreError():
            return Exit.STORE
        case _:
            return Exit.NO


def say(text: str) -> None:
    """The text is on stderr, where messages go; stdout is for answers."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201  this is the command line
