"""Servers that break off, stall, mislead and refuse, seen from a whole crawl: F10 to F12, F14 to F16, F20 to F22."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from conftest import Crawls
from servers import RawServer, Site, in_loop, links, never, redirect

from scraper import Request, Response, Spider
from web.conftest import MAX_STALL_S

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
Watch = Callable[..., Awaitable[dict[str, Any]]]
FAST = {"politeness.robots": False, "politeness.adaptive": False}


def one_page(url: str, **options: Any) -> type[Spider]:
    """A spider that asks for one page, and notes what came of it."""

    class One(Spider):
        name = "one"

        async def start(self) -> AsyncIterator[Any]:
            yield Request(url, errback=self.failed, **options)

        def parse(self, response: Response) -> Any:
            return {"page": response.text}

        def failed(self, failure: Any) -> Any:
            return {"error": type(failure.error).__name__, "says": str(failure.error)}

    return One


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (b"", "reset"),
        (b"", "close"),
        (b"HTTP/1.1 200 OK\r\nConte", "reset"),
        (b"HTTP/1.1 200 OK\r\nConte", "close"),
        (HEAD + b"Content-Length: 10\r\n\r\n", "reset"),
        (HEAD + b"Content-Length: 10\r\n\r\n12345", "reset"),
        (HEAD + b"Content-Length: 10\r\n\r\n12345", "close"),
        (CHUNKED, "reset"),
        (CHUNKED + b"5\r\nhello\r\n", "reset"),
        (CHUNKED + b"5\r\nhello\r\n", "close"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", "close"),
        (CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", "close"),
        (CHUNKED + b"-1\r\nhello\r\n0\r\n\r\n", "close"),
        (CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", "close"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "close"),
        (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "close"),
        (HEAD + b"Content-Length: -5\r\n\r\nhello", "close"),
        (b"garbage\r\n\r\n", "close"),
    ],
    ids=range(18),
)
@in_loop
async def test_broken_answers_are_retried_and_never_a_page(crawled: Crawls, answer: bytes, end: str) -> None:
    """F10, F11: cut off, reset or contradictory in any place: tried again on a new connection, then an error of its class."""
    async with RawServer(answer, end) as server:
        result = await crawled(one_page(server.url()), {**FAST, "download.retries": 1})
    assert [item.get("error") for item in result.items] in (["ConnectionLost"], ["Truncated"], ["ProtocolError"])
    assert (result.stats["pages"], result.stats["retries"], server.connections) == (0, 1, 2)


@in_loop
async def test_a_long_body_takes_its_connection_along(crawled: Crawls) -> None:
    """F11: what follows a body that is longer than it said is not taken for the next page."""
    smuggled = HEAD + b"Content-Length: 7\r\n\r\nforged!"
    async with RawServer(HEAD + b"Content-Length: 5\r\n\r\nhello" + smuggled, "hang") as server:

        class Two(Spider):
            name = "two"
            start_urls = [server.url("/1"), server.url("/2")]

            def parse(self, response: Response) -> Any:
                return {"page": response.text}

        result = await crawled(Two, {**FAST, "politeness.concurrency_per_host": 1})
    assert [item["page"] for item in result.items] == ["hello", "hello"]
    assert server.connections == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX-", HEAD + b"Content-Length: 10\r\n\r\n123"])
@in_loop
async def test_silence_ends_at_the_timeout(crawled: Crawls, answer: bytes) -> None:
    """F12: a server that stops before, in or after its headers costs the timeout, and the error names the setting."""
    began = asyncio.get_running_loop().time()
    async with RawServer(answer, "hang") as server:
        result = await crawled(one_page(server.url()), {**FAST, "download.retries": 0, "download.timeout": 0.2})
    assert [item["error"] for item in result.items] == ["FetchTimeout"]
    assert "download.timeout" in result.items[0]["says"]
    assert asyncio.get_running_loop().time() - began < 1.2


@in_loop
async def test_a_slowloris_ends_at_the_timeout(crawled: Crawls) -> None:
    """F12: a byte now and then does not prolong the time for a whole answer."""
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Content-Length: 1000000\r\n\r\n")
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b".")
            await asyncio.wait((ended,), timeout=0.02)
        writer.close()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    began = asyncio.get_running_loop().time()
    result = await crawled(one_page(url), {**FAST, "download.retries": 0, "download.timeout": 0.3})
    assert asyncio.get_running_loop().time() - began < 1.3
    await gone.wait()
    server.close()
    await server.wait_closed()
    assert [item["error"] for item in result.items] == ["FetchTimeout"]


@in_loop
async def test_bad_hosts_hold_up_no_other(crawled: Crawls) -> None:
    """F12, F20, F21: ten hosts, one silent, one at 429 for long, one without a name: the others are crawled meanwhile."""
    pages: dict[str, Any] = {"/": links(f"/{number}" for number in range(30)), "*": "page"}
    late_answer = {"*": lambda _: web.Response(status=429, headers={"Retry-After": "300"})}
    async with AsyncExitStack() as stack:
        silent = await stack.enter_async_context(Site({"*": never}, host="127.0.0.2"))
        late = await stack.enter_async_context(Site(late_answer, host="127.0.0.3"))
        good = [await stack.enter_async_context(Site(pages, host=f"127.0.0.{10 + number}")) for number in range(7)]

        class Ten(Spider):
            name = "ten"
            start_urls = [
                *[silent.url(f"/{number}") for number in range(12)],
                *[late.url(f"/{number}") for number in range(10)],
                *[f"http://no-such-host-{number}.invalid/" for number in range(5)],
                *[site.url() for site in good],
            ]

            def parse(self, response: Response) -> Any:
                yield from response.follow_all(css="a")

        settings = {"politeness.robots": False, "crawl.concurrency": 16, "download.timeout": 0}
        crawler = crawled.make(Ten, settings)
        running = asyncio.ensure_future(crawler.run())
        for site in good:
            await site.was_asked(31, running)
        assert silent.inside == 8
        assert len(late.asked) <= 8
        crawler.kill()
        result = await running
    assert result.reason == "killed"
    assert {site.times.most_common(1)[0][1] for site in good} == {1}


@in_loop
async def test_endless_redirects(crawled: Crawls) -> None:
    """F14: a loop, and a chain that never repeats, end after 20 hops in one error that names the setting."""
    pages = {"/loop": redirect("/loop"), "*": lambda request: redirect(request.path + "x")(request)}
    async with Site(pages) as site:
        for path in ("/loop", "/chain"):
            result = await crawled(one_page(site.url(path)), FAST)
            assert [item["error"] for item in result.items] == ["TooManyRedirects"]
            assert "download.max_redirects" in result.items[0]["says"]
            assert result.stats["redirects"] == 20
    assert site.times["/loop"] == 21


@pytest.mark.parametrize(
    "headers",
    [
        b"".join(b"X-%d: v\r\n" % number for number in range(100_000)),
        b"X-Long: " + b"v" * 2**20 + b"\r\n",
        b"X" * 2**20 + b": v\r\n",
        b"Set-Cookie: " + b"c" * 2**20 + b"\r\n",
        b"X: " + b"v" * 2**27 + b"\r\n",
    ],
    ids=["100,000 headers", "a value of 1 MB", "a name of 1 MB", "a cookie of 1 MB", "a value of 128 MB"],
)
@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_too_many_headers(
    watched: Watch, monkeypatch: pytest.MonkeyPatch, headers: bytes, downloader: str
) -> None:
    """F15: headers without measure are an error of the answer, and nothing of them is kept."""
    monkeypatch.setenv("SCRAPE_POLITENESS__ROBOTS", "false")
    monkeypatch.setenv("SCRAPE_DOWNLOAD__DOWNLOADER", downloader)
    async with RawServer(HEAD + headers + b"Content-Length: 2\r\n\r\nok") as server:
        found = await watched(server.url(), "1 MiB")
    assert found["outcome"] == "ProtocolError", found
    assert len(found["error"]) < 500
    assert found["grown_mb"] <= 1 + 64
    assert found["stall_s"] <= MAX_STALL_S


@in_loop
async def test_an_endless_space_of_links(crawled: Crawls) -> None:
    """F16: links that grow for ever end at max_depth, or where a URL passes 2,083 characters."""
    page = lambda request: links([f"{request.path.rstrip('/')}/{len(request.path):0120d}/"])  # noqa: E731

    def endless(url: str) -> type[Spider]:
        class Endless(Spider):
            name = "endless"
            start_urls = [url]

            def parse(self, response: Response) -> Any:
                yield from response.follow_all(css="a")

        return Endless

    async with Site({"*": page}) as site:
        by_depth = await crawled(endless(site.url()), {**FAST, "crawl.max_depth": 5})
        by_length = await crawled(endless(site.url()), FAST)
    assert by_depth.stats["pages"] == 6
    assert by_length.reason == "finished"
    assert by_length.stats["pages"] == 1 + (2083 - len(site.url())) // 121
    assert by_length.stats["out_of_scope"] == 1


def in_seconds(seconds: float) -> str:
    """An HTTP date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    "value", ["0", in_seconds(-1000), "-5", "1e400", "soon", "", "9" * 5000, "Thu, 99 Foo 2020 99:99:99 GMT"]
)
@in_loop
async def test_retry_after_that_asks_for_nothing_real(crawled: Crawls, value: str) -> None:
    """F20: zero, the past and garbage do not hold the host for long, and break nothing."""
    left = [web.Response(status=503, headers={"Retry-After": value})]
    async with Site({"/": lambda _: left.pop() if left else "page"}) as site:
        if value == "9" * 5000:
            crawler = crawled.make(one_page(site.url()), {"politeness.robots": False})
            running = asyncio.ensure_future(crawler.run())
            await site.was_asked(1, running)
            crawler.stop("held")
            assert (await running).stats["errors"] == 0
            return
        result = await crawled(one_page(site.url()), {"politeness.robots": False})
    assert result.items == [{"page": "page"}]
    assert site.asked[1].at - site.asked[0].at < 3


