"""The harness of a server for tests, whatever store it is."""

from __future__ import annotations

from onceward.conformance.harness import UrlHarness
from onceward.conformance.servers.process import ServerProcess


class ServerHarness(UrlHarness):
    """A server by its URL; time passes by itself there. A server of ours can also be restarted."""

    def __init__(self, server: str | ServerProcess) -> None:
        super().__init__(server.url if isinstance(server, ServerProcess) else server)
        self._process = server if isinstance(server, ServerProcess) else None

    def restart(self) -> bool:
        if self._process is None:
            return False
        self._process.restart()
        return True
