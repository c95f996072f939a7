"""Pattern 1, event-driven: the event's own id is the key, so an event that is delivered twice is handled once.

Run it:  python examples/event_driven.py [URL of a store]
"""

import sys
import tempfile
from collections.abc import Mapping

from onceward.toolkit.director import Director

DELIVERIES: list[Mapping[str, str | int]] = [
    {"event_id": "evt-12345", "type": "order", "amount": 100},
    {"event_id": "evt-12346", "type": "refund", "amount": 20},
    {"event_id": "evt-12345", "type": "order", "amount": 100},  # the broker delivers at least once, not exactly once
]


def instance(director: Director, name: str) -> None:
    """One of several instances: each of them gets every delivery."""

    @director.checkin("event-processor", key="{event.event_id}")
    def handle(event: Mapping[str, str | int]) -> dict[str, str | int]:
        print(f"{name}: handling {event['event_id']}")
        return {"handled_by": name, "amount": event["amount"]}

    for event in DELIVERIES:
        answer = handle(event)
        if not answer:
            print(f"{name}: {event['event_id']} is not for me: {answer}")


def main(url: str) -> None:
    with Director(url, namespace="events::coordination") as first, Director(url, namespace=first.namespace) as second:
        instance(first, "instance A")
        instance(second, "instance B")
        print(f"in the end: {first.stats()}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/events.db")
