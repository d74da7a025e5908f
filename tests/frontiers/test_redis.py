"""The frontier in Redis: what only it does. The contract is tested in tests/contracts, crashes in tests/crash."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from scraper import Request
from scraper.contracts import Checkpoint, Lease, Settlement, Tally
from scraper.errors import StateError, UsageError
from scraper.frontiers.neighbours import own_place, runs_here
from scraper.frontiers.redis import RedisFrontier
from scraper.frontiers.roll import look
from scraper.frontiers.server import Server, check_job, shown
from scraper.frontiers.talk import ANYWAY, Entry, pushed
from tests.redis_servers import RedisServer, cluster_url, running, running_nodes

PATIENCE_S = 10.0

Make = Callable[..., RedisFrontier]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run one Redis for all tests."""
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Number the jobs."""
    return count()


@pytest.fixture
def make(redis: RedisServer, numbers: Iterator[int]) -> Make:
    """Make workers of one job."""
    job = f"job-{next(numbers)}"

    def make(worker: str, **options: object) -> RedisFrontier:
        chosen = {"concurrency": 8, **options}
        return RedisFrontier(Server(redis.url, lambda *_, **__: None), job, worker, **chosen)  # type: ignore[arg-type]

    return make


class Worker:
    """An open frontier and its bell."""

    def __init__(self, frontier: RedisFrontier) -> None:
        self.frontier = frontier
        self.bell = asyncio.Event()

    async def __aenter__(self) -> Worker:
        await self.frontier.open(self.bell.set)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.frontier.close()

    async def leased(self, n: int) -> list[Lease]:
        """Lease exactly ``n``."""
        leases: list[Lease] = []
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            while len(leases) < n:
                self.bell.clear()
                leases += self.frontier.lease(n - len(leases), loop.time())
                if len(leases) < n:
                    await self.bell.wait()
        return leases

    def end(self, lease: Lease, *children: str) -> None:
        """Settle a lease."""
        self.frontier.release(lease, asyncio.get_running_loop().time())
        self.frontier.settle(Settlement(lease, [Request(url) for url in children]))

    async def commit(self) -> None:
        """Commit."""
        await self.frontier.commit(Checkpoint())


def add(worker: Worker, *urls: str) -> None:
    """Take in some URLs."""
    worker.frontier.settle(Settlement(None, [Request(url) for url in urls]))


def test_two_workers_share_a_hosts_slots(make: Make) -> None:
    """A host has so many requests at a time over all workers; what one releases, another gets."""

    async def main() -> None:
        async with Worker(make("a", concurrency=3)) as a, Worker(make("b", concurrency=3)) as b:
            add(a, *(f"http://h/{n}" for n in range(10)))
            await a.commit()
            first, *_ = await a.leased(2)
            await b.leased(1)
            assert b.frontier.lease(1, 0.0) == []
            await b.commit()
            assert b.frontier.lease(1, 0.0) == []
            a.end(first)
            await a.commit()
            await b.leased(1)

    asyncio.run(main())


def test_a_workers_own_fetch_goes_before_what_others_lease(make: Make) -> None:
    """While somebody in one worker waits for a page, no other takes the host's slot for a stored request each time anew."""

    async def main() -> None:
        async with Worker(make("a", concurrency=1)) as a, Worker(make("b", concurrency=1)) as b:
            add(a, "http://h/1", "http://h/2")
            await a.commit()
            (lease,) = await a.leased(1)
            own = Lease(Request("http://h/robots.txt"), waiter=asyncio.get_running_loop().create_future())
            b.frontier.requeue(own)
            await has_none(b)
            a.end(lease)
            await has_none(a)
            assert await b.leased(1) == [own]
            b.frontier.release(own, 0.0)
            await b.commit()
            await a.leased(1)

    asyncio.run(main())


async def with_followers(worker: Worker) -> list[Lease]:
    """Let a worker have both slots of a host with ten pages, and pages that are to follow on them: /2, /3 and on."""
    add(worker, *(f"http://h/{n}" for n in range(-2, 10)))
    await worker.commit()
    for lease in await worker.leased(2):
        worker.end(lease)
    leases = await worker.leased(2)
    await worker.commit()
    assert [lease.request.url for lease in leases] == ["http://h/0", "http://h/1"]
    return leases


def test_requests_follow_on_a_slot(make: Make) -> None:
    """The next page of a host goes on the slot of the last without a word with Redis, and the slots remain as many."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a, Worker(make("b", concurrency=2)) as b:
            leases = await with_followers(a)
            for number in range(2, 10):
                now = asyncio.get_running_loop().time()
                a.end(leases.pop(0))
                leases += a.frontier.lease(1, now)
                assert [lease.request.url for lease in leases] == [f"http://h/{n}" for n in (number - 1, number)]
                await has_none(b)
            for lease in leases:
                a.end(lease)
            await a.commit()
            assert (a.frontier.counts.done, a.frontier.counts.pending) == (12, 0)

    asyncio.run(main())


def test_a_slot_that_was_not_used_rings(make: Make) -> None:
    """Who waits for a robots.txt makes room, and no fetch ends that would look for another, on the slot or elsewhere."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a:
            leases = await with_followers(a)
            now = asyncio.get_running_loop().time()
            for lease in leases:
                a.bell.clear()
                a.frontier.release(lease, now, unused=True)
                assert a.bell.is_set()

    asyncio.run(main())


