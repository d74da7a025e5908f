"""Settings: every section and key with its type, default and meaning; where values come from; how they are checked.

Defaults < settings.toml < environment < the spider's ``custom_settings`` < ``-s``. Each source is a Layer; ``merge``
lays them over each other and returns one frozen Settings. A part gets its own section's values through its
constructor; nothing reads a setting by a string key.
"""

from __future__ import annotations

import os
import re
import tomllib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from scraper import __version__
from scraper.errors import InvalidURL, SettingsError
from scraper.urls import host_of, normalize, origin_of

FILE = "settings.toml"
ENV_PREFIX = "SCRAPE_"

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Fraction = Annotated[float, Meta(ge=0, le=100)]
AgentName = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+$")]
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_HOST_SETTING = re.compile(
    r"""hosts\.(?:(?P<quote>["'])(?P<quoted>.+)(?P=quote)|(?P<host>.+?))\.(?:headers\.(?P<header>[^.]+)|(?P<key>[^."']+))"""
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_LOGIN_URLS = frozenset({"use", "proxy", "urls"})
_BREAK = re.compile(r"[\r\n\x00]")
_UNITS = {"": 1, "b": 1, "kb": 10**3, "kib": 2**10, "mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30}


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
            pattern=r"^(memory|sqlite|rediss?(\+cluster)?://[^/\s]\S*)$",
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

SCRAPY_NAMES = {
    "AUTOTHROTTLE_ENABLED": "politeness.adaptive",
    "CLOSESPIDER_ERRORCOUNT": "crawl.max_errors",
    "CLOSESPIDER_ITEMCOUNT": "crawl.max_items",
    "CLOSESPIDER_PAGECOUNT": "crawl.max_pages",
    "CLOSESPIDER_TIMEOUT": "crawl.max_seconds",
    "CONCURRENT_ITEMS": "items.concurrency",
    "CONCURRENT_REQUESTS": "crawl.concurrency",
    "CONCURRENT_REQUESTS_PER_DOMAIN": "politeness.concurrency_per_host",
    "COOKIES_ENABLED": "download.cookies",
    "DEPTH_LIMIT": "crawl.max_depth",
    "DOWNLOAD_DELAY": "politeness.delay",
    "DOWNLOAD_MAXSIZE": "download.max_body",
    "DOWNLOAD_TIMEOUT": "download.timeout",
    "HTTPCACHE_DIR": "cache.dir",
    "HTTPCACHE_ENABLED": "cache.mode",
    "HTTPCACHE_EXPIRATION_SECS": "cache.max_age",
    "LOG_LEVEL": "log.level",
    "METAREFRESH_ENABLED": "download.meta_refresh",
    "REDIRECT_MAX_TIMES": "download.max_redirects",
    "RETRY_TIMES": "download.retries",
    "ROBOTSTXT_OBEY": "politeness.robots",
    "ROBOTSTXT_USER_AGENT": "politeness.robots_agent",
    "USER_AGENT": "politeness.user_agent",
}
"""Scrapy's names that mean the same here: understood in ``custom_settings`` and ``-s``."""


class Layer(Struct, frozen=True):
    """The values of one source: ``origin`` for messages, "section.key" to raw value; ``text`` where values are strings."""

    origin: str
    values: Mapping[str, Any]
    pipelines: tuple[PartSettings, ...] | None = None
    text: bool = False


def find_file(start: Path) -> Path | None:
    """Return the settings.toml of ``start`` or its nearest parent that has one."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / FILE).is_file():
            return folder / FILE
    return None


def file_layer(path: Path) -> Layer:
    """Read settings.toml. Raises SettingsError with the file and, for bad TOML, the line."""
    try:
        with path.open("rb") as file:
            tables = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    return mapping_layer(tables, str(path))


def mapping_layer(values: Mapping[str, Any], origin: str) -> Layer:
    """Take nested tables, "section.key" names or Scrapy's upper-case names, mixed as one likes."""
    if not isinstance(values, Mapping):
        raise SettingsError(f"{origin}: expected a table of settings, got {type(values).__name__}")
    flat: dict[str, Any] = {}
    pipelines: tuple[PartSettings, ...] | None = None
    for name, value in values.items():
        if not isinstance(name, str):
            raise SettingsError(f"{origin}: a setting's name is a string, not {name!r}")
        if name == "pipelines":
            pipelines = _pipelines(value, origin)
        elif name == "hosts":
            flat.update(_flat_hosts(value, origin))
        elif name.startswith("hosts.") and isinstance(value, Mapping):
            flat.update(_flat_hosts({name.removeprefix("hosts.").strip("\"'"): value}, origin))
        elif isinstance(value, Mapping):
            name = "headers" if name == "DEFAULT_REQUEST_HEADERS" else name
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        elif name.isupper():
            _take_scrapy(flat, name, value, origin)
        else:
            flat[name] = value
    return Layer(origin, flat, pipelines)


def environment_layer(environ: Mapping[str, str] = os.environ) -> Layer:
    """Take ``SCRAPE_SECTION__KEY=value`` variables."""
    flat = {
        name.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1): value
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX) and "__" in name
    }
    return Layer("the environment", flat, text=True)


