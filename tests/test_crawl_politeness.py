"""What servers see of a crawl: how many requests at a time, how far apart, and whether robots.txt is obeyed."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from conftest import Crawls
from servers import Answer, Asked, Site, in_loop, in_turn, links, never, redirect

from scraper import Failure, Request, Response, Spider
from scraper.crawler import Crawler, Result, load_settings
from scraper.errors import RobotsDenied
from scraper.jobs import STATE
from scraper.layers import mapping_layer
from scraper.spider import make_spider

NO_ROBOTS = {"politeness.robots": False}
SLACK_S = 0.015
"""How much closer two requests may arrive than they were sent: the first may be late."""


class Visit(Spider):
    """Follows every link, and yields each page's path."""

    name = "visit"

    def parse(self, response: Response) -> Any:
        yield {"path": "/" + response.url.split("/", 3)[3]}
        yield from response.follow_all(css="a")


def visit(*urls: str) -> type[Spider]:
    """Return a Visit spider that starts at the URLs."""
    return type("Visit", (Visit,), {"start_urls": list(urls)})


def gaps(asked: list[Asked]) -> list[float]:
    """The seconds between each request and the next."""
    return [later.at - earlier.at for earlier, later in pairwise(sorted(asked, key=lambda each: each.at))]


class Crowd:
    """Pages that answer only when so many requests are inside together, and that note the most there ever were."""

    def __init__(self, size: int) -> None:
        self._barrier = asyncio.Barrier(size)

    async def __call__(self, request: web.BaseRequest) -> Answer:
        await self._barrier.wait()
        return "page"


# -- slots -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 3, 8])
@in_loop
async def test_a_host_is_asked_by_so_many_at_a_time(crawled: Crawls, slots: int) -> None:
    """Exactly concurrency_per_host requests are at the server together: never more, and not fewer while there are enough."""
    paths = [f"/{number}" for number in range(slots * 6)]
    async with Site({"/": links(paths), "*": Crowd(slots)}) as site:
        result = await crawled(visit(site.url()), {"politeness.concurrency_per_host": slots})
    assert site.most_at_once == slots
    assert result.stats["done"] == len(paths) + 1


@in_loop
async def test_fetches_of_callbacks_count_towards_the_host(crawled: Crawls) -> None:
    """self.fetch takes a slot as any request does."""

    class Fetching(Visit):
        async def parse(self, response: Response) -> Any:
            await asyncio.gather(*[self.fetch(f"{response.url}/{number}") for number in range(5)])

    async def turn(request: web.BaseRequest) -> Answer:
        for _ in range(20):
            await asyncio.sleep(0)
        return "page"

    async with Site({"*": turn}) as site:
        Fetching.start_urls = [site.url(f"/{number}") for number in range(10)]
        await crawled(Fetching, {"politeness.concurrency_per_host": 2})
    assert site.most_at_once == 2
    assert len(site.asked) == 60


@in_loop
async def test_crawl_concurrency_bounds_all_hosts_together(crawled: Crawls) -> None:
    """Three hosts share the slots of the whole crawl."""
    inside = most = 0

    async def page(request: web.BaseRequest) -> Answer:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(20):
            await asyncio.sleep(0)
        inside -= 1
        return "page"

    async with Site({"*": page}) as a, Site({"*": page}) as b, Site({"*": page}) as c:
        urls = [site.url(f"/{number}") for number in range(20) for site in (a, b, c)]
        await crawled(visit(*urls), {"crawl.concurrency": 4, "politeness.concurrency_per_host": 3})
    assert most == 4


