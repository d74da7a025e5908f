"""A documentation site: every page below the folder of its start URL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from scraper import Request, Response, Spider

NOT_A_PAGE = re.compile(
    r"\.(?:7z|asc|avif|bz2|css|csv|deb|dmg|docx?|epub|exe|gif|gz|ico|inv|ipynb|iso|jar|jpe?g|js|json|map|mov|mp[34]|msi"
    r"|odt|og[agv]|otf|pdf|png|pptx?|ps|py|rar|rpm|rss|rst|sig|svgz?|tar|tgz|tiff?|ttf|txt|wasm|wav|web[mp]|whl|woff2?"
    r"|xlsx?|xml|xz|ya?ml|zip|zst)(?:\?|$)",
    re.IGNORECASE,
)
"""URLs whose last suffix says that they are files, not pages."""


class Docs(Spider):
    """Any manual: ``scrape run docs -a start=https://docs.example.com/guide/``."""

    name = "docs"

    def __init__(self, start: str = "https://docs.python.org/3/", **arguments: Any) -> None:
        super().__init__(**arguments)
        first = Request(start).url
        self.start_urls = [first]
        self.prefix = urljoin(first, ".")

    def parse(self, response: Response) -> Iterator[dict[str, Any] | Request]:
        """Yield the page and follow its links to others of the manual."""
        # A redirect can lead out of the manual, and a URL without a suffix can be a file after all.
        if not response.url.startswith(self.prefix) or "html" not in response.headers.get("Content-Type", "html"):
            return
        links = response.links()
        yield {
            "url": response.url,
            "title": squeezed(response.css("title::text").get("")),
            "headings": [squeezed(heading.xpath("string()").get("")) for heading in response.css("h1, h2, h3")],
            "links": len(links),
        }
        yield from response.follow_all(
            url for url in links if url.startswith(self.prefix) and not NOT_A_PAGE.search(url)
        )


def squeezed(text: str) -> str:
    """Return the text with every run of white space, no-break spaces too, as one space."""
    return " ".join(text.split())
