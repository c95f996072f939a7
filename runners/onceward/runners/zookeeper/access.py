"""Who we are to the servers, and whom we take for them: users, SASL, TLS; and why nobody lets us in."""

from __future__ import annotations

import importlib.util
import socket
import ssl
from pathlib import Path
from typing import Any

from kazoo.handlers.utils import create_tcp_connection  # type: ignore[import-untyped]
from kazoo.hosts import collect_hosts  # type: ignore[import-untyped]
from kazoo.security import make_digest_acl_credential  # type: ignore[import-untyped]

from onceward.contracts.errors import StoreMisconfigured
from onceward.runners.zookeeper.options import Options


def owner(options: Options) -> tuple[str, str]:
    """Whom what we make belongs to, as ZooKeeper says it: scheme and id."""
    if options.sasl:
        return ("sasl", options.username) if options.username else ("auth", "")  # whoever we are to the server
    if not options.username:
        return "world", "anyone"
    return "digest", str(make_digest_acl_credential(options.username, options.password))


def arguments(options: Options) -> dict[str, Any]:
    """What kazoo's client is told of all that.

    Raises:
        StoreMisconfigured: what SASL needs is not installed, or a file of a certificate is not there.
    """
    found: dict[str, Any] = {}
    if options.sasl:
        if importlib.util.find_spec("puresasl") is None:
            raise StoreMisconfigured(f"sasl={options.sasl} needs pure-sasl: pip install 'onceward[zookeeper]'")
        found["sasl_options"] = {"mechanism": options.sasl.upper()}
        if options.username:
            found["sasl_options"] |= {"username": options.username, "password": options.password}
    elif options.username:
        found["auth_data"] = [("digest", f"{options.username}:{options.password}")]
    return found | (_tls(options) if options.tls else {})


def _tls(options: Options) -> dict[str, Any]:
    for path in (options.tls_ca, options.tls_cert, options.tls_key):
        _readable(path)
    return {
        "use_ssl": True,
        "verify_certs": options.tls_verify,
        "check_hostname": options.tls_verify,
        "ca": options.tls_ca or None,
        "certfile": options.tls_cert or None,
        "keyfile": options.tls_key or None,
    }


def _readable(path: str) -> None:
    try:
        if path:
            Path(path).open("rb").close()
    except OSError as error:
        raise StoreMisconfigured(f"the file {path!r} cannot be read: {error.strerror}") from error


def refused_by_tls(options: Options) -> str | None:
    """What is wrong with the TLS of a server, if that keeps us out; kazoo only tells that there is no connection."""
    for host, port in collect_hosts(",".join(options.hosts))[0] if options.tls else ():
        try:
            timeout = options.connect_timeout_ms / 1000
            create_tcp_connection(socket, (host, port), hostname=host, timeout=timeout, **_tls(options)).close()
        except ssl.SSLCertVerificationError as error:
            return f"the certificate of {host}:{port} is not accepted: {error.verify_message}"
        except ssl.SSLError as error:
            return f"no TLS connection can be made with {host}:{port}: {error.reason or error}"
        except OSError:
            continue  # it is not there, and TLS has nothing to do with that
    return None
