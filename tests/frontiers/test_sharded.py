"""One shard's frontier beside another that is only heard of: who fetches what, and who waits for whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from servers import in_loop

from scraper.contracts import Checkpoint, Lease, Settlement
from scraper.errors import RequestError, UsageError
from scraper.frontiers import codec, sharded
from scraper.frontiers.sharded import ShardFrontier
from scraper.frontiers.split import Split
from scraper.frontiers.sqlite import SqliteFrontier
from scraper.http import Request
from scraper.politeness.hosts import Hosts
from scraper.urls import host_of

SLOTS = 4
ORIGIN = "http://127.0.0.1:8000"
RULES = {f"robots:{ORIGIN}": [2000.0, "", "test"]}
NOW = 1000.25


class Shard:
    """An open shard of two, what it posts, and what it was told."""

    def __init__(self, folder: Path, index: int, *, limits_pages: bool = False) -> None:
        self.posted: list[tuple[Any, ...]] = []
        self.known: dict[str, Any] = {}
        self.news: dict[str, Any] = {}
        self.woken = asyncio.Event()
        self.hurries = 0
        self.index = index
        self.split = split = Split(index, 2, "url", lambda host: (SLOTS, 0.0))
        own = SqliteFrontier(Hosts(SLOTS, 0.0), "breadth", self.time, path=folder / f"{index}.db", wall_clock=self.time)
        self.frontier = ShardFrontier(
            own,
            split,
            lambda *message: self.posted.append(message),
            learn=self.known.update,
            shared=("robots:",),
            news=lambda: self.news,
            pages=lambda: 0,
            report=lambda outputs: None,
            is_spread=lambda request: True if f"robots:{request.origin}" in self.known else None,
            rules_of=lambda origin: self.news,
            limits_pages=limits_pages,
            clock=self.time,
            wall_clock=self.time,
        )

        self.frontier.bind(self.frontier.settle, self.hurried)

    def hurried(self) -> None:
        self.hurries += 1

    def time(self) -> float:
        return NOW

    def brought(self, *numbers: int) -> None:
        """Take in pages as another shard would pass them on: to be fetched here."""
        for number in numbers:
            self.frontier._own.admit(Request(f"{ORIGIN}/{number}"))

    def leased(self, n: int) -> list[Lease]:
        return self.frontier.lease(n, NOW)

    async def sent(self) -> list[tuple[Any, ...]]:
        """Commit, and return what was posted since the last time."""
        await self.frontier.commit(Checkpoint())
        posted, self.posted[:] = list(self.posted), []
        return posted


@asynccontextmanager
async def shard(folder: Path, *, owns: bool, limits_pages: bool = False) -> AsyncIterator[Shard]:
    """Open the shard that owns the host, or the other one; the host's owner is up."""
    owner = Split(0, 2, "url", lambda host: (SLOTS, 0.0)).owner(host_of(ORIGIN))
    made = Shard(folder, owner if owns else 1 - owner, limits_pages=limits_pages)
    await made.frontier.open(made.woken.set)
    for other in (0, 1):
        made.frontier.came_up(other)
    await made.sent()
    try:
        yield made
    finally:
        await made.frontier.close()


def paths(leases: list[Lease]) -> list[str]:
    return sorted(lease.request.url.removeprefix(ORIGIN) for lease in leases)


def kinds(posted: list[tuple[Any, ...]]) -> list[str]:
    return [kind for kind, *_ in posted if kind in ("chunk", "facts", "hungry")]


@in_loop
async def test_pages_wait_for_what_the_owner_finds_out(tmp_path: Path) -> None:
    """One is sent to the owner, who then asks for the robots.txt; the others stay, and go when its rules come."""
    async with shard(tmp_path, owns=False) as there:
        there.brought(1, 2, 3, 4, 5, 6)
        assert there.leased(8) == []
        assert kinds(await there.sent()) == ["chunk"]
        assert there.frontier.waiting == 5
        assert there.leased(8) == []
        assert kinds(await there.sent()) == []
        there.frontier.learn(RULES)
        first = there.leased(8)
        assert len(first) == SLOTS
        for lease in first:
            there.frontier.release(lease, NOW)
            there.frontier.settle(Settlement(lease))
        assert paths(first + there.leased(8)) == ["/2", "/3", "/4", "/5", "/6"]
        assert "chunk" not in kinds(await there.sent())


