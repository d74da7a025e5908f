"""The shop by Scrapy, same fields, same links, 64 at once."""

import json
import sys
import time

import scrapy
from scrapy.crawler import CrawlerProcess


class Shop(scrapy.Spider):
    """Every page of the shop; an item for each product."""

    name = "shop"

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


process = CrawlerProcess(
    {
        "CONCURRENT_REQUESTS": 64,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 64,
        "DOWNLOAD_DELAY": 0,
        "ROBOTSTXT_OBEY": True,
        "LOG_LEVEL": "ERROR",
        "FEEDS": {sys.argv[2]: {"format": "jsonlines", "overwrite": True}},
    }
)
crawler = process.create_crawler(Shop)
began = time.perf_counter()
process.crawl(crawler, start_urls=[sys.argv[1]])
process.start()
pages = crawler.stats.get_value("response_received_count")
print(json.dumps({"pages": pages - 1, "elapsed_s": time.perf_counter() - began}))
