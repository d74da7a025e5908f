"""Which host may be asked next: slots, gaps and ready times as one data structure. Pure; the clock is passed in.

``Budgets`` holds what all crawls of one event loop share: how many requests to a host are under way, and when the last
one went out. Each crawl has its own ``Hosts`` over it, which knows what that crawl has queued, and what it asks of the
budget: its policy for the host, and caps by cause (a robots.txt, the throttle). The strictest of all of them holds.

In each ``Hosts`` a host is in one of three places:

    ready   it has requests queued, a free slot, and its ready time has come: a FIFO, so that hosts take turns
    timed   it will be ready, or forgotten, at a known time: a heap by that time
    nowhere nothing is queued, no slot is free, or a request has yet to go out: ``add``, ``release`` or ``sent`` brings it back

Invariants, for every host: ``0 <= unsent <= used``; a host stands in at most one place; one that has requests, a free
slot and a ready time that has come is in ``ready`` after the next ``pop``; two pops of one host lie at least its ``delay``
apart, and so do a request's ``sent`` and the next pop; ``used`` never passes ``limit`` by a pop.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from math import inf, nextafter
from typing import Any, NamedTuple

_NOWHERE, _READY, _TIMED = 0, 1, 2


class Policy(NamedTuple):
    """How hard a host may be asked: requests at a time, seconds between two, and how much longer a gap may be by chance.

    ``jitter`` is a fraction: each gap lies between ``delay`` and ``delay`` × (1 + ``jitter``).
    """

    concurrency: int
    delay: float = 0.0
    jitter: float = 0.0


class Budgets:
    """One budget a host for all crawls that are given this object. They run in one event loop: nothing here locks."""

    __slots__ = ("__weakref__", "hosts", "unsent")

    def __init__(self) -> None:
        self.hosts: dict[str, _Budget] = {}
        self.unsent: set[str] = set()
        """Hosts with a delay and a request under way that is not known to have gone out."""


class _Budget:
    """What all crawls together have under way to one host."""

    __slots__ = ("delay", "gap", "last", "latest", "limit", "not_before", "ready_at", "unsent", "used", "views")

    def __init__(self) -> None:
        self.views: list[Host] = []
        self.limit = 0
        self.delay = 0.0
        self.used = 0
        self.unsent = 0
        self.last = -inf
        self.gap = 0.0
        self.not_before = 0.0
        self.ready_at = 0.0
        self.latest: Host | None = None

    def weigh(self) -> None:
        """Take the strictest of what the crawls ask for."""
        self.limit = min([view.limit for view in self.views])
        self.delay = max([view.delay for view in self.views])

    def reckon(self) -> None:
        """Set the ready time anew from what it follows from."""
        self.ready_at = inf if self.unsent else max(self.last + self.gap, self.not_before)


class Host:
    """One crawl's view of a host. ``line`` is for whoever adds requests to keep them in; nothing here looks at it."""

    __slots__ = (
        "at",
        "base",
        "before",
        "budget",
        "caps",
        "delay",
        "hosts",
        "limit",
        "line",
        "name",
        "place",
        "policy",
        "queued",
        "used",
    )

    def __init__(self, name: str, policy: Policy, budget: _Budget, hosts: Hosts) -> None:
        self.name = name
        self.line: list[Any] = []
        self.policy = self.base = policy
        self.caps: dict[str, tuple[int, float]] | None = None
        self.limit = policy.concurrency
        self.delay = policy.delay
        self.budget = budget
        self.hosts = hosts
        self.queued = 0
        self.used = 0
        self.before = (-inf, 0.0)
        self.place = _NOWHERE
        self.at = 0.0

    def weigh(self) -> None:
        """Take the strictest of the policy and the caps."""
        caps = self.caps.values() if self.caps else ()
        self.limit = min([self.base.concurrency, *[limit for limit, _ in caps if limit]])
        self.delay = max([self.base.delay, *[delay for _, delay in caps]])


