"""From an item to its outputs: pipelines in order, pages in one piece, and nothing that fails goes uncounted."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from scraper import CloseSpider, DropItem, Request, Spider
from scraper.contracts import Lease
from scraper.exporters.files import FileExporter
from scraper.exporters.jsonl import JsonlExporter
from scraper.items import Items, Page, is_item
from scraper.log import Log
from scraper.stats import Stats


class Memory(JsonlExporter):
    """An exporter whose writes reach memory."""

    def __init__(self, name: str = "memory") -> None:
        super().__init__(name)
        self.taken: list[bytes] = []

    def write(self, block: bytes) -> None:
        super().write(block)
        self.taken.append(block)

    def write_file(self, file: Any) -> None:
        with file:
            file.seek(0)
            self.taken.append(file.read())

    async def flush(self, *, sync: bool = False) -> int:
        self.buffered = 0
        return 0


class Upper(Memory):
    """Another format."""

    def encode(self, item: Any) -> bytes:
        return super().encode(item).upper()


class Pipe:
    """A pipeline made of a function."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def process_item(self, item: Any, spider: Any) -> Any:
        return self._work(item)


class Room:
    """A listener with room or without."""

    def __init__(self) -> None:
        self.has_room = True
        self.items: list[Any] = []

    def put(self, item: Any) -> None:
        self.items.append(item)


