"""Running the spider's callbacks, of all four kinds, and checking the requests they yield.

A callback is a plain function, a generator, a coroutine or an async generator. It runs on the event loop: generators
are driven in slices of a few milliseconds, so that one that yields for long does not starve the fetches, and they pause
while there is no room for what they yield.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from inspect import getattr_static, isawaitable
from time import perf_counter
from types import GeneratorType
from typing import Any

from scraper.errors import RequestError, ordinary, shown
from scraper.http import Links, Request, check_numbers, plain
from scraper.items import Page, is_item
from scraper.log import current_request
from scraper.spider import Spider
from scraper.urls import SeenLinks

SLICE_S = 0.010
"""How long a callback may run on before the event loop gets its turn."""

_LIST = "list the statuses in the spider's handle_httpstatus_list"
_OF_SCRAPY = {
    "dont_cache": 'write headers={"Cache-Control": "no-store"}',
    "dont_obey_robotstxt": "write politeness.robots, or a [hosts] table",
    "dont_redirect": _LIST,
    "dont_retry": "write download.retries",
    "download_maxsize": "write download.max_body",
    "download_slot": "limits count by host",
    "download_timeout": "write Request(…, timeout=…)",
    "handle_httpstatus_all": _LIST,
    "handle_httpstatus_list": _LIST,
    "max_retry_times": "write download.retries",
    "proxy": "write Request(…, proxy=…)",
}
"""Keys of a request's ``meta`` that Scrapy obeys and nobody looks at here, and what is to be written in their place."""
_LOOK_EVERY = 64  # links of a page
_LEAST_INT, _MOST_INT = -(2**63), 2**64 - 1