def test_a_slot_is_not_followed_on_for_long(make: Make) -> None:
    """After a few pages it is up to all workers again."""

    async def main() -> None:
        async with Worker(make("a", concurrency=1)) as a, Worker(make("b", concurrency=1)) as b:
            add(a, *(f"http://h/{n}" for n in range(30)), "http://i/", "http://j/")
            await a.commit()
            for lease in await a.leased(3):  # it is fast: twelve could follow
                a.end(lease)
            found, followed = await a.leased(1), -1
            now = asyncio.get_running_loop().time()
            while found and followed < 10:
                followed += 1
                a.end(found[0])
                found = a.frontier.lease(1, now)
            assert followed == 4
            assert a.frontier.lease(0, now) == []
            await b.leased(1)

    asyncio.run(main())


@pytest.mark.parametrize("cause", ["a pause", "a delay", "a fetch", "less slots"])
def test_what_another_worker_hears_of_a_host_holds_for_those_that_follow(make: Make, cause: str) -> None:
    """They go back, to where they were taken from, and the slot too."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a, Worker(make("b", concurrency=2)) as b:
            leases = await with_followers(a)
            now = asyncio.get_running_loop().time()
            if cause == "a fetch":
                b.frontier.requeue(Lease(Request("http://h/own"), waiter=asyncio.get_running_loop().create_future()))
            elif cause == "a pause":
                b.frontier.tune("h", not_before=now + 1000.0)
            elif cause == "a delay":
                b.frontier.tune("h", delay=1000.0, cause="http://h")
            else:
                b.frontier.tune("h", concurrency=1, cause="throttle")
            await b.commit()
            await a.commit()
            for lease in leases:
                assert a.frontier.lease(1, now) == []
                a.end(lease)
            assert a.frontier.lease(0, now) == []  # it wants no more
            await a.commit()
            if cause == "a fetch":
                (own,) = await b.leased(1)
                b.frontier.release(own, now)
            if cause in ("a pause", "a delay"):
                await has_none(b)
            else:
                assert [lease.request.url for lease in await b.leased(1)] == ["http://h/2"]

    asyncio.run(main())


def test_a_worker_that_has_not_heard_of_redis_lately_gives_the_slot_back(make: Make) -> None:
    """Else it would go on with a host of which others have heard that it wants a pause."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a, Worker(make("b", concurrency=2)) as b:
            first, _ = await with_followers(a)
            now = asyncio.get_running_loop().time()
            a.frontier.release(first, now + 0.06)
            assert a.frontier.lease(1, now) == []
            assert a.frontier.lease(0, now) == []
            await a.commit()
            assert [lease.request.url for lease in await b.leased(1)] == ["http://h/2"]

    asyncio.run(main())


def test_a_slot_waits_a_moment_for_room(make: Make) -> None:
    """A worker has none while it commits; one that has none for longer, for it is about to end, gives the slot back."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a, Worker(make("b", concurrency=2)) as b:
            first, second = await with_followers(a)
            now = asyncio.get_running_loop().time()
            assert a.frontier.lease(1, now, private_only=True) == []
            a.end(first)
            assert [lease.request.url for lease in a.frontier.lease(1, now)] == ["http://h/2"]
            assert a.frontier.lease(1, now - 0.1, private_only=True) == []
            a.end(second)
            await a.commit()
            assert [lease.request.url for lease in await b.leased(1)] == ["http://h/3"]

    asyncio.run(main())


def test_what_may_not_begin_makes_way_for_what_a_callback_awaits(make: Make) -> None:
    """Its page holds the only room there is until that comes: what had followed on the host's slot goes back to the others."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a, Worker(make("b", concurrency=2)) as b:
            first, _ = await with_followers(a)
            now = asyncio.get_running_loop().time()
            a.end(first)
            own = Lease(Request("http://h/own"), waiter=asyncio.get_running_loop().create_future())
            a.frontier.requeue(own)
            async with asyncio.timeout(PATIENCE_S):
                while not (found := a.frontier.lease(1, now, private_only=True)):
                    a.bell.clear()
                    await a.bell.wait()
            assert found == [own]
            a.frontier.release(own, now)
            await a.commit()
            assert [lease.request.url for lease in await b.leased(1)] == ["http://h/2"]

    asyncio.run(main())


def test_what_may_not_begin_for_long_goes_to_the_others(make: Make) -> None:
    """Leases that have a slot, and those that were to follow, do not stand still while a callback sleeps."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a, Worker(make("b", concurrency=2)) as b:
            first, _ = await with_followers(a)
            now = asyncio.get_running_loop().time()
            a.end(first)
            assert a.frontier.lease(1, now, private_only=True) == []
            await a.commit()
            assert a.frontier.lease(0, now) == []
            assert a.frontier.lease(1, now - 0.1, private_only=True) == []
            await a.commit()
            assert [lease.request.url for lease in await b.leased(1)] == ["http://h/2"]

    asyncio.run(main())


def test_what_is_put_back_to_wait_has_no_claim_to_the_slot_it_had(make: Make) -> None:
    """Another has followed on it."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a:
            first, second = await with_followers(a)
            now = asyncio.get_running_loop().time()
            a.frontier.release(first, now, unused=True)
            a.frontier.requeue(first)
            (third,) = a.frontier.lease(1, now)
            await has_none(a)
            a.end(second)
            assert await a.leased(1) == [first]
            await has_none(a)
            a.end(third)
            await a.leased(1)
            await has_none(a)

    asyncio.run(main())


