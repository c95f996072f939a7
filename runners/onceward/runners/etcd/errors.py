"""What etcd's refusals and broken connections mean: definitely not done, unknown, or never going to work."""

from __future__ import annotations

import grpc

from onceward.contracts.errors import OutcomeUnknown, StoreError, StoreMisconfigured, StoreUnavailable


class LeaseGone(Exception):
    """The server does not know the lease (any more). Nothing was changed. Never leaves the runner."""


class LeaseTaken(Exception):
    """Somebody else has a lease with this id. Nothing was changed. Never leaves the runner."""


class TokenRefused(Exception):
    """The server does not know our login (any more). Nothing was changed. Never leaves the runner."""


class Compacted(Exception):
    """The history that a watch asked for is gone. Never leaves the runner."""


#: Refused before anything was done; another try may succeed.
_UNAVAILABLE = {
    "database space exceeded": (
        "its database has reached its quota (alarm NOSPACE) and it refuses changes; compact and defragment it, purge "
        "ended runs or raise --quota-backend-bytes, then disarm the alarm with etcdctl alarm disarm"
    ),
    "too many requests": "it has too many requests waiting; try again",
    "not capable": "it is still starting; try again soon",
    "corrupt cluster": "its members do not agree on their data (alarm CORRUPT), so it refuses changes; look at its log",
    "failed to connect": "no member of the cluster can be reached",
    "connections to all backends failing": "no member of the cluster can be reached",
    "name resolution": "the host's name is not known",
}

_NO_TLS = "no TLS connection can be made; look at tls_ca, tls_cert and tls_name, and whether the server wants it"

#: Trying again will not help.
_MISCONFIGURED = {
    "authentication failed": "it does not accept this user and password",
    "user name is empty": "it wants a user and a password; give them in the URL: etcd://user:password@host:2379",
    "user name not found": "it does not know this user",
    "authentication is not enabled": "its authentication is off; leave user and password out of the URL",
    "permission denied": "this user may not do that; it needs the permission readwrite on all keys below onceward/",
    "request is too large": (
        "its --max-request-bytes is smaller than the 1.5 MiB that Onceward needs; raise it, or store less in a run"
    ),
    "received message larger": "its --max-request-bytes is smaller than the 1.5 MiB that Onceward needs; raise it",
    "too many operations": "its --max-txn-ops is smaller than the 128 that Onceward needs; raise it",
    "certificate": "the certificates do not fit; look at tls_ca, tls_cert and tls_name",
    "handshake": _NO_TLS,
    "SSL_ERROR": _NO_TLS,
}


def told(error: grpc.RpcError, where: str, *, reads: bool) -> Exception:
    """Our error for a failed call."""
    code, details = error.code(), error.details() or ""
    if "requested lease not found" in details:
        return LeaseGone(details)
    if "lease already exists" in details:
        return LeaseTaken(details)
    if "required revision has been compacted" in details:
        return Compacted(details)
    if "invalid auth token" in details or "auth token is not provided" in details or "revision of auth" in details:
        return TokenRefused(details)
    for known, meaning in _MISCONFIGURED.items():
        if known in details:
            return StoreMisconfigured(f"etcd at {where}: {meaning}. It said: {details}")
    for known, meaning in _UNAVAILABLE.items():
        if known in details:
            return StoreUnavailable(f"etcd at {where}: {meaning}. Nothing was changed. It said: {details}")
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.OUT_OF_RANGE):
        return StoreMisconfigured(f"etcd at {where} does not do what Onceward needs. It said: {details}")
    return broken(details or code.name, where, reads=reads)


def refused(error: StoreError) -> bool:
    """A member has said no: the connection is fine, and another one would say the same."""
    cause = error.__cause__
    return isinstance(error, StoreMisconfigured) or (
        isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    )


def broken(reason: str, where: str, *, reads: bool) -> StoreError:
    """The connection broke, or the answer did not come in time, after the request was on its way."""
    if reads:
        return StoreUnavailable(f"etcd at {where} did not answer: {reason}. Nothing was changed.")
    return OutcomeUnknown(
        f"etcd at {where} did not answer: {reason}. "
        "The change may or may not be made; send the same request again to find out."
    )
