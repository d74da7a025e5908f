"""From an item to its outputs: through the pipelines in order, then encoded for each exporter, bounded on the way.

A page's records are kept together and leave in one piece when the page is settled, so that an output never holds half
of a page's items and a commit can say exactly how far each output reaches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import is_dataclass
from functools import wraps
from hashlib import blake2b
from inspect import isawaitable, signature
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, Protocol

from scraper.contracts import Exporter, Lease, Pipeline
from scraper.errors import CloseSpider, DropItem, OutputError, ordinary, shown, text_of
from scraper.http import Request, Response
from scraper.log import Log
from scraper.stats import Stats

_SPILL_BYTES = 2**20
MAX_CHILDREN = 1000
"""Requests of one page that wait for its end; those past it that can, go to the frontier before."""

_NO_OUTPUT = (b"",)
_NOTED = 2**32  # the numbers of an errback's items begin behind those of any callback
_current_item: ContextVar[tuple[Page, int]] = ContextVar("current_item")


class Page:
    """One settled-as-one unit: a response's callback, or one item of ``start()``, with all it led to.

    ``records`` holds, per item, the encoded record for each exporter: None while it is under way, empty where it was
    dropped. ``error`` says why the request counts as failed; empty where it does not. ``skip`` is how many of the items
    it yields an earlier, failed try has brought to the outputs already. ``moved`` counts the records in files. ``start`` is
    the number of a value of ``start()``. ``when_settled`` is called when the frontier has the children.
    """

    __slots__ = (
        "children",
        "error",
        "finished",
        "lease",
        "most_children",
        "moved",
        "noted",
        "open_items",
        "records",
        "response",
        "size",
        "skip",
        "spilled",
        "staged",
        "start",
        "when_settled",
        "written",
    )

    def __init__(self, lease: Lease | None, size: int = 0, start: int = 0) -> None:
        self.lease = lease
        self.size = size
        self.start = start
        self.response: Response | None = None
        self.children: list[Request] = []
        self.most_children = MAX_CHILDREN
        self.when_settled: list[Callable[[], None]] = []
        self.records: list[tuple[bytes, ...] | None] = []
        self.staged = 0
        self.spilled: list[IO[bytes]] = []
        self.moved = 0
        self.skip = lease.request.written if lease is not None else 0
        self.written = 0
        self.noted = 0
        self.open_items = 0
        self.finished = False
        self.error = ""

    def have_settled(self) -> None:
        """The frontier has the children."""
        for call in self.when_settled:
            call()
        self.when_settled.clear()

    @property
    def complete(self) -> bool:
        """Whether the callback has ended and every item has reached its end."""
        return self.finished and not self.open_items


class Listener(Protocol):
    """Somebody in this process who gets each item as it leaves the pipelines."""

    def put(self, item: Any) -> None:
        """Take one item."""

    @property
    def has_room(self) -> bool:
        """Whether more items may come."""


class Items:
    """Takes items through the pipelines to the exporters' buffers.

    ``concurrency`` bounds the items that are in asynchronous pipelines at a time, ``max_buffer`` the bytes of records not
    yet written; past either, ``has_room`` is false, and callbacks and fetches wait. A page that yields without end
    takes no memory: past 1 MiB its records wait in a temporary file.
    """

    def __init__(
        self,
        pipelines: Sequence[Pipeline],
        exporters: Sequence[Exporter],
        *,
        spider: Any,
        stats: Stats,
        log: Log,
        concurrency: int = 100,
        max_buffer: int = 64 * 2**20,
        listener: Listener | None = None,
    ) -> None:
        self._steps = [taking_spider(pipeline.process_item, 2) for pipeline in pipelines]
        self._exporters = exporters
        self._spider = spider
        self._stats = stats
        self._log = log
        self._concurrency = concurrency
        self.max_buffer = max_buffer
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: Callable[[Page], None] = lambda page: None
        self._stop: Callable[[str], None] = lambda reason: None
        self._wake: Callable[[], None] = lambda: None
        self._failed: Callable[[OutputError], None] = lambda error: None
        self._has_failed = False
        self._cancelled = False
        self._files: set[IO[bytes]] = set()
        self.failures = 0
        self.unwritten = 0
        """Bytes that exporters hold and have not written."""

    def bind(
        self,
        done: Callable[[Page], None],
        stop: Callable[[str], None],
        wake: Callable[[], None],
        failed: Callable[[OutputError], None] = lambda error: None,
    ) -> None:
        """Say whom to tell: ``done`` of a page now complete, ``stop`` of a CloseSpider, ``wake`` of new room.

        ``failed`` is told once of records that found no room on the disk; their page is never complete then.
        """
        self._done, self._stop, self._wake, self._failed = done, stop, wake, failed

    @property
    def has_room(self) -> bool:
        """Whether more items may come."""
        return (
            len(self._tasks) < self._concurrency
            and (self._listener is None or self._listener.has_room)
            and self.unwritten < self.max_buffer
        )

    def submit(self, item: Any, page: Page) -> None:
        """Take one item of a page. Synchronous pipelines run at once, a coroutine in a task of its own."""
        if page.error:
            page.noted += 1
        else:
            page.written += 1
        if page.written <= page.skip and not page.error:
            return
        if self._has_failed:
            page.open_items += 1  # the run ends; this page, too, is not to be settled
            return
        slot = len(page.records)
        page.records.append(None)
        page.open_items += 1
        try:
            if self._steps:
                _current_item.set((page, page.written if not page.error else _NOTED + page.noted))
            for number, step in enumerate(self._steps, 1):
                result = step(item, self._spider)
                if isawaitable(result):
                    task = asyncio.ensure_future(self._rest(item, result, number, page, slot))
                    self._tasks.add(task)
                    task.add_done_callback(self._rest_done)
                    return
                if not _may_go_on(result):
                    raise _no_item(step, result)
                item = result
            self._encode(item, page, slot)
        except OutputError as error:
            self._fail(error)
            return
        except BaseException as error:
            self._lost(item, ordinary(error, "pipeline"), page, slot)
        page.open_items -= 1

    def write(self, page: Page) -> None:
        """Hand a complete page's records to the exporters, each in one piece, in the order the items were yielded."""
        records = [record for record in page.records if record]
        self._stats.items += len(records)
        self._stats.unsettled_items -= page.moved
        for number, exporter in enumerate(self._exporters):
            if page.spilled:
                exporter.write_file(page.spilled[number])
                self._files.discard(page.spilled[number])
            if records:
                exporter.write(b"".join([record[number] for record in records]))
        self._look_at_buffers()

    async def flush(self, *, sync: bool) -> dict[str, int]:
        """Have what the exporters hold written; return how far each output, by name, then reaches. Raises OutputError."""
        try:
            return {exporter.name: await exporter.flush(sync=sync) for exporter in self._exporters}
        finally:
            self._look_at_buffers()

    @property
    def lengths(self) -> dict[str, int]:
        """How far each output reaches, without what is not written."""
        return {exporter.name: exporter.length for exporter in self._exporters}

    def _look_at_buffers(self) -> None:
        unwritten = 0
        for exporter in self._exporters:
            unwritten += exporter.buffered
        self.unwritten = unwritten

    def cancel(self) -> list[asyncio.Task[None]]:
        """Give up the items under way; return the tasks that are coming to their end."""
        self._cancelled = True
        for task in self._tasks:
            task.cancel()
        for file in self._files:
            file.close()
        return list(self._tasks)

    async def _rest(self, item: Any, result: Any, number: int, page: Page, slot: int) -> None:
        """Take an item on from pipeline ``number``, whose ``result`` is awaited."""
        try:
            while True:
                if isawaitable(result):
                    result = await result
                if not _may_go_on(result):
                    raise _no_item(self._steps[number - 1], result)
                item = result
                if number == len(self._steps):
                    break
                result = self._steps[number](item, self._spider)
                number += 1
            self._encode(item, page, slot)
        except OutputError as error:
            self._fail(error)
            return
        except BaseException as error:
            if self._cancelled:
                raise
            self._lost(item, ordinary(error, "pipeline"), page, slot)
        page.open_items -= 1
        if page.complete:
            self._done(page)

    def _rest_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake()

    def _encode(self, item: Any, page: Page, slot: int) -> None:
        record = tuple([exporter.encode(item) for exporter in self._exporters])
        # An item with no output but a listener counts as an item too: its record is one empty block.
        page.records[slot] = record or _NO_OUTPUT
        page.staged += sum(map(len, record))
        if self._listener is not None:
            self._listener.put(item)
        if page.staged > _SPILL_BYTES:
            self._spill(page)

    def _spill(self, page: Page) -> None:
        """Move the records of the leading items that are through into temporary files. Raises OutputError."""
        try:
            self._move_to_files(page)
        except OSError as error:
            raise OutputError(f"cannot write to a temporary file in {gettempdir()}: {error.strerror}") from None

    def _fail(self, error: OutputError) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._failed(error)

    def _move_to_files(self, page: Page) -> None:
        if not page.spilled:
            page.spilled = [TemporaryFile() for _ in self._exporters]  # noqa: SIM115 - the exporter closes it
            self._files.update(page.spilled)
        through = page.records.index(None) if None in page.records else len(page.records)
        records = [record for record in page.records[:through] if record]
        for number, file in enumerate(page.spilled):
            page.staged -= file.write(b"".join([record[number] for record in records]))
        self._stats.items += len(records)
        self._stats.unsettled_items += len(records)
        page.moved += len(records)
        # The slots stay, as "nothing here", so that those behind them keep their numbers.
        page.records[:through] = [()] * through

    def _lost(self, item: Any, error: Exception, page: Page, slot: int) -> None:
        page.records[slot] = ()
        if isinstance(error, DropItem):
            self._stats.dropped += 1
            self._log.debug("item dropped", reason=text_of(error))
        elif isinstance(error, CloseSpider):
            self._stats.dropped += 1
            self._stop(error.reason)
        else:
            self.failures += 1
            self._stats.errors += 1
            self._stats.error_classes[type(error).__name__] += 1
            self._log.error("item lost: a pipeline or exporter raised", item=shown(item), exc_info=error)