def test_workers_share_a_hosts_slots_alike(make: Make) -> None:
    """The one that has them all takes only its share anew while another wants some; alone it takes all again."""

    async def main() -> None:
        async with Worker(make("a")) as a:
            add(a, *(f"http://h/{n}" for n in range(40)))
            await a.commit()
            leases = await a.leased(8)
            async with Worker(make("b")) as b:
                assert b.frontier.lease(8, 0.0) == []
                await b.commit()
                for lease in leases:
                    a.end(lease)
                assert a.frontier.lease(8, 0.0) == []
                await a.commit()
                assert len(await a.leased(4)) == 4
                await has_none(a)
                await b.leased(4)
            await a.leased(4)

    asyncio.run(main())


class Fleet:
    """Workers of one job that do this and that, and what their hosts see of them."""

    SLOTS = 3

    def __init__(self, make: Make, random: Random) -> None:
        self.make = make
        self.random = random
        self.names = count()
        self.workers: list[Worker] = []
        self.out: dict[Worker, list[Lease]] = {}
        self.ended: dict[Worker, list[str]] = {}
        self.done: list[str] = []
        self.seeded = {f"http://h{n % 2}/{n}" for n in range(40)}
        self.own: dict[Worker, int] = {}

    async def begin(self) -> Worker:
        """Have one more join."""
        worker = Worker(self.make(f"w{next(self.names)}", concurrency=self.SLOTS))
        await worker.frontier.open(worker.bell.set)
        self.workers.append(worker)
        self.out[worker], self.ended[worker], self.own[worker] = [], [], 0
        return worker

    async def leave(self, worker: Worker) -> None:
        """Have one go, with what it has leased and what it has not committed."""
        self.workers.remove(worker)
        await worker.frontier.close()
        for record in (self.out, self.ended, self.own):
            del record[worker]

    def lease(self, worker: Worker) -> None:
        now = asyncio.get_running_loop().time()
        self.out[worker] += worker.frontier.lease(self.random.randrange(1, 6), now)
        hosts = Counter(lease.request.host for leases in self.out.values() for lease in leases)
        assert max(hosts.values(), default=0) <= self.SLOTS

    def end(self, worker: Worker) -> None:
        """End one lease: mostly well, and with links to what may be known; some wait for their host again first."""
        leases = self.out[worker]
        if not leases:
            return
        lease = leases.pop(self.random.randrange(len(leases)))
        now = asyncio.get_running_loop().time()
        if lease.waiter is not None:
            worker.frontier.release(lease, now)
            self.own[worker] -= 1
        elif self.random.random() < 0.1:
            worker.frontier.release(lease, now, unused=True)
            worker.frontier.requeue(lease)
        else:
            page = Random(lease.request.url)  # its links are the same whenever it is fetched
            urls = [f"http://h{n % 2}/{n}" for n in page.choices(range(300), k=page.randrange(4))]
            worker.end(lease, *urls)
            self.seeded.update(urls)
            self.ended[worker].append(lease.request.url)

    async def commit(self, worker: Worker) -> None:
        await worker.commit()
        self.done += self.ended[worker]
        self.ended[worker] = []

    async def act(self, worker: Worker) -> None:
        """Have a worker do something."""
        chance, host = self.random.random(), f"h{self.random.randrange(2)}"
        if chance < 0.4:
            self.lease(worker)
        elif chance < 0.8:
            self.end(worker)
        elif chance < 0.9:
            await self.commit(worker)
        elif chance < 0.92:
            worker.frontier.tune(host, not_before=asyncio.get_running_loop().time() + 0.01)
        elif chance < 0.94:
            worker.frontier.tune(host, concurrency=self.random.randrange(3), cause="throttle")
        elif chance < 0.96 and not self.own[worker]:
            self.own[worker] += 1
            waiter = asyncio.get_running_loop().create_future()
            worker.frontier.requeue(Lease(Request(f"http://{host}/robots.txt"), waiter=waiter))
        elif chance > 0.995 and len(self.workers) > 1:
            await self.leave(worker)
            await self.begin()
        if self.random.random() < 0.5:
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_workers_do_no_host_is_asked_too_often_and_no_page_twice(make: Make, seed: int) -> None:
    """Three workers lease, end, put back, pause, throttle, fetch for themselves, leave and join; then they finish."""

    async def main() -> None:
        fleet = Fleet(make, Random(seed))
        first = await fleet.begin()
        add(first, *fleet.seeded)
        await fleet.commit(first)
        for _ in range(2):
            await fleet.begin()
        for _ in range(3000):
            await fleet.act(fleet.random.choice(fleet.workers))
        async with asyncio.timeout(PATIENCE_S):
            for worker in fleet.workers:
                for host in ("h0", "h1"):
                    worker.frontier.tune(host, concurrency=0, cause="throttle")
            while any(worker.frontier.counts.pending or fleet.own[worker] for worker in fleet.workers):
                for worker in fleet.workers:
                    fleet.lease(worker)
                    while fleet.out[worker]:
                        fleet.end(worker)
                    await fleet.commit(worker)
        assert sorted(fleet.done) == sorted(fleet.seeded)
        for worker in [*fleet.workers]:
            await fleet.leave(worker)

    asyncio.run(main())


