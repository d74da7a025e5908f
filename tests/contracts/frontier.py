"""What every frontier promises: a suite that each implementation of ``contracts.Frontier`` passes.

An implementation's test module has a class that inherits from ``FrontierContract``, and a fixture ``make`` that returns a
``Make``. Nothing but the Protocol's methods is used, and a frontier may take its time: a test that expects a lease waits
for the wake callback, one that expects none asks, commits, and asks again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Protocol

import pytest

from scraper import Request, Response
from scraper.contracts import Checkpoint, Frontier, Lease, Settlement
from scraper.http import REQUEST_FIELDS

PATIENCE_S = 5.0
"""Past this, a lease that is waited for will never come."""


class Clock:
    """A clock that stands still until it is turned. Its times are no round numbers, and never 0."""

    def __init__(self) -> None:
        self.now = 1000.25

    def __call__(self) -> float:
        return self.now


class Make(Protocol):
    """Makes a frontier that is not yet open, with so much for every host."""

    def __call__(
        self, clock: Clock, *, concurrency: int = 8, delay: float = 0.0, order: str = "breadth"
    ) -> Frontier: ...


class Desk:
    """An open frontier, its clock, and the bell that it rings."""

    def __init__(self, frontier: Frontier, clock: Clock) -> None:
        self.frontier = frontier
        self.clock = clock
        self.bell = asyncio.Event()

    def add(self, *urls: str | Request, lease: Lease | None = None) -> None:
        """Take in start requests, or what a leased page led to."""
        children = [url if isinstance(url, Request) else Request(url) for url in urls]
        self.frontier.settle(Settlement(lease, children))

    async def leased(self, n: int, *, private_only: bool = False) -> list[Lease]:
        """Lease exactly ``n``, waiting for the bell where they do not come at once."""
        leases: list[Lease] = []
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self.bell.clear()
                leases += self.frontier.lease(n - len(leases), self.clock.now, private_only=private_only)
                if len(leases) >= n:
                    return leases
                await self.frontier.commit(Checkpoint())  # what was settled may take effect with it only
                await self.bell.wait()

    async def all_leased(self, n: int) -> list[str]:
        """Lease ``n`` and make sure that there are no more; return their URLs."""
        urls = [lease.request.url for lease in await self.leased(n)]
        await self.has_none()
        return urls

    async def has_none(self) -> None:
        """Make sure that nothing can be leased now."""
        assert await self.available(1) == []

    async def available(self, n: int, *, private_only: bool = False) -> list[Lease]:
        """Lease up to ``n``, as many as there are."""
        leases = self.frontier.lease(n, self.clock.now, private_only=private_only)
        await self.frontier.commit(Checkpoint())
        return leases + self.frontier.lease(n - len(leases), self.clock.now, private_only=private_only)

    def end(self, lease: Lease, *children: str, error: str = "", **options: Any) -> None:
        """Free a lease's slot and settle it."""
        self.frontier.release(lease, self.clock.now)
        self.frontier.settle(Settlement(lease, [Request(url) for url in children], error=error, **options))

    async def counts(self) -> tuple[int, int, int, int, int]:
        """Return seeded, done, failed, pending and filtered when everything has been applied."""
        await self.frontier.commit(Checkpoint())
        counts = self.frontier.counts
        assert counts.seeded == counts.done + counts.failed + counts.pending
        return counts.seeded, counts.done, counts.failed, counts.pending, counts.filtered


@asynccontextmanager
async def opened(make: Make, **options: Any) -> AsyncIterator[Desk]:
    """Open a new frontier, and close it again."""
    clock = Clock()
    desk = Desk(make(clock, **options), clock)
    await desk.frontier.open(desk.bell.set)
    try:
        yield desk
    finally:
        await desk.frontier.close()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(main())


def private(url: str) -> Lease:
    """Make a lease that somebody here waits for."""
    return Lease(Request(url), waiter=asyncio.get_running_loop().create_future())


