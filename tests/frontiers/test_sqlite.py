"""The durable frontier with a window of a few requests, against a model that is a dict and a sort."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from scraper.contracts import Checkpoint, Lease, Settlement
from scraper.errors import StateError, UsageError
from scraper.frontiers.sqlite import SqliteFrontier
from scraper.frontiers.store import MERGE_SLICES, Batch, Store, look
from scraper.http import Request
from scraper.politeness.hosts import Hosts

PATIENCE_S = 20.0
"""Past this, something that is waited for will never come."""

_ROUNDING_S = 0.001


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an async test a plain one; an error that goes to the event loop fails it."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        strays: list[Any] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context))
            async with asyncio.timeout(PATIENCE_S):
                await test(*args, **kwargs)

        try:
            asyncio.run(main())
        finally:
            assert not strays, strays

    return run


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Known:
    """What the model knows of a request that the frontier took in."""

    request: Request
    number: int  # in the order of taking in
    not_before: float = 0.0
    lease: Lease | None = None


class Driver:
    """Does operations on a frontier and on the model alike, and compares the two after each."""

    def __init__(
        self, path: Path, order: str, seed: int, *, window: int = 20, marks: int = 10, slots: int = 4, noted: int = 7
    ) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.wall_ahead_s = 1_700_000_000.0
        self._path, self._order, self._slots = path, order, slots
        self._window, self._marks, self._noted = window, marks, noted
        self.numbers = 0
        self.seen: set[str] = set()
        self.pending: dict[str, Known] = {}
        self.seeded = self.done = self.failed = self.filtered = 0
        self.failures: list[str] = []
        self._saved: Any = None
        self.strict = False
        self.most_in_memory = 0
        self.frontier: SqliteFrontier

    async def open(self) -> Checkpoint:
        """Open the file as a new process would."""
        self.woken = asyncio.Event()
        self.frontier = SqliteFrontier(
            Hosts(self._slots),
            self._order,
            self.clock,
            path=self._path,
            window=self._window,
            marks=self._marks,
            noted=self._noted,
            wall_clock=lambda: self.clock.now + self.wall_ahead_s,
        )
        return await self.frontier.open(self.woken.set)

    def url(self, hosts: int, names: int) -> str:
        """A URL of a small space, so that many come again."""
        return f"http://h{self.random.randrange(hosts)}.example/{self.random.randrange(names)}"

    def make(self, url: str, *, delays: bool = True) -> Request:
        """A request with some priority, and now and then a delay."""
        priority = self.random.choice((0, 0, 0, 0, 1, -1, 5))
        delay = self.random.choice((0.0,) * 9 + (3.0,)) if delays else 0.0
        return Request(url, "parse", priority=priority, delay=delay)

    def model_push(self, children: list[Request]) -> None:
        """Take children in, in the model."""
        for child in children:
            if child.url in self.seen:
                self.filtered += 1
                continue
            self.seen.add(child.url)
            self.seeded += 1
            self.numbers += 1
            not_before = self.clock.now + child.delay if child.delay else 0.0
            self.pending[child.url] = Known(child, self.numbers, not_before)

    def push(self, children: list[Request]) -> None:
        """Take children in that no page led to."""
        self.frontier.settle(Settlement(None, children))
        self.model_push(children)

    def settle(self, url: str, children: list[Request], *, error: str = "") -> None:
        """End a leased request, with all it led to."""
        lease = self.pending.pop(url).lease
        assert lease is not None
        self.frontier.release(lease, self.clock.now)
        self.frontier.settle(Settlement(lease, children, error=error))
        if error:
            self.failed += 1
            self.failures.append(url)
        else:
            self.done += 1
        self.model_push(children)

    def again(self, url: str, target: str, delay: float) -> None:
        """Put another request in a leased one's place: a retry of the same URL, or a redirect."""
        known = self.pending.pop(url)
        assert known.lease is not None
        request = known.request.replace(target)
        request.delay = 0.0
        not_before = self.clock.now + delay if delay else 0.0
        self.frontier.release(known.lease, self.clock.now)
        self.frontier.settle(Settlement(known.lease, again=request, not_before=not_before))
        if target != url and target in self.seen:
            self.filtered += 1
            self.done += 1
            return
        self.seen.add(target)
        self.numbers += 1
        self.pending[target] = Known(request, self.numbers, not_before)

    def take(self, n: int) -> list[Lease]:
        """Lease; each lease is of a request that waits, and is handed out once."""
        leases = self.frontier.lease(n, self.clock.now)
        for lease in leases:
            known = self.pending.get(lease.request.url)
            assert known is not None, f"leased {lease.request}, which is not pending"
            assert known.lease is None, f"leased {lease.request} twice"
            assert known.not_before <= self.clock.now + _ROUNDING_S, f"leased {lease.request} before its time"
            assert lease.request.priority == known.request.priority
            if self.strict:
                first = min(self.rank(each) for each in self.waiting(lease.request.host))
                assert self.rank(known) == first, f"leased {lease.request} before its turn"
            known.lease = lease
        return leases

    def waiting(self, host: str) -> list[Known]:
        """What waits for a host, and for no time."""
        return [
            known
            for known in self.pending.values()
            if known.lease is None and known.request.host == host and known.not_before <= self.clock.now
        ]

    def rank(self, known: Known) -> tuple[int, int]:
        """Where a request stands in its host's queue."""
        return -known.request.priority, known.number if self._order == "breadth" else -known.number

    def leased(self) -> list[str]:
        """The URLs that are leased."""
        return [url for url, known in self.pending.items() if known.lease is not None]

    def check(self) -> None:
        """Compare the counts, as far as the file need not be asked first."""
        counts = self.frontier.counts
        assert counts.seeded == counts.done + counts.failed + counts.pending
        self.most_in_memory = max(self.most_in_memory, self.frontier._queues.size)

    async def commit(self) -> None:
        """Commit; compare all counts exactly; remember how things stand."""
        await self.frontier.commit(Checkpoint({"out": self.done}, {"n": self.numbers}))
        counts = self.frontier.counts
        found = (counts.seeded, counts.done, counts.failed, counts.pending, counts.filtered)
        assert found == (self.seeded, self.done, self.failed, len(self.pending), self.filtered)
        pending = {url: Known(known.request, known.number, known.not_before) for url, known in self.pending.items()}
        model = (set(self.seen), pending, self.seeded, self.done, self.failed, self.filtered, list(self.failures))
        self._saved = model, self.numbers

    async def crash(self) -> None:
        """Forget all since the last commit, as a killed process does, and open again."""
        await self.frontier.close()
        (self.seen, self.pending, self.seeded, self.done, self.failed, self.filtered, self.failures), _ = self._saved
        self.seen, self.failures = set(self.seen), list(self.failures)
        self.pending = {url: Known(k.request, k.number, k.not_before) for url, k in self.pending.items()}
        checkpoint = await self.open()
        assert checkpoint.outputs == {"out": self.done}
        counts = self.frontier.counts
        assert (counts.seeded, counts.pending) == (self.seeded, len(self.pending))

    async def drain(self) -> list[str]:
        """Lease and settle until nothing is left; return the URLs in order."""
        order: list[str] = []
        for url in self.leased():
            self.settle(url, [])
        while self.pending:
            self.woken.clear()
            leases = self.take(50)
            for lease in leases:
                order.append(lease.request.url)
                self.settle(lease.request.url, [])
            if leases:
                continue
            late = [known.not_before for known in self.pending.values() if known.not_before >= self.clock.now]
            try:
                async with asyncio.timeout(2.0 if not late else 0.05):
                    await self.woken.wait()
            except TimeoutError:
                assert late, f"a stall: {len(self.pending)} pending, none leased: {list(self.pending)[:3]}"
                self.clock.now = min(late) + _ROUNDING_S
        return order