@in_loop
async def test_pages_wait_no_longer_than_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is heard of the rules, such as of a site that cannot be reached, the owner gets them all."""
    monkeypatch.setattr(sharded, "_HOLD_S", 0.01)
    async with shard(tmp_path, owns=False) as there:
        there.brought(1, 2, 3, 4, 5, 6)
        there.leased(8)
        await there.sent()
        there.woken.clear()
        await there.woken.wait()
        for _ in range(6):  # one at a time, as it is the host's slots that let them go
            assert there.leased(8) == []
        assert kinds(await there.sent())[:1] == ["chunk"]
        assert there.frontier.waiting == 0
        there.brought(7)
        assert there.leased(8) == []
        assert kinds(await there.sent())[:1] == ["chunk"]  # and none is held a second time


@in_loop
async def test_the_owner_tells_at_once(tmp_path: Path) -> None:
    """Rules that were just learned are told before the commit that keeps them, once; a delay of another cause is not."""
    async with shard(tmp_path, owns=True) as there:
        there.brought(1, 2)
        assert len(there.leased(8)) == 2
        there.posted.clear()
        there.frontier.tune(host_of(ORIGIN), delay=0.0, cause=ORIGIN)
        assert there.posted == []
        there.news = RULES
        there.frontier.tune(host_of(ORIGIN), delay=0.0, cause=ORIGIN)
        assert there.posted == [("facts", RULES)]


@in_loop
async def test_a_chunk_is_sent_when_it_is_durable(tmp_path: Path) -> None:
    """Not before, also to a shard that comes up while the commit is under way: a kill would leave its number to another."""
    async with shard(tmp_path, owns=True) as there:
        other = 1 - there.index
        links = [Request(f"{ORIGIN}/{number}") for number in range(20)]
        there.frontier.settle(Settlement(None, [link for link in links if there.split.home(link) == other]))
        commit = asyncio.ensure_future(there.frontier.commit(Checkpoint()))
        await asyncio.sleep(0)
        assert not commit.done()
        there.frontier.came_up(other)
        assert kinds(there.posted) == []
        await commit
        assert kinds(there.posted) == ["chunk"]
        there.frontier.came_up(other)
        assert kinds(there.posted) == ["chunk", "chunk"]


@in_loop
async def test_what_was_given_back_can_be_passed_on(tmp_path: Path) -> None:
    """A request that waits for its turn a second time counts as waiting, and goes to a shard that has room."""
    async with shard(tmp_path, owns=True) as there:
        there.frontier.learn(RULES)
        there.brought(1, 2, 3, 4, 5)
        leases = there.leased(8)
        assert (len(leases), there.frontier.waiting) == (SLOTS, 1)
        for lease in leases[:2]:  # as the gate does with what has waited for robots.txt
            there.frontier.release(lease, NOW)
            there.frontier.requeue(lease)
        assert there.frontier.waiting == 3
        other = 1 - there.index
        there.frontier.give(other, 10)
        posted = await there.sent()
        assert ("gave", other, 3) in posted
        assert kinds(posted) == ["chunk"]
        assert there.frontier.waiting == 0
        assert there.leased(8) == []
        there.frontier.confirmed(other, 1)
        counts = there.frontier.counts
        assert (counts.seeded, counts.done, counts.pending) == (
            3,
            0,
            3,
        )  # one more than there are until the run is over


@in_loop
async def test_half_of_what_waits_is_passed_on(tmp_path: Path) -> None:
    """Of what waits when it is asked for, whatever was known elsewhere: neither shard is to stand idle."""
    async with shard(tmp_path, owns=True) as there:
        there.frontier.learn(RULES)
        there.brought(*range(20))
        assert len(there.leased(8)) == SLOTS
        waiting = there.frontier.waiting
        there.frontier.give(1 - there.index, 1)
        assert there.frontier.waiting == waiting - waiting // 2


@in_loop
async def test_links_for_others_go_soon_where_there_is_little_to_do(tmp_path: Path) -> None:
    """With free slots here, the other shard may well have some too; with none, the links wait for the next commit."""
    async with shard(tmp_path, owns=True) as there:
        there.frontier.learn(RULES)
        links = [Request(f"{ORIGIN}/{number}") for number in range(100)]
        own, others = (
            [link for link in links if there.split.home(link) == each] for each in (there.index, 1 - there.index)
        )
        there.frontier.settle(Settlement(None, own[:5]))
        assert there.hurries == 0
        leases = there.leased(SLOTS)
        there.frontier.settle(Settlement(None, others[:5]))
        assert (len(leases), there.hurries) == (SLOTS, 0)
        for lease in leases:
            there.frontier.release(lease, NOW)
            there.frontier.settle(Settlement(lease))
        assert (len(there.leased(SLOTS)), there.hurries) == (1, 1)
        await there.sent()
        there.frontier.settle(Settlement(None, own[5:6]))
        assert (len(there.leased(SLOTS)), there.hurries) == (1, 1)
        there.frontier.settle(Settlement(None, others[5:6]))
        assert (len(there.leased(SLOTS)), there.hurries) == (0, 2)
        there.frontier.give(1 - there.index, 1)
        assert there.hurries == 3


@in_loop
async def test_a_commit_says_what_was_taken_when_it_began(tmp_path: Path) -> None:
    """A chunk that comes while it is being written is not noted as taken before its links are there: it comes again."""
    came = threading.Event()
    request = Request(f"{ORIGIN}/1")
    chunk = msgspec.msgpack.encode(([request.fingerprint, codec.encode(request)], []))
    async with shard(tmp_path, owns=True) as there:
        before = there.frontier._own._in_thread(came.wait, 10.0)  # the file's thread is busy so long
        commit = asyncio.ensure_future(there.frontier.commit(Checkpoint()))
        await asyncio.sleep(0)
        there.frontier.arrived(1 - there.index, 1, chunk)
        came.set()
        assert await before
        await commit
    again = Shard(tmp_path, there.index)
    await again.frontier.open(again.woken.set)
    again.frontier.arrived(1 - there.index, 1, chunk)
    assert paths(again.leased(8)) == ["/1"]
    await again.frontier.close()


@in_loop
async def test_the_links_of_an_earlier_version_are_refused(tmp_path: Path) -> None:
    """A run that it left unfinished ends with a line that says so, and loses nothing."""
    left = SqliteFrontier(Hosts(SLOTS, 0.0), "breadth", lambda: NOW, path=tmp_path / "0.db")
    await left.open(lambda: None)
    await left.commit(Checkpoint(state={"outbox.1.7": (1, b"")}))
    await left.close()
    there = Shard(tmp_path, 0)
    with pytest.raises(UsageError, match="earlier version"):
        await there.frontier.open(there.woken.set)
    await there.frontier.close()


@in_loop
async def test_the_end_is_told_soon(tmp_path: Path) -> None:
    """Once nothing is left to do, the others do not wait for the next commit to hear of it; and once told, that is all."""
    async with shard(tmp_path, owns=True) as there:
        there.frontier.learn(RULES)
        own = [link for link in (Request(f"{ORIGIN}/{n}") for n in range(9)) if there.split.home(link) == there.index]
        there.frontier.settle(Settlement(None, own[:1], start_over=True))
        (lease,) = there.leased(SLOTS)
        assert (len(there.leased(SLOTS)), there.hurries) == (0, 0)
        there.frontier.release(lease, NOW)
        there.frontier.settle(Settlement(lease))
        assert (len(there.leased(SLOTS)), there.hurries) == (0, 1)
        await there.sent()
        assert (len(there.leased(SLOTS)), there.hurries) == (0, 1)


@in_loop
async def test_what_comes_from_another_shard_is_known(tmp_path: Path) -> None:
    """A link that both meet is taken in once, whoever is first; what is to be fetched anyway, each time."""
    async with shard(tmp_path, owns=True) as one, shard(tmp_path, owns=False) as two:
        links = [Request(f"{ORIGIN}/{number}", meta={"n": number}) for number in range(30)]
        *links, new = [link for link in links if one.split.home(link) == one.index][:7]
        again = links[5].replace(dont_filter=True)
        one.frontier.settle(Settlement(None, links[:3]))
        for number, sent in enumerate((links[1:5], links[1:5], [again], [again]), 1):
            two.frontier.settle(Settlement(None, sent))
            chunks = [message for message in await two.sent() if message[0] == "chunk"]
            assert len(chunks) == (number != 2)  # the second time it is known here that they were sent
            for _, _, place, chunk in chunks:
                one.frontier.arrived(two.index, place, chunk)
        assert two.frontier.unseen([link.url for link in (*links, new)]) == [links[0].url, new.url]
        assert one.frontier.unseen([link.url for link in (*links, new)]) == [new.url]
        one.frontier.settle(Settlement(None, links[3:5]))
        counts = one.frontier.counts
        assert (counts.seeded - 1, counts.pending - 1) == (7, 7)  # 5 links, and one of them twice
        assert counts.filtered == 2 + 6 + 2
        await one.frontier.commit(Checkpoint())
        one.frontier.learn(RULES)
        found: list[Lease] = []
        while leases := one.leased(SLOTS):
            found += leases
            for lease in leases:
                one.frontier.release(lease, NOW)
        assert paths(found) == sorted(link.url.removeprefix(ORIGIN) for link in [*links[:5], again, again])
        assert all(lease.request.url.endswith(f"/{lease.request.meta['n']}") for lease in found)


@in_loop
async def test_start_hosts_are_told_before_their_pages_go(tmp_path: Path) -> None:
    """What a callback of theirs awaits of another shard may be on a private address that a start URL names."""
    async with shard(tmp_path, owns=False) as there:
        there.news = {"seed:127.0.0.1": True}
        there.frontier.settle(Settlement(None, [Request(ORIGIN)], starts=1))
        assert ("facts", there.news) in there.posted
        there.frontier.requeue(Lease(Request(ORIGIN), waiter=asyncio.get_running_loop().create_future()))
        assert [kind for kind, *_ in there.posted][-2:] == ["facts", "fetch"]


@in_loop
async def test_what_another_shard_is_to_fetch(tmp_path: Path) -> None:
    """It gets what the fetch needs, and of ``meta`` what can be sent; where that is not possible its callback hears of it."""
    async with shard(tmp_path, owns=False) as there:
        request = Request(ORIGIN, print, meta={"cookiejar": "a", "o": object()}, cb_kwargs={"o": object()})
        waiter = asyncio.get_running_loop().create_future()
        there.frontier.requeue(Lease(request, waiter=waiter))
        (_, _, _, data) = there.posted[-1]
        found = codec.decode(data)
        assert (found.url, found.callback, found.meta, found.cb_kwargs) == (request.url, None, {"cookiejar": "a"}, {})
        assert (request.callback, request.meta.keys()) == (print, {"cookiejar", "o"})
        request.proxy = "http://\udce9"
        there.frontier.requeue(Lease(request, waiter=waiter))
        with pytest.raises(RequestError, match="cannot be sent to another shard"):
            await waiter


@in_loop
async def test_what_a_callback_awaits_needs_no_page_of_the_limit(tmp_path: Path) -> None:
    """It goes before the pages, with none to spare too; then only its host's time is waited for, though pages could go."""
    async with shard(tmp_path, owns=True, limits_pages=True) as there:
        there.frontier.learn(RULES)
        there.brought(1, 2, 3)
        host, waiter = "127.0.0.1:9", asyncio.get_running_loop().create_future()
        there.frontier.tune(host, not_before=NOW + 0.5)
        there.frontier.requeue(Lease(Request(f"http://{host}/"), "a key", waiter))
        assert there.leased(8) == []
        assert there.frontier.next_ready(NOW) == NOW + 0.5
        there.frontier.requeue(Lease(Request(f"{ORIGIN}/awaited"), "a key", waiter))
        there.frontier.grant(1)
        assert paths(there.leased(8)) == ["/1", "/awaited"]
