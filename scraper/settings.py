"""Settings: every section and key with its type, default and meaning, in one frozen object.

``scraper.layers`` makes it from its sources. A part gets its own section's values through its constructor; nothing reads a
setting by a string key.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from scraper import __version__
from scraper.errors import SettingsError

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Fraction = Annotated[float, Meta(ge=0, le=100)]
AgentName = Annotated[
    str, Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z", extra={"expected": "text, not empty and without control characters"})
]


class Size(int):
    """A number of bytes, written as a number or as text such as "32 MiB"."""


class Crawl(Struct, frozen=True):
    """The run as a whole."""

    concurrency: Annotated[Positive, Meta(description="requests in flight over all hosts")] = 64
    max_pages: Annotated[Count, Meta(description="end after this many pages; 0: no limit")] = 0
    max_items: Annotated[Count, Meta(description="start no more fetches after this many items; 0: no limit")] = 0
    max_errors: Annotated[Count, Meta(description="start no more fetches after this many errors; 0: no limit")] = 0
    max_seconds: Annotated[Seconds, Meta(description="start no more fetches after this many seconds; 0: no limit")] = 0
    max_depth: Annotated[Count, Meta(description="follow no link further than this from a start URL; 0: no limit")] = 0
    max_pages_per_host: Annotated[Count, Meta(description="fetch no more pages of one host than this; 0: no limit")] = 0
    max_queries_per_path: Annotated[
        Count, Meta(description="fetch one path of a host with no more query strings than this; 0: no limit")
    ] = 100_000
    max_path_repeats: Annotated[
        Count, Meta(description="how often the same segments may follow each other in a path; 0: any number")
    ] = 3
    order: Annotated[Literal["breadth", "depth"], Meta(description="within a host, oldest or newest link first")] = (
        "breadth"
    )


class Politeness(Struct, frozen=True):
    """How every host is treated."""

    robots: Annotated[bool, Meta(description="obey robots.txt (RFC 9309), its Crawl-delay too")] = True
    concurrency_per_host: Annotated[Positive, Meta(description="requests in flight to one host")] = 8
    delay: Annotated[Seconds, Meta(description="seconds between two requests to one host")] = 0.0
    jitter: Annotated[
        Fraction, Meta(description="how much longer a gap may be by chance: up to delay × (1 + jitter)")
    ] = 0.0
    adaptive: Annotated[
        bool, Meta(description="ask less of a host that answers 429 or 503 or slows down; wait out its Retry-After")
    ] = True
    user_agent: Annotated[
        AgentName, Meta(description="what the crawler calls itself, also when it reads robots.txt")
    ] = f"scraper/{__version__}"
    robots_agent: Annotated[
        str, Meta(description="the name that robots.txt is read for; empty: the product in user_agent")
    ] = ""


class Download(Struct, frozen=True):
    """A single request."""

    timeout: Annotated[Seconds, Meta(description="seconds for one whole answer; 0: no limit")] = 60.0
    connect_timeout: Annotated[Seconds, Meta(description="seconds for one connection; 0: no limit of its own")] = 15.0
    max_body: Annotated[Size, Meta(description="largest body, on the wire and decompressed")] = Size(32 * 2**20)
    retries: Annotated[Count, Meta(description="further tries after a failure that may pass")] = 2
    max_redirects: Annotated[Count, Meta(description="redirects followed for one request")] = 20
    meta_refresh: Annotated[bool, Meta(description="follow the meta refresh of HTML pages")] = True
    cookies: Annotated[bool, Meta(description="keep the cookies that sites set, and send them back")] = True
    verify_tls: Annotated[bool, Meta(description="refuse bad certificates")] = True
    ca_file: Annotated[str, Meta(description="certificate authorities to trust beside the system's, a PEM file")] = ""
    private_addresses: Annotated[
        Literal["seeds", "always", "never"],
        Meta(description="private and loopback hosts: only those a start URL names, all, or none"),
    ] = "seeds"
    proxy: Annotated[str, Meta(description='a proxy\'s URL, such as "http://user:pass@host:3128"; empty: none')] = ""
    downloader: Annotated[
        Literal["aiohttp", "httpx"], Meta(description="what fetches; httpx speaks HTTP/2 too (the extra http2)")
    ] = "aiohttp"
    resolver: Annotated[
        str, Meta(description='what looks up host names, "package.module:function"; empty: the system')
    ] = ""


class Host(Struct, frozen=True):
    """What is different for one host, or a group of hosts; None where it is not."""

    concurrency: Annotated[Positive | None, Meta(description="politeness.concurrency_per_host")] = None
    delay: Annotated[Seconds | None, Meta(description="politeness.delay")] = None
    jitter: Annotated[Fraction | None, Meta(description="politeness.jitter")] = None
    adaptive: Annotated[bool | None, Meta(description="politeness.adaptive")] = None
    robots: Annotated[bool | None, Meta(description="politeness.robots")] = None
    user_agent: Annotated[AgentName | None, Meta(description="politeness.user_agent")] = None
    timeout: Annotated[Seconds | None, Meta(description="download.timeout")] = None
    proxy: Annotated[str | None, Meta(description="download.proxy")] = None
    downloader: Annotated[Literal["aiohttp", "httpx"] | None, Meta(description="the downloader that fetches")] = None
    headers: Annotated[Mapping[str, str], Meta(description="headers sent where the request has none of the name")] = {}


class Proxies(Struct, frozen=True):
    """Proxies that requests go through in turn."""

    urls: Annotated[
        tuple[str, ...],
        Meta(description="http, https and socks5 proxies; one that fails rests; empty, or with download.proxy: none"),
    ] = ()


class Frontier(Struct, frozen=True):
    """Where requests wait."""

    use: Annotated[
        str,
        Meta(
            pattern=r"^(memory|sqlite|rediss?(\+cluster)?://[^/\s]\S*)\Z",
            description="sqlite: in a file, survives a crash; memory: faster; redis://host:6379/0: many machines",
            extra={"expected": '"memory", "sqlite" or a Redis: redis://host:6379/0, rediss://… or redis+cluster://…'},
        ),
    ] = "sqlite"
    durability: Annotated[
        Literal["none", "normal", "full"],
        Meta(description="what a run survives: normal: being killed, full: a power failure too, none: neither surely"),
    ] = "normal"


class Shards(Struct, frozen=True):
    """One run on several processors: `scrape run --shards`."""

    count: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | Literal["auto"],
        Meta(
            description='processes that share the run; "auto": as many as there are processors',
            extra={"expected": 'a number from 1 to 256, or "auto"'},
        ),
    ] = 1
    by: Annotated[
        Literal["host", "url"],
        Meta(description="host: each host has one shard; url: one host's pages go to all of them"),
    ] = "host"


class Middlewares(Struct, frozen=True):
    """What a request passes on its way to the downloader, and its response on the way back."""

    order: Annotated[
        tuple[str, ...],
        Meta(description='outermost first: names of the built-in ones, and your own as "package.module:Class"'),
    ] = ("retry", "redirect", "cookies", "hosts", "headers", "auth", "cache", "throttle", "proxy", "decompress")


class Cache(Struct, frozen=True):
    """Answers kept on disk over the runs."""

    mode: Annotated[
        Literal["off", "rfc9111", "everything"],
        Meta(description="rfc9111: what servers allow, as a browser does; everything: for development"),
    ] = "off"
    dir: Annotated[
        str, Meta(min_length=1, description="the folder of the stored answers, seen from that of settings.toml")
    ] = ".scrape/cache"
    max_age: Annotated[Seconds, Meta(description="seconds for which everything is kept; 0: for ever")] = 0
    max_size: Annotated[Size, Meta(description="room on disk; past it, what was stored longest ago goes")] = Size(2**31)


class Items(Struct, frozen=True):
    """The way from callbacks to outputs. Past these bounds no new page is fetched until there is room again."""

    concurrency: Annotated[Positive, Meta(description="items in the pipelines at a time")] = 100
    max_buffer: Annotated[Size, Meta(description="bytes of responses and items that wait in memory")] = Size(64 * 2**20)
    csv_formulas: Annotated[
        Literal["keep", "escape"],
        Meta(description="escape: an apostrophe before CSV texts that a spreadsheet would run as a formula"),
    ] = "keep"


class Log(Struct, frozen=True):
    """What is said on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="the least level shown")] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], Meta(description="auto: live progress on a terminal, lines elsewhere")
    ] = "auto"