@in_loop
async def test_a_thousand_requests_are_in_flight_together(crawled: Crawls) -> None:
    """A page that answers when a thousand requests have arrived answers them all."""

    class Crowded(Spider):
        name = "crowded"

        def __init__(self, base: str) -> None:
            self.base = base

        async def start(self) -> AsyncIterator[Request]:
            for number in range(1000):
                yield Request(f"{self.base}/{number}")

        def parse(self, response: Response) -> Any:
            return {"url": response.url}

    async with Site({"*": Crowd(1000)}) as site:
        settings = NO_ROBOTS | {"crawl.concurrency": 1000, "politeness.concurrency_per_host": 1000}
        result = await crawled(Crowded(site.url("")), settings)
    assert site.most_at_once == 1000
    assert len({item["url"] for item in result.items}) == 1000


@in_loop
async def test_a_slow_host_does_not_starve_others(crawled: Crawls) -> None:
    """While one host holds all its requests, another is crawled to its end."""
    done = asyncio.Event()

    async def held(request: web.BaseRequest) -> Answer:
        await done.wait()
        return "page"

    def last(request: web.BaseRequest) -> Answer:
        done.set()
        return "page"

    paths = [f"/{number}" for number in range(100)]
    async with Site({"*": held}) as slow, Site({"/": links([*paths, "/last"]), "*": "page", "/last": last}) as quick:
        urls = [*(slow.url(path) for path in paths), quick.url()]
        spider = type("Both", (Visit,), {"start_urls": urls})
        settings = {"crawl.concurrency": 64, "crawl.order": "breadth", "politeness.concurrency_per_host": 4}
        result = await crawled(spider, settings)
    assert result.stats["done"] == 202
    assert len(slow.asked) == 100


# -- gaps --------------------------------------------------------------------------------------------------------------


@in_loop
async def test_no_two_requests_to_a_host_are_closer_than_the_delay(crawled: Crawls) -> None:
    """Pages, redirects, retries, fetches and robots.txt all keep the gap; another host has a clock of its own."""
    pages: dict[str, Any] = {
        "/": links(["/a", "/b", "/hop", "/flaky"]),
        "/hop": redirect("/target"),
        "/flaky": in_turn(500, "recovered"),
        "*": "page",
    }

    class Fetching(Visit):
        async def parse(self, response: Response) -> Any:
            for request in response.follow_all(css="a"):
                yield request
            if response.url.endswith("/a"):
                await asyncio.gather(self.fetch(response.url + "/1"), self.fetch(response.url + "/2"))

    delay_s = 0.06
    async with Site(pages) as site, Site({"*": "page"}) as other:
        Fetching.start_urls = [site.url(), other.url("/1"), other.url("/2")]
        result = await crawled(Fetching, {"politeness.delay": delay_s, "crawl.concurrency": 16})
    assert site.times == {"/": 1, "/a": 1, "/b": 1, "/hop": 1, "/target": 1, "/flaky": 2, "/a/1": 1, "/a/2": 1}
    for server in (site, other):
        assert min(gaps(server.asked + server.asked_robots)) >= delay_s - SLACK_S
    assert result.stats["requests"] == len(site.asked) + len(other.asked) + 2
    assert result.stats["elapsed_s"] < 4 * delay_s * len(site.asked), "the two hosts do not wait for each other"


@in_loop
async def test_the_gap_holds_when_a_run_goes_on(empty_folder: Path) -> None:
    """The process before may have asked the host a moment ago: the delay of the settings, and a Crawl-delay, pass first."""
    delay_s = 0.2
    for rules, settings in (("Crawl-delay: 0.2", {}), ("", {"politeness.delay": delay_s})):
        folder = empty_folder / (rules or "delay")
        folder.mkdir()
        async with Site({"/": links(["/1"]), "*": "page"}, robots=text(f"User-agent: *\n{rules}\n")) as site:
            await kept_crawl(site, folder, settings | {"crawl.max_pages": 1})
            await kept_crawl(site, folder, settings)
        assert site.paths == ["/", "/1"]
        assert min(gaps(site.asked)) >= delay_s - SLACK_S


# -- robots.txt --------------------------------------------------------------------------------------------------------


def text(content: str) -> Any:
    """A page of plain text."""
    return lambda request: web.Response(text=content)