class Callbacks:
    """Runs callbacks to their end.

    ``take(page, value)`` gets each thing yielded, but for the requests of which ``knows(request)`` says that they were seen:
    most links of most pages. ``unseen(urls, n)`` leaves those out of many: see ``contracts.Frontier``. The rest of a page's
    plain links ``take_links(page, requests)`` gets together, and says whether it took all. ``ended(page, error)`` is called
    exactly once for each callback run; while ``has_room()`` is false callbacks pause until ``resume()``.
    """

    def __init__(
        self,
        take: Callable[[Page, Any], None],
        take_links: Callable[[Page, Sequence[Request]], bool],
        knows: Callable[[Request], bool],
        unseen: Callable[[Sequence[str], int], list[str]],
        ended: Callable[[Page, Exception | None], None],
        has_room: Callable[[], bool],
    ) -> None:
        self._take = take
        self._take_links = take_links
        self._knows = knows
        self._seen = SeenLinks(unseen)
        self._ended = ended
        self._has_room = has_room
        self._paused: deque[tuple[Page, Iterator[Any]]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled = False
        self._loop = asyncio.get_running_loop()

    def run(self, page: Page, callback: Callable[..., Any], argument: Any, kwargs: Mapping[str, Any]) -> None:
        """Call ``callback(argument, **kwargs)`` and take all it gives."""
        error: Exception | None = None
        token = current_request.set(page.lease.request if page.lease else None)
        try:
            result = callback(argument, **kwargs)
            if type(result) is GeneratorType:  # as most are
                values: Iterator[Any] = result if callback is iter else _whole(result)
            elif isinstance(result, AsyncIterable) or isawaitable(result):
                task = self._loop.create_task(self._drive_async(page, result))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                return
            else:
                values = _values(result)
            if not self._go_on(page, values):
                return
        except BaseException as raised:
            error = ordinary(raised, "callback")
        finally:
            current_request.reset(token)
        self._ended(page, error)

    def resume(self) -> None:
        """Let paused callbacks go on, oldest first, as far as there is room, for about one slice."""
        until = perf_counter() + SLICE_S
        while self._paused and self._has_room():
            if perf_counter() > until:
                self._loop.call_soon(self.resume)
                return
            self._drive(*self._paused.popleft())
        while self._waiting and self._has_room():
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Give up all callbacks under way; return the tasks that are coming to their end."""
        self._cancelled = True
        self._paused.clear()
        for task in self._tasks:
            task.cancel()
        return list(self._tasks)

    def _drive(self, page: Page, values: Iterator[Any]) -> None:
        if not self._cancelled:
            self.run(page, iter, values, {})

    def _go_on(self, page: Page, values: Iterator[Any]) -> bool:
        """Take what a callback yields, for about one slice; return whether that was all. Raises what the callback does."""
        until = perf_counter() + SLICE_S
        number = 0
        take, knows = self._take, self._knows
        for value in values:
            number += 1
            is_request = isinstance(value, Request)
            try:
                if not (is_request and knows(value)):
                    take(page, value)
                if is_request and (links := _links_under(values)) is not None:
                    requests, remember = links.unseen(self._seen)
                    if remember is not None and self._take_links(page, requests):
                        page.when_settled.append(remember)
                    number = 0
            except RequestError as refused:
                self._throw(refused, page, values)
            # Links take no room until their page passes them on, so it is enough to look now and then.
            if not (is_request and number % _LOOK_EVERY) and not self._has_room():
                self._paused.append((page, values))
                return False
            if perf_counter() > until:
                self._loop.call_soon(self._drive, page, values)
                return False
        return True

    async def _drive_async(self, page: Page, result: Any) -> None:
        error: Exception | None = None
        try:
            until = perf_counter() + SLICE_S
            async for value in iterate(result):
                if not (isinstance(value, Request) and self._knows(value)):
                    self._take(page, value)
                while not self._has_room():
                    await self._room()
                if perf_counter() > until:
                    await asyncio.sleep(0)
                    until = perf_counter() + SLICE_S
        except BaseException as raised:
            if self._cancelled:
                raise
            error = ordinary(raised, "callback")
        if not self._cancelled:
            self._ended(page, error)

    async def _room(self) -> None:
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _throw(self, refused: RequestError, page: Page, values: Iterator[Any]) -> None:
        """Raise for a refused value at the very ``yield``, so that the traceback shows the user's line."""
        throw = getattr(values, "throw", None)
        if throw is None:
            raise refused
        while True:
            try:
                value = throw(refused)
            except StopIteration:  # it caught the error and ended; the loop over it will find so
                return
            try:
                if not (isinstance(value, Request) and self._knows(value)):
                    self._take(page, value)
                return
            except RequestError as error:
                refused = error


def _whole(result: Generator[Any, None, Any]) -> Iterator[Any]:
    """Pass on what a generator yields. What it returns, Python drops: raise TypeError, for somebody waits for that item.

    It takes 0.3 µs a page.
    """
    returned = yield from result
    if returned:
        raise TypeError(f"a callback that yields cannot return as well, yield it: {shown(returned)}")


def _links_under(values: Iterator[Any]) -> Links | None:
    """Return the plain links that a callback gives, or that it passes on by ``yield from`` where it stands now.

    Nothing of the callback's runs between two of them, so they need not be taken one by one.
    """
    inner: Any = values
    while type(inner) is GeneratorType:
        inner = inner.gi_yieldfrom
    return inner if type(inner) is Links and inner.is_plain else None


async def iterate(result: Any) -> AsyncIterator[Any]:
    """Iterate over what a callback of any kind, or a spider's ``start()``, gives."""
    if isinstance(result, AsyncIterable):
        async for value in result:
            yield value
        return
    if isawaitable(result):
        result = await result
    if isinstance(result, AsyncIterable):
        async for value in result:
            yield value
        return
    for value in _values(result):
        yield value


def _values(result: Any) -> Iterator[Any]:
    """Return what a callback gave as an iterator: nothing, one item or request, or several."""
    if result is None:
        return iter(())
    if isinstance(result, Request) or is_item(result):
        return iter((result,))
    if isinstance(result, Iterable) and not isinstance(result, (str, bytes)):
        return iter(result)
    raise TypeError(f"a callback gives items and requests, not {type(result).__name__}")


class Checker:
    """Checks what a spider yields as a Request: callbacks are the spider's own methods, kept by name; data is JSON."""

    def __init__(self, spider: Spider, downloaders: Collection[str] = ("aiohttp",)) -> None:
        self._spider = spider
        self._downloaders = downloaders
        self._names: dict[Any, str] = {}
        self._warned: set[str] = set()

    def check(self, request: Request) -> None:
        """Bring the request into the form that can be stored. Raises RequestError, naming request, key and type."""
        if request.callback is not None:
            request.callback = self._name(request, "callback", request.callback)
        if request.errback is not None:
            request.errback = self._name(request, "errback", request.errback)
        if request.downloader is not None and request.downloader not in self._downloaders:
            known = ", ".join(self._downloaders)
            raise RequestError(f'{request!r}: there is no downloader "{request.downloader}"; there is {known}')
        if request.priority or request.delay or request.timeout is not None:  # set since it was made, perhaps
            check_numbers(request)
        if request.has_data:
            if not _OF_SCRAPY.keys().isdisjoint(request.meta):
                self._warn(request)
            request.meta = _json(request, "meta", request.meta)
            request.cb_kwargs = _json(request, "cb_kwargs", request.cb_kwargs)

    def _warn(self, request: Request) -> None:
        """Say once of each of Scrapy's keys that it does not do here what somebody may rely on."""
        for key in _OF_SCRAPY.keys() & request.meta.keys() - self._warned:
            self._warned.add(key)
            self._spider.log.warning(
                f'Scrapy\'s meta["{key}"] has no effect here; {_OF_SCRAPY[key]}', request=repr(request)
            )

    def _name(self, request: Request, role: str, callback: Any) -> str:
        if isinstance(callback, str):
            if callable(getattr(self._spider, callback, None)):
                return callback
            raise RequestError(f'{request!r}: {role}="{callback}": the spider has no such method')
        function = getattr(callback, "__func__", None)
        own = getattr(callback, "__self__", None) is self._spider
        name = self._names.get(function) if own else None
        if name is None:
            called = getattr(callback, "__name__", type(callback).__name__)
            name = self._find(function, called) if own else None
            if name is None:
                raise RequestError(
                    f"{request!r}: {role} is {_called(called)}, not a method of the spider; "
                    "requests are stored, and only a method can be found again by its name"
                )
            self._names[function] = name
        return name

    def _find(self, function: Any, called: str) -> str | None:
        """Return the name that leads to a function of the spider's: not its own where a decorator made it, or it is private.

        None does to super().parse: by its name the subclass's own parse would be found.
        """
        cls = type(self._spider)
        others = (each for each in dir(cls) if getattr_static(cls, each, None) is function)
        for name in (called, *others):
            if getattr(getattr(self._spider, name, None), "__func__", None) is function:
                return name
        return None


def _called(name: str) -> str:
    return "a lambda" if name == "<lambda>" else f"{name!r}"


def _json(request: Request, path: str, value: Any) -> Any:
    """Return a copy in which tuples are lists and a parser's kind of text is str, as they would come back from storage.

    Refuses what JSON cannot hold.
    """
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if _LEAST_INT <= value <= _MOST_INT:
            return plain(value)
        raise RequestError(f"{request!r}: {path} is an integer of more than 64 bits, which cannot be stored")
    if isinstance(value, float):
        if math.isfinite(value):
            return plain(value)
        raise RequestError(f"{request!r}: {path} is {value}, which JSON cannot hold")
    if isinstance(value, (list, tuple)):
        return [_json(request, f"{path}[{number}]", inner) for number, inner in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise RequestError(
                    f"{request!r}: {path} has the key {key!r} of type {type(key).__name__}; JSON keys are str"
                )
        return {_text(key): _json(request, f"{path}[{key!r}]", inner) for key, inner in value.items()}
    raise RequestError(f"{request!r}: {path} is of type {type(value).__name__}, which JSON cannot hold")


def _text(value: str) -> str:
    """Return text that can be stored: lone surrogates, which come out of JSON pages, become U+FFFD."""
    if value.isascii():
        return str(plain(value))
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
