"""What a server sees, to the kernel's clock, of crawls that are slow to connect, several at once, or told about one host."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from itertools import pairwise
from types import TracebackType
from typing import Any

import pytest
import trustme
from aiohttp import web
from conftest import Crawls
from servers import Answer, Site, in_loop, links

from scraper import CloseSpider, Request, Response, Spider
from scraper.crawler import Crawler

DELAY_S = 0.04
CLOCK_S = 1e-6
"""How exactly the sum of a monotonic and a wall clock can be had."""
NO_ROBOTS = {"politeness.robots": False}
_SO_TIMESTAMPNS = 35  # Linux: the kernel notes when each segment came


class KernelSite:
    """A raw server, each connection in a thread, that notes when the kernel got each request's first byte.

    With ``tls`` it speaks TLS, and every other connection's handshake takes three delays. ``most_at_once`` counts requests
    that came and were not answered. Paths decide the answer; see ``_answer``.
    """

    def __init__(self, robots: str = "", tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.arrivals: list[tuple[float, str]] = []
        self.most_at_once = 0
        self.connections = 0
        self._robots = robots
        self._inside = 0
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> KernelSite:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)  # its connections inherit it
        self.port: int = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()

    def url(self, path: str = "/") -> str:
        """The address of a page."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}{path}"

    @property
    def gaps(self) -> list[float]:
        """The seconds between each request and the next, by the kernel's clock."""
        return [later - earlier for (earlier, _), (later, _) in pairwise(sorted(self.arrivals))]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            connection.settimeout(0.2)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            read, write = self._secured(connection) if self._tls is not None else (bytes, connection.sendall)
            while not self._closed.is_set():
                try:
                    data, notes, _, _ = connection.recvmsg(65536, 256)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                data = read(data)
                if not data:
                    continue
                seconds, nanoseconds = struct.unpack("ll", notes[0][2][:16])
                path = data.split(b" ")[1].decode()
                with self._lock:
                    first = path not in self._seen
                    self._seen.add(path)
                    self.arrivals.append((seconds + nanoseconds / 1e9, path))
                    self._inside += 1
                    self.most_at_once = max(self.most_at_once, self._inside)
                self._closed.wait(DELAY_S / 2 if path != "/robots.txt" else DELAY_S)
                answer = self._answer(path, first)
                with self._lock:
                    self._inside -= 1
                try:
                    write(answer)
                except (OSError, ssl.SSLError):
                    return
                if b"Connection: close" in answer:
                    return

    def _secured(self, connection: socket.socket) -> tuple[Any, Any]:
        """Return what unpacks and what packs TLS records: the socket itself is read apart, for the kernel's times."""
        assert self._tls is not None
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._tls.wrap_bio(incoming, outgoing, server_side=True)
        with self._lock:
            self.connections += 1
            late = self.connections % 2
        shaken = False

        def read(data: bytes) -> bytes:
            nonlocal shaken
            incoming.write(data)
            got = b""
            try:
                if not shaken:
                    self._closed.wait(DELAY_S * 1.5 * late)
                    tls.do_handshake()
                    shaken = True
                got = tls.read(65536)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
            connection.sendall(outgoing.read())
            return got

        def write(data: bytes) -> None:
            tls.write(data)
            connection.sendall(outgoing.read())

        return read, write

    def _answer(self, path: str, first: bool) -> bytes:
        status, headers, body = "200 OK", "Content-Type: text/html\r\n", "page"
        if path == "/robots.txt":
            body = self._robots
        elif path == "/":
            body = links(["/a", "/b", "/hop", "/flaky", "/lost", "/c", "/d"])
        elif path == "/hop":
            status, headers = "302 Found", "Location: /target\r\n"
        elif path == "/flaky" and first:
            status = "500 No"
        elif path == "/lost" and first:
            return b"Connection: close"  # no HTTP: the connection is of no use any more
        if path in ("/a", "/c"):
            headers += "Connection: close\r\n"
        return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode()


class Everything(Spider):
    """Follows links, posts, fetches from callbacks: redirects, retries and lost connections come by the way."""

    name = "everything"

    async def parse(self, response: Response) -> Any:
        for request in response.follow_all(css="a"):
            yield request
        if response.url.endswith("/b"):
            await asyncio.gather(self.fetch(response.url + "/1"), self.fetch(response.url + "/2"))
            yield Request(response.url, method="POST", body=b"x")


def everything(site: KernelSite, *paths: str) -> type[Spider]:
    """Return the spider that starts at these pages."""
    return type("Everything", (Everything,), {"start_urls": [site.url(path) for path in paths]})


