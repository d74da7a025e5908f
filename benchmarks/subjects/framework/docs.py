"""A manual: the title and the headings of every page."""

from scraper import Request, Response, Spider


class Docs(Spider):
    """Follows all links of the site."""

    name = "docs"
    allowed_domains = ["127.0.0.1"]
    site: str

    async def start(self):
        """Begin at the table of contents."""
        yield Request(f"{self.site}/html/index.html")

    def parse(self, response: Response):
        """Yield the page and follow its links to other pages of the site."""
        yield {
            "url": response.url,
            "title": response.css("title::text").get(),
            "headings": response.css("h1::text, h2::text, h3::text").getall(),
        }
        yield from response.follow_all(css="a")
