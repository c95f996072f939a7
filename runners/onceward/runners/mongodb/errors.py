"""What the driver's errors mean: definitely not done, unknown, never going to work, or the caller's mistake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    InvalidOperation,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WriteError,
)

from onceward.contracts.errors import (
    InvalidRequest,
    OncewardError,
    OutcomeUnknown,
    StoreMisconfigured,
    StoreUnavailable,
)

#: A unique index has refused the document.
DUPLICATE = 11000

#: Trying again will not help. By the server's error code.
_MISCONFIGURED = {
    13: "this user may not do that; it needs the role readWrite on the database",
    18: "it does not accept this user and password (is authSource right?)",
    8000: "it does not accept this user and password (is authSource right?)",
    59: "it is too old, or no MongoDB; Onceward needs 4.4 or newer",
    26: "the database has lost a collection that Onceward made",
    73: "the name of the database is not acceptable",
    85: "another program has made indexes on the collections runs, locks or configs; give another database",
    86: "another program has made indexes on the collections runs, locks or configs; give another database",
    16020: "a condition is not supported; Onceward needs MongoDB 4.4 or newer",
}
#: Refused before anything was done; another try may succeed.
_UNAVAILABLE = {
    10107: "it is not the primary",
    13435: "it is not the primary",
    14031: "its disk is full; free some space, then try again",
    262: "it is too busy",
    462: "it is too busy",
}
_TOO_LARGE = (10334, 17280, 17419, 17420)
_NOT_WRITTEN = "NoWritesPerformed"


@contextmanager
def mapped(where: str, *, reads: bool = False) -> Iterator[None]:
    """No error of the driver leaves the block: it becomes ours, which says whether the request was done."""
    try:
        yield
    except PyMongoError as error:
        raise translated(error, where, reads=reads) from error
    except (BSONError, OverflowError, UnicodeEncodeError) as error:
        raise InvalidRequest(
            "value", str(error), "text without lone surrogates and whole numbers of 64 bits"
        ) from error


def translated(error: PyMongoError, where: str, *, reads: bool) -> OncewardError:
    """Our error for the driver's. ``reads``: the request changes nothing, whatever becomes of it.

    The driver repeats a write by itself, and tells what became of the last try. Where it found no server for that, it
    tells of the first try instead. But a connection that was refused, or that it did not get, says nothing about that.
    """
    said = f"MongoDB at {where}"
    if isinstance(error, (ConfigurationError, InvalidURI)):
        return StoreMisconfigured(f"{said}: {error}")
    if isinstance(error, DocumentTooLarge):
        return _too_large()
    if isinstance(error, InvalidOperation):
        return StoreUnavailable(f"{said}: the runner is closed; open it first. Nothing was changed.")
    if isinstance(error, ServerSelectionTimeoutError) or error.has_error_label(_NOT_WRITTEN):
        return StoreUnavailable(f"{said} cannot be reached: {_brief(error)}. Nothing was changed.")
    if reads and isinstance(error, ConnectionFailure):
        return StoreUnavailable(f"{said} did not answer: {_brief(error)}. It was only to be read.")
    if isinstance(error, BulkWriteError):
        return _bulk(error, said)
    if isinstance(error, OperationFailure) and not isinstance(error, WriteConcernError):
        return _refusal(error, said, reads=reads)
    if reads:
        return StoreUnavailable(f"{said} did not answer: {_brief(error)}. It was only to be read.")
    return _unknown(said, _brief(error))


def _refusal(error: OperationFailure, said: str, *, reads: bool) -> OncewardError:
    code, text = error.code or 0, _brief(error)
    if code in _TOO_LARGE:
        return _too_large()
    if code in _MISCONFIGURED:
        return StoreMisconfigured(f"{said}: {_MISCONFIGURED[code]}. It said: {text}")
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{said}: {_UNAVAILABLE[code]}. Nothing was changed. It said: {text}")
    if reads:
        return StoreUnavailable(f"{said} refused to answer: {text}. It was only to be read.")
    if isinstance(error, WriteError):
        return StoreMisconfigured(f"{said} does not do what Onceward needs. It said: {text}")
    return _unknown(said, text)


def _bulk(error: BulkWriteError, said: str) -> OncewardError:
    """A batch was done in part; it is sent again as a whole, and each item recognises what was done of it."""
    refused = (error.details or {}).get("writeErrors") or []
    codes = {each.get("code") for each in refused}
    if codes & set(_TOO_LARGE):
        return _too_large()
    if codes & set(_MISCONFIGURED):
        code = min(code for code in codes if code in _MISCONFIGURED)
        return StoreMisconfigured(f"{said}: {_MISCONFIGURED[code]}")
    return _unknown(said, str(refused[0].get("errmsg")) if refused else "the majority did not confirm in time")


def _unknown(said: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{said} did not confirm: {why}. The change may or may not be made; send the same request again to find out."
    )


def _too_large() -> InvalidRequest:
    return InvalidRequest("payload", "...", "payload, result and errors of a run of at most 16 MB together")


def _brief(error: PyMongoError) -> str:
    """The driver's text up to its description of the topology, which is long and helps nobody."""
    text = str(error).partition(", Timeout:")[0].partition(", full error:")[0]
    return text if len(text) <= 300 else f"{text[:280]}..."
