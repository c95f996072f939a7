"""Locks and unlocks with python-etcd3, once for each byte of standard input; run in an environment that has it.

Nothing of ours is imported here: there is none of it in that environment.
"""

import os
import secrets
import sys

import etcd3  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]


def main(host: str, port: str) -> None:
    """Answers with a point when it is ready, and after each lock and unlock."""
    lock = etcd3.client(host, int(port)).lock(f"bench-{secrets.token_hex(6)}", ttl=3600)
    while os.write(sys.stdout.fileno(), b".") and os.read(sys.stdin.fileno(), 1):
        if not lock.acquire() or not lock.release():
            raise RuntimeError("a free lock was refused")


if __name__ == "__main__":
    main(*sys.argv[1:])
