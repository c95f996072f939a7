"""Time zones by name: the IANA ones, the same on every machine."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from onceward.contracts import InvalidRequest

#: Files that lie among the zones but mean another thing on each machine, or count leap seconds.
_NOT_ZONES = ("localtime", "posixrules", "posix/", "right/")


def time_zone(zone: str | ZoneInfo, *, field: str = "timezone") -> ZoneInfo:
    """The zone of that name.

    Raises:
        InvalidRequest: there is none, or the name means another zone on each machine.
    """
    if isinstance(zone, ZoneInfo) and zone.key:
        return zone
    try:
        if isinstance(zone, str) and not zone.startswith(_NOT_ZONES):
            return ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # unknown, no path inside the database, a folder of it
        pass
    raise InvalidRequest(field, zone, "the name of an IANA time zone, for example 'Europe/Vienna' or 'UTC'")
