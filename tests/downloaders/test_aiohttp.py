"""The aiohttp downloader against servers that answer well, badly, in part, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from servers import Authority, RawServer, Site, in_loop, never

from scraper import Request
from scraper.addresses import AddressGuard
from scraper.downloaders.aiohttp import AiohttpDownloader, _Protocol
from scraper.errors import (
    BodyTooLarge,
    ConnectError,
    ConnectionLost,
    DnsError,
    FetchError,
    FetchTimeout,
    PrivateAddress,
    ProtocolError,
    TlsError,
    Truncated,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
OK = HEAD + b"Content-Length: 2\r\n\r\nok"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def downloader(guard: AddressGuard | None = None, **options: Any) -> AsyncIterator[AiohttpDownloader]:
    """Open a downloader that may reach any address, and close it."""
    fetcher = AiohttpDownloader(
        guard=guard or AddressGuard("always"),
        **{"user_agent": "test/1", "encodings": "gzip", "timeout_s": 5.0, **options},
    )
    await fetcher.open()
    try:
        yield fetcher
    finally:
        await fetcher.close()


@in_loop
async def test_a_response_has_all_that_came() -> None:
    """Status, repeated headers, bytes, the peer's address, the protocol, the time it took."""

    def page(request: web.BaseRequest) -> web.Response:
        response = web.Response(body=b"\x00\xff", status=203, headers={"X-One": "1"})
        response.headers.add("X-Two", "a")
        response.headers.add("X-Two", "b")
        return response

    async with Site({"/": page}) as site, downloader() as fetcher:
        request = Request(site.url("/?a=%20b&ü=1"))
        response = await fetcher.fetch(request)
    assert (response.status, response.body, response.url) == (203, b"\x00\xff", request.url)
    assert (response.headers["x-one"], response.headers.getall("X-TWO")) == ("1", ["a", "b"])
    assert (response.ip_address, response.protocol, response.from_cache) == ("127.0.0.1", "HTTP/1.1", False)
    assert response.request is request
    assert 0 < response.elapsed < 5


@in_loop
async def test_the_default_headers_give_way_to_the_requests_own() -> None:
    """User-Agent, Accept and Accept-Encoding are sent; a request's own headers go before them."""
    async with Site({"*": "page"}) as site, downloader() as fetcher:
        await fetcher.fetch(Request(site.url("/1")))
        await fetcher.fetch(Request(site.url("/2"), headers={"User-Agent": "own", "X-Mine": "7"}))
    first, second = (each.headers for each in site.asked)
    assert (first["User-Agent"], first["Accept-Encoding"]) == ("test/1", "gzip")
    assert (second["User-Agent"], second["X-Mine"], second["Accept-Encoding"]) == ("own", "7", "gzip")


@pytest.mark.parametrize("status", [204, 301, 404, 500])
@in_loop
async def test_any_status_is_a_response(status: int) -> None:
    """Redirects and errors are others' business: the downloader follows nothing and retries nothing."""
    page = web.Response(status=status, headers={"Location": "/else", "Set-Cookie": "a=1"})
    async with Site({"/": lambda request: page}) as site, downloader() as fetcher:
        response = await fetcher.fetch(Request(site.url()))
    assert (response.status, response.headers["Location"], site.paths) == (status, "/else", ["/"])


@pytest.mark.parametrize(
    ("method", "body", "seen"), [("HEAD", None, b""), ("POST", b"abc", b"POST abc"), ("DELETE", None, b"DELETE ")]
)
@in_loop
async def test_methods_and_bodies(method: str, body: bytes | None, seen: bytes) -> None:
    """The method and the body arrive as they are; an answer to HEAD has no body."""

    async def echo(request: web.BaseRequest) -> web.Response:
        return web.Response(body=f"{request.method} {await request.text()}".encode())

    async with Site({"/": echo}) as site, downloader() as fetcher:
        response = await fetcher.fetch(Request(site.url(), method=method, body=body))
    assert response.body == seen


@in_loop
async def test_bodies_are_left_encoded() -> None:
    """Decoding is the middleware's: the bytes come as they were sent."""
    page = web.Response(body=b"not really gzip", headers={"Content-Encoding": "gzip"})
    async with Site({"/": lambda request: page}) as site, downloader() as fetcher:
        assert (await fetcher.fetch(Request(site.url()))).body == b"not really gzip"