def option_layer(options: Iterable[str]) -> Layer:
    """Take ``SECTION.KEY=VALUE`` strings, as given with ``-s``."""
    flat: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise SettingsError(f"-s {option}: write SECTION.KEY=VALUE, such as -s crawl.concurrency=16")
        if name.isupper():
            _take_scrapy(flat, name, value, "-s")
        else:
            flat[name.strip()] = value
    return Layer("-s", flat, text=True)


def without_passwords(name: str, value: Any) -> Any:
    """Return a setting's value as it may be shown: URLs that log in somewhere without their credentials."""
    if isinstance(value, (list, tuple)):
        return tuple(without_passwords(name, each) for each in value)
    if not isinstance(value, str) or name.rpartition(".")[2] not in _LOGIN_URLS:
        return value
    value = re.sub(r"(?<=password=).*", "***", value, flags=re.DOTALL)
    return re.sub(r"^([\w+.-]*:/*)?.*@", r"\1***@", value, flags=re.DOTALL)


def merge(layers: Sequence[Layer], root: Path | None = None) -> Settings:
    """Lay the sources over each other, the last one on top, and check every value.

    Raises SettingsError: one line with the source, the key, and the nearest right name or the expected type.
    """
    chosen: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    hosts: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    pipelines: tuple[PartSettings, ...] = ()
    arguments: dict[str, Mapping[str, Any]] = {}
    headers: dict[str, str] = {}
    auth: dict[str, Auth] = {}
    for layer in layers:
        for name, value in layer.values.items():
            if name.startswith("middlewares.") and isinstance(value, Mapping):
                arguments[name.removeprefix("middlewares.")] = value
                origins[name] = layer.origin
                continue
            if name.startswith("hosts."):
                origins[_take_host(hosts, name, value, layer)] = layer.origin
                continue
            if name.startswith("headers."):
                headers[_header(name.removeprefix("headers."), value, layer.origin)] = value
                origins[name.lower()] = layer.origin
                continue
            if name.startswith("auth."):
                origin = _auth(auth, name.removeprefix("auth."), value, layer)
                origins[f"auth.{origin}"] = layer.origin
                continue
            section, key, kind = _known(name, layer.origin)
            chosen[section][key] = _converted(name, value, kind, layer)
            origins[name] = layer.origin
        if layer.pipelines is not None:
            pipelines = layer.pipelines
            origins["pipelines"] = layer.origin
    sections: dict[str, Any] = {section: SECTIONS[section](**values) for section, values in chosen.items()}
    proxies = {"download.proxy": sections["download"].proxy}
    proxies |= {f"hosts.{host}.proxy": table.get("proxy") for host, table in hosts.items()}
    for name, proxy in proxies.items():
        try:
            # socks5 is none of WHATWG's special schemes, under whose rules a host is checked.
            normalize(re.sub("^socks5h?://", "http://", proxy or "http://none"))
        except InvalidURL as error:
            raise SettingsError(f"{origins[name]}: {name}: {error}") from None
    for url in sections["proxies"].urls:
        _check_proxy(url, origins["proxies.urls"])
    order = sections["middlewares"].order
    for name, place, needed in (
        ("cache", 'after "cookies"', sections["cache"].mode != "off"),
        ("hosts", 'after "redirect"', bool(hosts)),
    ):
        if needed and name not in order:
            raise SettingsError(
                f'{origins["middlewares.order"]}: middlewares.order lacks "{name}", which the settings of [{name}] need: '
                f"list it {place}"
            )
    for part in arguments:
        if part not in order:
            raise SettingsError(f'{origins["middlewares." + part]}: [middlewares."{part}"] is not in middlewares.order')
    return Settings(
        **sections,
        hosts={host: Host(**table) for host, table in hosts.items()},
        headers=headers,
        auth=auth,
        pipelines=pipelines,
        arguments=arguments,
        root=root,
        origins=origins,
    )


