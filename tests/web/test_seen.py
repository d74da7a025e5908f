"""How much a server has to do at once, by its own count: requests that nobody waits for any more, late acceptance."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import Crawls
from servers import Authority, in_loop

from scraper import Request, Response, Spider
from scraper.crawler import Result

FAST = {"politeness.robots": False, "politeness.adaptive": False, "download.retries": 1, "download.timeout": 0.1}


class Worker:
    """Begins an answer to each request, or does not, and works on it until it sees that the client has gone."""

    def __init__(self, begun: bytes) -> None:
        self._begun = begun
        self._inside = 0
        self._tasks: set[Any] = set()
        self.most_at_once = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._tasks.add(asyncio.current_task())
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self._inside += 1
                self.most_at_once = max(self.most_at_once, self._inside)
                try:
                    writer.write(self._begun)
                    await reader.readexactly(1)
                finally:
                    self._inside -= 1
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.transport.abort()
        finally:
            self._tasks.discard(asyncio.current_task())

    async def ended(self) -> None:
        """Wait until all connections have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def working(begun: bytes = b"", tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Worker, int]]:
    """A worker and its port."""
    worker = Worker(begun)
    server = await asyncio.start_server(worker.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield worker, server.sockets[0].getsockname()[1]
        await worker.ended()
    finally:
        server.close()
        await server.wait_closed()


async def ask(crawled: Crawls, url: str, **settings: Any) -> Result:
    """Ask for six pages, two at a time, each of which takes too long."""

    class Six(Spider):
        name = "six"

        async def start(self) -> AsyncIterator[Any]:
            for number in range(6):
                yield Request(f"{url}{number}", errback=self.failed)

        def parse(self, response: Response) -> Any:
            return {"page": response.url}

        def failed(self, failure: Any) -> Any:
            return {"error": type(failure.error).__name__}

    return await crawled(Six, {**FAST, "politeness.concurrency_per_host": 2, **settings})


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"], ids=["silent", "in the body"]
)
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_nobody_waits_any_more(
    crawled: Crawls, authority: Authority, begun: bytes, secure: bool, downloader: str
) -> None:
    """After a timeout the connection is closed before the next request is sent: a server never works on more than it may."""
    tls = authority.context("127.0.0.1") if secure else None
    async with working(begun, tls) as (worker, port):
        url = f"{'https' if secure else 'http'}://127.0.0.1:{port}/"
        settings = {"download.downloader": downloader, "download.ca_file": authority.file}
        result = await ask(crawled, url, **settings)
    assert [item["error"] for item in result.items] == ["FetchTimeout"] * 6
    assert (result.stats["requests"], worker.most_at_once) == (12, 2)


@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_a_server_that_accepts_late(crawled: Crawls, downloader: str) -> None:
    """Connections that wait in its queue until their requests time out have ended when it comes to them; two live at once."""
    abandoned, most, live = 0, 0, 0
    tasks: set[Any] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal abandoned, most, live
        tasks.add(asyncio.current_task())
        while not reader.at_eof():
            try:
                await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            for _ in range(5):
                await asyncio.sleep(0)
            if reader.at_eof():
                abandoned += 1
                break
            live += 1
            most = max(most, live)
            await asyncio.sleep(0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            live -= 1
        writer.close()

    servers: list[asyncio.Server] = []
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        listening.setblocking(False)

        class Late(Spider):
            name = "late"
            failures = 0

            async def start(self) -> AsyncIterator[Any]:
                for number in range(8):
                    url = f"http://127.0.0.1:{listening.getsockname()[1]}/{number}"
                    yield Request(url, errback=self.failed, timeout=0.1 if number < 4 else 30)

            def parse(self, response: Response) -> Any:
                return {"page": response.url}

            async def failed(self, failure: Any) -> Any:
                self.failures += 1
                if self.failures == 4:
                    servers.append(await asyncio.start_server(serve, sock=listening))
                return {"error": type(failure.error).__name__}

        settings = {"politeness.concurrency_per_host": 2, "download.downloader": downloader, "download.retries": 0}
        result = await crawled(Late, {**FAST, **settings})
        await asyncio.gather(*tasks)
        servers[0].close()
        await servers[0].wait_closed()
    assert [list(item) for item in result.items] == [["error"]] * 4 + [["page"]] * 4
    assert abandoned == 4
    assert most <= 2


@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_a_server_that_takes_no_leave(crawled: Crawls, authority: Authority, downloader: str) -> None:
    """A connection ends with the crawl, though a TLS server does not answer its closing (RFC 8446 section 6.1)."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue("127.0.0.1").configure_cert(tls)

    class One(Spider):
        name = "one"

        async def start(self) -> AsyncIterator[Any]:
            yield Request(f"https://127.0.0.1:{listening.getsockname()[1]}/")

        def parse(self, response: Response) -> Any:
            return {"page": response.text}

    def serve() -> bool:
        """Answer once; return whether the client then leaves by itself."""
        with listening.accept()[0] as plain, tls.wrap_socket(plain, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            while select.select([secure], [], [], 5)[0]:
                try:
                    if not os.read(secure.fileno(), 65536):
                        return True
                except ConnectionResetError:
                    return True
        return False

    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = asyncio.create_task(asyncio.to_thread(serve))
        settings = {"download.ca_file": authority.file, "download.downloader": downloader, "download.timeout": 30}
        result = await crawled(One, {**FAST, **settings})
        assert await left
    assert result.items == [{"page": "ok"}]
