"""Product pages whose addresses are known: nothing is followed."""

from scraper import Request, Response, Spider


class Flat(Spider):
    """An item for each product."""

    name = "flat"
    site: str
    pages: int = 10_000

    async def start(self):
        """Ask for all pages."""
        for number in range(self.pages):
            yield Request(f"{self.site}/flat/{number}.html")

    def parse(self, response: Response):
        """Yield the product."""
        yield {
            "url": response.url,
            "name": response.css("h1::text").get(),
            "price": response.css("p.price::text").get(),
            "stock": response.css("p.stock::text").get(),
            "upc": response.css("td.upc::text").get(),
            "description": response.css("div.description p::text").get(),
        }
