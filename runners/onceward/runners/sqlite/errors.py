"""What SQLite's errors mean: definitely not done, unknown, or a file that is no store of ours."""

from __future__ import annotations

import sqlite3

from onceward.contracts.errors import InvalidRequest, OutcomeUnknown, StoreError, StoreMisconfigured, StoreUnavailable

#: The store is fine and the request was refused before it changed anything: its transaction never began, or was
#: rolled back as a whole. FULL is among them also at a COMMIT: without the commit frame in the WAL nothing counts.
_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY: "another process held the file for longer than busy_timeout_ms; try again, or raise it",
    sqlite3.SQLITE_LOCKED: "another connection of this process held the file; try again",
    sqlite3.SQLITE_FULL: "the disk is full (or max_page_count is reached); free some space, then try again",
    sqlite3.SQLITE_READONLY: "the file or its folder is not writable; check the owner, the permissions and the mount",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened; check that its folder exists and may be written to",
    sqlite3.SQLITE_PERM: "the file may not be used; check its permissions",
    sqlite3.SQLITE_NOMEM: "there is not enough memory",
    sqlite3.SQLITE_INTERRUPT: "the request was interrupted",
}

#: The file itself is wrong, and trying again will not help.
_MISCONFIGURED = {
    sqlite3.SQLITE_NOTADB: "this is no SQLite database; give a new path, or the path of a file that Onceward made",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; stop all its users, then restore a backup or try sqlite3's .recover",
    sqlite3.SQLITE_FORMAT: "the file has a format that this SQLite does not know",
    sqlite3.SQLITE_ERROR: "the file does not have the tables that are expected; was it changed by another program?",
}


def primary(error: sqlite3.Error) -> int:
    """The primary result code (the extended ones hold it in their low byte)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_INTERNAL) & 0xFF


def busy(error: sqlite3.Error) -> bool:
    """True if somebody else held the file, so that another try may succeed."""
    return primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def translated(error: sqlite3.Error, path: str, *, committing: bool = False) -> StoreError:
    """Our error for SQLite's.

    Before the COMMIT everything is definite: what was done so far is rolled back. An I/O error *at* the COMMIT is
    not: the commit frame may stand in the WAL although its fsync failed, and then recovery will honour it.
    """
    code = primary(error)
    said = f"SQLite file {path}: {error}"
    if code in _MISCONFIGURED:
        return StoreMisconfigured(f"{said}: {_MISCONFIGURED[code]}")
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{said}: {_UNAVAILABLE[code]}. Nothing was changed.")
    if committing:
        return OutcomeUnknown(f"{said}: the change may or may not be kept; send the same request again to find out.")
    return StoreUnavailable(f"{said}. Nothing was changed.")


def unstorable(error: UnicodeEncodeError) -> InvalidRequest:
    """Text with a lone surrogate reached the driver, which refused it before anything was sent."""
    return InvalidRequest("text", error.object, "text without lone surrogates")
