"""A server in a container, where its program is not installed and Docker answers."""

from __future__ import annotations

import atexit
import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from onceward.conformance.servers.process import ServerMissing

_ANSWERS_WITHIN = 5.0


@dataclass(frozen=True)
class Image:
    """What is run.

    Attributes:
        name: of the image, with its tag.
        port: where the server listens in the container.
        ready: what its log says once it answers.
        url: how to reach it, with ``{host}`` and ``{port}``.
    """

    name: str
    port: int
    ready: str
    url: str


def docker_answers() -> bool:
    """True if containers can be run here."""
    docker = shutil.which("docker")
    if docker is None or importlib.util.find_spec("testcontainers") is None:
        return False
    try:
        done = subprocess.run([docker, "info"], capture_output=True, timeout=_ANSWERS_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


@cache
def contained(image: Image) -> str:
    """The URL of such a server in a container, which ends with this process."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    container = DockerContainer(image.name).with_exposed_ports(image.port)
    container.waiting_for(LogMessageWaitStrategy(image.ready)).start()
    atexit.register(container.stop)
    return image.url.format(host=container.get_container_host_ip(), port=container.get_exposed_port(image.port))


def or_contained(
    own: Callable[[], str],
    image: Image,
    *,
    docker: Callable[[], bool] = docker_answers,
    run: Callable[[Image], str] = contained,
) -> str:
    """The URL that ``own()`` gives; where the program is missing and Docker answers, that of a server in a container.

    Raises:
        ServerMissing: there is neither.
    """
    try:
        return own()
    except ServerMissing:
        if not docker():
            raise
        return run(image)
