"""The complete example: orders are validated, reserved, paid and shipped, each of them once, and every end is recorded.

Orders come from orders.jsonl; some are invalid. A failed order is checked out as failed, what was reserved for it is
freed again, and the error reaches the caller all the same.

Run it:  python examples/order_processing.py [URL of a store]
"""

import json
import logging
import sys
import tempfile
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from onceward.contracts import Json
from onceward.toolkit.director import Director, Refused, current

Order = Mapping[str, Json]

ORDERS = Path(__file__).with_name("orders.jsonl")
STAMP = {"type": "director", "app": "order-processor", "version": "2.0"}
log = logging.getLogger("orders")


def validate(order: Order) -> None:
    if not order.get("customer"):
        raise ValueError("Missing customer")
    if not order.get("items"):
        raise ValueError("No items in order")


def reserve_inventory(order: Order) -> None:
    log.debug("Reserved inventory for order: %s", order["order_id"])


def process_payment(order: Order) -> None:
    log.debug("Processed payment for order: %s", order["order_id"])


def create_shipment(order: Order) -> None:
    log.debug("Created shipment for order: %s", order["order_id"])


def compensate(order: Order, error: Exception) -> None:
    """The place to undo what was done before the error."""
    log.info("Freed what was reserved for order %s: %s", order["order_id"], error)


def process(order: Order) -> Json:
    """One order; its end is recorded either way."""
    log.debug("Processing order: %s", order["order_id"])
    now = datetime.now(UTC)
    try:
        validate(order)
        reserve_inventory(order)
        process_payment(order)
        create_shipment(order)
    except Exception as error:
        compensate(order, error)
        run = current()
        if run is not None:  # what the check-out is to record beside the error, which is recorded anyway
            run.result = {"status": "failed", "error": str(error), "timestamp": now}
        raise
    return {"status": "completed", "total": order.get("total"), "timestamp": now}


def receive(orders: Path, count: int) -> list[Order]:
    """Orders from the file, one without a number of its own, and one that comes twice."""
    with orders.open(encoding="utf-8") as lines:
        received = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    web_order: Order = {"order_id": f"ORD-{uuid.uuid4()}", "customer": "ACME Corp", "items": [{"sku": "WIDGET-1"}]}
    return [*received, web_order, received[0]]


def main(url: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    with Director(url, namespace="orders::coordination", stamp=STAMP, lease=timedelta(seconds=30)) as director:
        process_once = director.checkin("order-processing", key="{order.order_id}")(process)
        for order in receive(ORDERS, 120):
            try:
                answer = process_once(order)
            except ValueError as error:
                log.error("Order failed: %s - %s", order["order_id"], error)
                continue
            if isinstance(answer, Refused):
                log.info("Order came again: %s, it has %s", order["order_id"], answer.run.status)
        log.info("Order stats: %s", director.stats())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/orders.db")
