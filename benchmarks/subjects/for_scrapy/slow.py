"""Pages that take three seconds each, by Scrapy."""

import scrapy


class Slow(scrapy.Spider):
    """An item for each page."""

    name = "slow"

    async def start(self):
        """Ask for all pages."""
        for number in range(int(self.pages)):
            yield scrapy.Request(f"{self.site}/page/{number}")

    def parse(self, response):
        """Yield the page."""
        yield {"url": response.url, "title": response.css("h1::text").get()}
