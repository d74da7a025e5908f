"""Pages a second while the SQLite frontier holds requests of so many hosts, with a downloader that answers at once.

    python -m benchmarks.hosts --hosts 100000 [--urls 200000] [--window 50000]

One page leads to all URLs, on the hosts in turn. Once all are known the fetches begin, and after some of them
``--window`` pages are timed. robots.txt is not asked for: it would double the requests of 100,000 hosts alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scraper import Request, Response, Spider
from scraper.crawler import Crawler, Output, calm_collector, load_settings, run_in_loop
from scraper.downloaders.aiohttp import AiohttpDownloader
from scraper.errors import CloseSpider
from scraper.layers import mapping_layer
from scraper.spider import make_spider
from scraper.stats import peak_rss_mb

_SETTINGS = {"politeness.robots": False, "politeness.adaptive": False, "frontier.use": "sqlite"}


class Many(Spider):
    """One page that leads to all others, and an item for each of a window of them."""

    name = "many"
    start_urls = ["http://seed.example/"]
    hosts: int = 10
    urls: int = 200_000
    window: int = 50_000

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.known = asyncio.Event()
        self.warm_up = self.window // 5  # by then the frontier has taken in all URLs
        self.count = 0
        self.seconds = self.cpu_s = 0.0

    def parse(self, response: Response) -> Iterator[Request]:
        """Yield all URLs, then let the fetches begin."""
        for number in range(self.urls):
            yield Request(f"http://host{number % self.hosts}.example/page-{number}", self.parse_page)
        self.known.set()

    def parse_page(self, response: Response) -> Iterator[dict[str, Any]]:
        """Yield an item; end the crawl with the window."""
        self.count += 1
        if self.count == self.warm_up:
            self.seconds, self.cpu_s = -time.perf_counter(), -time.process_time()
        if self.count == self.warm_up + self.window:
            self.seconds += time.perf_counter()
            self.cpu_s += time.process_time()
            raise CloseSpider("measured")
        yield {"url": response.url}


async def measure(hosts: int, urls: int, window: int, folder: Path) -> dict[str, Any]:
    """Crawl until the window's end; return what it took."""
    spider = make_spider(Many, {"hosts": hosts, "urls": urls, "window": window})
    settings = load_settings(Many, [mapping_layer(_SETTINGS, "the benchmark")])

    async def fetch(downloader: Any, request: Request) -> Response:
        if request.callback is None:
            return Response(request.url, request=request)
        await (asyncio.sleep(0) if spider.known.is_set() else spider.known.wait())
        return Response(request.url, request=request, body=b"<html><title>A page</title></html>")

    calm_collector()  # as the command does
    AiohttpDownloader.fetch = fetch  # type: ignore[method-assign]  # all else is as in a real crawl
    await Crawler(spider, settings, outputs=[Output(str(folder / "items.jsonl"))], state=folder).run()
    return {
        "hosts": hosts,
        "urls": spider.window,
        "seconds": spider.seconds,
        "cpu_s": spider.cpu_s,
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def main() -> None:
    """Measure one number of hosts; print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--urls", type=int, default=200_000)
    parser.add_argument("--window", type=int, default=50_000)
    options = parser.parse_args()
    with TemporaryDirectory(prefix="hosts-") as folder:
        print(json.dumps(run_in_loop(measure(options.hosts, options.urls, options.window, Path(folder)))))


if __name__ == "__main__":
    main()
