"""Product pages whose addresses are known: nothing is followed, by Scrapy."""

import scrapy


class Flat(scrapy.Spider):
    """An item for each product."""

    name = "flat"

    async def start(self):
        """Ask for all pages."""
        for number in range(int(self.pages)):
            yield scrapy.Request(f"{self.site}/flat/{number}.html")

    def parse(self, response):
        """Yield the product."""
        yield {
            "url": response.url,
            "name": response.css("h1::text").get(),
            "price": response.css("p.price::text").get(),
            "stock": response.css("p.stock::text").get(),
            "upc": response.css("td.upc::text").get(),
            "description": response.css("div.description p::text").get(),
        }
