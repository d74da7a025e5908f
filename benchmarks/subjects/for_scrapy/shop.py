"""The shop: every page of it, an item for each product, by Scrapy."""

import scrapy


class Shop(scrapy.Spider):
    """Follows all links."""

    name = "shop"

    async def start(self):
        """Begin at the index."""
        yield scrapy.Request(f"{self.site}/index.html")

    def parse(self, response):
        """Yield the product, if the page is one, and follow all links."""
        if response.css("p.price"):
            yield {
                "url": response.url,
                "name": response.css("h1::text").get(),
                "price": response.css("p.price::text").get(),
                "stock": response.css("p.stock::text").get(),
                "upc": response.css("td.upc::text").get(),
                "description": response.css("div.description p::text").get(),
            }
        yield from response.follow_all(css="a")
