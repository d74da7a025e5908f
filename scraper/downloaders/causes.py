"""The errors that every downloader raises, worded once: what happened, and the setting that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scraper.errors import (
    BodyTooLarge,
    ConnectError,
    ConnectionLost,
    DnsError,
    FetchTimeout,
    PrivateAddress,
    ProtocolError,
    ProxyError,
    TlsError,
    Truncated,
)

CONNECTING, PROXY, HANDSHAKE, WAITING, BODY = "connecting", "proxy", "TLS handshake", "waiting", "body"
"""The phases of a fetch, as ``FetchTimeout.phase`` names them."""

ROBOTS_BYTES = 512 * 1024
"""How much of a robots.txt is read, whatever ``download.max_body`` says: RFC 9309 section 2.5 asks for 500 KiB."""

BODILESS = frozenset({204, 304})
"""The statuses whose answers end with their head, whatever it says of a body (RFC 9112 section 6.3)."""

_WORDS = {
    CONNECTING: "while resolving or connecting",
    PROXY: "while connecting to the proxy",
    HANDSHAKE: "in the TLS handshake",
    WAITING: "while waiting for the answer",
    BODY: "in the body",
}


BAD_GATEWAY = 502
"""What a proxy's answer counts as by which it says, in SOCKS, that it cannot reach the site."""


class PrivateOnly(OSError):
    """The name resolves to private addresses alone; carried through a library as an OSError."""


class ConnectTimeout(OSError):
    """No connection in ``download.connect_timeout``; its one argument is the phase. Carried through as an OSError."""


class HandshakeFailed(OSError):
    """TLS with the site failed, through a proxy. Carried through as an OSError."""


class ProxyRefused(OSError):
    """The proxy is not there, or will not have this: ``status`` as in ``ProxyError``. Carried through as an OSError."""

    status = 0


def timed_out(url: str, timeout_s: float, phase: str) -> FetchTimeout:
    """No whole answer within the whole's time."""
    return _timeout(url, f"no whole answer in {timeout_s:g} s, {_WORDS[phase]} (download.timeout)", phase)


def connect_timed_out(url: str, timeout_s: float, phase: str) -> FetchTimeout:
    """No connection within the connection's time."""
    return _timeout(url, f"no connection in {timeout_s:g} s, {_WORDS[phase]} (download.connect_timeout)", phase)


def unresolved(url: str, reason: object) -> DnsError:
    """The name has no address, or its name servers do not say."""
    return DnsError(url, f"the host name does not resolve ({brief(reason)})")


def unconnected(url: str, reason: object) -> ConnectError:
    """Refused or unreachable."""
    return ConnectError(url, f"cannot connect ({brief(reason)})")


def proxy_refused(url: str, reason: object, status: int = 0) -> ProxyError:
    """The proxy is not there, or will not have this; ``status`` is its answer to CONNECT."""
    return ProxyError(url, f"the proxy refused ({brief(reason)}) (download.proxy, proxies.urls)", status)


def tls_failed(url: str, reason: object) -> TlsError:
    """The certificate or the handshake is bad."""
    return TlsError(url, f"TLS failed ({brief(reason)}) (download.ca_file, download.verify_tls)")


def lost(url: str, reason: object, *, at_rest: bool = False) -> ConnectionLost:
    """Closed or reset; ``at_rest`` where it had been kept open and nothing of an answer came."""
    error = ConnectionLost(url, f"the connection broke before the answer was whole ({brief(reason)})")
    error.is_strain = not at_rest
    return error


def truncated(url: str, reason: object) -> Truncated:
    """Closed in good order, before the end that was announced."""
    return Truncated(url, f"the body is cut short ({brief(reason)})")


def invalid(url: str, reason: object) -> ProtocolError:
    """Not HTTP, or not good HTTP."""
    return ProtocolError(url, f"not a valid HTTP answer ({brief(reason)})")


def keeps_head(url: str, headers: Mapping[str, str]) -> bool:
    """Whether the beginning of a body that is too large is of use: a robots.txt counts as far as it was read."""
    return url.endswith("/robots.txt") and "Content-Encoding" not in headers


def may_have_more(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer without a body speaks of one, which may come all the same: its connection is not to be used again."""
    return status in BODILESS and (headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers)


def too_large(url: str, limit: int, blocks: Sequence[bytes] = (), status: int = 200) -> BodyTooLarge:
    """More bytes than may come; ``blocks`` are those that did, where they are of use."""
    head = b"".join(blocks)[:ROBOTS_BYTES]
    return BodyTooLarge(url, f"the body is larger than {limit} bytes (download.max_body)", head, status)


def private(url: str, address: str) -> PrivateAddress:
    """The address is private and nobody asked for it."""
    return PrivateAddress(url, f"{address} is a private address that no start URL names (download.private_addresses)")


def _timeout(url: str, message: str, phase: str) -> FetchTimeout:
    error = FetchTimeout(url, message, phase)
    error.is_strain = phase != PROXY
    return error


def brief(reason: object) -> str:
    """Return the first line of an error, or its class where it says nothing."""
    return (str(reason) or type(reason).__name__).partition("\n")[0][:200]