@pytest.mark.parametrize("order", ["breadth", "depth"])
@pytest.mark.parametrize("seed", range(6))
def test_random_operations(tmp_path: Path, order: str, seed: int) -> None:
    """Thousands of random operations, crashes among them: all that is pushed is leased exactly once, counts add up."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", order, seed)
        await driver.open()
        await driver.commit()
        rng = driver.random
        hosts = (30, 3, 1)[seed % 3]
        for _ in range(1500):
            operation = rng.random()
            leased = driver.leased()
            if operation < 0.22:
                driver.push([driver.make(driver.url(hosts, 400)) for _ in range(rng.randrange(1, 12))])
            elif operation < 0.50:
                driver.take(rng.randrange(1, 8))
            elif operation < 0.78 and leased:
                children = [driver.make(driver.url(hosts, 400)) for _ in range(rng.choice((0, 0, 1, 3)))]
                driver.settle(rng.choice(leased), children, error=rng.choice(("", "", "", "HttpError: no")))
            elif operation < 0.84 and leased:
                url = rng.choice(leased)
                driver.again(url, rng.choice((url, driver.url(hosts, 400))), rng.choice((0.0, 0.0, 2.0)))
            elif operation < 0.88:
                driver.clock.now += rng.random() * 2
            elif operation < 0.93:
                await asyncio.sleep(0)
            elif operation < 0.98:
                await driver.commit()
            elif operation < 0.985:
                await driver.crash()
            driver.check()
        await driver.commit()
        await driver.crash()
        await driver.drain()
        await driver.commit()
        assert driver.frontier.counts.pending == 0
        await driver.frontier.close()

    try:
        test()
    except BaseException:
        print(f"order={order} seed={seed}")
        raise


@pytest.mark.parametrize("order", ["breadth", "depth"])
@pytest.mark.parametrize("seed", range(4))
def test_order(tmp_path: Path, order: str, seed: int) -> None:
    """Whatever comes in between, each lease is the first of its host's queue: by priority, then by age."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", order, seed, marks=100_000, slots=1)
        driver.strict = True
        await driver.open()
        await driver.commit()
        for _ in range(1500):
            operation, leased = driver.random.random(), driver.leased()
            if operation < 0.3:
                pushed = [driver.make(driver.url(3, 100_000), delays=False) for _ in range(driver.random.randrange(9))]
                driver.push(pushed)
            elif operation < 0.6:
                driver.take(3)
            elif leased:
                more = [
                    driver.make(driver.url(3, 100_000), delays=False) for _ in range(driver.random.choice((0, 1, 2)))
                ]
                driver.settle(driver.random.choice(leased), more)
            if operation > 0.97:
                await asyncio.sleep(0)
            if operation > 0.99:
                await driver.commit()
        await driver.drain()
        await driver.commit()
        await driver.frontier.close()

    try:
        test()
    except BaseException:
        print(f"order={order} seed={seed}")
        raise