@pytest.mark.parametrize(
    ("robots", "settings"),
    [
        ("", {"politeness.delay": DELAY_S}),
        (f"User-agent: *\nCrawl-delay: {DELAY_S}\n", {}),
        ("", {"politeness.delay": DELAY_S, "politeness.jitter": 0.5}),
        ("", {"hosts": {"127.0.0.1": {"delay": DELAY_S}}}),
    ],
    ids=["delay", "Crawl-delay", "jitter", "hosts"],
)
@in_loop
async def test_gaps_as_the_kernel_sees_them(crawled: Crawls, robots: str, settings: dict[str, Any]) -> None:
    """No two requests arrive within the delay, of whatever kind, on new connections or old ones: with no tolerance."""
    with KernelSite(robots) as site:
        result = await crawled(everything(site, "/"), {"download.retries": 1, **settings})
    paths = [path for _, path in site.arrivals]
    assert len(paths) == 17, "robots.txt, 8 pages, 2 retries, a redirect's target, a POST, 2 × 2 fetches"
    assert (result.stats["failed"], result.stats["retries"]) == (0, 2)
    assert min(site.gaps) >= DELAY_S - CLOCK_S
    assert site.most_at_once <= 8


@in_loop
async def test_gaps_over_slow_connections(crawled: Crawls) -> None:
    """A connection that takes long to be made does not bring its request close to the next one's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with KernelSite(tls=context) as site:
        result = await crawled(
            everything(site, "/"), {"download.retries": 1, "politeness.delay": DELAY_S, "download.verify_tls": False}
        )
    assert (len(site.arrivals), result.stats["failed"]) == (17, 0)
    assert site.connections >= 3
    assert min(site.gaps) >= DELAY_S - CLOCK_S


@in_loop
async def test_crawls_of_one_loop_share_a_budget(crawled: Crawls) -> None:
    """Two spiders at once on one host: the shorter limit and the longer delay hold for both, and both come to their end."""
    paths = [f"/x{number}" for number in range(12)]
    with KernelSite() as site:
        strict = {"politeness.concurrency_per_host": 2, "politeness.robots": False}
        spiders = [everything(site, *paths[:6]), everything(site, *paths[6:])]
        results = await asyncio.gather(crawled(spiders[0], strict), crawled(spiders[1], NO_ROBOTS))
    assert [result.stats["done"] for result in results] == [6, 6]
    assert site.most_at_once == 2

    with KernelSite() as site:
        spiders = [everything(site, *paths[:6]), everything(site, *paths[6:])]
        slow = NO_ROBOTS | {"politeness.delay": DELAY_S}
        results = await asyncio.gather(crawled(spiders[0], slow), crawled(spiders[1], slow))
    assert [result.stats["done"] for result in results] == [6, 6]
    assert min(site.gaps) >= DELAY_S - CLOCK_S
    first, second = ([at for at, path in site.arrivals if path in half] for half in (paths[:6], paths[6:]))
    assert min(second) < first[3], "they take turns"
    assert min(first) < second[3], "they take turns"


@in_loop
async def test_a_host_that_waits_holds_no_slot(crawled: Crawls) -> None:
    """With a single slot for the whole crawl, one host's Retry-After of a minute costs another host nothing."""
    crawlers: list[Crawler] = []

    def busy(request: web.BaseRequest) -> Answer:
        return web.Response(status=429, headers={"Retry-After": "60"})

    def last(request: web.BaseRequest) -> Answer:
        crawlers[0].stop("enough")
        return "page"

    paths = [f"/{number}" for number in range(20)]
    pages = {"/": links([*paths, "/last"]), "*": "page", "/last": last}
    async with Site({"*": busy}) as strained, Site(pages) as other:
        spider = type("Both", (Everything,), {"start_urls": [strained.url("/1"), other.url("/")]})
        crawlers.append(crawled.make(spider, NO_ROBOTS | {"crawl.concurrency": 1}))
        result = await crawled(crawlers[0])
    assert (len(strained.asked), len(other.asked)) == (1, 22)
    assert (result.reason, result.stats["pending"]) == ("enough", 1)


