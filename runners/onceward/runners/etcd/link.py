"""The way to the cluster: one channel at a time that all threads share, login, and failures told apart.

Calls of many threads are under way at once on one HTTP/2 connection, so nothing has to be combined. gRPC's own
retries are off: they would hide what is unknown. A member that cannot be reached is passed over for the next one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc

from onceward.contracts.errors import StoreError, StoreMisconfigured, StoreUnavailable
from onceward.runners.etcd import errors, wire
from onceward.runners.etcd.options import Options

T = TypeVar("T")

TXN, RANGE = "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/Range"
GRANT, REVOKE = "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Lease/LeaseRevoke"
STATUS, MEMBERS = "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Cluster/MemberList"
_AUTHENTICATE, _WATCH = "/etcdserverpb.Auth/Authenticate", "/etcdserverpb.Watch/Watch"

_SETTINGS = (
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.primary_user_agent", "onceward"),
)


class Link:
    """Calls to whichever member of the cluster answers. Threads share it; forks do not."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._addresses = options.addresses
        self._timeout = options.timeout_ms / 1000
        self._lock = threading.Lock()
        self._at = 0
        self._channel: grpc.Channel | None = None
        self._calls: dict[str, Any] = {}
        self._login: tuple[tuple[str, str], ...] | None = None
        self._open = False
        self._owner = os.getpid()

    @property
    def where(self) -> str:
        """The member that is asked now."""
        return self._addresses[self._at]

    def open(self) -> None:
        """Calls are taken. Nothing is sent yet."""
        self._open, self._owner = True, os.getpid()

    def close(self) -> None:
        """No connection is left; whoever waits for an answer is told that the outcome is unknown."""
        with self._lock:
            self._open = False
            channel = self._forget()
        if channel is not None:
            channel.close()

    def read(self, request: bytes) -> wire.Found:
        """What is there now."""
        return wire.found(self.call(RANGE, request, reads=True))

    def txn(self, request: bytes, *, reads: bool = False) -> wire.Done:
        """What became of a transaction; one round trip."""
        return wire.done(self.call(TXN, request, reads=reads))

    def call(self, method: str, request: bytes, *, reads: bool) -> bytes:
        """The answer of a member.

        Raises:
            StoreError, LeaseGone: what happened, and what that means.
        """
        return self._somewhere(partial(self._called, method, request, reads))

    def revoke(self, leases: Sequence[int]) -> None:
        """Leases are gone; those where that fails will be so by themselves, in time. One trip for all."""
        with suppress(StoreError, ValueError):
            call, login = self._method(REVOKE), self._logged_in()
            sent = [call.future(wire.revoke(lease), timeout=self._timeout, metadata=login) for lease in leases]
            for each in sent:
                each.exception()

    def watch(self, requests: Any) -> Any:
        """A stream of what these requests (an iterator of bytes) ask for, read by a thread; ``cancel`` ends it."""
        return self._somewhere(lambda: self._channel_now().stream_stream(_WATCH)(requests, metadata=self._logged_in()))

    def _somewhere(self, attempt: Callable[[], T]) -> T:
        """The answer of the first member that can be reached, once more if the login has run out."""
        left, logins = len(self._addresses), 1
        while True:
            left -= 1
            channel = self._channel
            try:
                return attempt()
            except errors.TokenRefused as refused:
                if not logins:
                    raise StoreMisconfigured(f"etcd at {self.where} does not keep our login: {refused}") from refused
                logins, left = logins - 1, left + 1
                self._login = None
            except StoreError as error:
                if errors.refused(error):
                    raise
                self._go_on(channel or self._channel)
                if left <= 0 or not self._open or not isinstance(error, StoreUnavailable):
                    raise

    def _called(self, method: str, request: bytes, reads: bool) -> bytes:
        call = self._method(method)
        try:
            answer: bytes = call(request, timeout=self._timeout, metadata=self._logged_in())
        except grpc.RpcError as error:
            raise errors.told(error, self.where, reads=reads) from error
        except ValueError as error:  # gRPC's word for a channel that was closed meanwhile, before anything was sent
            raise StoreUnavailable(f"the connection to etcd at {self.where} was closed: {error}") from error
        return answer

    def _method(self, method: str) -> Any:
        """What calls the method. There is none before a channel is open, nor after it is closed."""
        found = self._calls.get(method)
        if found is not None and self._owner == os.getpid():
            return found
        with self._lock:
            channel = self._channel_now()
            found = self._calls.get(method)
            if found is None:
                found = self._calls[method] = channel.unary_unary(method)
        return found

    def _logged_in(self) -> tuple[tuple[str, str], ...] | None:
        if not self._options.username:
            return None
        if self._login is None:
            request = wire.authenticate(self._options.username, self._options.password)
            try:
                answer = self._method(_AUTHENTICATE)(request, timeout=self._timeout)
            except grpc.RpcError as error:
                raise errors.told(error, self.where, reads=True) from error
            self._login = (("token", wire.texts(answer, 2)[0].decode()),)
        return self._login

    def _channel_now(self) -> grpc.Channel:
        if not self._open:
            raise StoreUnavailable("this etcd runner is not open; call open(), or use it as a context manager")
        if self._owner != os.getpid():
            raise StoreMisconfigured(
                "this etcd runner was opened before a fork, which gRPC does not survive; open another"
            )
        if self._channel is None:
            self._channel = _channel(self.where, self._options)
        return self._channel

    def _go_on(self, channel: grpc.Channel | None) -> None:
        """The next call goes to the next member, on a new channel: gRPC may not know yet that this one is broken.

        Calls of others that are under way on it end as they may; it goes with the last of them.
        """
        with self._lock:
            if channel is self._channel and channel is not None:
                self._forget()
                self._at = (self._at + 1) % len(self._addresses)

    def _forget(self) -> grpc.Channel | None:
        channel, self._channel = self._channel, None
        self._calls.clear()
        return channel


def _channel(address: str, options: Options) -> grpc.Channel:
    if not options.tls:
        return grpc.insecure_channel(address, options=_SETTINGS)
    settings = list(_SETTINGS)
    if options.tls_name:
        settings.append(("grpc.ssl_target_name_override", options.tls_name))
    authority, certificate, key = map(_file, (options.tls_ca, options.tls_cert, options.tls_key))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, certificate), options=settings)


def _file(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreMisconfigured(f"the file {path!r} cannot be read: {error.strerror}") from error