@pytest.mark.parametrize("order", ["breadth", "depth"])
@pytest.mark.parametrize("hosts", [1, 3, 200])
def test_memory_is_bounded(tmp_path: Path, order: str, hosts: int) -> None:
    """However many wait, only about a window of them is in memory; all of them are leased once."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", order, 1, window=500, marks=1000, slots=50)
        await driver.open()
        number = 0
        for _ in range(60):
            batch = []
            for _ in range(150):
                number += 1
                batch.append(Request(f"http://h{number % hosts}.example/{number}", priority=number % 3))
            driver.push(batch)
            for lease in driver.take(20):
                driver.settle(lease.request.url, [])
            driver.check()
            await asyncio.sleep(0)
        await driver.commit()
        assert driver.most_in_memory < max(4 * 500, 32 * hosts)  # a host may always have a few
        await driver.drain()
        await driver.commit()
        assert driver.frontier.counts.done == number == 9000
        await driver.frontier.close()

    test()


class Trips(asyncio.SelectorEventLoop):
    """Counts what is handed to the frontier's thread, by the function's name."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def run_in_executor(self, executor: Any, function: Any, *arguments: Any) -> Any:
        self.counted[function.__name__] += 1
        return super().run_in_executor(executor, function, *arguments)


@pytest.mark.parametrize("order", ["breadth", "depth"])
def test_many_hosts_are_read_in_one_trip(tmp_path: Path, order: str) -> None:
    """With far more hosts than memory holds, one trip to the thread brings the next requests of many of them."""

    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", order, 1, window=1000, marks=20_000)
        await driver.open()
        driver.push([Request(f"http://h{number % 3000}.example/{number}") for number in range(9000)])
        await driver.drain()
        await driver.commit()
        assert driver.frontier.counts.done == 9000
        await driver.frontier.close()

    loop = Trips()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(test())
    assert 0 < loop.counted["next_rows"] < 9000 / 50


