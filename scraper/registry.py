"""Names of parts: what a setting or a file's suffix calls, and the class behind it, imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from scraper.errors import OutputError, ScraperError, UsageError, story_of

EXPORTERS = {
    ".jsonl": "scraper.exporters.jsonl:JsonlExporter",
    ".jl": "scraper.exporters.jsonl:JsonlExporter",
    ".ndjson": "scraper.exporters.jsonl:JsonlExporter",
    ".csv": "scraper.exporters.csv:CsvExporter",
}
"""Output formats by the file's suffix."""

DOWNLOADERS = {
    "aiohttp": "scraper.downloaders.aiohttp:AiohttpDownloader",
    "httpx": "scraper.downloaders.httpx:HttpxDownloader",
}
"""Downloaders by the value of ``download.downloader`` or of a request's ``downloader``."""

FRONTIERS = {
    "memory": "scraper.frontiers.memory:MemoryFrontier",
    "redis": "scraper.frontiers.redis:RedisFrontier",
    "sqlite": "scraper.frontiers.sqlite:SqliteFrontier",
}
"""Frontiers by the value of ``frontier.use``."""

MIDDLEWARES = {
    "retry": "scraper.middlewares.retry:Retry",
    "redirect": "scraper.middlewares.redirect:Redirect",
    "cookies": "scraper.middlewares.cookies:Cookies",
    "hosts": "scraper.middlewares.overrides:Overrides",
    "headers": "scraper.middlewares.headers:DefaultHeaders",
    "auth": "scraper.middlewares.auth:Auth",
    "cache": "scraper.middlewares.cache:Cache",
    "throttle": "scraper.politeness.throttle:Throttle",
    "proxy": "scraper.middlewares.proxy:Proxies",
    "decompress": "scraper.middlewares.decompress:Decompress",
}
"""The built-in middlewares by their names in ``middlewares.order``."""


def load(target: str) -> Any:
    """Import ``module:Class``. Raises UsageError naming what is missing, or where importing it failed."""
    module, _, name = target.partition(":")
    try:
        home = import_module(module)
    except UsageError:
        raise
    except ModuleNotFoundError as error:
        raise UsageError(f"cannot import {target}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"cannot import {target}: {story_of(error)}") from error
    try:
        return getattr(home, name)
    except AttributeError:
        raise UsageError(f"cannot import {target}: the module {module} has no {name}") from None


def exporter_for(name: str) -> Any:
    """Return the exporter class for an output's name. Raises OutputError for a suffix that has none."""
    if name == "-":
        return load(EXPORTERS[".jsonl"])
    suffix = Path(name).suffix.lower()
    if suffix not in EXPORTERS:
        raise OutputError(f"cannot write {name}: no format for the suffix {suffix!r}; there are {', '.join(EXPORTERS)}")
    return load(EXPORTERS[suffix])


def make(target: str, arguments: Mapping[str, Any], place: str) -> Any:
    """Make a part of the user's own, ``module:Class``. Raises UsageError, naming its ``place`` in the settings."""
    cls = load(target)
    try:
        parameters = signature(cls).parameters
    except (TypeError, ValueError):
        raise UsageError(f"{place}: {target} is no class") from None
    known = [name for name, each in parameters.items() if each.kind is not each.VAR_KEYWORD]
    takes_any = len(known) < len(parameters)
    for name in arguments:
        if name not in known and not takes_any:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it takes {', '.join(known) or 'no arguments'}"
            raise UsageError(f"{place}: unknown argument {name}{hint}")
    try:
        return cls(**arguments)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ScraperError) else story_of(error)
        raise UsageError(f"{place}: {reason}") from error
