"""Sites with endless links: each trap is bounded, the run ends by itself, and other hosts are crawled whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from conftest import Crawls
from servers import Answer, Site, in_loop, in_turn, links, redirect

from scraper import Response, Spider

OTHER = {"/": links(f"/{number}" for number in range(40)), "*": links(["/", "/1", "/2"])}


def visit(*urls: str) -> type[Spider]:
    """Return a spider that starts at the URLs and follows every link."""

    class Visit(Spider):
        name = "visit"
        start_urls = list(urls)

        def parse(self, response: Response) -> Any:
            yield {"url": response.url}
            yield from response.follow_all(css="a")

    return Visit


def calendar(request: web.BaseRequest) -> Answer:
    """A month, with links to the two after it and to the first one."""
    number = int("0" + request.path.strip("/").replace("/", ""))
    return links(["/", *(f"/{later // 100}/{later % 100:02}" for later in (number + 1, number + 2))])


def relative(request: web.BaseRequest) -> Answer:
    """A page whose relative link lacks its slash."""
    return links(["shop/list/"])


def longer(request: web.BaseRequest) -> Answer:
    """A page that adds to its own address."""
    return links([request.path + "x" * 200])


def filters(request: web.BaseRequest) -> Answer:
    """A list whose every link adds to the query."""
    return links([f"/list?{request.query_string}&a=1", f"/list?{request.query_string}&b=1"])


@pytest.mark.parametrize(
    ("page", "settings", "cause", "asked"),
    [
        (calendar, {"crawl.max_depth": 7}, "depth", 15),
        (calendar, {"crawl.max_pages_per_host": 50}, "pages-per-host", 50),
        (relative, {}, "path-repeat", 4),
        (relative, {"crawl.max_path_repeats": 5}, "path-repeat", 6),
        (longer, {}, "length", 11),
        (filters, {"crawl.max_queries_per_path": 30}, "queries", 31),
    ],
)
@in_loop
async def test_an_endless_site(crawled: Crawls, page: Any, settings: Mapping[str, Any], cause: str, asked: int) -> None:
    """It is asked as often as its cap says; what is left alone is counted by its cause; the other site is crawled whole."""
    async with Site({"*": page}) as trap, Site(OTHER) as other:
        result = await crawled(visit(trap.url(), other.url()), settings)
    stats = result.stats
    assert (result.reason, result.broken) == ("finished", False)
    assert len(trap.asked) == asked
    assert set(other.times.values()) == {1}
    assert len(other.asked) == 41
    assert set(stats["refused"]) == {cause}
    assert stats["out_of_scope"] == stats["refused"][cause] > 0
    assert (stats["pages"], len(result.items)) == (asked + 41, asked + 41)


@in_loop
async def test_what_takes_from_the_pages_of_a_host(crawled: Crawls) -> None:
    """Links seen before, retries, redirects, failures, robots.txt and self.fetch take nothing from a host's pages."""
    pages = {
        "/": links(["/flaky", "/moved", "/gone", *["/flaky", "/moved"] * 10]),
        "/flaky": in_turn(503, links(["/more/1"])),
        "/moved": redirect("/target"),
        "/target": links(["/more/2", "/"]),
        "*": lambda request: links(f"{request.path}{number}" for number in range(10)),
        "/gone": 404,
        "/side": "side",
    }
    async with Site(pages) as site:

        class Fetches(visit(site.url())):  # type: ignore[misc]
            async def parse(self, response: Response) -> Any:
                await self.fetch(site.url("/side"))
                for value in super().parse(response):
                    yield value

        # One slot: how the failure ends is known before the others begin.
        settings = {"crawl.max_pages_per_host": 6, "politeness.concurrency_per_host": 1, "crawl.order": "breadth"}
        result = await crawled(Fetches, settings)
    assert result.reason == "finished"
    assert result.stats["pages"] == 6
    assert (result.stats["retries"], result.stats["redirects"], result.stats["failed"]) == (1, 1, 1)


@in_loop
async def test_bounds_are_one_clear_line(crawled: Crawls) -> None:
    """A fetch and a redirect out of bounds fail with the name of the bound."""
    async with Site({"/": redirect("/a/a/a/a"), "*": "page"}) as site:

        class Tries(visit(site.url(), site.url("/ok"))):  # type: ignore[misc]
            async def parse(self, response: Response) -> Any:
                try:
                    await self.fetch(site.url("/b/b/b/b"))
                except Exception as error:
                    yield {"error": str(error)}

        result = await crawled(Tries)
    assert "crawl.max_path_repeats" in result.items[0]["error"]
    assert result.stats["error_classes"] == {"OutOfScope": 1}
