"""Looking after a Director: what runs, how it went, what is old, and why a check-in was refused.

Run it:  python examples/monitoring.py [URL of a store]
"""

import json
import logging
import sys
import tempfile
from datetime import timedelta

from onceward.contracts import Status
from onceward.toolkit.director import Director, seed_view


def some_work(director: Director) -> None:
    """One import is done, and one goes on."""
    with director.checkin("customer-import-daily", "2026-01-31") as run:
        run.result = {"success": True, "imported": 42}
    director.checkin("customer-import-daily", "2026-02-01").progress(10, 42, "half way through the second file")


def main(url: str) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stdout)
    with Director(url, stamp={"type": "director", "app": "importer"}, lease=timedelta(minutes=1)) as director:
        some_work(director)

        print("-- what runs now")
        for run in director.list(statuses=[Status.RUNNING]):
            print(json.dumps(seed_view(run), indent=2))

        print("-- debug mode: why was this check-in refused?")
        logging.getLogger("onceward.director").setLevel(logging.DEBUG)
        director.checkin("customer-import-daily", "2026-01-31").ask()
        logging.getLogger("onceward.director").setLevel(logging.INFO)

        print("-- clean up: what ended more than 48 hours ago, and then (never in earnest) all that ended")
        director.cleanup(timedelta(hours=48))
        director.cleanup(timedelta(0))
        print(f"-- what runs is never removed: {director.stats()}")
        director.checkout("customer-import-daily", "2026-02-01", {"success": True})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/monitoring.db")