def describe(section: str) -> list[tuple[str, str]]:
    """Return (key, meaning) of a section's keys, in order."""
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    return [(field.name, _description(hints[field.name])) for field in msgspec.structs.fields(SECTIONS[section])]


def _known(name: str, origin: str) -> tuple[str, str, Any]:
    section, dot, key = name.partition(".")
    if section == "pipelines":
        raise SettingsError(f"{origin}: pipelines: write each one as a [[pipelines]] table in {FILE}")
    if section == "hosts":
        raise SettingsError(f'{origin}: hosts: write a table for each host, such as [hosts."example.com"]')
    if section == "headers":
        raise SettingsError(f'{origin}: headers: write [headers] with lines such as Accept-Language = "de"')
    if section == "auth":
        raise SettingsError(f'{origin}: auth: write a table for each origin, such as [auth."https://example.com"]')
    if section not in SECTIONS:
        tables = ("hosts", "headers", "auth", "pipelines")
        raise SettingsError(f"{origin}: unknown section [{section}]" + _nearest(section, [*SECTIONS, *tables]))
    if not dot:
        raise SettingsError(f"{origin}: {section} is a section; write it as [{section}] with keys below it")
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    if key not in hints:
        raise SettingsError(f"{origin}: unknown setting {name}" + _nearest(key, hints, f"{section}."))
    return section, key, hints[key]


def _flat_hosts(tables: Any, origin: str) -> dict[str, Any]:
    """Return [hosts] tables as "hosts.NAME.KEY" and "hosts.NAME.headers.HEADER" to value."""
    flat: dict[str, Any] = {}
    for host, table in tables.items() if isinstance(tables, Mapping) else ():
        if not isinstance(table, Mapping):
            if isinstance(host, str) and "." in host:  # "NAME.KEY": value
                flat[f"hosts.{host}"] = table
                continue
            raise SettingsError(f'{origin}: hosts.{host}: write a table for each host, such as [hosts."example.com"]')
        for key, value in table.items():
            if not isinstance(value, Mapping):
                flat[f"hosts.{host}.{key}"] = value
            elif key == "headers":
                flat.update({f"hosts.{host}.headers.{header}": text for header, text in value.items()})
            else:
                raise SettingsError(f'{origin}: [hosts.{host}.{key}]: quote the name: [hosts."{host}.{key}"]')
    return flat


