"""How a crawl is split among shards: which shard knows a request, which one fetches it, and how much each may do at a time.

Pure, and the same in every process: it hangs on nothing but the settings and the request.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Literal

from scraper.http import Request

_MAX_KNOWN = 65_536


def portion(waiting: int, free: int) -> int:
    """Return how many of the requests that wait at a shard go to another, which has so many free slots and nothing to do.

    Half of them, as then both have something to do; or as many as there are slots for.
    """
    return min(max(free, waiting // 2), waiting)


class Split:
    """The part of shard ``index`` among ``count``.

    ``by="host"``: the shard that owns a host knows and fetches all its pages. ``by="url"``: a page's home, which knows
    whether it was seen, is found by its fingerprint, and every shard has a share of the host's slots; but a host with a
    delay, or with fewer slots than there are shards, is fetched by its owner alone, and all are where ``keeps_whole``. Which
    home a page has hangs on no setting that a resumed run may change. ``budget_of`` gives a host's slots and delay as the
    settings have them.
    """

    def __init__(
        self,
        index: int,
        count: int,
        by: Literal["host", "url"],
        budget_of: Callable[[str], tuple[int, float]],
        *,
        keeps_whole: bool = False,
    ) -> None:
        self.index = index
        self.count = count
        self.by = by
        self.divides_hosts = by == "url" and not keeps_whole
        self._budget_of = budget_of
        self._owners: dict[str, int] = {}

    def owner(self, host: str) -> int:
        """Return the shard that owns a host."""
        try:
            return self._owners[host]
        except KeyError:
            if len(self._owners) >= _MAX_KNOWN:
                self._owners.clear()
            digest = blake2b(host.encode("utf-8", "surrogatepass"), digest_size=8, person=b"shard").digest()
            owner = self._owners[host] = int.from_bytes(digest, "big") % self.count
            return owner

    def home(self, request: Request) -> int:
        """Return the shard that knows whether the request was seen."""
        return self.home_of(request, request.fingerprint)

    def home_of(self, request: Request, mark: bytes) -> int:
        """Return the home of a request with this fingerprint."""
        return self.owner(request.host) if self.by == "host" else (mark[0] << 8 | mark[1]) % self.count

    def spreads(self, host: str) -> bool:
        """Whether the settings let a host's pages be fetched by all shards."""
        return self.divides_hosts and self.is_divisible(*self._budget_of(host))

    def is_divisible(self, slots: int, delay_s: float) -> bool:
        """Whether a host's budget can be split: each shard has a slot then, and no gap has to be kept between them."""
        return self.divides_hosts and not delay_s and slots >= self.count

    def share(self, amount: int) -> int:
        """Return this shard's part of a number; the parts of all shards together are that number."""
        return amount // self.count + (self.index < amount % self.count)
