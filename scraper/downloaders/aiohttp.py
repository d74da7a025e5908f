"""The default downloader, HTTP/1.1 by aiohttp.

aiohttp is used as a bare fetcher: admission, redirects, cookies, retries and decompression are done elsewhere, so its
own are off. This is the one place where aiohttp's exceptions become ours.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from scraper.addresses import AddressGuard
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
    TlsError,
)
from scraper.http import Request, Response

_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
_MAX_HEADER_BYTES = 64 * 1024
_DNS_TTL_S = 300
_IDLE_CONNECTION_S = 30.0


class AiohttpDownloader:
    """Fetches by aiohttp. Implements ``contracts.Downloader``.

    ``timeout_s`` bounds a whole answer (0: no bound; a request's own ``timeout`` goes before). ``max_body`` is in bytes on
    the wire. ``encodings`` is what Accept-Encoding offers. ``guard`` judges each address at connect time.
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
    ) -> None:
        self._guard = guard
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
        self._proxy_hosts: set[str] = set()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session. Connections are unlimited here: the scheduler admits."""
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=self._verify_tls,
            resolver=_GuardedResolver(self._guard, self._proxy_hosts),
            ttl_dns_cache=_DNS_TTL_S,
            keepalive_timeout=_IDLE_CONNECTION_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            headers=self._headers,
            response_class=_Response,
            max_line_size=_MAX_HEADER_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
        )
        # aiohttp would ask a second time where a connection breaks, without a slot and a gap: the frontier retries.
        self._session._retry_connection = False

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def fetch(self, request: Request) -> Response:
        """Fetch one request; see ``contracts.Downloader``."""
        timeout_s = self._timeout_s if request.timeout is None else request.timeout
        try:
            async with asyncio.timeout(timeout_s or None):
                return await self._fetch(request)
        except TimeoutError:
            raise FetchTimeout(request.url, f"no whole answer in {timeout_s:g} s (download.timeout)") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _ours(request.url, error) from error

    async def _fetch(self, request: Request) -> Response:
        assert self._session is not None, "open() comes first"
        url = URL(request.url, encoded=True)
        if url.host is not None and _is_address(url.host) and not self._guard.allows(url.host, url.host):
            raise _private(request.url, url.host)
        proxy = request.proxy or self._proxy
        if proxy is not None:
            self._proxy_hosts.add(URL(proxy).host or "")  # chosen by the user, so it may be private
        began = asyncio.get_running_loop().time()
        reply = await self._session.request(
            request.method,
            url,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            proxy=proxy,
        )
        try:
            body = await self._read(request.url, reply)
        except BaseException:
            reply.close()
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

    async def _read(self, url: str, reply: aiohttp.ClientResponse) -> bytes:
        stream, limit = reply.content, self._max_body
        length = reply.content_length
        if length is not None and length > limit and reply.method != "HEAD":
            raise _too_large(url, limit)
        blocks: list[bytes] = []
        size = 0
        while block := await stream.readany():
            size += len(block)
            if size > limit:
                raise _too_large(url, limit)
            if not blocks and stream.at_eof():
                return block
            blocks.append(block)
        return b"".join(blocks)


class _Response(aiohttp.ClientResponse):
    """Keeps the peer's address: the connection is often given back before the caller could ask."""

    peer: str | None = None

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        transport = connection.transport
        address = transport.get_extra_info("peername") if transport is not None else None
        self.peer = address[0] if address else None
        return await super().start(connection)


class _GuardedResolver(AbstractResolver):
    """Resolves in the thread pool and lets through only addresses that the guard allows."""

    def __init__(self, guard: AddressGuard, trusted: set[str]) -> None:
        self._guard = guard
        self._trusted = trusted
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [entry for entry in found if host in self._trusted or self._guard.allows(host, entry["host"])]
        if found and not allowed:
            raise _PrivateOnly(found[0]["host"])
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class _PrivateOnly(OSError):
    """The name resolves to private addresses alone; carried through aiohttp as an OSError."""


def _ours(url: str, error: Exception) -> FetchError:
    """Return our error for one of aiohttp's, the most particular class first."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _PrivateOnly):
            return _private(url, str(cause))
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return DnsError(url, "the host name does not resolve")
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        reason = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        return TlsError(url, f"TLS failed ({reason}) (download.verify_tls)")
    if isinstance(error, aiohttp.ClientHttpProxyError):  # whose own text has the proxy's password
        message = f"the proxy refused (HTTP status {error.status}) (download.proxy, proxies.urls)"
        return ProxyError(url, message, error.status)
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        number = error.os_error.errno
        reason = os.strerror(number) if number else error.os_error
        return ProxyError(url, f"cannot connect to the proxy ({reason}) (download.proxy, proxies.urls)")
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return ConnectError(url, f"cannot connect ({os.strerror(number) if number else error.os_error})")
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError, OSError)):
        return ConnectionLost(url, f"the connection broke before the answer was whole ({_brief(error)})")
    return ProtocolError(url, f"not a valid HTTP answer ({_brief(error)})")


def _brief(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]


def _too_large(url: str, limit: int) -> BodyTooLarge:
    return BodyTooLarge(url, f"the body is larger than {limit} bytes (download.max_body)")


def _private(url: str, address: str) -> PrivateAddress:
    return PrivateAddress(url, f"{address} is a private address that no start URL names (download.private_addresses)")


def _is_address(host: str) -> bool:
    return host.rpartition(".")[2].isdigit() or ":" in host
