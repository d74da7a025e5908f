"""What a page costs, counted and not timed: a change that makes the hot path dearer fails here, on any machine.

Crawls of a small shop are counted in the crawler's own thread. The server is in another, one request is under way at a time,
and what a crawl of 64 pages takes is subtracted from what one of 192 takes, so that start and end fall out. Counted is what
Python does; a dearer call into C (a slower parser, say) is seen by ``python -m benchmarks.page`` alone.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from scraper import Request, Response, Spider
from scraper.crawler import Crawler, Output, load_settings
from scraper.layers import mapping_layer
from scraper.spider import make_spider

COST = {
    # today's figures, a page of 30 links and five fields: lower them when the hot path gets cheaper, so that the gain stays
    "memory": {
        "calls of Python functions": 269.7,  # 50 ns each and what they do: most of a page's time
        "calls of C functions": 235.1,  # 30 ns each and what they do
        "handles": 4.08,  # given to the event loop, timers too: 1 µs each, and some of them a turn of the loop
        "tasks": 1.01,  # 3 µs each: the fetch, nothing else
    },
    "sqlite": {
        "calls of Python functions": 287.5,
        "calls of C functions": 261.5,
        "handles": 4.5,  # a commit every 32 pages goes to the frontier's thread and back
        "tasks": 1.03,
    },
}
# A regression of 15 % must fail, and chance must not. Over 20 runs, on a busy machine too, the counts in memory spread by
# 0.1 %, those with SQLite, whose thread has a pace of its own, by 1 %, its handles by 5 %.
ROOM = 1.10
SHORT, LONG = 64, 192  # multiples of the 32 pages after which a commit begins
LINKS = 30
PATIENCE_S = 20.0
SLOW_CLOCK = 1000.0
SETTINGS = {
    "crawl.concurrency": 64,
    "politeness.concurrency_per_host": 1,
    "politeness.adaptive": False,
}


class Shop(Spider):
    """The spider of benchmarks/subjects."""

    name = "shop"
    site: str

    async def start(self) -> Any:
        """Begin at the first product."""
        yield Request(f"{self.site}/0.html")

    def parse(self, response: Response) -> Iterator[Any]:
        """Yield the product and follow all links."""
        yield {
            "url": response.url,
            "name": response.css("h1::text").get(),
            "price": response.css("p.price::text").get(),
            "stock": response.css("p.stock::text").get(),
            "upc": response.css("td.upc::text").get(),
            "description": response.css("div.description p::text").get(),
        }
        yield from response.follow_all(css="a")


def page(number: int, pages: int) -> bytes:
    """A product of a shop of so many: 5 KB, 30 links, each product linked to by 30."""
    links = "".join(f'<a href="/{(number + step) % pages}.html">Item {step}</a> ' for step in range(1, LINKS + 1))
    body = (
        f'<h1>Item {number}</h1><p class="price">£{number}.00</p><p class="stock">{number} in stock</p>'
        f'<table><tr><td class="upc">{number:012x}</td></tr></table><div class="description"><p>{"moss " * 300}</p></div>'
    )
    head = '<!DOCTYPE html><html><head><meta charset="utf-8"><title>Item</title></head>'
    return f"{head}<body><nav>{links}</nav>{body}<footer>{'opal ' * 240}</footer></body></html>".encode()


class Server(threading.Thread):
    """Answers one connection's requests, each in one block, so that the client always reads it in one."""

    def __init__(self, pages: int) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(PATIENCE_S)
        self.site = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._answers = {f"/{number}.html".encode(): page(number, pages) for number in range(pages)}

    def run(self) -> None:
        """Answer until the client goes."""
        connection = self._listening.accept()[0]
        connection.settimeout(PATIENCE_S)
        with self._listening, connection:
            while request := connection.recv(65536):
                body = self._answers.get(request.split(b" ", 2)[1])
                head = b"404 Not Found" if body is None else b"200 OK\r\nContent-Type: text/html"
                connection.sendall(
                    b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body or b""), body or b"")
                )


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts handles and tasks. Its clock is slow, so that what happens now and then happens by count alone."""

    def __init__(self) -> None:
        super().__init__()
        self.handles = 0
        self.tasks = 0

    def time(self) -> float:
        return time.monotonic() / SLOW_CLOCK

    def call_soon(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.handles += 1
        return super().call_soon(*args, **options)

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
        self.handles += 1
        return super().call_soon_threadsafe(*args, **options)

    def call_at(self, *args: Any, **options: Any) -> asyncio.TimerHandle:
        self.handles += 1
        return super().call_at(*args, **options)

    def create_task(self, *args: Any, **options: Any) -> Any:
        self.tasks += 1
        return super().create_task(*args, **options)


@dataclass
class Calls:
    """Counts calls in this thread from ``begin`` to ``end``."""

    python: int = 0
    c: int = 0

    def begin(self) -> None:
        """Count from here on."""
        self._former = sys.getprofile()
        sys.setprofile(self._note)

    def end(self) -> None:
        """Count no more."""
        sys.setprofile(self._former)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.python += 1
        elif event == "c_call":
            self.c += 1


def counted(frontier: str, pages: int, folder: Path) -> dict[str, float]:
    """Crawl a shop of so many pages; return what was counted."""
    folder.mkdir()
    server = Server(pages)
    server.start()
    calls = Calls()

    async def crawl() -> None:
        crawler = Crawler(
            make_spider(Shop, {"site": server.site}),
            load_settings(Shop, [mapping_layer({**SETTINGS, "frontier.use": frontier}, "the test")]),
            outputs=[Output(str(folder / "items.jsonl"))],
            state=folder,
        )
        calls.begin()
        try:
            result = await crawler.run()
        finally:
            calls.end()
        assert (result.stats["pages"], result.stats["items"], result.stats["errors"]) == (pages, pages, 0)

    loop = CountingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(crawl())
    server.join()
    return {
        "calls of Python functions": calls.python,
        "calls of C functions": calls.c,
        "handles": loop.handles,
        "tasks": loop.tasks,
    }


def cost(frontier: str, folder: Path) -> dict[str, float]:
    """Return what a page costs."""
    counted(frontier, LINKS + 2, folder / "first")  # fills the caches that last over a crawl
    short, long = counted(frontier, SHORT, folder / "short"), counted(frontier, LONG, folder / "long")
    return {name: (long[name] - short[name]) / (LONG - SHORT) for name in COST[frontier]}


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the figures are of Python 3.11")
@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("frontier", COST)
def test_a_page_costs_no_more_than_it_did(frontier: str, tmp_path: Path) -> None:
    """No count is more than a tenth above the figure in the table."""
    found = cost(frontier, tmp_path)
    dearer = {
        name: f"{found[name]:.1f}, not {figure:.1f}"
        for name, figure in COST[frontier].items()
        if found[name] > ROOM * figure
    }
    assert not dearer
