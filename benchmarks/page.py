"""The cost of one page of the shop, stage by stage: each stage alone, in a loop, and a whole crawl beside them.

    python -m benchmarks.page [--quick] [--json] [--server-cpu N]

Figures are µs of processor time a page, all threads, the least of several loops. Each stage goes through the interface that a
crawl uses; a stage that begins with a dot is part of the one above.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.sites import make_shop, nginx
from benchmarks.subjects.framework.shop import Shop
from scraper.addresses import AddressGuard
from scraper.callbacks import Checker
from scraper.contracts import Checkpoint, Frontier, Settlement
from scraper.crawler import Crawler, Output, load_settings, run_in_loop
from scraper.downloaders.aiohttp import AiohttpDownloader
from scraper.exporters.jsonl import JsonlExporter
from scraper.frontiers.memory import MemoryFrontier
from scraper.frontiers.sqlite import SqliteFrontier
from scraper.http import Request, Response
from scraper.layers import mapping_layer
from scraper.middlewares.decompress import ENCODINGS
from scraper.politeness.hosts import Hosts
from scraper.spider import make_spider

_LOOPS = 7
_AT_ONCE = 64
_PAGES_A_COMMIT = 32
_BLOCK = 256 * 1024
_SETTINGS = {
    "crawl.concurrency": _AT_ONCE,
    "politeness.concurrency_per_host": _AT_ONCE,
    "politeness.adaptive": False,
}


class Stages:
    """Times stages; ``found`` holds their µs and what they are."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self.found: dict[str, dict[str, Any]] = {}

    def time(self, stage: str, about: str, work: Callable[[], Any], less: str | None = None) -> None:
        """Time a call that is one page's worth; ``less`` names a stage that it does besides, to be taken off."""
        best = min(self._loop(work) for _ in range(_LOOPS))
        self.add(stage, about, best - (self.found[less]["us"] if less else 0.0))

    async def time_async(self, stage: str, about: str, work: Callable[[int], Awaitable[Any]]) -> None:
        """Time a coroutine function that does so many pages' worth."""
        best = float("inf")
        for _ in range(_LOOPS):
            gc.collect()
            began = time.process_time()
            await work(self.repeats)
            best = min(best, (time.process_time() - began) * 1e6 / self.repeats)
        self.add(stage, about, best)

    def add(self, stage: str, about: str, us: float) -> None:
        """Note a stage's figure."""
        self.found[stage] = {"us": round(us, 1), "about": about}

    def _loop(self, work: Callable[[], Any]) -> float:
        gc.collect()
        began = time.process_time()
        for _ in range(self.repeats):
            work()
        return (time.process_time() - began) * 1e6 / self.repeats


