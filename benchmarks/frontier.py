"""How many URLs the durable frontier takes: push rate, memory and disk at a million and at ten million.

    python -m benchmarks.frontier --urls 1000000 --urls 10000000
    python -m benchmarks.frontier --redis --urls 1000000    (memory a URL in a redis-server of its own)

Each size runs in a process of its own. Pages are settled as a crawl would settle them, without a network: each page
leads to ``--links`` new URLs on ``--hosts`` hosts until all are known, one page in ten is leased and settled meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scraper.contracts import Checkpoint, Settlement
from scraper.frontiers.redis import RedisFrontier
from scraper.frontiers.server import Server
from scraper.frontiers.sqlite import SqliteFrontier
from scraper.http import Request
from scraper.politeness.hosts import Hosts
from scraper.stats import peak_rss_mb
from tests.redis_servers import RedisServer, running

_TAIL = 500_000  # URLs over which the rate at a size is measured


async def fill(path: Path, urls: int, hosts: int, links: int) -> dict[str, Any]:
    """Take in ``urls`` URLs and return what that took."""
    frontier = SqliteFrontier(Hosts(1_000_000), path=path)
    await frontier.open(lambda: None)
    began = last_mark = time.perf_counter()
    last_pushed = pushed = settled = 0
    rates: dict[int, float] = {}
    while pushed < urls:
        children = [
            Request.link(f"http://host{number % hosts}.example/catalogue/item-{number}/index.html", "parse_item")
            for number in range(pushed, min(pushed + links, urls))
        ]
        pushed += len(children)
        leases = frontier.lease(links // 10, time.monotonic())
        for lease in leases:
            frontier.release(lease, time.monotonic())
            frontier.settle(Settlement(lease))
        settled += len(leases)
        frontier.settle(Settlement(None, children))
        if pushed % (links * 32) == 0 or pushed >= urls:
            await frontier.commit(Checkpoint())
        if not frontier.has_room:
            await frontier.commit(Checkpoint())
        if pushed - last_pushed >= _TAIL or pushed >= urls:
            now = time.perf_counter()
            rates[pushed] = (pushed - last_pushed) / (now - last_mark)
            last_mark, last_pushed = now, pushed
    elapsed = time.perf_counter() - began
    counts = frontier.counts
    assert counts.seeded == urls == counts.done + counts.pending, counts
    await frontier.close()
    began = time.perf_counter()
    again = SqliteFrontier(Hosts(1_000_000), path=path)
    ready = asyncio.Event()
    await again.open(ready.set)
    while not again.lease(1, time.monotonic()):
        ready.clear()
        await ready.wait()
    resume_s = time.perf_counter() - began
    await again.close()
    return {
        "urls": urls,
        "settled": settled,
        "seconds": round(elapsed, 1),
        "urls_per_s": round(urls / elapsed),
        "urls_per_s_at": {pushed: round(rate) for pushed, rate in rates.items() if pushed in (_TAIL, 10**6, urls)},
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "bytes_per_url": round(sum(file.stat().st_size for file in path.parent.iterdir()) / urls),
        "first_lease_after_restart_s": round(resume_s, 3),
    }


async def fill_redis(folder: Path, urls: int, hosts: int, links: int) -> dict[str, Any]:
    """Take in ``urls`` URLs, none of which is fetched, and return what that took in Redis."""
    with running(folder) as server:
        frontier = RedisFrontier(Server(server.url, print), "bench", "worker", concurrency=8)
        await frontier.open(lambda: None)
        empty = _used(server)
        began = time.perf_counter()
        for start in range(0, urls, links):
            frontier.settle(
                Settlement(
                    None,
                    [
                        Request.link(
                            f"http://host{number % hosts}.example/catalogue/item-{number}/index.html", "parse_item"
                        )
                        for number in range(start, min(start + links, urls))
                    ],
                )
            )
            if start % (links * 32) == 0:
                await frontier.commit(Checkpoint())
        await frontier.commit(Checkpoint())
        elapsed = time.perf_counter() - began
        assert frontier.counts.seeded == frontier.counts.pending == urls, frontier.counts
        used = _used(server)
        await frontier.close()
    return {
        "urls": urls,
        "urls_per_s": round(urls / elapsed),
        "bytes_per_url": round((used["used_memory"] - empty["used_memory"]) / urls, 1),
        "rss_bytes_per_url": round((used["used_memory_rss"] - empty["used_memory_rss"]) / urls, 1),
    }


def _used(server: RedisServer) -> dict[str, int]:
    lines = server.send("INFO", "memory").decode().splitlines()
    return {name: int(value) for line in lines for name, _, value in [line.partition(":")] if value.isdigit()}


def _measure_redis(urls: int, hosts: int, links: int) -> None:
    with TemporaryDirectory(prefix="frontier-") as folder:
        print(json.dumps(asyncio.run(fill_redis(Path(folder), urls, hosts, links))), flush=True)


def _measure(urls: int, hosts: int, links: int) -> None:
    with TemporaryDirectory(prefix="frontier-") as folder:
        print(json.dumps(asyncio.run(fill(Path(folder) / "frontier.db", urls, hosts, links))), flush=True)


def main() -> None:
    """Measure each size in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--urls", type=int, action="append", help="how many URLs; may be repeated (1,000,000)")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--links", type=int, default=100)
    parser.add_argument("--redis", action="store_true", help="in Redis, not in SQLite")
    options = parser.parse_args()
    for urls in options.urls or [1_000_000]:
        process = multiprocessing.get_context("spawn").Process(
            target=_measure_redis if options.redis else _measure, args=(urls, options.hosts, options.links)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
