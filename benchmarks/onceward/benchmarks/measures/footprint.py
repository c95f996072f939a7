"""Memory of a process over very many check-ins, measured in a process of its own so that nothing else is counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

from onceward.benchmarks.contestants import Place
from onceward.benchmarks.measures.right_to_run import checkin_new
from onceward.benchmarks.records import Point

#: How many times the process looks at its size.
_LOOKS = 40
_STATM = Path("/proc/self/statm")


def measured(place: Place, count: int) -> Generator[Point, None, None]:
    """Points of a child process that checks in ``count`` new keys, as they come; closing the iterator ends the child.

    Raises:
        RuntimeError: the child failed; says with what.
    """
    command = [sys.executable, "-m", __name__, json.dumps([place.url, place.namespace, count])]
    # In a session of its own, so that Ctrl-C reaches only us; we end it then.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert child.stdout is not None  # it is a pipe
        try:
            for line in child.stdout:
                yield Point(*json.loads(line))
            if child.wait():
                raise RuntimeError(f"the measuring process ended with exit code {child.returncode}")
        finally:
            if child.poll() is None:
                child.kill()


def resident() -> int:
    """Bytes of this process that lie in memory; where the system does not say, the most that ever did."""
    if _STATM.exists():
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def check_in(place: Place, count: int) -> Iterator[Point]:
    """Checks in new keys, and tells this process's size before, after, and in between."""
    looks = {count * look // _LOOKS for look in range(1, _LOOKS + 1)}
    with place.open() as runner:
        step = checkin_new(runner, 1).step
        step(-1)  # what is imported and prepared by the first call is not growth
        yield Point(0, resident())
        for index in range(count):
            step(index)
            if index + 1 in looks:
                yield Point(index + 1, resident())


def main(argument: str) -> None:
    """The child: points as JSON, one per line."""
    url, namespace, count = json.loads(argument)
    for point in check_in(Place(url=url, namespace=namespace), count):
        sys.stdout.write(f"[{point.done}, {point.resident}]\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
