"""What every downloader promises: a suite that each implementation of ``contracts.Downloader`` passes.

An implementation's test module has a class that inherits from ``DownloaderContract``, and a fixture ``make`` that returns
a ``Make``. The servers are real ones on loopback.
"""

from __future__ import annotations

import asyncio
import pickle
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import pytest
from aiohttp import web
from proxies import HttpProxy, SocksProxy
from servers import WARM_UP, Authority, RawServer, Site, in_loop, unreachable

from scraper import Request, Response
from scraper.addresses import AddressGuard
from scraper.contracts import Downloader
from scraper.errors import (
    BodyTooLarge,
    ConnectError,
    ConnectionLost,
    DnsError,
    FetchError,
    FetchTimeout,
    PrivateAddress,
    ProtocolError,
    ProxyError,
    RequestError,
    TlsError,
    Truncated,
    UsageError,
)

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
OK = HEAD + b"Content-Length: 2\r\n\r\nok"
LAST = HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nok"
KEEP_ALIVE = {"Connection": "keep-alive"}  # asked for, it is no plain GET to the default downloader
NOWHERE = "http://nonexistent.invalid/"


class Make(Protocol):
    """Makes a downloader that is not yet open."""

    def __call__(self, guard: AddressGuard, **options: Any) -> Downloader: ...


@asynccontextmanager
async def opened(make: Make, guard: AddressGuard | None = None, **options: Any) -> AsyncIterator[Downloader]:
    """Open a downloader that may reach any address, and close it."""
    fetcher = make(
        guard or AddressGuard("always"), **{"user_agent": "test/1", "encodings": "gzip", "timeout_s": 5.0, **options}
    )
    await fetcher.open()
    try:
        yield fetcher
    finally:
        await fetcher.close()


