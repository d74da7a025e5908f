"""Which host may be asked next: slots, gaps and ready times as one data structure. Pure; the clock is passed in.

A host is in one of three places:

    ready   it has requests queued, a free slot, and its ready time has come: a FIFO, so that hosts take turns
    timed   it will be ready, or forgotten, at a known time: a heap by that time
    nowhere nothing is queued or no slot is free: it comes back with ``add`` or ``release``

Invariants, for every host: ``0 <= used``; a host stands in at most one place; one that has requests, a free slot and a
ready time that has come is in ``ready`` after the next ``pop``; two pops of one host lie at least its ``delay`` apart;
``used`` never passes ``limit`` by a pop.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

_NOWHERE, _READY, _TIMED = 0, 1, 2


class _Host:
    __slots__ = ("before", "delay", "last", "limit", "name", "place", "queued", "ready_at", "tuned", "used")

    def __init__(self, name: str, limit: int, delay: float) -> None:
        self.name = name
        self.limit = limit
        self.delay = delay
        self.used = 0
        self.queued = 0
        self.ready_at = 0.0
        self.last = float("-inf")
        self.before = (self.last, self.ready_at)
        self.place = _NOWHERE
        self.tuned = False


class Hosts:
    """The budget of every host: ``concurrency`` requests at a time, ``delay`` seconds between two.

    Cost: O(1) a call while no delays are set, O(log hosts) otherwise. Hosts that have nothing queued, nothing under
    way and no budget of their own are forgotten.
    """

    def __init__(self, concurrency: int, delay: float = 0.0) -> None:
        self._concurrency = concurrency
        self._delay = delay
        self._hosts: dict[str, _Host] = {}
        self._ready: deque[_Host] = deque()
        self._timed: list[tuple[float, int, _Host]] = []
        self._pushes = 0

    def __len__(self) -> int:
        return len(self._hosts)

    def add(self, name: str, now: float) -> None:
        """Count one more request that waits for the host."""
        host = self._hosts.get(name) or self._new(name)
        host.queued += 1
        if host.place == _NOWHERE:
            self._put(host, now)

    def pop(self, now: float) -> str | None:
        """Take a slot of the next ready host for one of its requests; return its name, or None where none is ready."""
        self._collect_due(now)
        while self._ready:
            host = self._ready.popleft()
            host.place = _NOWHERE
            if self._can_go(host, now):
                self._go(host, now)
                return host.name
            self._put(host, now)
        return None

    def take(self, name: str, now: float) -> bool:
        """Take a slot of this host for one of its requests, if it is ready at ``now``."""
        host = self._hosts.get(name)
        if host is None or not self._can_go(host, now):
            return False
        self._go(host, now)
        return True

    def drop(self, name: str) -> None:
        """Count one request less that waits for the host."""
        self._hosts[name].queued -= 1

    def release(self, name: str, now: float, *, unused: bool = False) -> None:
        """Give a slot of the host back. ``unused``: nothing was asked of it, so the next request need not wait either."""
        host = self._hosts[name]
        host.used -= 1
        if unused:
            host.last, host.ready_at = host.before
        if host.place == _NOWHERE:
            self._put(host, now)

    def tune(
        self,
        name: str,
        now: float,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
    ) -> None:
        """Change the host's own budget. A later ``not_before`` stays; an earlier one does not undo it.

        A longer delay counts from the host's last request on, unless the host had been forgotten meanwhile.
        """
        host = self._hosts.get(name) or self._new(name)
        if concurrency is not None:
            host.limit = max(1, concurrency)
        if delay is not None:
            host.delay = delay
            host.ready_at = max(host.ready_at, host.last + delay)
        if not_before is not None:
            host.ready_at = max(host.ready_at, not_before)
        host.tuned = host.limit != self._concurrency or host.delay != self._delay
        if host.place != _READY:
            self._put(host, now)

    def ready_at(self, name: str) -> float | None:
        """Return when the host may be asked next, or None where all its slots are taken or nothing is queued."""
        host = self._hosts.get(name)
        if host is None or host.used >= host.limit or not host.queued:
            return None
        return host.ready_at

    def next_ready(self, now: float) -> float | None:
        """Return the next time at which ``pop`` may succeed without a release: ``now``, a later time, or None."""
        self._collect_due(now)
        if self._ready:
            return now
        return self._timed[0][0] if self._timed else None

    def _new(self, name: str) -> _Host:
        host = self._hosts[name] = _Host(name, self._concurrency, self._delay)
        return host

    @staticmethod
    def _can_go(host: _Host, now: float) -> bool:
        return host.queued > 0 and host.used < host.limit and host.ready_at <= now

    def _go(self, host: _Host, now: float) -> None:
        host.queued -= 1
        host.used += 1
        host.before = (host.last, host.ready_at)
        host.last = now
        host.ready_at = now + host.delay
        if host.place != _READY:
            self._put(host, now)

    def _put(self, host: _Host, now: float) -> None:
        """Put a host that is not in ``ready`` where it belongs; an entry it has in ``timed`` goes stale."""
        if host.used >= host.limit:
            host.place = _NOWHERE
        elif host.queued and host.ready_at <= now:
            host.place = _READY
            self._ready.append(host)
        elif host.ready_at > now:
            host.place = _TIMED
            self._pushes += 1
            heappush(self._timed, (host.ready_at, self._pushes, host))
        else:
            host.place = _NOWHERE
            if not host.used and not host.tuned:
                self._hosts.pop(host.name, None)

    def _collect_due(self, now: float) -> None:
        while self._timed:
            at, _, host = self._timed[0]
            stale = host.place != _TIMED or at != host.ready_at
            if not stale and at > now:
                return
            heappop(self._timed)
            if not stale:
                self._put(host, now)
