"""Whole crawls against real servers: callbacks, failures, redirects, retries, cookies, addresses, bodies."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import brotli
import pytest
from aiohttp import web
from conftest import Crawls
from servers import RawServer, Site, in_loop, in_turn, links, never, redirect

from scraper import CloseSpider, Failure, FetchError, HttpError, Request, Response, Spider
from scraper.crawler import Output
from scraper.errors import PrivateAddress, RequestError, SpiderError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ONCE = {"download.retries": 0}
ONE_BY_ONE = {"crawl.concurrency": 1, "politeness.robots": False}


class Visit(Spider):
    """Yields the path of each page it gets, and follows its links."""

    name = "visit"

    def parse(self, response: Response) -> Iterator[Any]:
        yield {"path": response.url.partition("//")[2].partition("/")[2]}
        yield from response.follow_all(css="a")


def visit(*urls: str) -> type[Spider]:
    """Return a Visit spider that starts at the URLs."""
    return type("Visit", (Visit,), {"start_urls": list(urls)})


class Failing(Spider):
    """Notes what its errback gets."""

    name = "failing"

    def __init__(self, urls: list[str]) -> None:
        self.start_urls = urls
        self.failures: list[Failure] = []

    async def start(self) -> AsyncIterator[Request]:
        for url in self.start_urls:
            yield Request(url, errback=self.failed)

    def parse(self, response: Response) -> Any:
        raise ValueError("the callback is broken")

    def failed(self, failure: Failure) -> Any:
        self.failures.append(failure)
        return {"failed": failure.request.url}

    @property
    def errors(self) -> list[str]:
        """The names of the errors' classes."""
        return [type(failure.error).__name__ for failure in self.failures]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def plain(self: Any, response: Response) -> Any:
    return [{"page": 1}, response.follow("/next", self.last)]


def generator(self: Any, response: Response) -> Any:
    yield {"page": 1}
    yield response.follow("/next", self.last)


async def coroutine(self: Any, response: Response) -> Any:
    await asyncio.sleep(0)
    return ({"page": 1}, response.follow("/next", self.last))


async def async_generator(self: Any, response: Response) -> Any:
    yield {"page": 1}
    await asyncio.sleep(0)
    yield response.follow("/next", self.last)


@pytest.mark.parametrize("parse", [plain, generator, coroutine, async_generator])
@in_loop
async def test_callbacks_of_all_four_kinds_give_items_and_requests(crawled: Crawls, parse: Any) -> None:
    """A plain function, a generator, a coroutine and an async generator do the same."""

    class Pages(Spider):
        name = "pages"

        def last(self, response: Response) -> Any:
            return {"page": 2}

    Pages.parse = parse  # type: ignore[method-assign]
    async with Site({"/": "first", "/next": "second"}) as site:
        Pages.start_urls = [site.url()]
        result = await crawled(Pages)
    assert result.items == [{"page": 1}, {"page": 2}]
    assert (result.reason, result.broken, result.stats["done"]) == ("finished", False, 2)