def test_dedupe_holds_for_all_workers(make: Make) -> None:
    """What one worker took in, another does not take in again; all count the same."""

    async def main() -> None:
        async with Worker(make("a")) as a, Worker(make("b")) as b:
            add(a, "http://h/1", "http://h/2")
            await a.commit()
            add(b, "http://h/2", "http://h/3")
            await b.commit()
            await a.frontier._turn(all_buckets=True)
            for worker in (a, b):
                counts = worker.frontier.counts
                assert (counts.seeded, counts.pending, counts.filtered) == (3, 3, 1)

    asyncio.run(main())


def test_what_was_pushed_is_known(make: Make) -> None:
    """A link that this worker pushed is dropped before it is said again, and counted; what others pushed Redis knows."""

    async def main() -> None:
        async with Worker(make("a")) as a, Worker(make("b")) as b:
            add(a, "http://h/1")
            assert a.frontier.knows(Request("http://h/1#top"))
            assert not a.frontier.knows(Request("http://h/1", dont_filter=True))
            assert not a.frontier.knows(Request("http://h/2"))
            assert not b.frontier.knows(Request("http://h/1"))
            assert a.frontier.counts.filtered == 1
            await a.commit()
            add(b, "http://h/1")
            await b.commit()
            await a.commit()
            for worker in (a, b):
                counts = worker.frontier.counts
                assert (counts.seeded, counts.filtered) == (1, 2)

    asyncio.run(main())


def test_a_commit_whose_answer_was_lost(make: Make) -> None:
    """Said again, it changes nothing: neither the counts nor what the fleet has counted towards its limits."""

    async def main() -> None:
        told: list[Tally] = []
        async with Worker(make("a")) as a, Worker(make("b", count_elsewhere=told.append)) as b:
            add(a, "http://h/1")
            await a.commit()
            (lease,) = await a.leased(1)
            frontier, entry = a.frontier, Entry()
            entry.done(lease.key)
            entry.part(0)[1].extend(pushed(ANYWAY, b"m" * 16, Request("http://h/2"), 0.0))
            note = frontier._notes.next(Checkpoint(state={"stats": {"pages": 1, "items": 3, "errors": 0}}), -1)
            note["ends"], note["pushes"] = entry.part(0)
            for _ in range(2):
                await frontier._talk.turn(frontier._buckets[0], commit=note)
            await b.commit()
            counts = b.frontier.counts
            assert (counts.seeded, counts.done, counts.pending) == (2, 1, 1)
            assert told[-1] == Tally(1, 3, 0)

    asyncio.run(main())


def test_what_others_have_counted_never_becomes_less(make: Make) -> None:
    """While a commit is on its way Redis does not know yet what this worker has counted itself."""

    async def main() -> None:
        told: list[Tally] = []
        beat = asyncio.Event()

        def count_elsewhere(tally: Tally) -> None:
            told.append(tally)
            beat.set()

        def pages(number: int) -> Checkpoint:
            return Checkpoint(state={"stats": {"pages": number, "items": 0, "errors": 0}})

        frontier = make("a", count_elsewhere=count_elsewhere, patience_s=0.4)
        async with asyncio.timeout(PATIENCE_S), Worker(make("b")) as b, Worker(frontier) as a:
            await b.frontier.commit(pages(3))
            await a.frontier.commit(pages(5))
            async with frontier._turning:
                commit = asyncio.ensure_future(frontier.commit(pages(50)))
                await asyncio.sleep(0)
                beat.clear()
                await beat.wait()
            await commit
            await b.frontier.commit(pages(4))
            await a.frontier.commit(pages(51))
            assert told[-1].pages == 4
            assert told == sorted(told, key=lambda tally: tally.pages)
            assert told[0].pages >= 0

    asyncio.run(main())


def test_processes_of_this_machine() -> None:
    """A worker that runs here is told from one that has ended; of one elsewhere, or in a container, nothing is said."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        where, _, began = own_place()
        place = [where, process.pid, "0"]
        assert runs_here({"place": own_place()}) is True
        assert runs_here({"place": place}) is False  # another that has its number now
        assert runs_here({"place": ["elsewhere", *place[1:]]}) is None
        assert runs_here({"place": []}) is None
        process.kill()
    assert runs_here({"place": [where, process.pid, began]}) is False


def test_who_leaves_gives_back(make: Make) -> None:
    """A worker that ends hands its leases, and its hosts' slots, to the others at once."""

    async def main() -> None:
        async with Worker(make("b", concurrency=2)) as b:
            async with Worker(make("a", concurrency=2)) as a:
                add(a, "http://h/1", "http://h/2")
                await a.commit()
                await a.leased(2)
            assert {lease.request.url for lease in await b.leased(2)} == {"http://h/1", "http://h/2"}

    asyncio.run(main())


