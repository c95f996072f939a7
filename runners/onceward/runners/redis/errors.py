"""What Redis's refusals and broken connections mean: definitely not done, unknown, or never going to work."""

from __future__ import annotations

from onceward.contracts.errors import OutcomeUnknown, StoreError, StoreMisconfigured, StoreUnavailable

#: Refused before anything ran; another try may succeed. By the first word of the reply.
_UNAVAILABLE = {
    "OOM": "its maxmemory is reached; raise it, purge ended runs, or give the server a larger machine",
    "READONLY": "it is a read-only replica, or became one; connect to the primary (redis+sentinel:// follows it)",
    "LOADING": "it is still reading its data from disk; try again soon",
    "BUSY": "another script runs there for too long; try again, or end it with SCRIPT KILL",
    "MISCONF": "it cannot write to its disk, so it refuses changes; look at its log and free some space",
    "MASTERDOWN": "it is a replica without its primary",
    "NOREPLICAS": "it has fewer replicas than its min-replicas-to-write",
    "CLUSTERDOWN": "its cluster has no node for this namespace now",
    "TRYAGAIN": "its cluster is moving this namespace to another node; try again",
    "ASK": "its cluster is moving this namespace to another node; try again",
    "MOVED": "its cluster has moved this namespace to another node; try again",
}

#: Trying again will not help.
_MISCONFIGURED = {
    "NOAUTH": "it wants a password; give one in the URL: redis://user:password@host:6379/0",
    "WRONGPASS": "it does not accept this user and password",
    "NOPERM": "this user may not do that; it needs +@all -@dangerous +info on the keys and channels onceward:*",
    "WRONGTYPE": "another program has written to the keys onceward:*; give it another database",
    "DENIED": "it runs in protected mode; set a password for it, or bind it to an address",
    "NOPROTO": "it is too old; Onceward needs Redis 7 or Valkey",
}


def refusal(reply: Exception, where: str) -> StoreError:
    """Our error for an error reply. The request was not done: a script that is refused has not changed anything."""
    text = str(reply)
    code = text.partition(" ")[0]
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"Redis at {where}: {_UNAVAILABLE[code]}. Nothing was changed. It said: {text}")
    if code in _MISCONFIGURED:
        return StoreMisconfigured(f"Redis at {where}: {_MISCONFIGURED[code]}. It said: {text}")
    if "max number of clients" in text:
        return StoreUnavailable(f"Redis at {where}: it has as many clients as it accepts. Nothing was changed.")
    return StoreMisconfigured(f"Redis at {where} does not do what Onceward needs. It said: {text}")


def unreachable(error: Exception, where: str) -> StoreUnavailable:
    """There is no connection; nothing was sent."""
    return StoreUnavailable(f"Redis at {where} cannot be reached: {reason(error)}. Nothing was changed.")


def broken(error: Exception, where: str, *, reads: bool) -> StoreError:
    """The connection broke, or the answer did not come in time, after the request was on its way."""
    if reads:
        return StoreUnavailable(f"Redis at {where} did not answer: {reason(error)}. It was only to be read.")
    return OutcomeUnknown(
        f"Redis at {where} did not answer: {reason(error)}. "
        "The change may or may not be made; send the same request again to find out."
    )


def reason(error: Exception) -> str:
    """An error in a few words."""
    if isinstance(error, (TimeoutError, BlockingIOError)):
        return "no answer in time"
    return str(error) or type(error).__name__