async def measure(site: str, work: Path, stages: Stages, pages: int) -> None:
    """Time all stages on a product of the shop, then the crawl of a whole one."""
    url = f"{site}/catalogue/item-42.html"
    downloader = AiohttpDownloader(
        guard=AddressGuard("always"), user_agent="scraper", encodings=ENCODINGS, verify_tls=True
    )
    await downloader.open()

    async def fetch(repeats: int) -> None:
        async def one_after_the_other() -> None:
            for _ in range(repeats // _AT_ONCE):
                await downloader.fetch(Request(url))

        await asyncio.gather(*(one_after_the_other() for _ in range(_AT_ONCE)))

    await stages.time_async("fetch", f"aiohttp on loopback, {_AT_ONCE} at once", fetch)
    answer = await downloader.fetch(Request(url))
    await downloader.close()
    _time_document(stages, answer)
    for name, about in (
        ("settle 30 links, in memory", "lease, fingerprints, dedupe and queue; 29 of the links are known"),
        ("settle 30 links, SQLite", f"the same, durable: a commit each {_PAGES_A_COMMIT} pages, its thread included"),
    ):
        is_durable = "SQLite" in name
        frontier: Frontier = (
            SqliteFrontier(Hosts(_AT_ONCE), path=work / "frontier.db")
            if is_durable
            else MemoryFrontier(Hosts(_AT_ONCE))
        )
        await frontier.open(lambda: None)
        await stages.time_async(name, about, _settling(frontier, site))
        await frontier.close()
    await _time_item(stages, answer, work)
    for frontier_name, about in (("memory", "in memory"), ("sqlite", "durable")):
        us = min([await _crawl(site, work / f"{frontier_name}-{n}", frontier_name, pages) for n in range(3)])
        stages.add(f"a whole page, {about}", "of a crawl of the shop; what the stages leave is scheduling", us)


def _time_document(stages: Stages, answer: Response) -> None:
    request = answer.request

    def again() -> Response:
        return Response(answer.url, request=request, headers=answer.headers, body=answer.body)

    spider = make_spider(Shop, {"site": answer.request.origin})
    checker = Checker(spider)
    stages.time("encoding", "byte order mark, header, meta element, UTF-8", lambda: again().encoding)
    stages.time("parse", "lxml, once a page, from bytes", lambda: again().selector, less="encoding")
    parsed = again()
    [item] = [each for each in spider.parse(parsed) if isinstance(each, dict)]

    def fields() -> dict[str, Any]:
        [found] = [each for each in spider.parse(parsed) if isinstance(each, dict)]
        return found

    assert fields() == item
    about = "30 links selected, joined, brought to normal form, made Requests"
    stages.time("follow_all", about, lambda: list(parsed.follow_all(css="a")))
    links = list(parsed.follow_all(css="a"))
    assert len(links) == 30, len(links)
    urls = [link.url for link in links]
    stages.time(
        "· of it 30 Request objects", "URLs in normal form given", lambda: [Request.link(each) for each in urls]
    )
    stages.time("five fields", "six CSS queries, the callback's own code included", fields, less="follow_all")
    stages.time(
        "checks", "what the callback yields is fit to be stored", lambda: [checker.check(link) for link in links]
    )
    stages.time("fingerprints", "30 of 128 bits; also part of settling", lambda: [link.fingerprint for link in links])


def _settling(frontier: Frontier, site: str) -> Callable[[int], Awaitable[None]]:
    """Return what leases and settles pages that lead to 30 links each, one of them new."""
    numbers = count()
    old = [Request.link(f"{site}/catalogue/item-{number}.html") for number in range(29)]
    frontier.settle(Settlement(None, [Request.link(f"{site}/index.html"), *old]))

    async def settle(repeats: int) -> None:
        for page in range(repeats):
            leases = frontier.lease(1, time.monotonic())
            while not leases:
                await frontier.commit(Checkpoint())
                leases = frontier.lease(1, time.monotonic())
            frontier.release(leases[0], time.monotonic())
            new = Request.link(f"{site}/catalogue/new-{next(numbers)}.html")
            frontier.settle(Settlement(leases[0], [*old, new]))
            if page % _PAGES_A_COMMIT == 0:
                await frontier.commit(Checkpoint())

    return settle


async def _time_item(stages: Stages, answer: Response, work: Path) -> None:
    spider = make_spider(Shop, {"site": answer.request.origin})
    [item] = [each for each in spider.parse(answer) if isinstance(each, dict)]
    exporter = JsonlExporter(str(work / "item.jsonl"), replace=True)
    await exporter.open()

    async def write(repeats: int) -> None:
        for _ in range(repeats):
            exporter.write(exporter.encode(item))
            if exporter.buffered >= _BLOCK:
                await exporter.flush()

    await stages.time_async("item", f"to a JSON line, written in blocks of {_BLOCK // 1024} KiB", write)
    await exporter.close()


async def _crawl(site: str, state: Path, frontier: str, pages: int) -> float:
    state.mkdir()
    layers = [mapping_layer({**_SETTINGS, "frontier.use": frontier}, "the benchmark")]
    crawler = Crawler(
        make_spider(Shop, {"site": site}),
        load_settings(Shop, layers),
        outputs=[Output(str(state / "items.jsonl"), replace=True)],
        state=state,
    )
    gc.collect()
    began = time.process_time()
    result = await crawler.run()
    assert result.stats["pages"] == pages, result.stats
    return (time.process_time() - began) * 1e6 / pages


def main() -> None:
    """Print the stages as a table, or as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short loops")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--server-cpu", type=int, help="the core that nginx gets")
    options = parser.parse_args()
    products = 600 if options.quick else 4_000
    stages = Stages(128 if options.quick else 1_024)
    with TemporaryDirectory(prefix="page-") as folder:
        work = Path(folder)
        work.chmod(0o755)  # nginx's worker is another user
        make_shop(work / "site", products)
        with nginx(work / "site", work, options.server_cpu) as site:
            run_in_loop(measure(site, work, stages, 1 + products // 20 + products))
    if options.json:
        print(json.dumps(stages.found))
        return
    for stage, found in stages.found.items():
        print(f"{found['us']:>8.1f} µs  {stage:<30} {found['about']}")


if __name__ == "__main__":
    main()