def test_start_falls_to_one(make: Make) -> None:
    """start() is one worker's; the next goes on after what that one took, or hears that it is over."""

    async def main() -> None:
        async with Worker(make("b")) as b:
            async with Worker(make("a")) as a:
                assert await a.frontier.begin_start() == 0
                waiting = asyncio.ensure_future(b.frontier.begin_start())
                a.frontier.settle(Settlement(None, [Request("http://h/1")], starts=3))
                await a.commit()
                assert not waiting.done()
            assert await waiting == 3
            b.frontier.settle(Settlement(None, start_over=True))
            await b.commit()
            async with Worker(make("c")) as c:
                assert await c.frontier.begin_start() is None
                assert c.frontier.counts.pending == 1

    asyncio.run(main())


def test_what_failed_is_tried_again(make: Make) -> None:
    """A run told so puts it back among what is pending, with its priority, for whichever worker."""

    async def main() -> None:
        async with Worker(make("a")) as a, Worker(make("b")) as b:
            a.frontier.settle(Settlement(None, [Request("http://h/0"), Request("http://h/1", priority=1)]))
            await a.commit()
            for lease in await a.leased(2):
                a.frontier.release(lease, 0.0)
                a.frontier.settle(Settlement(lease, error="no"))
            await a.commit()
            assert (a.frontier.counts.failed, a.frontier.counts.pending) == (2, 0)
            assert await a.frontier.retry_failed() == 2
            assert (a.frontier.counts.failed, a.frontier.counts.pending) == (0, 2)
            assert [lease.request.url for lease in await b.leased(1)] == ["http://h/1"]

    asyncio.run(main())


def test_facts_come_before_the_requests_that_need_them(make: Make) -> None:
    """A start host that one worker names is known to another before that leases the start request."""

    async def main() -> None:
        known: dict[str, object] = {}
        async with Worker(make("a")) as a, Worker(make("b", learn=known.update)) as b:
            await a.frontier.begin_start()
            a.frontier.settle(Settlement(None, [Request("http://h/1")], starts=1))
            await a.frontier.commit(Checkpoint(state={"seed:h": True, "stats": {"items": 1}}))
            await b.leased(1)
            assert known == {"seed:h": True}

    asyncio.run(main())


def test_a_dead_workers_commit_is_refused(make: Make) -> None:
    """One that others have taken for dead can commit nothing any more, and leases nothing."""

    async def main() -> None:
        async with Worker(make("a")) as a:
            add(a, "http://h/1")
            await a.commit()
            (lease,) = await a.leased(1)
            async with Worker(make("b")) as b:
                await b.frontier._talk.bury("a", [])
                assert [each.request.url for each in await b.leased(1)] == ["http://h/1"]
                a.end(lease, "http://h/2")
                with pytest.raises(StateError, match="was not heard"):
                    await a.commit()
                await b.commit()
                assert (b.frontier.counts.done, b.frontier.counts.failed) == (0, 0)

    asyncio.run(main())


async def has_none(worker: Worker) -> None:
    """Make sure that there is nothing for a worker now."""
    assert worker.frontier.lease(1, 0.0) == []
    await worker.commit()
    assert worker.frontier.lease(1, 0.0) == []


def test_the_strictest_cap_holds(make: Make) -> None:
    """What a worker's throttle lowers no other undoes; it lifts that itself, or ends."""

    async def main() -> None:
        async with Worker(make("b")) as b:
            async with Worker(make("a")) as a:
                add(b, *(f"http://h/{n}" for n in range(12)))
                a.frontier.tune("h", concurrency=1, cause="throttle")
                await a.commit()
                await b.commit()
                await b.leased(1)
                await has_none(b)
                b.frontier.tune("h", concurrency=4, cause="throttle")
                await has_none(b)
                b.frontier.tune("h", concurrency=0, cause="throttle")
                await has_none(b)
                a.frontier.tune("h", concurrency=3, cause="throttle")
                await a.commit()
                await b.leased(2)
                await has_none(b)
            await b.leased(5)
            await has_none(b)

    asyncio.run(main())


def test_a_host_with_a_gap_is_left_to_the_worker_that_watches_it(make: Make) -> None:
    """Only that one's throttle sees that the host is well again; where it wants no more, the others go on."""

    async def main() -> None:
        clock = Clock()
        clocks = {"clock": clock, "server_clock": clock, "patience_s": 1000.0, "margin_s": 0.0}
        async with Worker(make("b", **clocks)) as b, Worker(make("a", **clocks)) as a:
            add(a, *(f"http://h/{n}" for n in range(9)))
            a.frontier.tune("h", delay=1.0, cause="throttle")
            await a.commit()
            for _ in range(3):
                await a.leased(1)
                clock.now += 0.9
                assert a.frontier.lease(1, 0.0) == []
                await a.commit()
                clock.now += 0.1
                await has_none(b)
            await a.leased(1)
            assert a.frontier.lease(0, 0.0) == []
            clock.now += 1.0
            await b.leased(1)

    asyncio.run(main())