@pytest.mark.parametrize("gives", [None, [], {"page": 1}, ()])
@in_loop
async def test_a_callback_may_give_one_item_or_nothing(crawled: Crawls, gives: Any) -> None:
    """A single item needs no list around it, and nothing is nothing."""
    async with Site({"/": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                return gives

        result = await crawled(Pages)
    assert result.items == ([gives] if gives else [])
    assert not result.broken


@pytest.mark.parametrize("gives", ["text", 7, [b"bytes"], [["nested"]]])
@in_loop
async def test_a_callback_that_gives_what_is_no_item_is_an_error(crawled: Crawls, gives: Any) -> None:
    """Text, numbers and nested lists are refused, and the page counts as failed."""
    async with Site({"/": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                return gives

        result = await crawled(Pages)
    assert result.broken
    assert (result.stats["errors"], result.stats["failed"]) == (1, 1)
    assert result.stats["error_classes"] == {"TypeError": 1}


@in_loop
async def test_a_callback_that_raises_on_every_tenth_page(crawled: Crawls) -> None:
    """The pages that raise are counted and the run is broken; every other page gives all its items."""
    pages = [f"/{number}" for number in range(100)]
    async with Site({"/": links(pages), "*": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                yield from response.follow_all(css="a", callback=self.page)

            def page(self, response: Response) -> Any:
                number = int(response.url.rpartition("/")[2])
                yield {"number": number, "part": 1}
                if number % 10 == 0:
                    raise ValueError(number)
                yield {"number": number, "part": 2}

        result = await crawled(Pages)
    whole = {number for number in range(100) if number % 10}
    assert {item["number"] for item in result.items if item["part"] == 2} == whole
    assert sum(item["part"] == 1 for item in result.items) == 100
    stats = result.stats
    assert (stats["errors"], stats["failed"], stats["done"], stats["items"]) == (10, 10, 91, 190)
    assert result.broken
    assert result.reason == "finished"


@in_loop
async def test_a_callback_that_is_cancelled_from_within_is_an_error(crawled: Crawls) -> None:
    """A CancelledError that nobody outside asked for does not leave the page open for ever."""
    async with Site({"*": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url("/1"), site.url("/2")]

            async def parse(self, response: Response) -> Any:
                task = asyncio.ensure_future(asyncio.Event().wait())
                task.cancel()
                await task

        result = await crawled(Pages)
    assert (result.stats["errors"], result.stats["failed"], result.broken) == (2, 2, True)


# -- failures ----------------------------------------------------------------------------------------------------------


@in_loop
async def test_each_kind_of_failure_reaches_the_errback(crawled: Crawls) -> None:
    """A status, a dead server, a callback that raises: the errback gets the request, the error, and the response if any."""
    async with Site({"/missing": 404, "/page": "page"}) as site, Site({}) as dead:
        gone = dead.url("/gone")
        await dead.__aexit__()
        spider = Failing([site.url("/missing"), gone, site.url("/page")])
        result = await crawled(spider, ONCE | {"politeness.robots": False})
    found = {failure.request.url: failure for failure in spider.failures}
    missing, lost, broken = found[site.url("/missing")], found[gone], found[site.url("/page")]
    assert isinstance(missing.error, HttpError)
    assert missing.response is not None
    assert missing.response.status == missing.error.status == 404
    assert (type(lost.error).__name__, lost.response) == ("ConnectError", None)
    assert isinstance(broken.error, ValueError)
    assert len(result.items) == len(spider.failures) == 3
    assert result.stats["errors"] == 1, "what an errback takes is no error; the exception is one"
    assert result.stats["failed"] == 3
    assert result.broken


@in_loop
async def test_every_failure_reaches_its_errback_or_the_error_count(crawled: Crawls) -> None:
    """Of failed requests, those without an errback are errors, and none is lost or counted twice."""
    async with Site({"*": 404}) as site:

        class Pages(Spider):
            name = "pages"
            taken = 0

            async def start(self) -> AsyncIterator[Request]:
                for number in range(20):
                    yield Request(site.url(f"/{number}"), errback=self.failed if number % 2 else None)

            def failed(self, failure: Failure) -> None:
                self.taken += 1

        spider = Pages()
        result = await crawled(spider)
    assert (spider.taken, result.stats["errors"], result.stats["failed"]) == (10, 10, 20)
    assert result.stats["error_classes"] == {"HttpError": 20}
    assert result.broken, "start requests failed"


@in_loop
async def test_an_errback_that_raises_is_counted_once(crawled: Crawls) -> None:
    """An exception in an errback is an error, and the errback is not called for it again."""
    async with Site({}) as site:

        class Pages(Spider):
            name = "pages"
            calls = 0

            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url(), errback=self.failed)

            def failed(self, failure: Failure) -> None:
                self.calls += 1
                raise KeyError("errback")

        spider = Pages()
        result = await crawled(spider)
    assert (spider.calls, result.stats["errors"], result.stats["failed"]) == (1, 1, 1)


@in_loop
async def test_an_errback_may_try_another_page(crawled: Crawls) -> None:
    """What an errback yields is taken as from a callback; it may be a coroutine."""
    async with Site({"/mirror": "page"}) as site:

        class Pages(Visit):
            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url("/lost"), errback=self.failed)

            async def failed(self, failure: Failure) -> Any:
                await asyncio.sleep(0)
                return Request(site.url("/mirror"))

        result = await crawled(Pages)
    assert result.items == [{"path": "mirror"}]
    assert (result.stats["done"], result.stats["failed"]) == (1, 1)


@in_loop
async def test_wanted_statuses_go_to_the_callback(crawled: Crawls) -> None:
    """Statuses in handle_httpstatus_list are pages: not failed, not retried, not followed."""
    async with Site({"/404": 404, "/500": 500, "/302": redirect("/else"), "/403": 403}) as site:

        class Pages(Spider):
            name = "pages"
            handle_httpstatus_list = [404, 500, 302]
            start_urls = [site.url(path) for path in ("/404", "/500", "/302", "/403")]

            def parse(self, response: Response) -> Any:
                return {"status": response.status}

        result = await crawled(Pages)
    assert sorted(item["status"] for item in result.items) == [302, 404, 500]
    assert max(site.times.values()) == 1
    assert (result.stats["pages"], result.stats["errors"], result.stats["retries"]) == (3, 1, 0)


# -- ending from inside, and dropping ----------------------------------------------------------------------------------


@in_loop
async def test_close_spider_from_a_callback_ends_the_run(crawled: Crawls) -> None:
    """CloseSpider is no error; its text is the reason, and nothing more is fetched."""
    async with Site({"/": links(["/1", "/2", "/3"]), "*": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                yield {"page": 1}
                yield from response.follow_all(css="a")
                raise CloseSpider("seen enough")

        result = await crawled(Pages)
    assert (result.reason, result.broken, result.stats["errors"]) == ("seen enough", False, 0)
    assert (result.items, site.paths, result.stats["pending"]) == ([{"page": 1}], ["/"], 3)


PIPELINES = """
from scraper import CloseSpider, DropItem

class Choosy:
    def __init__(self, at):
        self.at = at
    def process_item(self, item, spider):
        if item["n"] == self.at:
            raise CloseSpider("found it")
        if item["n"] % 2:
            raise DropItem("odd")
        return item

class Later(Choosy):
    async def process_item(self, item, spider):
        return super().process_item(item, spider)

class Broken:
    def process_item(self, item, spider):
        if item["n"] % 2:
            raise ValueError("odd")
        return item

class Forgetful:
    def process_item(self, item, spider):
        pass
"""


@pytest.fixture
def pipelines(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Make a module of pipelines to import; return the settings that use one of its classes."""
    (empty_folder / "sieves.py").write_text(PIPELINES)
    monkeypatch.syspath_prepend(empty_folder)
    monkeypatch.delitem(sys.modules, "sieves", raising=False)
    return lambda name, **arguments: {"pipelines": [{"use": f"sieves:{name}", **arguments}]}


class Numbers(Spider):
    """Yields ten numbered items for each page."""

    name = "numbers"

    def parse(self, response: Response) -> Iterator[Any]:
        for n in range(10):
            yield {"n": n}


def numbers(*urls: str) -> type[Spider]:
    """Return a Numbers spider that starts at the URLs."""
    return type("Numbers", (Numbers,), {"start_urls": list(urls)})


@pytest.mark.parametrize("kind", ["Choosy", "Later"])
@in_loop
async def test_drop_item_counts_as_dropped(crawled: Crawls, pipelines: Any, kind: str) -> None:
    """A dropped item is neither an item nor an error."""
    async with Site({"*": "page"}) as site:
        result = await crawled(numbers(site.url()), pipelines(kind, at=-1))
    assert sorted(item["n"] for item in result.items) == [0, 2, 4, 6, 8]
    stats = result.stats
    assert (stats["items"], stats["dropped"], stats["errors"], result.broken) == (5, 5, 0, False)


@pytest.mark.parametrize("kind", ["Choosy", "Later"])
@in_loop
async def test_close_spider_from_a_pipeline_ends_the_run(crawled: Crawls, pipelines: Any, kind: str) -> None:
    """A pipeline ends the run as a callback does; what the page yields after that is still taken."""
    async with Site({"*": "page"}) as site:
        result = await crawled(numbers(site.url()), pipelines(kind, at=4))
    assert (result.reason, result.broken) == ("found it", False)
    assert sorted(item["n"] for item in result.items) == [0, 2, 6, 8]


@pytest.mark.parametrize(("kind", "lost"), [("Broken", 5), ("Forgetful", 10)])
@in_loop
async def test_a_pipeline_that_fails_costs_its_items_only(
    crawled: Crawls, pipelines: Any, kind: str, lost: int
) -> None:
    """Each item that a pipeline raises on, or does not return, is an error; the others go on; the run is broken."""
    async with Site({"*": "page"}) as site:
        result = await crawled(numbers(site.url("/1"), site.url("/2")), pipelines(kind))
    assert (len(result.items), result.stats["errors"], result.broken) == (20 - 2 * lost, 2 * lost, True)
    assert result.stats["done"] == 2


# -- self.fetch --------------------------------------------------------------------------------------------------------


@in_loop
async def test_fetch_gives_the_response_in_place(crawled: Crawls) -> None:
    """A callback awaits a page by its URL or a Request, and goes on with the response."""
    async with Site({"/": "page", "/price": "12", "/stock": lambda request: request.method}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            async def parse(self, response: Response) -> Any:
                price = await self.fetch(response.urljoin("/price"))
                stock = await self.fetch(Request(response.urljoin("/stock"), form={"n": "1"}))
                yield {"price": price.text, "stock": stock.text, "asked": price.request.url}

        result = await crawled(Pages)
    assert result.items == [{"price": "12", "stock": "POST", "asked": site.url("/price")}]
    assert (result.stats["pages"], result.stats["seeded"]) == (1, 1)


@in_loop
async def test_fetch_raises_what_an_errback_would_get(crawled: Crawls) -> None:
    """A status outside 2xx raises HttpError with the response; a scope refusal and a dead server raise their own."""
    async with Site({"/": "page", "/gone": 410}) as site, Site({}) as dead:
        await dead.__aexit__()

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]
            allowed_domains = ["127.0.0.1"]

            async def parse(self, response: Response) -> Any:
                for url in (site.url("/gone"), dead.url(), "http://example.com/"):
                    try:
                        await self.fetch(url)
                    except FetchError as error:
                        yield {"error": type(error).__name__, "status": getattr(error, "status", None)}

        result = await crawled(Pages, ONCE)
    errors = [tuple(item.values()) for item in result.items]
    assert errors == [("HttpError", 410), ("ConnectError", None), ("OutOfScope", None)]
    assert (result.stats["done"], result.stats["errors"], result.broken) == (1, 0, False)


@in_loop
async def test_fetch_that_nobody_catches_is_the_callbacks_error(crawled: Crawls) -> None:
    """A FetchError that leaves the callback counts like any exception of it."""
    async with Site({"/": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            async def parse(self, response: Response) -> Any:
                await self.fetch(site.url("/missing"))

        result = await crawled(Pages)
    assert (result.stats["errors"], result.stats["failed"], result.broken) == (1, 1, True)


@in_loop
async def test_fetch_follows_redirects_and_retries(crawled: Crawls) -> None:
    """Redirects and retries of an awaited page go through the same middlewares as any."""
    pages: dict[str, Any] = {"/": "page", "/a": redirect("/b"), "/b": redirect("/c"), "/c": in_turn(500, "end")}
    async with Site(pages) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            async def parse(self, response: Response) -> Any:
                end = await self.fetch(site.url("/a"))
                yield {"url": end.url, "text": end.text, "redirects": list(end.request.redirects)}

        result = await crawled(Pages)
    assert result.items == [{"url": site.url("/c"), "text": "end", "redirects": [site.url("/a"), site.url("/b")]}]
    assert (result.stats["redirects"], result.stats["retries"]) == (2, 1)


@in_loop
async def test_a_fetch_that_nobody_waits_for_any_more_asks_for_nothing(crawled: Crawls) -> None:
    """Given up while it waits for its host's turn, it costs the host neither a request nor a gap."""
    async with Site({"*": "page"}) as site:

        class Impatient(Spider):
            name = "impatient"
            start_urls = [site.url("/")]

            async def parse(self, response: Response) -> Any:
                fetches = [asyncio.ensure_future(self.fetch(site.url(f"/{number}"))) for number in range(5)]
                await asyncio.wait(fetches, return_when=asyncio.FIRST_COMPLETED)
                for fetch in fetches:
                    fetch.cancel()
                return response.follow("/next", self.parse_next)

            def parse_next(self, response: Response) -> Any:
                return {"url": response.url}

        result = await crawled(Impatient, {"politeness.delay": 0.01, "politeness.robots": False})
    assert site.paths == ["/", "/0", "/next"]
    assert (result.stats["requests"], len(result.items)) == (3, 1)


@in_loop
async def test_many_fetches_at_once_do_not_deadlock(crawled: Crawls) -> None:
    """With room for one item, one byte and two requests, thirty pages that await five others each come to their end."""
    starts = [f"/{number}" for number in range(30)]
    async with Site({"/": links(starts), "*": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                return response.follow_all(css="a", callback=self.page)

            async def page(self, response: Response) -> Any:
                yield {"url": response.url, "n": 0}
                parts = await asyncio.gather(*[self.fetch(f"{response.url}/{n}") for n in range(5)])
                for n, part in enumerate(parts, 1):
                    yield {"url": part.url, "n": n}

        tight = {"crawl.concurrency": 2, "items.concurrency": 1, "items.max_buffer": 1}
        result = await crawled(Pages, tight)
    assert len(result.items) == 30 * 6
    assert (result.stats["done"], result.broken) == (31, False)


@pytest.mark.parametrize("place", ["opened", "closed"])
@in_loop
async def test_fetch_outside_the_crawl_is_refused(crawled: Crawls, place: str) -> None:
    """In opened() and closed() nothing can be fetched: an error, not a wait without end."""
    async with Site({"*": "page"}) as site:

        async def fetching(self: Spider, reason: str = "") -> None:
            await self.fetch(site.url())

        spider = type("Early", (Visit,), {place: fetching, "start_urls": [site.url()]})
        if place == "opened":
            with pytest.raises(SpiderError, match=r"fetch\(\) works while the crawl runs"):
                await crawled(spider)
        else:
            result = await crawled(spider)
            assert (result.broken, result.stats["errors"]) == (True, 1)


# -- start requests ----------------------------------------------------------------------------------------------------


@in_loop
async def test_a_start_that_waits_for_its_own_requests(crawled: Crawls) -> None:
    """What start() has given is fetched, and what came before an item is taken in before it, while start() itself waits."""
    async with Site({"*": "page"}) as site:

        class Waiting(Spider):
            name = "waiting"
            came = 0

            async def start(self) -> AsyncIterator[Any]:
                for number in range(3):
                    self.arrived = asyncio.Event()
                    yield Request(site.url(f"/{number}/a"))
                    yield Request(site.url(f"/{number}/b"))
                    if number == 1:
                        yield {"path": "item"}
                    await self.arrived.wait()

            def parse(self, response: Response) -> Any:
                self.came += 1
                if not self.came % 2:
                    self.arrived.set()
                return {"path": response.url.removeprefix(site.url("/"))}

        result = await crawled(Waiting)
    assert sorted(item["path"] for item in result.items) == ["0/a", "0/b", "1/a", "1/b", "2/a", "2/b", "item"]


@in_loop
async def test_an_endless_start_is_pulled_as_there_is_room(crawled: Crawls) -> None:
    """An endless start() costs no memory: no more is pulled than the crawl can hold."""
    async with Site({"*": "page"}) as site:

        class Endless(Spider):
            name = "endless"
            pulled = 0

            async def start(self) -> AsyncIterator[Request]:
                while True:
                    self.pulled += 1
                    yield Request(site.url(f"/{self.pulled}"))

            def parse(self, response: Response) -> Any:
                return {"url": response.url}

        spider = Endless()
        result = await crawled(spider, {"crawl.max_pages": 50, "crawl.concurrency": 8})
    assert result.reason == "max_pages"
    assert len(result.items) == 50
    assert spider.pulled <= 50 + 2 * 8 + 1


@in_loop
async def test_an_endless_start_that_fails_is_pulled_as_there_is_room(crawled: Crawls) -> None:
    """start() is held back as well where pages come to nothing; max_errors ends it."""
    async with Site({"*": 404}) as site:

        class Endless(Spider):
            name = "endless"
            pulled = 0

            def start_requests(self) -> Iterator[Request]:
                while True:
                    self.pulled += 1
                    yield Request(site.url(f"/{self.pulled}"))

        spider = Endless()
        result = await crawled(spider, {"crawl.max_errors": 40, "crawl.concurrency": 4})
    assert result.reason == "max_errors"
    assert 40 <= result.stats["errors"] < 40 + 4
    assert spider.pulled <= 40 + 3 * 4


async def later(self: Any) -> Any:
    for path in ("/1", "/2"):
        await asyncio.sleep(0)
        yield Request(self.base + path)


def old_generator(self: Any) -> Any:
    yield Request(self.base + "/1")
    yield Request(self.base + "/2")


def old_list(self: Any) -> Any:
    return [Request(self.base + "/1"), Request(self.base + "/2")]


async def listed(self: Any) -> Any:
    return old_list(self)


@pytest.mark.parametrize(
    ("name", "start"),
    [("start", later), ("start", listed), ("start_requests", old_generator), ("start_requests", old_list)],
)
@in_loop
async def test_start_in_all_its_shapes(crawled: Crawls, name: str, start: Any) -> None:
    """start() may be an async generator or a coroutine; start_requests() of older spiders a generator or a list."""
    async with Site({"*": "page"}) as site:
        spider = type("Starting", (Visit,), {name: start, "base": site.url("")})
        result = await crawled(spider)
    assert sorted(item["path"] for item in result.items) == ["1", "2"]


@in_loop
async def test_start_may_fetch_and_yield_items(crawled: Crawls) -> None:
    """start() can ask for a page first, and yield items beside requests."""
    async with Site({"/index": "3", "*": "page"}) as site:

        class Pages(Visit):
            async def start(self) -> AsyncIterator[Any]:
                yield {"path": "start"}
                yield Request(site.url("/first"))
                index = await self.fetch(site.url("/index"))
                for number in range(int(index.text)):
                    yield Request(site.url(f"/{number}"))

        result = await crawled(Pages)
    assert sorted(item["path"] for item in result.items) == ["0", "1", "2", "first", "start"]
    assert (result.stats["seeded"], result.stats["items"]) == (4, 5)


@pytest.mark.parametrize("bad", ["text", 7, b"bytes"])
@in_loop
async def test_start_that_yields_what_is_no_item_goes_on(crawled: Crawls, bad: Any) -> None:
    """An unfit value among the start requests is an error; the others are fetched and the run ends."""
    async with Site({"*": "page"}) as site:

        class Pages(Visit):
            async def start(self) -> AsyncIterator[Any]:
                yield bad
                yield Request(site.url("/1"))

        result = await crawled(Pages)
    assert result.items == [{"path": "1"}]
    assert (result.stats["errors"], result.broken) == (1, True)


@in_loop
async def test_start_that_raises_at_once_is_a_spider_error(crawled: Crawls) -> None:
    """start() that raises before it gives anything has begun no run; the error names the line."""

    class Pages(Visit):
        async def start(self) -> AsyncIterator[Any]:
            raise ValueError("no more")
            yield

    with pytest.raises(SpiderError, match=r"start\(\) raised ValueError: no more \(.*test_crawl\.py:\d+\)"):
        await crawled(Pages)


@in_loop
async def test_a_first_request_that_is_unfit_is_a_spider_error(crawled: Crawls) -> None:
    """Nothing has been requested: the mistake is one line, as a start URL that is none."""

    class Pages(Visit):
        async def start(self) -> AsyncIterator[Any]:
            yield Request("http://a/", lambda response: None)

    with pytest.raises(SpiderError, match="start URL: <GET http://a/>: callback is a lambda"):
        await crawled(Pages)


@in_loop
async def test_a_later_request_that_is_unfit_is_passed_over(crawled: Crawls) -> None:
    """It is an error, which names it; the others of start() are fetched."""
    async with Site({"*": "page"}) as site:

        class Pages(Visit):
            async def start(self) -> AsyncIterator[Any]:
                for number in range(5):
                    yield Request(site.url(f"/{number}"), (lambda response: None) if number == 2 else None)

        result = await crawled(Pages)
    assert sorted(item["path"] for item in result.items) == ["0", "1", "3", "4"]
    assert (result.stats["errors"], result.stats["error_classes"], result.broken) == (1, {"RequestError": 1}, True)


@in_loop
async def test_start_that_raises_breaks_the_run(crawled: Crawls) -> None:
    """What start() gave before it raised is fetched; the run ends, broken."""
    async with Site({"*": "page"}) as site:

        class Pages(Visit):
            async def start(self) -> AsyncIterator[Any]:
                yield Request(site.url("/0"))
                yield Request(site.url("/1"))
                raise ValueError("no more")

        result = await crawled(Pages)
    assert len(result.items) == 2
    assert (result.stats["errors"], result.broken, result.reason) == (1, True, "finished")


@in_loop
async def test_close_spider_from_start_ends_the_run(crawled: Crawls) -> None:
    """start() may end the run with a reason of its own."""

    class Pages(Visit):
        async def start(self) -> AsyncIterator[Any]:
            raise CloseSpider("nothing new")
            yield

    result = await crawled(Pages)
    assert (result.reason, result.broken) == ("nothing new", False)


# -- order, delay, data ------------------------------------------------------------------------------------------------


@in_loop
async def test_the_highest_priority_goes_first(crawled: Crawls) -> None:
    """Within a host, requests leave by priority, then in the order they were yielded."""
    priorities = [0, 5, -1, 5, 10, 0]
    async with Site({"*": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url("/start")]

            def parse(self, response: Response) -> Any:
                for number, priority in enumerate(priorities):
                    yield Request(site.url(f"/{number}"), self.leaf, priority=priority)

            def leaf(self, response: Response) -> None: ...

        await crawled(Pages, ONE_BY_ONE)
    assert site.paths == ["/start", "/4", "/1", "/3", "/0", "/5", "/2"]


@pytest.mark.parametrize(
    ("order", "paths"),
    [("breadth", ["/", "/a", "/b", "/a1", "/a2", "/b1"]), ("depth", ["/", "/b", "/b1", "/a", "/a2", "/a1"])],
)
@in_loop
async def test_order_is_breadth_or_depth_first(crawled: Crawls, order: str, paths: list[str]) -> None:
    """Breadth takes the oldest link of a host, depth the newest."""
    pages = {"/": links(["/a", "/b"]), "/a": links(["/a1", "/a2"]), "/b": links(["/b1"]), "*": "leaf"}
    async with Site(pages) as site:
        await crawled(visit(site.url()), ONE_BY_ONE | {"crawl.order": order})
    assert site.paths == paths


@in_loop
async def test_a_delayed_request_takes_no_slot(crawled: Crawls) -> None:
    """With a single slot, others pass the request that waits; it goes when its time has come."""
    async with Site({"*": "page"}) as site:

        class Pages(Visit):
            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url("/late"), delay=0.2)
                yield Request(site.url("/1"))
                yield Request(site.url("/2"))

        await crawled(Pages, ONE_BY_ONE)
    assert site.paths == ["/1", "/2", "/late"]
    assert site.asked[2].at - site.asked[0].at > 0.15


@in_loop
async def test_meta_and_cb_kwargs_come_back(crawled: Crawls) -> None:
    """JSON data travels with a request, over redirects and retries; tuples come back as lists, as from storage."""
    async with Site({"/": "page", "/a": redirect("/b"), "/b": in_turn(500, "end")}) as site:
        data = {"text": "ü", "n": 1.5, "none": None, "deep": [{"a": [True]}], "pair": (1, 2)}

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                yield response.follow("/a", self.page, meta=data, cb_kwargs={"word": "hello", "page": (1,)})

            def page(self, response: Response, word: str, page: Any) -> Any:
                yield {"meta": response.meta, "word": word, "page": page, "same": response.cb_kwargs["page"] == page}

        result = await crawled(Pages)
    assert result.items == [{"meta": {**data, "pair": [1, 2]}, "word": "hello", "page": [1], "same": True}]


@in_loop
async def test_a_request_that_cannot_be_stored_is_refused_at_its_yield(crawled: Crawls) -> None:
    """A lambda and a value JSON cannot hold raise in the callback, which may catch it and go on."""
    async with Site({"/": "page", "/good": "good"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                for bad in ({"callback": lambda response: None}, {"meta": {"when": object()}}):
                    try:
                        yield Request(site.url("/bad"), **bad)
                    except RequestError as error:
                        yield {"error": str(error)}
                yield Request(site.url("/good"), self.good)
                with suppress(RequestError):
                    yield Request(site.url("/bad"), cb_kwargs={"x": {1, 2}})

            def good(self, response: Response) -> Any:
                yield {"good": True}
                yield Request(site.url("/bad"), self.good, meta={"x": b"bytes"})

        result = await crawled(Pages)
    assert "a lambda" in result.items[0]["error"]
    assert "meta['when'] is of type object" in result.items[1]["error"]
    assert result.items[2:] == [{"good": True}]
    assert (site.paths, result.stats["errors"], result.stats["failed"]) == (["/", "/good"], 1, 1)


@in_loop
async def test_a_page_is_fetched_once_unless_it_says_dont_filter(crawled: Crawls) -> None:
    """Seen URLs are filtered, whatever the order of their query; dont_filter fetches them again."""
    async with Site({"*": "page"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url("/start")]

            def parse(self, response: Response) -> Any:
                for url in ("/once?a=1&b=2", "/once?b=2&a=1", "/once?a=1&b=2#part", "/start"):
                    yield response.follow(url, self.leaf)
                for _ in range(3):
                    yield response.follow("/again", self.leaf, dont_filter=True)

            def leaf(self, response: Response) -> None: ...

        result = await crawled(Pages)
    assert site.times == {"/start": 1, "/once": 1, "/again": 3}
    assert (result.stats["seeded"], result.stats["filtered"]) == (5, 3)


# -- redirects ---------------------------------------------------------------------------------------------------------


@in_loop
async def test_each_hop_of_a_redirect_is_kept(crawled: Crawls) -> None:
    """The response has the final URL, its request the URLs that led there; one request is one page."""
    async with Site({"/a": redirect("/b", 301), "/b": redirect("c", 307), "/c": "end"}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url("/a")]

            def parse(self, response: Response) -> Any:
                return {"url": response.url, "redirects": list(response.request.redirects)}

        result = await crawled(Pages)
    assert result.items == [{"url": site.url("/c"), "redirects": [site.url("/a"), site.url("/b")]}]
    assert (result.stats["redirects"], result.stats["seeded"], result.stats["done"]) == (2, 1, 1)


@pytest.mark.parametrize(
    "pages",
    [
        {"/": redirect("/")},
        {"/": redirect("/a"), "/a": redirect("/")},
        {"*": lambda request: redirect(f"{request.path}x")(request)},
    ],
    ids=["to itself", "in a circle", "without end"],
)
@in_loop
async def test_endless_redirects_end_after_twenty(crawled: Crawls, pages: Any) -> None:
    """Twenty hops are followed; then there is one error."""
    async with Site(pages) as site:
        spider = Failing([site.url()])
        await crawled(spider)
    assert spider.errors == ["TooManyRedirects"]
    assert len(site.asked) == 21


@in_loop
async def test_a_redirect_out_of_allowed_domains_is_refused(crawled: Crawls) -> None:
    """The target is judged at the hop, and its server never asked; within the bounds it is followed."""
    async with Site({"*": "page"}) as other, Site({"/in": redirect("/end"), "/end": "end"}) as site:
        site.pages["/out"] = redirect(other.url("/secret"))
        spider = Failing([site.url("/out")])
        spider.allowed_domains = ["example.com"]
        await crawled(spider)
        inside = visit(site.url("/in"))
        inside.allowed_domains = ["example.com"]
        result = await crawled(inside)
    assert (spider.errors, other.paths) == (["OutOfScope"], [])
    assert result.items == [{"path": "end"}]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "javascript:alert(1)", "ftp://127.0.0.1/", "http://"])
@in_loop
async def test_a_redirect_to_no_web_page_is_refused(crawled: Crawls, target: str) -> None:
    """Only http and https are followed."""
    async with Site({"/": redirect(target)}) as site:
        spider = Failing([site.url()])
        await crawled(spider)
    assert spider.errors == ["OutOfScope"]


@in_loop
async def test_a_page_that_sets_a_cookie_and_redirects_to_itself(crawled: Crawls) -> None:
    """Coming back to a URL of its own chain is no duplicate: the second time the cookie is there."""

    def page(request: web.BaseRequest) -> web.Response:
        if "seen" in request.cookies:
            return web.Response(text="welcome", content_type="text/html")
        return web.Response(status=302, headers={"Location": "/", "Set-Cookie": "seen=1"})

    async with Site({"/": page}) as site:
        result = await crawled(visit(site.url()))
    assert (result.items, site.paths) == ([{"path": ""}], ["/", "/"])


@pytest.mark.parametrize(
    ("status", "method", "body"), [(303, "GET", ""), (302, "GET", ""), (307, "POST", "a=1"), (308, "POST", "a=1")]
)
@in_loop
async def test_the_method_after_a_redirected_post(crawled: Crawls, status: int, method: str, body: str) -> None:
    """303 and 302 go on as GET without a body, 307 and 308 repeat the POST."""

    async def echo(request: web.BaseRequest) -> web.Response:
        return web.json_response([request.method, await request.text(), request.headers.get("Content-Type", "")])

    async with Site({"/form": redirect("/echo", status), "/echo": echo}) as site:

        class Pages(Spider):
            name = "pages"

            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url("/form"), form={"a": "1"})

            def parse(self, response: Response) -> Any:
                return {"echo": response.json()}

        result = await crawled(Pages)
    kind = "application/x-www-form-urlencoded" if body else ""
    assert result.items == [{"echo": [method, body, kind]}]


@pytest.mark.parametrize("elsewhere", [False, True])
@in_loop
async def test_credentials_stay_with_their_origin(crawled: Crawls, elsewhere: bool) -> None:
    """A redirect within the origin carries Authorization and cookies on; one to another port carries neither."""
    async with Site({"*": "page"}) as site, Site({"*": "page"}) as other:
        target = (other if elsewhere else site).url("/end")
        site.pages["/start"] = redirect(target)

        class Pages(Visit):
            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url("/start"), headers={"Authorization": "Basic eDp5"}, cookies={"id": "7"})

        await crawled(Pages)
        end = (other if elsewhere else site).asked[-1]
    assert end.path == "/end"
    assert ("Authorization" in end.headers, "Cookie" in end.headers) == (not elsewhere, not elsewhere)


# -- retries -----------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_flaky_page_is_tried_again(crawled: Crawls) -> None:
    """503 and then 200: one page, one item, one retry, no error; the request tells how often it was tried."""
    async with Site({"/": in_turn(503, "page")}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                return {"retries": response.request.retries}

        result = await crawled(Pages, {"politeness.adaptive": False, "politeness.robots": False})
    stats = result.stats
    assert result.items == [{"retries": 1}]
    assert (stats["retries"], stats["requests"], stats["pages"], stats["errors"]) == (1, 2, 1, 0)
    assert (stats["seeded"], stats["done"]) == (1, 1)


@in_loop
async def test_retries_come_to_an_end(crawled: Crawls) -> None:
    """A page that never recovers is asked for once more than there are retries; its last answer goes to the errback."""
    async with Site({"/": in_turn(500, 502)}) as site, RawServer(b"", "reset") as raw:
        spider = Failing([site.url(), raw.url()])
        result = await crawled(spider, {"download.retries": 1, "politeness.robots": False})
    assert sorted(spider.errors) == ["ConnectionLost", "HttpError"]
    assert [failure.response.status for failure in spider.failures if failure.response] == [502]
    assert (len(site.asked), raw.connections, result.stats["retries"]) == (2, 2, 2)


# -- cookies and bodies that are sent ----------------------------------------------------------------------------------


@in_loop
async def test_cookies_are_kept_over_the_run(crawled: Crawls) -> None:
    """A cookie that one page sets is sent to the next; a request's own cookies join it."""

    def echo(request: web.BaseRequest) -> web.Response:
        return web.json_response(dict(sorted(request.cookies.items())))

    def login(request: web.BaseRequest) -> web.Response:
        return web.Response(text="in", headers={"Set-Cookie": "session=abc; Path=/; HttpOnly"})

    async with Site({"/login": login, "/echo": echo}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url("/login")]

            def parse(self, response: Response) -> Any:
                yield response.follow("/echo", self.page, cookies={"lang": "en"})

            def page(self, response: Response) -> Any:
                yield response.json()

        result = await crawled(Pages)
    assert result.items == [{"lang": "en", "session": "abc"}]


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (
            {"form": {"q": "größe", "n": [1, 2]}},
            ["POST", "application/x-www-form-urlencoded", "q=gr%C3%B6%C3%9Fe&n=1&n=2"],
        ),
        ({"json": {"q": [1, None]}}, ["POST", "application/json", '{"q":[1,null]}']),
        ({"body": "raw", "method": "PUT", "headers": {"Content-Type": "text/x"}}, ["PUT", "text/x", "raw"]),
    ],
    ids=["form", "json", "body"],
)
@in_loop
async def test_bodies_reach_the_server(crawled: Crawls, options: dict[str, Any], seen: list[str]) -> None:
    """Forms, JSON and plain bodies arrive with their method and type; two different bodies are two requests."""

    async def echo(request: web.BaseRequest) -> web.Response:
        return web.json_response([request.method, request.headers["Content-Type"], await request.text()])

    async with Site({"/": echo}) as site:

        class Pages(Spider):
            name = "pages"

            async def start(self) -> AsyncIterator[Request]:
                yield Request(site.url(), **options)
                yield Request(site.url(), json={"another": 1})

            def parse(self, response: Response) -> Any:
                return {"seen": response.json()}

        result = await crawled(Pages)
    assert {"seen": seen} in result.items
    assert len(result.items) == 2


# -- private addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "start", "link"), [("seeds", True, False), ("always", True, True), ("never", False, False)]
)
@in_loop
async def test_private_addresses_by_policy(crawled: Crawls, policy: str, start: bool, link: bool) -> None:
    """A loopback host is reached where a start URL names it; links, redirects and fetches to others only with "always"."""
    async with Site({"*": "page"}, host="127.0.0.2") as other, Site({}) as site:
        targets = [
            other.url("/link"),
            f"http://localhost:{site.port}/by-name",
            f"http://2130706434:{other.port}/number",
        ]
        site.pages |= {"/": links([*targets, "/hop"]), "/hop": redirect(other.url("/redirect")), "/by-name": "page"}
        errors: list[str] = []

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            async def parse(self, response: Response) -> Any:
                yield {"url": response.url}
                for request in response.follow_all(css="a"):
                    yield request.replace(errback=self.failed, callback=self.leaf)
                try:
                    await self.fetch(other.url("/fetch"))
                except PrivateAddress:
                    errors.append("PrivateAddress")

            def leaf(self, response: Response) -> Any:
                yield {"url": response.url}

            def failed(self, failure: Failure) -> None:
                errors.append(type(failure.error).__name__)

        settings = ONCE | {"download.private_addresses": policy, "politeness.robots": False}
        result = await crawled(Pages, settings)
    if link:
        assert sorted(other.paths) == ["/fetch", "/link", "/number", "/redirect"]
        assert errors == []
    else:
        assert other.paths == []
        assert "/by-name" not in site.paths
        assert errors == (["PrivateAddress"] * 5 if start else [])
    assert ("/" in site.paths) == start
    assert result.broken != start


# -- bodies that come ---------------------------------------------------------------------------------------------------

TEXT = "Fünf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 200


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("br", brotli.compress),
        ("zstd", zstd.compress),
        ("gzip, br", lambda body: brotli.compress(gzip.compress(body))),
    ],
)
@in_loop
async def test_compressed_bodies_are_decoded(crawled: Crawls, encoding: str, encode: Any) -> None:
    """gzip, deflate, br, zstd and layers of them arrive as text; the spider sees no difference."""

    def page(request: web.BaseRequest) -> web.Response:
        headers = {"Content-Encoding": encoding, "Content-Type": "text/plain; charset=utf-8"}
        return web.Response(body=encode(TEXT.encode()), headers=headers)

    async with Site({"/": page}) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                return {"same": response.text == TEXT}

        result = await crawled(Pages)
        offered = site.asked[0].headers["Accept-Encoding"]
    assert result.items == [{"same": True}]
    assert result.stats["bytes"] == len(TEXT.encode())
    assert all(name.strip() in offered for name in encoding.split(","))


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b"cut short" * 100)[:-20]], ids=["wrong", "cut"])
@in_loop
async def test_broken_compression_is_an_error(crawled: Crawls, body: bytes) -> None:
    """What cannot be decoded to its end is never delivered in part."""
    async with Site({"/": lambda request: web.Response(body=body, headers={"Content-Encoding": "gzip"})}) as site:
        spider = Failing([site.url()])
        await crawled(spider)
    assert spider.errors == ["DecodeError"]


def sized(size: int) -> web.Response:
    return web.Response(body=b"x" * size)


def chunked(size: int) -> web.Response:
    response = web.Response(body=b"x" * size)
    response.enable_chunked_encoding()
    return response


def bomb(size: int) -> web.Response:
    return web.Response(body=gzip.compress(b"x" * size), headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize("answer", [sized, chunked, bomb])
@pytest.mark.parametrize(("limit", "size"), [(10_000, 10_001), (10_000, 50_000), (10_000, 5_000_000)])
@in_loop
async def test_a_body_past_max_body_is_refused(crawled: Crawls, answer: Any, limit: int, size: int) -> None:
    """On the wire, in chunks or decompressed: a body of the limit passes, a byte more does not."""
    async with Site({"/big": lambda request: answer(size), "/fits": lambda request: answer(limit)}) as site:

        class Pages(Failing):
            def parse(self, response: Response) -> Any:
                return {"fits": len(response.body)}

        spider = Pages([site.url("/big"), site.url("/fits")])
        result = await crawled(spider, {"download.max_body": limit})
    assert spider.errors == ["BodyTooLarge"]
    assert "download.max_body" in str(spider.failures[0].error)
    assert {"fits": limit} in result.items


# -- servers that fail --------------------------------------------------------------------------------------------------


@in_loop
async def test_bad_servers_fail_and_others_go_on(crawled: Crawls) -> None:
    """Silence, slow bodies, resets, cut bodies and dead names are errors of their own; a good site is crawled whole."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    bad = {
        "silent": RawServer(b"", "hang"),
        "slow head": RawServer(head, "hang"),
        "slow body": RawServer(head + b"Content-Length: 100\r\n\r\nsome", "hang"),
        "closed": RawServer(b""),
        "reset": RawServer(head + b"Content-Length: 100\r\n\r\nsome", "reset"),
        "short": RawServer(head + b"Content-Length: 100\r\n\r\nsome"),
        "no http": RawServer(b"220 mail.example.com ESMTP\r\n"),
    }
    good_paths = [f"/{number}" for number in range(50)]
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(Site({"/": links(good_paths), "*": "page"}))
        urls = {name: (await stack.enter_async_context(server)).url() for name, server in bad.items()}
        urls["no name"] = "http://nonexistent.invalid/"

        class Mixed(Visit):
            errors: dict[str, str] = {}

            async def start(self) -> AsyncIterator[Request]:
                for name, url in urls.items():
                    yield Request(url, errback=self.failed, meta={"name": name}, timeout=0.3)
                yield Request(good.url())

            def failed(self, failure: Failure) -> None:
                self.errors[failure.request.meta["name"]] = type(failure.error).__name__

        spider = Mixed()
        result = await crawled(spider, ONCE | {"politeness.robots": False, "crawl.concurrency": 9})
    assert spider.errors == {
        "silent": "FetchTimeout",
        "slow head": "FetchTimeout",
        "slow body": "FetchTimeout",
        "closed": "ConnectionLost",
        "reset": "ConnectionLost",
        "short": "Truncated",
        "no http": "ProtocolError",
        "no name": "DnsError",
    }
    assert len(result.items) == 51
    assert (result.stats["done"], result.stats["failed"]) == (51, 8)


@in_loop
async def test_download_timeout_bounds_the_whole_answer(crawled: Crawls) -> None:
    """download.timeout holds for every request that has no timeout of its own, retries included."""
    async with Site({"/": never}) as site:
        spider = Failing([site.url()])
        await crawled(spider, {"download.timeout": 0.1, "download.retries": 1, "politeness.adaptive": False})
    assert spider.errors == ["FetchTimeout"]
    assert len(site.asked) == 2


# -- outputs -----------------------------------------------------------------------------------------------------------


@in_loop
async def test_an_output_that_cannot_be_written_breaks_the_run(crawled: Crawls, empty_folder: Path) -> None:
    """A full disk ends the run as broken, with the file's name in the log and no exception."""
    (empty_folder / "full.jsonl").symlink_to("/dev/full")
    async with Site({"*": "page"}) as site:
        result = await crawled(numbers(site.url()), outputs=[Output("full.jsonl")])
    assert (result.reason, result.broken, result.stats["errors"]) == ("output", True, 1)


@in_loop
async def test_items_of_one_page_stand_together_in_every_output(crawled: Crawls, empty_folder: Path) -> None:
    """Several outputs get the same items, a page's in one piece and in order."""
    async with Site({"*": "page"}) as site:
        urls = [site.url(f"/{number}") for number in range(20)]
        result = await crawled(numbers(*urls), outputs=[Output("a.jsonl"), Output("b.jsonl")])
    lines = (empty_folder / "a.jsonl").read_text().splitlines()
    assert lines == [f'{{"n":{n}}}' for _ in range(20) for n in range(10)]
    assert (empty_folder / "b.jsonl").read_text().splitlines() == lines
    assert result.stats["items"] == 200


@in_loop
async def test_a_failed_start_request_breaks_the_run(crawled: Crawls) -> None:
    """Whether or not an errback takes it."""
    async with Site({}) as site:
        spider = Failing([site.url("/missing")])
        result = await crawled(spider)
    assert (result.broken, result.stats["errors"], len(result.items)) == (True, 0, 1)
