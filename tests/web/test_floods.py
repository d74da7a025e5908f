"""Answers that never come to an end, in every part of one: interim answers, heads, chunks, trailers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from conftest import Crawls
from servers import Site, in_loop, redirect

from scraper import Request, Response, Spider
from web.conftest import MAX_STALL_S, Watch

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a>\r\n" * 100 + b"\r\n"),
    "status line": (b"HTTP/1.1 200 ", b"y" * 65536),
    "headers": (HEAD, b"X-A: b\r\n" * 1000),
    "header line": (HEAD + b"X: ", b"y" * 65536),
    "chunk size": (CHUNKED, b"0" * 65536),
    "chunk extension": (CHUNKED + b"4;", b"x" * 65536),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n" * 10000),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\n", b"T: v\r\n" * 10000),
    "trailer line": (CHUNKED + b"2\r\nok\r\n0\r\nT: ", b"v" * 65536),
}


@pytest.mark.parametrize("part", FLOODS)
@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_a_flood(watched: Watch, monkeypatch: pytest.MonkeyPatch, downloader: str, part: str) -> None:
    """It ends in an error, at the timeout at the latest, with bounded memory and without holding up the loop."""
    first, then = FLOODS[part]

    def pieces() -> Iterator[bytes]:
        yield first
        yield from itertools.repeat(then)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces():
                writer.write(piece)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    settings = {"POLITENESS__ROBOTS": "false", "DOWNLOAD__TIMEOUT": "1", "DOWNLOAD__DOWNLOADER": downloader}
    for name, value in settings.items():
        monkeypatch.setenv(f"SCRAPE_{name}", value)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found = await watched(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "4 MiB")
    server.close()
    await server.wait_closed()
    assert found["outcome"] in ("ProtocolError", "FetchTimeout", "BodyTooLarge"), found
    assert found["grown_mb"] <= 4 + 64
    assert found["stall_s"] <= MAX_STALL_S


@pytest.mark.parametrize(
    ("location", "outcome"),
    [
        ("", "TooManyRedirects"),
        ("?%0d%0aX: y", "TooManyRedirects"),
        ("data:text/html,x", "OutOfScope"),
        ("//[::ffff:10.0.0.1]/", "PrivateAddress"),
        ("//[2001::f5ff:fffe]/", "PrivateAddress"),
        ("//[64:ff9b::10.0.0.1]/", "PrivateAddress"),
        ("//[fe80::1%25lo]/", "OutOfScope"),
        ("//167772161/", "PrivateAddress"),
        ("\\\\0xA.0.1", "PrivateAddress"),
        ("//a@b@10.0.0.1/", "PrivateAddress"),
        ("//[::1/", "OutOfScope"),
        ("//127.0.0.1:99999/", "OutOfScope"),
        ("/" + "a" * 60_000, "OutOfScope"),
        ("//" + "ü" * 1000 + ".example/", "DnsError"),
    ],
)
@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_where_redirects_may_lead(crawled: Crawls, location: str, outcome: str, downloader: str) -> None:
    """Spellings of inner addresses, other schemes, URLs that are none: one error of its class, and nothing is asked."""

    class One(Spider):
        name = "one"

        async def start(self) -> object:
            yield Request(site.url(), errback=self.failed)

        def failed(self, failure: object) -> object:
            return {"error": type(failure.error).__name__}

        def parse(self, response: Response) -> object:
            return {"page": response.url}

    settings = {"politeness.robots": False, "download.retries": 0, "download.downloader": downloader}
    async with Site({"*": redirect(location)}) as site:
        result = await crawled(One, settings)
    assert result.items == [{"error": outcome}]
    assert len(site.asked) == (21 if outcome == "TooManyRedirects" else 1)