def test_a_throttles_gap_ends_with_its_worker(make: Make) -> None:
    """Nobody else sees when it is to be taken back: the others would go on at its pace to the crawl's end."""

    async def main() -> None:
        clock = Clock()
        clocks = {"clock": clock, "server_clock": clock, "patience_s": 1000.0, "margin_s": 0.0}
        async with Worker(make("b", **clocks)) as b:
            async with Worker(make("a", **clocks)) as a:
                a.frontier.tune("h", delay=1.0, cause="throttle")
                a.frontier.tune("i", delay=1.0, cause="throttle")
                await a.commit()
                b.frontier.tune("i", delay=1.0, cause="throttle")
                add(b, *(f"http://{host}/{n}" for host in "hi" for n in range(9)))
                await b.commit()
                assert sorted(lease.request.host for lease in await b.leased(2)) == ["h", "i"]
                await has_none(b)
            clock.now += 1.0
            hosts = [lease.request.host for lease in await b.leased(4)]
            assert sorted(hosts) == ["h", "h", "h", "i"]  # of "i" it is the one that put the gap last

    asyncio.run(main())


def test_a_crawl_delay_outlives_its_reader(make: Make) -> None:
    """The gap that one worker read in a robots.txt holds when that worker is gone, until another reads that it is over."""

    async def main() -> None:
        async with Worker(make("b")) as b:
            async with Worker(make("a")) as a:
                a.frontier.tune("h", delay=1000.0, cause="http://h")
                await a.commit()
            add(b, *(f"http://h/{n}" for n in range(3)))
            await b.commit()
            await b.leased(1)
            await has_none(b)
            async with Worker(make("c")) as c:
                c.frontier.tune("i", delay=1000.0, cause="http://i")
                c.frontier.tune("i", delay=0.0, cause="http://i")
                add(c, "http://i/1", "http://i/2")
                await c.commit()
                await c.leased(2)

    asyncio.run(main())


@pytest.mark.parametrize("way", ["pushed", "leased", "failed"])
def test_a_priority_that_is_a_boolean(make: Make, way: str) -> None:
    """True is 1, wherever the request goes."""

    async def main() -> None:
        async with Worker(make("a")) as a:
            a.frontier.settle(Settlement(None, [Request("http://h/0"), Request("http://h/1", priority=True)]))
            await a.commit()
            if way == "leased":
                async with Worker(make("b")) as b:
                    await b.leased(2)
            elif way == "failed":
                for lease in await a.leased(2):
                    a.frontier.release(lease, 0.0)
                    a.frontier.settle(Settlement(lease, error="no"))
                await a.commit()
                await a.frontier.retry_failed()
            assert [lease.request.url for lease in await a.leased(1)] == ["http://h/1"]

    asyncio.run(main())


def test_a_hosts_own_policy(make: Make) -> None:
    """A host that the settings treat otherwise is so for the fleet; and what a cause lifts leaves it as it was."""

    async def main() -> None:
        own = {"policy_of": lambda host: (2, 0.0, 0.0) if host == "slow" else None}
        async with Worker(make("a", **own)) as a, Worker(make("b", **own)) as b:
            add(a, *(f"http://slow/{n}" for n in range(5)))
            await a.commit()
            await b.leased(2)
            await has_none(b)
            a.frontier.tune("slow", concurrency=7, cause="throttle")
            a.frontier.tune("slow", concurrency=0, cause="throttle")
            await a.commit()
            await has_none(b)
            add(a, *(f"http://usual/{n}" for n in range(9)))
            await a.commit()
            assert {lease.request.host for lease in await b.leased(8)} == {"usual"}

    asyncio.run(main())