class Hosts:
    """The budget of every host, as one crawl sees it: ``concurrency``, ``delay`` and ``jitter`` as in Policy.

    ``policy_of`` gives a host's own policy, or None. ``budgets`` are those shared with other crawls.
    ``tells_sent`` promises that ``sent`` is called for each request to a host in ``unsent``; then the gap counts from there,
    and until then the host is not asked again. Without it the gap counts from ``pop``. ``random`` gives numbers in [0, 1).
    Wherever a time ``now`` is given, it is no earlier than the one before.

    Cost: O(1) a call while no delays are set, O(log hosts) otherwise. Hosts that have nothing queued, nothing under
    way and no caps of their own are forgotten.
    """

    def __init__(
        self,
        concurrency: int,
        delay: float = 0.0,
        jitter: float = 0.0,
        *,
        policy_of: Callable[[str], Policy | None] | None = None,
        budgets: Budgets | None = None,
        tells_sent: bool = False,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._policy = Policy(concurrency, delay, jitter)
        self._policy_of = policy_of
        budgets = budgets if budgets is not None else Budgets()
        self._budgets = budgets.hosts
        self._tells_sent = tells_sent
        self._random = random
        self._wake: Callable[[], None] = lambda: None
        self._ready: deque[Host] = deque()
        self._timed: list[tuple[float, int, Host]] = []
        self._pushes = 0
        # Forgotten ones, as good as new: to make one costs as much as all else that is done for a host here.
        self._spare: list[Host] = []
        self._resumed_at = -inf
        self.unsent = budgets.unsent
        """Hosts for which ``sent`` is waited for."""

    def __iter__(self) -> Iterator[Host]:
        """Those that this crawl has something to do with."""
        return iter([host for budget in self._budgets.values() for host in budget.views if host.hosts is self])

    def open(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called whenever another crawl's doing may let ``pop`` succeed."""
        self._wake = wake

    def resume(self, now: float) -> None:
        """Have every delay pass first: an earlier process may have asked any host up to ``now``."""
        self._resumed_at = now
        for host in self:
            self._begin(host.budget)
            self._replace(host.budget, now)

    def close(self, now: float) -> None:
        """Give back all slots and wishes: other crawls go on without this one."""
        for host in self:
            budget = host.budget
            budget.used -= host.used
            host.used = host.queued = 0
            if len(budget.views) > 1:
                self._leave(host, now)
            else:
                del self._budgets[host.name]
                self.unsent.discard(host.name)
        self._ready.clear()
        self._timed.clear()
        self._budgets = {}  # what is still told to this crawl is its own

    def get(self, name: str) -> Host | None:
        """Return a host, unless this crawl has nothing to do with it."""
        budget = self._budgets.get(name)
        if budget is None:
            return None
        first = budget.views[0]
        return first if first.hosts is self else next((host for host in budget.views if host.hosts is self), None)

    def add(self, name: str, now: float) -> Host:
        """Count one more request that waits for the host; return it."""
        host = self.get(name) or self._new(name)
        host.queued += 1
        if host.place == _NOWHERE:
            self._put(host, now)
        return host

    def pop(self, now: float) -> Host | None:
        """Take a slot of the next ready host for one of its requests; return it, or None where none is ready."""
        self._collect_due(now)
        while self._ready:
            host = self._ready.popleft()
            host.place = _NOWHERE
            if not self._can_go(host, now):
                self._put(host, now)
            elif len(host.budget.views) > 1 and self._lets_another_go_first(host):
                self._put_timed(host, nextafter(now, inf))
            else:
                self._go(host, now)
                return host
        return None

    def take(self, name: str, now: float) -> Host | None:
        """Take a slot of this host for one of its requests; return it, or None where it is not ready at ``now``."""
        host = self.get(name)
        if host is None or not self._can_go(host, now):
            return None
        self._go(host, now)
        return host

    def drop(self, host: Host) -> None:
        """Count one request less that waits for the host."""
        host.queued -= 1

    def sent(self, name: str, now: float) -> None:
        """One request to a host in ``unsent`` went out at ``now``, or came to nothing: to be told once for each."""
        host = self.get(name)
        if host is not None and host.budget.unsent:
            self._count_sent(host.budget, now)
            self._replace(host.budget, now)

    def release(self, host: Host, now: float, *, unused: bool = False) -> None:
        """Give a slot of the host back. ``unused``: nothing was asked of it, so the next request need not wait either."""
        budget = host.budget
        host.used -= 1
        budget.used -= 1
        if unused:
            budget.last, budget.gap = host.before
            budget.unsent = max(0, budget.unsent - 1)
            self._settle_unsent(host.name, budget)
        elif budget.unsent > budget.used:
            self._count_sent(budget, now)
        elif self._tells_sent and not budget.delay:
            budget.last = now  # when it went out was not told: should a delay come now, it counts from here
        if len(budget.views) > 1:
            self._replace(budget, now)
        elif host.place == _NOWHERE and (host.queued or not host.used):
            self._put(host, now)

    def tune(
        self,
        name: str,
        now: float,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        cause: str = "",
    ) -> None:
        """Change the host's budget. A later ``not_before`` stays; an earlier one does not undo it.

        Without a ``cause`` the crawl's policy for this host is changed. With one, the values cap it: of all causes the
        strictest holds, and 0 lifts what this cause had set. A longer delay counts from the host's last request on,
        unless the host had been forgotten meanwhile.
        """
        host = self.get(name) or self._new(name)
        budget = host.budget
        if concurrency is not None or delay is not None:
            if cause:
                _cap(host, cause, concurrency, delay)
            else:
                host.base = Policy(
                    max(1, concurrency) if concurrency is not None else host.base.concurrency,
                    delay if delay is not None else host.base.delay,
                    host.base.jitter,
                )
            host.weigh()
            self._weigh(budget, name, now)
        if not_before is not None and not_before > budget.not_before:
            budget.not_before = not_before
            budget.reckon()
        self._replace(budget, now)

    def ready_at(self, name: str) -> float | None:
        """Return when the host may be asked next, or None where that is not known before a release or ``sent``."""
        host = self.get(name)
        if host is None or not host.queued or host.budget.used >= host.budget.limit or host.budget.unsent:
            return None
        return host.budget.ready_at

    def next_ready(self, now: float) -> float | None:
        """Return the next time at which ``pop`` may succeed without a release: ``now``, a later time, or None."""
        self._collect_due(now)
        if self._ready:
            return now
        return self._timed[0][0] if self._timed else None

    # -- the budget ------------------------------------------------------------------------------------------------------

    def _new(self, name: str) -> Host:
        policy = self._policy_of(name) if self._policy_of is not None else None
        budget = self._budgets.get(name)
        if budget is None:
            if self._spare and policy is None:
                host = self._spare.pop()
                host.name = name
                self._budgets[name] = host.budget
                self._begin(host.budget)
                return host
            budget = self._budgets[name] = _Budget()
        policy = policy or self._policy
        host = Host(name, policy, budget, self)
        budget.views.append(host)
        if len(budget.views) == 1:
            budget.limit, budget.delay = policy.concurrency, policy.delay
            self._begin(budget)
        else:
            self._weigh(budget, name, None)
        return host

    def _begin(self, budget: _Budget) -> None:
        if self._resumed_at > budget.last:
            budget.last, budget.gap = self._resumed_at, budget.delay
            budget.reckon()

    def _weigh(self, budget: _Budget, name: str, now: float | None) -> None:
        """Weigh the crawls' wishes anew; a delay that has become longer counts from the last request on."""
        former = budget.delay
        budget.weigh()
        if budget.delay > former:
            budget.gap = max(budget.gap, budget.delay)
            if not former and self._tells_sent:
                budget.unsent = budget.used  # whether these have gone out was not told so far
        elif not budget.delay and budget.unsent:
            budget.unsent = 0
            budget.last = now if now is not None else budget.last
        self._settle_unsent(name, budget)

    def _settle_unsent(self, name: str, budget: _Budget) -> None:
        if budget.unsent:
            self.unsent.add(name)
        else:
            self.unsent.discard(name)
        budget.reckon()

    def _count_sent(self, budget: _Budget, now: float) -> None:
        budget.unsent -= 1
        budget.last = max(budget.last, now)
        self._settle_unsent(budget.views[0].name, budget)

    @staticmethod
    def _can_go(host: Host, now: float) -> bool:
        budget = host.budget
        return host.queued > 0 and budget.used < budget.limit and budget.ready_at <= now

    def _go(self, host: Host, now: float) -> None:
        budget = host.budget
        host.queued -= 1
        host.used += 1
        budget.used += 1
        budget.latest = host
        host.before = (budget.last, budget.gap)
        budget.last = now
        if budget.delay:
            self._hold(host, budget, now)
        else:
            budget.gap = 0.0
            budget.ready_at = now
        if host.place != _READY:
            if host.queued:
                self._put(host, now)
            else:
                host.place = _NOWHERE

    def _hold(self, host: Host, budget: _Budget, now: float) -> None:
        jitter = host.base.jitter
        budget.gap = budget.delay * (1.0 + jitter * self._random()) if jitter else budget.delay
        if self._tells_sent:
            budget.unsent += 1
            self.unsent.add(host.name)
            budget.ready_at = inf
        else:
            budget.ready_at = now + budget.gap

    def _lets_another_go_first(self, host: Host) -> bool:
        """Whether crawls that wait for this host are given a chance before the one that went last: once, not for ever."""
        budget = host.budget
        waiting = [view.hosts for view in budget.views if view is not host and view.queued > 0]
        if budget.latest is not host or not waiting:
            return False
        budget.latest = None
        for hosts in waiting:
            hosts._wake()
        return True

    # -- places ----------------------------------------------------------------------------------------------------------

    def _put(self, host: Host, now: float) -> None:
        """Put a host that is not in ``ready`` where it belongs; an entry it has in ``timed`` goes stale."""
        budget = host.budget
        if host.queued:
            if budget.used >= budget.limit:
                host.place = _NOWHERE
            elif budget.ready_at <= now:
                host.place = _READY
                self._ready.append(host)
            elif budget.ready_at < inf:
                self._put_timed(host, budget.ready_at)
            else:
                host.place = _NOWHERE
        elif host.used or budget.ready_at == inf:
            host.place = _NOWHERE
        elif budget.ready_at > now:
            self._put_timed(host, budget.ready_at)
        else:
            host.place = _NOWHERE
            if not host.caps and host.base == host.policy:
                if len(budget.views) > 1:
                    self._leave(host, now)
                else:
                    self._forget(host, budget)

    def _put_timed(self, host: Host, at: float) -> None:
        if host.place == _TIMED and host.at == at:
            return
        host.place = _TIMED
        host.at = at
        self._pushes += 1
        heappush(self._timed, (at, self._pushes, host))

    def _replace(self, budget: _Budget, now: float) -> None:
        """The budget changed: put all that look at it where they belong, and wake the other crawls that wait."""
        for host in tuple(budget.views):
            if host.place != _READY:
                host.hosts._put(host, now)
            if host.hosts is not self and host.queued:
                host.hosts._wake()

    def _forget(self, host: Host, budget: _Budget) -> None:
        del self._budgets[host.name]
        if host.policy is self._policy:
            budget.last = -inf  # all else lies in the past
            self._spare.append(host)
        else:
            budget.views.clear()  # the two would keep each other for the garbage collector
            budget.latest = None

    def _leave(self, host: Host, now: float) -> None:
        """Leave the budget to the other crawls."""
        budget = host.budget
        budget.views.remove(host)
        if budget.latest is host:
            budget.latest = None
        if budget.unsent > budget.used:
            budget.unsent, budget.last = budget.used, now
        self._weigh(budget, host.name, now)
        self._replace(budget, now)

    def _collect_due(self, now: float) -> None:
        while self._timed:
            at, _, host = self._timed[0]
            stale = host.place != _TIMED or at != host.at
            if not stale and at > now:
                return
            heappop(self._timed)
            if not stale:
                self._put(host, now)


def _cap(host: Host, cause: str, concurrency: int | None, delay: float | None) -> None:
    """Change what one cause asks for; one that asks for nothing is dropped."""
    caps = host.caps if host.caps is not None else {}
    limit, gap = caps.pop(cause, (0, 0.0))
    wanted = (limit if concurrency is None else concurrency, gap if delay is None else delay)
    if wanted != (0, 0.0):
        caps[cause] = wanted
    host.caps = caps or None
