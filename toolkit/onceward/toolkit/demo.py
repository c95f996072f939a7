"""The demonstration: several processes share a pile of orders, one of them is killed, and every order is done once.

Each worker tries *every* order, in an order of its own. One order is marked as fatal: the first worker that is admitted
to it stops in its middle, and is killed there with SIGKILL; the order's lease lapses, and another worker takes it
over. At the end the store's records are read: each order must have exactly one recorded check-out.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from onceward.contracts import InvalidRequest, StoreMisconfigured, checks
from onceward.contracts.times import span_ms
from onceward.runners.factory import redacted
from onceward.toolkit import keys
from onceward.toolkit.demo_crew import Crew, DemoFailed, OnProgress
from onceward.toolkit.demo_orders import Order, make_orders, read_orders, validate, write_orders
from onceward.toolkit.demo_report import DemoProgress, DemoReport, WorkerProgress, count_bodies, report
from onceward.toolkit.demo_worker import JOB, Setup
from onceward.toolkit.director import Director

__all__ = ["DemoFailed", "DemoProgress", "DemoReport", "WorkerProgress", "run_demo"]

NAMESPACE = "onceward-demo"
DEFAULT_ORDERS = Path("examples") / "orders.jsonl"
LEASE = timedelta(seconds=1.5)
#: A worker is killed when about this share of the orders is done.
_KILL_AT = 0.4


def run_demo(
    orders: Path | None = None,
    *,
    url: str | None = None,
    workers: int = 4,
    kill: bool = True,
    lease: timedelta = LEASE,
    on_progress: OnProgress = lambda progress: None,
) -> DemoReport:
    """All orders have ended, and the report says how; look at ``report.ok``.

    Args:
        orders: a file of JSON lines; None: ``examples/orders.jsonl``, or the same orders made anew.
        url: a store that processes can share; None: a SQLite file that is removed afterwards.
        workers: so many processes.
        kill: one of them is killed in the middle of an order.
        lease: an order whose worker died can be taken over after this.
        on_progress: is called about ten times a second, by the calling thread.

    Raises:
        InvalidRequest: the orders cannot be read, none is valid, or there are too few workers.
        StoreMisconfigured: the store cannot be shared between processes.
        DemoFailed: it did not come to its end in five minutes.
    """
    checks.whole("workers", workers, 2 if kill else 1, 64)
    checks.required_lease("lease", lease)
    with tempfile.TemporaryDirectory(prefix="onceward-demo-") as folder:
        work = Path(folder)
        path = _orders(orders, work)
        found = read_orders(path)
        setup = Setup(
            url=url or f"sqlite:///{quote(str(work / 'demo.db'))}",
            namespace=NAMESPACE,
            stamp={"type": "director", "demo": keys.random()},
            orders=str(path),
            effects=str(work / "effects.jsonl"),
            lease_ms=span_ms(lease),
            fatal=_fatal(found) if kill else "",
            fatal_at=int(len(found) * _KILL_AT / workers),
        )
        return _run(setup, [str(order["order_id"]) for order in found], workers, on_progress)


def _run(setup: Setup, orders: Sequence[str], workers: int, on_progress: OnProgress) -> DemoReport:
    with Director(setup.url, namespace=setup.namespace, stamp=setup.stamp) as director:
        if not director.runner.traits.shared:
            raise StoreMisconfigured(
                f"{redacted(setup.url)} is not shared between processes; take for example sqlite:///demo.db"
            )
        with Crew(setup, workers=workers, orders=len(orders)) as crew:
            crew.work(on_progress)
        problems = [*crew.problems]
        if setup.fatal and crew.killed is None:
            problems.append("no worker was killed in the middle of an order, though one should have been")
        return report(
            orders,
            director.runs(JOB),
            count_bodies(Path(setup.effects)),
            workers=workers,
            seconds=crew.seconds,
            refused=crew.progress().refused,
            killed=crew.killed,
            problems=problems,
        )


def _orders(given: Path | None, work: Path) -> Path:
    if given is not None:
        return given
    if DEFAULT_ORDERS.is_file():
        return DEFAULT_ORDERS
    made = work / "orders.jsonl"
    write_orders(made, make_orders())
    return made


def _fatal(orders: Sequence[Order]) -> str:
    """The order in whose middle a worker is killed: any that has a middle."""
    for order in orders:
        with contextlib.suppress(ValueError):
            validate(order)
            return str(order["order_id"])
    raise InvalidRequest("orders", len(orders), "at least one valid order, in whose middle a worker can be killed")
