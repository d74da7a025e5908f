"""The httpx downloader over HTTP/2: against hypercorn, against a server written frame by frame, and against respx."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import h2.config
import h2.connection
import h2.events
import httpcore
import httpx
import pytest
import respx
import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config
from servers import Authority, RawServer, in_loop

from scraper import Request
from scraper.addresses import AddressGuard
from scraper.downloaders.httpx import HttpxDownloader
from scraper.errors import BodyTooLarge, ConnectionLost, FetchError, FetchTimeout, ProtocolError, ProxyError, Truncated

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def downloader(authority: Authority | None = None, **options: Any) -> AsyncIterator[HttpxDownloader]:
    """Open a downloader that trusts the authority and may reach any address, and close it."""
    fetcher = HttpxDownloader(
        guard=AddressGuard("always"),
        **{
            "user_agent": "test/1",
            "encodings": "gzip",
            "timeout_s": 10.0,
            "ca_file": authority.file if authority else "",
            **options,
        },
    )
    await fetcher.open()
    try:
        yield fetcher
    finally:
        await fetcher.close()


Play = Callable[[h2.connection.H2Connection, int, dict[str, str]], None]


class Http2Server:
    """Plays ``play(connection, stream, headers)`` for each request; what it queues is sent. Counts its connections."""

    def __init__(self, authority: Authority, play: Play) -> None:
        self._tls = authority.context("127.0.0.1")
        self._tls.set_alpn_protocols(["h2"])
        self._play = play
        self._writers: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self.connections = 0
        self.resets: list[int] = []
        self.reset = asyncio.Event()

    async def __aenter__(self) -> Http2Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        serving = dict(self._writers)
        for writer in serving.values():
            writer.close()
        await asyncio.gather(*serving)
        await self._server.wait_closed()

    def url(self, path: str = "/") -> str:
        """The address of a page."""
        return f"https://127.0.0.1:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task: Any = asyncio.current_task()
        self._writers[task] = writer
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        unsent: dict[int, bytes] = {}
        try:
            await writer.start_tls(self._tls)
            connection.initiate_connection()
            writer.write(connection.data_to_send())
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        connection.unsent = unsent  # type: ignore[attr-defined]
                        self._play(connection, event.stream_id, dict(event.headers))  # type: ignore[arg-type]
                    elif isinstance(event, h2.events.StreamReset):
                        self.resets.append(event.stream_id)
                        unsent.pop(event.stream_id, None)
                        self.reset.set()
                self._flow(connection, unsent)
                writer.write(connection.data_to_send())
                await writer.drain()
                if connection.state_machine.state == h2.connection.ConnectionState.CLOSED:
                    break
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()
            del self._writers[task]

    def _flow(self, connection: h2.connection.H2Connection, unsent: dict[int, bytes]) -> None:
        """Send as much of the bodies as the windows allow."""
        for stream, body in list(unsent.items()):
            while body and (room := connection.local_flow_control_window(stream)):
                size = min(room, connection.max_outbound_frame_size, len(body))
                connection.send_data(stream, body[:size], end_stream=size == len(body))
                body = body[size:]
            unsent[stream] = body
            if not body:
                del unsent[stream]


def answer(connection: Any, stream: int, body: bytes = b"ok", **headers: str) -> None:
    """Answer with 200 and a body."""
    connection.send_headers(stream, [(":status", "200"), *headers.items()])
    connection.unsent[stream] = body


@asynccontextmanager
async def hypercorn(tmp_path: Path, app: Any) -> AsyncIterator[tuple[str, Authority]]:
    """Run an ASGI application behind HTTP/2 and TLS; give its address and whom to trust."""
    authority = Authority(tmp_path)
    certificate: trustme.LeafCert = authority.issue("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.certfile, config.keyfile = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 0.1
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield f"https://127.0.0.1:{port}", authority
    finally:
        stop.set()
        await serving


class App:
    """An ASGI application: /N is a body of N bytes; a POST is echoed; /barrier answers when ``together`` are inside."""

    def __init__(self, together: int = 1) -> None:
        self.versions: set[str] = set()
        self.clients: set[Any] = set()
        self._barrier = asyncio.Barrier(together)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.versions.add(scope["http_version"])
        self.clients.add(tuple(scope["client"]))
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        path = scope["path"][1:]
        if path == "barrier":
            await self._barrier.wait()
        elif path.isdigit():
            body = b"x" * int(path)
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@in_loop
async def test_many_streams_over_one_connection(tmp_path: Path) -> None:
    """Sixty requests at once are answered together: over one connection, by HTTP/2; repeated headers are kept."""
    app = App(together=60)
    async with hypercorn(tmp_path, app) as (url, authority), downloader(authority) as fetcher:
        responses = await asyncio.gather(*(fetcher.fetch(Request(f"{url}/barrier")) for _ in range(60)))
    assert {each.protocol for each in responses} == {"HTTP/2"}
    assert {each.ip_address for each in responses} == {"127.0.0.1"}
    assert responses[0].headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert (app.versions, len(app.clients)) == ({"2"}, 1)


@in_loop
async def test_large_bodies_both_ways(tmp_path: Path) -> None:
    """10 MB come, and 1 MB goes, through HTTP/2's windows."""
    async with hypercorn(tmp_path, App()) as (url, authority), downloader(authority) as fetcher:
        assert len((await fetcher.fetch(Request(f"{url}/10000000"))).body) == 10_000_000
        body = bytes(range(256)) * 4096
        assert (await fetcher.fetch(Request(f"{url}/echo", method="POST", body=body))).body == body


