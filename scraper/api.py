"""Crawling from Python: ``crawl`` gives items as they come, ``run`` all of them at the end."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import NoneType
from typing import Any

from scraper.crawler import Crawler, Output, Result, load_settings, run_in_loop
from scraper.errors import UsageError
from scraper.exporters.files import place_of
from scraper.items import Listener
from scraper.layers import mapping_layer
from scraper.log import Log
from scraper.spider import Spider, make_spider


async def crawl(
    spider: type[Spider], *, args: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[Any]:
    """Crawl and yield each item as it leaves the pipelines. Leaving the loop early ends the crawl.

    ``args`` are the spider's arguments; ``settings`` lie over the spider's own, nested or as "section.key". Works in any
    running event loop, several at once. Its frontier is in memory: nothing is left to resume. Raises UsageError for what
    cannot start.
    """
    _check(spider, args)
    stream = _Stream()
    crawler = _make(spider, args, settings, stream)
    task = asyncio.create_task(crawler.run())
    task.add_done_callback(lambda _: stream.end())
    stream.wake = crawler.wake
    try:
        async for item in stream:
            yield item
        await task
    finally:
        if not task.done():
            crawler.kill()
            await task


def run(
    spider: type[Spider],
    *,
    args: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    outputs: Sequence[Output] = (),
) -> Result:
    """Crawl to the end and return the Result with all items. Blocks; inside a running event loop, in a thread of its own.

    Its frontier is in memory, as ``crawl``'s. Raises UsageError for what cannot start.
    """

    _check(spider, args, outputs)

    async def main() -> Result:
        kept = _Kept()
        result = await _make(spider, args, settings, kept, outputs).run()
        result.items = kept.items
        return result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_in_loop(main())
    return _run_in_thread(main(), f"scraper-{spider.name}")


def _run_in_thread(main: Coroutine[Any, Any, Result], name: str) -> Result:
    """Run a coroutine in a thread and an event loop of its own; the first SIGINT cancels it, as without a thread."""
    outcome: list[Result | BaseException] = []
    cancels: list[Callable[[], object]] = []
    has_begun = threading.Event()

    async def cancellable() -> Result:
        task = asyncio.current_task()
        assert task is not None
        cancels.append(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
        has_begun.set()
        return await main

    def work() -> None:
        try:
            outcome.append(run_in_loop(cancellable()))
        except BaseException as error:
            outcome.append(error)
        finally:
            has_begun.set()

    def interrupt(number: int, frame: object) -> None:
        if not cancels:
            raise KeyboardInterrupt
        with suppress(RuntimeError):  # its loop has come to its end
            cancels.pop()()

    thread = threading.Thread(target=work, name=name)
    thread.start()
    has_begun.wait()
    # The handler of the loop that runs here would have to wait for this very call.
    former = signal.getsignal(signal.SIGINT)
    handles = threading.current_thread() is threading.main_thread() and former not in (None, signal.SIG_IGN)
    if handles:
        signal.signal(signal.SIGINT, interrupt)
    try:
        thread.join()
    finally:
        if handles:
            signal.signal(signal.SIGINT, former)
    if isinstance(outcome[0], asyncio.CancelledError):
        raise KeyboardInterrupt
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def _check(spider: Any, args: Any, outputs: Any = ()) -> None:
    """Raise UsageError for what is not of the kind that ``run`` and ``crawl`` take."""
    if not (isinstance(spider, type) and issubclass(spider, Spider)):
        hint = f": {type(spider).__name__}, with args= for its arguments" if isinstance(spider, Spider) else ""
        raise UsageError(f"a crawl is begun with a spider's class{hint}, not {spider!r}")
    if not isinstance(args, (Mapping, NoneType)):
        raise UsageError(f"args= is a mapping of names to values, not {args!r}")
    if not isinstance(outputs, Sequence) or not all(isinstance(each, Output) for each in outputs):
        raise UsageError(f'outputs= is a list such as [Output("items.jsonl")], not {outputs!r}')
    names = [place_of(each.name) for each in outputs]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice as an output")


def _make(
    spider: type[Spider],
    args: Mapping[str, Any] | None,
    settings: Mapping[str, Any] | None,
    listener: Listener,
    outputs: Sequence[Output] = (),
) -> Crawler:
    asked = mapping_layer(settings or {}, "settings=")
    for name, only in (("frontier.use", "memory"), ("shards.count", 1)):
        if asked.values.get(name, only) != only:
            raise UsageError(
                f"settings=: {name} = {asked.values[name]!r}: from Python it is {only!r}; `scrape run` does that"
            )
    layers = [asked]
    layers.append(mapping_layer({"frontier.use": "memory"}, "a run from Python"))
    chosen = load_settings(spider, layers)
    # Inside somebody else's program only what is wrong is said, unless they ask for more.
    log = Log(chosen.log.level if "log.level" in chosen.origins else "warning")
    return Crawler(make_spider(spider, args or {}), chosen, listener=listener, outputs=outputs, log=log)


class _Kept:
    """A listener that keeps every item."""

    has_room = True

    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, item: Any) -> None:
        self.items.append(item)


class _Stream:
    """A listener one can iterate over; it has room for a few items, so that a slow consumer slows the crawl."""

    _ROOM = 100

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self.wake: Callable[[], None] = lambda: None

    @property
    def has_room(self) -> bool:
        return len(self._items) < self._ROOM

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._changed.set()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            while self._items:
                item = self._items.popleft()
                if len(self._items) < self._ROOM:
                    self.wake()
                yield item
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()