def _take_host(hosts: dict[str, dict[str, Any]], name: str, value: Any, layer: Layer) -> str:
    """Check one value of a [hosts] table and put it in; return its name with the host in its normal form."""
    found = _HOST_SETTING.fullmatch(name)
    if found is None:
        raise SettingsError(f'{layer.origin}: {name}: write hosts."example.com".KEY')
    pattern = _host_pattern(found["quoted"] or found["host"], layer.origin)
    key, header = found["key"] or "headers", found["header"]
    hints = get_type_hints(Host, include_extras=True)
    if key not in hints:
        raise SettingsError(f"{layer.origin}: unknown setting {name}" + _nearest(key, hints, f'hosts."{pattern}".'))
    table = hosts.setdefault(pattern, {})
    if header is None:
        if key == "headers":
            raise SettingsError(f"{layer.origin}: {name}: write a table of headers, or {name}.NAME")
        table[key] = _converted(name, value, hints[key], layer)
        return f"hosts.{pattern}.{key}"
    if not isinstance(value, str) or not _TOKEN.fullmatch(header) or _BREAK.search(value):
        raise SettingsError(
            f"{layer.origin}: {name} = {value!r}: expected a header's name and its value, text on one line"
        )
    table.setdefault("headers", {})[header] = value
    return f"hosts.{pattern}.headers.{header}"


def _host_pattern(text: str, origin: str) -> str:
    """Return the host's name as it stands in URLs, its port where given, "*." before it for its subdomains."""
    wild = "*." if text.startswith("*.") else ""
    name = text.removeprefix("*.").lower()
    if not name or not re.fullmatch(r"[^\s/@?#*\\]+", name) or name.startswith("."):
        raise SettingsError(
            f'{origin}: hosts."{text}": write a host\'s name, such as "example.com", "127.0.0.1:8000" or "*.example.com"'
        )
    if name.endswith((":80", ":443")):
        raise SettingsError(f'{origin}: hosts."{text}": leave out a default port; a name alone means any port')
    try:
        return wild + host_of(normalize(f"http://{name}/"))
    except InvalidURL as error:
        raise SettingsError(f'{origin}: hosts."{text}": {error}') from None


