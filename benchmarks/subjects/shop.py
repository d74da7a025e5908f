"""The shop's spider, written as users write one."""

from scraper import Response, Spider


class Shop(Spider):
    """Every page of the shop; an item for each product."""

    name = "shop"

    def __init__(self, start: str) -> None:
        super().__init__()
        self.start_urls = [start]

    def parse(self, response: Response):
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
