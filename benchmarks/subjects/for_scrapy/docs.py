"""A manual: the title and the headings of every page, by Scrapy."""

import scrapy


class Docs(scrapy.Spider):
    """Follows all links of the site."""

    name = "docs"
    allowed_domains = ["127.0.0.1"]

    async def start(self):
        """Begin at the table of contents."""
        yield scrapy.Request(f"{self.site}/html/index.html")

    def parse(self, response):
        """Yield the page and follow its links to other pages of the site."""
        yield {
            "url": response.url,
            "title": response.css("title::text").get(),
            "headings": response.css("h1::text, h2::text, h3::text").getall(),
        }
        yield from response.follow_all(css='a:not([href^="mailto:"])')  # it raises for those
