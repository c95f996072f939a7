"""What the suite may do to messages; a file of its own, so that the command line need not load the suite to know it."""

from __future__ import annotations

import enum


class Faults(enum.StrEnum):
    """What is done to the messages between clients and servers."""

    NONE = "none"
    MESSAGES = "messages"
    """They are lost, late and repeated, where a server can be reached through a proxy."""