@in_loop
async def test_names_that_do_not_resolve(crawled: Crawls) -> None:
    """F21: an unknown name is tried three times and is a DnsError."""
    result = await crawled(one_page("http://no-such-name.invalid/"), {"politeness.robots": False})
    assert [item["error"] for item in result.items] == ["DnsError"]
    assert result.stats["retries"] == 2


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("expired", "certificate has expired"),
        ("unknown", "unable to get local issuer certificate"),
        ("wrong host", "IP address mismatch"),
        ("good", ""),
    ],
)
@in_loop
async def test_certificates(
    watched: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, says: str
) -> None:
    """F22: one out of date, of nobody known or of another host is a TlsError that says so; a good one passes."""
    authority = trustme.CA()
    trusted = trustme.CA() if kind == "unknown" else authority
    trusted.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    until = datetime.now(UTC) + timedelta(days=-1 if kind == "expired" else 1)
    leaf = authority.issue_cert("example.org" if kind == "wrong host" else "127.0.0.1", not_after=until)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Content-Length: 4\r\nConnection: close\r\n\r\npage")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    found = await watched(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    server.close()
    await server.wait_closed()
    assert found["outcome"] == ("page" if kind == "good" else "TlsError")
    assert kind == "good" or (says in found["error"] and "download.verify_tls" in found["error"])


@in_loop
async def test_a_handshake_that_hangs(crawled: Crawls) -> None:
    """F22: a server that never answers the handshake costs the timeout."""
    async with RawServer(b"", "hang", read=False) as server:
        url = server.url().replace("http:", "https:")
        result = await crawled(one_page(url), {**FAST, "download.retries": 0, "download.timeout": 0.2})
    assert [item["error"] for item in result.items] == ["FetchTimeout"]