class DownloaderContract:
    """The suite."""

    @pytest.fixture
    def make(self) -> Make:
        """Give the implementation under test."""
        raise NotImplementedError

    @in_loop
    async def test_a_response_has_all_that_came(self, make: Make) -> None:
        """Status, repeated headers, bytes as sent, the final URL, the peer's address, the time it took."""

        def page(request: web.BaseRequest) -> web.Response:
            headers = {"Content-Encoding": "gzip", "Set-Cookie": "a=1"}
            response = web.Response(body=b"\x00not gzip\xff", status=203, headers=headers)
            response.headers.add("X-Two", "a")
            response.headers.add("X-Two", "b")
            return response

        async with Site({"*": page}) as site, opened(make) as fetcher:
            request = Request(site.url("/a%2Fb/%zz?a=%20b&ü=1|'[]"))
            response = await fetcher.fetch(request)
            await fetcher.fetch(Request(site.url("/again"), headers={"X-Mine": "é"}))
        assert (response.status, response.body, response.url) == (203, b"\x00not gzip\xff", request.url)
        assert response.headers.getall("x-TWO") == ["a", "b"]
        assert (response.ip_address, response.protocol, response.from_cache) == ("127.0.0.1", "HTTP/1.1", False)
        assert response.request is request
        assert 0 < response.elapsed < 5
        first, second = (each.headers for each in site.asked)
        assert (first["User-Agent"], first["Accept-Encoding"], first["Accept-Language"]) == ("test/1", "gzip", "en")
        assert (second["X-Mine"], second.get("Cookie")) == ("é", None)

    @in_loop
    async def test_the_url_and_the_headers_are_sent_as_they_are(self, make: Make) -> None:
        """Nothing of a URL in normal form is encoded anew; a request's own headers win, repeated ones are kept."""
        headers = [("User-Agent", " own "), ("X-A", "1"), ("X-A", "2"), ("Proxy-Authorization", "secret")]
        async with RawServer(OK) as server, opened(make) as fetcher:
            await fetcher.fetch(Request(server.url("/a%2Fb/%zz|?q='[]%"), headers=headers))
        head = server.heads[0]
        assert head.startswith(b"GET /a%2Fb/%zz|?q=%27[]% HTTP/1.1\r\n")
        assert f"\r\nhost: 127.0.0.1:{server.port}\r\n".encode() in head.lower()
        assert [head.count(each) for each in (b" own", b"X-A: 1\r\n", b"X-A: 2\r\n")] == [1, 1, 1]
        assert b"test/1" not in head
        assert b"secret" not in head

    @pytest.mark.parametrize(
        ("userinfo", "headers", "sent"),
        [
            ("ada:pass%20w%3Ard@", {}, b"Basic YWRhOnBhc3MgdzpyZA=="),
            ("ada@", {}, b"Basic YWRhOg=="),
            (":secret@", {}, b"Basic OnNlY3JldA=="),
            ("%E6%97%A5:%C3%A9@", {}, b"Basic 5pelOsOp"),
            ("ada:pass@", {"authorization": "Bearer own"}, b"Bearer own"),
        ],
    )
    @in_loop
    async def test_a_name_and_password_in_the_url(
        self, make: Make, userinfo: str, headers: dict[str, str], sent: bytes
    ) -> None:
        """They are sent as basic authentication, in UTF-8, where the request has no header for it; and nowhere else."""
        async with RawServer(OK) as server, opened(make) as fetcher:
            response = await fetcher.fetch(
                Request(server.url("/a@b|%zz").replace("//", f"//{userinfo}"), headers=headers)
            )
        (head,) = server.heads
        assert head.startswith(b"GET /a@b|%zz HTTP/1.1\r\n")
        (line,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: ")]
        assert line.partition(b": ")[2] == sent
        assert f"\r\nhost: 127.0.0.1:{server.port}\r\n".encode() in head.lower()
        assert userinfo in response.url

    @pytest.mark.parametrize(
        ("method", "body", "seen"), [("HEAD", None, b""), ("POST", b"abc", b"POST abc"), ("DELETE", None, b"DELETE ")]
    )
    @in_loop
    async def test_methods_and_bodies(self, make: Make, method: str, body: bytes | None, seen: bytes) -> None:
        """The method and the body arrive as they are; an answer to HEAD has no body."""

        async def echo(request: web.BaseRequest) -> web.Response:
            return web.Response(body=f"{request.method} {await request.text()}".encode())

        async with Site({"/": echo}) as site, opened(make) as fetcher:
            assert (await fetcher.fetch(Request(site.url(), method=method, body=body))).body == seen

    @pytest.mark.parametrize("options", [{"body": "a=1"}, {}, {"body": b"x", "headers": {"Content-Type": "a/b"}}])
    @in_loop
    async def test_nobody_guesses_what_a_body_is(self, make: Make, options: dict[str, Any]) -> None:
        """There is a Content-Type where the request has one."""
        async with Site({"*": "ok"}) as site, opened(make) as fetcher:
            await fetcher.fetch(Request(site.url(), method="POST", **options))
        assert site.asked[0].headers.get("Content-Type") == options.get("headers", {}).get("Content-Type")

    @pytest.mark.parametrize("status", [204, 301, 304, 407, 429, 500])
    @in_loop
    async def test_any_status_is_a_response(self, make: Make, status: int) -> None:
        """Nothing is followed or tried again."""
        page = web.Response(status=status, headers={"Location": "/else", "WWW-Authenticate": "Basic"})
        async with Site({"/": lambda request: page}) as site, opened(make) as fetcher:
            response = await fetcher.fetch(Request(site.url()))
        assert (response.status, response.headers["Location"], site.paths) == (status, "/else", ["/"])

    @pytest.mark.parametrize(
        ("answer", "status", "body"),
        [
            (HEAD + b"\r\nup to the end", 200, b"up to the end"),
            (OK + b"\r\n", 200, b"ok"),
            (CHUNKED + b"2\r\nok\r\n0\r\n\r\n\r\n", 200, b"ok"),
            (CHUNKED + b"4;name=value\r\nbody\r\n0\r\nTrailer: 1\r\n\r\n", 200, b"body"),
            (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
            (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
            (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200, b"ok"),
            (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK, 200, b"ok"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", 304, b""),
        ],
    )
    @in_loop
    async def test_an_odd_answer_that_is_whole(self, make: Make, answer: bytes, status: int, body: bytes) -> None:
        """Answers that end with the connection, have chunk extensions, hints before them, or no body by their status."""
        async with RawServer(answer) as server, opened(make) as fetcher:
            response = await fetcher.fetch(Request(server.url()))
        assert (response.status, response.body) == (status, body)

    @pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
    @pytest.mark.parametrize(
        "rest",
        [
            b"\r\nhello",
            b"Content-Length: 5\r\n\r\nhello",
            b"Content-Length: 5\r\n\r\n",
            b"Content-Length: 5\r\n\r\n" + OK,
            b"Content-Length: 1000000000000\r\n\r\n",
            b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000,
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n",
        ],
        ids=lambda rest: str(rest[:60]),
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    @in_loop
    async def test_an_answer_without_a_body_by_its_status(
        self, make: Make, method: str, rest: bytes, status: bytes
    ) -> None:
        """It ends with its head (RFC 9112 section 6.3); its connection, which may bring more, is not used again."""
        async with RawServer(b"HTTP/1.1 " + status + b"\r\n" + rest, "hang") as server, opened(make) as fetcher:
            for _ in range(2):
                response = await fetcher.fetch(Request(server.url(), method=method))
                assert (response.status, response.body) == (int(status[:3]), b"")

    @pytest.mark.parametrize(
        ("answer", "end", "error"),
        [
            (b"", "close", ConnectionLost),
            (b"", "reset", ConnectionLost),
            (b"HTTP/1.1 200", "close", ConnectionLost),
            (b"HTTP/1.1 200", "reset", ConnectionLost),
            (HEAD, "close", ConnectionLost),
            (HEAD, "reset", ConnectionLost),
            (HEAD + b"Content-Length: 100\r\n\r\n", "close", Truncated),
            (HEAD + b"Content-Length: 100\r\n\r\nhalf", "close", Truncated),
            (HEAD + b"Content-Length: 100\r\n\r\nhalf", "reset", ConnectionLost),
            (HEAD + b"Content-Length: 300000\r\n\r\n" + b"x" * 299_999, "close", Truncated),
            (CHUNKED + b"4\r\nhalf\r\n", "close", Truncated),
            (CHUNKED + b"4\r\nha", "close", Truncated),
            (CHUNKED + b"4\r\nhalf\r\n", "reset", ConnectionLost),
            (CHUNKED + b"zz\r\nhalf\r\n0\r\n\r\n", "close", ProtocolError),
            (CHUNKED + b"2\r\nhalf\r\n0\r\n\r\n", "close", ProtocolError),
            (HEAD + b"Content-Length: 4\r\n" + CHUNKED[len(HEAD) :] + b"0\r\n\r\n", "close", ProtocolError),
            (HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nhalf", "close", ProtocolError),
            (HEAD + b"Content-Length: 4\r\n\r\nbodyand more", "close", ProtocolError),
            (HEAD + b"Content-Length: four\r\n\r\nhalf", "close", ProtocolError),
            (HEAD + b"Content-Length: " + b"0" * 5000 + b"4\r\n\r\nhalf", "close", ProtocolError),
            (HEAD + b"Content-Length: -4\r\n\r\nhalf", "close", ProtocolError),
            (HEAD + b"X: a\0b\r\nContent-Length: 2\r\n\r\nok", "close", ProtocolError),
            (b"HTTP/1.1 abc OK\r\n\r\n", "close", ProtocolError),
            (b"220 mail.example.com ESMTP\r\n\r\n", "close", ProtocolError),
            (b"<html>HTTP/0.9 has no head</html>\r\n\r\n", "close", ProtocolError),
            (HEAD + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n", "close", ProtocolError),
            (HEAD + b"A: b\r\n" * 100_000 + b"\r\n", "close", ProtocolError),
            (HEAD + b"A: b\r\n" * 1_000 + b"Content-Length: 0\r\n\r\n", "close", ProtocolError),
        ],
        ids=str,
    )
    @in_loop
    async def test_a_broken_answer_is_never_a_response(
        self, make: Make, answer: bytes, end: str, error: type[FetchError]
    ) -> None:
        """Cut off, malformed or beyond measure in any place: an error of its own class, one connection, one line."""
        async with RawServer(answer, end) as server, opened(make) as fetcher:
            with pytest.raises(error) as raised:
                await fetcher.fetch(Request(server.url()))
        assert type(raised.value) is error
        assert (raised.value.url, raised.value.retryable) == (server.url(), True)
        assert "\n" not in str(raised.value)
        assert server.connections == 1

    @in_loop
    async def test_what_follows_a_body_is_not_taken_for_the_next_answer(self, make: Make) -> None:
        """A connection that brought more than its content-length is not used again."""
        evil = OK + HEAD + b"Content-Length: 4\r\n\r\nevil"
        async with RawServer(evil, "hang") as server, opened(make) as fetcher:
            first = await fetcher.fetch(Request(server.url("/1")))
            second = await fetcher.fetch(Request(server.url("/2")))
        assert (first.body, second.body, server.connections) == (b"ok", b"ok", 2)

    @pytest.mark.parametrize("headers", [{}, KEEP_ALIVE])
    @pytest.mark.parametrize("end", ["close", "reset"])
    @in_loop
    async def test_a_connection_that_ends_while_it_is_kept(self, make: Make, end: str, headers: dict[str, str]) -> None:
        """The second request on it meets the end: ConnectionLost, which is no sign of strain; on a new one it is."""
        async with RawServer(b"", end) as server, opened(make) as fetcher:
            RawServer.warmable.discard(server.port)  # it is warmed up here
            assert (await fetcher.fetch(Request(server.url(WARM_UP), headers=headers))).body == b"warm"
            with pytest.raises(ConnectionLost) as kept:
                await fetcher.fetch(Request(server.url(), headers=headers))
            with pytest.raises(ConnectionLost) as new:
                await fetcher.fetch(Request(server.url(), headers=headers))
        assert (kept.value.is_strain, new.value.is_strain) == (False, True)
        assert not pickle.loads(pickle.dumps(kept.value)).is_strain
        assert server.connections == 2

    @pytest.mark.parametrize(("first", "then"), [({}, {}), (KEEP_ALIVE, {}), (KEEP_ALIVE, KEEP_ALIVE)])
    @in_loop
    async def test_a_retry_goes_by_a_new_connection(
        self, make: Make, first: dict[str, str], then: dict[str, str]
    ) -> None:
        """Where a server closes connections without a word, a request that met one does not meet the next as well."""
        async with RawServer(OK, "hang") as server, opened(make) as fetcher:
            RawServer.warmable.discard(server.port)  # it is warmed up here
            assert (await fetcher.fetch(Request(server.url(WARM_UP), headers=first))).body == b"warm"
            retry = Request(server.url(), headers=then)
            retry.retries = 1
            assert (await fetcher.fetch(retry)).body == b"ok"
        assert server.connections == 2

    @pytest.mark.parametrize(
        ("answer", "phase"),
        [
            (b"", "waiting"),
            (HEAD, "waiting"),
            (HEAD + b"Content-Length: 9\r\n\r\nsome", "body"),
            (CHUNKED + b"4\r\nsome\r\n", "body"),
        ],
    )
    @pytest.mark.parametrize("own", [False, True])
    @in_loop
    async def test_silence_ends_at_the_timeout(self, make: Make, answer: bytes, phase: str, own: bool) -> None:
        """Before, in and after the headers: the downloader's timeout holds, or the request's own; the error says when."""
        options, timeout = ({"timeout_s": 30.0}, 0.25) if own else ({"timeout_s": 0.25}, None)
        async with RawServer(answer, "hang") as server, opened(make, **options) as fetcher:
            with pytest.raises(FetchTimeout, match=r"in 0\.25 s, .*\(download\.timeout\)") as raised:
                await fetcher.fetch(Request(server.url(), timeout=timeout))
        assert raised.value.phase == phase

    @pytest.mark.parametrize("whole", [False, True])
    @in_loop
    async def test_a_connection_that_never_comes(self, make: Make, whole: bool) -> None:
        """A host that drops packets: download.connect_timeout holds, or download.timeout where that is over before."""
        options = {"timeout_s": 0.05} if whole else {"connect_timeout_s": 0.05}
        words = "download.timeout" if whole else "download.connect_timeout"
        with unreachable() as port:
            async with opened(make, **options) as fetcher:
                with pytest.raises(FetchTimeout, match=words) as raised:
                    await fetcher.fetch(Request(f"http://127.0.0.1:{port}/"))
        assert (raised.value.phase, raised.value.is_strain) == ("connecting", True)

    @pytest.mark.parametrize("secure", [False, True])
    @in_loop
    async def test_a_proxy_that_cannot_be_connected_to(self, make: Make, secure: bool) -> None:
        """The timeout's phase tells it from a proxy that does not get on with the site; it says nothing of the site."""
        url = NOWHERE.replace("http:", "https:") if secure else NOWHERE
        with unreachable() as port:
            async with opened(make, connect_timeout_s=0.3) as fetcher:
                with pytest.raises(FetchTimeout, match=r"while connecting to the proxy \(download.connect") as raised:
                    await fetcher.fetch(Request(url, proxy=f"http://127.0.0.1:{port}"))
        assert (raised.value.phase, raised.value.is_strain) == ("proxy", False)
        async with RawServer(b"", "hang") as server, opened(make, connect_timeout_s=0.3, timeout_s=0.4) as fetcher:
            with pytest.raises(FetchTimeout) as raised:
                await fetcher.fetch(Request(url, proxy=server.url()))
        assert raised.value.phase == ("connecting" if secure else "waiting")

    @pytest.mark.parametrize("dead", ["drops packets", "refuses"])
    @in_loop
    async def test_an_address_that_is_dead_beside_one_that_lives(self, make: Make, dead: str) -> None:
        """The next address of the host is tried long before the time for connecting is over (RFC 8305)."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(LAST)
            writer.close()

        async def resolve(host: str) -> list[str]:
            return ["127.0.0.1" if dead == "drops packets" else "127.0.0.3", "127.0.0.2"]

        with unreachable() as port:
            async with (
                await asyncio.start_server(serve, "127.0.0.2", port),
                opened(make, resolve=resolve, connect_timeout_s=3.0) as fetcher,
            ):
                response = await fetcher.fetch(Request(f"http://two.test:{port}/"))
        assert (response.body, response.ip_address) == (b"ok", "127.0.0.2")

    @pytest.mark.parametrize("whole", [False, True])
    @in_loop
    async def test_a_handshake_that_hangs(self, make: Make, whole: bool) -> None:
        """A server that accepts and says nothing in TLS is a timeout of that phase."""
        # Long enough for a busy machine to come to the handshake, which is what is to be told apart from connecting.
        options = {"timeout_s": 0.3} if whole else {"connect_timeout_s": 0.3}
        words = "download.timeout" if whole else "download.connect_timeout"
        async with RawServer(b"", "hang", read=False) as server, opened(make, **options) as fetcher:
            with pytest.raises(FetchTimeout, match=words) as raised:
                await fetcher.fetch(Request(server.url().replace("http:", "https:")))
        assert raised.value.phase == "TLS handshake"

    @in_loop
    async def test_the_connect_timeout_is_the_connections_alone(self, make: Make) -> None:
        """An answer may take longer than connecting may."""

        async def slow(request: web.BaseRequest) -> str:
            done = asyncio.Event()
            asyncio.get_running_loop().call_later(0.1, done.set)
            await done.wait()
            return "slow"

        async with Site({"/": slow}) as site, opened(make, connect_timeout_s=0.05) as fetcher:
            assert (await fetcher.fetch(Request(site.url()))).body == b"slow"

    @pytest.mark.parametrize("answer", [b"", HEAD + b"Content-Length: 9\r\n\r\nsome"])
    @in_loop
    async def test_a_cancelled_fetch_leaves_the_pool_usable(self, make: Make, answer: bytes) -> None:
        """Its connection is closed, and others go on."""
        async with RawServer(answer, "hang") as server, Site({"*": "ok"}) as site, opened(make) as fetcher:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await fetcher.fetch(Request(server.url()))
            many = [fetcher.fetch(Request(site.url(f"/{n}"))) for n in range(20)]
            assert {each.body for each in await asyncio.gather(*many)} == {b"ok"}

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize("size", [101, 70_000, 1_000_000])
    @in_loop
    async def test_max_body_holds_on_the_wire(self, make: Make, size: int, chunked: bool) -> None:
        """A byte more than max_body is refused, announced or not; exactly max_body passes."""

        def page(request: web.BaseRequest) -> web.Response:
            response = web.Response(body=b"x" * int(request.path[1:]))
            if chunked:
                response.enable_chunked_encoding()
            return response

        async with Site({"*": page}) as site, opened(make, max_body=size - 1) as fetcher:
            with pytest.raises(BodyTooLarge, match=rf"{size - 1} bytes \(download\.max_body\)"):
                await fetcher.fetch(Request(site.url(f"/{size}")))
            assert len((await fetcher.fetch(Request(site.url(f"/{size - 1}")))).body) == size - 1

    @in_loop
    async def test_a_name_that_does_not_resolve(self, make: Make) -> None:
        """A DnsError."""
        async with opened(make, AddressGuard("seeds")) as fetcher:
            for host in ("nonexistent.invalid", "nonexistent1", "x" * 63 + ".invalid"):
                with pytest.raises(DnsError):
                    await fetcher.fetch(Request(f"http://{host}/"))

    @in_loop
    async def test_a_port_where_nobody_listens(self, make: Make) -> None:
        """A ConnectError that says so."""
        async with RawServer(b"") as server:
            url = server.url()
        async with opened(make) as fetcher:
            with pytest.raises(ConnectError, match=r"cannot connect \(Connection refused\)"):
                await fetcher.fetch(Request(url))

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
    @in_loop
    async def test_private_addresses_are_refused_in_every_spelling(self, make: Make, host: str) -> None:
        """By number, by name, IPv4 inside IPv6: no connection is made. A literal one is refused behind a proxy, too."""
        async with RawServer(OK) as server, opened(make, AddressGuard("seeds")) as fetcher:
            url = f"http://{host}:{server.port}/"
            with pytest.raises(PrivateAddress, match=r"download.private_addresses"):
                await fetcher.fetch(Request(url))
            if host != "localhost":
                for proxy in (server.url(), server.url().replace("http", "socks5")):
                    with pytest.raises(PrivateAddress):
                        await fetcher.fetch(Request(url, proxy=proxy))
        assert server.connections == 0

    @in_loop
    async def test_a_seed_is_a_name_not_an_address(self, make: Make) -> None:
        """A start URL at localhost opens localhost, not 127.0.0.1; it is judged anew with each connection."""
        guard = AddressGuard("seeds")
        async with RawServer(OK) as server, opened(make, guard) as fetcher:
            by_name = Request(f"http://localhost:{server.port}/")
            with pytest.raises(PrivateAddress):
                await fetcher.fetch(by_name)
            guard.add_seed("localhost")
            assert (await fetcher.fetch(by_name)).body == b"ok"
            with pytest.raises(PrivateAddress):
                await fetcher.fetch(Request(server.url()))

    @pytest.mark.parametrize("case", ["unknown authority", "expired", "wrong host", "plain"])
    @in_loop
    async def test_bad_tls(self, make: Make, authority: Authority, case: str) -> None:
        """An authority that nobody knows, a certificate out of date or for another host: a TlsError, not to be tried again."""
        past = datetime(2020, 1, 1, tzinfo=UTC)
        contexts = {
            "unknown authority": authority.context("127.0.0.1"),
            "expired": authority.context("127.0.0.1", not_after=past),
            "wrong host": authority.context("example.com"),
        }
        options = {} if case == "unknown authority" else {"ca_file": authority.file}
        words = {"unknown authority": "issuer certificate", "expired": "expired", "wrong host": "match|mismatch"}.get(
            case, ""
        )
        answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
        async with RawServer(answer, read=False, tls=contexts.get(case)) as server, opened(make, **options) as fetcher:
            with pytest.raises(TlsError, match=words + r".*download\.verify_tls") as raised:
                await fetcher.fetch(Request(server.url().replace("http:", "https:")))
        assert raised.value.retryable is False

    @in_loop
    async def test_a_host_name_with_the_roots_dot(self, make: Make, authority: Authority) -> None:
        """The certificate is the one for the name without it."""

        async def resolve(host: str) -> list[str]:
            return ["127.0.0.1"]

        async with (
            RawServer(OK, tls=authority.context("a.test")) as server,
            opened(make, ca_file=authority.file, resolve=resolve) as fetcher,
        ):
            assert (await fetcher.fetch(Request(f"https://a.test.:{server.port}/"))).body == b"ok"

    @pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
    @in_loop
    async def test_bad_tls_behind_a_proxy(self, make: Make, authority: Authority, kind: type[HttpProxy]) -> None:
        """The same; a setting lets it pass."""
        async with (
            RawServer(LAST, tls=authority.context("example.com")) as server,
            kind(server.port) as proxy,
            opened(make, ca_file=authority.file) as fetcher,
            opened(make, verify_tls=False) as careless,
        ):
            request = Request(NOWHERE.replace("http:", "https:"), proxy=proxy.url())
            with pytest.raises(TlsError, match=r"match.*download\.verify_tls") as raised:
                await fetcher.fetch(request)
            assert (await careless.fetch(request)).body == b"ok"
        assert raised.value.retryable is False

    @in_loop
    async def test_whom_tls_trusts(self, make: Make, authority: Authority) -> None:
        """download.ca_file adds an authority; without verify_tls anything goes; a file that is none is a UsageError."""
        async with RawServer(OK, tls=authority.context("127.0.0.1")) as server:
            for options in ({"ca_file": authority.file}, {"verify_tls": False}):
                async with opened(make, **options) as fetcher:
                    assert (await fetcher.fetch(Request(server.url()))).body == b"ok"
        for file in ("/nonexistent.pem", __file__):
            with pytest.raises(UsageError, match=f"download.ca_file.*{file}"):
                await make(AddressGuard(), user_agent="x", encodings="gzip", ca_file=file).open()

    @pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
    @pytest.mark.parametrize("secure", [False, True])
    @in_loop
    async def test_a_proxy(self, make: Make, authority: Authority, kind: type[HttpProxy], secure: bool) -> None:
        """It resolves the name, and alone gets the credentials; it may be private, and a request may have its own."""
        tls = authority.context("nonexistent.invalid") if secure else None
        async with RawServer(LAST, tls=tls) as server, kind(server.port, "me:secret") as proxy:
            url = NOWHERE.replace("http:", "https:") if secure else NOWHERE
            for options, own in (({"proxy": proxy.url("me:secret")}, None), ({}, proxy.url("me:secret"))):
                async with opened(make, AddressGuard("seeds"), ca_file=authority.file, **options) as fetcher:
                    response = await fetcher.fetch(Request(url, proxy=own))
                    assert (response.body, response.url) == (b"ok", url)
                    if secure or kind is SocksProxy:
                        headers = {"Proxy-Authorization": "Basic mine"}
                        await fetcher.fetch(Request(url, proxy=own, headers=headers))
        assert all(b"nonexistent.invalid" in head for head in proxy.heads)
        assert len(server.heads) >= 2
        if secure or kind is SocksProxy:
            assert not any(b"proxy-authorization" in head.lower() for head in server.heads)
            assert all(head.startswith(b"GET / HTTP/1.1\r\n") for head in server.heads)
        else:
            assert all(head.startswith(b"GET http://nonexistent.invalid/ HTTP/1.1\r\n") for head in proxy.heads)

    @pytest.mark.parametrize("secure", [False, True])
    @in_loop
    async def test_a_requests_own_login_at_a_proxy(self, make: Make, authority: Authority, secure: bool) -> None:
        """Its Proxy-Authorization goes to the proxy, with CONNECT too; what the proxy's URL says goes before it there."""
        tls = authority.context("nonexistent.invalid") if secure else None
        url = NOWHERE.replace("http:", "https:") if secure else NOWHERE
        headers = {"Proxy-Authorization": f"Basic {b64encode(b'me:secret').decode()}"}
        async with (
            RawServer(LAST, tls=tls) as server,
            HttpProxy(server.port, "me:secret") as proxy,
            opened(make, ca_file=authority.file) as fetcher,
        ):
            assert (await fetcher.fetch(Request(url, proxy=proxy.url(), headers=headers))).body == b"ok"
            if secure:
                wrong = Request(url, proxy=proxy.url("me:wrong"), headers=headers)
                for request in (Request(url, proxy=proxy.url()), wrong):
                    with pytest.raises(ProxyError) as raised:
                        await fetcher.fetch(request)
                    assert raised.value.status == 407
                assert not any(b"authorization" in head.lower() for head in server.heads)

    @pytest.mark.parametrize("secure", [False, True])
    @in_loop
    async def test_a_proxy_over_tls(self, make: Make, authority: Authority, secure: bool) -> None:
        """An https:// proxy, for http and for https inside it; its certificate is verified."""
        tls = authority.context("nonexistent.invalid") if secure else None
        url = NOWHERE.replace("http:", "https:") if secure else NOWHERE
        own = authority.context("127.0.0.1")
        async with RawServer(LAST, tls=tls) as server, HttpProxy(server.port, "me:secret", own) as proxy:
            async with opened(make, ca_file=authority.file, proxy=proxy.url("me:secret")) as fetcher:
                assert (await fetcher.fetch(Request(url))).body == b"ok"
            async with opened(make, proxy=proxy.url("me:secret")) as fetcher:
                with pytest.raises((ConnectError, TlsError)):
                    await fetcher.fetch(Request(url))
        assert len(server.heads) == 1

    @pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
    @in_loop
    async def test_a_proxy_that_refuses(self, make: Make, kind: type[HttpProxy]) -> None:
        """Wrong credentials, and a proxy that is not there, are ConnectErrors that name download.proxy."""
        async with kind(1, "me:secret") as proxy, opened(make) as fetcher:
            for user in ("me:wrong", ""):
                with pytest.raises(ConnectError, match=r"download.proxy"):
                    await fetcher.fetch(Request(NOWHERE.replace("http:", "https:"), proxy=proxy.url(user)))
        async with opened(make) as fetcher:
            with pytest.raises(ConnectError, match=r"download.proxy"):
                await fetcher.fetch(Request(NOWHERE, proxy=proxy.url()))

    @in_loop
    async def test_the_host_of_a_proxy_is_private_to_all_else(self, make: Make) -> None:
        """By its name it is asked as the proxy alone: not on another port, nor on its own, before, meanwhile or after."""

        async def resolve(host: str) -> list[str]:
            return ["127.0.0.1"]

        async with RawServer(LAST) as server, HttpProxy(server.port) as proxy:
            through = Request("http://a.test/", proxy=f"http://proxy.test:{proxy.port}")
            direct = [Request(f"http://proxy.test:{port}/", proxy="") for port in (server.port, proxy.port)]
            async with opened(make, AddressGuard("seeds"), resolve=resolve) as fetcher:
                for each in ([*direct, through], [through, *direct], direct):
                    came = await asyncio.gather(*map(fetcher.fetch, each), return_exceptions=True)
                    assert [type(got) for got in came] == [
                        Response if request is through else PrivateAddress for request in each
                    ]
        assert len(proxy.heads) == server.connections == 2

    @pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
    @in_loop
    async def test_a_proxy_makes_no_difference_to_an_odd_answer(self, make: Make, kind: type[HttpProxy]) -> None:
        """A 304 ends with its head, whatever follows."""
        answer = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"
        async with RawServer(answer, "hang") as server, kind(server.port) as proxy, opened(make) as fetcher:
            for _ in range(2):
                response = await fetcher.fetch(Request(server.url(), proxy=proxy.url()))
                assert (response.status, response.body) == (304, b"")

    @in_loop
    async def test_socks_proxies_that_fail(self, make: Make) -> None:
        """One that cannot reach the host, hangs, or is none: ConnectError, FetchTimeout, a FetchError."""
        async with SocksProxy(1, reply=5) as proxy, opened(make) as fetcher:
            with pytest.raises(ConnectError, match=r"(?i)refused"):
                await fetcher.fetch(Request(NOWHERE, proxy=proxy.url()))
        async with RawServer(b"", "hang", read=False) as server, opened(make, connect_timeout_s=0.05) as fetcher:
            with pytest.raises(FetchTimeout, match=r"download.connect_timeout"):
                await fetcher.fetch(Request(NOWHERE, proxy=server.url().replace("http", "socks5")))
        async with RawServer(OK, read=False) as server, opened(make) as fetcher:
            with pytest.raises(FetchError):
                await fetcher.fetch(Request(NOWHERE, proxy=server.url().replace("http", "socks5")))

    @pytest.mark.parametrize("status", [403, 407, 502, 503])
    @in_loop
    async def test_a_proxys_answer_to_connect(self, make: Make, status: int) -> None:
        """The error has its status."""
        answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()
        async with RawServer(answer, "hang") as server, opened(make) as fetcher:
            with pytest.raises(ProxyError) as raised:
                await fetcher.fetch(Request(NOWHERE.replace("http:", "https:"), proxy=server.url()))
        assert raised.value.status == status

    @pytest.mark.parametrize(("reply", "status"), [(1, 502), (2, 0), (3, 502), (4, 502), (5, 502), (6, 502), (7, 0)])
    @in_loop
    async def test_a_socks_proxys_answer(self, make: Make, reply: int, status: int) -> None:
        """That it cannot reach the site counts as an HTTP proxy's 502: it says nothing of the proxy."""
        async with SocksProxy(1, reply=reply) as proxy, opened(make) as fetcher:
            with pytest.raises(ProxyError) as raised:
                await fetcher.fetch(Request(NOWHERE, proxy=proxy.url()))
        assert raised.value.status == status

    @in_loop
    async def test_line_breaks_cannot_be_smuggled_in(self, make: Make) -> None:
        """In a URL or a header they are refused; in a proxy's credentials they are inside the encoding."""
        for url, headers in (("http://a/\r\nX: 1", {}), ("http://a/", {"X": "1\r\nY: 2"}), ("http://a/", {"X\n": "1"})):
            with pytest.raises(RequestError):
                Request(url, headers=headers)
        async with RawServer(OK) as server, opened(make) as fetcher:
            proxy = server.url().replace("//", "//me%0d%0aX-Evil: 1:secret@").replace(" ", "%20")
            await fetcher.fetch(Request(NOWHERE + "%0d%0aX-Evil:%201", proxy=proxy))
        assert b"\r\nX-Evil" not in server.heads[0]
