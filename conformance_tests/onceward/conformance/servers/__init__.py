"""Real servers for tests: found, started on a free port in a folder of their own, awaited, and ended."""

from onceward.conformance.servers.harness import ServerHarness
from onceward.conformance.servers.process import ServerMissing, ServerProcess
from onceward.conformance.servers.redis import RedisServer, redis_url

__all__ = ["RedisServer", "ServerHarness", "ServerMissing", "ServerProcess", "redis_url"]