def test_hosts_that_wait_do_not_keep_cold_ones_out(tmp_path: Path) -> None:
    """Memory full of requests that may not go for long makes room for hosts in the file, and does not grow by them."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", "breadth", 1, window=400, marks=10_000)
        await driver.open()
        slow = [f"slow{number}.example" for number in range(50)]
        cold = [f"cold{number}.example" for number in range(90)]
        for host in slow:
            driver.frontier.tune(host, not_before=driver.clock.now + 300.0)
        for hosts in (slow, cold):
            driver.push([Request(f"http://{host}/{number}") for number in range(10) for host in hosts])
        await driver.commit()
        left = 900
        while left:
            driver.woken.clear()
            leases = driver.take(64)
            driver.check()
            for lease in leases:
                assert lease.request.host in cold
                driver.settle(lease.request.url, [])
            left -= len(leases)
            if not leases:
                await driver.woken.wait()
        assert driver.most_in_memory <= 400
        driver.clock.now += 301.0
        assert len(await driver.drain()) == 500
        await driver.commit()
        await driver.frontier.close()

    test()


def test_ended_before_it_was_written(tmp_path: Path) -> None:
    """A request that comes, is leased and ends within one batch is gone from the file as well."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", "breadth", 1, marks=1000)
        await driver.open()
        driver.push([Request("http://h.example/1"), Request("http://h.example/2", delay=1.0)])
        driver.clock.now += 2.0
        for lease in driver.take(2):
            driver.settle(lease.request.url, [Request("http://h.example/3")])
        await driver.commit()
        await driver.crash()
        assert await driver.drain() == ["http://h.example/3"]
        await driver.frontier.close()

    test()


@pytest.mark.parametrize("ends", ["before the read", "while it is read", "after the read"])
def test_leased_is_not_read_again(tmp_path: Path, ends: str) -> None:
    """A host whose requests in memory are all leased gets none of these again from the file, whenever they end."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", "breadth", 1, marks=10_000, slots=6)
        await driver.open()
        driver.push([Request(f"http://a.example/{number}") for number in range(3)])
        leased = [lease.request.url for lease in driver.take(3)]
        driver.push([Request(f"http://{host}.example/{number}") for host in "bcd" for number in range(8)])
        driver.push([Request(f"http://a.example/more/{number}") for number in range(3)])
        await driver.commit()
        if ends == "before the read":
            for url in leased:
                driver.settle(url, [])
        # Until there is room in memory again: then the rest of host a is read.
        while driver.frontier._queues.size >= 10:
            for lease in driver.take(1):
                driver.settle(lease.request.url, [])
        driver.take(50)
        if ends == "while it is read":
            for url in leased:
                driver.settle(url, [])
        for _ in range(8):  # a few of each host at a time
            await driver.commit()
            driver.take(50)
        assert len(driver.leased()) == len(driver.pending)
        await driver.drain()
        await driver.commit()
        await driver.frontier.close()

    test()


def test_many_come_while_it_is_read(tmp_path: Path) -> None:
    """Requests that go before all others, so many that memory lets some go again while the file is read, are not lost."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", "depth", 1, marks=10_000, slots=100)
        driver.strict = True
        await driver.open()
        driver.push([Request(f"http://a.example/{number}") for number in range(100)])
        await driver.commit()
        while driver.frontier._queues.size > 2:
            driver.take(1)
        driver.push([Request(f"http://a.example/new/{number}") for number in range(60)])
        await driver.commit()
        await driver.drain()
        await driver.commit()
        assert driver.frontier.counts.done == 160
        await driver.frontier.close()

    test()


