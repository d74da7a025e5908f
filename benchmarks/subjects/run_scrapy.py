"""Runs a Scrapy spider, 64 requests at once or as many as said, and prints pages and seconds as JSON.

python run_scrapy.py SPIDER.py SITE PAGES OUTPUT CONCURRENCY
"""

import json
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.utils.spider import iter_spider_classes


def main(path, site, pages, output, concurrency):
    """Crawl; print pages and seconds."""
    spec = spec_from_file_location("subject", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    process = CrawlerProcess(
        {
            "CONCURRENT_REQUESTS": int(concurrency),
            "CONCURRENT_REQUESTS_PER_DOMAIN": int(concurrency),
            "DOWNLOAD_DELAY": 0,
            "ROBOTSTXT_OBEY": True,
            "LOG_LEVEL": "ERROR",
            "FEEDS": {output: {"format": "jsonlines", "overwrite": True}},
        }
    )
    crawler = process.create_crawler(next(iter_spider_classes(module)))
    began = time.perf_counter()
    process.crawl(crawler, site=site, pages=pages)
    process.start()
    elapsed_s = time.perf_counter() - began
    answers = crawler.stats.get_value("response_received_count")
    robots = crawler.stats.get_value("robotstxt/response_count", 0)
    print(json.dumps({"pages": answers - robots, "elapsed_s": elapsed_s, "version": scrapy.__version__}))


main(*sys.argv[1:])
