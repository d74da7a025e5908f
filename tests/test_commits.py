"""Group commits: outputs first, then the frontier, and what comes meanwhile waits for the next round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from scraper import Request, Spider, commits
from scraper.commits import BLOCK_BYTES, Commits
from scraper.contracts import Checkpoint, Lease, Settlement
from scraper.errors import OutputError
from scraper.items import Items, Page
from scraper.log import Log
from scraper.stats import Stats


class Book:
    """What happened, in order, and gates that hold a step back."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def pass_gate(self, name: str) -> None:
        """Wait where a test has put a gate."""
        if name in self.gates:
            await self.gates[name].wait()


class FakeFrontier:
    """A frontier that writes down what it is told."""

    def __init__(self, book: Book, durable: bool) -> None:
        self.durable = durable
        self._book = book

    def settle(self, settlement: Settlement) -> None:
        if settlement.error == "unfit":
            raise TypeError("no number")
        self._book.events.append(("settle", settlement.error))

    async def commit(self, checkpoint: Checkpoint) -> None:
        self._book.events.append(("commit", dict(checkpoint.outputs), dict(checkpoint.state)))
        await self._book.pass_gate("commit")
        self._book.events.append("committed")


class FakeExporter:
    """An exporter whose flush waits at a gate."""

    name = "out"

    def __init__(self, book: Book) -> None:
        self._book = book
        self.blocks: list[bytes] = []
        self.written = b""
        self.synced = False
        self.fails = False

    @property
    def buffered(self) -> int:
        return sum(map(len, self.blocks))

    @property
    def length(self) -> int:
        return len(self.written)

    def encode(self, item: Any) -> bytes:
        return item["text"].encode()

    def write(self, block: bytes) -> None:
        self._book.events.append(("write", block))
        self.blocks.append(block)

    async def flush(self, *, sync: bool = False) -> int:
        self._book.events.append("flush")
        blocks, self.blocks = self.blocks, []
        await self._book.pass_gate("flush")
        if self.fails:
            raise OutputError("cannot write to out: no")
        self.written += b"".join(blocks)
        self.synced = sync
        self._book.events.append("flushed")
        return len(self.written)


class Part:
    """A part with state."""

    def changes(self) -> Mapping[str, Any]:
        return {"part": 1}

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Run:
    """Commits between fakes."""

    def __init__(self, *, durable: bool = True, sync: bool = False, max_uncommitted: int = 4) -> None:
        self.book = Book()
        self.out = FakeExporter(self.book)
        self.applied = 0
        items = Items([], [self.out], spider=Spider("test"), stats=Stats(), log=Log())  # type: ignore[list-item]
        self.items = items
        self.commits = Commits(
            FakeFrontier(self.book, durable),  # type: ignore[arg-type]
            items,
            [Part()],
            self.count,
            max_uncommitted=max_uncommitted,
            sync=sync,
        )

    def count(self) -> None:
        self.applied += 1

    def settle(self, name: str, text: str = "") -> None:
        """Settle a page with one item."""
        lease = Lease(Request("http://a/"))
        page = Page(lease)
        if text:
            self.items.submit({"text": text}, page)
        self.commits.settle(Settlement(lease, error=name), page)

    async def until(self, event: Any) -> None:
        """Turn the loop until something has happened."""
        for _ in range(1000):
            if event in self.book.events:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{event} never happened: {self.book.events}")


def run(main: Callable[[], Any]) -> None:
    """Run a test's coroutine."""
    asyncio.run(main())


def test_what_is_settled_during_the_first_commit_waits_for_its_end() -> None:
    """Before anything is fetched another process may bring something: half of it in that commit would be lost in a crash."""

    async def main() -> None:
        trial = Run()
        gate = trial.book.gates["commit"] = asyncio.Event()
        first = asyncio.ensure_future(trial.commits.begin())
        await asyncio.sleep(0)
        trial.settle("early")
        gate.set()
        await first
        assert trial.book.events[-2:] == ["committed", ("settle", "early")]

    run(main)


def test_a_settlement_and_its_records_go_together() -> None:
    """A page's records are in the output's buffer in the same instant in which it is settled."""

    async def main() -> None:
        trial = Run()
        trial.settle("one", "x")
        assert trial.book.events == [("write", b"x"), ("settle", "one")]
        assert trial.commits.idle

    run(main)


