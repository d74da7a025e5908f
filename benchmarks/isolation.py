"""What bad hosts cost the good ones: seven hosts crawled alone, and beside a silent one, one at 429 and names without DNS.

    python -m benchmarks.isolation [--rounds 5] [--pages 300]

The good hosts' pages a second, with and without the bad ones, in turn; the ratio of the medians is to be 0.95 or more.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from aiohttp import web

from scraper import Request, Response, Spider, run
from scraper.errors import CloseSpider

GOOD = [f"127.0.0.{number}" for number in range(10, 17)]
SILENT, BUSY = "127.0.0.2", "127.0.0.3"
SETTINGS = {"frontier.use": "memory", "politeness.robots": False, "download.timeout": 3}


class Hosts(Spider):
    """Fetches all pages of the good hosts, however the others fare."""

    name = "hosts"
    port: int
    pages: int
    bad: bool

    async def start(self) -> Any:
        """Give the bad hosts' pages first."""
        self._left, self._began = self.pages * len(GOOD), time.perf_counter()
        if self.bad:
            for number in range(20):
                yield Request(f"http://{SILENT}:{self.port}/{number}", errback=self.failed)
                yield Request(f"http://{BUSY}:{self.port}/{number}", errback=self.failed)
                yield Request(f"http://no-such-host-{number}.invalid/", errback=self.failed)
        for host in GOOD:
            yield Request(f"http://{host}:{self.port}/0")

    def parse(self, response: Response) -> Iterator[Request]:
        """Follow the links of a good host's page; the last page of all ends the run."""
        self._left -= 1
        yield from response.follow_all(css="a")
        if not self._left:
            _rates.append(self.pages * len(GOOD) / (time.perf_counter() - self._began))
            raise CloseSpider("all good pages are here")

    def failed(self, failure: Any) -> None:
        """Expect it."""


_rates: list[float] = []


def main() -> None:
    """Measure in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pages", type=int, default=300, help="of each good host")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(_serve(options.pages))
        return
    command = [sys.executable, "-m", "benchmarks.isolation", "--serve", "--pages", str(options.pages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        try:
            rates: dict[bool, list[float]] = {False: [], True: []}
            for round_ in range(options.rounds):
                for bad in (False, True) if round_ % 2 else (True, False):
                    run(Hosts, args={"port": port, "pages": options.pages, "bad": bad}, settings=SETTINGS)
                    rates[bad].append(_rates.pop())
        finally:
            server.terminate()
    alone, beside = median(rates[False]), median(rates[True])
    print(f"alone {alone:,.0f} pages/s   beside bad hosts {beside:,.0f} pages/s   ratio {beside / alone:.3f}")


async def _serve(pages: int) -> None:
    """Answer for all hosts on one free port, by the Host header."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        host = request.host.partition(":")[0]
        if host == SILENT:
            await asyncio.Event().wait()
        if host == BUSY:
            return web.Response(status=429, headers={"Retry-After": "300"})
        number = int(request.path[1:])
        links = "".join(f'<a href="/{(number + step) % pages}">x</a>' for step in range(1, 20))
        return web.Response(text=f"<title>{number}</title>{links}", content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, SILENT, 0).start()
    port = runner.addresses[0][1]
    for host in (BUSY, *GOOD):
        await web.TCPSite(runner, host, port).start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
