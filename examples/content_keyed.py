"""Content-keyed jobs: a type and its data say what is to be done, and equal data is done once.

Producers that repeat themselves, priorities, a recurring job by a date in its data, jobs that create jobs, and workers
that know some types only.

Run it:  python examples/content_keyed.py [URL of a store]
"""

import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime

from onceward.contracts import Json, Status
from onceward.toolkit.server import JobQueue

DAYS = [datetime(2026, 1, day, tzinfo=UTC) for day in range(1, 11)]
done: list[str] = []


def count(data: dict[str, int]) -> int:
    return data["number"] ** 2


async def report(data: dict[str, datetime], queue: JobQueue) -> Json:
    """The trends of one day; each of its three parts is a job of its own."""
    for part in ("visits", "sales", "returns"):
        queue.create("trend", {**data, "part": part})
    return f"{data['day']:%d.%m.}"


def trend(data: dict[str, Json]) -> Json:
    return data["part"]


def note(data: dict[str, str]) -> None:
    done.append(data["what"])


def main(url: str) -> None:
    executors = {"count": count, "report": report, "trend": trend, "note": note}
    with JobQueue(url, executors, namespace="content") as queue:
        for _ in range(2):  # two producers that know nothing of each other
            queue.create_many(("count", {"number": number}) for number in range(1_000))
        print(f"1,000 jobs, created twice, are done in {queue.run_all('count')} executions")

        queue.create("note", {"what": "low"}, priority=-10)
        queue.create("note", {"what": "high"}, priority=10)
        queue.run_all("note")
        print(f"priorities: {done}")

        for day in [*DAYS, *DAYS]:  # a date in the data makes what recurs another job
            queue.create("report", {"day": day})
        print(f"{queue.run_all('report', 'trend')} executions: 10 reports, and 3 trends that each of them created")

    with JobQueue(url, {"trend": trend}, namespace="content") as worker, JobQueue(url, namespace="content") as producer:
        server = worker.watch()
        found = server.wait(producer.create("trend", {"part": "late"}).run)
        print(f"{found.job} was done by a worker that watches: {found.result}")
        ended = Counter(run.status for run in producer.runs("trend"))
        assert ended == {Status.SUCCEEDED: 31}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/jobs.db?synchronous=NORMAL")
