"""The limits of a run: each one ends it in good order, exactly where it says, with counts that add up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp import web
from conftest import Crawls
from servers import Answer, Site, in_loop, links, never

from scraper import CloseSpider, Failure, Request, Response, Spider
from scraper.crawler import Crawler


def wide(request: web.BaseRequest) -> Answer:
    """A page that links to ten pages below it, without end."""
    return links(f"{request.path.rstrip('/')}/{number}" for number in range(10))


class Wide(Spider):
    """Follows every link; yields two items a page."""

    name = "wide"

    def parse(self, response: Response) -> Iterator[Any]:
        yield {"url": response.url}
        yield {"url": response.url}
        yield from response.follow_all(css="a")


def spider_at(url: str, **attributes: Any) -> type[Spider]:
    """Return a Wide spider that starts at the URL."""
    return type("WideAt", (Wide,), {"start_urls": [url], **attributes})


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("limit", [1, 7, 30])
@in_loop
async def test_max_pages_is_exact(crawled: Crawls, limit: int, concurrency: int) -> None:
    """No page more is asked for or delivered, whatever is in flight."""
    async with Site({"*": wide}) as site:
        result = await crawled(spider_at(site.url()), {"crawl.max_pages": limit, "crawl.concurrency": concurrency})
    assert (result.reason, result.stats["pages"], len(result.items)) == ("max_pages", limit, 2 * limit)
    assert len(site.asked) == limit
    assert (result.stats["done"], result.broken) == (limit, False)
    assert result.stats["pending"] > 0


@in_loop
async def test_max_pages_counts_pages_not_tries(crawled: Crawls) -> None:
    """Failed requests take nothing from max_pages; a crawl with fewer pages just finishes."""

    def every_other(request: web.BaseRequest) -> Answer:
        return 404 if int(request.path[1:]) % 2 else "page"

    async with Site({"/": links(f"/{number}" for number in range(20)), "*": every_other}) as site:
        ended = await crawled(spider_at(site.url()), {"crawl.max_pages": 6})
        finished = await crawled(spider_at(site.url()), {"crawl.max_pages": 12})
    assert (ended.reason, ended.stats["pages"]) == ("max_pages", 6)
    assert (finished.reason, finished.stats["pages"], finished.stats["failed"]) == ("finished", 11, 10)


@in_loop
async def test_max_pages_holds_over_hosts_whose_robots_are_asked(crawled: Crawls) -> None:
    """Requests that wait for robots.txt of several hosts do not slip past the limit."""
    async with Site({"*": "page"}) as a, Site({"*": "page"}) as b, Site({"*": "page"}) as c:
        sites = (a, b, c)
        spider = type("Three", (Wide,), {"start_urls": [site.url() for site in sites]})
        result = await crawled(spider, {"crawl.max_pages": 2})
    assert sum(len(site.asked) for site in sites) == 2
    assert (result.stats["pages"], result.stats["pending"]) == (2, 1)


@in_loop
async def test_max_pages_while_a_robots_never_comes(crawled: Crawls) -> None:
    """Requests that wait for it leave the whole limit to other hosts."""
    async with Site({"*": "page"}, robots=never) as silent, Site({"*": wide}) as other:
        urls = [*(silent.url(f"/{number}") for number in range(8)), other.url()]
        result = await crawled(type("Both", (Wide,), {"start_urls": urls}), {"crawl.max_pages": 8})
    assert (result.reason, len(other.asked), result.stats["pages"]) == ("max_pages", 8, 8)


@in_loop
async def test_fetches_of_a_callback_pass_max_pages(crawled: Crawls) -> None:
    """The last pages a limit leaves room for do not hold up what callbacks await: all five fetches are out together."""
    together = asyncio.Barrier(5)

    async def part(request: web.BaseRequest) -> Answer:
        await together.wait()
        return "part"

    async with Site({"/": "page", "*": part}) as site:

        class Parts(Wide):
            start_urls = [site.url()]

            async def parse(self, response: Response) -> Any:
                parts = await asyncio.gather(*[self.fetch(site.url(f"/{n}")) for n in range(5)])
                return {"parts": len(parts)}

        result = await crawled(Parts, {"crawl.max_pages": 2})
    assert result.items == [{"parts": 5}]


@in_loop
async def test_max_items_begins_no_more_fetches(crawled: Crawls) -> None:
    """What is in flight is still taken; the items of a page are never cut."""
    async with Site({"*": wide}) as site:
        result = await crawled(spider_at(site.url()), {"crawl.max_items": 9, "crawl.concurrency": 4})
    assert result.reason == "max_items"
    assert result.stats["items"] == len(result.items) == 2 * len(site.asked)
    assert 9 <= len(result.items) <= 9 + 2 * 4


@in_loop
async def test_max_errors_ends_the_run(crawled: Crawls) -> None:
    """Failures and exceptions count towards it; the pages in flight are still taken."""

    class Broken(Wide):
        def parse(self, response: Response) -> Any:
            yield from response.follow_all(css="a")
            raise ValueError("no")

    async with Site({"*": wide}) as site:
        Broken.start_urls = [site.url()]
        result = await crawled(Broken, {"crawl.max_errors": 5, "crawl.concurrency": 2})
    assert result.reason == "max_errors"
    assert 5 <= result.stats["errors"] <= 6
    assert result.stats["failed"] == result.stats["errors"] == len(site.asked)


@in_loop
async def test_max_seconds_drains_what_is_in_flight(crawled: Crawls) -> None:
    """When the time is over, the page under way is still delivered, and nothing is begun."""
    over = asyncio.Event()

    async def slow(request: web.BaseRequest) -> Answer:
        await over.wait()
        return wide(request)

    async with Site({"*": slow}) as site:
        crawler = crawled.make(spider_at(site.url()), {"crawl.max_seconds": 0.1})
        run = asyncio.ensure_future(crawled(crawler))
        await site.was_asked(1, run)
        asyncio.get_running_loop().call_later(0.15, over.set)
        result = await run
    assert (result.reason, result.stats["pages"], len(site.asked)) == ("max_seconds", 1, 1)


@pytest.mark.parametrize("depth", [1, 2])
@in_loop
async def test_max_depth_bounds_the_links_followed(crawled: Crawls, depth: int) -> None:
    """Start requests have depth 0; a redirect adds none."""
    pages = {"/": links(["/a"]), "/a": links(["/a/b"]), "/a/b": links(["/a/b/c"]), "*": "leaf"}
    async with Site(pages) as site:

        class Deep(Spider):
            name = "deep"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                yield {"path": response.url[len(site.url("")) :], "depth": response.request.depth}
                yield from response.follow_all(css="a")

        result = await crawled(Deep, {"crawl.max_depth": depth})
    found = [{"path": "/", "depth": 0}, {"path": "/a", "depth": 1}, {"path": "/a/b", "depth": 2}]
    assert result.items == found[: depth + 1]
    assert (result.reason, result.stats["out_of_scope"]) == ("finished", 1)


@in_loop
async def test_links_refused_on_one_page_are_followed_from_another(crawled: Crawls) -> None:
    """What lies too deep from one page, and was left alone there, is not taken for seen where another page leads to it."""
    leaves = ["/x", "/y", "/z"]
    async with Site({"/": links(["/deep"]), "/deep": links(leaves), "/late": links(leaves), "*": "leaf"}) as site:
        refused = asyncio.Event()

        class Deep(Spider):
            name = "deep"

            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url())
                await refused.wait()
                yield Request(site.url("/late"))

            def parse(self, response: Response) -> Any:
                yield from response.follow_all(css="a")
                if response.url.endswith("/deep"):
                    refused.set()

        result = await crawled(Deep, {"crawl.max_depth": 1})
    assert sorted(asked.path for asked in site.asked) == sorted(["/", "/deep", "/late", *leaves])
    assert (result.reason, result.stats["out_of_scope"]) == ("finished", 3)


class Held:
    """Pages that answer when they are let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, request: web.BaseRequest) -> Answer:
        await self.gate.wait()
        return wide(request)


