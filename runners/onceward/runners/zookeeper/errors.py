"""What ZooKeeper's refusals and broken connections mean: definitely not done, unknown, or never going to work."""

from __future__ import annotations

from onceward.contracts.errors import OutcomeUnknown, StoreError, StoreMisconfigured, StoreUnavailable

_NO_AUTH, _INVALID_ACL, _AUTH_FAILED, _READ_ONLY, _QUOTA = -102, -114, -115, -119, -125
_UNIMPLEMENTED, _THROTTLED, _SASL_NEEDED = -6, -127, -124

#: Refused before anything was changed; another try may succeed. By ZooKeeper's code of the error.
_UNAVAILABLE = {
    _READ_ONLY: "the server is read-only now, since it has lost the others of its ensemble",
    _QUOTA: "the quota of what is kept there is used up; raise it, or purge ended runs",
    _THROTTLED: "the server has more to do than it can",
}

#: Trying again will not help.
_MISCONFIGURED = {
    _NO_AUTH: "this user may not do that; what is there belongs to another user, or was made by none: "
    "zookeeper://user:password@host",
    _INVALID_ACL: "it does not accept this user as an owner of nodes",
    _AUTH_FAILED: "it does not accept this user and password",
    _SASL_NEEDED: "it wants SASL; give one in the URL: ?sasl=digest-md5 or ?sasl=gssapi",
    _UNIMPLEMENTED: "it is too old; Onceward needs ZooKeeper 3.6",
}


def refusal(code: int, where: str) -> StoreError:
    """Our error for an error code of a reply. The request was not done."""
    if code in _MISCONFIGURED:
        return StoreMisconfigured(f"ZooKeeper at {where}: {_MISCONFIGURED[code]} (error {code})")
    why = _UNAVAILABLE.get(code, "it refused")
    return StoreUnavailable(f"ZooKeeper at {where}: {why} (error {code}). Nothing was changed.")


def unreachable(where: str, why: str) -> StoreUnavailable:
    """There is no connection; nothing was sent."""
    return StoreUnavailable(
        f"ZooKeeper at {where} cannot be reached, or has no quorum that takes writes: {why}. Nothing was changed."
    )


def broken(where: str, why: str, *, reads: bool) -> StoreError:
    """The connection broke, or the answer did not come in time, after the request was on its way."""
    if reads:
        return StoreUnavailable(f"ZooKeeper at {where} did not answer: {why}. It was only to be read.")
    return OutcomeUnknown(
        f"ZooKeeper at {where} did not answer: {why}. "
        "The change may or may not be made; send the same request again to find out."
    )


def contended(where: str, what: str) -> StoreUnavailable:
    """Others were always quicker."""
    return StoreUnavailable(f"ZooKeeper at {where}: {what} was changed by others all the time. Nothing was changed.")
