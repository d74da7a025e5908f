"""The default downloader, HTTP/1.1 by aiohttp.

aiohttp is used as a bare fetcher: admission, redirects, cookies, retries and decompression are done elsewhere, so its
own are off. This is the one place where aiohttp's exceptions become ours.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import (
    BadHttpMessage,
    ContentLengthError,
    HttpProcessingError,
    PayloadEncodingError,
    TransferEncodingError,
)
from yarl import URL

from scraper.addresses import AddressGuard
from scraper.downloaders import causes
from scraper.downloaders.resolver import Resolve, addresses_of, by_system
from scraper.downloaders.tls import make_context
from scraper.downloaders.wire import MAX_HEADER_BYTES, Deadlines, Wire, Wires
from scraper.errors import ConnectError, FetchError, UsageError
from scraper.http import Headers, Request, Response
from scraper.urls import login_of

_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
_DNS_TTL_S = 300
_MAX_TARGETS = 10_000  # origins
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)  # the connector has a bound of its own
_MAX_INTERIM = 20  # 1xx answers before the one; a server sends one or two
_PIECE = 32 * 1024  # bytes that aiohttp's parser takes apart in 25 ms, were they chunks of a byte each
_BODILESS_HEAD = re.compile(rb"HTTP/1\.[01] [23]04\b.*?\n\r?\n", re.DOTALL)
_NOT_PLAIN = frozenset(
    {"connection", "content-length", "expect", "host", "proxy-authorization", "transfer-encoding", "upgrade"}
)
_IDLE_CONNECTION_S = 30.0
_KNOWN_PHASES = ((causes.HANDSHAKE,), (causes.PROXY,))


class AiohttpDownloader:
    """Fetches by aiohttp. Implements ``contracts.Downloader``.

    ``timeout_s`` bounds a whole answer (0: no bound; a request's own ``timeout`` goes before). ``max_body`` is in bytes on
    the wire. ``encodings`` is what Accept-Encoding offers. ``guard`` judges each address at connect time.
    ``connect_timeout_s`` bounds a new connection, TLS included (0: no bound of its own). ``ca_file`` is a PEM file of
    authorities to trust beside the system's. ``sent`` is called in the fetch's own task when its request has been written.
    ``max_idle`` connections are kept open for later requests, and half as many to HTTP proxies. ``resolve`` looks up names;
    those of a proxy's targets are the proxy's business.
    """

    def __init__(
        self,
        *,
        guard: AddressGuard,
        user_agent: str,
        encodings: str,
        timeout_s: float = 60.0,
        max_body: int = 32 * 2**20,
        verify_tls: bool = True,
        proxy: str = "",
        sent: Callable[[], None] = lambda: None,
        connect_timeout_s: float = 15.0,
        ca_file: str = "",
        resolve: Resolve = by_system,
        max_idle: int = 1000,
    ) -> None:
        self._guard = guard
        self._max_idle = max(1, max_idle // 2)  # of each kind: aiohttp's own, and those taken over from it
        self._response_class = type("_Response", (_Response,), {"sent": staticmethod(sent)})
        self._headers = {
            "User-Agent": user_agent,
            "Accept": _ACCEPT,
            "Accept-Language": "en",
            "Accept-Encoding": encodings,
        }
        self._timeout_s = timeout_s
        self._max_body = max_body
        self._verify_tls = verify_tls
        self._proxy = proxy or None
        self._connect_timeout_s = connect_timeout_s
        self._ca_file = ca_file
        self._resolve = resolve
        self._sent = sent
        self._block = "".join(f"{name}: {value}\r\n" for name, value in self._headers.items()) + "\r\n"
        self._targets: dict[str, _Target] = {}
        self._socks: dict[str, aiohttp.ClientSession] = {}
        self._proxied: aiohttp.ClientSession | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session. Connections are unlimited here: the scheduler admits.

        Raises UsageError where ``ca_file`` cannot be read.
        """
        self._connector = self._make_connector(self._guard)
        self._session = self._make_session(self._connector)
        self._loop = asyncio.get_running_loop()
        self._wires = Wires(self._loop, _IDLE_CONNECTION_S, self._max_idle)
        self._deadlines = Deadlines(self._loop)

    def _trust(self) -> ssl.SSLContext | bool:
        return make_context(self._verify_tls, self._ca_file) if self._ca_file else self._verify_tls

    def _make_connector(self, guard: AddressGuard) -> _Connector:
        return _Connector(
            self._connect_timeout_s,
            self._max_idle,
            limit=0,
            ssl=self._trust(),
            resolver=_GuardedResolver(guard, self._resolve),
            ttl_dns_cache=_DNS_TTL_S,
            keepalive_timeout=_IDLE_CONNECTION_S,
        )

    def _make_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=_NO_TIMEOUT,
            auto_decompress=False,
            headers=self._headers,
            skip_auto_headers=("Content-Type",),  # what a body is, its request says or nobody
            response_class=self._response_class,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        # aiohttp would ask a second time where a connection breaks, without a slot and a gap: the frontier retries.
        session._retry_connection = False
        return session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            self._wires.close()
        for session in (self._session, self._proxied, *self._socks.values()):
            if session is not None:
                await session.close()

    async def fetch(self, request: Request) -> Response:
        """Fetch one request; see ``contracts.Downloader``."""
        timeout_s = self._timeout_s if request.timeout is None else request.timeout
        proxy = self._proxy if request.proxy is None else request.proxy or None
        is_plain = proxy is None and request.method == "GET" and request.body is None
        head = self._plain_head(request) if is_plain else b""
        began = self._loop.time()
        try:
            if not head:
                async with asyncio.timeout(timeout_s or None):
                    return await self._request(request, proxy)
            # A retry goes by a new connection: another that was kept may have been closed just now as well, without a word.
            wire = self._wires.take(request.origin) if not request.retries else None
            if wire is None:
                wire = await self._connect(request, timeout_s)
        except TimeoutError as error:
            raise causes.timed_out(request.url, timeout_s, _phase(error)) from None
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise self._ours(request.url, error) from error
        return await self._ask(wire, request, head, timeout_s, began)

    # -- the short way: see ``wire`` -----------------------------------------------------------------------------------

    def _plain_head(self, request: Request) -> bytes:
        """Return the request's head as bytes, empty where it is better left to aiohttp."""
        url, host, block = request.url, request.host, self._block
        if "@" in url:
            return b""
        if request.headers:
            headers = Headers(self._headers)
            for name in set(request.headers):
                if name.lower() in _NOT_PLAIN:
                    return b""
                headers.popall(name, None)
                headers.extend([(name, value) for value in request.headers.getall(name)])
            block = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            if block.count("\r\n") != len(headers) or block.count("\n") != len(headers) or "\0" in block:
                return b""
            block += "\r\n"
        target = url[url.index("//") + 2 + len(host) :]
        return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{block}".encode()

    async def _connect(self, request: Request, timeout_s: float) -> Wire:
        """Have aiohttp connect to the origin, or give what it has open, and take the connection over.

        Raises as aiohttp does; TimeoutError where ``timeout_s`` is over, which is looked at if it is the shorter bound.
        """
        target = self._targets.get(request.origin)
        if target is None:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            target = self._targets[request.origin] = _Target(request.origin)
        self._judge(request.url, target.url)
        if request.retries:
            _close_idle(self._connector, target.url)
        is_shorter = 0 < timeout_s <= (self._connect_timeout_s or timeout_s)
        connector: Any = self._connector
        async with asyncio.timeout(timeout_s) if is_shorter else nullcontext():
            connection = await connector.connect(target, [], _NO_TIMEOUT)
        protocol, transport = connection.protocol, connection.transport
        connection._protocol = protocol.transport = None  # from here on it is not theirs to close
        connector._release_acquired(target.connection_key, protocol)
        if transport is None or transport.is_closing():
            raise aiohttp.ServerDisconnectedError
        if protocol.was_spoken_to:
            transport.abort()
            raise causes.invalid(request.url, "the server spoke before it was asked")
        return Wire(transport, self._loop, was_used=protocol.was_used)

    async def _ask(self, wire: Wire, request: Request, head: bytes, timeout_s: float, since: float) -> Response:
        began = self._loop.time()
        waiter = wire.ask(request.url, head, self._max_body)
        self._sent()
        waiting = self._deadlines.start(wire, timeout_s, since) if timeout_s else None
        try:
            answer = await waiter
        except BaseException:
            wire.close()
            raise
        finally:
            if waiting is not None:
                waiting.discard(wire)
        self._wires.give_back(request.origin, wire)
        return Response(
            request.url,
            request=request,
            status=answer.status,
            headers=answer.headers,
            body=answer.body,
            elapsed=self._loop.time() - began,
            ip_address=wire.peer,
            protocol="HTTP/1.1" if answer.version == "1.1" else f"HTTP/{answer.version}",
        )

    # -- all else ------------------------------------------------------------------------------------------------------

    async def _request(self, request: Request, proxy: str | None) -> Response:
        assert self._session is not None, "open() comes first"
        url = URL(request.url, encoded=True)
        self._judge(request.url, url)
        session, headers = self._session, request.headers
        if proxy is not None:
            if proxy.startswith("socks5"):
                session, proxy = self._through_socks(request.url, proxy), None
            else:
                session = self._through_http()
        if request.retries:
            _close_idle(session.connector, url)
        for_proxy = None
        if headers is not None and "Proxy-Authorization" in headers and (proxy is None or url.scheme == "https"):
            # Credentials for a proxy are never the target's business (RFC 9110 section 11.7.1): they go with CONNECT.
            for_proxy = {"Proxy-Authorization": headers["Proxy-Authorization"]} if proxy is not None else None
            headers = Headers((name, value) for name, value in headers.items() if name.lower() != "proxy-authorization")
        login = login_of(request.url) if "@" in request.url else None
        if login is not None:
            # aiohttp sends them in Latin-1, and refuses them beside an Authorization header.
            url = url.with_user(None)
            headers = Headers(headers or ())
            headers.setdefault("Authorization", login)
        began = asyncio.get_running_loop().time()
        reply = await session.request(
            request.method,
            url,
            headers=headers,
            data=request.body,
            allow_redirects=False,
            proxy=proxy,
            proxy_headers=for_proxy,
        )
        try:
            body = await self._read(request, reply.status, reply.headers, reply.content)
        except BaseException as error:
            reply.close()
            if isinstance(error, asyncio.CancelledError):
                error.args = (causes.BODY,)
            raise
        version = reply.version
        return Response(
            request.url,
            request=request,
            status=reply.status,
            headers=reply.headers,
            body=body,
            elapsed=asyncio.get_running_loop().time() - began,
            ip_address=getattr(reply, "peer", None),
            protocol=f"HTTP/{version.major}.{version.minor}" if version else "HTTP/1.1",
        )

    def _judge(self, url: str, target: URL) -> None:
        """Refuse an address that the guard does; names are judged when they are looked up."""
        host = target.host
        if host is not None and _is_address(host) and not self._guard.allows(host, host):
            raise causes.private(url, host)

    async def _read(
        self, request: Request, status: int, headers: Mapping[str, str], stream: aiohttp.StreamReader
    ) -> bytes:
        url, limit = request.url, self._max_body
        length = headers.get("Content-Length", "")
        keeps_head = causes.keeps_head(url, headers)
        if keeps_head:
            limit = max(limit, causes.ROBOTS_BYTES)
        has_body = request.method != "HEAD" and status not in causes.BODILESS
        if length.isdigit() and int(length) > limit and has_body and not keeps_head:
            raise causes.too_large(url, limit)
        blocks: list[bytes] = []
        size = 0
        while block := await stream.readany():
            size += len(block)
            if size > limit:
                raise causes.too_large(url, limit, [*blocks, block] if keeps_head else (), status)
            if not blocks and stream.at_eof():
                return block
            blocks.append(block)
        return b"".join(blocks)

    def _through_http(self) -> aiohttp.ClientSession:
        """Return the session of the HTTP proxies, which connects to them alone."""
        if self._proxied is None:
            # A proxy is chosen by the user, so it may be private; what is looked up for it is no other connector's to use.
            self._proxied = self._make_session(self._make_connector(AddressGuard("always")))
        return self._proxied

    def _through_socks(self, url: str, proxy: str) -> aiohttp.ClientSession:
        """Return the session of a SOCKS5 proxy (RFC 1928), which resolves the names itself."""
        session = self._socks.get(proxy)
        if session is None:
            try:
                from scraper.downloaders.socks import SocksConnector
            except UsageError as error:
                raise ConnectError(url, str(error)) from None
            connector: Any = SocksConnector.from_url(
                proxy.replace("socks5h:", "socks5:", 1),
                rdns=True,
                limit=0,
                ssl=self._trust(),
                keepalive_timeout=_IDLE_CONNECTION_S,
            )
            connector.connect_timeout_s = self._connect_timeout_s
            connector._factory = partial(_Protocol, loop=self._loop)
            session = self._socks[proxy] = self._make_session(connector)
        return session

    def _ours(self, url: str, error: Exception) -> FetchError:
        """Return our error for one of aiohttp's, the most particular class first."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, causes.PrivateOnly):
                return causes.private(url, str(cause))
            if isinstance(cause, causes.ConnectTimeout):
                return causes.connect_timed_out(url, self._connect_timeout_s, cause.args[0])
            if isinstance(cause, causes.HandshakeFailed):
                return causes.tls_failed(url, cause)
            if isinstance(cause, causes.ProxyRefused):
                return causes.proxy_refused(url, cause, cause.status)
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, aiohttp.ClientHttpProxyError):  # whose own text has the proxy's password
            return causes.proxy_refused(url, f"HTTP status {error.status}", error.status)
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            number = error.os_error.errno
            return causes.proxy_refused(url, os.strerror(number) if number else error.os_error)
        if isinstance(error, UnicodeError):  # Python's word for a host name that is none, such as one that is too long
            return causes.unresolved(url, "no host name")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return causes.unresolved(url, error.os_error.strerror)
        if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
            reason = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
            return causes.tls_failed(url, reason)
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            return causes.unconnected(url, os.strerror(number) if number else error.os_error)
        return _broken(url, error)


class _Target:
    """An origin, as far as aiohttp's connector asks a request for it: the same one as of aiohttp's requests to it."""

    proxy = server_hostname = None
    ssl = True  # as the connector has it

    def __init__(self, origin: str) -> None:
        self.url = URL(origin, encoded=True)
        self.host = self.url.raw_host or ""
        self.port = self.url.port
        self.connection_key = ConnectionKey(
            self.host, self.port, self.is_ssl(), self.ssl, proxy=None, proxy_auth=None, proxy_headers_hash=None
        )

    def is_ssl(self) -> bool:
        """Whether it is reached over TLS."""
        return self.url.scheme == "https"


class _Response(aiohttp.ClientResponse):
    """Keeps the peer's address: the connection is often given back before the caller could ask. Tells ``sent``."""

    peer: str | None = None
    sent: Callable[[], None]

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        if self._writer is None:  # else a body is still being written; then the answer tells that it went out
            self.sent()
        transport = connection.transport
        address = transport.get_extra_info("peername") if transport is not None else None
        self.peer = address[0] if address else None
        protocol = connection.protocol
        protocol.was_heard = False
        try:
            started = await super().start(connection)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            error.at_rest = protocol.was_used and not protocol.was_heard  # type: ignore[union-attr]
            raise
        protocol.was_used = True
        return started


class _Protocol(ResponseHandler):
    """Gives up an answer that is announced again and again (RFC 9110 section 15.2) and never comes.

    What comes at once, up to 256 KiB, is parsed in pieces, between which the loop has its turn: it may be 40,000 chunks.
    """

    interim = 0
    was_used = False  # by an answer, which the server may have meant to be the last
    was_heard = False  # since the last request

    @property
    def was_spoken_to(self) -> bool:
        """Whether bytes came that no request had asked for."""
        return bool(self._tail or self._pieces)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pieces: deque[bytes] = deque()

    @property
    def should_close(self) -> bool:
        """Whether the connection cannot be used again; what is not parsed yet would be taken for the next answer."""
        return bool(self._pieces) or super().should_close

    def data_received(self, data: bytes) -> None:
        if len(data) <= _PIECE and not self._pieces:
            self._parse(data)
            return
        under_way = bool(self._pieces)
        self._pieces.extend(data[at : at + _PIECE] for at in range(0, len(data), _PIECE))
        if not under_way:
            self._take_piece()

    def _take_piece(self) -> None:
        if not self._pieces:
            return  # the connection has ended
        self._parse(self._pieces.popleft())
        transport = self.transport
        if self._pieces:
            if transport is not None:
                transport.pause_reading()
            self._loop.call_soon(self._take_piece)
        elif transport is not None and not self._reading_paused and not transport.is_closing():
            transport.resume_reading()

    def _parse(self, data: bytes) -> None:
        self.was_heard = True
        head = _BODILESS_HEAD.match(data)
        if head and head.end() < len(data):  # by itself: aiohttp would drop the answer for what is behind it
            super().data_received(head[0])
            data = data[head.end() :]
        super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:
        message, _ = data
        if causes.may_have_more(message.code, message.headers):
            self.force_close()
        super().feed_data(data, size)

    def eof_received(self) -> None:
        while self._pieces:
            self._parse(self._pieces.popleft())
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._pieces.clear()
        super().connection_lost(exc)

    async def read(self) -> Any:
        message, payload = await super().read()
        if message.code >= 200 or message.code == 101:
            self.interim = 0
        elif self.interim < _MAX_INTERIM:
            self.interim += 1
        else:
            raise HttpProcessingError(message=f"more than {_MAX_INTERIM} interim responses")
        return message, payload


class _GuardedResolver(AbstractResolver):
    """Lets through only addresses that the guard allows, so that what was judged is what is connected to."""

    def __init__(self, guard: AddressGuard, resolve: Resolve) -> None:
        self._guard = guard
        self._resolve = resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await addresses_of(host, self._resolve)
        allowed = [each for each in found if self._guard.allows(host, each)]
        if not allowed:
            raise causes.PrivateOnly(found[0])
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in allowed
        ]

    async def close(self) -> None: ...


