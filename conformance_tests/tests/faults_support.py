"""What the tests of faults share: the Redis runner as a harness that a proxy can stand before."""

from __future__ import annotations

from urllib.parse import urlsplit

from redis_support import shared_url

from onceward.conformance.harness import Harness, Opening, Server, UrlHarness, new_namespace
from onceward.contracts import Runner
from onceward.runners.redis import RedisStore


def open_redis(url: str, namespace: str) -> Runner:
    """A runner as other processes open it. Not opened yet."""
    return Runner.of(RedisStore(url, namespace), namespace=namespace, url=url)


class RedisHarness(Harness):
    """The runner without the factory, so that the package need not be installed."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url or shared_url()
        self.name = self.url

    def fresh_runner(self) -> Runner:
        return open_redis(self.url, new_namespace()).open()

    def opening(self, runner: Runner) -> Opening:
        return Opening(call="faults_support:open_redis", arguments={"url": self.url, "namespace": runner.namespace})

    def server(self) -> Server | None:
        return UrlHarness(self.url).server()

    def through(self, address: tuple[str, int]) -> Harness:
        parts = urlsplit(self.url)
        return RedisHarness(parts._replace(netloc=f"{address[0]}:{address[1]}").geturl())
