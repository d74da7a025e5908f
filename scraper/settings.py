"""Settings: every section and key with its type, default and meaning; where values come from; how they are checked.

Defaults < settings.toml < environment < the spider's ``custom_settings`` < ``-s``. Each source is a Layer; ``merge``
lays them over each other and returns one frozen Settings. A part gets its own section's values through its
constructor; nothing reads a setting by a string key.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

from scraper import __version__
from scraper.errors import InvalidURL, SettingsError
from scraper.urls import normalize

FILE = "settings.toml"
ENV_PREFIX = "SCRAPE_"

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
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
    order: Annotated[Literal["breadth", "depth"], Meta(description="within a host, oldest or newest link first")] = (
        "breadth"
    )


class Politeness(Struct, frozen=True):
    """How every host is treated."""

    robots: Annotated[bool, Meta(description="obey robots.txt (RFC 9309), its Crawl-delay too")] = True
    concurrency_per_host: Annotated[Positive, Meta(description="requests in flight to one host")] = 8
    delay: Annotated[Seconds, Meta(description="seconds between two requests to one host")] = 0.0
    adaptive: Annotated[
        bool, Meta(description="ask less of a host that answers 429 or 503 or slows down; wait out its Retry-After")
    ] = True
    user_agent: Annotated[
        str,
        Meta(
            pattern=r"^[^\x00-\x1f\x7f]+$", description="what the crawler calls itself, also when it reads robots.txt"
        ),
    ] = f"scraper/{__version__}"


class Download(Struct, frozen=True):
    """A single request."""

    timeout: Annotated[Seconds, Meta(description="seconds for one whole answer; 0: no limit")] = 60.0
    max_body: Annotated[Size, Meta(description="largest body, on the wire and decompressed")] = Size(32 * 2**20)
    retries: Annotated[Count, Meta(description="further tries after a failure that may pass")] = 2
    max_redirects: Annotated[Count, Meta(description="redirects followed for one request")] = 20
    verify_tls: Annotated[bool, Meta(description="refuse bad certificates")] = True
    private_addresses: Annotated[
        Literal["seeds", "always", "never"],
        Meta(description="private and loopback hosts: only those a start URL names, all, or none"),
    ] = "seeds"
    proxy: Annotated[str, Meta(description='a proxy\'s URL, such as "http://user:pass@host:3128"; empty: none')] = ""


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


class Items(Struct, frozen=True):
    """The way from callbacks to outputs. Past these bounds no new page is fetched until there is room again."""

    concurrency: Annotated[Positive, Meta(description="items in the pipelines at a time")] = 100
    max_buffer: Annotated[Size, Meta(description="bytes of responses and items that wait in memory")] = Size(64 * 2**20)


class Log(Struct, frozen=True):
    """What is said on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="the least level shown")] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], Meta(description="auto: live progress on a terminal, lines elsewhere")
    ] = "auto"


@dataclass(frozen=True, slots=True)
class PipelineSettings:
    """One ``[[pipelines]]`` table: the class as ``module:Class`` and its constructor's arguments."""

    use: str
    arguments: Mapping[str, Any]


class Settings(Struct, frozen=True):
    """All sections, checked. ``root`` is the folder of settings.toml, or None where there is none."""

    crawl: Crawl = Crawl()
    politeness: Politeness = Politeness()
    download: Download = Download()
    frontier: Frontier = Frontier()
    items: Items = Items()
    log: Log = Log()
    pipelines: tuple[PipelineSettings, ...] = ()
    root: Path | None = None
    origins: Mapping[str, str] = {}
    """Where each value comes from that is not the default: "section.key" to a source's name."""


SECTIONS: dict[str, type[Struct]] = {
    "crawl": Crawl,
    "politeness": Politeness,
    "download": Download,
    "frontier": Frontier,
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
    "DEPTH_LIMIT": "crawl.max_depth",
    "DOWNLOAD_DELAY": "politeness.delay",
    "DOWNLOAD_MAXSIZE": "download.max_body",
    "DOWNLOAD_TIMEOUT": "download.timeout",
    "LOG_LEVEL": "log.level",
    "REDIRECT_MAX_TIMES": "download.max_redirects",
    "RETRY_TIMES": "download.retries",
    "ROBOTSTXT_OBEY": "politeness.robots",
    "USER_AGENT": "politeness.user_agent",
}
"""Scrapy's names that mean the same here: understood in ``custom_settings`` and ``-s``."""