@in_loop
async def test_fetches_that_end_early_do_not_use_up_the_connection(authority: Authority) -> None:
    """Each is reset: 24 MB that nobody wants pass through a window of 16 MB, and the connection goes on."""

    def play(connection: Any, stream: int, headers: dict[str, str]) -> None:
        size = int(headers[":path"][1:])
        answer(connection, stream, b"x" * size)

    async with Http2Server(authority, play) as server, downloader(authority, max_body=1000) as fetcher:
        for _ in range(4):
            with pytest.raises(BodyTooLarge, match=r"download.max_body"):
                await fetcher.fetch(Request(server.url("/6000000")))
        assert (await fetcher.fetch(Request(server.url("/1000")))).body == b"x" * 1000
        assert server.connections == 1


@in_loop
async def test_a_cancelled_stream_leaves_the_others_alone(authority: Authority) -> None:
    """A timeout ends one stream with a reset; what is under way beside it comes whole, over the same connection."""

    def play(connection: Any, stream: int, headers: dict[str, str]) -> None:
        if headers[":path"] != "/never":
            answer(connection, stream)

    async with Http2Server(authority, play) as server, downloader(authority) as fetcher:
        await fetcher.fetch(Request(server.url()))
        with pytest.raises(FetchTimeout) as raised:
            await fetcher.fetch(Request(server.url("/never"), timeout=0.05))
        assert raised.value.phase == "waiting"
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await fetcher.fetch(Request(server.url("/never")))
        both = await asyncio.gather(*(fetcher.fetch(Request(server.url(f"/{n}"))) for n in range(20)))
        assert {each.body for each in both} == {b"ok"}
        await server.reset.wait()
        assert (server.connections, len(server.resets)) == (1, 4)


@in_loop
async def test_many_proxies_cost_little(authority: Authority) -> None:
    """One for each request, or one with a user for each session, as rented ones have: what TLS trusts is held once."""

    def contexts() -> int:
        return sum(isinstance(each, ssl.SSLContext) for each in gc.get_objects())

    async with RawServer(b"") as server:
        nobody = server.url().removeprefix("http://")
    async with downloader(authority) as fetcher:
        before = contexts()
        for session in range(10):
            for scheme in ("http", "https"):
                with pytest.raises(ProxyError):
                    await fetcher.fetch(Request(server.url(), proxy=f"{scheme}://session-{session}:x@{nobody}"))
        assert contexts() <= before + 1