async def with_four_in_flight(crawled: Crawls, site: Site, spider: Any) -> tuple[Crawler, asyncio.Future[Any]]:
    """Start a crawl and wait until four requests are at the server."""
    crawler = crawled.make(spider, {"crawl.concurrency": 4})
    run = asyncio.ensure_future(crawled(crawler))
    await site.was_asked(4, run)
    return crawler, run


class Many(Wide):
    """Has more start requests than are in flight at a time."""

    def __init__(self, base: str) -> None:
        self.base = base

    async def start(self) -> AsyncIterator[Request]:
        for number in range(10):
            yield Request(f"{self.base}/{number}")


@in_loop
async def test_stop_drains_what_is_in_flight(crawled: Crawls) -> None:
    """The four pages at the server are delivered with their items, their links stay pending, nothing is begun."""
    held = Held()
    async with Site({"*": held}) as site:
        crawler, run = await with_four_in_flight(crawled, site, Many(site.url("")))
        crawler.stop("enough")
        crawler.stop("a second reason")
        assert crawler.in_flight == 4
        held.gate.set()
        result = await run
    assert (result.reason, result.stats["pages"], len(result.items), len(site.asked)) == ("enough", 4, 8, 4)
    assert result.stats["done"] == 4
    assert result.stats["pending"] >= 40
    assert not result.broken


