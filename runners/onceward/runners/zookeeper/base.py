"""What the parts of the store share."""

from __future__ import annotations

from onceward.contracts.traits import Traits
from onceward.runners.zookeeper.claims import Claims
from onceward.runners.zookeeper.link import Link
from onceward.runners.zookeeper.names import Layout
from onceward.runners.zookeeper.options import Options
from onceward.runners.zookeeper.runs import Lists
from onceward.runners.zookeeper.settle import Settler
from onceward.runners.zookeeper.watch import Nudges


class Base:
    """State of a store that each part works with; made by ``ZooKeeperStore``."""

    namespace: str
    options: Options
    _link: Link
    _layout: Layout
    _settler: Settler
    _lists: Lists
    _claims: Claims
    _nudges: Nudges
    _traits: Traits

    def _members(self) -> int:
        """How many servers vote; 1: it is a single one. Also proves that writes are taken."""
        raise NotImplementedError