class Clock:
    """A clock that stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_gap_counts_from_sending(make: Make) -> None:
    """Nobody asks a host with a delay before its last request was sent, and the delay over; also where its worker died."""

    async def main() -> None:
        clock = Clock()
        options = {"delay": 1.0, "tells_sent": True, "patience_s": 1000.0, "margin_s": 0.0}
        clocks = {"clock": clock, "server_clock": clock}
        async with Worker(make("b", **options, **clocks)) as b, Worker(make("a", **options, **clocks)) as a:
            add(a, *(f"http://h/{n}" for n in range(5)))
            await a.commit()
            await a.leased(1)
            assert a.frontier.unsent == {"h"}
            clock.now += 5.0
            await has_none(b)
            a.frontier.sent("h", clock.now)
            assert a.frontier.unsent == set()
            await a.commit()
            clock.now += 0.9
            await has_none(b)
            clock.now += 0.1
            (lease,) = await b.leased(1)
            clock.now += 5.0
            b.frontier.release(lease, clock.now, unused=True)  # nothing was asked of the host
            await b.commit()
            await a.leased(1)
            clock.now += 5.0
            await has_none(b)
            await b.frontier._talk.bury("a", [])
            await has_none(b)
            clock.now += 1.0
            await b.leased(1)

    asyncio.run(main())


def test_jitter(make: Make) -> None:
    """Gaps are longer than the delay by chance, up to what jitter says, and not all alike."""

    async def main() -> None:
        clock = Clock()
        made = make("a", delay=1.0, jitter=0.5, clock=clock, server_clock=clock, margin_s=0.0)
        async with Worker(made) as a:
            add(a, *(f"http://h/{n}" for n in range(12)))
            await a.commit()
            gaps = []
            for _ in range(10):
                (lease,) = await a.leased(1)
                a.end(lease)
                await a.commit()
                at = a.frontier.next_ready(clock.now)
                assert at is not None
                gaps.append(at - clock.now)
                clock.now = at + 1e-6
            assert all(1.0 <= gap <= 1.5 for gap in gaps)
            assert len(set(gaps)) > 5

    asyncio.run(main())


def test_facts_are_forgotten(make: Make) -> None:
    """A value of None takes a fact out; one that joins then does not hear of it."""

    async def main() -> None:
        async with Worker(make("a")) as a:
            await a.frontier.commit(Checkpoint(state={"throttle:h": [1, 0.0], "throttle:i": [2, 0.0]}))
            await a.frontier.commit(Checkpoint(state={"throttle:h": None}))
            b = make("b")
            assert (await b.open(lambda: None)).state == {"throttle:i": [2, 0.0]}
            await b.close()

    asyncio.run(main())


def test_a_blocked_event_loop_is_not_death(make: Make) -> None:
    """A callback that blocks for longer than the others are patient costs nothing: the heart beats in a thread."""

    def others() -> None:
        async def main() -> None:
            async with Worker(make("b", patience_s=1.0)) as b:
                with suppress(TimeoutError):
                    async with asyncio.timeout(2.2):
                        await b.leased(1)
                    raise AssertionError("it was taken for dead")

        asyncio.run(main())

    async def main() -> None:
        async with Worker(make("a", patience_s=1.0)) as a:
            add(a, "http://h/1")
            await a.commit()
            (lease,) = await a.leased(1)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(others).result()  # the event loop stands still
            a.end(lease)
            await a.commit()
            assert a.frontier.counts.done == 1

    asyncio.run(main())


def test_heartbeats_do_not_hide_what_redis_lost(make: Make, redis: RedisServer) -> None:
    """While the event loop stands still Redis comes back from an older state: however often the heart beats, it is seen."""

    async def main() -> None:
        async with Worker(make("a", patience_s=0.4)) as a:
            base = f"scrape:{{{a.frontier.job}}}"

            def wait_for_a_beat() -> None:
                last, deadline = redis.send("ZSCORE", f"{base}:alive", "a"), time.monotonic() + PATIENCE_S
                while redis.send("ZSCORE", f"{base}:alive", "a") == last:
                    assert time.monotonic() < deadline

            await a.commit()
            wait_for_a_beat()
            redis.send("HINCRBY", f"{base}:n", "a", "-1")
            for _ in range(3):
                wait_for_a_beat()
            with pytest.raises(StateError, match="has lost what it had confirmed"):
                await a.commit()

    asyncio.run(main())


def test_in_a_hurry_nobody_waits_for_ever(tmp_path: Path) -> None:
    """Told to hurry, a worker whose Redis is away gives up what it waits for, and ends."""

    async def main(redis: RedisServer) -> None:
        server = Server(redis.url, lambda *_, **__: None)
        async with asyncio.timeout(PATIENCE_S), Worker(RedisFrontier(server, "job", "a", concurrency=8)) as a:
            redis.kill()
            commit = asyncio.ensure_future(a.commit())
            await asyncio.sleep(0)
            server.hurry()
            with pytest.raises(StateError, match="does not answer"):
                await commit

    with running(tmp_path) as redis:
        asyncio.run(main(redis))


class Faulty(Server):
    """A Redis whose answer to one of the scripts is a surprise."""

    fault = ""

    async def run(self, script: str, key: str, *arguments: Any) -> list[Any]:
        if script == self.fault:
            raise ValueError("a fault")
        return await super().run(script, key, *arguments)


@pytest.mark.parametrize("script", ["bucket", "crew"])
def test_a_fault_in_the_talk_ends_the_worker(redis: RedisServer, numbers: Iterator[int], script: str) -> None:
    """Whatever is raised where nobody awaits it is raised by the next lease: the worker does not stand still for ever."""

    async def lease(worker: Worker) -> None:
        while True:
            worker.frontier.lease(1, 0.0)
            await worker.bell.wait()
            worker.bell.clear()

    async def test() -> None:
        server = Faulty(redis.url, lambda *_, **__: None)
        frontier = RedisFrontier(server, f"job-{next(numbers)}", "a", concurrency=8, patience_s=0.5)
        async with Worker(frontier) as worker, asyncio.timeout(PATIENCE_S):
            server.fault = script
            with pytest.raises(StateError, match="a fault"):
                await lease(worker)

    asyncio.run(test())


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_connection_that_is_closed_in_any_moment_of_a_command(
    redis: RedisServer, is_reset: bool, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """The command is sent again, whatever redis-py raises: a Cluster's client closes connections that others use."""

    async def test() -> None:
        async with asyncio.timeout(PATIENCE_S):
            server = Server(redis.url, lambda *_, **__: None)
            await server.open()
            for turns in range(12):
                assert await server.ask("PING")
                (connection,) = server._client.connection_pool._available_connections
                asking = asyncio.ensure_future(server.ask("PING"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if is_reset and connection._writer is not None:
                    connection._writer.transport.abort()
                else:
                    await connection.disconnect(nowait=True)
                assert await asking
            assert server.gaps
            await server.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(test())


def test_an_answer_that_never_came(make: Make, redis: RedisServer) -> None:
    """What Redis granted in an answer that was lost is given back, and the host's slot with it."""

    async def main() -> None:
        async with Worker(make("a", concurrency=2)) as a:
            frontier = a.frontier
            add(a, "http://h/1", "http://h/2")
            await a.commit()
            await frontier._talk.turn(frontier._buckets[0], lease=2)  # the answer is dropped
            frontier._server.gaps += 1
            assert {lease.request.url for lease in await a.leased(2)} == {"http://h/1", "http://h/2"}

    asyncio.run(main())


def test_a_job_as_others_see_it(make: Make, redis: RedisServer) -> None:
    """A job without a spider's name is none yet; the counts come from Redis."""

    async def main() -> None:
        async with Worker(make("a")) as a:
            server = Server(redis.url, lambda *_, **__: None)
            await server.open()
            assert await look(server, a.frontier.job) is None
            await server.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"), "throws keys away"),
        (("--requirepass", "x"), "NOAUTH"),
    ],
)
def test_a_redis_that_cannot_be_used(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    """It is refused at the start, in one line with the reason."""

    async def main(server: RedisServer) -> None:
        with pytest.raises(UsageError) as caught:
            await Server(server.url, lambda *_, **__: None).open()
        assert "\n" not in str(caught.value)
        assert words in str(caught.value) or "Authentication" in str(caught.value)

    server = RedisServer(tmp_path, *options)
    if "--requirepass" in options:
        server.answer = b"-NOAUTH"
    server.start()
    try:
        asyncio.run(main(server))
    finally:
        server.kill()


@pytest.mark.parametrize(
    "option",
    [
        "foo=1", "ssl_ca_certs=/x", "decode_responses=true", "encoding=foo", "retry=1", "connection_class=x", "path=/x",
        "event_dispatcher=1", "db=foo",
    ],
)  # fmt: skip
def test_an_address_with_an_option_that_cannot_be(redis: RedisServer, option: str) -> None:
    """It is refused at the start in one line, which does not quote it: it may be half of a password."""

    async def main() -> None:
        with pytest.raises(UsageError, match="cannot use redis") as caught:
            await Server(f"{redis.url}?{option}", lambda *_, **__: None).open()
        assert "\n" not in str(caught.value)
        assert option not in str(caught.value)

    asyncio.run(main())


def test_a_cluster_that_goes_away_as_a_whole(tmp_path: Path) -> None:
    """It is waited for as one Redis is; where it is not there at the start, one line says so."""

    async def main(nodes: list[RedisServer]) -> None:
        is_away = asyncio.Event()
        server = Server(cluster_url(nodes), lambda *_, **__: is_away.set())
        await server.open()
        for node in nodes:
            node.kill()
        asking = asyncio.ensure_future(server.ask("HGET", "a", "b"))
        await asyncio.wait([asking, asyncio.ensure_future(is_away.wait())], return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(UsageError, match="cannot use redis") as caught:
            await Server(cluster_url(nodes), lambda *_, **__: None).open()
        assert "\n" not in str(caught.value)
        for node in nodes:
            node.start()
        assert await asyncio.wait_for(asking, PATIENCE_S) is None
        await server.close()

    with running_nodes(tmp_path) as nodes:
        asyncio.run(main(nodes))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "{a}", "x" * 101])
