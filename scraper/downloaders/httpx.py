"""The downloader for HTTP/2, by httpx: HTTP/2 where the server offers it in the TLS handshake (ALPN), else HTTP/1.1.

httpx's transports are used bare, one a proxy: its client would keep cookies, decompress and rewrite. Names are resolved,
judged and connected to in ``_Network``, so that what was judged is what is connected to. This is the one place where the
exceptions of httpx, httpcore, h11 and h2 become ours.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

from aiohappyeyeballs import start_connection
from multidict import CIMultiDict

from scraper.addresses import AddressGuard
from scraper.downloaders import causes
from scraper.downloaders.resolver import Resolve, addresses_of, by_system
from scraper.downloaders.tls import make_context
from scraper.errors import FetchError, UsageError
from scraper.http import Request, Response
from scraper.urls import hostname_of, login_of

try:
    import h2.exceptions
    import httpcore
    import httpx
except ModuleNotFoundError:
    raise UsageError("the downloader httpx is not installed: pip install 'scraper[http2]'") from None

_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
_MAX_HEADERS = 128  # as in aiohttp; httpcore bounds their bytes: 100 KiB in HTTP/1.1, 64 KiB in HTTP/2
_IDLE_CONNECTION_S = 30.0
_NEXT_ADDRESS_S = 0.25  # after which the next address is tried as well (RFC 8305 section 8), as aiohttp does
_MAX_IDLE_CONNECTIONS = 100  # httpcore looks at each of them for each request
_BLOCK = 64 * 1024
_PIECE = 16 * 1024  # bytes that h11 takes apart in less than 100 ms, were they 1xx answers alone
_CHUNKS = 64  # of a body, after which others have their turn
_UNREACHED = ("General SOCKS", "Network", "Host", "Connection refused", "TTL")  # RFC 1928 section 6
_SSL = (ssl.SSLError, ssl.CertificateError)


class HttpxDownloader:
    """Fetches by httpx. Implements ``contracts.Downloader``; the arguments are those of ``AiohttpDownloader``.

    Connections are unlimited, and closed after ``idle_s`` without use. A connection of HTTP/2 carries as many requests as
    the server allows, 100 at most; what is beyond that waits, within the time for connecting. A page costs about 0.6 ms
    of CPU where aiohttp takes 0.1 ms.
    """

    def __init__(
        self,
        *,
        guard: AddressGuard,
        user_agent: str,
        encodings: str,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 15.0,
        max_body: int = 32 * 2**20,
        verify_tls: bool = True,
        ca_file: str = "",
        proxy: str = "",
        sent: Callable[[], None] = lambda: None,
        idle_s: float = _IDLE_CONNECTION_S,
        resolve: Resolve = by_system,
        max_idle: int = 1000,
    ) -> None:
        self._guard = guard
        self._max_idle = min(max_idle, _MAX_IDLE_CONNECTIONS)
        self._headers = {
            "User-Agent": user_agent,
            "Accept": _ACCEPT,
            "Accept-Language": "en",
            "Accept-Encoding": encodings,
        }
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._max_body = max_body
        self._verify_tls = verify_tls
        self._ca_file = ca_file
        self._sent = sent
        self._proxy = proxy or None
        self._idle_s = idle_s
        self._resolve = resolve
        self._streams: set[_Stream] = set()
        self._transports: dict[tuple[str | None, str], httpx.AsyncHTTPTransport] = {}
        self._proxys_context: ssl.SSLContext | None = None  # httpcore sets another ALPN for proxies
        self._sweep: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Make the pool. Raises UsageError where ``ca_file`` cannot be read."""
        # One for all transports: each takes 20 ms and 0.8 MiB, and a request may have a proxy, or a user of one, of its own.
        self._context = make_context(self._verify_tls, self._ca_file)
        self._transport(None)
        self._sweep_later()

    async def close(self) -> None:
        """Close all connections."""
        if self._sweep is not None:
            self._sweep.cancel()
        for transport in self._transports.values():
            await transport.aclose()
        for stream in list(self._streams):
            await stream.aclose()

    async def fetch(self, request: Request) -> Response:
        """Fetch one request; see ``contracts.Downloader``."""
        hostname = hostname_of(request.url)
        if _is_address(hostname) and not self._guard.allows(hostname, hostname):
            raise causes.private(request.url, hostname)
        timeout_s = self._timeout_s if request.timeout is None else request.timeout
        began = asyncio.get_running_loop().time()
        whole = began + timeout_s if timeout_s else None
        connected = began + self._connect_timeout_s if self._connect_timeout_s else None
        first = min((each for each in (whole, connected) if each is not None), default=None)
        try:
            async with asyncio.timeout_at(first) as timer:
                watch = _Watch(timer, whole, self._sent)
                return await self._fetch(request, watch, began)
        except TimeoutError:
            if watch.connected or first == whole:
                raise causes.timed_out(request.url, timeout_s, watch.phase) from None
            raise causes.connect_timed_out(request.url, self._connect_timeout_s, watch.phase) from None
        except FetchError:
            raise
        except (httpx.HTTPError, h2.exceptions.H2Error, httpx.InvalidURL, OSError, ValueError) as error:
            raise _ours(request.url, error, watch) from error
        except Exception as error:
            # All else is httpcore's way of meeting a connection that another request has just broken, or socksio's word
            # for a proxy that does not speak SOCKS.
            refused = watch.proxied and not watch.connected
            raise (causes.proxy_refused if refused else causes.lost)(request.url, error) from error

    async def _fetch(self, request: Request, watch: _Watch, began: float) -> Response:
        proxy = self._proxy if request.proxy is None else request.proxy or None
        watch.proxied = proxy is not None
        transport = self._transport(proxy, _login_at_proxy(request, proxy))
        message = self._message(request, proxy, watch)
        if request.retries:
            await _close_idle(transport, message.url)
        try:
            reply = await transport.handle_async_request(message)
        except BaseException:
            self._abandon(transport, watch)
            raise
        stream: _Stream | None = reply.extensions.get("network_stream")  # none in an answer that a test has made up
        version: bytes = reply.extensions.get("http_version", b"HTTP/1.1")
        watch.phase = causes.BODY
        whole = False
        try:
            headers = _checked(request.url, reply, version)
            body = await self._read(request, reply, headers)
            if version != b"HTTP/2" and stream is not None:
                _check_end(request.url, reply, stream)
            whole = True
        finally:
            await reply.aclose()
            if not whole:
                self._abandon(transport, watch)
        return Response(
            request.url,
            request=request,
            status=reply.status_code,
            headers=headers,
            body=body,
            elapsed=asyncio.get_running_loop().time() - began,
            ip_address=stream.address if stream is not None else None,
            protocol=version.decode("ascii"),
        )

    def _message(self, request: Request, proxy: str | None, watch: _Watch) -> httpx.Request:
        """Return the request as httpx takes it."""
        own = request.headers or CIMultiDict()
        pairs = [(name, value) for name, value in self._headers.items() if name not in own]
        login = login_of(request.url) if "@" in request.url else None
        if login is not None and "Authorization" not in own:
            pairs.append(("Authorization", login))
        forwarded = proxy is not None and proxy.startswith("http") and request.url.startswith("http:")
        # Credentials for a proxy are never the target's business (RFC 9110 section 11.7.1).
        pairs += [pair for pair in own.items() if forwarded or pair[0].lower() != "proxy-authorization"]
        message = httpx.Request(
            request.method,
            request.url,
            # The white space around a value is no part of it (RFC 9110 section 5.5); h11 refuses it.
            headers=[(name.encode("ascii"), value.strip(" \t").encode("utf-8")) for name, value in pairs],
            content=request.body,
            extensions={"trace": watch, "timeout": {}},
        )
        if proxy is None:
            # The target as it stands in the URL: httpx would encode a lone "%" anew.
            start = request.url.find("/", request.url.index("//") + 2)
            message.extensions["target"] = request.url[start:].encode("ascii")
        return message

    async def _read(self, request: Request, reply: httpx.Response, headers: CIMultiDict[str]) -> bytes:
        limit = self._max_body
        length = headers.get("Content-Length", "")
        keeps_head = causes.keeps_head(request.url, headers)
        if keeps_head:
            limit = max(limit, causes.ROBOTS_BYTES)
        has_body = request.method != "HEAD" and reply.status_code not in causes.BODILESS
        if length.isdigit() and int(length) > limit and has_body and not keeps_head:
            raise causes.too_large(request.url, limit)
        blocks: list[bytes] = []
        size = 0
        # The stream itself and not aiter_raw(), which closes what _check_end is to look at.
        async for block in cast(httpx.AsyncByteStream, reply.stream):
            size += len(block)
            if size > limit:
                raise causes.too_large(request.url, limit, [*blocks, block] if keeps_head else (), reply.status_code)
            blocks.append(block)
            if not len(blocks) % _CHUNKS:
                await asyncio.sleep(0)
        if length.isdigit() and int(length) != size and has_body:
            # h2 counts where DATA ends the stream, and neither where the headers do nor where trailers do.
            raise causes.truncated(request.url, f"{size} of {length} bytes came")
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _transport(self, proxy: str | None, login: str = "") -> httpx.AsyncHTTPTransport:
        """Return the transport that goes through ``proxy``, saying ``login`` to it, made when first asked for."""
        transport = self._transports.get((proxy, login))
        if transport is None:
            through = None
            if proxy is not None:
                if proxy.startswith("https:") and self._proxys_context is None:
                    self._proxys_context = make_context(self._verify_tls, self._ca_file)
                through = httpx.Proxy(
                    proxy,
                    ssl_context=self._proxys_context if proxy.startswith("https:") else None,
                    headers={"Proxy-Authorization": login} if login else None,
                )
            transport = httpx.AsyncHTTPTransport(
                verify=self._context,
                http2=True,
                limits=httpx.Limits(
                    max_connections=None,
                    max_keepalive_connections=self._max_idle,
                    keepalive_expiry=self._idle_s,
                ),
                proxy=through,
            )
            # A proxy is chosen by the user, so it may be private. httpx has no argument for this.
            guard = self._guard if proxy is None else None
            transport._pool._network_backend = _Network(guard, self._resolve, self._streams)
            self._transports[proxy, login] = transport
        return transport

    def _abandon(self, transport: httpx.AsyncHTTPTransport, watch: _Watch) -> None:
        """Reset the HTTP/2 stream of a fetch that ended early (RFC 9113 section 8.7).

        httpcore only forgets it, and then the bytes that still come would use up the whole connection's window.
        """
        if watch.stream_id is None:
            return
        for each in transport._pool.connections:
            connection: Any = getattr(each, "_connection", None)
            state = getattr(connection, "_h2_state", None)
            if (
                state is not None
                and each.can_handle_request(watch.origin)
                and watch.stream_id not in connection._events
            ):
                try:
                    state.reset_stream(watch.stream_id, error_code=8)  # CANCEL; sent with what is written next
                except h2.exceptions.H2Error:
                    continue  # closed already

    def _sweep_later(self) -> None:
        self._sweep = asyncio.get_running_loop().call_later(self._idle_s / 2, self._close_idle)

    def _close_idle(self) -> None:
        """Close what nobody uses: httpcore does so with the next request alone, which may be long in coming."""
        limit = asyncio.get_running_loop().time() - self._idle_s
        for stream in list(self._streams):
            if not stream.reading and stream.used_at < limit:
                stream.abort()
        self._sweep_later()


