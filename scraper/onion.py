"""The onion: the middlewares that a request passes, made from the settings and wrapped around the downloader."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from scraper import registry
from scraper.contracts import Handler, Middleware
from scraper.errors import UsageError, ordinary, shown, story_of
from scraper.host_settings import HostSettings
from scraper.http import Request, Response
from scraper.log import Log
from scraper.politeness.throttle import retry_after_s
from scraper.settings import Settings
from scraper.spider import Spider
from scraper.stats import Stats

Tune = Callable[..., None]
"""``Departures.tune``: changes a host's budget."""


def wrap(fetch: Handler, middlewares: Sequence[Middleware]) -> Handler:
    """Wrap ``fetch`` in the middlewares, of which the first is the outermost. Raises UsageError where one is none."""
    handle = fetch
    for middleware in reversed(middlewares):
        name = type(middleware).__name__
        if not callable(middleware):
            raise UsageError(f"the middleware {name} has no __call__(handler)")
        try:
            handle = middleware(handle)
        except (Exception, SystemExit) as error:
            raise UsageError(f"the middleware {name}: __call__(handler) raised {story_of(error)}") from error
        if not callable(handle):
            raise UsageError(f"the middleware {name}: __call__(handler) is to return a handler, not {shown(handle)}")
        if not type(middleware).__module__.startswith("scraper."):
            handle = _kept_in(handle)
    return handle


def _kept_in(handle: Handler) -> Handler:
    """Have a sys.exit() in a handler of the user's own fail its request: it would end the event loop, and nothing be told."""

    async def kept_in(request: Request) -> Response:
        try:
            return await handle(request)
        except SystemExit as error:
            raise ordinary(error, "fetch") from None

    return kept_in


def make_middlewares(
    settings: Settings, hosts: HostSettings, spider: Spider, *, tune: Tune, stats: Stats, log: Log
) -> list[Middleware]:
    """Make what ``middlewares.order`` lists, outermost first; what the settings switch off is left out.

    Raises UsageError where a name is unknown or a part of the user's own cannot be made.
    """
    made: list[Middleware] = []
    for name in settings.middlewares.order:
        if ":" in name:
            made.append(registry.make(name, settings.arguments.get(name, {}), f'[middlewares."{name}"]'))
            continue
        if name not in registry.MIDDLEWARES:
            near = get_close_matches(name, registry.MIDDLEWARES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(registry.MIDDLEWARES)}"
            origin = settings.origins["middlewares.order"]
            raise UsageError(f'{origin}: middlewares.order: unknown middleware "{name}"; {hint}')
        arguments = _Arguments(settings, hosts, spider, tune, stats, log).of(name)
        if arguments is not None:
            made.append(registry.load(registry.MIDDLEWARES[name])(**arguments))
    return made


class _Arguments:
    """What the built-in middlewares are made with."""

    def __init__(
        self, settings: Settings, hosts: HostSettings, spider: Spider, tune: Tune, stats: Stats, log: Log
    ) -> None:
        self._settings = settings
        self._hosts = hosts
        self._spider = spider
        self._tune = tune
        self._stats = stats
        self._log = log

    def of(self, middleware: str) -> dict[str, Any] | None:
        """Return the arguments, or None where the settings switch the middleware off."""
        download, politeness = self._settings.download, self._settings.politeness
        wanted = frozenset(self._spider.handle_httpstatus_list)
        match middleware:
            case "retry":
                return {"retries": download.retries, "wanted": wanted, "retry_after_s": retry_after_s}
            case "redirect":
                return {
                    "max_redirects": download.max_redirects,
                    "wanted": wanted,
                    "refresh": download.meta_refresh,
                }
            case "decompress":
                return {"max_body": download.max_body}
            case "throttle" if politeness.adaptive or self._hosts.any("adaptive"):
                return {
                    "tune": self._tune,
                    "concurrency": politeness.concurrency_per_host,
                    "clock": time.monotonic,
                    "concurrency_of": self._throttled_concurrency if self._hosts else None,
                }
            case "cookies":
                return {"keep": download.cookies}
            case "proxy" if self._settings.proxies.urls and not download.proxy:
                return {
                    "urls": self._settings.proxies.urls,
                    "hold": self._tune,
                    "log": self._log,
                    "clock": time.monotonic,
                }
            case "headers" if self._settings.headers:
                return {"headers": self._settings.headers}
            case "auth" if self._settings.auth:
                origins = self._settings.origins
                places = {origin: f'{origins[f"auth.{origin}"]}: [auth."{origin}"]' for origin in self._settings.auth}
                return {
                    "headers": {origin: auth.header(places[origin]) for origin, auth in self._settings.auth.items()}
                }
            case "cache" if self._settings.cache.mode != "off":
                return self._cache_arguments()
            case "hosts" if self._hosts:
                return {"hosts": self._hosts}
        return None

    def _cache_arguments(self) -> dict[str, Any]:
        cache = self._settings.cache
        return {
            "mode": cache.mode,
            "folder": (self._settings.root or Path.cwd()) / cache.dir,
            "max_age_s": cache.max_age,
            "max_bytes": cache.max_size,
            "user_agent": self._settings.politeness.user_agent,
            "stats": self._stats,
            "log": self._log,
            "clock": time.time,
        }

    def _throttled_concurrency(self, host: str) -> int | None:
        """Return the most slots a host's own table gives it, None where it has none, 0 where it is not to be throttled."""
        own = self._hosts.for_host(host)
        adaptive = self._settings.politeness.adaptive if own is None or own.adaptive is None else own.adaptive
        return (own.concurrency if own is not None else None) if adaptive else 0
