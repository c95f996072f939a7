"""Servers for tests: what ``make servers`` does where it may, and that nothing is missed in silence where CI is set."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onceward.conformance.harness import UrlHarness
from onceward.conformance.servers.containers import Image, contained, docker_answers, or_contained
from onceward.conformance.servers.process import ServerMissing
from onceward.conformance.servers.redis import IMAGE as REDIS

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "servers"
TESTS = Path(__file__).parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no make")


class Machine:
    """A machine that has only the programs which are put on it; they say with which words they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        for name in ("env", "bash", "grep", "rm", "tee", "chmod"):
            (folder / name).symlink_to(shutil.which(name) or pytest.skip(f"{name} is not installed"))

    def has(self, name: str, *, says: str = "", ends: int = 0) -> None:
        program = self.folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{self.log}"\necho "{says}"\nexit {ends}\n')
        program.chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        """What the script does there."""
        environment = {"PATH": str(self.folder)}
        bash = shutil.which("bash")
        assert bash is not None
        script = SCRIPT.read_text(encoding="utf-8").replace(':/usr/sbin:/sbin"', '"')
        script = script.replace("/usr/share/java", str(self.folder))
        return subprocess.run(
            [bash, "-c", script], env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    @property
    def calls(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    found = Machine(tmp_path)
    found.has("ldconfig", says="libc.so.6 (libc6,x86-64) => /lib/libc.so.6")
    found.has("id", says="1000")
    return found


def test_what_is_there_is_not_installed_again(machine: Machine) -> None:
    for name in ("redis-server", "etcd", "java", "zookeeper.jar", "cc", "node"):
        machine.has(name)
    machine.has("ldconfig", says="libcurl.so.4 (libc6,x86-64) => /lib/libcurl.so.4")
    machine.has("apt-get")
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "apt-get" not in machine.calls


def test_packages_are_installed_where_that_is_possible(machine: Machine) -> None:
    machine.has("apt-get")
    machine.has("sudo")
    done = machine.run()
    assert done.returncode == 0
    assert "apt-get -qq update" in machine.calls
    install = machine.calls[machine.calls.index("apt-get -qq install") :].splitlines()[0]
    assert install.endswith("--no-install-recommends redis-server libcurl4 etcd-server zookeeper gcc libc6-dev nodejs")
    assert install.count("--yes") == 1


@pytest.mark.parametrize("sudo", [False, True])
def test_where_nothing_may_be_installed_it_says_what_to_do_and_goes_on(machine: Machine, sudo: bool) -> None:
    machine.has("apt-get")
    if sudo:
        machine.has("sudo", ends=1)
    done = machine.run()
    assert done.returncode == 0
    assert "apt-get install redis-server libcurl4 etcd-server zookeeper gcc libc6-dev nodejs" in done.stderr
    assert "ONCEWARD_TEST_REDIS_URL" in done.stderr
    assert "\napt-get" not in f"\n{machine.calls}"


def test_other_systems_are_told_what_is_missing(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 0
    assert "redis-server libcurl4 etcd-server zookeeper gcc libc6-dev nodejs not installed" in done.stderr


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", "skipped"), ("false", "skipped"), ("true", "failed"), ("1", "failed")]
)
@pytest.mark.parametrize(
    ("support", "call"),
    [
        ("redis_support", "shared_url()"),
        ("mongodb_support", "shared_url()"),
        ("etcd_support", "shared_url()"),
        ("test_failover", "started(test_failover.EtcdCluster)"),
        ("test_failover", "started(test_failover.ZooKeeperCluster)"),
        ("test_server_clock", "available(test_server_clock.WallClock)"),
        ("zookeeper_support", "shared_url()"),
    ],
)
def test_a_missing_server_is_skipped_on_a_laptop_and_fails_in_ci(
    tmp_path: Path, support: str, call: str, ci: str, outcome: str
) -> None:
    case = tmp_path / "test_case.py"
    case.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        f"import {support}\n"
        "import onceward.conformance.servers.mongodb as mongodb\n"
        "import onceward.conformance.servers.process as process\n"
        "def test_case(monkeypatch):\n"
        "    monkeypatch.setattr(process.shutil, 'which', lambda *_, **__: None)\n"
        "    monkeypatch.setattr(mongodb, '_from_wheel', lambda: None)\n"
        f"    {support}.{call}\n"
    )
    environment = {"PATH": "/nowhere", "PYTHONPATH": ":".join(sys.path), "CI": ci}
    command = [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(case)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert f"1 {outcome}" in done.stdout, done.stdout + done.stderr
    assert "is not installed; install it" in done.stdout


IMAGE = Image("redis:7", 6379, "ready", "redis://{host}:{port}")


def missing() -> str:
    raise ServerMissing("it is not installed")


def no_container(image: Image) -> str:
    raise AssertionError("nothing was to be run")


class TestContainers:
    """What is decided; the container itself is run only where Docker answers."""

    def test_a_server_of_our_own_goes_first(self) -> None:
        assert or_contained(lambda: "own", IMAGE, docker=lambda: pytest.fail("was asked"), run=no_container) == "own"

    def test_without_the_program_it_is_a_container(self) -> None:
        assert or_contained(missing, IMAGE, docker=lambda: True, run=lambda image: image.name) == "redis:7"

    def test_without_either_it_is_missing(self) -> None:
        with pytest.raises(ServerMissing, match="not installed"):
            or_contained(missing, IMAGE, docker=lambda: False, run=no_container)

    @pytest.mark.parametrize(("ends", "answers"), [(0, True), (1, False)])
    def test_docker_answers_if_its_daemon_does(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, ends: int, answers: bool
    ) -> None:
        machine.has("docker", ends=ends)
        monkeypatch.setenv("PATH", str(machine.folder))
        assert docker_answers() is answers
        assert "docker info" in machine.calls

    def test_a_container_serves(self) -> None:
        if not docker_answers():
            pytest.skip("Docker does not answer here")
        with UrlHarness(contained(REDIS)).fresh_runner() as runner:
            assert runner.lifecycle.health().ok

    def test_no_docker_does_not_answer(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(machine.folder))
        assert not docker_answers()