class _Watch:
    """Follows one fetch by httpcore's trace events: its phase, its stream's number, and when it is connected."""

    __slots__ = ("_sent", "_timer", "_whole", "connected", "fresh", "origin", "phase", "proxied", "stream_id")

    def __init__(self, timer: asyncio.Timeout, whole: float | None, sent: Callable[[], None]) -> None:
        self._timer = timer
        self._whole = whole
        self._sent = sent
        self.phase = causes.CONNECTING
        self.connected = False
        self.fresh = False
        self.proxied = False
        self.stream_id: int | None = None
        self.origin: Any = None

    @property
    def at_rest(self) -> bool:
        """Whether this is a connection of HTTP/1.1 that was used before, and no head of an answer has come."""
        return self.phase == causes.WAITING and not self.fresh and self.stream_id is None

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        """Take one event."""
        if event.endswith("connect_tcp.started"):
            self.fresh = True
            self.phase = causes.PROXY if self.proxied else causes.CONNECTING
        elif event.endswith("connect_tcp.complete"):
            self.phase = causes.CONNECTING
        elif event.endswith("start_tls.started"):
            self.phase = causes.HANDSHAKE
        elif event.endswith("start_tls.complete"):
            self.phase = causes.CONNECTING
        elif event.endswith("send_request_headers.started") and info["request"].method != b"CONNECT":
            self.phase = causes.WAITING
            self.connected = True
            self.stream_id = info.get("stream_id")
            self.origin = info["request"].url.origin
            if not self._timer.expired():
                self._timer.reschedule(self._whole)
        elif event.endswith("send_request_body.complete") and self.connected:
            self._sent()