def goes_away(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """End the connection before the answer (RFC 9113 section 6.8)."""
    connection.close_connection(error_code=0, last_stream_id=stream)


def resets(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """Reset the stream before the answer."""
    connection.reset_stream(stream, error_code=2)


def resets_in_the_body(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """Reset the stream in the body."""
    connection.send_headers(stream, [(":status", "200")])
    connection.send_data(stream, b"half")
    connection.reset_stream(stream, error_code=2)


def ends_too_early(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """Send less than was announced."""
    connection.send_headers(stream, [(":status", "200"), ("content-length", "10")])
    connection.send_data(stream, b"half", end_stream=True)


def ends_with_its_head(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """Announce a body, and send none."""
    connection.send_headers(stream, [(":status", "200"), ("content-length", "10")], end_stream=True)


def ends_too_early_with_trailers(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """Send less than was announced, and trailers."""
    connection.send_headers(stream, [(":status", "200"), ("content-length", "10")])
    connection.send_data(stream, b"half")
    connection.send_headers(stream, [("x-sum", "1")], end_stream=True)


def sends_many_headers(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """Send 200 headers."""
    connection.send_headers(stream, [(":status", "200"), *((f"x-{n}", "1") for n in range(200))], end_stream=True)


def sends_large_headers(connection: Any, stream: int, headers: dict[str, str]) -> None:
    """Send headers of 300 kB."""
    large = [(f"x-{n}", "y" * 10_000) for n in range(30)]
    connection.send_headers(stream, [(":status", "200"), *large], end_stream=True)


@pytest.mark.parametrize(
    ("play", "error"),
    [
        (goes_away, ConnectionLost),
        (resets, ConnectionLost),
        (resets_in_the_body, ConnectionLost),
        (ends_too_early, Truncated),
        (ends_with_its_head, Truncated),
        (ends_too_early_with_trailers, Truncated),
        (sends_many_headers, ProtocolError),
        (sends_large_headers, ProtocolError),
    ],
)
@in_loop
async def test_what_breaks_is_ours(authority: Authority, play: Play, error: type[FetchError]) -> None:
    """GOAWAY, resets, short bodies and monstrous headers are retryable errors of our own; the next fetch is well."""
    turns: list[Play] = [play]

    def in_turn(connection: Any, stream: int, headers: dict[str, str]) -> None:
        if turns:
            turns.pop()(connection, stream, headers)
        else:
            answer(connection, stream)

    async with Http2Server(authority, in_turn) as server, downloader(authority) as fetcher:
        with pytest.raises(error) as raised:
            await fetcher.fetch(Request(server.url()))
        assert (type(raised.value), raised.value.retryable) == (error, True)
        assert "\n" not in str(raised.value)
        assert (await fetcher.fetch(Request(server.url("/2")))).body == b"ok"


@pytest.mark.parametrize(("method", "status"), [("HEAD", "200"), ("GET", "304"), ("GET", "204")])
@in_loop
async def test_a_length_without_a_body(authority: Authority, method: str, status: str) -> None:
    """Whoever asks by HEAD, or is told 204 or 304, is told of the length of another body (RFC 9110 section 8.6)."""

    def play(connection: Any, stream: int, headers: dict[str, str]) -> None:
        connection.send_headers(stream, [(":status", status), ("content-length", "10")], end_stream=True)

    async with Http2Server(authority, play) as server, downloader(authority) as fetcher:
        response = await fetcher.fetch(Request(server.url(), method=method))
    assert (response.status, response.body) == (int(status), b"")


@in_loop
async def test_all_streams_of_a_broken_connection_are_told(authority: Authority) -> None:
    """A GOAWAY under ten requests gives each a ConnectionLost or, where it was not begun, another connection."""
    asked = 0

    def play(connection: Any, stream: int, headers: dict[str, str]) -> None:
        nonlocal asked
        asked += 1
        if asked == 5:
            connection.close_connection(error_code=11, last_stream_id=stream)
        elif asked > 5 and connection.state_machine.state != h2.connection.ConnectionState.CLOSED:
            answer(connection, stream)

    async with Http2Server(authority, play) as server, downloader(authority) as fetcher:
        many = (fetcher.fetch(Request(server.url(f"/{n}"))) for n in range(10))
        ends = await asyncio.gather(*many, return_exceptions=True)
        lost = [each for each in ends if isinstance(each, BaseException)]
        assert all(isinstance(each, ConnectionLost) for each in lost), lost
        assert lost
        assert (await fetcher.fetch(Request(server.url()))).body == b"ok"


@in_loop
async def test_idle_connections_are_closed() -> None:
    """Without a further request to trigger it, the server sees the connection end."""
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server, downloader(idle_s=0.02) as fetcher:
        await fetcher.fetch(Request(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        await ended.wait()


@in_loop
async def test_connections_are_used_again(authority: Authority) -> None:
    """Three requests one after the other, one connection, in HTTP/1.1 with TLS too."""
    asked = 0
    ended = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        while (await reader.readline()).startswith(b"GET"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)
        writer.close()
        ended.set()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=authority.context("127.0.0.1"))
    port = server.sockets[0].getsockname()[1]
    async with server:
        async with downloader(authority) as fetcher:
            for n in range(3):
                response = await fetcher.fetch(Request(f"https://127.0.0.1:{port}/{n}"))
                assert (response.body, response.protocol) == (b"ok", "HTTP/1.1")
        await ended.wait()
        assert asked == 1


@pytest.mark.parametrize(
    "raised",
    [
        httpcore.ReadError("x"),
        httpcore.WriteTimeout("x"),
        httpcore.RemoteProtocolError("x"),
        httpcore.LocalProtocolError("x"),
        httpcore.UnsupportedProtocol("x"),
        KeyError(7),
        RuntimeError("x"),
        ssl.SSLError("x"),
    ],
    ids=repr,
)
@in_loop
async def test_no_foreign_exception_comes_out(raised: Exception) -> None:
    """Whatever is raised below is one of our classes, with the URL."""
    with respx.mock(using="httpcore") as router:
        router.get("http://example.com/").mock(side_effect=raised)
        async with downloader() as fetcher:
            with pytest.raises(FetchError) as found:
                await fetcher.fetch(Request("http://example.com/"))
    assert found.value.url == "http://example.com/"


@in_loop
async def test_each_response_of_a_mock_is_given_on() -> None:
    """Any status, headers and body; nothing is asked again, no redirect followed."""
    made = httpx.Response(302, headers=[("Location", "/x"), ("X-A", "1"), ("X-A", "2")], content=b"gone")
    with respx.mock(using="httpcore") as router:
        route = router.get("http://example.com/").mock(return_value=made)
        async with downloader() as fetcher:
            response = await fetcher.fetch(Request("http://example.com/", headers={"X-B": "3"}))
    assert (response.status, response.headers.getall("X-A"), response.body) == (302, ["1", "2"], b"gone")
    assert (route.call_count, route.calls[0].request.headers["X-B"]) == (1, "3")


@in_loop
async def test_nothing_is_added_to_what_the_server_sends() -> None:
    """A header that is not text, and a body in an unknown encoding, are given as they are."""
    answer = b"HTTP/1.1 200 OK\r\nX-A: \xff\xe9\r\nContent-Length: 1\r\n\r\n\xff"
    async with RawServer(answer) as server, downloader() as fetcher:
        response = await fetcher.fetch(Request(server.url()))
    assert response.headers["X-A"].encode("utf-8", "surrogateescape") == b"\xff\xe9"
    assert response.body == b"\xff"