def _header(name: str, value: Any, origin: str) -> str:
    """Return a header's name in lower case, its value checked."""
    place = f"{origin}: headers.{name}"
    if name.lower() == "user-agent":
        raise SettingsError(f"{place}: write politeness.user_agent, which robots.txt is read by too")
    if name.lower() in ("authorization", "cookie", "proxy-authorization"):
        raise SettingsError(f'{place}: it would go to every host; write [auth."https://example.com"] for one')
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise SettingsError(f"{place}: not a header's name")
    if not isinstance(value, str) or not re.fullmatch(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*", value):
        raise SettingsError(f"{place} = {value!r}: a value is text without control characters")
    return name.lower()


def _auth(tables: dict[str, Auth], name: str, value: Any, layer: Layer) -> str:
    """Check an [auth] table and put it in under its origin; return that."""
    place = f'{layer.origin}: [auth."{name}"]'
    try:
        url = normalize(name)
        origin = origin_of(url)
    except InvalidURL:
        origin = url = ""
    if not origin or url != f"{origin}/" or not isinstance(value, Mapping):
        raise SettingsError(
            f'{layer.origin}: auth: write a table for each origin, such as [auth."https://example.com"]'
        )
    for key in value:
        if key not in Auth.__struct_fields__:
            raise SettingsError(f"{place}: unknown setting {key}" + _nearest(key, Auth.__struct_fields__))
        if not isinstance(value[key], str):
            raise SettingsError(f"{place} {key}: expected str, got {type(value[key]).__name__}")
    tables[origin] = Auth(**value)
    return origin


def _check_proxy(url: str, origin: str) -> None:
    """Raise SettingsError where ``url`` is no proxy's; what it says of the URL leaves out the credentials."""
    scheme, _, rest = url.partition("://")
    try:
        if scheme not in ("http", "https", "socks5", "socks5h"):
            raise InvalidURL(url)
        normalize(f"http://{rest}")
    except InvalidURL:
        shown = f"{scheme}://{rest.rpartition('@')[2]}" if rest else url.rpartition("@")[2]
        raise SettingsError(
            f'{origin}: proxies.urls: not the URL of a proxy: "{shown}"; write "http://user:password@host:3128", '
            "or https, socks5 or socks5h"
        ) from None


def _secret(value: str, place: str, environ: Mapping[str, str]) -> str:
    """Return a value of the settings, or the variable that it names: "$NAME"; "$$" stands for a dollar sign in front."""
    if value.startswith("$$") or not value.startswith("$"):
        return value.removeprefix("$")
    if not environ.get(value[1:]):
        raise SettingsError(f"{place}: the environment has no variable {value[1:]}")
    return environ[value[1:]]


def _converted(name: str, value: Any, kind: Any, layer: Layer) -> Any:
    base, *_ = get_args(kind)
    optional = [each for each in get_args(base) if each is not type(None)]
    if len(optional) == 1 and len(get_args(base)) == 2:
        kind = optional[0] if get_origin(optional[0]) is Annotated else Annotated[optional[0], ""]
        base, *_ = get_args(kind)
    if base is bool and layer.text:
        value = _BOOLEANS.get(value.strip().lower(), value)
    if get_origin(base) is tuple and layer.text:
        value = [part.strip() for part in value.split(",") if part.strip()]
    if get_origin(base) is Literal and value not in get_args(base):
        choices = ", ".join(map(repr, get_args(base)))
        raise SettingsError(f"{layer.origin}: {name} = {value!r}: expected one of {choices}")
    try:
        return msgspec.convert(value, kind, strict=not layer.text, dec_hook=_size)
    except (msgspec.ValidationError, ValueError) as error:
        problem = str(error).replace("`", "").split(" - at")[0]
        for meta in get_args(kind)[1:]:
            extra = getattr(meta, "extra", None)
            problem = f"expected {extra['expected']}" if extra else problem
        shown = without_passwords(name, value)
        raise SettingsError(f"{layer.origin}: {name} = {shown!r}: {problem[:1].lower()}{problem[1:]}") from None


def _size(kind: type, value: Any) -> Any:
    if kind is not Size or isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(f'expected a size such as 1048576 or "32 MiB", got {type(value).__name__}')
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value).lower())
    if found is None or found[2] not in _UNITS:
        raise ValueError('expected a size such as 1048576 or "32 MiB"')
    size = float(found[1]) * _UNITS[found[2]]
    if not 1 <= size <= 2**63:
        raise ValueError('expected a size such as 1048576 or "32 MiB"')
    return Size(size)


def _pipelines(tables: Any, origin: str) -> tuple[PartSettings, ...]:
    if not isinstance(tables, Sequence) or not all(isinstance(table, Mapping) for table in tables):
        raise SettingsError(f"{origin}: pipelines: write each one as a [[pipelines]] table")
    result = []
    for table in tables:
        use = table.get("use")
        if not isinstance(use, str) or not re.fullmatch(r"[\w.]+:\w+", use):
            raise SettingsError(f'{origin}: [[pipelines]] needs use = "package.module:Class", not {use!r}')
        result.append(PartSettings(use, {key: value for key, value in table.items() if key != "use"}))
    return tuple(result)


def _take_scrapy(flat: dict[str, Any], name: str, value: Any, origin: str) -> None:
    try:
        key = SCRAPY_NAMES[name]
    except KeyError:
        raise SettingsError(
            f"{origin}: the Scrapy setting {name} has no counterpart here; `scrape settings` lists what there is"
        ) from None
    if key == "cache.mode":  # a switch; Scrapy's default policy keeps everything
        value = {True: "everything", False: "off"}.get(_BOOLEANS.get(str(value).strip().lower(), value), value)
    flat[key] = value.lower() if key == "log.level" and isinstance(value, str) else value


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else "; `scrape settings` lists them all"


def _description(kind: Any) -> str:
    return next((meta.description for meta in kind.__metadata__ if getattr(meta, "description", None)), "")