@dataclass(frozen=True, slots=True)
class Layer:
    """The values of one source: ``origin`` for messages, "section.key" to raw value; ``text`` where values are strings."""

    origin: str
    values: Mapping[str, Any]
    pipelines: tuple[PipelineSettings, ...] | None = None
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
    pipelines: tuple[PipelineSettings, ...] | None = None
    for name, value in values.items():
        if not isinstance(name, str):
            raise SettingsError(f"{origin}: a setting's name is a string, not {name!r}")
        if name == "pipelines":
            pipelines = _pipelines(value, origin)
        elif isinstance(value, Mapping):
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


def merge(layers: Sequence[Layer], root: Path | None = None) -> Settings:
    """Lay the sources over each other, the last one on top, and check every value.

    Raises SettingsError: one line with the source, the key, and the nearest right name or the expected type.
    """
    chosen: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins: dict[str, str] = {}
    pipelines: tuple[PipelineSettings, ...] = ()
    for layer in layers:
        for name, value in layer.values.items():
            section, key, kind = _known(name, layer.origin)
            chosen[section][key] = _converted(name, value, kind, layer)
            origins[name] = layer.origin
        if layer.pipelines is not None:
            pipelines = layer.pipelines
            origins["pipelines"] = layer.origin
    sections: dict[str, Any] = {section: SECTIONS[section](**values) for section, values in chosen.items()}
    proxy = sections["download"].proxy
    if proxy:
        try:
            normalize(proxy)
        except InvalidURL as error:
            raise SettingsError(f"{origins['download.proxy']}: download.proxy: {error}") from None
    return Settings(**sections, pipelines=pipelines, root=root, origins=origins)


def describe(section: str) -> list[tuple[str, str]]:
    """Return (key, meaning) of a section's keys, in order."""
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    return [(field.name, _description(hints[field.name])) for field in msgspec.structs.fields(SECTIONS[section])]


def _known(name: str, origin: str) -> tuple[str, str, Any]:
    section, dot, key = name.partition(".")
    if section == "pipelines":
        raise SettingsError(f"{origin}: pipelines: write each one as a [[pipelines]] table in {FILE}")
    if section not in SECTIONS:
        raise SettingsError(f"{origin}: unknown section [{section}]" + _nearest(section, [*SECTIONS, "pipelines"]))
    if not dot:
        raise SettingsError(f"{origin}: {section} is a section; write it as [{section}] with keys below it")
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    if key not in hints:
        raise SettingsError(f"{origin}: unknown setting {name}" + _nearest(key, hints, f"{section}."))
    return section, key, hints[key]


def _converted(name: str, value: Any, kind: Any, layer: Layer) -> Any:
    base, *_ = get_args(kind)
    if base is bool and layer.text:
        value = _BOOLEANS.get(value.strip().lower(), value)
    if get_origin(base) is Literal and value not in get_args(base):
        choices = ", ".join(map(repr, get_args(base)))
        raise SettingsError(f"{layer.origin}: {name} = {value!r}: expected one of {choices}")
    try:
        return msgspec.convert(value, kind, strict=not layer.text, dec_hook=_size)
    except (msgspec.ValidationError, ValueError) as error:
        problem = str(error).replace("`", "").split(" - at")[0]
        for meta in get_args(kind)[1:]:
            problem = f"expected {meta.extra['expected']}" if meta.extra else problem
        raise SettingsError(f"{layer.origin}: {name} = {value!r}: {problem[:1].lower()}{problem[1:]}") from None


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


def _pipelines(tables: Any, origin: str) -> tuple[PipelineSettings, ...]:
    if not isinstance(tables, Sequence) or not all(isinstance(table, Mapping) for table in tables):
        raise SettingsError(f"{origin}: pipelines: write each one as a [[pipelines]] table")
    result = []
    for table in tables:
        use = table.get("use")
        if not isinstance(use, str) or not re.fullmatch(r"[\w.]+:\w+", use):
            raise SettingsError(f'{origin}: [[pipelines]] needs use = "package.module:Class", not {use!r}')
        result.append(PipelineSettings(use, {key: value for key, value in table.items() if key != "use"}))
    return tuple(result)


def _take_scrapy(flat: dict[str, Any], name: str, value: Any, origin: str) -> None:
    try:
        key = SCRAPY_NAMES[name]
    except KeyError:
        raise SettingsError(
            f"{origin}: the Scrapy setting {name} has no counterpart here; `scrape settings` lists what there is"
        ) from None
    flat[key] = value.lower() if key == "log.level" and isinstance(value, str) else value


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{near[0]}?" if near else "; `scrape settings` lists them all"


def _description(kind: Any) -> str:
    return next((meta.description for meta in kind.__metadata__ if getattr(meta, "description", None)), "")
