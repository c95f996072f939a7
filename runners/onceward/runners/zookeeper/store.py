"""The store on ZooKeeper, put together from its parts."""

from __future__ import annotations

import os
import weakref

from msgspec.structs import replace

from onceward.contracts import checks
from onceward.contracts.runner import Store
from onceward.contracts.traits import Failover, LeaseClock, Traits
from onceward.runners.zookeeper.claims import Claims
from onceward.runners.zookeeper.executor import ExecutorPart
from onceward.runners.zookeeper.lifecycle import LifecyclePart
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import Layout
from onceward.runners.zookeeper.options import Options, options_of
from onceward.runners.zookeeper.pages import Pages
from onceward.runners.zookeeper.rows import MAX_PAYLOAD_BYTES
from onceward.runners.zookeeper.runs import Lists
from onceward.runners.zookeeper.scheduler import SchedulerPart
from onceward.runners.zookeeper.settle import Settler
from onceward.runners.zookeeper.watch import Nudges

_CONFIG = "/zookeeper/config"

#: What can be said before a server was asked.
_UNKNOWN = Traits(
    durable=True,
    shared=True,
    native_wait=True,
    lease_clock=LeaseClock.WALL,
    failover=Failover.SAFE,
    max_payload_bytes=MAX_PAYLOAD_BYTES,
)


class ZooKeeperStore(ExecutorPart, SchedulerPart, LifecyclePart, Store):
    """A store on a ZooKeeper ensemble, or on a single server.

    Args:
        target: a URL (``zookeeper://user:password@host1,host2,host3/chroot``), or options.
        namespace: of the application; several share an ensemble without seeing each other.
    """

    def __init__(self, target: str | Options = "zookeeper://localhost", namespace: str = "default") -> None:
        checks.namespace("namespace", namespace)
        self.namespace = namespace
        self.options = options_of(target) if isinstance(target, str) else target
        self._layout = Layout(self.options.chroot, namespace)
        self._nudges = Nudges()
        self._link = self._make_link()
        self._settler = Settler(self._link)
        self._lists = Lists(self._link, self._layout, Pages(self._link, self._layout))
        self._claims = Claims(self._link, self._layout, self._lists, self._settler)
        self._traits = _UNKNOWN
        _stores.add(self)

    def _make_link(self) -> Link:
        """The connection, not open yet."""
        return Link(self.options, self._layout.clock, self._nudges.changed)

    def open(self) -> None:
        """See ``Lifecycle.open``: the nodes of the namespace are there."""
        self._link.open()
        layout = self._layout
        steps = layout.root.strip("/").split("/")
        above = ["/" + "/".join(steps[: at + 1]) for at in range(len(steps))]
        self._link.make([*above, layout.clock, layout.jobs, layout.locks, layout.configs])
        failover = Failover.SAFE if self._members() > 1 else Failover.NONE
        self._traits = replace(_UNKNOWN, failover=failover)

    def close(self) -> None:
        """See ``Lifecycle.close``."""
        self._link.close()
        self._nudges.changed(None)

    def _members(self) -> int:
        config = self._link.look([_CONFIG]).nodes[0]
        lines = config.data.decode("utf-8", "replace").splitlines() if config is not None else []
        return max(1, sum(line.startswith("server.") and ":observer" not in line for line in lines))

    def after_fork(self) -> None:
        """In a child: the parent's calls are not under way here; the connection is made anew."""
        self._settler.reset()
        self._claims.reset()
        self._lists.pages.reset()
        self._nudges.reset()
        self._link.after_fork()


_stores: weakref.WeakSet[ZooKeeperStore] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
