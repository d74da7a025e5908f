"""The frontier in memory: the fastest, for crawls that need not survive the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from scraper.contracts import Checkpoint, Counts, HostBudgets, Lease, Settlement
from scraper.frontiers.marks import unseen
from scraper.frontiers.queues import Queues
from scraper.http import Request


class MemoryFrontier:
    """Keeps requests, and the 16-byte fingerprints of all that were seen, in this process. Implements ``Frontier``.

    ``hosts`` decides which host goes next; ``order`` is "breadth" (oldest first) or "depth" (newest first).
    """

    durable = False

    def __init__(self, hosts: HostBudgets, order: str = "breadth", clock: Callable[[], float] = time.monotonic) -> None:
        self._hosts = hosts
        self._step = 1 if order == "breadth" else -1
        self._clock = clock
        self._queues = Queues(hosts, clock)
        self._serial = 0
        self._seen: set[bytes] = set()
        self._counts = Counts()
        self._wake: Callable[[], None] = lambda: None

    async def open(self, wake: Callable[[], None]) -> Checkpoint:
        """Make ready; there is never anything of an earlier run."""
        self._wake = wake
        return Checkpoint()

    async def begin_start(self) -> int:
        """Nothing was taken before."""
        return 0

    async def retry_failed(self) -> int:
        """Nothing is left of an earlier run."""
        return 0

    def knows(self, request: Request) -> bool:
        """Whether it was seen; then it counts as filtered."""
        if request.fingerprint in self._seen and not request.dont_filter:
            self._counts.filtered += 1
            return True
        return False

    def unseen(self, urls: Sequence[str], dropped: int = 0) -> list[str]:
        """Leave out what was seen; that counts as filtered."""
        new = unseen(urls, self._seen)
        self._counts.filtered += len(urls) - len(new) + dropped
        return new

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
            if self.knows(request):
                continue
            self._seen.add(request.fingerprint)
            counts.seeded += 1
            counts.pending += 1
            self._wait(request, self._clock() + request.delay if request.delay else 0.0)
        self._wake()

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` requests that may go at ``now``."""
        for lease, rank in self._queues.pop_due(now):
            self._queues.push(lease, rank)
        return self._queues.lease(n, now, private_only=private_only)

    def release(self, lease: Lease, now: float, *, unused: bool = False) -> None:
        """Free the host's slot that ``lease`` holds."""
        self._hosts.release(lease.slot, now, unused=unused)

    def requeue(self, lease: Lease) -> None:
        """Let ``lease`` wait for its host again, before all stored requests."""
        self._queues.requeue(lease)
        self._wake()

    def tune(
        self,
        host: str,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        cause: str = "",
    ) -> None:
        """Change a host's budget."""
        self._hosts.tune(host, self._clock(), concurrency=concurrency, delay=delay, not_before=not_before, cause=cause)
        self._wake()

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when a lease may next succeed with the slots that are free now."""
        return self._queues.next_ready(now, private_only=private_only)

    @property
    def counts(self) -> Counts:
        """The counts of now."""
        return self._counts

    @property
    def has_room(self) -> bool:
        """Always: only the process's memory bounds it."""
        return True

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
        rank = (-request.priority, self._serial * self._step)
        if not_before:
            self._queues.delay(Lease(request), rank, not_before)
        else:
            self._queues.push(Lease(request), rank)
