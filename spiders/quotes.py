"""Quotations, page after page: all of them, or those with one tag."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, urljoin

from scraper import Request, Response, Spider


class Quotes(Spider):
    """The practice site at quotes.toscrape.com."""

    name = "quotes"
    start_urls = ["https://quotes.toscrape.com/"]
    allowed_domains = ["quotes.toscrape.com"]
    tag: str = ""
    """Only quotations with this tag, such as ``humor``."""

    async def start(self) -> AsyncIterator[Request]:
        """Yield the first page of the site, or of the tag."""
        for url in self.start_urls:
            yield Request(urljoin(url, f"/tag/{quote(self.tag, safe='')}/") if self.tag else url)

    def parse(self, response: Response) -> Iterator[dict[str, Any] | Request]:
        """Yield the quotations of a page and follow it to the next one."""
        for quotation in response.css("div.quote"):
            yield {
                "text": quotation.css("span.text::text").get(),
                "author": quotation.css("small.author::text").get(),
                "tags": quotation.css("div.tags a.tag::text").getall(),
            }
        yield from response.follow_all(css="li.next a")