class _Network(httpcore.AsyncNetworkBackend):
    """Connects by asyncio: resolves a name, and connects to an address that the guard allows; None allows all."""

    def __init__(self, guard: AddressGuard | None, resolve: Resolve, streams: set[_Stream]) -> None:
        self._guard = guard
        self._resolve = resolve
        self._streams = streams

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        """Connect to the address that answers first (RFC 8305). Raises OSError; the time is bounded by the caller."""
        addresses = [host] if _is_address(host) else await addresses_of(host, self._resolve)
        allowed = [each for each in addresses if self._guard is None or self._guard.allows(host, each)]
        if not allowed:
            raise causes.PrivateOnly(addresses[0])
        entries: list[Any] = [
            (
                socket.AF_INET6 if ":" in each else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (each, port),
            )
            for each in allowed
        ]
        connection = await start_connection(entries, happy_eyeballs_delay=_NEXT_ADDRESS_S)
        reader, writer = await asyncio.open_connection(sock=connection, limit=2 * _BLOCK)
        return _Stream(reader, writer, self._streams)


class _Stream(httpcore.AsyncNetworkStream):
    """One connection. It is in ``streams`` while it is open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, streams: set[_Stream]) -> None:
        self._reader = reader
        self._writer = writer
        self._streams = streams
        self._clock = asyncio.get_running_loop().time
        self.address: str | None = (writer.get_extra_info("peername") or (None,))[0]
        self.used_at = self._clock()
        self.reading = False
        self._dead = False
        streams.add(self)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, nothing at the end. Raises httpcore.ReadError."""
        self.reading = True
        try:
            data = await self._reader.read(min(max_bytes, _PIECE))
            await asyncio.sleep(0)  # or one server that sends fast enough would have the loop for itself
            return data
        except OSError as error:
            raise httpcore.ReadError(error) from error
        finally:
            self.reading = False
            self.used_at = self._clock()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it. Raises httpcore.WriteError."""
        if not buffer:
            return
        self.used_at = self._clock()
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise httpcore.WriteError(error) from error

    async def aclose(self) -> None:
        """Close without waiting for the other side: asyncio would wait for half a minute for a TLS server's farewell."""
        self.abort()

    def abort(self) -> None:
        """Close at once, and have the pool know it."""
        self._dead = True
        self._streams.discard(self)
        self._writer.transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        """Go on in TLS. Raises ssl.SSLError and OSError."""
        if server_hostname is not None:
            server_hostname = server_hostname.removesuffix(".")  # no certificate has the root's dot, nor SNI (RFC 6066)
        writer: Any = self._writer
        protocol = writer.transport.get_protocol()
        try:
            transport = await asyncio.get_running_loop().start_tls(
                writer.transport, protocol, ssl_context, server_hostname=server_hostname
            )
            if transport is None:
                raise ConnectionResetError("the connection was closed in the TLS handshake")
        except BaseException:
            self.abort()
            raise
        # As in StreamWriter.start_tls, which breaks where asyncio gives None for a connection that has just been lost.
        writer._transport = transport
        protocol._replace_writer(writer)
        return self

    def get_extra_info(self, info: str) -> Any:
        """Answer httpcore's questions: the TLS object, and whether an idle connection has more to read, or has ended."""
        if info == "ssl_object":
            return self._writer.get_extra_info("ssl_object")
        if info == "is_readable":
            return self._dead or self._reader.at_eof() or bool(cast(Any, self._reader)._buffer)
        return None


