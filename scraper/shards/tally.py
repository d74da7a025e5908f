"""How ``crawl.max_pages`` is divided: pages are lent to the shards that ask, and what is not needed comes back."""

from __future__ import annotations

_LEAST = 16


class Tally:
    """The pages that each shard may fetch in all, those that it has fetched among them; together never more than ``most``."""

    def __init__(self, most: int, shards: int) -> None:
        self._most = most
        self._held: list[int | None] = [None] * shards
        self._wanting: set[int] = set()
        self._recalled: set[int] = set()
        self._dead: set[int] = set()

    def joined(self, shard: int, pages: int) -> None:
        """A shard's process has begun; earlier ones have fetched so many pages, and what they held beyond that is free."""
        self._held[shard] = pages
        self._dead.discard(shard)

    def died(self, shard: int) -> None:
        """A shard's process has ended: until it has joined again it gets nothing, as ``joined`` would not know of that."""
        self._dead.add(shard)
        self._wanting.discard(shard)
        self._recalled.discard(shard)

    def stirred(self, shard: int) -> None:
        """A shard may have come to need less than it holds."""
        self._recalled.discard(shard)

    def want(self, shard: int) -> None:
        """A shard needs more than it holds."""
        self._wanting.add(shard)

    def back(self, shard: int, pages: int) -> None:
        """A shard has given back so many; where it has found some that it does not need, it does not want more."""
        self._held[shard] = (self._held[shard] or 0) - pages
        if pages:
            self._wanting.discard(shard)

    def decide(self) -> tuple[list[tuple[int, int]], list[int]]:
        """Return who is to get how many, and who is to be asked for what it does not need."""
        held = [each for each in self._held if each is not None]
        wanting = self._wanting - self._dead
        if not wanting or len(held) < len(self._held):
            return [], []  # what some have fetched in an earlier run is not known yet
        grants = []
        left = self._most - sum(held)
        for shard in sorted(wanting):
            if left <= 0:
                break
            pages = min(left, max(_LEAST, left // (2 * len(held))))
            left -= pages
            self._held[shard] = held[shard] + pages
            self._wanting.discard(shard)
            grants.append((shard, pages))
        # Also one that wants some itself: what it asked for, it may have passed on to another since.
        wanting &= self._wanting
        recalls = {shard for shard in range(len(held)) if wanting - {shard}} - self._recalled - self._dead
        self._recalled |= recalls
        return grants, sorted(recalls)
