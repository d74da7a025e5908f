"""A crawl of one URL in a process of its own, watched: ``python watched.py URL [MAX_BODY]`` prints one JSON object.

``stall_s`` is the longest that the event loop did not turn, ``grown_mb`` by how much the peak of resident memory rose,
``outcome`` what became of the page, ``links`` and ``title`` what was found in it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any, ClassVar

import structlog  # noqa: F401 - what a process imports once is no cost of the page

import scraper.downloaders.aiohttp
import scraper.downloaders.httpx
import scraper.selector
from scraper import Request, Response, Spider
from scraper.crawler import Crawler, load_settings, run_in_loop
from scraper.layers import mapping_layer
from scraper.spider import Failure, make_spider

TICK_S = 0.005


class Page(Spider):
    """Asks for one page, and for its title and links."""

    name = "page"
    found: ClassVar[dict[str, Any]] = {}

    async def start(self) -> Any:
        """Give the page named on the command line."""
        yield Request(sys.argv[1], errback=self.failed)

    def parse(self, response: Response) -> Iterator[None]:
        """Look into the page as spiders do."""
        self.found["outcome"] = "page"
        self.found["title"] = response.css("title::text").get()
        self.found["links"] = 0
        for _ in response.follow_all(css="a"):
            self.found["links"] += 1
            yield None

    def failed(self, failure: Failure) -> None:
        """Note the error."""
        self.found["outcome"] = type(failure.error).__name__
        self.found["error"] = str(failure.error)


class Ticker:
    """Measures how long the event loop takes to come round."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._last = perf_counter()
        self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now = perf_counter()
        self.worst_s = max(self.worst_s, now - self._last - TICK_S)
        self._last = now
        self._loop.call_later(TICK_S, self._tick)


def peak_mb() -> float:
    """The peak of this process's resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main() -> None:
    """Crawl and print."""
    settings: dict[str, Any] = {"frontier.use": "memory", "download.retries": 0}
    if len(sys.argv) > 2:
        settings["download.max_body"] = sys.argv[2]
    spider = make_spider(Page, {})
    crawler = Crawler(spider, load_settings(Page, [mapping_layer(settings, "the test")]))
    scraper.selector.parse(b"<p>", "utf-8", "html")  # the parser's own memory is no page's
    before = peak_mb()
    ticker = Ticker()
    result = await crawler.run()
    found = {"outcome": "nothing", **Page.found}
    print(
        json.dumps(
            {**found, "stall_s": ticker.worst_s, "grown_mb": peak_mb() - before, "errors": result.stats["errors"]}
        )
    )


if __name__ == "__main__":
    run_in_loop(main())
