"""The same crawls by a loop written by hand: aiohttp, uvloop, parsel, orjson, a queue and 64 workers, or as many as said.

python by_hand.py WORKLOAD SITE PAGES OUTPUT CONCURRENCY
"""

import asyncio
import json
import resource
import sys
import time
from urllib.parse import urldefrag, urljoin

import aiohttp
import orjson
import uvloop
from parsel import Selector


def product(url: str, page: Selector) -> dict[str, object]:
    """Return the five fields of a product."""
    return {
        "url": url,
        "name": page.css("h1::text").get(),
        "price": page.css("p.price::text").get(),
        "stock": page.css("p.stock::text").get(),
        "upc": page.css("td.upc::text").get(),
        "description": page.css("div.description p::text").get(),
    }


def shop(url: str, page: Selector) -> dict[str, object] | None:
    """Return the product, if the page is one."""
    return product(url, page) if page.css("p.price") else None


def docs(url: str, page: Selector) -> dict[str, object]:
    """Return a manual's page."""
    return {
        "url": url,
        "title": page.css("title::text").get(),
        "headings": page.css("h1::text, h2::text, h3::text").getall(),
    }


def slow(url: str, page: Selector) -> dict[str, object]:
    """Return a slow page."""
    return {"url": url, "title": page.css("h1::text").get()}


async def main(workload: str, site: str, pages: int, output: str, concurrency: int) -> None:
    """Crawl; print pages and seconds as JSON."""
    parse = {"shop": shop, "flat": product, "docs": docs, "slow": slow}[workload]
    starts = {
        "shop": lambda: [f"{site}/index.html"],
        "docs": lambda: [f"{site}/html/index.html"],
        "flat": lambda: [f"{site}/flat/{number}.html" for number in range(pages)],
        "slow": lambda: [f"{site}/page/{number}" for number in range(pages)],
    }[workload]()
    follows = workload in ("shop", "docs")
    queue: asyncio.Queue[str] = asyncio.Queue()
    for start in starts:
        queue.put_nowait(start)
    seen = set(starts)
    done = 0
    began = time.perf_counter()
    with open(output, "wb") as file:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

            async def worker() -> None:
                nonlocal done
                while True:
                    url = await queue.get()
                    async with session.get(url) as response:
                        text = await response.text()
                    done += 1
                    page = Selector(text=text, type="html")
                    item = parse(url, page)
                    if item is not None:
                        file.write(orjson.dumps(item) + b"\n")
                    if follows:
                        for href in page.css("a::attr(href)").getall():
                            link = urldefrag(urljoin(url, href)).url
                            if link not in seen and link.startswith(site):
                                seen.add(link)
                                queue.put_nowait(link)
                    queue.task_done()

            workers = [asyncio.create_task(worker()) for _ in range(concurrency)]
            await queue.join()
            for task in workers:
                task.cancel()
    print(json.dumps({"pages": done, "elapsed_s": time.perf_counter() - began}))


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