class _Connector(aiohttp.TCPConnector):
    """Bounds the making of a connection and the number of idle ones.

    Leaves the phase in the cancellation that ends the making; a connection that is used again costs nothing here.
    """

    def __init__(self, timeout_s: float, max_idle: int, **options: Any) -> None:
        super().__init__(**options)
        self._factory: Any = partial(_Protocol, loop=asyncio.get_running_loop())
        self._connect_timeout_s = timeout_s or None
        self._max_idle = max_idle

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        while len(self._conns) > self._max_idle:  # one for each of so many hosts: the first to come is the first to go
            for idle, _ in self._conns.pop(next(iter(self._conns))):
                idle.close()

    async def _create_connection(self, *args: Any, **kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                try:
                    return await super()._create_connection(*args, **kwargs)
                except asyncio.CancelledError as error:
                    error.args = error.args if error.args in _KNOWN_PHASES else (causes.CONNECTING,)
                    raise
        except TimeoutError as error:
            raise causes.ConnectTimeout(_phase(error)) from error

    async def _create_direct_connection(
        self, *args: Any, client_error: type[Exception] = aiohttp.ClientConnectorError
    ) -> Any:
        try:
            return await super()._create_direct_connection(*args, client_error=client_error)
        except asyncio.CancelledError as error:
            if client_error is aiohttp.ClientProxyConnectionError:
                error.args = (causes.PROXY,)
            raise

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        make_protocol, *rest = args
        if len(kwargs["addr_infos"]) == 1 and not kwargs.get("ssl"):
            return await self._connect_at_once(make_protocol, **kwargs)
        connected = False

        def make() -> Any:  # asyncio asks for the protocol when TCP is connected, before TLS
            nonlocal connected
            connected = True
            return make_protocol()

        try:
            return await super()._wrap_create_connection(make, *rest, **kwargs)
        except asyncio.CancelledError as error:
            error.args = (causes.HANDSHAKE if connected else causes.CONNECTING,)
            raise

    async def _connect_at_once(
        self,
        make_protocol: Any,
        *,
        addr_infos: Any,
        req: Any,
        client_error: type[aiohttp.ClientConnectorError] = aiohttp.ClientConnectorError,
        **_: Any,
    ) -> Any:
        """Connect to the one address there is, without TLS: the event loop by itself takes half as long as with a socket that
        is made and connected for it, as is done for a race between addresses.
        """
        host, port = addr_infos[0][4][:2]
        try:
            return await self._loop.create_connection(make_protocol, host, port)
        except OSError as error:
            raise client_error(req.connection_key, error) from error

    async def _start_tls_connection(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._start_tls_connection(*args, **kwargs)
        except asyncio.CancelledError as error:
            error.args = (causes.HANDSHAKE,)
            raise


def _close_idle(connector: Any, url: URL) -> None:
    """Close the connections of a connector's to a host that nobody uses."""
    for key in [key for key in connector._conns if (key.host, key.port) == (url.raw_host, url.port)]:
        for protocol, _ in connector._conns.pop(key):
            protocol.close()


def _phase(error: BaseException) -> str:
    """Return the phase that the cancellation behind a timeout carries."""
    cause = error.__cause__
    return cause.args[0] if isinstance(cause, asyncio.CancelledError) and cause.args else causes.WAITING


def _broken(url: str, error: Exception) -> FetchError:
    """Return our error for a connection or an answer that broke."""
    if isinstance(error, aiohttp.ClientPayloadError):
        inner = error.__cause__
        # aiohttp words both in one text: behind the parser's complaint stands what broke the connection, where something did.
        unfinished = isinstance(inner, (ContentLengthError, TransferEncodingError)) and "Not enough" in str(inner)
        if unfinished and str(error).endswith(repr(inner)):
            return causes.truncated(url, error)
        if isinstance(inner, BadHttpMessage) and not isinstance(inner, PayloadEncodingError):
            return causes.invalid(url, " ".join(inner.message.split()))  # trailers beyond measure
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError, OSError)):
        return causes.lost(url, error, at_rest=getattr(error, "at_rest", False))
    if isinstance(error, (HttpProcessingError, aiohttp.ClientResponseError)):
        return causes.invalid(url, " ".join(error.message.split()))
    return causes.invalid(url, error)


def _is_address(host: str) -> bool:
    return host.rpartition(".")[2].isdigit() or ":" in host
