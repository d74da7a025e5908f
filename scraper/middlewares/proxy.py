"""A pool of proxies: requests go through them in turn, and one that does not work rests for a while.

It is the proxy that rests, never the target's host: it stands inside the throttle, which sees no failure of a proxy's. A
timeout is the host's where it follows another that came by another proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from scraper.contracts import Again, Handler
from scraper.errors import ConnectError, ConnectionLost, DnsError, FetchError, FetchTimeout, ProxyError
from scraper.http import Request, Response
from scraper.log import Log
from scraper.urls import origin_of

BASE_REST_S = 5.0
"""How long a proxy rests the first time; each time on end it is twice as long."""
MAX_REST_S = 600.0
_AUTHENTICATION = 407
_GATEWAY = frozenset({502, 504})  # of the proxy, or of the site behind it: only many in a row tell
_MAX_DOUBTS = 5
_TO_PROXY = "proxy"  # a FetchTimeout's phase
_MAX_REMEMBERED = 10_000


class Hold(Protocol):
    """``Frontier.tune``."""

    def __call__(self, host: str, *, not_before: float | None = None) -> None: ...


class _Proxy:
    __slots__ = ("doubted_at", "doubts", "name", "rested_at", "rests", "until", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = origin_of(url)  # without its credentials
        self.rests = self.doubts = 0
        self.until = self.doubted_at = 0.0
        self.rested_at = float("-inf")

    def speaks_for(self, request: Request) -> bool:
        """Whether it hands the answer on itself."""
        return self.url.startswith("http") and request.url.startswith("http:")


class Proxies:
    """Sends each request through the next proxy that works; one with a ``proxy`` of its own is left alone.

    A proxy that cannot be reached, in time or at all, or refuses, rests for ``BASE_REST_S``, then twice as long and so on,
    and the request goes through another. It also rests after five answers in a row that are timeouts, lost connections or
    gateway errors while others work. Where all rest, requests wait in the frontier for the first to return.
    """

    def __init__(self, urls: Sequence[str], hold: Hold, log: Log, clock: Callable[[], float]) -> None:
        self._proxies = [_Proxy(url) for url in dict.fromkeys(urls)]
        self._hold = hold
        self._log = log
        self._clock = clock
        self._next = 0
        self._good_at = float("-inf")
        self._tries: dict[bytes, int] = {}
        self._failed_by: dict[str, _Proxy] = {}

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def through(request: Request) -> Response:
            if request.proxy is not None:
                return await handle(request)
            began = self._clock()
            proxy = self._pick(request, began)
            try:
                response = await handle(request.complete({}, proxy=proxy.url))
            except (ConnectError, DnsError) as error:  # with a proxy, that is what is connected to
                if isinstance(error, ProxyError) and error.status >= 500:  # it could not reach the site: Squid says 503
                    self._doubt(proxy, began)
                    raise
                self._go_on(proxy, request, began, error)
            except (FetchTimeout, ConnectionLost) as error:
                if isinstance(error, FetchTimeout) and error.phase == _TO_PROXY:
                    self._go_on(proxy, request, began, error)
                if error.is_strain:
                    self._doubt(proxy, began)
                    error.is_strain = self._is_the_hosts(request.host, proxy)
                raise
            # Through a tunnel it is the site that speaks, and may say what it likes.
            if response.status == _AUTHENTICATION and proxy.speaks_for(request):
                message = "the proxy refused (HTTP status 407) (proxies.urls)"
                self._go_on(proxy, request, began, ProxyError(request.url, message, _AUTHENTICATION))
            if response.status in _GATEWAY:
                self._doubt(proxy, began)
            else:
                self._praise(proxy, request, began)
            return response

        return through

    def _pick(self, request: Request, now: float) -> _Proxy:
        """Return the next proxy that works. Where there is none, the request and its host wait: raises Again."""
        count = len(self._proxies)
        for step in range(count):
            proxy = self._proxies[(self._next + step) % count]
            if proxy.until <= now:
                self._next = (self._next + step + 1) % count
                return proxy
        first = min(proxy.until for proxy in self._proxies)
        self._hold(request.host, not_before=first)  # or every single request of the host would come here to wait
        raise Again(request, "retry", first - now)

    def _go_on(self, proxy: _Proxy, request: Request, began: float, error: FetchError) -> NoReturn:
        """The proxy failed: it rests. Raises Again, or ``error`` where as many have failed the request as there are."""
        self._rest(proxy, began, error.message)
        if len(self._tries) >= _MAX_REMEMBERED:
            self._tries.clear()
        key = request.fingerprint
        self._tries[key] = self._tries.get(key, 0) + 1
        if self._tries[key] < len(self._proxies):
            raise Again(request, "retry") from error
        del self._tries[key]
        raise error

    def _rest(self, proxy: _Proxy, began: float, reason: str) -> None:
        # Requests that were sent together fail together: one sign, not many.
        if began <= proxy.rested_at:
            return
        rest_s = min(BASE_REST_S * 2**proxy.rests, MAX_REST_S)
        proxy.rests = min(proxy.rests + 1, 10)
        proxy.doubts = 0
        proxy.rested_at = self._clock()
        proxy.until = proxy.rested_at + rest_s
        self._log.warning("proxy rests", proxy=proxy.name, seconds=rest_s, reason=reason)

    def _doubt(self, proxy: _Proxy, began: float) -> None:
        proxy.doubts += 1
        if proxy.doubts == 1:
            proxy.doubted_at = self._clock()
        if proxy.doubts >= _MAX_DOUBTS and self._good_at > proxy.doubted_at:
            self._rest(proxy, began, f"{proxy.doubts} failures in a row, while others work")

    def _is_the_hosts(self, host: str, proxy: _Proxy) -> bool:
        """Whether a timeout or a lost connection is the host's: the one before, with no good answer since, had another way."""
        if len(self._failed_by) >= _MAX_REMEMBERED:
            self._failed_by.clear()
        before = self._failed_by.setdefault(host, proxy)
        self._failed_by[host] = proxy
        return before is not proxy or len(self._proxies) == 1

    def _praise(self, proxy: _Proxy, request: Request, began: float) -> None:
        self._good_at = self._clock()
        if proxy.doubts or (proxy.rests and began > proxy.rested_at):
            if proxy.rests:
                self._log.info("proxy is back", proxy=proxy.name)
            proxy.rests = proxy.doubts = 0
        if self._failed_by:
            self._failed_by.pop(request.host, None)
        if self._tries:
            self._tries.pop(request.fingerprint, None)
