"""What the suite may do to messages and servers; the command line need not load the suite to know it."""

from __future__ import annotations

import enum


class Faults(enum.StrEnum):
    """What is done to the messages between clients and servers, and to the servers."""

    NONE = "none"
    MESSAGES = "messages"
    """They are lost, late and repeated, where a server can be reached through a proxy."""
    SERVER = "server"
    """Leaders and followers are killed, paused and restarted, where the servers are the harness's own."""
