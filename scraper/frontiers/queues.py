"""Requests that wait in memory, a heap a host, and the rules by which they are leased. Both local frontiers stand on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, nlargest, nsmallest

from scraper.contracts import HostBudgets, Lease
from scraper.http import Request

Rank = tuple[int, int]
"""Where a request stands in its host's queue, lowest first: minus its priority, then its serial number."""


class Queues:
    """Leases that wait: for their host's turn, for a time, or (private and returned ones) before all others of the host.

    ``hosts`` says which host may go; every lease that waits here for its host has been added there once.
    """

    def __init__(self, hosts: HostBudgets, clock: Callable[[], float]) -> None:
        self._hosts = hosts
        self._clock = clock
        self._queues: dict[str, list[tuple[Rank, Lease]]] = {}
        self._private: dict[str, deque[Lease]] = {}
        self._returned: dict[str, deque[Lease]] = {}
        self._delayed: list[tuple[float, Rank, Lease]] = []
        self.size = 0
        """Leases in the hosts' queues."""

    def push(self, lease: Lease, rank: Rank) -> None:
        """Let a lease wait for its host's turn."""
        host = lease.request.host
        queue = self._queues.get(host)
        if queue is None:
            queue = self._queues[host] = []
        heappush(queue, (rank, lease))
        self.size += 1
        self._hosts.add(host, self._clock())

    def delay(self, lease: Lease, rank: Rank, not_before: float) -> None:
        """Let a lease wait for a time; ``pop_due`` gives it back then."""
        heappush(self._delayed, (not_before, rank, lease))

    def pop_due(self, now: float) -> Iterator[tuple[Lease, Rank]]:
        """Take out the leases whose time has come: they are to be pushed now."""
        while self._delayed and self._delayed[0][0] <= now:
            _, rank, lease = heappop(self._delayed)
            yield lease, rank

    def requeue(self, lease: Lease) -> None:
        """Let a lease wait for its host before all others."""
        host = lease.request.host
        waiting = self._private if lease.waiter is not None else self._returned
        waiting.setdefault(host, deque()).append(lease)
        self._hosts.add(host, self._clock())

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` leases whose host may go at ``now``."""
        leases: list[Lease] = []
        if private_only:
            for host in list(self._private):
                while host in self._private and len(leases) < n and self._hosts.take(host, now):
                    leases.append(self._next_of(host))
            return leases
        while len(leases) < n:
            ready = self._hosts.pop(now)
            if ready is None:
                break
            leases.append(self._next_of(ready))
        return leases

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when ``lease`` may next succeed with the slots that are free now."""
        if private_only:
            if not self._private:
                return None
            times = [at for host in self._private if (at := self._hosts.ready_at(host)) is not None]
        else:
            times = [self._delayed[0][0]] if self._delayed else []
            at = self._hosts.next_ready(now)
            if at is not None:
                times.append(at)
        return min(times, default=None)

    @property
    def has_private(self) -> bool:
        """Whether private leases wait."""
        return bool(self._private)

    @property
    def hosts(self) -> int:
        """How many hosts have leases in their queues."""
        return len(self._queues)

    def longer_than(self, n: int) -> list[str]:
        """Return the hosts in whose queues more than ``n`` leases wait."""
        return [host for host, queue in self._queues.items() if len(queue) > n]

    def first(self, host: str) -> Lease:
        """Return the host's next lease, which stays where it is."""
        return self._queues[host][0][1]

    def length(self, host: str) -> int:
        """Return how many leases wait in the host's queue."""
        return len(self._queues.get(host, ()))

    def last_rank(self, host: str) -> Rank | None:
        """Return the rank of the host's last lease, or None where none waits."""
        queue = self._queues.get(host)
        return max(queue)[0] if queue else None

    def keep_first(self, host: str, n: int) -> Rank:
        """Forget all but the first ``n`` leases of the host's queue; return the rank of the last one kept."""
        queue = self._queues[host]
        kept = nsmallest(n, queue)
        for _ in range(len(queue) - len(kept)):
            self._hosts.drop(host)
        self.size -= len(queue) - len(kept)
        heapify(kept)
        self._queues[host] = kept
        return max(kept)[0]

    def take_last(self, host: str, n: int) -> list[Lease]:
        """Take the last ``n`` leases out of the host's queue."""
        queue = self._queues[host]
        taken = nlargest(n, queue)
        least = taken[-1][0]
        kept = [each for each in queue if each[0] < least]
        for _ in taken:
            self._hosts.drop(host)
        self.size -= len(taken)
        heapify(kept)
        if kept:
            self._queues[host] = kept
        else:
            del self._queues[host]
        return [lease for _, lease in taken]

    @property
    def returned(self) -> int:
        """How many stored leases were given back and wait before all others."""
        return sum(map(len, self._returned.values()))

    def take_returned(self, n: int, may_go: Callable[[Request], bool | None]) -> list[Lease]:
        """Take out up to ``n`` of those that were given back, of hosts of which ``may_go`` allows the first."""
        taken: list[Lease] = []
        for host, leases in list(self._returned.items()):
            if not may_go(leases[0].request):
                continue
            while leases and len(taken) < n:
                taken.append(leases.pop())
                self._hosts.drop(host)
            if not leases:
                del self._returned[host]
        return taken

    def _next_of(self, host: str) -> Lease:
        if self._private or self._returned:
            for waiting in (self._private, self._returned):
                leases = waiting.get(host)
                if leases is not None:
                    lease = leases.popleft()
                    if not leases:
                        del waiting[host]
                    return lease
        queue = self._queues[host]
        lease = heappop(queue)[1]
        self.size -= 1
        if not queue:
            del self._queues[host]
        return lease
