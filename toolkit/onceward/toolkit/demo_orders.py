"""The orders of the demonstration: read from a JSON Lines file, or made, always the same ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from onceward.contracts import InvalidRequest, Json

Order: TypeAlias = Mapping[str, Json]

ORDERS = 2_000
_SEED = 20_260_101
_CUSTOMERS = (
    "ACME Corp", "Alpenmilch eGen", "Blue Harbor Ltd", "Café Zentral", "Dunder & Sons", "Fjord Fisk AS",
    "Globex", "Initech", "Lumen Optics", "Nakamura KK", "Oak & Iron", "Søstrene Berg", "Umbrella Garden", "Vega Labs",
)  # fmt: skip
_PRICES = {
    "WIDGET-1": 100.00, "GADGET-2": 100.00, "BOLT-M8": 0.35, "CABLE-2M": 7.90, "LAMP-LED": 24.50,
    "PUMP-12V": 61.20, "SENSOR-T": 13.75, "VALVE-3": 42.00,
}  # fmt: skip
#: One order in about this many has no customer, and one in about as many has no items.
_INVALID_EVERY = 150


def make_orders(count: int = ORDERS) -> list[Order]:
    """So many orders; always the same, 1 to 2 percent of them invalid: without a customer, or without items."""
    source = random.Random(_SEED)
    return [_make(number, source) for number in range(1, count + 1)]


def _make(number: int, source: random.Random) -> Order:
    skus = source.sample(sorted(_PRICES), source.randint(1, 4))
    items: list[Json] = [{"sku": sku, "qty": source.randint(1, 12), "price": _PRICES[sku]} for sku in skus]
    order: dict[str, Json] = {"order_id": f"ORD-{number:05d}", "customer": source.choice(_CUSTOMERS), "items": items}
    if number % _INVALID_EVERY == 17:
        del order["customer"]
    elif number % _INVALID_EVERY == 93:
        order["items"] = []
    order["total"] = total(order)
    return order


def write_orders(path: Path, orders: Iterable[Order]) -> None:
    """The file holds these orders, one per line."""
    text = "".join(json.dumps(order, ensure_ascii=False) + "\n" for order in orders)
    path.write_text(text, encoding="utf-8")


def read_orders(path: Path) -> list[Order]:
    """The orders in the file, each order number once.

    Raises:
        InvalidRequest: the file cannot be read, or a line is no order; says which.
    """
    orders: dict[str, Order] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest("orders", str(path), f"a readable file of JSON lines ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            order = _parse(line, f"{path.name} line {number}")
            orders.setdefault(str(order["order_id"]), order)
    if not orders:
        raise InvalidRequest("orders", str(path), "at least one order")
    return list(orders.values())


def _parse(line: str, where: str) -> Order:
    try:
        order = json.loads(line)
    except ValueError:
        raise InvalidRequest(where, line, "a JSON object") from None
    if not isinstance(order, dict) or not isinstance(order.get("order_id"), str) or not order["order_id"]:
        raise InvalidRequest(where, line, 'a JSON object with an "order_id"')
    return order


def total(order: Order) -> float:
    """What the order costs."""
    items = order.get("items")
    return round(sum(_price(item) for item in items), 2) if isinstance(items, list) else 0.0


def _price(item: Json) -> float:
    if not isinstance(item, Mapping):
        return 0.0
    quantity, price = item.get("qty"), item.get("price")
    return quantity * price if isinstance(quantity, int) and isinstance(price, (int, float)) else 0.0


def validate(order: Order) -> None:
    """Raise ``ValueError`` for an order that cannot be shipped."""
    if not order.get("customer"):
        raise ValueError("Missing customer")
    if not order.get("items"):
        raise ValueError("No items in order")
