"""Every error this package raises, and the three exceptions that are control flow.

    ScraperError
    ├── UsageError                 what was typed or configured is wrong; exit status 2
    │   ├── SettingsError          a key or a value in settings.toml, the environment or -s
    │   ├── SpiderError            a spider is missing, broken or doubled
    │   └── ArgumentError          a spider argument (-a) is unknown or does not convert
    ├── RequestError               a Request that can never be sent, refused where it is made or yielded
    │   └── InvalidURL             the URL is none
    ├── OutputError                an output file cannot be written
    ├── StateError                 the state of the run cannot be written
    └── FetchError                 a request that failed; reaches the errback as ``failure.error``
        ├── DnsError               the host name does not resolve
        ├── ConnectError           no connection (refused, unreachable)
        │   └── ProxyError         the proxy is not there, or will not have the request
        ├── TlsError               the certificate or the handshake is bad
        ├── FetchTimeout           no connection, or no complete answer, in time
        ├── ConnectionLost         closed or reset before the answer was whole
        │   └── Truncated          the body ended before its announced end
        ├── ProtocolError          what came is no valid HTTP
        ├── BodyTooLarge           more than ``download.max_body``, on the wire or decompressed
        ├── DecodeError            the content encoding is broken or unknown
        ├── HttpError              a status the spider did not ask for (in ``http.py``, as it carries the response)
        ├── TooManyRedirects       more than ``download.max_redirects``
        ├── RobotsDenied           robots.txt disallows the URL, or could not be reached
        ├── OutOfScope             a redirect left ``allowed_domains`` or http(s)
        └── PrivateAddress         the host is on a private network and no start URL names it

``DropItem`` and ``CloseSpider`` are raised by users' code, ``Again`` (in ``contracts.py``) by middlewares; none of the
three is an error.
"""

from __future__ import annotations

from typing import Any


class ScraperError(Exception):
    """The root of this package's errors. ``str(error)`` is one line for a person."""


class UsageError(ScraperError):
    """What the user typed or configured cannot be run: one clear line, exit status 2."""


class SettingsError(UsageError):
    """An unknown setting, or a value of the wrong type or range."""


class SpiderError(UsageError):
    """A spider cannot be found, imported or started."""


class ArgumentError(UsageError):
    """A spider argument is unknown, missing or does not convert."""


class RequestError(ScraperError, ValueError):
    """A request that can never be sent or stored: a bad method or header, a lambda, a value JSON cannot hold."""


class InvalidURL(RequestError):
    """The text is no absolute http or https URL by the WHATWG URL standard."""


class OutputError(ScraperError):
    """An output file cannot be opened or written; the message names it."""


class StateError(ScraperError):
    """The run's state cannot be written or read; the message names the file."""


class FetchError(ScraperError):
    """A request failed. ``url`` is the URL that failed (after redirects), ``message`` what happened.

    ``retryable`` says whether a new try may help, ``is_strain`` whether it may be a sign that the host has too much to do.
    """

    retryable = False
    is_strain = False

    def __init__(self, url: str, message: str) -> None:
        super().__init__(f"{message}: {url}")
        self.url = url
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.message), self.__dict__


class DnsError(FetchError):
    """The host name does not resolve."""

    retryable = True


class ConnectError(FetchError):
    """No connection could be made: refused, unreachable, or the proxy said no."""

    retryable = True


class ProxyError(ConnectError):
    """The proxy cannot be reached, or refuses: ``status`` is its answer to CONNECT, 0 where there is none.

    A SOCKS proxy's word that it cannot reach the site is a 502.
    """

    def __init__(self, url: str, message: str, status: int = 0) -> None:
        super().__init__(url, message)
        self.status = status


class TlsError(FetchError):
    """The TLS handshake failed or the certificate is not to be trusted (``download.verify_tls``)."""


class FetchTimeout(FetchError):
    """No connection within ``download.connect_timeout``, or no whole answer within ``download.timeout``.

    ``phase`` says what was under way: "connecting" (resolving included), "TLS handshake", "waiting" (for the status and
    the headers) or "body"; "proxy" where the proxy could not be connected to; empty where that is not known.
    """

    retryable = True
    is_strain = True

    def __init__(self, url: str, message: str, phase: str = "") -> None:
        super().__init__(url, message)
        self.phase = phase


class ConnectionLost(FetchError):
    """The connection was closed or reset before the answer was whole; what had come is thrown away.

    ``is_strain`` is false where it had been used before and ended before the head of this answer, as a server may end any
    connection that it no longer wants to keep (RFC 9112 section 9.3.1, RFC 9113 section 6.8).
    """

    retryable = True
    is_strain = True


class Truncated(ConnectionLost):
    """The connection was closed in good order, but before the body's announced end (RFC 9112 section 8)."""


class ProtocolError(FetchError):
    """What the server sent is no valid HTTP (RFC 9112)."""

    retryable = True


class BodyTooLarge(FetchError):
    """The body passed ``download.max_body``, on the wire or decompressed.

    ``head`` is what had come of it, decoded, up to 512 KiB, where the downloader kept it: of a robots.txt, which is read
    as far as that (RFC 9309 section 2.5). ``status`` is the answer's.
    """

    def __init__(self, url: str, message: str, head: bytes = b"", status: int = 200) -> None:
        super().__init__(url, message)
        self.head = head
        self.status = status


class DecodeError(FetchError):
    """The body cannot be decompressed by its Content-Encoding."""


class TooManyRedirects(FetchError):
    """The chain of redirects is longer than ``download.max_redirects``."""


class RobotsDenied(FetchError):
    """robots.txt disallows the URL, or the site's robots.txt could not be reached (RFC 9309 section 2.3.1.4)."""


class OutOfScope(FetchError):
    """A redirect led outside ``allowed_domains`` or away from http and https."""


class PrivateAddress(FetchError):
    """The host resolves to a private or loopback address and ``download.private_addresses`` does not allow it."""


class DropItem(Exception):
    """Raised by a pipeline: this item is not wanted. Counted as dropped, not as an error."""


class CloseSpider(Exception):
    """Raised by a callback or a pipeline: end the run in good order. ``reason`` ends up in the summary."""

    def __init__(self, reason: str = "closed by the spider") -> None:
        super().__init__(reason)
        self.reason = reason


def text_of(value: object) -> str:
    """Return ``str(value)``, fit to be stored and sent: a lone surrogate is escaped. It raises nothing, whatever is users'."""
    try:
        text = str(value)
    except Exception as error:
        return f"<{type(value).__name__}, whose text raises {type(error).__name__}>"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def shown(value: object) -> str:
    """Return the beginning of ``repr(value)`` for a message. It raises nothing, whatever is users'."""
    try:
        return repr(value)[:200]
    except Exception:
        return f"<{type(value).__name__}>"


def story_of(error: BaseException) -> str:
    """Return an error's class and text, as it is told where the class says more than the text alone."""
    return f"{type(error).__name__}: {text_of(error)}"


def ordinary(error: BaseException, whose: str) -> Exception:
    """Return what users' code ended with as an error like any other: the page, or the item, must come to its end.

    It may be a cancellation that nobody here asked for, or a BaseException of a library's own. Raises a KeyboardInterrupt.
    """
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt):
        raise error
    from asyncio import CancelledError  # here, for the command line needs none of asyncio to show its help

    if isinstance(error, SystemExit):
        return RuntimeError("sys.exit() ends no crawl: raise CloseSpider").with_traceback(error.__traceback__)
    if isinstance(error, CancelledError):
        return RuntimeError(f"the {whose} was cancelled")
    return RuntimeError(story_of(error)).with_traceback(error.__traceback__)