@in_loop
async def test_robots_is_obeyed_and_asked_for_once(crawled: Crawls) -> None:
    """Disallowed links are not asked for and go to their errback; robots.txt comes before all else, and once."""
    rules = "User-agent: *\nDisallow: /private\nAllow: /private/but\n"
    paths = ["/open", "/private/a", "/private/b", "/private/but", "/hop"]
    async with Site({"/": links(paths), "*": "page", "/hop": redirect("/private/c")}, robots=text(rules)) as site:

        class Pages(Spider):
            name = "pages"
            start_urls = [site.url(), site.url("/also")]
            denied: list[str] = []

            async def parse(self, response: Response) -> Any:
                yield {"path": response.url}
                for request in response.follow_all(css="a"):
                    yield request.replace(errback=self.failed if "private" in request.url else None)
                if response.url.endswith("/open"):
                    try:
                        await self.fetch(site.url("/private/fetch"))
                    except RobotsDenied:
                        self.denied.append("fetch")

            def failed(self, failure: Failure) -> None:
                assert isinstance(failure.error, RobotsDenied)
                self.denied.append(failure.request.url.rpartition("/")[2])

        result = await crawled(Pages)
    assert sorted(set(site.paths)) == ["/", "/also", "/hop", "/open", "/private/but"]
    assert len(site.asked_robots) == 1
    assert min(each.at for each in site.asked) > site.asked_robots[0].at
    assert sorted(Pages.denied) == ["a", "b", "fetch"]
    assert (result.stats["failed"], result.stats["errors"], result.broken) == (3, 1, False)


@in_loop
async def test_a_start_url_that_robots_disallows_breaks_the_run(crawled: Crawls) -> None:
    """Nothing but robots.txt is asked for, and the run says that it failed."""
    async with Site({"*": "page"}, robots=text("User-agent: *\nDisallow: /\n")) as site:
        result = await crawled(visit(site.url()))
    assert (site.paths, result.broken, result.stats["failed"]) == ([], True, 1)
    assert result.stats["error_classes"] == {"RobotsDenied": 1}


@in_loop
async def test_each_origin_has_its_own_robots(crawled: Crawls) -> None:
    """What one port disallows, another may allow."""
    async with Site({"*": "page"}, robots=text("User-agent: *\nDisallow: /")) as a, Site({"*": "page"}) as b:
        result = await crawled(visit(*[site.url(f"/{n}") for n in range(5) for site in (a, b)]))
    assert (a.paths, len(b.paths), result.stats["failed"]) == ([], 5, 5)
    assert len(a.asked_robots) == len(b.asked_robots) == 1


@pytest.mark.parametrize(
    ("robots", "allowed"),
    [
        (404, True),
        (403, True),
        (410, True),
        (text(""), True),
        (text("User-agent: another\nDisallow: /"), True),
        (text("User-agent: scraper\nDisallow: /"), False),
        (500, False),
        (503, False),
    ],
    ids=["404", "403", "410", "empty", "for another", "for this one", "500", "503"],
)
@in_loop
async def test_what_robots_answers_decides(crawled: Crawls, robots: Any, allowed: bool) -> None:
    """By RFC 9309 a 4xx allows everything and a 5xx nothing; rules count for the agent they name."""
    async with Site({"*": "page"}, robots=robots) as site:
        result = await crawled(visit(site.url()), {"download.retries": 0})
    assert (len(site.asked), result.broken) == ((1, False) if allowed else (0, True))


@in_loop
async def test_robots_that_cannot_be_reached_forbids(crawled: Crawls) -> None:
    """No answer is no permission: the requests that waited for it fail, and the run ends."""

    async def hang_up(request: web.BaseRequest) -> Answer:
        assert request.transport is not None
        request.transport.abort()
        return 200

    async with Site({"*": "page"}, robots=hang_up) as site:
        result = await crawled(visit(site.url("/1"), site.url("/2")), {"download.retries": 0})
    assert (site.paths, result.stats["failed"], result.broken) == ([], 2, True)


