"""The shop by a hand-written loop: aiohttp, uvloop, parsel, orjson, a queue and 64 workers."""

import asyncio
import json
import sys
import time
from urllib.parse import urldefrag, urljoin

import aiohttp
import orjson
import uvloop
from parsel import Selector


async def main(start: str, output: str) -> None:
    """Crawl; print pages and seconds as JSON."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    queue.put_nowait(start)
    seen = {start}
    pages = 0
    began = time.perf_counter()
    with open(output, "wb") as file:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:

            async def worker() -> None:
                nonlocal pages
                while True:
                    url = await queue.get()
                    async with session.get(url) as response:
                        text = await response.text()
                    pages += 1
                    page = Selector(text=text)
                    if page.css("p.price"):
                        item = {
                            "url": url,
                            "name": page.css("h1::text").get(),
                            "price": page.css("p.price::text").get(),
                            "stock": page.css("p.stock::text").get(),
                            "upc": page.css("td.upc::text").get(),
                            "description": page.css("div.description p::text").get(),
                        }
                        file.write(orjson.dumps(item) + b"\n")
                    for href in page.css("a::attr(href)").getall():
                        link = urldefrag(urljoin(url, href)).url
                        if link not in seen:
                            seen.add(link)
                            queue.put_nowait(link)
                    queue.task_done()

            workers = [asyncio.create_task(worker()) for _ in range(64)]
            await queue.join()
            for task in workers:
                task.cancel()
    print(json.dumps({"pages": pages, "elapsed_s": time.perf_counter() - began}))


uvloop.run(main(sys.argv[1], sys.argv[2]))
