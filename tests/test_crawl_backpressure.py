"""Nothing piles up: slow pipelines, huge pages, slow consumers and callbacks without end hold the crawl back."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import Crawls, Kept
from servers import Site, in_loop, links

from scraper import Request, Response, Spider, crawl
from scraper.crawler import Output


async def stillness() -> None:
    """Let the loop turn until whatever could still happen by itself has happened."""
    for _ in range(500):
        await asyncio.sleep(0)


class Gate:
    """A pipeline that holds every item until the gate is opened."""

    gate: ClassVar[asyncio.Event]
    inside: ClassVar[int]
    most: ClassVar[int]
    ten: ClassVar[asyncio.Event]
    """Set when ten items are inside."""

    @classmethod
    def shut(cls) -> None:
        """Begin anew, with the gate shut."""
        cls.gate, cls.ten, cls.inside, cls.most = asyncio.Event(), asyncio.Event(), 0, 0

    async def process_item(self, item: Any, spider: Any) -> Any:
        """Wait for the gate."""
        cls = type(self)
        cls.inside += 1
        cls.most = max(cls.most, cls.inside)
        if cls.inside == 10:
            cls.ten.set()
        await cls.gate.wait()
        cls.inside -= 1
        return item


class Numbered(Spider):
    """Yields an item for each of many pages."""

    name = "numbered"
    pages = 300

    def __init__(self, base: str) -> None:
        self.base = base

    async def start(self) -> AsyncIterator[Request]:
        for number in range(self.pages):
            yield Request(f"{self.base}/{number}")

    def parse(self, response: Response) -> Any:
        return {"number": int(response.url.rpartition("/")[2])}


@pytest.mark.parametrize(("concurrency", "room"), [(4, 8), (16, 1), (2, 100)])
@in_loop
async def test_a_slow_pipeline_holds_the_fetches_back(crawled: Crawls, concurrency: int, room: int) -> None:
    """While the pipeline takes nothing, pages come in only as far as there is room; afterwards all come, and none is lost."""
    Gate.shut()
    settings = {
        "crawl.concurrency": concurrency,
        "politeness.concurrency_per_host": concurrency,
        "items.concurrency": room,
        "pipelines": [{"use": f"{__name__}:Gate"}],
    }
    async with Site({"*": "page"}) as site:
        run = asyncio.ensure_future(crawled(Numbered(site.url("")), settings))
        await site.was_asked(min(room, concurrency), run)
        await stillness()
        assert len(site.asked) <= min(room + concurrency, 2 * concurrency)
        Gate.gate.set()
        result = await run
    assert sorted(item["number"] for item in result.items) == list(range(300))
    assert Gate.most <= room + concurrency
    assert (result.stats["items"], result.stats["done"], result.broken) == (300, 300, False)


class Huge(Spider):
    """Yields very many items for a page, in one of three ways."""

    name = "huge"
    many = 200_000
    text = "some words"

    def generator(self, response: Response) -> Any:
        for number in range(self.many):
            yield {"number": number, "text": self.text}

    async def async_generator(self, response: Response) -> Any:
        for item in self.generator(response):
            yield item

    async def coroutine(self, response: Response) -> Any:
        return self.generator(response)


@pytest.mark.parametrize("kind", ["generator", "async_generator", "coroutine"])
@in_loop
async def test_a_page_of_very_many_items_goes_to_file(crawled: Crawls, empty_folder: Path, kind: str) -> None:
    """Two hundred thousand items of one page arrive each once and in order."""
    kept = Forgetful()
    async with Site({"*": "page"}) as site:
        spider = type("Page", (Huge,), {"start_urls": [site.url()], "parse": getattr(Huge, kind)})
        result = await crawled(spider, kept=kept, outputs=[Output("huge.jsonl")])
    with (empty_folder / "huge.jsonl").open() as file:
        assert all(line == f'{{"number":{n},"text":"some words"}}\n' for n, line in enumerate(file))
    assert (result.stats["items"], kept.count) == (Huge.many, Huge.many)


@in_loop
async def test_a_page_of_very_many_items_takes_little_memory(crawled: Crawls, empty_folder: Path) -> None:
    """Items that make 60 MB of output never take more than a few MB while their page is under way."""
    async with Site({"*": "page"}) as site:
        attributes = {"start_urls": [site.url()], "parse": Huge.generator, "many": 30_000, "text": "x" * 2000}
        crawler = crawled.make(type("Page", (Huge,), attributes), kept=Forgetful(), outputs=[Output("huge.jsonl")])
        gc.collect()
        tracemalloc.start()
        try:
            await crawled(crawler)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (empty_folder / "huge.jsonl").stat().st_size > 60_000_000
    assert peak < 16_000_000


class Forgetful(Kept):
    """A listener that only counts."""

    count = 0

    def put(self, item: Any) -> None:
        """Count one item."""
        self.count += 1


@in_loop
async def test_one_item_at_the_front_does_not_block_those_behind(crawled: Crawls) -> None:
    """Items of one page pass a slow one; all of them are counted when the page is settled."""
    Gate.shut()

    class Pages(Spider):
        name = "pages"

        def parse(self, response: Response) -> Any:
            for number in range(50):
                yield {"number": number}

    async with Site({"*": "page"}) as site:
        Pages.start_urls = [site.url()]
        crawler = crawled.make(Pages, {"pipelines": [{"use": f"{__name__}:Gate"}], "items.concurrency": 10})
        run = asyncio.ensure_future(crawled(crawler))
        await site.was_asked(1, run)
        await Gate.ten.wait()
        await stillness()
        assert Gate.inside == 10, "no eleventh item is begun"
        Gate.gate.set()
        result = await run
    assert len(result.items) == result.stats["items"] == 50


@in_loop
async def test_pages_larger_than_all_buffers_are_crawled(crawled: Crawls) -> None:
    """Responses that fill the buffer by themselves hold back new fetches, never their own callbacks."""
    async with Site({"/": links(f"/{n}" for n in range(20)), "*": "x" * 100_000}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                yield from response.follow_all(css="a", callback=self.page)

            async def page(self, response: Response) -> Any:
                yield {"part": 1}
                await self.fetch(response.url + "/more")
                yield {"part": 2}

        result = await crawled(Pages, {"items.max_buffer": 10})
    assert len(result.items) == 40


@in_loop
async def test_a_slow_consumer_slows_the_crawl(empty_folder: Path) -> None:
    """While nobody takes items from crawl(), no more pages are fetched than can wait; then all items come."""
    async with Site({"*": "page"}) as site:
        spider = type("Slow", (Numbered,), {"__init__": Spider.__init__, "base": site.url(""), "pages": 1000})
        items = crawl(spider, settings={"crawl.concurrency": 4})
        found = [(await anext(items))["number"]]
        await site.was_asked(100, asyncio.get_running_loop().create_future())
        await stillness()
        assert len(site.asked) <= 100 + 1 + 2 * 4
        found += [item["number"] async for item in items]
    assert sorted(found) == list(range(1000))


@in_loop
async def test_leaving_the_loop_ends_the_crawl(empty_folder: Path) -> None:
    """After a break no request is begun, and no task is left behind."""
    async with Site({"*": "page"}) as site:
        spider = type("Left", (Numbered,), {"__init__": Spider.__init__, "base": site.url(""), "pages": 1000})
        items = crawl(spider, settings={"crawl.concurrency": 4})
        async for _ in items:
            break
        await items.aclose()
        asked = len(site.asked)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "scraper/" in str(task)]
        await stillness()
        assert len(site.asked) <= asked + 4, "those on their way may still arrive"
    assert asked < 1000


@in_loop
async def test_cancelling_the_consumer_ends_the_crawl(empty_folder: Path) -> None:
    """A cancelled task that iterates over crawl() takes the crawl with it."""
    async with Site({"*": "page"}) as site:
        spider = type("Left", (Numbered,), {"__init__": Spider.__init__, "base": site.url(""), "pages": 10**9})
        closed = []

        async def note(self: Any, reason: str) -> None:
            closed.append(reason)

        spider.closed = note

        async def consume() -> None:
            async for _ in crawl(spider):
                pass

        task = asyncio.ensure_future(consume())
        await site.was_asked(50, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert closed == ["killed"]


@pytest.mark.parametrize("kind", ["generator", "async generator"])
@in_loop
async def test_a_callback_without_end_does_not_starve_the_fetches(crawled: Crawls, kind: str) -> None:
    """While one page yields for ever, others are fetched, and their items come through."""
    async with Site({"*": "page"}) as site:

        class Endless(Spider):
            name = "endless"
            done = 0
            turns = 0

            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url("/endless"), self.endless if kind == "generator" else self.async_endless)
                for number in range(20):
                    yield Request(site.url(f"/{number}"))

            def endless(self, response: Response) -> Any:
                while self.done < 20:
                    self.turns += 1
                    assert self.turns < 10_000_000, "nobody else had a turn"
                    yield None
                yield {"ended": True}

            async def async_endless(self, response: Response) -> Any:
                for value in self.endless(response):
                    yield value

            def parse(self, response: Response) -> Any:
                self.done += 1

        result = await crawled(Endless(), {"crawl.concurrency": 4})
    assert result.items == [{"ended": True}]
    assert result.stats["done"] == 21


@in_loop
async def test_killed_in_the_middle_of_a_huge_page(crawled: Crawls, empty_folder: Path) -> None:
    """The records of a page that is given up are thrown away, their temporary files closed."""

    async def crawl_and_kill() -> dict[str, Any]:
        class Killing(Huge):
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                for item in self.generator(response):
                    yield item
                    if item["number"] == 100_000:
                        crawler.kill()

        crawler = Crawls().make(Killing, kept=Forgetful(), outputs=[Output("huge.jsonl")])
        return (await crawler.run()).stats

    async with Site({"*": "page"}) as site:
        stats = await crawl_and_kill()
    gc.collect()  # a file left open would warn now, and a warning is an error
    assert (empty_folder / "huge.jsonl").read_bytes() == b""
    assert (stats["done"], stats["pending"]) == (0, 1)


@in_loop
async def test_a_page_of_many_links_is_taken_whole(crawled: Crawls) -> None:
    """Fifty thousand links of one page are all taken in, each once."""

    class Links(Spider):
        name = "links"

        def parse(self, response: Response) -> Any:
            for number in range(50_000):
                yield Request(f"{response.url}{number % 25_000}")

    async with Site({"*": "page"}) as site:
        Links.start_urls = [site.url()]
        result = await crawled(Links, {"crawl.max_pages": 1})
    assert (result.stats["seeded"], result.stats["filtered"]) == (25_001, 25_000)
    assert sys.getsizeof(result.items) < 1000
