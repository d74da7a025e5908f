"""The Spider class users subclass, its typed arguments, and the Failure its errbacks get."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from scraper.errors import ArgumentError, RequestError, SpiderError, story_of
from scraper.http import Request, Response
from scraper.log import Log
from scraper.settings import Settings
from scraper.stats import Stats
from scraper.urls import normalize

_MISSING: Any = object()
_DOMAIN = re.compile(r"\s*[^\s/@?#*,]+/?\s*")  # a URL, a pattern or several in one text would leave every link alone
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}


class Failure(Struct, frozen=True):
    """What an errback gets: the request, the response if one came, and the error that says why it failed."""

    request: Request
    response: Response | None
    error: Exception


class Engine(Struct, frozen=True):
    """What a spider may ask of the run it is part of."""

    settings: Settings
    stats: Stats
    log: Log
    fetch: Callable[[Request], Awaitable[Response]]


class Spider:
    """A crawl, written as a class: where it starts and what it makes of each page.

    Give ``name`` and either ``start_urls`` or ``async def start(self)``; write ``parse`` and other callbacks, each taking a
    Response and yielding items and Requests. Annotated public class attributes are arguments:
    ``max_pages: int = 50`` is set with ``-a max_pages=3``.
    """

    name: str = ""
    start_urls: Iterable[str] = ()
    allowed_domains: Iterable[str] = ()
    """Domains the crawl stays in, subdomains included; empty: no bound. Start URLs are always in."""
    custom_settings: ClassVar[Mapping[str, Any]] = {}
    """The spider's own settings, in the shape of settings.toml; "section.key" names work too."""
    handle_httpstatus_list: Iterable[int] = ()
    """Statuses outside 2xx that callbacks want to see."""

    _engine: Engine | None = None

    def __init__(self, name: str | None = None, **arguments: Any) -> None:
        if name is not None:
            self.name = name
        for key, value in arguments.items():
            setattr(self, key, value)

    async def start(self) -> AsyncIterator[Any]:
        """Yield the first requests (and items, if you like). Pulled as the crawl has room: it may be endless.

        The default yields a request for each of ``start_urls``, or what a ``start_requests`` method gives.
        """
        legacy = getattr(self, "start_requests", None)
        for request in legacy() if legacy is not None else (Request(url) for url in self.start_urls):
            yield request

    def parse(self, response: Response) -> Any:
        """Handle a response whose request names no callback. Override it."""
        raise SpiderError(f'spider "{self.name}" has no parse() method to take {response.url}')

    async def fetch(self, request: Request | str) -> Response:
        """Fetch a URL or Request inside an async callback: same downloader, middlewares and politeness.

        Raises FetchError as an errback would get it. Not deduped, and not kept over a crash: the callback's own request is.
        """
        return await self._running.fetch(Request(request) if isinstance(request, str) else request)

    async def opened(self) -> None:
        """Called once before the first request."""

    async def closed(self, reason: str) -> None:
        """Called once after the last item; ``reason`` is "finished" unless something ended the run early."""

    @property
    def log(self) -> Log:
        """The run's logger, bound to this spider and, inside a callback, to its request. ``self.log("text")`` works too."""
        return self._running.log

    logger = log

    @property
    def stats(self) -> Stats:
        """The run's counts; ``self.stats.inc("name")`` adds one of your own."""
        return self._running.stats

    @property
    def settings(self) -> Settings:
        """The settings in force, by section: ``self.settings.crawl.concurrency``."""
        return self._running.settings

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise SpiderError(f'spider "{self.name}" is not running: log, stats, settings and fetch() need a run')
        return self._engine

    def attach(self, engine: Engine) -> None:
        """Make this spider part of a run. Called by the framework, once."""
        self._engine = engine


class Argument(Struct, frozen=True):
    """One typed argument of a spider: its name, its type, and its default (``required`` where there is none)."""

    name: str
    kind: Any
    default: Any = None
    required: bool = False

    @property
    def type_name(self) -> str:
        """The type as a person would write it."""
        return _type_name(self.kind)


def arguments_of(cls: type[Spider]) -> dict[str, Argument]:
    """Return the typed arguments of a spider class: annotated public class attributes and ``__init__`` parameters.

    Raises SpiderError where an annotation cannot be resolved.
    """
    found: dict[str, Argument] = {}
    for owner in reversed(cls.__mro__):
        if not issubclass(owner, Spider) or owner is Spider:
            continue
        for name, kind in _hints(owner, cls.name).items():
            if (
                name.startswith("_")
                or name in Spider.__annotations__
                or get_origin(kind) is ClassVar
                or kind is ClassVar
            ):
                continue
            default = getattr(cls, name, _MISSING)
            found[name] = Argument(name, kind, None if default is _MISSING else default, default is _MISSING)
    if cls.__init__ is not Spider.__init__:
        hints = _hints(cls.__init__, cls.name)
        for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name == "name":
                continue
            required = parameter.default is parameter.empty
            found[name] = Argument(name, hints.get(name, str), None if required else parameter.default, required)
    return found