def test_retry_failed(tmp_path: Path) -> None:
    """What failed waits again, is known by its fingerprint still, and is committed with the next commit, not before."""

    @in_loop
    async def test() -> None:
        driver = Driver(tmp_path / "frontier.db", "breadth", 1)
        await driver.open()
        driver.push([Request(f"http://h.example/{number}") for number in range(6)])
        await driver.commit()
        for lease in driver.take(4):
            lease.request.retries = 2
            driver.settle(lease.request.url, [], error="HttpError: HTTP status 500")
        await driver.commit()
        for is_committed in (False, True):
            await driver.crash()
            assert driver.frontier.counts.failed == 4
            assert await driver.frontier.retry_failed() == 4
            counts = driver.frontier.counts
            assert (counts.seeded, counts.failed, counts.pending) == (6, 0, 6)
            for url in driver.failures:
                driver.numbers += 1
                driver.pending[url] = Known(Request(url), driver.numbers)
            driver.failed, driver.failures = 0, []
            if is_committed:
                await driver.commit()
                await driver.crash()
        driver.push([Request("http://h.example/1")])
        assert len(await driver.drain()) == 6
        await driver.commit()
        assert look(tmp_path / "frontier.db")[1] == []
        await driver.frontier.close()

    test()


def test_looked_at_while_open(tmp_path: Path) -> None:
    """Another process sees the last commit, and nothing that came after it."""

    @in_loop
    async def test() -> None:
        path = tmp_path / "frontier.db"
        driver = Driver(path, "breadth", 1)
        await driver.open()
        assert look(path) == ({}, [])
        driver.push([Request("http://h.example/1")])
        await driver.commit()
        driver.push([Request("http://h.example/2")])
        await asyncio.sleep(0)
        assert look(path)[0]["counts"]["seeded"] == 1
        await driver.frontier.close()
        assert look(path)[0]["counts"]["seeded"] == 1

    test()


def test_file_that_fails_later(tmp_path: Path) -> None:
    """Where a request that is stored cannot be read, the next lease and the next commit say so; nothing waits for ever."""

    @in_loop
    async def test() -> None:
        path = tmp_path / "frontier.db"
        driver = Driver(path, "breadth", 1)
        await driver.open()
        driver.push([Request(f"http://h.example/{number}") for number in range(3)])
        await driver.commit()
        await driver.frontier.close()
        await driver.open()  # which puts what came in order
        await driver.frontier.close()
        with sqlite3.connect(path) as db:
            assert db.execute("UPDATE pending SET request=x'c1'").rowcount == 3
        db.close()
        await driver.open()
        driver.frontier.lease(3, driver.clock.now)
        driver.woken.clear()
        await driver.woken.wait()
        with pytest.raises(StateError, match=r"frontier\.db"):
            driver.frontier.lease(3, driver.clock.now)
        with pytest.raises(StateError, match=r"frontier\.db"):
            await driver.frontier.commit(Checkpoint())
        await driver.frontier.close()

    test()


def test_not_a_file_of_state(tmp_path: Path) -> None:
    """A file that is no database is refused with its name."""

    @in_loop
    async def test() -> None:
        path = tmp_path / "frontier.db"
        path.write_bytes(b"hello" * 1000)
        driver = Driver(path, "breadth", 1)
        with pytest.raises(UsageError, match=r"frontier\.db"):
            await driver.open()
        await driver.frontier.close()

    test()


@in_loop
async def test_state_that_is_forgotten(tmp_path: Path) -> None:
    """A name committed with None is not there any more; the file and those beside it are their owner's alone."""
    path = tmp_path / "f.db"
    found: dict[str, Any] = {}
    for state in ({"a": 1, "b": [2]}, {"a": None, "gone": None}, {}):
        frontier = SqliteFrontier(Hosts(1, 0.0), "breadth", path=path)
        found = dict((await frontier.open(lambda: None)).state)
        await frontier.commit(Checkpoint(state=state))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
        await frontier.close()
    assert found == {"b": [2]}