async def _close_idle(transport: httpx.AsyncHTTPTransport, url: httpx.URL) -> None:
    """Close the connections to an origin that nobody uses: a retry is not to meet another that the server has just closed."""
    origin = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/").origin
    for connection in transport._pool.connections:
        if connection.is_idle() and connection.can_handle_request(origin):
            await connection.aclose()


def _checked(url: str, reply: httpx.Response, version: bytes) -> CIMultiDict[str]:
    """Return the headers. Raises ProtocolError for too many, and for two framings at once (RFC 9112 section 6.1)."""
    raw = reply.headers.raw
    if len(raw) > _MAX_HEADERS:
        raise causes.invalid(url, f"more than {_MAX_HEADERS} headers")
    headers = CIMultiDict(
        [(name.decode("ascii", "replace"), value.decode("utf-8", "surrogateescape")) for name, value in raw]
    )
    if version != b"HTTP/2" and "Transfer-Encoding" in headers and "Content-Length" in headers:
        raise causes.invalid(url, "Content-Length with Transfer-Encoding")
    return headers


def _check_end(url: str, reply: httpx.Response, stream: _Stream) -> None:
    """Give up a connection that brought more than its answer: h11 would take the rest for the next one."""
    connection: Any = cast(Any, reply.stream)._httpcore_stream._stream._connection
    rest = bytes(connection._h11_state.trailing_data[0])
    if rest or causes.may_have_more(reply.status_code, reply.headers):
        stream.abort()
        # An empty line behind a body is an old fault, and to be forgiven (RFC 9112 section 2.2).
        if rest.strip(b"\r\n") and not rest.startswith(b"HTTP/") and reply.status_code not in causes.BODILESS:
            raise causes.invalid(url, "bytes behind the body")