class Run:
    """Items with what a run has around them."""

    def __init__(
        self, *work: Callable[[Any], Any], exporters: Sequence[FileExporter] | None = None, **options: Any
    ) -> None:
        self.out = Memory()
        self.stats = Stats()
        self.lines: list[str] = []
        self.done: list[Page] = []
        self.stopped: list[str] = []
        self.woken = 0
        self.items = Items(
            [Pipe(each) for each in work],
            [self.out] if exporters is None else exporters,
            spider=Spider("test"),
            stats=self.stats,
            log=Log(write=self.lines.append),
            **options,
        )
        self.items.bind(self.done.append, self.stopped.append, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def page(self, *items: Any, finished: bool = True) -> Page:
        """Yield items on a page, and end its callback."""
        page = Page(None)
        for item in items:
            self.items.submit(item, page)
        page.finished = finished
        return page

    async def settled(self) -> None:
        """Wait for the items under way."""
        for _ in range(20):
            await asyncio.sleep(0)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine."""
    asyncio.run(main())


@dataclasses.dataclass
class D:
    a: int = 1


@attrs.define
class A:
    a: int = 1


class P(pydantic.BaseModel):
    a: int = 1


class S(msgspec.Struct):
    a: int = 1


@pytest.mark.parametrize("item", [{}, {"a": 1}, D(), A(), P(), S()])
def test_items(item: Any) -> None:
    """A dict, a dataclass, an attrs object, a pydantic model and a msgspec Struct are items."""
    assert is_item(item)


@pytest.mark.parametrize("value", [None, 1, "x", b"x", [], [{}], (), object(), Request("http://a/"), range(3), 1.5])
def test_no_items(value: Any) -> None:
    """Anything else is none."""
    assert not is_item(value)


def test_pipelines_work_in_order() -> None:
    """Each pipeline gets what the one before it returned, and the outputs what the last one did."""
    trial = Run(lambda item: {**item, "b": 2}, lambda item: {**item, "c": item["b"] + 1})
    page = trial.page({"a": 1})
    assert page.complete
    trial.items.write(page)
    assert trial.out.taken == [b'{"a":1,"b":2,"c":3}\n']
    assert trial.stats.items == 1


def test_a_page_is_written_in_one_piece() -> None:
    """All records of a page leave together, in the order in which the items were yielded, to every output in its format."""
    outs = [Memory("one"), Upper("two")]
    trial = Run(exporters=outs)
    page = trial.page({"a": 1}, {"b": 2}, {"c": 3})
    assert [out.taken for out in outs] == [[], []]
    trial.items.write(page)
    assert outs[0].taken == [b'{"a":1}\n{"b":2}\n{"c":3}\n']
    assert outs[1].taken == [b'{"A":1}\n{"B":2}\n{"C":3}\n']
    assert trial.stats.items == 3


def test_asynchronous_pipelines_keep_the_order() -> None:
    """Items that overtake each other in a pipeline stand in the output as they were yielded."""

    async def main() -> None:
        gates = {n: asyncio.Event() for n in range(3)}

        async def wait(item: Any) -> Any:
            await gates[item["n"]].wait()
            return item

        trial = Run(wait, lambda item: {**item, "after": True})
        page = trial.page(*({"n": n} for n in range(3)))
        assert not page.complete
        for n in (2, 0, 1):
            assert trial.done == []
            gates[n].set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await trial.settled()
        assert trial.done == [page]
        assert trial.woken == 3
        trial.items.write(page)
        assert [line[5:6] for line in trial.out.taken[0].splitlines()] == [b"0", b"1", b"2"]

    run(main)


def test_a_page_is_not_done_before_its_callback() -> None:
    """Items that are through do not complete a page whose callback goes on; its end does, without a further call."""

    async def main() -> None:
        async def soon(item: Any) -> Any:
            return item

        trial = Run(soon)
        page = trial.page({"a": 1}, finished=False)
        await trial.settled()
        assert trial.done == []
        assert not page.complete
        page.finished = True
        assert page.complete

    run(main)


def fail(item: Any) -> Any:
    """Fail in a pipeline."""
    raise ValueError("no price")


def drop(item: Any) -> Any:
    """Drop an item that says so."""
    if item.get("bad"):
        raise DropItem("bad")
    return item


def close(item: Any) -> Any:
    """End the run."""
    raise CloseSpider("enough")


def in_a_task(work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make a pipeline asynchronous."""

    async def later(item: Any) -> Any:
        await asyncio.sleep(0)
        return work(item)

    return later


@pytest.mark.parametrize("wrap", [lambda work: work, in_a_task])
@pytest.mark.parametrize("behind", [[], [lambda item: item]])
def test_what_becomes_of_items_that_do_not_come_through(wrap: Any, behind: list[Any]) -> None:
    """A dropped item is counted as dropped; one whose pipeline raises or returns None as an error; the others stay."""

    async def main() -> None:
        trial = Run(wrap(drop), *behind)
        page = trial.page({"n": 1}, {"n": 2, "bad": True}, {"n": 3})
        await trial.settled()
        trial.items.write(page)
        assert trial.out.taken == [b'{"n":1}\n{"n":3}\n']
        assert (trial.stats.items, trial.stats.dropped, trial.stats.errors, trial.items.failures) == (2, 1, 0, 0)

        trial = Run(wrap(fail), *behind)
        page = trial.page({"n": 1})
        await trial.settled()
        trial.items.write(page)
        assert trial.out.taken == []
        assert (trial.stats.items, trial.stats.errors, trial.items.failures) == (0, 1, 1)
        assert trial.stats.error_classes == {"ValueError": 1}
        assert "no price" in trial.lines[0]
        assert "{'n': 1}" in trial.lines[0]

        trial = Run(wrap(lambda item: None), *behind)
        trial.page({"n": 1})
        await trial.settled()
        assert trial.stats.error_classes == {"TypeError": 1}
        assert "Pipe.process_item returned None: return the item" in trial.lines[0]

        for odd, kind in (('{"n": 1}', "str"), ([{"n": 1}], "list"), (True, "bool")):
            trial = Run(wrap(lambda item, odd=odd: odd), *behind)
            page = trial.page({"n": 1})
            await trial.settled()
            trial.items.write(page)
            assert (trial.out.taken, trial.stats.error_classes) == ([], {"TypeError": 1})
            assert f"Pipe.process_item returned a {kind}: return the item" in trial.lines[0]

        trial = Run(wrap(close), *behind)
        page = trial.page({"n": 1})
        await trial.settled()
        assert trial.stopped == ["enough"]
        assert page.complete
        assert trial.stats.errors == 0

    run(main)


def test_an_item_that_cannot_be_encoded() -> None:
    """It is an error with the item in the log, and the page goes on without it."""
    trial = Run()
    page = trial.page({"a": object()}, {"b": 1})
    trial.items.write(page)
    assert trial.out.taken == [b'{"b":1}\n']
    assert (trial.stats.errors, trial.stats.items) == (1, 1)
    assert "cannot be written as JSON" in trial.lines[0]


@pytest.mark.parametrize("bound", ["tasks", "bytes", "listener"])
def test_room(bound: str) -> None:
    """There is room while few items are in pipelines, few bytes are unwritten, and the listener keeps up."""

    async def main() -> None:
        gate = asyncio.Event()

        async def wait(item: Any) -> Any:
            await gate.wait()
            return item

        room = Room()
        work = [wait] if bound == "tasks" else []
        trial = Run(*work, concurrency=2, max_buffer=16, listener=room)
        page = trial.page({"a": 1})
        if bound == "tasks":
            assert trial.items.has_room
            trial.items.submit({"a": 2}, page)
            assert not trial.items.has_room
            gate.set()
            await trial.settled()
        elif bound == "bytes":
            trial.items.write(page)
            assert trial.items.has_room
            trial.items.write(trial.page({"a": 2}))
            assert trial.items.unwritten == 16
            assert not trial.items.has_room
            trial.out.buffered = 0
            await trial.items.flush(sync=False)
        else:
            room.has_room = False
            assert not trial.items.has_room
            room.has_room = True
        assert trial.items.has_room

    run(main)


def test_a_listener_gets_what_leaves_the_pipelines() -> None:
    """Somebody in this process gets each item once, changed as it was, also where there is no output."""
    room = Room()
    trial = Run(drop, lambda item: {**item, "seen": True}, exporters=[], listener=room)
    page = trial.page({"n": 1}, {"bad": True}, {"n": 2})
    assert room.items == [{"n": 1, "seen": True}, {"n": 2, "seen": True}]
    trial.items.write(page)
    assert (trial.stats.items, trial.stats.dropped) == (2, 1)


def test_a_page_without_end_waits_in_a_file() -> None:
    """Past a megabyte a page's records leave memory, and come out in order and complete, to every output."""

    async def main() -> None:
        gate = asyncio.Event()

        async def wait_for_first(item: Any) -> Any:
            if item["n"] == 0:
                await gate.wait()
            return item

        outs = [Memory("one"), Upper("two")]
        trial = Run(lambda item: wait_for_first(item) if item["n"] in (0, 30) else item, exporters=outs)
        page = Page(None)
        for n in range(60):
            trial.items.submit({"n": n, "text": "x" * 100_000}, page)
        gate.set()
        await trial.settled()
        for n in range(60, 90):
            trial.items.submit({"n": n, "text": "x" * 100_000}, page)
        held = sum(len(record[0]) for record in page.records if record)
        assert held < 2 * 2**20
        page.finished = True
        trial.items.write(page)
        for out in outs:
            lines = b"".join(out.taken).lower().splitlines()
            assert [msgspec.json.decode(line)["n"] for line in lines] == list(range(90))
        assert trial.stats.items == 90

    run(main)


def test_a_failed_try_is_not_written_twice() -> None:
    """A page that is tried again leaves out the items that an earlier try has brought to the outputs."""
    request = Request("http://a/")
    request.written = 2
    trial = Run()
    page = Page(Lease(request))
    for n in range(4):
        trial.items.submit({"n": n}, page)
    trial.items.write(page)
    assert trial.out.taken == [b'{"n":2}\n{"n":3}\n']
    assert page.written == 4


def test_giving_up() -> None:
    """Cancelled, the items under way end, and their pages are told of no more."""

    async def main() -> None:
        async def forever(item: Any) -> Any:
            await asyncio.get_running_loop().create_future()

        trial = Run(forever)
        trial.page({"a": 1})
        await asyncio.sleep(0)
        tasks = trial.items.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert trial.done == []

    run(main)
