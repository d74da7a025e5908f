"""Pages that take three seconds each."""

from scraper import Request, Response, Spider


class Slow(Spider):
    """An item for each page."""

    name = "slow"
    site: str
    pages: int = 1000

    async def start(self):
        """Ask for all pages."""
        for number in range(self.pages):
            yield Request(f"{self.site}/page/{number}")

    def parse(self, response: Response):
        """Yield the page."""
        yield {"url": response.url, "title": response.css("h1::text").get()}