class FrontierContract:
    """The promises, one a test."""

    def test_a_new_frontier_is_empty(self, make: Make) -> None:
        """There is nothing of an earlier run, nothing to lease, nothing to wait for."""

        async def main() -> None:
            clock = Clock()
            frontier = make(clock)
            found = await frontier.open(lambda: None)
            assert (dict(found.outputs), dict(found.state)) == ({}, {})
            assert await frontier.begin_start() == 0
            assert frontier.lease(10, clock.now) == []
            assert frontier.next_ready(clock.now) is None
            assert frontier.next_ready(clock.now, private_only=True) is None
            assert frontier.has_room
            await frontier.close()

        run(main)

    @pytest.mark.parametrize(
        ("first", "second", "same"),
        [
            ("http://a/", "http://a/", True),
            ("http://a/?x=1&y=2", "http://a/?y=2&x=1", True),
            ("http://a/#top", "http://a/#end", True),
            ("http://A:80/../", "http://a/", True),
            ("http://a/?x=1", "http://a/?x=2", False),
            ("http://a/", "https://a/", False),
            ("http://a/x", "http://a/x/", False),
        ],
    )
    def test_dedupe(self, make: Make, first: str, second: str, same: bool) -> None:
        """A URL is taken in once, whatever the order of its query and whatever its fragment."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add(first)
                desk.add(second)
                assert await desk.counts() == ((1, 0, 0, 1, 1) if same else (2, 0, 0, 2, 0))
                (lease, *_) = await desk.leased(1 if same else 2)
                desk.end(lease, second)
                assert (await desk.counts())[0] == (1 if same else 2)

        run(main)

    @pytest.mark.parametrize("n", [1, 100])
    def test_what_was_seen_is_left_out_of_many(self, make: Make, n: int) -> None:
        """Of several URLs those are left out, and counted, that would be left out one by one."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add(*[f"http://a/{number}?x=1&y=2" for number in range(n)], "http://a/one")
                new = [f"http://b/{number}" for number in range(n)]
                urls = [*new[: n // 2], *[f"http://a/{number}?y=2&x=1" for number in range(n)], *new[n // 2 :]]
                assert desk.frontier.unseen(urls) == new
                assert desk.frontier.unseen(new, 7) == new
                assert desk.frontier.unseen(["http://a/one"]) == desk.frontier.unseen([]) == []
                assert (await desk.counts())[4] == n + 7 + 1
                assert not desk.frontier.knows(Request(new[0]))

        run(main)

    def test_duplicates_on_one_page(self, make: Make) -> None:
        """A page that links to a URL twice leads to it once."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add("http://a/1", "http://a/2", "http://a/1", "http://a/1#x")
                assert await desk.counts() == (2, 0, 0, 2, 2)
                assert await desk.all_leased(2) == ["http://a/1", "http://a/2"]

        run(main)

    def test_method_and_body_make_another_request(self, make: Make) -> None:
        """The same URL with another method or body is another request."""

        async def main() -> None:
            async with opened(make) as desk:
                for body in ("1", "2", "1"):
                    desk.add(Request("http://a/", method="POST", body=body))
                desk.add("http://a/")
                assert await desk.counts() == (3, 0, 0, 3, 1)

        run(main)

    def test_dont_filter(self, make: Make) -> None:
        """A request with dont_filter is taken in though it was seen, and counts as seen for those after it."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add(Request("http://a/", dont_filter=True))
                assert await desk.counts() == (1, 0, 0, 1, 0)
                desk.add("http://a/")
                desk.add(Request("http://a/", dont_filter=True))
                assert await desk.counts() == (2, 0, 0, 2, 1)
                await desk.all_leased(2)

        run(main)

    @pytest.mark.parametrize(("order", "expected"), [("breadth", "123456"), ("depth", "654321")])
    def test_order(self, make: Make, order: str, expected: str) -> None:
        """Within a host the oldest request goes first, or the newest."""

        async def main() -> None:
            async with opened(make, order=order) as desk:
                desk.add("http://a/1", "http://a/2", "http://a/3")
                desk.add("http://a/4")
                desk.add("http://a/5", "http://a/6")
                await desk.frontier.commit(Checkpoint())
                assert "".join(url[-1] for url in await desk.all_leased(6)) == expected

        run(main)

    @pytest.mark.parametrize(("order", "expected"), [("breadth", "364152"), ("depth", "634512")])
    def test_priority(self, make: Make, order: str, expected: str) -> None:
        """The highest priority of a host goes first; among equals the order decides; below 0 is behind all."""

        async def main() -> None:
            async with opened(make, order=order) as desk:
                for n, priority in enumerate([0, -1, 10, 5, 0, 10], 1):
                    desk.add(Request(f"http://a/{n}", priority=priority))
                await desk.frontier.commit(Checkpoint())
                assert "".join(url[-1] for url in await desk.all_leased(6)) == expected

        run(main)

    def test_a_request_comes_back_as_it_was(self, make: Make) -> None:
        """Whatever a request carries is still there when it is leased."""

        async def main() -> None:
            async with opened(make) as desk:
                request = Request(
                    "http://u:p@a:8080/x?y=1",
                    "parse_it",
                    method="PUT",
                    headers=[("X-A", "1"), ("x-a", "ü")],
                    body=b"\0\xff",
                    cookies={"c": "1"},
                    meta={"k": [1, None, {"ü": 1.5}], "big": 2**64 - 1},
                    cb_kwargs={"n": True},
                    priority=-3,
                    errback="oops",
                    timeout=1.5,
                    proxy="http://p:3128",
                )
                request.depth, request.retries, request.redirects, request.is_start = 2, 1, ("http://z/",), True
                desk.add(request)
                await desk.frontier.commit(Checkpoint())
                (lease,) = await desk.leased(1)
                assert lease.waiter is None
                for name in REQUEST_FIELDS:
                    assert getattr(lease.request, name) == getattr(request, name), name
                assert lease.request.fingerprint == request.fingerprint

        run(main)

    # -- budgets -------------------------------------------------------------------------------------------------------

    def test_slots(self, make: Make) -> None:
        """A host has so many leases at a time; one that is released, not one that is settled, makes room."""

        async def main() -> None:
            async with opened(make, concurrency=2) as desk:
                desk.add(*(f"http://a/{n}" for n in range(5)))
                first, _ = await desk.leased(2)
                await desk.has_none()
                assert desk.frontier.next_ready(desk.clock.now) is None
                desk.frontier.release(first, desk.clock.now)
                await desk.leased(1)
                await desk.has_none()
                desk.frontier.settle(Settlement(first))
                await desk.has_none()

        run(main)

    def test_never_more_than_asked_for(self, make: Make) -> None:
        """lease(n) hands out n at the most."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add(*(f"http://a/{n}" for n in range(8)))
                await desk.leased(1)
                assert len(await desk.available(3)) == 3
                assert await desk.available(0) == []
                assert len(await desk.available(100)) == 4

        run(main)

    def test_the_gap_between_two_requests(self, make: Make) -> None:
        """Two leases of a host lie its delay apart; next_ready says when the next may come."""

        async def main() -> None:
            async with opened(make, delay=2.0) as desk:
                desk.add("http://a/1", "http://a/2", "http://b/")
                start = desk.clock.now
                await desk.leased(2)
                await desk.has_none()
                assert desk.frontier.next_ready(desk.clock.now) == start + 2.0
                desk.clock.now = start + 1.75
                await desk.has_none()
                desk.clock.now = start + 2.0
                assert (await desk.leased(1))[0].request.url == "http://a/2"

        run(main)

    def test_a_request_with_a_delay(self, make: Make) -> None:
        """It waits for its time, counted as pending, without a slot; others of its host go meanwhile."""

        async def main() -> None:
            async with opened(make, concurrency=1) as desk:
                start = desk.clock.now
                desk.add(Request("http://a/late", delay=5.0))
                desk.add("http://a/now")
                assert await desk.counts() == (2, 0, 0, 2, 0)
                (lease,) = await desk.leased(1)
                assert lease.request.url == "http://a/now"
                desk.end(lease)
                await desk.has_none()
                assert desk.frontier.next_ready(desk.clock.now) == start + 5.0
                desk.clock.now = start + 4.75
                await desk.has_none()
                desk.clock.now = start + 5.0
                (lease,) = await desk.leased(1)
                assert lease.request.url == "http://a/late"
                desk.end(lease)
                assert await desk.counts() == (2, 2, 0, 0, 0)

        run(main)

    def test_tuning(self, make: Make) -> None:
        """A host's slots, gap and time can be changed while it waits, and the bell rings for it."""

        async def main() -> None:
            async with opened(make, concurrency=1) as desk:
                frontier, start = desk.frontier, desk.clock.now
                desk.add(*(f"http://a/{n}" for n in range(6)))
                await desk.leased(1)
                await desk.has_none()
                desk.bell.clear()
                frontier.tune("a", concurrency=3)
                assert desk.bell.is_set()
                await desk.leased(2)
                await desk.has_none()
                frontier.tune("a", concurrency=8, delay=1.0)
                await desk.has_none()
                assert frontier.next_ready(start) == start + 1.0
                frontier.tune("a", not_before=start + 4.0)
                desk.clock.now = start + 3.5
                await desk.has_none()
                desk.clock.now = start + 4.0
                await desk.leased(1)
                await desk.has_none()
                assert frontier.next_ready(desk.clock.now) == start + 5.0

        run(main)

    def test_no_host_starves_another(self, make: Make) -> None:
        """Hosts take turns: one with a single request is not behind the thousands of another."""

        async def main() -> None:
            async with opened(make, concurrency=1000) as desk:
                desk.add(*(f"http://big/{n}" for n in range(500)))
                desk.add("http://small/", "http://tiny/")
                await desk.frontier.commit(Checkpoint())
                hosts = [lease.request.host for lease in await desk.leased(6)]
                assert {"small", "tiny"} < set(hosts)

        run(main)

    def test_round_robin(self, make: Make) -> None:
        """While several hosts have requests and room, none gets two before each has one."""

        async def main() -> None:
            async with opened(make, concurrency=1000) as desk:
                for n in range(4):
                    desk.add(*(f"http://h{host}/{n}" for host in range(5)))
                await desk.frontier.commit(Checkpoint())
                hosts = [lease.request.host for lease in await desk.leased(20)]
                for turn in range(4):
                    assert len(set(hosts[5 * turn : 5 * turn + 5])) == 5

        run(main)

    # -- private leases ------------------------------------------------------------------------------------------------

    def test_private_leases_go_first(self, make: Make) -> None:
        """A fetch that somebody awaits goes before all stored requests of its host, in its host's room, uncounted."""

        async def main() -> None:
            async with opened(make, concurrency=1) as desk:
                desk.add("http://a/1", Request("http://a/2", priority=1000))
                one, two = private("http://a/robots.txt"), private("http://a/1")
                await desk.frontier.commit(Checkpoint())
                desk.frontier.requeue(one)
                desk.frontier.requeue(two)
                assert await desk.counts() == (2, 0, 0, 2, 0)
                for expected in (one, two):
                    assert await desk.leased(1) == [expected]
                    await desk.has_none()
                    desk.frontier.release(expected, desk.clock.now)
                (lease,) = await desk.leased(1)
                assert lease.request.url == "http://a/2"
                assert await desk.counts() == (2, 0, 0, 2, 0)

        run(main)

    def test_private_only(self, make: Make) -> None:
        """Asked for private leases alone, it leaves the stored ones, and says when the next private one may go."""

        async def main() -> None:
            async with opened(make, delay=2.0) as desk:
                frontier, start = desk.frontier, desk.clock.now
                desk.add("http://a/1", "http://b/1")
                await frontier.commit(Checkpoint())
                assert await desk.available(5, private_only=True) == []
                assert frontier.next_ready(start, private_only=True) is None
                leases = [private("http://a/x"), private("http://a/y")]
                for lease in leases:
                    frontier.requeue(lease)
                assert await desk.available(5, private_only=True) == leases[:1]
                assert frontier.next_ready(start, private_only=True) == start + 2.0
                desk.clock.now = start + 2.0
                assert await desk.available(5, private_only=True) == leases[1:]
                assert frontier.next_ready(desk.clock.now, private_only=True) is None
                assert [lease.request.host for lease in await desk.leased(1)] == ["b"]

        run(main)

    def test_a_requeued_lease(self, make: Make) -> None:
        """A lease that was given back is the next of its host, the same one, and not counted again."""

        async def main() -> None:
            async with opened(make, concurrency=1) as desk:
                desk.add("http://a/1", "http://a/2")
                (lease,) = await desk.leased(1)
                desk.frontier.release(lease, desk.clock.now)
                desk.bell.clear()
                desk.frontier.requeue(lease)
                assert desk.bell.is_set()
                assert await desk.leased(1) == [lease]
                assert await desk.counts() == (2, 0, 0, 2, 0)
                desk.end(lease)
                assert await desk.all_leased(1) == ["http://a/2"]
                assert await desk.counts() == (2, 1, 0, 1, 0)

        run(main)

    # -- settling ------------------------------------------------------------------------------------------------------

    def test_what_becomes_of_a_lease(self, make: Make) -> None:
        """A settled lease is done, or failed where there is an error; its children are taken in with it."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add("http://a/1", "http://a/2")
                one, two = await desk.leased(2)
                desk.end(one, "http://a/3", "http://b/1", "http://a/2")
                assert await desk.counts() == (4, 1, 0, 3, 1)
                desk.end(two, "http://c/", error="FetchTimeout: no answer")
                assert await desk.counts() == (5, 1, 1, 3, 1)
                assert set(await desk.all_leased(3)) == {"http://a/3", "http://b/1", "http://c/"}

        run(main)

    def test_a_retry(self, make: Make) -> None:
        """A retry takes its request's place, though its URL was seen, and waits for its time without a slot."""

        async def main() -> None:
            async with opened(make, concurrency=1) as desk:
                start = desk.clock.now
                desk.add("http://a/1", "http://a/2")
                (lease,) = await desk.leased(1)
                desk.end(lease, again=lease.request.replace(retries=1), not_before=start + 3.0)
                assert await desk.counts() == (2, 0, 0, 2, 0)
                (other,) = await desk.leased(1)
                assert other.request.url == "http://a/2"
                desk.end(other)
                await desk.has_none()
                assert desk.frontier.next_ready(start) == start + 3.0
                desk.clock.now = start + 3.0
                (lease,) = await desk.leased(1)
                assert (lease.request.url, lease.request.retries) == ("http://a/1", 1)
                desk.end(lease)
                assert await desk.counts() == (2, 2, 0, 0, 0)

        run(main)

    def test_a_redirect(self, make: Make) -> None:
        """A redirect's target takes its place, on its own host, and counts as seen from then on."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add("http://a/")
                (lease,) = await desk.leased(1)
                desk.end(lease, again=Request("http://b/"))
                assert await desk.counts() == (1, 0, 0, 1, 0)
                desk.add("http://b/", "http://a/")
                assert await desk.counts() == (1, 0, 0, 1, 2)
                (lease,) = await desk.leased(1)
                assert (lease.request.url, lease.request.host) == ("http://b/", "b")
                desk.end(lease)
                assert await desk.counts() == (1, 1, 0, 0, 2)

        run(main)

    def test_a_redirect_to_what_was_seen(self, make: Make) -> None:
        """A redirect to a page that another request took ends there: done and filtered; dont_filter goes on."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add("http://a/1", "http://a/2", "http://a/seen")
                one, two, _ = await desk.leased(3)
                desk.end(one, again=Request("http://a/seen"))
                assert await desk.counts() == (3, 1, 0, 2, 1)
                await desk.has_none()
                desk.end(two, again=Request("http://a/seen", dont_filter=True))
                assert await desk.counts() == (3, 1, 0, 2, 1)
                assert await desk.all_leased(1) == ["http://a/seen"]

        run(main)

    def test_a_chain_may_come_back(self, make: Make) -> None:
        """A page that sets a cookie and redirects to itself, at once or over others, is fetched again."""

        async def main() -> None:
            async with opened(make) as desk:
                desk.add("http://a/")
                for url in ("http://a/", "http://a/login", "http://a/", "http://a/login"):
                    (lease,) = await desk.leased(1)
                    again = lease.request.replace(url)
                    again.redirects = (*lease.request.redirects, lease.request.url)
                    desk.end(lease, again=again)
                assert await desk.all_leased(1) == ["http://a/login"]
                assert await desk.counts() == (1, 0, 0, 1, 0)

        run(main)

    def test_the_bell_rings(self, make: Make) -> None:
        """Whenever a lease may succeed that did not before, the wake callback is called."""

        async def main() -> None:
            async with opened(make, concurrency=1) as desk:
                desk.add("http://a/1", "http://a/2")
                async with asyncio.timeout(PATIENCE_S):
                    await desk.bell.wait()
                (lease,) = await desk.leased(1)
                desk.frontier.release(lease, desk.clock.now)
                await desk.frontier.commit(Checkpoint())
                desk.bell.clear()
                desk.frontier.settle(Settlement(lease, [Request("http://b/")]))
                async with asyncio.timeout(PATIENCE_S):
                    await desk.bell.wait()
                desk.bell.clear()
                desk.frontier.requeue(private("http://c/"))
                async with asyncio.timeout(PATIENCE_S):
                    await desk.bell.wait()

        run(main)

    def test_nothing_is_lost(self, make: Make) -> None:
        """Of a thousand requests over thirty hosts each is leased once."""

        async def main() -> None:
            async with opened(make, concurrency=2) as desk:
                urls = [f"http://h{n % 30}/{n}" for n in range(1000)]
                for start in range(0, 1000, 100):
                    desk.add(*urls[start : start + 100])
                found: list[str] = []
                while len(found) < 1000:
                    for lease in await desk.leased(min(60, 1000 - len(found)) if len(found) < 900 else 1):
                        found.append(lease.request.url)
                        desk.end(lease)
                assert sorted(found) == sorted(urls)
                assert await desk.counts() == (1000, 1000, 0, 0, 0)
                await desk.has_none()

        run(main)

    @pytest.mark.parametrize("seed", range(5))
    def test_counts_after_random_operations(self, make: Make, seed: int) -> None:
        """After any operation seeded = done + failed + pending; in the end each request came to one end, and only one."""

        async def main() -> None:
            async with opened(make, concurrency=2, order=Random(seed).choice(["breadth", "depth"])) as desk:
                await _Trial(desk, Random(seed)).play()

        run(main)


class _Trial:
    """Random operations on a frontier, beside a simple account of what should be."""

    def __init__(self, desk: Desk, random: Random) -> None:
        self.desk = desk
        self.random = random
        self.leased: list[Lease] = []
        self.in_use: Counter[str] = Counter()
        self.ended = 0

    def url(self) -> str:
        return f"http://h{self.random.randrange(4)}/{self.random.randrange(50)}"

    def requests(self) -> list[Request]:
        """Make some requests, few of them late, private to nobody, or repeated on purpose."""
        return [
            Request(
                self.url(),
                priority=self.random.choice([0, 0, 0, 5, -5]),
                dont_filter=self.random.random() < 0.1,
                delay=self.random.choice([0.0, 0.0, 0.0, 1.5]),
            )
            for _ in range(self.random.randrange(4))
        ]

    def take(self, leases: list[Lease]) -> None:
        for lease in leases:
            self.in_use[lease.request.host] += 1
            assert self.in_use[lease.request.host] <= 2
            self.leased.append(lease)

    def give_back(self) -> Lease:
        lease = self.leased.pop(self.random.randrange(len(self.leased)))
        self.in_use[lease.request.host] -= 1
        self.desk.frontier.release(lease, self.desk.clock.now)
        return lease

    def settle(self, lease: Lease) -> None:
        """Let a lease end, well or not, or go on as another request."""
        what = self.random.random()
        if lease.waiter is not None:
            lease.waiter.set_result(Response(lease.request.url, request=lease.request))
        elif what < 0.25:
            again = lease.request.replace(self.url() if what < 0.1 else None, retries=lease.request.retries + 1)
            late = self.desk.clock.now + 1.0 if what < 0.2 else 0.0
            self.desk.frontier.settle(Settlement(lease, again=again, not_before=late))
        else:
            error = "HttpError: 500" if what < 0.4 else ""
            self.desk.frontier.settle(Settlement(lease, self.requests(), error=error))
            self.ended += 1

    async def play(self) -> None:
        desk = self.desk
        for step in range(400):
            what = self.random.random()
            if what < 0.15:
                desk.frontier.settle(Settlement(None, self.requests()))
            elif what < 0.5:
                self.take(desk.frontier.lease(self.random.randrange(5), desk.clock.now))
            elif what < 0.75 and self.leased:
                self.settle(self.give_back())
            elif what < 0.8 and self.leased:
                desk.frontier.requeue(self.give_back())
            elif what < 0.83:
                desk.frontier.requeue(private(self.url()))
            elif what < 0.9:
                desk.clock.now += 0.25
            counts = desk.frontier.counts
            assert counts.seeded == counts.done + counts.failed + counts.pending
            if step % 20 == 0:
                await asyncio.sleep(0)
        await self.finish()

    async def finish(self) -> None:
        """Let everything come to its end: nothing may stay behind."""
        desk = self.desk
        while True:
            desk.clock.now += 5.0
            self.take(await desk.available(100))
            if not self.leased:
                break
            while self.leased:
                lease = self.give_back()
                if lease.waiter is None:
                    desk.frontier.settle(Settlement(lease))
                    self.ended += 1
        seeded, done, failed, pending, _ = await desk.counts()
        assert (seeded, pending) == (done + failed, 0)
        assert desk.frontier.next_ready(desk.clock.now) is None
        # A redirect to what was seen has ended too, as filtered: those are the ones not counted here.
        assert self.ended <= done + failed
