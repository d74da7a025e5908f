"""A server that takes its time: many slow pages, all waited for together. See examples/slow_site/."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from scraper import Request, Response, Spider


class Slow(Spider):
    """Asks examples/slow_site/server.py for ``n`` pages, which takes as long as asking for one."""

    name = "slow"
    n: int = 5
    """Pages to ask for."""
    url: str = "http://127.0.0.1:5000/page"
    # This is a server of one's own, on one's own machine, made to be asked for thousands of pages at once: politeness
    # would ask it for eight at a time, and slow down because it is slow. On anybody else's site that would be right.
    custom_settings: ClassVar[dict[str, Any]] = {
        "crawl": {"concurrency": 10_000},
        "politeness": {"concurrency_per_host": 10_000, "adaptive": False, "robots": False},
    }

    async def start(self) -> AsyncIterator[Request]:
        """Yield the pages one by one, as the run has room for them."""
        for i in range(self.n):
            yield Request(f"{self.url}/{i}")

    def parse(self, response: Response) -> Iterator[dict[str, Any]]:
        """Yield what the page is called and how long it took."""
        yield {"url": response.url, "title": response.css("h1::text").get(), "waited": round(response.elapsed, 3)}