@in_loop
async def test_kill_ends_at_once(crawled: Crawls) -> None:
    """What is under way is given up and stays pending; the server need not answer."""
    async with Site({"*": never}) as site:
        crawler, run = await with_four_in_flight(crawled, site, Many(site.url("")))
        crawler.kill()
        result = await run
    assert (result.reason, result.stats["pages"], result.stats["done"], result.stats["failed"]) == ("killed", 0, 0, 0)
    assert result.stats["pending"] == result.stats["seeded"] > 0
    assert crawler.in_flight == 0


@in_loop
async def test_kill_gives_up_callbacks_too(crawled: Crawls) -> None:
    """Coroutines that wait and generators that never end are given up; a coroutine's finally still runs."""
    started, cleaned = asyncio.Event(), []

    async with Site({"*": "page"}) as site:

        class Endless(Spider):
            name = "endless"
            turns = 0

            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url("/generator"), self.turning)
                yield Request(site.url("/coroutine"), self.waiting)

            def turning(self, response: Response) -> Any:
                while True:
                    self.turns += 1
                    yield None

            async def waiting(self, response: Response) -> Any:
                try:
                    started.set()
                    await asyncio.Event().wait()
                finally:
                    cleaned.append(True)

        spider = Endless()
        crawler = crawled.make(spider)
        run = asyncio.ensure_future(crawled(crawler))
        await started.wait()
        crawler.kill()
        result = await run
        turns = spider.turns
        for _ in range(10):
            await asyncio.sleep(0)
        assert spider.turns == turns, "nobody drives the generator any more"
    assert cleaned == [True]
    assert (result.reason, result.stats["pending"]) == ("killed", 2)


@in_loop
async def test_kill_before_the_first_request(crawled: Crawls) -> None:
    """A run killed while it opens ends as well, having asked for nothing."""
    async with Site({"*": "page"}) as site:

        class Early(Wide):
            start_urls = [site.url()]

            async def opened(self) -> None:
                crawler.kill()

        crawler = crawled.make(Early)
        result = await crawled(crawler)
    assert (result.reason, site.paths) == ("killed", [])


@in_loop
async def test_stopping_while_requests_wait_for_robots(crawled: Crawls) -> None:
    """A robots.txt that comes after the stop sends no page on its way."""
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def robots(request: web.BaseRequest) -> Answer:
        arrived.set()
        await gate.wait()
        return 404

    held = Held()
    async with Site({"*": "page"}, robots=robots) as site, Site({"*": held}) as other:
        crawler = crawled.make(type("Both", (Wide,), {"start_urls": [other.url(), site.url()]}))
        run = asyncio.ensure_future(crawled(crawler))
        await arrived.wait()
        await other.was_asked(1, run)
        crawler.stop("enough")
        gate.set()
        for _ in range(500):
            await asyncio.sleep(0)
        held.gate.set()
        result = await run
    assert (result.reason, site.paths, len(other.asked)) == ("enough", [], 1)
    assert result.stats["done"] == 1


@in_loop
async def test_a_stopped_run_waits_for_no_robots(crawled: Crawls) -> None:
    """A robots.txt that never comes does not hold up the end."""
    arrived = asyncio.Event()

    async def robots(request: web.BaseRequest) -> Answer:
        arrived.set()
        return await never(request)

    async def page(request: web.BaseRequest) -> Answer:
        await arrived.wait()
        return "page"

    async with Site({"*": "page"}, robots=robots) as silent, Site({"*": page}) as other:

        class Both(Wide):
            start_urls = [silent.url(), other.url()]

            def parse(self, response: Response) -> Any:
                raise CloseSpider("enough")

        result = await crawled(Both)
    assert (result.reason, result.stats["done"], result.stats["pending"]) == ("enough", 1, 1)


@in_loop
async def test_a_stop_from_an_errback_is_heard(crawled: Crawls) -> None:
    """A spider may end the run from wherever its code runs."""
    async with Site({}) as site:

        class Careful(Wide):
            async def start(self) -> AsyncIterator[Request]:
                for number in range(100):
                    yield Request(site.url(f"/{number}"), errback=self.failed)

            def failed(self, failure: Failure) -> None:
                crawler.stop("the site is gone")

        crawler = crawled.make(Careful(), {"crawl.concurrency": 2})
        result = await crawled(crawler)
    assert result.reason == "the site is gone"
    assert len(site.asked) <= 2


@in_loop
async def test_closed_is_told_the_reason(crawled: Crawls) -> None:
    """opened() comes before the first request, closed() after the last item."""
    async with Site({"*": wide}) as site:

        class Noting(Wide):
            start_urls = [site.url()]
            notes: list[Any] = []

            async def opened(self) -> None:
                self.notes.append(("opened", len(site.asked)))

            async def closed(self, reason: str) -> None:
                self.notes.append((reason, self.stats.items))

        await crawled(Noting, {"crawl.max_pages": 3})
    assert Noting.notes == [("opened", 0), ("max_pages", 6)]