def test_names_of_jobs(name: str) -> None:
    """A name that could not be a file's, or would break the keys, is refused."""
    with pytest.raises(UsageError, match="letters, digits"):
        check_job(name)
    assert check_job("autumn-2026.x_1") == "autumn-2026.x_1"


def test_passwords_are_not_shown() -> None:
    """Messages name a Redis without its password."""
    assert shown("rediss://u:secret@h:1/0") == "rediss://h:1/0"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@h/0", "redis://:sec/secret@h/0", "redis://u:secret@x@h/0", "redis://:s?ecret@h:1/0",
        "redis://h/0?password=secret", "redis://h/0?db=1&password=x@secret", "redis://:secret#@h/0",
        'redis://:se"cret secret@h', "redis://:secret:secret@h:port/0", "reds://:secret@h/0", "redis:/:secret@h/0",
    ],
)  # fmt: skip
def test_a_password_is_never_printed(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with an address, neither `scrape settings` nor an error says its password."""
    monkeypatch.chdir(tmp_path)
    said = []
    for arguments in (["settings", "-s", f"frontier.use={url}"], ["jobs", "--frontier", url]):
        done = subprocess.run(
            [sys.executable, "-m", "scraper", *arguments], capture_output=True, text=True, check=False
        )
        said.append(done.stdout + done.stderr)
    assert all(said)
    assert "secret" not in "".join(said)
    assert "Traceback" not in "".join(said)
