"""Requests that wait in memory, a heap a host, and the rules by which they are leased. Both local frontiers stand on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, nlargest, nsmallest

from scraper.contracts import Host, HostBudgets, Lease
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
        self._private: dict[str, deque[Lease]] = {}
        self._returned: dict[str, deque[Lease]] = {}
        self._delayed: list[tuple[float, Rank, Lease]] = []
        self.size = 0
        """Leases in the hosts' queues."""
        self.hosts = 0
        """How many hosts have leases in their queues."""

    def push(self, lease: Lease, rank: Rank) -> Host:
        """Let a lease wait for its host's turn; return the host."""
        host = self._hosts.add(lease.request.host, self._clock())
        if not host.line:
            self.hosts += 1
        heappush(host.line, (rank, lease))
        self.size += 1
        return host

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
            for name in list(self._private):
                while name in self._private and len(leases) < n and (taken := self._hosts.take(name, now)):
                    leases.append(self._next_of(taken))
            return leases
        while len(leases) < n:
            host = self._hosts.pop(now)
            if host is None:
                break
            leases.append(self._next_of(host))
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

    def longer_than(self, n: int) -> list[Host]:
        """Return the hosts in whose queues more than ``n`` leases wait."""
        return [host for host in self._hosts if len(host.line) > n]

    def length(self, name: str) -> int:
        """Return how many leases wait in the host's queue."""
        host = self._hosts.get(name)
        return len(host.line) if host is not None else 0

    def last_rank(self, name: str) -> Rank | None:
        """Return the rank of the host's last lease, or None where none waits."""
        host = self._hosts.get(name)
        return max(host.line)[0] if host is not None and host.line else None

    def keep_first(self, host: Host, n: int) -> Rank:
        """Forget all but the first ``n`` leases of the host's queue; return the rank of the last one kept."""
        kept: list[tuple[Rank, Lease]] = nsmallest(n, host.line)
        self._keep(host, kept)
        return kept[-1][0]

    def take_last(self, host: Host, n: int) -> list[Lease]:
        """Take the last ``n`` leases out of the host's queue."""
        taken = nlargest(n, host.line)
        least = taken[-1][0]
        self._keep(host, [each for each in host.line if each[0] < least])
        return [lease for _, lease in taken]

    def _keep(self, host: Host, kept: list[tuple[Rank, Lease]]) -> None:
        """Have only these leases wait in the host's queue."""
        gone = len(host.line) - len(kept)
        for _ in range(gone):
            self._hosts.drop(host)
        self.size -= gone
        heapify(kept)
        host.line[:] = kept
        if not kept:
            self.hosts -= 1

    @property
    def returned(self) -> int:
        """How many stored leases were given back and wait before all others."""
        return sum(map(len, self._returned.values()))

    def take_returned(self, n: int, may_go: Callable[[Request], bool | None]) -> list[Lease]:
        """Take out up to ``n`` of those that were given back, of hosts of which ``may_go`` allows the first."""
        taken: list[Lease] = []
        for name, leases in list(self._returned.items()):
            host = self._hosts.get(name)
            if not may_go(leases[0].request):
                continue
            while leases and len(taken) < n:
                taken.append(leases.pop())
                self._hosts.drop(host)
            if not leases:
                del self._returned[name]
        return taken

    def _next_of(self, host: Host) -> Lease:
        lease = self._next_private(host.name) if self._private or self._returned else None
        if lease is None:
            lease = heappop(host.line)[1]
            self.size -= 1
            if not host.line:
                self.hosts -= 1
        lease.slot = host
        return lease

    def _next_private(self, name: str) -> Lease | None:
        """Take the host's next lease that goes before all others, if there is one."""
        for waiting in (self._private, self._returned):
            leases = waiting.get(name)
            if leases is not None:
                lease = leases.popleft()
                if not leases:
                    del waiting[name]
                return lease
        return None
