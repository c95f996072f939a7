"""The nemesis: stops client processes past their leases and kills them, at seeded moments."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta


class Nemesis:
    """What it does is counted only when it was really done.

    Args:
        seed: decides when it does what to whom.
        kills: at most so many clients are killed.
        pauses: at most so many are stopped for longer than a lease, and continued.
    """

    def __init__(self, seed: int, *, kills: int, pauses: int) -> None:
        self._rng = random.Random(f"nemesis/{seed}")
        self._plan = ["kill"] * kills + (["pause"] * pauses if sys.platform != "win32" else [])
        self._rng.shuffle(self._plan)
        self.faults: Counter[str] = Counter()
        self.killed: list[int] = []

    def torment(self, clients: Sequence[subprocess.Popen[bytes]], lease: timedelta) -> None:
        """The plan was carried out on those clients that were still at work."""
        for deed in self._plan:
            time.sleep(lease.total_seconds() * self._rng.uniform(0.2, 0.8))
            pick = self._rng.random()
            alive = [client for client in clients if client.poll() is None]
            if len(alive) <= 1:
                return
            victim = alive[int(pick * len(alive))]
            (self._kill if deed == "kill" else self._pause)(victim, lease)

    def _kill(self, victim: subprocess.Popen[bytes], _: timedelta) -> None:
        victim.kill()
        victim.wait()
        if victim.returncode != 0:
            self.killed.append(victim.pid)
            self.faults["client process killed (SIGKILL)"] += 1

    def _pause(self, victim: subprocess.Popen[bytes], lease: timedelta) -> None:
        if sys.platform == "win32":
            return
        victim.send_signal(signal.SIGSTOP)
        time.sleep(lease.total_seconds() * 1.3)
        stopped = victim.poll() is None
        victim.send_signal(signal.SIGCONT)
        if stopped:
            self.faults["client process stopped past its lease (SIGSTOP)"] += 1
