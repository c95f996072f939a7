"""One worker process of the demonstration: it tries every order, in an order of its own, until all have ended.

The parent talks to it by lines on its standard input (the set-up as JSON, then ``go``; the end of the input means
stop), and it tells what it does by JSON lines on its standard output. What it does to orders, it also writes to a
file of effects, outside of the store: that is what the world would see.

One order may be marked as fatal: whoever is the first to be admitted to it stops in its middle, and is killed there.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import msgspec

from onceward.contracts import Json, WaitTimeout
from onceward.toolkit.demo_orders import Order, read_orders, total, validate
from onceward.toolkit.director import CheckedIn, Director

JOB = "order-processing"

_TELL_EVERY = 50
_LOOK_AGAIN = timedelta(milliseconds=200)


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the workers have to know; ``fatal_at``: where in its list each of them puts the fatal order."""

    url: str
    namespace: str
    stamp: dict[str, str]
    orders: str
    effects: str
    lease_ms: int
    fatal: str = ""
    fatal_at: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a worker tells: ``kind`` is ready, started, inside, ended or refused; ``refused`` counts from its start."""

    kind: str
    order: str = ""
    takeover: bool = False
    refused: int = 0


class Control:
    """What the parent has said so far."""

    def __init__(self, source: TextIO) -> None:
        self.go, self.stop = threading.Event(), threading.Event()
        threading.Thread(target=self._listen, args=(source,), daemon=True).start()

    def _listen(self, source: TextIO) -> None:
        for line in source:
            (self.go if line.strip() == "go" else self.stop).set()
        self.stop.set()
        self.go.set()


class Worker:
    """Tries orders."""

    def __init__(self, number: int, setup: Setup, director: Director, control: Control, effects: int) -> None:
        self._number, self._setup, self._director, self._control = number, setup, director, control
        self._effects = effects
        self._refused = 0

    def run(self, orders: list[Order]) -> None:
        """All orders have ended, whoever processed them; or the parent is gone."""
        self._tell("ready")
        self._control.go.wait()
        orders = self._shuffled(orders)
        while orders and not self._control.stop.is_set():
            orders = [order for order in orders if not self._control.stop.is_set() and not self._try(order)]
            if orders:
                self._wait_for(orders[0])
        self._tell("refused")

    def _shuffled(self, orders: list[Order]) -> list[Order]:
        """The orders as this worker will try them: all workers reach the fatal one after about as many others."""
        random.Random(self._number).shuffle(orders)
        fatal = [order for order in orders if order["order_id"] == self._setup.fatal]
        rest = [order for order in orders if order["order_id"] != self._setup.fatal]
        return [*rest[: self._setup.fatal_at], *fatal, *rest[self._setup.fatal_at :]]

    def _try(self, order: Order) -> bool:
        """True if the order has ended."""
        order_id = str(order["order_id"])
        checkin = self._director.checkin(JOB, order_id)
        if not checkin.admitted:
            self._refused += 1
            if self._refused % _TELL_EVERY == 0:
                self._tell("refused")
            return checkin.run.status.ended
        takeover = checkin.outcome.value == "taken_over"
        self._tell("started", order_id, takeover=takeover)
        try:
            with checkin:
                checkin.result = self._process(order, checkin)
        except ValueError as invalid:  # recorded as the run's failure; the next order is another matter
            logging.getLogger("onceward.demo").debug("%s failed: %s", order_id, invalid)
        self._tell("ended", order_id)
        return True

    def _process(self, order: Order, checkin: CheckedIn) -> Json:
        order_id = str(order["order_id"])
        self._effect("started", order_id, checkin.token)
        validate(order)
        self._effect("reserved", order_id, checkin.token)
        if order_id == self._setup.fatal and checkin.run.attempt == 1:
            self._tell("inside", order_id)
            self._control.stop.wait()  # the parent kills us here, in the middle of an order
        self._effect("paid", order_id, checkin.token)
        self._effect("shipped", order_id, checkin.token)
        return {"status": "completed", "total": total(order), "worker": self._number}

    def _effect(self, effect: str, order_id: str, token: int) -> None:
        """The world has been changed; the token says in whose name."""
        line = json.dumps({"order": order_id, "effect": effect, "token": token}) + "\n"
        os.write(self._effects, line.encode())

    def _wait_for(self, order: Order) -> None:
        """Somebody else's order has ended, or a little time has passed."""
        try:
            self._director.wait(JOB, str(order["order_id"]), _LOOK_AGAIN)
        except WaitTimeout:
            return

    def _tell(self, kind: str, order_id: str = "", *, takeover: bool = False) -> None:
        event = Event(kind=kind, order=order_id, takeover=takeover, refused=self._refused)
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()


def main() -> None:
    """Work as the parent says."""
    logging.getLogger("onceward").setLevel(logging.ERROR)  # a refused check-in is the rule here, not worth a warning
    setup = msgspec.json.decode(sys.stdin.readline(), type=Setup)
    control = Control(sys.stdin)
    orders = read_orders(Path(setup.orders))
    effects = os.open(setup.effects, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    lease = timedelta(milliseconds=setup.lease_ms)
    try:
        with Director(setup.url, namespace=setup.namespace, stamp=setup.stamp, lease=lease) as director:
            Worker(int(sys.argv[1]), setup, director, control, effects).run(orders)
    finally:
        os.close(effects)


if __name__ == "__main__":
    main()