class Auth(Struct, frozen=True):
    """The credentials of one origin; a value that begins with "$" names a variable of the environment."""

    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return "Auth(***)"

    def header(self, place: str, environ: Mapping[str, str] = os.environ) -> str:
        """Return the value of the Authorization header. Raises SettingsError naming ``place`` where it cannot be made."""
        user, password, token = (
            _secret(value, f"{place} {key}", environ)
            for key, value in (("user", self.user), ("password", self.password), ("token", self.token))
        )
        if bool(token) == bool(user or password):
            raise SettingsError(f"{place}: give user and password, or token")
        if not token and (":" in user or not (user + password).isprintable()):
            raise SettingsError(f"{place}: a user has no colon, and no credentials have control characters")
        if token and not re.fullmatch(r"[\x21-\x7e]+", token):
            raise SettingsError(f"{place} token: a token is ASCII, without spaces")
        return f"Bearer {token}" if token else f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


class PartSettings(Struct, frozen=True):
    """A part of the user's own: the class as ``module:Class`` and its constructor's arguments."""

    use: str
    arguments: Mapping[str, Any]


class Settings(Struct, frozen=True):
    """All sections, checked. ``root`` is the folder of settings.toml, or None where there is none."""

    crawl: Crawl = Crawl()
    politeness: Politeness = Politeness()
    download: Download = Download()
    proxies: Proxies = Proxies()
    frontier: Frontier = Frontier()
    shards: Shards = Shards()
    middlewares: Middlewares = Middlewares()
    cache: Cache = Cache()
    items: Items = Items()
    log: Log = Log()
    headers: Mapping[str, str] = {}
    """Headers of every request that has none of that name."""
    auth: Mapping[str, Auth] = {}
    """Credentials by origin, such as ``https://example.com``."""
    pipelines: tuple[PartSettings, ...] = ()
    arguments: Mapping[str, Mapping[str, Any]] = {}
    """The constructor's arguments of each of the user's own middlewares, by its name in ``middlewares.order``."""
    hosts: Mapping[str, Host] = {}
    """What is different for some hosts, by a host's name or pattern: see ``host_settings``."""
    root: Path | None = None
    origins: Mapping[str, str] = {}
    """Where each value comes from that is not the default: "section.key" to a source's name."""


SECTIONS: dict[str, type[Struct]] = {
    "crawl": Crawl,
    "politeness": Politeness,
    "download": Download,
    "proxies": Proxies,
    "frontier": Frontier,
    "shards": Shards,
    "middlewares": Middlewares,
    "cache": Cache,
    "items": Items,
    "log": Log,
}


def describe(section: str) -> list[tuple[str, str]]:
    """Return (key, meaning) of a section's keys, in order."""
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    return [(field.name, _description(hints[field.name])) for field in msgspec.structs.fields(SECTIONS[section])]


def _secret(value: str, place: str, environ: Mapping[str, str]) -> str:
    """Return a value of the settings, or the variable that it names: "$NAME"; "$$" stands for a dollar sign in front."""
    if value.startswith("$$") or not value.startswith("$"):
        return value.removeprefix("$")
    if not environ.get(value[1:]):
        raise SettingsError(f"{place}: the environment has no variable {value[1:]}")
    return environ[value[1:]]


def _description(kind: Any) -> str:
    return next((meta.description for meta in kind.__metadata__ if getattr(meta, "description", None)), "")
