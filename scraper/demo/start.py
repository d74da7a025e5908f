"""Having any spider start at the demo."""

from __future__ import annotations

from typing import Any

from scraper.http import Request
from scraper.urls import hostname_of


def start_at(spider: Any, base: str) -> None:
    """Have the spider start at the demo's first page and stay on the demo, whatever it would do otherwise."""

    async def start() -> Any:
        yield Request(base)

    spider.start_urls = [base]
    if spider.allowed_domains:
        spider.allowed_domains = [hostname_of(base)]
    vars(spider)["start"] = start