@in_loop
async def test_robots_may_redirect(crawled: Crawls) -> None:
    """The rules behind a redirect hold for the origin that was asked, also where they lie on another host."""
    async with Site({"/rules": text("User-agent: *\nDisallow: /no")}) as other, Site({"*": "page"}) as site:
        site.robots = redirect(other.url("/rules"))
        settings = {"download.private_addresses": "always"}
        result = await crawled(visit(site.url("/yes"), site.url("/no")), settings)
    assert site.paths == ["/yes"]
    assert (other.paths, other.asked_robots) == (["/rules"], [])
    assert result.stats["failed"] == 1


@in_loop
async def test_robots_redirects_while_all_slots_wait_for_it(crawled: Crawls) -> None:
    """What cannot go before the rules are known leaves its slot to the request that fetches them."""
    async with AsyncExitStack() as stack:
        rules = await stack.enter_async_context(Site({"*": text("")}))
        sites = [Site({"*": "page"}, robots=redirect(rules.url("/rules")), host=f"127.0.0.{n}") for n in range(2, 7)]
        for site in sites:
            await stack.enter_async_context(site)
        rules.pages["/"] = links(site.url(f"/{number}") for number in range(5) for site in sites)
        settings = {"download.private_addresses": "always", "crawl.concurrency": 1}
        await crawled(visit(rules.url("/")), settings)
    assert [len(site.asked) for site in sites] == [5] * 5


@pytest.mark.parametrize(("hops", "allowed"), [(5, False), (6, True)])
@in_loop
async def test_robots_is_followed_five_times(crawled: Crawls, hops: int, allowed: bool) -> None:
    """Whatever the settings and the spider say of redirects: what is behind more than five counts as no file (RFC 9309)."""
    rules = {f"/hop/{number}": redirect(f"/hop/{number + 1}") for number in range(1, hops)}
    pages = {**rules, f"/hop/{hops}": text("User-agent: *\nDisallow: /"), "/": "page"}
    spider = visit()
    spider.handle_httpstatus_list = [302]
    async with Site(pages, robots=redirect("/hop/1")) as site:
        spider.start_urls = [site.url()]
        await crawled(spider, {"download.max_redirects": 1})
    assert ("/" in site.paths) is allowed
    assert site.times["/hop/5"] == 1


@in_loop
async def test_robots_that_redirects_for_ever_allows(crawled: Crawls) -> None:
    """A loop leads to no file, and where there is no file there are no rules (RFC 9309 section 2.3.1.2)."""
    async with Site({"*": "page"}, robots=redirect("/robots.txt")) as site:
        result = await crawled(visit(site.url()))
    assert (site.paths, result.stats["failed"]) == (["/"], 0)
    assert len(site.asked_robots) == 6


@in_loop
async def test_robots_that_redirects_to_a_private_address_forbids(crawled: Crawls) -> None:
    """A site cannot have its neighbours asked by way of robots.txt; the pages that waited say what went wrong."""
    async with Site({"*": "page"}) as neighbour, Site({"*": "page"}) as site:
        site.robots = redirect(f"http://localhost:{neighbour.port}/rules")
        result = await crawled(visit(site.url()))
    assert (site.paths, neighbour.paths, neighbour.asked_robots) == ([], [], [])
    assert result.stats["error_classes"] == {"PrivateAddress": 1}


@in_loop
async def test_robots_that_never_comes_costs_other_hosts_nothing(crawled: Crawls) -> None:
    """The site's pages fail with what went wrong; the other host is crawled meanwhile."""
    whole = {"/": links(f"/{number}" for number in range(20)), "*": "page"}
    async with Site({"*": "page"}, robots=never) as site, Site(whole) as other:
        result = await crawled(
            visit(site.url("/1"), site.url("/2"), other.url()), {"download.timeout": 0.5, "download.retries": 0}
        )
    assert (site.paths, len(site.asked_robots), len(other.asked)) == ([], 1, 21)
    assert (result.stats["error_classes"], result.stats["pages"]) == ({"FetchTimeout": 2}, 21)


