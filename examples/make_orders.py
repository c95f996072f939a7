"""Writes orders.jsonl, the 2,000 orders of the demonstration: always the same ones, about 1 percent of them invalid."""

import sys
from pathlib import Path

from onceward.toolkit.demo_orders import make_orders, write_orders

if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("orders.jsonl")
    orders = make_orders()
    write_orders(path, orders)
    print(f"{len(orders)} orders are in {path}")
