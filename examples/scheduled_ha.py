"""Pattern 2, a schedule with high availability: every node fires every hour, and one of them does the work.

The key is the hour for which the job was scheduled, in a declared time zone; not the time at which a node got to it.
The night of this example is one in which clocks are put back: 02:00 comes twice, and both are done.

Run it:  python examples/scheduled_ha.py [URL of a store]
"""

import logging
import multiprocessing
import sys
import tempfile
from datetime import UTC, datetime, timedelta

from onceward.toolkit import keys
from onceward.toolkit.director import Director

ZONE = "Europe/Vienna"
FIRST = datetime(2026, 10, 24, 23, 0, tzinfo=UTC)
FIRE_TIMES = [FIRST + timedelta(hours=hours) for hours in range(5)]  # nobody waits for them here


def node(url: str, name: str) -> None:
    """A hot instance: it does what the others have not done."""
    logging.getLogger("onceward").setLevel(logging.ERROR)
    with Director(url, lease=timedelta(minutes=5)) as director:

        @director.checkin("hourly-cleanup", key=lambda fired: keys.time_bucket(fired, ZONE, "hour"))
        def clean_up(fired: datetime) -> dict[str, str | bool]:
            return {"cleaned": True, "node": name}

        for fired in FIRE_TIMES:
            clean_up(fired)


def main(url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    nodes = [spawn.Process(target=node, args=(url, name)) for name in ("node-1", "node-2")]
    for process in nodes:
        process.start()
    for process in nodes:
        process.join()
    with Director(url) as director:
        for run in reversed(director.list("hourly-cleanup")):
            print(f"{run.key}: done {run.attempt} time")
        print(f"{len(FIRE_TIMES)} fire times, {len(nodes)} nodes: {director.stats()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/schedule.db")
