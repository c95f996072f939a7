"""What the parts of the store share: the connection and the prefix of the namespace's keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onceward.runners.redis import rows
from onceward.runners.redis.link import Link
from onceward.runners.redis.wire import Reply

#: So many items go into one script of a batch; a larger batch is still one trip.
CHUNK = 250


class Base:
    """State of a store that each part works with; made and opened by ``RedisStore``."""

    namespace: str
    _link: Link
    _prefix: str

    def _run(self, script: str, *arguments: str | int) -> Reply:
        """What the script answers for this namespace."""
        return self._link.run(script, self._prefix, *arguments)

    def _batch(self, script: str, arguments: Sequence[str | int], width: int) -> Iterator[Reply]:
        """What the script answers for each item of ``width`` arguments, in one trip whatever their number."""
        step = CHUNK * width
        parts = [(self._prefix, *arguments[at : at + step]) for at in range(0, len(arguments), step)]
        for reply in self._link.run_all(script, parts):
            yield from rows.listed(reply)