@pytest.mark.parametrize("most_noted", [3, 100])
def test_what_is_read_is_what_waits(tmp_path: Path, most_noted: int) -> None:
    """However many settled requests lie before those that wait, taken out or not, and after the file was opened again."""
    store = Store(tmp_path / "f.db", most_noted=most_noted)
    store.open()
    store.apply(Batch(rows=[(host, 0, 10 * serial + host, b"x") for host in (1, 2) for serial in range(8)]))
    store.apply(Batch(ended=[(1, 0, 10 * serial + 1) for serial in range(5)]))
    store.commit({})
    waiting = [(1, 0, 51, b"x"), (1, 0, 61, b"x"), (1, 0, 71, b"x")]
    assert store.next_rows({}, [1], 3) == waiting
    store.close()
    store.open()
    assert store.next_rows({}, [1], 3) == waiting
    assert store.next_rows({1: (0, 51)}, [2], 9) == waiting[1:] + [(2, 0, 10 * number + 2, b"x") for number in range(8)]
    store.close()


@pytest.mark.parametrize("seed", range(20))
def test_many_hosts_are_read_as_one_by_one(tmp_path: Path, seed: int) -> None:
    """One trip for many hosts finds what a trip for each finds: long and short ones, others between them, settled rows."""
    rng = random.Random(seed)
    rows = [(host, rng.randint(-2, 2), 0, b"x") for host in range(-20, 20) for _ in range(rng.choice([0, 1, 2, 2, 30]))]
    rows = [(host, rank, serial, data) for serial, (host, rank, _, data) in enumerate(rows)]
    ended = {row[:3] for row in rows if rng.random() < 0.4}
    store = Store(tmp_path / "f.db", most_noted=rng.choice([5, 50, 1000]))
    store.open()
    noted = {row[2] for row in rows if rng.random() < 0.5}
    early = [key for key in ended if rng.random() < 0.3]
    store.apply(
        Batch(
            rows=[row for row in rows if row[2] not in noted],
            come=[(*row, b"") for row in rows if row[2] in noted],
            ended=early,
        )
    )
    store.apply(Batch(ended=list(ended.difference(early))))
    hosts = rng.sample(range(-22, 22), rng.choice([1, 2, 10, 30]))
    first = sorted(hosts[: len(hosts) * 2 // 3])
    behind = dict.fromkeys(hosts[len(first) :], (0, len(rows) // 2))
    for n in (1, 3, 50):
        found = store.next_rows(behind, first, n)
        for host in [*behind, *first]:
            waiting = sorted(row for row in rows if row[0] == host and row[:3] not in ended)
            waiting = [row for row in waiting if host not in behind or row[1:3] > behind[host]]
            got = [row for row in found if row[0] == host]
            assert got == found[: len(got)] == waiting[: len(got)]
            assert len(got) >= min(n, len(waiting))
            found = found[len(got) :]
        assert not found
    store.close()


@pytest.mark.parametrize("most_noted", [10, 10_000])
def test_fingerprints_are_kept_wherever_they_stand(tmp_path: Path, most_noted: int) -> None:
    """Noted with their requests or on their own, and merged by generation: each is either fresh or known by the file."""
    rng = random.Random(most_noted)
    marks = [rng.randbytes(16) for _ in range(1000)]
    marks[:3] = [b"\0" * 16, b"\xff" * 16, b"\x1f" + b"\xff" * 15]
    store = Store(tmp_path / "f.db", most_noted=most_noted)
    store.open()
    for generation, first in enumerate((0, 600)):
        for at in range(first, first + 400, 100):
            come = [(1, 0, serial, b"x", marks[serial]) for serial in range(at, at + 90)]
            store.apply(Batch(come=come, marks=marks[at + 90 : at + 100], generation=generation))
    store.apply(Batch(ended=[(1, 0, serial) for serial in range(0, 90, 2)]))
    store.commit({})
    store.close()
    store.open()
    fresh, newest, merged = store.fresh_marks()
    assert (sorted(fresh), newest, merged) == (sorted(marks[:400] + marks[600:]), 1, False)
    for number in range(MERGE_SLICES):
        store.merge(0, number)
    fresh, newest, merged = store.fresh_marks()
    assert (sorted(fresh), newest, merged) == (sorted(marks[600:]), 1, True)
    doubtful = [(mark, None, None) for mark in marks[:600]]
    assert store.apply(Batch(doubtful=doubtful)) == [False] * 400 + [True] * 200
    store.close()
