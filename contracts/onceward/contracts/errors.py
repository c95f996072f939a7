"""Every error that Onceward raises, and what each one says about the store.

Three outcomes are kept apart: *definitely not done* (``InvalidRequest``, ``LeaseLost``,
``StoreUnavailable``, ``StoreMisconfigured``), *unknown* (``OutcomeUnknown``), and *done* (no error).
"""

from __future__ import annotations

_SHOWN = 80


def shown(value: object) -> str:
    """A short printable form of ``value`` for messages: never multi-line, never more than about 80 characters."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}... ({len(text)} characters)"


class OncewardError(Exception):
    """Base of every error that Onceward raises on purpose."""


class InvalidRequest(OncewardError, ValueError):
    """The caller's mistake; nothing was sent to the store.

    Attributes:
        field: name of the offending field, for example ``"key"`` or ``"payload.items[3]"``.
        value: what was given.
        allowed: what would have been accepted, in words.
    """

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {shown(value)} is not accepted; allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


class LeaseLost(OncewardError):
    """The token is stale: somebody else may hold this now. Definite: nothing was changed. Stop; do not retry."""

    def __init__(self, resource: str, token: int) -> None:
        super().__init__(f"lease on {resource} lost: token {token} is no longer the newest, or its time has run out")
        self.resource = resource
        self.token = token


class LockNotAcquired(OncewardError):
    """Somebody else holds the lock. Definite: nothing was changed.

    Attributes:
        name: the lock.
        holder: who has it, where the store told us.
    """

    def __init__(self, name: str, holder: str | None = None) -> None:
        super().__init__(f"Can't lock to execute job '{name}'.")
        self.name = name
        self.holder = holder
        if holder is not None:
            self.add_note(f"It is held by {holder}.")


class WaitTimeout(OncewardError, TimeoutError):
    """What was waited for did not happen in time. Nothing was changed."""


class StoreError(OncewardError):
    """The store did not do what was asked; see the subclass for what that means."""


class StoreUnavailable(StoreError):
    """The store could not be reached or refused the work. Definite: the request was not done."""


class OutcomeUnknown(StoreError):
    """The request may or may not have been applied. Send the *same* request again to find out."""


class StoreMisconfigured(StoreError):
    """The store, or how it was asked for, cannot work: a missing extra, a misspelt option, a file that is no store."""
