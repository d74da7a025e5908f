"""What a worker of a fleet may fetch: what it wants of Redis, what it was granted, and the slots of hosts that it holds.

Where more requests wait for a host than it has slots, some come with a slot that are to follow on it: each goes when the one
before is through, and Redis need not be asked in between. A few of them, then the slot is up to all workers again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Set, Sized
from typing import Any

from scraper.contracts import Lease
from scraper.frontiers import codec
from scraper.frontiers.talk import Bucket, Key

FOLLOWS = 2
"""The kind of a lease that has no slot of its own."""

_PAUSE_S = 0.05  # for which a worker may have no room, while its pages are committed, and keep a slot


class Grants:
    """Leases on their way from Redis to the crawl.

    A slot is named by the request's number there. Private leases, which Redis does not know, have numbers below 0.
    """

    def __init__(self) -> None:
        self.demand = self.private_demand = 0
        """How many leases of any kind are wanted, and how many where only private ones are."""
        self.private_at: float | None = None
        """When a lease that waits for its host may be granted, as far as Redis said."""
        self._no_room_since: float | None = None
        self._is_long = False  # as the last turn found
        self._private: deque[Lease] = deque()
        self._stored: deque[Lease] = deque()
        self._want_private: dict[int, Lease] = {}
        self._want_returned: dict[int, Lease] = {}
        self._wishes = 0
        self._slot_of: dict[Lease, int] = {}
        self._followers: dict[str, deque[Lease]] = {}
        self._unsent: dict[str, int] = {}

    def take(self, n: int, private_only: bool, now: float) -> list[Lease]:
        """Hand out up to ``n`` leases that were granted; what is missing is wanted from now on."""
        leases: list[Lease] = []
        while len(leases) < n and self._private:
            leases.append(self._private.popleft())
        while len(leases) < n and self._stored and not private_only:
            leases.append(self._stored.popleft())
        missing = n - len(leases)
        self.private_demand, self.demand = missing, 0 if private_only else missing
        if not private_only:
            self._no_room_since, self._is_long = None, False
        elif self._no_room_since is None:
            self._no_room_since = now
        return leases

    def has(self, private_only: bool) -> bool:
        """Whether there is one to hand out."""
        return bool(self._private or (self._stored and not private_only))

    def awaits(self, private_only: bool) -> bool:
        """Whether one of this worker's own waits for its host."""
        return bool(self._want_private or (self._want_returned and not private_only))

    def want(self, lease: Lease) -> None:
        """Let a lease wait for its host again."""
        self._wishes += 1
        (self._want_returned if lease.waiter is None else self._want_private)[-self._wishes] = lease

    def wants(self, number_of: Callable[[str], int]) -> dict[int, list[Any]]:
        """Return the leases that wait for their host, as slot and host, by the number of the bucket."""
        wants: dict[int, list[Any]] = {}
        for slot, lease in self._want_private.items():
            host = lease.request.host
            wants.setdefault(number_of(host), []).extend((slot, host))
        if self._no_room_since is None:
            for slot, lease in self._want_returned.items():
                wants.setdefault(lease.key.bucket, []).extend((slot, lease.request.host))
        return wants

    def came(self, bucket: Bucket, granted: list[int], leases: list[Any]) -> int:
        """Take up what a bucket granted: slots for those that waited, and new leases; return how many."""
        for slot, counts_from_sent in zip(granted[::2], granted[1::2], strict=True):
            lease = self._want_private.pop(slot, None)
            if lease is not None:
                self._private.append(lease)
            else:
                lease = self._want_returned.pop(slot)
                self._stored.appendleft(lease)
            self._hold(lease, slot, counts_from_sent)
        came = len(granted) // 2
        for id_, kind, data in zip(leases[::3], leases[1::3], leases[2::3], strict=True):
            lease = Lease(codec.decode(data), Key(bucket.number, id_))
            bucket.held.add(id_)
            if kind == FOLLOWS:
                self._followers.setdefault(lease.request.host, deque()).append(lease)
                continue
            came += 1
            self._stored.append(lease)
            self._hold(lease, id_, kind)
        self.private_demand -= len(granted) // 2
        self.demand = max(0, self.demand - came)
        return came

    def _hold(self, lease: Lease, slot: int, counts_from_sent: int) -> None:
        lease.sent = False
        self._slot_of[lease] = slot
        if counts_from_sent:
            self._unsent[lease.request.host] = slot

    def release(self, lease: Lease) -> int:
        """Return the slot that a lease held, and holds no more."""
        host, slot = lease.request.host, self._slot_of.pop(lease)
        if self._unsent.get(host) == slot:
            del self._unsent[host]
        return slot

    def follow(self, host: str, slot: int, now: float) -> bool:
        """Give a host's slot to one that is to follow on it, where there is one and it is wanted, or will be in a moment."""
        followers, since = self._followers.get(host), self._no_room_since
        if followers is None or (since is not None and now - since > _PAUSE_S):
            return False
        lease = followers.popleft()
        if not followers:
            del self._followers[host]
        self._stored.append(lease)
        self._hold(lease, slot, 0)
        return True

    def make_way(self, now: float) -> list[tuple[Lease, int]]:
        """Return the leases that may not begin, and the slots that they hold no more.

        Those of a host that one of this worker's own waits for at once: there may be no room until that has gone. Others
        once there was none for a while, and at the turn after: a commit that took long has only now made some.
        """
        since = self._no_room_since
        if since is None or not self._stored:
            return []
        idle, was_long = list(self._stored), self._is_long
        self._is_long = now - since > _PAUSE_S
        if not was_long:
            hosts = {lease.request.host for lease in self._want_private.values()}
            idle = [lease for lease in idle if lease.request.host in hosts]
        for lease in idle:
            self._stored.remove(lease)
        return [(lease, self.release(lease)) for lease in idle]

    def halt(self, host: str) -> list[int]:
        """Return the ids of those that were to follow on a host's slots, and are not to any more."""
        return [lease.key.id for lease in self._followers.pop(host, ())]

    @property
    def following(self) -> Mapping[str, Sized]:
        """Those that are to follow, by host."""
        return self._followers

    def held(self) -> list[tuple[str, int]]:
        """Return all slots that are held, with their hosts."""
        return [(lease.request.host, slot) for lease, slot in self._slot_of.items()]

    @property
    def unsent(self) -> Set[str]:
        """Hosts whose request under way is not known to have gone out."""
        return self._unsent.keys()

    def sent(self, host: str) -> int | None:
        """Take note that the request to a host in ``unsent`` went out; return its slot."""
        return self._unsent.pop(host, None)
