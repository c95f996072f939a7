"""Pattern 4, retries with state: each attempt has a key of its own, so the store remembers how each of them went.

A second caller of the same task finds that it is done. (Where the attempts need no keys of their own, a check-in with
``on_failed="rerun"`` is simpler.)

Run it:  python examples/retry_with_state.py [URL of a store]
"""

import logging
import sys
import tempfile
import time
from collections.abc import Mapping

from onceward.contracts import Json
from onceward.toolkit.director import Director

JOB = "risky-task"
MAX_RETRIES = 3
PAUSE = 0.05  # seconds; doubled after each failure


def risky_operation(task_id: str, attempt: int) -> str:
    """Fails twice, as the network does."""
    if attempt < 3:
        raise ConnectionError(f"no answer to attempt {attempt}")
    return f"data of {task_id}"


def succeeded(director: Director, key: str) -> bool:
    """True if that attempt is known, has ended and says so; one that runs, or whose process died, has no result."""
    existing = director.check(JOB, key)
    result = existing.result if existing is not None else None
    return isinstance(result, Mapping) and result.get("success") is True


def retry(director: Director, task_id: str) -> bool:
    """The task is done, by this call or by an earlier one; False: all attempts failed."""
    for attempt in range(1, MAX_RETRIES + 1):
        key = f"{task_id}-retry-{attempt}"
        if succeeded(director, key):
            print(f"{task_id}: already completed in attempt {attempt}")
            return True
        checkin = director.checkin(JOB, key)
        if not checkin.admitted:
            continue
        try:
            with checkin as run:
                data = risky_operation(task_id, attempt)
                result: Json = {"success": True, "attempt": attempt, "data": data}
                run.result = result
        except ConnectionError as error:
            print(f"{task_id}: attempt {attempt} failed: {error}")
            time.sleep(PAUSE * 2**attempt)
        else:
            print(f"{task_id}: attempt {attempt} succeeded")
            return True
    return False


def main(url: str) -> None:
    logging.getLogger("onceward").setLevel(logging.ERROR)
    with Director(url) as director:
        retry(director, "task-7")
        retry(director, "task-7")
        print(f"in the end: {director.stats()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/retry.db")