async def kept_crawl(site: Site, folder: Path, settings: dict[str, Any]) -> Result:
    """Visit a site with the state kept in a folder; go on with what is unfinished there."""
    (folder / "state").mkdir(exist_ok=True)
    spider = make_spider(visit(site.url()), {})
    layer = mapping_layer(settings, "the test")
    return await Crawler(spider, load_settings(type(spider), [layer]), state=folder / "state").run()


def change_kept_robots(site: Site, folder: Path, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change what is kept of a site's robots.txt: until when it holds, its rules, and whom they are for."""
    with closing(sqlite3.connect(folder / "state" / STATE)) as file, file:
        key = f"state.robots:{site.url()[:-1]}"
        (kept,) = file.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        changed = msgspec.msgpack.encode(change(msgspec.msgpack.decode(kept)))
        file.execute("UPDATE meta SET value = ? WHERE key = ?", (changed, key))


@in_loop
async def test_old_rules_hold_while_robots_is_asked_for_again(empty_folder: Path) -> None:
    """A resumed run finds a file that has grown old: pages go on under its rules, then under those of the answer."""
    answer = asyncio.Event()
    paths = ["/no", *(f"/a/{number}" for number in range(40)), *(f"/z/{number}" for number in range(10))]

    async def new_rules(request: web.BaseRequest) -> Answer:
        await answer.wait()
        return web.Response(text="User-agent: *\nDisallow: /z\n")

    def page(request: web.BaseRequest) -> Answer:
        if len(site.asked) == 6:
            answer.set()
        return "page"

    async with Site({"/": links(paths), "*": page}, robots=text("User-agent: *\nDisallow: /no\n")) as site:
        few = {"politeness.concurrency_per_host": 2}
        await kept_crawl(site, empty_folder, few | {"crawl.max_pages": 1})
        change_kept_robots(site, empty_folder, lambda kept: [0.0, *kept[1:]])
        site.robots = new_rules
        result = await kept_crawl(site, empty_folder, few)
    assert (result.reason, len(site.asked_robots)) == ("finished", 2)
    assert sorted(site.paths) == sorted(["/", *(path for path in paths if path.startswith("/a/"))])
    assert result.stats["error_classes"] == {"RobotsDenied": 11}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("padding", [20_000, 80_000])
@in_loop
async def test_robots_is_read_whatever_max_body_says(crawled: Crawls, padding: int, encoding: str) -> None:
    """Half a megabyte of it counts, on the wire and decompressed alike, and what is behind that does not hurt."""
    head = b"User-agent: *\n" + b"# padding\n" * 20_000 + b"Disallow: /no\n"
    body = head + b"# padding\n" * padding
    sent = gzip.compress(body) if encoding == "gzip" else body

    def robots(request: web.BaseRequest) -> Answer:
        headers = {"Content-Encoding": "gzip"} if encoding == "gzip" else {}
        return web.Response(body=sent, headers=headers)

    async with Site({"*": "page"}, robots=robots) as site:
        result = await crawled(visit(site.url("/yes"), site.url("/no")), {"download.max_body": 10_000})
    assert (site.paths, result.stats["error_classes"]) == (["/yes"], {"RobotsDenied": 1})


@pytest.mark.parametrize(
    ("settings", "denied"),
    [
        ({}, 0),
        ({"politeness.robots_agent": "MyBot"}, 1),
        ({"politeness.user_agent": "Mozilla/5.0 (compatible; mybot/1.0; +https://example.com/)"}, 1),
        ({"politeness.user_agent": "mybot/1.0", "politeness.robots_agent": "other"}, 0),
    ],
)
@in_loop
async def test_robots_is_read_for_a_name(crawled: Crawls, settings: dict[str, Any], denied: int) -> None:
    """The name is robots_agent, or else the product in the User-Agent."""
    async with Site({"*": "page"}, robots=text("User-agent: mybot\nDisallow: /\n")) as site:
        result = await crawled(visit(site.url()), settings)
    assert result.stats["failed"] == denied


@in_loop
async def test_crawl_delay_is_honoured(crawled: Crawls) -> None:
    """A Crawl-delay in robots.txt keeps requests apart, where it is longer than the setting."""
    rules = text("User-agent: *\nCrawl-delay: 0.08\n")
    async with Site({"/": links(["/1", "/2", "/3"]), "*": "page"}, robots=rules) as site:
        await crawled(visit(site.url()), {"politeness.delay": 0.02})
    assert len(site.asked) == 4
    assert min(gaps(site.asked)) >= 0.08 - SLACK_S


@in_loop
async def test_a_crawl_delay_ends_where_robots_is_switched_off(empty_folder: Path) -> None:
    """A run that goes on with robots = false for the host does not keep the Crawl-delay that it had read."""
    async with Site({"/": links(["/1", "/2"]), "*": "page"}) as site:
        await kept_crawl(site, empty_folder, {"crawl.max_pages": 1})
        group = "User-agent: *\nCrawl-delay: 60"
        change_kept_robots(site, empty_folder, lambda kept: [kept[0], group, kept[2]])
        result = await kept_crawl(site, empty_folder, {f'hosts."127.0.0.1:{site.port}".robots': False})
    assert (result.reason, sorted(site.paths)) == ("finished", ["/", "/1", "/2"])


@in_loop
async def test_robots_is_not_asked_for_where_it_is_off(crawled: Crawls) -> None:
    """politeness.robots = false asks for nothing and obeys nothing."""
    async with Site({"*": "page"}, robots=text("User-agent: *\nDisallow: /")) as site:
        result = await crawled(visit(site.url()), NO_ROBOTS)
    assert (site.paths, site.asked_robots, result.broken) == (["/"], [], False)


# -- strain ------------------------------------------------------------------------------------------------------------


@in_loop
async def test_retry_after_holds_the_host_and_no_other(crawled: Crawls) -> None:
    """After a 429 the host is left alone for as long as it asks; a second host is crawled meanwhile."""
    turned_away: list[float] = []

    def busy(request: web.BaseRequest) -> Answer:
        if not turned_away:
            turned_away.append(asyncio.get_running_loop().time())
            return web.Response(status=429, headers={"Retry-After": "1"})
        return "page"

    paths = [f"/{number}" for number in range(30)]
    async with Site({"*": busy}) as strained, Site({"/": links(paths), "*": "page"}) as other:
        urls = [*(strained.url(path) for path in paths[:4]), other.url()]
        settings = NO_ROBOTS | {"politeness.concurrency_per_host": 1, "crawl.concurrency": 8}
        result = await crawled(type("Both", (Visit,), {"start_urls": urls}), settings)
    assert strained.asked[1].at - strained.asked[0].at >= 1.0 - SLACK_S
    assert max(each.at for each in other.asked) < strained.asked[1].at
    assert (result.stats["done"], result.stats["retries"]) == (35, 1)


@in_loop
async def test_a_host_that_strains_is_asked_less(crawled: Crawls) -> None:
    """Connections that break together halve the host's slots once; good answers give them back one by one."""
    together: list[int] = []

    async def page(request: web.BaseRequest) -> Answer:
        for _ in range(20):
            await asyncio.sleep(0)
        together.append(site.inside)
        if len(together) <= 8:
            assert request.transport is not None
            request.transport.abort()
        return "page"

    async with Site({"*": page}) as site:
        urls = [site.url(f"/{number}") for number in range(80)]
        result = await crawled(visit(*urls), NO_ROBOTS | {"politeness.concurrency_per_host": 8})
    assert together[0] == 8
    assert max(together[8:15]) == 4
    assert max(together[15:]) > 4
    assert (result.stats["done"], result.stats["retries"]) == (80, 8)
