"""Who gets something to do from whom: a shard with free slots, where nothing waits, is fed by the one where most does.

Pure. Until what a shard is to get has come to it, or its feeder has said that nothing will, it is not fed again: what it says
of its free slots meanwhile was said without knowing.
"""

from __future__ import annotations

from collections.abc import Sequence

from scraper.frontiers.split import portion


class Feed:
    """Decides which shard is to pass some of its requests on to which."""

    def __init__(self) -> None:
        self._hungry: dict[int, int] = {}
        self._feeders: dict[int, int] = {}
        self._coming: set[int] = set()

    def hungry(self, shard: int, free: int) -> None:
        """A shard has free slots and nothing that waits for them."""
        self._hungry[shard] = free

    def gave(self, feeder: int, shard: int, given: int) -> None:
        """A feeder has put so many requests on their way to a shard."""
        if self._feeders.get(shard) != feeder:
            return
        if given:
            self._coming.add(shard)
        else:
            del self._feeders[shard]
            self._hungry.setdefault(shard, 1)

    def carried(self, feeder: int, shard: int) -> None:
        """What a feeder had for a shard was carried there."""
        if shard in self._coming and self._feeders[shard] == feeder:
            self._forget(shard)
            self._hungry.pop(shard, None)

    def died(self, shard: int) -> None:
        """A shard's process has ended: it neither feeds nor is fed before it is up again."""
        self._hungry.pop(shard, None)
        for fed in [fed for fed, feeder in self._feeders.items() if shard in (fed, feeder)]:
            self._forget(fed)

    def decide(self, waiting: Sequence[int]) -> list[tuple[int, int, int]]:
        """Return who is to give whom something for how many slots, where so many requests wait at each, as far as is known."""
        moves: list[tuple[int, int, int]] = []
        left = list(waiting)
        for shard, free in list(self._hungry.items()) if len(left) > 1 else ():
            feeder = max((each for each in range(len(left)) if each != shard), key=left.__getitem__)
            if left[feeder] <= 0 or left[shard] > 0 or shard in self._feeders:
                continue
            del self._hungry[shard]
            self._feeders[shard] = feeder
            left[feeder] -= portion(left[feeder], free)
            moves.append((feeder, shard, free))
        return moves

    def _forget(self, shard: int) -> None:
        del self._feeders[shard]
        self._coming.discard(shard)