@pytest.mark.parametrize("sync", [False, True])
def test_outputs_are_flushed_before_the_frontier_commits(sync: bool) -> None:
    """The commit tells the frontier how far each output reaches, after it has been written so far."""

    async def main() -> None:
        trial = Run(sync=sync)
        trial.settle("one", "abc")
        trial.book.events.clear()
        await trial.commits.commit()
        assert trial.book.events == ["flush", "flushed", ("commit", {"out": 3}, {"part": 1}), "committed"]
        assert trial.out.synced is sync
        assert trial.applied == 1

    run(main)


@pytest.mark.parametrize("step", ["flush", "commit"])
def test_settlements_during_a_commit_are_held_back(step: str) -> None:
    """What is settled while a commit is under way is applied right after it, in order, and is in the next one."""

    async def main() -> None:
        trial = Run()
        gate = trial.book.gates[step] = asyncio.Event()
        trial.settle("one", "a")
        commit = asyncio.ensure_future(trial.commits.commit())
        await trial.until("flush" if step == "flush" else ("commit", {"out": 1}, {"part": 1}))
        trial.settle("two", "b")
        trial.settle("three", "c")
        assert not trial.commits.idle
        assert ("settle", "two") not in trial.book.events
        assert trial.applied == 0
        gate.set()
        await commit
        assert trial.book.events[-5:] == [
            "committed",
            ("write", b"b"),
            ("settle", "two"),
            ("write", b"c"),
            ("settle", "three"),
        ]
        assert trial.commits.idle
        assert trial.applied == 1
        assert trial.out.written == b"a"
        await trial.commits.commit()
        assert trial.out.written == b"abc"
        assert trial.book.events[-2] == ("commit", {"out": 3}, {"part": 1})

    run(main)


@pytest.mark.parametrize(("durable", "counted"), [(True, 3), (False, 0)])
def test_uncommitted(durable: bool, counted: int) -> None:
    """Requests settled since the last commit are counted where something is durable; one's commit takes its own off."""

    async def main() -> None:
        trial = Run(durable=durable)
        for name in ("one", "two", "three"):
            trial.settle(name)
        trial.commits.settle(Settlement(None, [Request("http://a/")]))
        assert trial.commits.uncommitted == counted
        gate = trial.book.gates["flush"] = asyncio.Event()
        commit = asyncio.ensure_future(trial.commits.commit())
        await trial.until("flush")
        trial.settle("four")
        gate.set()
        await commit
        assert trial.commits.uncommitted == (1 if durable else 0)

    run(main)


@pytest.mark.parametrize("reason", ["bytes", "requests"])
def test_much_at_once_is_committed_at_once(reason: str) -> None:
    """A block of records, or many settled requests, do not wait for the clock."""

    async def main() -> None:
        trial = Run(max_uncommitted=3)
        running = asyncio.ensure_future(trial.commits.run())
        await asyncio.sleep(0)
        if reason == "bytes":
            trial.settle("one", "x" * BLOCK_BYTES)
        else:
            for name in ("one", "two", "three"):
                trial.settle(name)
        await trial.until("committed")
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()

    run(main)


@pytest.mark.parametrize("is_committing", [False, True])
def test_who_waits_for_a_commit_gets_it_soon(monkeypatch: pytest.MonkeyPatch, is_committing: bool) -> None:
    """What was settled does not wait for the clock then, nor what is settled while a commit is under way."""
    monkeypatch.setattr(commits, "DURABLE_INTERVAL_S", 3600.0)
    monkeypatch.setattr(commits, "HURRY_S", 0.0)

    async def main() -> None:
        trial = Run()
        running = asyncio.ensure_future(trial.commits.run())
        if is_committing:
            trial.book.gates["commit"] = gate = asyncio.Event()
            trial.settle("first")
            trial.commits.hurry()
            await trial.until(("commit", {"out": 0}, {"part": 1}))
            trial.settle("second")
            trial.commits.hurry()
            await asyncio.sleep(0)
            gate.set()
            await trial.until(("settle", "second"))
            trial.book.events.clear()
        else:
            trial.settle("first")
            for _ in range(20):
                await asyncio.sleep(0)
            assert "committed" not in trial.book.events
            trial.commits.hurry()
        await trial.until("committed")
        running.cancel()
        await asyncio.wait([running])

    run(main)