@pytest.mark.parametrize(
    ("answer", "end", "error"),
    [
        (b"", "close", ConnectionLost),
        (b"", "reset", ConnectionLost),
        (b"HTTP/1.1 200", "close", ConnectionLost),
        (HEAD, "close", ConnectionLost),
        (HEAD, "reset", ConnectionLost),
        (HEAD + b"Content-Length: 100\r\n\r\n", "close", ConnectionLost),
        (HEAD + b"Content-Length: 100\r\n\r\n", "reset", ConnectionLost),
        (HEAD + b"Content-Length: 100\r\n\r\nhalf", "close", ConnectionLost),
        (HEAD + b"Content-Length: 100\r\n\r\nhalf", "reset", ConnectionLost),
        (HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 299_999, "close", ConnectionLost),
        (CHUNKED + b"4\r\nhalf\r\n", "close", ConnectionLost),
        (CHUNKED + b"4\r\nha", "close", ConnectionLost),
        (CHUNKED + b"4\r\nhalf\r\n", "reset", ConnectionLost),
        (HEAD + b"Transfer-Encoding: gzip\r\n" + CHUNKED[len(HEAD) :] + b"4\r\nhalf\r\n", "close", Truncated),
        (HEAD + b"Transfer-Encoding: identity\r\n" + CHUNKED[len(HEAD) :] + b"4\r\nhalf\r\n", "close", Truncated),
        (HEAD + b"Transfer-Encoding: gzip,Chunked\r\n\r\n4\r\nhalf\r\n", "close", Truncated),
        (HEAD + b"Transfer-Encoding: chunked, \r\n\r\n4\r\nhalf\r\n0\r\n\r\n", "close", Truncated),
        (CHUNKED + b"zz\r\nhalf\r\n0\r\n\r\n", "close", FetchError),
        (CHUNKED + b"2\r\nhalf\r\n0\r\n\r\n", "close", FetchError),
        (
            HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n",
            "close",
            ProtocolError,
        ),
        (HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nhalf", "close", ProtocolError),
        (HEAD + b"Content-Length: 4\r\n\r\nbodyand more", "close", ProtocolError),
        (HEAD + b"Content-Length: four\r\n\r\nhalf", "close", ProtocolError),
        (b"HTTP/1.1 abc OK\r\n\r\n", "close", ProtocolError),
        (b"220 mail.example.com ESMTP\r\n\r\n", "close", ProtocolError),
        (b"\x16\x03\x01\x02\x00\x01\x00", "close", FetchError),
        (HEAD + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n", "close", ProtocolError),
    ],
)
@in_loop
async def test_a_broken_answer_is_never_a_response(answer: bytes, end: str, error: type[FetchError]) -> None:
    """Cut off or malformed in any place: an error of its own class, one connection, nothing delivered."""
    async with RawServer(answer, end) as server, downloader() as fetcher:
        with pytest.raises(error) as raised:
            await fetcher.fetch(Request(server.url()))
    assert raised.value.url == server.url()
    assert "\n" not in str(raised.value)
    assert server.connections == 1


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "body", "version"),
    [
        (HEAD + b"\r\nup to the end", b"up to the end", "1.1"),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\nup to the end", b"up to the end", "1.1"),
        (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\nup to the end", b"up to the end", "1.1"),
        (CHUNKED + b"4;name=value\r\nbody\r\n0\r\nTrailer: 1\r\n\r\n", b"body", "1.1"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old", "1.0"),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b"", "1.1"),
        (EARLY + HEAD + b"Content-Length: 2\r\n\r\nok", b"ok", "1.1"),
        (EARLY + b"HTTP/1.0 200 OK\r\n\r\nold", b"old", "1.0"),
    ],
)
@in_loop
async def test_an_odd_answer_that_is_whole(answer: bytes, body: bytes, version: str) -> None:
    """Answers that end with the connection, bring too much, have chunk extensions or early hints are whole."""
    async with RawServer(answer) as server, downloader() as fetcher:
        response = await fetcher.fetch(Request(server.url()))
    assert (response.body, response.protocol) == (body, f"HTTP/{version}")


@in_loop
async def test_what_follows_a_body_is_not_taken_for_the_next_answer() -> None:
    """A connection that brought more than its content-length is not used again."""
    evil = HEAD + b"Content-Length: 2\r\n\r\nok" + HEAD + b"Content-Length: 4\r\n\r\nevil"
    async with RawServer(evil) as server, downloader() as fetcher:
        first = await fetcher.fetch(Request(server.url("/1")))
        second = await fetcher.fetch(Request(server.url("/2")))
    assert (first.body, second.body, server.connections) == (b"ok", b"ok", 2)


@pytest.mark.parametrize("answer", [b"", HEAD, HEAD + b"Content-Length: 9\r\n\r\nsome", CHUNKED + b"4\r\nsome\r\n"])
@pytest.mark.parametrize("own", [False, True])
@in_loop
async def test_silence_ends_at_the_timeout(answer: bytes, own: bool) -> None:
    """Before, in and after the headers: the downloader's timeout holds, or the request's own."""
    options, timeout = ({"timeout_s": 30.0}, 0.05) if own else ({"timeout_s": 0.05}, None)
    async with RawServer(answer, "hang") as server, downloader(**options) as fetcher:
        with pytest.raises(FetchTimeout, match=r"download.timeout"):
            await fetcher.fetch(Request(server.url(), timeout=timeout))


@in_loop
async def test_a_cancelled_fetch_closes_its_connection() -> None:
    """The server sees the client go."""
    gone = asyncio.Event()

    async def page(request: web.BaseRequest) -> Any:
        try:
            return await never(request)
        finally:
            gone.set()

    async with Site({"/": page}) as site, downloader() as fetcher:
        task = asyncio.ensure_future(fetcher.fetch(Request(site.url())))
        await site.was_asked(1, task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [101, 70_000, 1_000_000])
@in_loop
async def test_max_body_holds_on_the_wire(size: int, chunked: bool) -> None:
    """A byte more than max_body is refused, whether its length was announced or not; exactly max_body passes."""

    def page(request: web.BaseRequest) -> web.Response:
        response = web.Response(body=b"x" * int(request.path[1:]))
        if chunked:
            response.enable_chunked_encoding()
        return response

    async with Site({"*": page}) as site, downloader(max_body=size - 1) as fetcher:
        with pytest.raises(BodyTooLarge, match=r"download.max_body"):
            await fetcher.fetch(Request(site.url(f"/{size}")))
        assert len((await fetcher.fetch(Request(site.url(f"/{size - 1}")))).body) == size - 1


@pytest.mark.parametrize(
    "host", ["nonexistent.invalid", "nonexistent1", "a.b.nonexistent.invalid", "x" * 63 + ".invalid"]
)
@in_loop
async def test_a_name_that_does_not_resolve(host: str) -> None:
    """A DnsError, also where the name ends in a digit and might be taken for an address."""
    async with downloader(AddressGuard("seeds")) as fetcher:
        with pytest.raises(DnsError):
            await fetcher.fetch(Request(f"http://{host}/"))


@in_loop
async def test_a_port_where_nobody_listens() -> None:
    """A refused connection is a ConnectError."""
    async with RawServer(b"") as server:
        url = server.url()
    async with downloader() as fetcher:
        with pytest.raises(ConnectError, match=r"(?i)refused"):
            await fetcher.fetch(Request(url))


@in_loop
async def test_tls_where_there_is_none() -> None:
    """An https URL of a server that speaks plain HTTP is an error of TLS or of the connection."""
    async with RawServer(b"HTTP/1.1 400 Bad Request\r\n\r\n", read=False) as server, downloader() as fetcher:
        with pytest.raises((TlsError, ConnectionLost, ConnectError)):
            await fetcher.fetch(Request(server.url().replace("http:", "https:")))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
@in_loop
async def test_private_addresses_are_refused_in_every_spelling(host: str) -> None:
    """By number, by name, IPv4 inside IPv6: no connection is made."""
    async with RawServer(HEAD) as server, downloader(AddressGuard("seeds")) as fetcher:
        with pytest.raises(PrivateAddress):
            await fetcher.fetch(Request(f"http://{host}:{server.port}/"))
    assert server.connections == 0


@in_loop
async def test_a_seed_is_a_name_not_an_address() -> None:
    """A start URL at localhost opens localhost, not 127.0.0.1; it is judged anew with each connection."""
    guard = AddressGuard("seeds")
    answer = HEAD + b"Content-Length: 2\r\n\r\nok"
    async with RawServer(answer) as server, downloader(guard) as fetcher:
        by_name = Request(f"http://localhost:{server.port}/")
        with pytest.raises(PrivateAddress):
            await fetcher.fetch(by_name)
        guard.add_seed("localhost")
        assert (await fetcher.fetch(by_name)).body == b"ok"
        with pytest.raises(PrivateAddress):
            await fetcher.fetch(Request(server.url()))


@in_loop
async def test_a_proxy_is_asked_for_the_whole_url() -> None:
    """download.proxy and a request's own proxy get the absolute URL; a proxy that is down is a ConnectError."""
    answer = HEAD + b"Content-Length: 2\r\n\r\nok"
    async with RawServer(answer) as proxy, RawServer(answer) as own:
        async with downloader(proxy=proxy.url()) as fetcher:
            assert (await fetcher.fetch(Request("http://nonexistent.invalid/"))).body == b"ok"
            request = Request("http://nonexistent.invalid/", proxy=own.url())
            assert (await fetcher.fetch(request)).body == b"ok"
        assert (proxy.connections, own.connections) == (1, 1)
        gone = proxy.url()
    async with downloader(proxy=gone) as fetcher:
        with pytest.raises(ConnectError, match=r"download.proxy"):
            await fetcher.fetch(Request("http://nonexistent.invalid/"))


@in_loop
async def test_idle_connections_are_bounded() -> None:
    """Of many hosts, asked once or twice, no more connections stay open than ``max_idle``."""
    opened: set[asyncio.StreamWriter] = set()
    one_less = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.add(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
        opened.discard(writer)
        one_less.set()
        writer.close()

    servers = [await asyncio.start_server(serve, f"127.0.0.{number}", 0) for number in range(1, 21)]
    async with downloader(max_idle=6) as fetcher:
        for times in (1, 2):
            for server in servers:
                host, port = server.sockets[0].getsockname()
                for _ in range(times):
                    assert (await fetcher.fetch(Request(f"http://{host}:{port}/"))).body == b"ok"
            while len(opened) > 6:
                one_less.clear()
                await one_less.wait()
    while opened:
        one_less.clear()
        await one_less.wait()
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("spoken", [b"220 ready\r\n", OK, b"x" * 100_000])
@in_loop
async def test_a_server_that_speaks_before_it_is_asked(spoken: bytes) -> None:
    """It is no HTTP server, even if what it says is an answer; the connection is given up."""

    heard = asyncio.Event()

    class Hearing(_Protocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            heard.set()

    async def connect(*args: Any) -> Any:
        connection = await really_connect(*args)
        await heard.wait()
        return connection

    async with RawServer(spoken, "hang", read=False) as server, downloader() as fetcher:
        connector: Any = fetcher._connector
        really_connect, connector.connect = connector.connect, connect
        connector._factory = partial(Hearing, loop=asyncio.get_running_loop())
        with pytest.raises(ProtocolError, match=r"before it was asked"):
            await fetcher.fetch(Request(server.url()))


@pytest.mark.parametrize("tls", [False, True])
@in_loop
async def test_a_body_of_very_many_chunks(authority: Authority, tls: bool) -> None:
    """It arrives whole over turns of the loop, and the connection is used again; without its end it is Truncated."""
    body = bytes(range(256)) * 400
    chunks = CHUNKED + b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    end = b"0\r\nX-T: v\r\n\r\n"
    context = authority.context("127.0.0.1") if tls else None
    options = {"ca_file": authority.file}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            for answer in (chunks + end, OK, chunks + end + OK):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
            await writer.drain()
        writer.close()

    connections: list[asyncio.StreamWriter] = []
    scheme = "https" if tls else "http"
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with downloader(**options) as fetcher:
        for expected in (body, b"ok", body, body):  # an answer nobody asked for came behind the third
            assert (await fetcher.fetch(Request(url))).body == expected
        assert len(connections) == 2
    server.close()
    await server.wait_closed()
    async with RawServer(chunks, tls=context) as broken, downloader(**options) as fetcher:
        with pytest.raises((Truncated, ConnectionLost)):
            await fetcher.fetch(Request(broken.url()))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nX: \x01\r\nContent-Length: 2\r\n\r\nok",
        CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
    ],
)
@in_loop
async def test_answers_slightly_out_of_form(answer: bytes) -> None:
    """Bare line feeds, control characters in a header, a space behind a chunk's size: taken, as other clients do."""
    async with RawServer(answer) as server, downloader() as fetcher:
        assert (await fetcher.fetch(Request(server.url()))).body == b"ok"


@pytest.mark.parametrize("endless", [b"4;", b"2\r\nok\r\n0\r\nT: ", b"0\r\n", b"0" * 9])
@in_loop
async def test_framing_without_end(endless: bytes) -> None:
    """A chunk's head or trailers of more than 256 KiB end the fetch."""
    filler = b"T: v\r\n" if endless == b"0\r\n" else b"0" if endless.startswith(b"00") else b"x"
    answer = CHUNKED + endless + filler * 600_000
    async with RawServer(answer, "hang") as server, downloader() as fetcher:
        with pytest.raises(ProtocolError):
            await fetcher.fetch(Request(server.url()))


@in_loop
async def test_much_framing_with_a_body() -> None:
    """More than 256 KiB of chunks' heads are no fault where bytes of the body come between them."""
    answer = CHUNKED + (b"1;" + b"x" * 100_000 + b"\r\nk\r\n") * 4 + b"0\r\n\r\n"
    async with RawServer(answer) as server, downloader() as fetcher:
        assert (await fetcher.fetch(Request(server.url()))).body == b"kkkk"
