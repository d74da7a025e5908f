"""robots.txt before everything else: fetched once an origin, by the same way as any page, while those who need it wait.

Who waits holds no slot, and a host whose robots.txt is not known is asked for one thing at a time. A file that has grown
old is asked for again while its rules go on to hold; a site that could not be reached is, when the next request comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeGuard

from scraper.contracts import Frontier, Lease
from scraper.errors import (
    ConnectError,
    ConnectionLost,
    DnsError,
    FetchError,
    FetchTimeout,
    PrivateAddress,
    ProtocolError,
    ProxyError,
    RobotsDenied,
    TlsError,
)
from scraper.http import Request, Response
from scraper.log import Log
from scraper.politeness.robots import Robots, Rules

ROBOTS = "robots.txt"
"""The key of a private lease that asks for a robots.txt: it passes the gate, whatever its status."""

Denied = Callable[[Lease, FetchError], None]
"""Is told of a lease that comes to nothing."""

_NO_ANSWER = (DnsError, ConnectError, TlsError, FetchTimeout, ConnectionLost, ProtocolError, PrivateAddress)


class Gate:
    """Judges each lease by its origin's robots.txt, and sends for that where it is not known.

    ``obeys`` says of a host whether its robots.txt counts; without it every host's does.
    """

    def __init__(
        self, robots: Robots | None, frontier: Frontier, log: Log, obeys: Callable[[str], bool] | None = None
    ) -> None:
        self._robots = robots
        self._frontier = frontier
        self._obeys = obeys
        self._log = log
        self._waiting: dict[str, list[Lease]] = {}
        self._renewed: set[str] = set()

    def judge(self, lease: Lease, now: float, denied: Denied) -> bool:
        """Return whether the lease may be fetched now. Otherwise its slot is free again: it waits, or is ``denied``."""
        if self._robots is None or lease.key is ROBOTS:
            return True
        request = lease.request
        if self._obeys is not None and not self._obeys(request.host):
            return True
        origin = request.origin
        rules = self._robots.known(origin)
        if rules is not None and self._robots.is_stale(rules):
            if rules.reason:
                rules = None
            elif origin not in self._renewed:
                self._renewed.add(origin)
                self._ask(request, denied)
        if rules is not None and rules.allow(request.url):
            return True
        self._frontier.release(lease, now, unused=True)
        if rules is not None:
            denied(lease, _denial(request.url, rules))
        elif origin in self._waiting:
            self._waiting[origin].append(lease)
        else:
            self._waiting[origin] = [lease]
            self._frontier.tune(request.host, concurrency=1, cause=origin)
            self._ask(request, denied)
        return False

    def _ask(self, request: Request, denied: Denied) -> None:
        """Send for robots.txt by the way that the request goes: nobody is asked behind the back of its proxy."""
        robots = Request.link(request.origin + "/robots.txt")
        robots.proxy, robots.downloader = request.proxy, request.downloader
        waiter: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(lambda done: self._came(robots, denied, done))
        self._frontier.requeue(Lease(robots, ROBOTS, waiter))

    def _came(self, robots: Request, denied: Denied, done: asyncio.Future[Response]) -> None:
        if done.cancelled() or self._robots is None:
            return
        origin, host = robots.origin, robots.host
        error = done.exception()
        if error is None:
            outcome: Response | FetchError = done.result()
        else:
            outcome = error if isinstance(error, FetchError) else FetchError(origin, repr(error))
        if robots.proxy and _is_of_proxy(outcome) and origin not in self._renewed:
            # It says nothing of the site: those who came by that proxy have failed, the others ask by a way of their own.
            self._frontier.tune(host, concurrency=0, cause=origin)
            for lease in self._waiting.pop(origin):
                if lease.request.proxy == robots.proxy:
                    denied(lease, _unasked(lease.request.url, outcome))
                else:
                    self._frontier.requeue(lease)
            return
        rules = self._robots.learn(origin, outcome)
        if rules.reason and rules.error is None:
            self._log.warning("robots.txt forbids the whole site", host=host, reason=rules.reason)
        self._frontier.tune(host, concurrency=0, delay=rules.crawl_delay_s, cause=origin)
        if origin in self._renewed:
            self._renewed.discard(origin)
            return
        for lease in self._waiting.pop(origin):
            self._frontier.requeue(lease)


def _denial(url: str, rules: Rules) -> FetchError:
    """Return why robots.txt forbids a URL. Where the host cannot be asked for it at all, that is what went wrong."""
    if isinstance(rules.error, _NO_ANSWER):
        return _unasked(url, rules.error)
    return RobotsDenied(url, rules.reason or "robots.txt disallows it")


def _unasked(url: str, cause: FetchError) -> FetchError:
    return type(cause)(url, f"{cause.message}, asking for robots.txt")


def _is_of_proxy(outcome: Response | FetchError) -> TypeGuard[FetchError]:
    """Whether it is the proxy's own failure, and not that it cannot reach the site."""
    if isinstance(outcome, ProxyError):
        return outcome.status < 500
    return isinstance(outcome, FetchTimeout) and outcome.phase == "proxy"
