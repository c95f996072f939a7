"""Options of a store that is named by a URL, read the same way for each store that has a server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from onceward.contracts.errors import StoreMisconfigured

Options = TypeVar("Options")


def options_of(
    url: str,
    options: type[Options],
    *,
    name: str,
    schemes: Collection[str],
    from_url: Callable[[SplitResult], Mapping[str, object]],
    forms: str,
) -> Options:
    """The options that a URL stands for; its query gives the rest of them.

    Args:
        url: as the user wrote it.
        options: what they are.
        name: of the store, in words.
        schemes: that it goes by.
        from_url: reads what is not in the query.
        forms: URLs to write instead, for the reader of an error.

    Raises:
        StoreMisconfigured: it is no such URL, or an option is unknown or not acceptable.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise StoreMisconfigured(f"this is no {name} URL; write for example {forms}")
        found = {**from_url(parts), **dict(parse_qsl(parts.query, keep_blank_values=True))}
        return msgspec.convert(found, options, strict=False)
    except msgspec.ValidationError as error:
        raise StoreMisconfigured(f"options of runner {name.lower()!r}: {error}") from None
    except ValueError:  # its text would show the password
        raise StoreMisconfigured(f"this {name} URL cannot be read; write for example {forms}") from None


def authority(url: SplitResult) -> dict[str, object]:
    """The options ``username``, ``password`` and ``hosts``, as far as they stand in ``user:password@host1,host2``."""
    user, at, hosts = url.netloc.rpartition("@")
    username, _, password = user.partition(":")
    options: dict[str, object] = {}
    if at:
        options |= {"username": unquote(username), "password": unquote(password)}
    if hosts:
        options["hosts"] = tuple(hosts.split(","))
    return options


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """What ``host``, ``host:number`` or ``[address]:number`` stands for, with ``port`` where no number is given.

    Raises:
        ValueError: the number is no port.
    """
    host, colon, number = text.rpartition(":")
    if not colon or "]" in number:
        return text, port
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise ValueError(f"host {text!r}: the port must be a number from 1 to 65535")
    return host, int(number)