def make_spider(cls: type[Spider], given: Mapping[str, Any]) -> Spider:
    """Convert the given arguments, text or values, to their types and make the spider.

    Raises ArgumentError: one line that names the argument, the value and the type, or the nearest right name.
    """
    known = arguments_of(cls)
    for name in given:
        if name not in known:
            raise ArgumentError(_unknown(cls, name, known))
    missing = [f"-a {name}=…" for name, argument in known.items() if argument.required and name not in given]
    if missing:
        raise ArgumentError(f'spider "{cls.name}" needs {", ".join(missing)}')
    values = {name: convert(known[name], value, cls.name) for name, value in given.items()}
    parameters = inspect.signature(cls.__init__).parameters
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    attributes = {} if takes_all else {name: value for name, value in values.items() if name not in parameters}
    try:
        spider = cls(**{name: value for name, value in values.items() if name not in attributes})
        vars(spider).update(attributes)
    except (Exception, SystemExit) as error:
        raise SpiderError(f'spider "{cls.name}": __init__ raised {story_of(error)}') from error
    for name in ("start", "parse", "fetch", "opened", "closed", "attach"):
        if not callable(getattr(spider, name)):
            raise SpiderError(
                f'spider "{cls.name}": {name} = {getattr(spider, name)!r} hides its method: name it otherwise'
            )
    check_lists(spider)
    return spider


def check_lists(spider: Spider | type[Spider]) -> None:
    """Raise SpiderError where ``allowed_domains`` or ``handle_httpstatus_list`` is none, or holds what does not belong."""
    for name, kind, example in (
        ("allowed_domains", str, 'domains: ["example.com"]'),
        ("handle_httpstatus_list", int, "numbers: [404, 410]"),
    ):
        value = getattr(spider, name)
        # An iterator is not looked into: it would be empty where it is needed. A domain may stand alone.
        values: Collection[Any] = value if isinstance(value, Collection) else ()
        if isinstance(value, str) and kind is str:
            values = (value,)
        is_fit = all(isinstance(each, kind) and (kind is int or _DOMAIN.fullmatch(str(each))) for each in values)
        if not isinstance(value, Iterable) or not is_fit:
            raise SpiderError(f'spider "{spider.name}": {name} = {value!r}: expected a list of {example}')


def check_start(spider: Spider) -> None:
    """Raise SpiderError for a spider that has nowhere to start, or a start URL that is none."""
    if "start" in vars(spider):
        return
    urls = spider.start_urls
    if isinstance(urls, str):
        raise SpiderError(f'spider "{spider.name}": start_urls is a list of URLs, not a string: ["{urls}"]')
    is_default = type(spider).start is Spider.start and not hasattr(spider, "start_requests")
    if is_default and not isinstance(urls, Iterable):
        raise SpiderError(f'spider "{spider.name}": start_urls = {urls!r}: expected a list of URLs')
    if is_default and isinstance(urls, (list, tuple)):
        if not urls:
            raise SpiderError(f'spider "{spider.name}" has nowhere to start: give it start_urls or a start() method')
        for url in urls:
            try:
                normalize(url)
            except RequestError as error:
                raise SpiderError(f'spider "{spider.name}": start URL: {error}') from None


def convert(argument: Argument, value: Any, spider: str) -> Any:
    """Convert one argument's value to its type. Raises ArgumentError."""
    try:
        return msgspec.convert(_prepared(argument.kind, value), argument.kind, strict=False, dec_hook=_path)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        if value in ("none", "None") and type(None) in get_args(argument.kind):  # as --help shows the default
            return None
        problem = str(error).replace("`", "").split(" - at")[0]
        raise ArgumentError(
            f'spider "{spider}": argument {argument.name}={value!r} is not {_article(argument.type_name)}'
            f" ({problem[:1].lower()}{problem[1:]})"
        ) from None


def _prepared(kind: Any, value: Any) -> Any:
    """Bring a command line's text near its type: lists are split at commas, yes and no are booleans."""
    if not isinstance(value, str):
        return value
    kinds = get_args(kind) if get_origin(kind) not in (list, tuple, None) else (kind,)
    if any(get_origin(each) is list or each is list for each in kinds):
        parts = [part.strip() for part in value.split(",") if part.strip()]
        booleans = any(bool in get_args(each) for each in kinds)
        return [_BOOLEANS.get(part.lower(), part) for part in parts] if booleans else parts
    if bool in kinds:
        return _BOOLEANS.get(value.lower(), value)
    return value


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    raise TypeError(f"arguments cannot be of type {kind.__name__}")


def _hints(owner: Any, spider: str) -> dict[str, Any]:
    own = owner.__annotations__ if inspect.isfunction(owner) else inspect.get_annotations(owner)
    try:
        return {name: kind for name, kind in get_type_hints(owner).items() if name in own and name != "return"}
    except NameError as error:
        raise SpiderError(f'spider "{spider}": cannot resolve an annotation: {error}') from None


def _unknown(cls: type[Spider], name: str, known: Mapping[str, Argument]) -> str:
    near = get_close_matches(name, known, n=1)
    if near:
        return f'spider "{cls.name}" has no argument "{name}"; did you mean "{near[0]}"?'
    has = f"it has {', '.join(known)}" if known else "it has none"
    return f'spider "{cls.name}" has no argument "{name}"; {has} (declare one in the class: `{name}: str = ""`)'


def _type_name(kind: Any) -> str:
    if isinstance(kind, type) and get_origin(kind) is None:
        values = getattr(kind, "__members__", None)
        return " | ".join(repr(member.value) for member in values.values()) if values else kind.__name__
    if str(kind).startswith("typing.Literal"):
        return " | ".join(map(repr, get_args(kind)))
    if get_args(kind) and type(None) in get_args(kind):
        return " | ".join("None" if each is type(None) else _type_name(each) for each in get_args(kind))
    if get_origin(kind) is list:
        return f"list[{', '.join(map(_type_name, get_args(kind)))}]"
    return str(kind).replace("typing.", "")


def _article(type_name: str) -> str:
    if "'" in type_name:
        return f"one of {type_name}"
    return f"{'an' if type_name[:1] in 'aeiou' else 'a'} {type_name}"