def test_nothing_settled_nothing_committed() -> None:
    """Without changes there are no commits."""

    async def main() -> None:
        trial = Run()
        running = asyncio.ensure_future(trial.commits.run())
        for _ in range(20):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        assert trial.book.events == []

    run(main)


@pytest.mark.parametrize("step", ["flush", "commit"])
def test_a_commit_that_has_begun_is_finished(step: str) -> None:
    """Cancelled in the middle of a commit, the loop ends with it: no block that left the buffer is lost."""

    async def main() -> None:
        trial = Run(max_uncommitted=1)
        gate = trial.book.gates[step] = asyncio.Event()
        running = asyncio.ensure_future(trial.commits.run())
        await asyncio.sleep(0)
        trial.settle("one", "abc")
        await trial.until("flush" if step == "flush" else ("commit", {"out": 3}, {"part": 1}))
        running.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not running.done()
        trial.settle("two", "d")
        gate.set()
        await asyncio.wait([running])
        assert running.cancelled()
        assert trial.out.written == b"abc"
        assert "committed" in trial.book.events
        await trial.commits.commit()
        assert trial.out.written == b"abcd"

    run(main)


def test_an_output_that_cannot_be_written() -> None:
    """The loop ends with the error, nothing is committed, and what was held back is applied: nothing hangs."""

    async def main() -> None:
        trial = Run(max_uncommitted=1)
        trial.out.fails = True
        gate = trial.book.gates["flush"] = asyncio.Event()
        running = asyncio.ensure_future(trial.commits.run())
        await asyncio.sleep(0)
        trial.settle("one", "abc")
        await trial.until("flush")
        trial.settle("two")
        gate.set()
        await asyncio.wait([running])
        assert isinstance(running.exception(), OutputError)
        assert "committed" not in trial.book.events
        assert ("settle", "two") in trial.book.events
        assert trial.commits.idle
        assert trial.applied == 1

    run(main)


@pytest.mark.parametrize("is_committing", [False, True])
def test_a_settlement_that_cannot_be_applied(is_committing: bool) -> None:
    """A request may have been made unfit since it was checked: the loop ends with an error, and nothing of it is committed."""

    async def main() -> None:
        trial = Run(max_uncommitted=1)
        gate = trial.book.gates["commit"] = asyncio.Event()
        running = asyncio.ensure_future(trial.commits.run())
        if is_committing:
            trial.settle("one")
            await trial.until(("commit", {"out": 0}, {"part": 1}))
        trial.settle("unfit", "abc")
        gate.set()
        await asyncio.wait([running])
        assert str(running.exception()) == "a request of http://a/ cannot be kept: TypeError: no number"
        assert trial.out.written == b""
        assert trial.book.events.count("committed") == is_committing

    run(main)


def test_the_first_commit_says_how_the_outputs_stand() -> None:
    """Before anything is written the frontier learns the outputs' lengths, so that a crash cannot cut what was there."""

    async def main() -> None:
        trial = Run()
        trial.out.written = b"earlier"
        await trial.commits.begin()
        assert trial.book.events == [("commit", {"out": 7}, {"part": 1}), "committed"]

    run(main)


@pytest.mark.parametrize("durable", [True, False])
def test_state_is_part_of_every_commit(durable: bool) -> None:
    """The parts are asked for their changes with every commit, so that none keeps them for ever."""

    async def main() -> None:
        trial = Run(durable=durable)
        await trial.commits.commit()
        assert trial.book.events[-2] == ("commit", {"out": 0}, {"part": 1})

    run(main)


def test_little_is_held_back() -> None:
    """What a page with endless links leads to while a commit is under way is bounded: there is room again when it has ended."""

    async def main() -> None:
        trial = Run()
        trial.book.gates["commit"] = gate = asyncio.Event()
        commit = asyncio.ensure_future(trial.commits.commit())
        await trial.until(("commit", {"out": 0}, {"part": 1}))
        rounds = 0
        while trial.commits.has_room:
            rounds += 1
            trial.commits.settle(Settlement(None, [Request(f"http://a/{number}") for number in range(1000)]))
        assert rounds == 20
        gate.set()
        await commit
        assert trial.commits.has_room

    run(main)
