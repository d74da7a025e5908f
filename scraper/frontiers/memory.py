"""The frontier in memory: the fastest, for crawls that need not survive the process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush

from scraper.contracts import Checkpoint, Counts, HostBudgets, Lease, Settlement
from scraper.http import Request


class MemoryFrontier:
    """Keeps requests, and the 16-byte fingerprints of all that were seen, in this process. Implements ``Frontier``.

    ``hosts`` decides which host goes next; ``order`` is "breadth" (oldest first) or "depth" (newest first).
    """

    def __init__(self, hosts: HostBudgets, order: str = "breadth", clock: Callable[[], float] = time.monotonic) -> None:
        self._hosts = hosts
        self._step = 1 if order == "breadth" else -1
        self._clock = clock
        self._serial = 0
        self._seen: set[bytes] = set()
        self._queues: dict[str, list[tuple[int, int, Request]]] = {}
        self._urgent: dict[str, deque[Lease]] = {}
        self._delayed: list[tuple[float, int, Request]] = []
        self._counts = Counts()
        self._wake: Callable[[], None] = lambda: None

    async def open(self, wake: Callable[[], None]) -> None:
        """Make ready."""
        self._wake = wake

    def settle(self, settlement: Settlement) -> None:
        """Apply what became of a lease."""
        counts = self._counts
        if settlement.lease is not None:
            again = settlement.again
            if again is not None and self._is_new(again, settlement.lease.request):
                self._wait(again, settlement.not_before)
            else:
                counts.pending -= 1
                if settlement.error:
                    counts.failed += 1
                else:
                    counts.done += 1
        for request in settlement.children:
            mark = request.fingerprint
            if mark in self._seen and not request.dont_filter:
                counts.filtered += 1
                continue
            self._seen.add(mark)
            counts.seeded += 1
            counts.pending += 1
            self._wait(request, self._clock() + request.delay if request.delay else 0.0)
        self._wake()

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` requests that may go at ``now``."""
        self._admit_due(now)
        leases: list[Lease] = []
        if private_only:
            for host in list(self._urgent):
                while host in self._urgent and len(leases) < n and self._hosts.take(host, now):
                    leases.append(self._next_of(host))
            return leases
        while len(leases) < n:
            ready = self._hosts.pop(now)
            if ready is None:
                break
            leases.append(self._next_of(ready))
        return leases

    def release(self, lease: Lease, now: float) -> None:
        """Free the host's slot that ``lease`` holds."""
        self._hosts.release(lease.request.host, now)

    def requeue(self, lease: Lease) -> None:
        """Let ``lease`` wait for its host again, before all stored requests."""
        host = lease.request.host
        self._urgent.setdefault(host, deque()).append(lease)
        self._hosts.add(host, self._clock())
        self._wake()

    def tune(
        self, host: str, *, concurrency: int | None = None, delay: float | None = None, not_before: float | None = None
    ) -> None:
        """Change a host's budget."""
        self._hosts.tune(host, self._clock(), concurrency=concurrency, delay=delay, not_before=not_before)
        self._wake()

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when a lease may next succeed with the slots that are free now."""
        if private_only:
            times = [at for host in self._urgent if (at := self._hosts.ready_at(host)) is not None]
        else:
            self._admit_due(now)
            times = [self._delayed[0][0]] if self._delayed else []
            at = self._hosts.next_ready(now)
            if at is not None:
                times.append(at)
        return min(times, default=None)

    @property
    def counts(self) -> Counts:
        """The counts of now."""
        return self._counts

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Nothing outlives this process, so there is nothing to do."""

    async def close(self) -> None:
        """Nothing to free."""

    def _is_new(self, again: Request, former: Request) -> bool:
        """Whether a retry or redirect may go on: not where it leads to a page that another request already took.

        A chain may come back to a URL of its own (a page that sets a cookie and redirects to itself).
        """
        mark = again.fingerprint
        own = again.url == former.url or again.url in former.redirects
        if mark in self._seen and not own and not again.dont_filter:
            self._counts.filtered += 1
            return False
        self._seen.add(mark)
        return True

    def _wait(self, request: Request, not_before: float) -> None:
        self._serial += 1
        if not_before:
            heappush(self._delayed, (not_before, self._serial, request))
        else:
            self._queue(request, self._clock())

    def _queue(self, request: Request, now: float) -> None:
        self._serial += 1
        queue = self._queues.get(request.host)
        if queue is None:
            queue = self._queues[request.host] = []
        heappush(queue, (-request.priority, self._serial * self._step, request))
        self._hosts.add(request.host, now)

    def _admit_due(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            self._queue(heappop(self._delayed)[2], now)

    def _next_of(self, host: str) -> Lease:
        urgent = self._urgent.get(host)
        if urgent is not None:
            lease = urgent.popleft()
            if not urgent:
                del self._urgent[host]
            return lease
        queue = self._queues[host]
        request = heappop(queue)[2]
        if not queue:
            del self._queues[host]
        return Lease(request)