def taking_spider(method: Callable[..., Any], most: int) -> Callable[..., Any]:
    """Return a pipeline's method as one of ``most`` arguments, the last of them the spider: Scrapy's newer ones do without.

    Raises TypeError where it takes other arguments.
    """
    try:
        own = signature(method)
    except ValueError:  # of a method that is not written in Python
        return method
    try:
        own.bind(*[None] * most)
    except TypeError:
        own.bind(*[None] * (most - 1))
        return wraps(method)(lambda *given: method(*given[:-1]))
    return method


def unfit(value: Any) -> TypeError:
    """Return the error for what a callback gave that is neither an item nor a request."""
    return TypeError(f"a callback yields items and requests, not {type(value).__name__}: {str(value)[:100]!r}")


def _may_go_on(result: Any) -> bool:
    """Whether what a pipeline returned is an item; what is like a dict may be written as one."""
    return is_item(result) or isinstance(result, Mapping)


def _no_item(step: Callable[..., Any], result: Any) -> TypeError:
    name = getattr(step, "__qualname__", repr(step))
    what = "None" if result is None else f"a {type(result).__name__}"
    return TypeError(f"{name} returned {what}: return the item, or raise DropItem")


def item_key() -> str:
    """Return a key of the item that the calling pipeline processes: 32 hexadecimal digits, the same each time.

    A page that a crash interrupted is fetched again, and its items come again with the same keys: a pipeline that writes
    to a database makes them exactly-once by writing under the key ("insert or replace"). The key is made of the
    request's fingerprint (of its URL, method and body: requests that share these share their keys) and the item's
    number among those the callback yields; of an item that ``start()`` yields, of its number there. Raises RuntimeError
    outside ``process_item``.
    """
    current = _current_item.get(None)
    if current is None:
        raise RuntimeError("item_key() is for pipelines: call it in process_item()")
    page, number = current
    source = page.lease.request.fingerprint if page.lease is not None else b"start %d" % page.start
    return blake2b(source + number.to_bytes(8, "big"), digest_size=16).hexdigest()


def is_item(value: Any) -> bool:
    """Whether a callback may yield this as an item: dict, dataclass, attrs, pydantic model or msgspec Struct."""
    kind = type(value)
    return (
        isinstance(value, dict)
        or is_dataclass(kind)
        or hasattr(kind, "__attrs_attrs__")
        or hasattr(kind, "__struct_fields__")
        or hasattr(kind, "model_fields")
    )