@in_loop
async def test_what_is_different_for_one_host(crawled: Crawls) -> None:
    """A host's own slots, user agent, headers and robots hold for it alone; a request's own headers go before."""
    forbidden = "User-agent: *\nDisallow: /"

    def robots(request: web.BaseRequest) -> Answer:
        return web.Response(text=forbidden)

    async def turn(request: web.BaseRequest) -> Answer:
        for _ in range(20):
            await asyncio.sleep(0)
        return "page"

    async with Site({"*": turn}, robots=robots) as one, Site({"*": turn}) as other:

        class Starts(Everything):
            async def start(self) -> Any:
                yield Request(one.url("/own"), headers={"x-key": "own"})
                for number in range(5):
                    yield Request(one.url(f"/{number}"))
                    yield Request(other.url(f"/{number}"))

        own = {"robots": False, "concurrency": 1, "user_agent": "mine/1", "headers": {"X-Key": "k"}}
        await crawled(Starts, {"hosts": {f"127.0.0.1:{one.port}": own}})
    assert (one.most_at_once, other.most_at_once) == (1, 5)
    assert (one.asked_robots, len(other.asked_robots)) == ([], 1)
    assert {each.headers["User-Agent"] for each in one.asked} == {"mine/1"}
    assert [each.headers.get("X-Key") for each in one.asked] == ["own", *["k"] * 5]
    assert all("X-Key" not in each.headers and each.headers["User-Agent"] != "mine/1" for each in other.asked)


@in_loop
async def test_a_hosts_own_timeout_and_throttle(crawled: Crawls) -> None:
    """Its timeout holds for it alone, and with adaptive = false a 429 of one page does not hold the others."""
    hold = asyncio.Event()

    async def page(request: web.BaseRequest) -> Answer:
        if request.path == "/held":
            await hold.wait()
        return busy(request) if request.path == "/busy" else "page"

    async with Site({"*": page}) as site:
        spider = type("Visit", (Everything,), {"start_urls": [site.url(path) for path in ("/held", "/busy", "/next")]})
        own = {"timeout": 0.05, "adaptive": False, "concurrency": 1}
        result = await crawled(spider, NO_ROBOTS | {"download.retries": 0, "hosts": {"127.0.0.1": own}})
        hold.set()
    assert result.stats["error_classes"] == {"FetchTimeout": 1, "HttpError": 1}
    assert (site.paths, result.stats["done"]) == (["/held", "/busy", "/next"], 1)


def busy(request: web.BaseRequest) -> web.Response:
    """Ask for a minute's pause."""
    return web.Response(status=429, headers={"Retry-After": "60"})


@in_loop
async def test_start_goes_on_while_one_host_waits(crawled: Crawls) -> None:
    """However many start requests wait for a host that asks for a pause, those for another host come and are fetched."""
    async with Site({"*": busy}) as paused, Site({"*": "page"}, host="localhost") as other:

        class Two(Spider):
            name = "two"

            async def start(self) -> AsyncIterator[Request]:
                for number in range(500):
                    yield Request(paused.url(f"/{number}"))
                yield Request(other.url("/other"), self.parse_other)

            def parse_other(self, response: Response) -> Any:
                raise CloseSpider("came")

        result = await crawled(Two, {**NO_ROBOTS, "crawl.concurrency": 4, "crawl.max_seconds": 10})
    assert result.reason == "came"


@in_loop
async def test_start_goes_on_while_one_host_is_slow(crawled: Crawls) -> None:
    """Start requests sorted by host: a host that takes its time with a few of many leaves the other slots to the next one."""
    done = asyncio.Event()

    async def held(request: web.BaseRequest) -> str:
        await done.wait()
        return "page"

    def last(request: web.BaseRequest) -> str:
        done.set()
        return "page"

    async with Site({"*": held}) as slow, Site({"*": last}) as other:

        class Two(Spider):
            name = "two"

            async def start(self) -> AsyncIterator[Request]:
                for number in range(100):
                    yield Request(slow.url(f"/{number}"))
                yield Request(other.url("/"))

            def parse(self, response: Response) -> Any:
                return {"url": response.url}

        settings = {**NO_ROBOTS, "crawl.concurrency": 16, "politeness.concurrency_per_host": 2}
        result = await crawled(Two, settings)
    assert len(result.items) == 101


@in_loop
async def test_an_endless_start_for_a_host_that_waits_is_bounded(crawled: Crawls) -> None:
    """While nothing may be fetched start() is pulled in search of other hosts, and no more when much has been found."""
    async with Site({"*": busy}) as paused:

        class Endless(Spider):
            name = "endless"
            pulled = 0

            async def start(self) -> AsyncIterator[Request]:
                while True:
                    self.pulled += 1
                    yield Request(paused.url(f"/{self.pulled}"))

        spider = Endless()
        result = await crawled(spider, {**NO_ROBOTS, "crawl.concurrency": 4, "crawl.max_seconds": 2})
    assert result.reason == "max_seconds"
    assert 500 < result.stats["pending"] <= 10_000
    assert spider.pulled <= 10_000 + 1
