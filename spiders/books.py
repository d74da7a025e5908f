"""A bookshop: every product of every listing page, as one complete item each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scraper import Request, Response, Spider

STARS = {"Zero": 0, "One": 1, "Two": 2, "Three": 3, "Four": 4, "Five": 5}


class Books(Spider):
    """The practice bookshop at books.toscrape.com; with ``--demo``, the bundled one, which has the same mark-up."""

    name = "books"
    start_urls = ["https://books.toscrape.com/"]
    allowed_domains = ["books.toscrape.com"]
    max_pages: int = 50
    """Listing pages to read, of 20 books each."""

    def parse(self, response: Response, page: int = 1) -> Iterator[Request]:
        """Follow a listing page: its books and the next page."""
        yield from response.follow_all(css="article.product_pod h3 a", callback=self.parse_book)
        if page < self.max_pages:
            yield from response.follow_all(css="li.next a", cb_kwargs={"page": page + 1})

    def parse_book(self, response: Response) -> Iterator[dict[str, Any]]:
        """Yield the one book of a product page."""
        product = response.css("article.product_page")
        facts = dict(zip(product.css("th::text").getall(), product.css("td::text").getall(), strict=True))
        yield {
            "url": response.url,
            "title": product.css("h1::text").get(),
            "category": response.css("ul.breadcrumb li:nth-child(3) a::text").get(),
            "price": product.css("p.price_color::text").get(),
            "rating": STARS[product.css("p.star-rating::attr(class)").re_first(r"star-rating (\w+)", "Zero")],
            "stock": int(product.css("p.availability").re_first(r"(\d+) available", "0")),
            "upc": facts["UPC"],
            "description": product.css("#product_description + p::text").get(""),
            "reviews": int(facts["Number of reviews"]),
            "image": response.urljoin(product.css("#product_gallery img").attrib["src"]),
        }