def _ours(url: str, error: Exception, watch: _Watch) -> FetchError:
    """Return our error for one of theirs, the most particular class first."""
    connecting = watch.phase in (causes.CONNECTING, causes.PROXY, causes.HANDSHAKE)
    if isinstance(error, causes.PrivateOnly):
        return causes.private(url, str(error))
    if isinstance(error, httpx.ProxyError) or (connecting and watch.proxied and watch.phase != causes.HANDSHAKE):
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        return causes.proxy_refused(url, reason, _answer_of_proxy(str(error)))
    if isinstance(error, (UnicodeError, httpx.InvalidURL)):  # idna's and httpx's words for a host name that is none
        return causes.unresolved(url, "no host name")
    if isinstance(error, socket.gaierror):
        return causes.unresolved(url, error.strerror)
    if isinstance(error, _SSL):
        return causes.tls_failed(url, error)
    if connecting and isinstance(error, OSError):
        if watch.phase == causes.HANDSHAKE:
            return causes.lost(url, error)
        return causes.unconnected(url, os.strerror(error.errno) if error.errno and error.errno > 0 else error)
    below = error.__cause__.args[:1] if isinstance(error, httpx.LocalProtocolError) and error.__cause__ else ()
    broken = below[0] if below and isinstance(below[0], h2.exceptions.H2Error) else error
    if isinstance(broken, h2.exceptions.InvalidBodyLengthError):
        short = broken.actual_length < broken.expected_length
        return causes.truncated(url, broken) if short else causes.invalid(url, broken)
    if isinstance(error, httpx.RemoteProtocolError):
        return _remote(url, error, watch)
    if isinstance(error, (httpx.TransportError, OSError)) and not isinstance(error, httpx.ProtocolError):
        return causes.lost(url, error, at_rest=watch.at_rest)
    return causes.invalid(url, error)


def _login_at_proxy(request: Request, proxy: str | None) -> str:
    """Return the request's own Proxy-Authorization where it goes with CONNECT; what the proxy's URL says goes before it."""
    if request.headers is None or proxy is None or "@" in proxy:
        return ""
    is_tunnel = proxy.startswith("http") and request.url.startswith("https:")
    return request.headers.get("Proxy-Authorization", "") if is_tunnel else ""


def _answer_of_proxy(text: str) -> int:
    """Return the status with which a proxy refused, by httpcore's word for it."""
    if text[:3].isdigit():
        return int(text[:3])
    return causes.BAD_GATEWAY if text.removeprefix("Proxy Server could not connect: ").startswith(_UNREACHED) else 0


def _remote(url: str, error: httpx.RemoteProtocolError, watch: _Watch) -> FetchError:
    """Tell what the server broke off from what it got wrong."""
    origin = getattr(error.__cause__, "args", None) or ("",)
    event, text = type(origin[0]).__name__, str(error)
    if event == "StreamReset":
        return causes.lost(url, f"the server reset the stream, code {int(cast(Any, origin[0]).error_code)}")
    if event == "ConnectionTerminated":
        code = int(cast(Any, origin[0]).error_code)
        return causes.lost(url, f"the server went away, code {code}", at_rest=code == 0)
    if "closed connection" in text or "disconnected" in text:
        if watch.phase == causes.BODY:
            return causes.truncated(url, text)
        return causes.lost(url, text, at_rest=watch.at_rest)
    return causes.invalid(url, text)


def _is_address(host: str) -> bool:
    return host.rpartition(".")[2].isdigit() or ":" in host
