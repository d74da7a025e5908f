"""Where settings come from, and how they are checked.

Defaults < settings.toml < environment < the spider's ``custom_settings`` < ``-s``. Each source is a Layer; ``merge``
lays them over each other and returns one frozen ``Settings``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from scraper.errors import InvalidURL, SettingsError
from scraper.settings import SECTIONS, Auth, Host, PartSettings, Settings, Size
from scraper.urls import check_proxy, host_of, normalize, origin_of

FILE = "settings.toml"
ENV_PREFIX = "SCRAPE_"
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_HOST_SETTING = re.compile(
    r"""hosts\.(?:(?P<quote>["'])(?P<quoted>.+)(?P=quote)|(?P<host>.+?))\.(?:headers\.(?P<header>[^.]+)|(?P<key>[^."']+))"""
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_LOGIN_URLS = frozenset({"use", "proxy", "urls"})
_BREAK = re.compile(r"[\r\n\x00]")
_UNITS = {"": 1, "b": 1, "kb": 10**3, "kib": 2**10, "mb": 10**6, "mib": 2**20, "gb": 10**9, "gib": 2**30}

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
_OTHERWISE = {
    "DNS_RESOLVER": "write download.resolver, which names a function",
    "DOWNLOADER_MIDDLEWARES": "name them in middlewares.order",
    "FEEDS": "write scrape run -o FILE",
    "ITEM_PIPELINES": f"write each one as a [[pipelines]] table in {FILE}",
    "JOBDIR": "write scrape run --job DIR",
    "LOG_FILE": "send standard error there: 2> FILE",
    "RETRY_ENABLED": "write download.retries = 0",
}


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
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin with a byte order mark
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
        elif isinstance(value, Mapping) and (not name.isupper() or name == "DEFAULT_REQUEST_HEADERS"):
            name = "headers" if name == "DEFAULT_REQUEST_HEADERS" else name
            flat.update({f"{name}.{key}": inner for key, inner in value.items()})
        elif name.isupper():
            _take_scrapy(flat, name, value, origin)
        else:
            flat[name] = value
    return Layer(origin, flat, pipelines)


def environment_layer(environ: Mapping[str, str] = os.environ) -> Layer:
    """Take ``SCRAPE_SECTION__KEY=value`` variables. Raises SettingsError for a setting's name with one underscore too few."""
    for name in environ:
        section, _, key = name.removeprefix(ENV_PREFIX).partition("_")
        known = getattr(SECTIONS.get(section.lower()), "__struct_fields__", ())
        if name.startswith(ENV_PREFIX) and key.lower() in known:
            raise SettingsError(f"the environment: {name}: write {ENV_PREFIX}{section}__{key}, with two underscores")
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
    proxies = [("download.proxy", sections["download"].proxy)]
    proxies += [(f"hosts.{host}.proxy", table.get("proxy")) for host, table in hosts.items()]
    proxies = [(name, url) for name, url in proxies if url] + [
        ("proxies.urls", url) for url in sections["proxies"].urls
    ]
    for name, url in proxies:
        try:
            check_proxy(url)
        except InvalidURL as error:
            raise SettingsError(f"{origins[name]}: {name}: {error}") from None
    order = sections["middlewares"].order
    for name in order:
        if order.count(name) > 1:
            raise SettingsError(f'{origins["middlewares.order"]}: middlewares.order has "{name}" twice')
    for name, table, place, needed in (
        ("cache", "cache", 'after "cookies"', sections["cache"].mode != "off"),
        ("hosts", "hosts", 'after "redirect"', bool(hosts)),
        ("headers", "headers", 'after "redirect"', bool(headers)),
        ("auth", "auth", 'after "redirect"', bool(auth)),
        ("proxy", "proxies", 'before "decompress"', bool(sections["proxies"].urls and not sections["download"].proxy)),
    ):
        if needed and name not in order:
            raise SettingsError(
                f'{origins["middlewares.order"]}: middlewares.order lacks "{name}", which the settings of [{table}] need: '
                f"list it {place}"
            )
    for part in arguments:
        place = f'{origins["middlewares." + part]}: [middlewares."{part}"]'
        if part not in order:
            raise SettingsError(f"{place} is not in middlewares.order")
        if ":" not in part:
            raise SettingsError(
                f"{place} is built in: other sections have its settings; `scrape settings` lists them all"
            )
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
        near = _nearest(section, [*SECTIONS, *tables], key=key or section)
        raise SettingsError(f"{origin}: unknown section [{section}]{near}")
    if not dot:
        raise SettingsError(f"{origin}: {section} is a section; write it as [{section}] with keys below it")
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    if key not in hints:
        raise SettingsError(f"{origin}: unknown setting {name}" + _nearest(key, hints, f"{section}.", key=key))
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
        if name in _OTHERWISE:
            raise SettingsError(f"{origin}: {name} is Scrapy's; here, {_OTHERWISE[name]}") from None
        # Scrapy's own names are like each other: COOKIES_DEBUG is no slip.
        near = get_close_matches(name, [*SCRAPY_NAMES, *_OTHERWISE], n=1, cutoff=0.9)
        if near:
            raise SettingsError(f"{origin}: unknown setting {name}; did you mean {near[0]}?") from None
        raise SettingsError(
            f"{origin}: the Scrapy setting {name} has no counterpart here; `scrape settings` lists what there is"
        ) from None
    if key == "cache.mode":  # a switch; Scrapy's default policy keeps everything
        value = {True: "everything", False: "off"}.get(_BOOLEANS.get(str(value).strip().lower(), value), value)
    flat[key] = value.lower() if key == "log.level" and isinstance(value, str) else value


def _nearest(name: str, known: Iterable[str], prefix: str = "", *, key: str = "") -> str:
    """Return a hint at the nearest of the names; where there is none, at the setting of another section with this ``key``."""
    near = [f"{prefix}{each}" for each in get_close_matches(name, list(known), n=1, cutoff=0.5)]
    near += [f"{section}.{key}" for section, cls in SECTIONS.items() if key in cls.__struct_fields__]
    return f"; did you mean {near[0]}?" if near else "; `scrape settings` lists them all"
