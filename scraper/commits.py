"""Group commits: outputs are written, then the frontier is told how far they reach, over and over.

The order is the promise: a page's records are in the output's buffer in the same instant in which the page is settled;
a commit first writes the buffers and then has the frontier make everything settled so far durable together with the
outputs' lengths. What is settled while that is under way is held back until the next round. So a crash at any instant
leaves outputs that reach at least as far as the frontier says, and what goes beyond is cut off on resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from scraper.contracts import Checkpoint, Frontier, Settlement, Stateful
from scraper.errors import StateError, story_of
from scraper.items import Items, Page

INTERVAL_S = 0.5
BLOCK_BYTES = 256 * 1024
DURABLE_INTERVAL_S = 0.05
HURRY_S = 0.01
_MAX_HELD = 20_000  # requests that what is held back leads to, past which callbacks and fetches wait


class Commits:
    """Applies settlements to the frontier and records to the outputs, and commits both together now and then.

    Where nothing outlives the process, a commit begins half a second after the first change or as soon as 256 KiB of
    records wait. With a durable frontier it begins after 50 ms, or when ``max_uncommitted`` requests have been settled:
    these are what a crash would have fetched again, so they count towards the run's concurrency. ``applied`` is called
    when a commit has ended.
    """

    def __init__(
        self,
        frontier: Frontier,
        items: Items,
        stateful: Sequence[Stateful],
        applied: Callable[[], None],
        *,
        max_uncommitted: int,
        sync: bool,
    ) -> None:
        self._frontier = frontier
        self._items = items
        self._stateful = stateful
        self._applied = applied
        self._block = min(BLOCK_BYTES, items.max_buffer)
        self._max_uncommitted = max_uncommitted
        self._sync = sync
        self._interval_s = DURABLE_INTERVAL_S if frontier.durable else INTERVAL_S
        self._held: list[tuple[Settlement, Page | None]] = []
        self._held_children = 0
        self._committing = False
        self._unfit: StateError | None = None
        self._dirty = asyncio.Event()
        self._full = asyncio.Event()
        self._hurry: asyncio.TimerHandle | None = None
        self.uncommitted = 0
        """Requests settled since the last commit that has ended; always 0 where nothing is durable."""

    @property
    def idle(self) -> bool:
        """Whether every settlement has been applied."""
        return not self._held

    @property
    def has_room(self) -> bool:
        """Whether more may be settled: what a page with endless links leads to is held back while a commit is under way."""
        return self._held_children < _MAX_HELD

    def settle(self, settlement: Settlement, page: Page | None = None) -> None:
        """Apply a settlement and write its page's records, now or right after the commit under way."""
        if self._frontier.durable and settlement.lease is not None:
            self.uncommitted += 1
        if self._committing:
            self._held.append((settlement, page))
            self._held_children += len(settlement.children)
        else:
            self._apply(settlement, page)
        self._dirty.set()

    def hurry(self) -> None:
        """Have what has changed committed within 10 ms: somebody has nothing to do until it is."""
        if self._hurry is None:
            self._hurry = asyncio.get_running_loop().call_later(HURRY_S, self._full.set)

    async def begin(self) -> None:
        """Commit how the outputs stand before anything is written to them."""
        with self._held_back():
            await self._frontier.commit(Checkpoint(self._items.lengths, self._changes()))

    async def run(self) -> None:
        """Commit until cancelled. Raises OutputError or StateError where that cannot be written."""
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._full.wait()
            except TimeoutError:
                pass
            commit = asyncio.ensure_future(self.commit())
            try:
                await asyncio.shield(commit)
            except asyncio.CancelledError:
                await commit  # a block cut in the middle would be lost: what has begun is finished first
                raise

    async def commit(self) -> None:
        """Write what is buffered and commit it. Raises OutputError or StateError."""
        if self._unfit is not None:
            raise self._unfit
        self._dirty.clear()
        self._full.clear()
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None
        settled = self.uncommitted
        with self._held_back():
            changes = self._changes()
            outputs = await self._items.flush(sync=self._sync)
            await self._frontier.commit(Checkpoint(outputs, changes))
            self.uncommitted -= settled

    @contextmanager
    def _held_back(self) -> Iterator[None]:
        """Apply what is settled meanwhile only afterwards: no half of it may become durable."""
        self._committing = True
        try:
            yield
        finally:
            self._committing = False
            held, self._held, self._held_children = self._held, [], 0
            for settlement, page in held:
                self._apply(settlement, page)
            self._applied()

    def _apply(self, settlement: Settlement, page: Page | None) -> None:
        if page is not None:
            self._items.write(page)
        if self._items.unwritten >= self._block or self.uncommitted >= self._max_uncommitted:
            self._full.set()
        try:
            self._frontier.settle(settlement)
        except Exception as error:  # half of it may be applied, so nothing may be committed any more
            where = f" of {settlement.lease.request.url}" if settlement.lease is not None else ""
            self._unfit = StateError(f"a request{where} cannot be kept: {story_of(error)}")
            self._full.set()

    def _changes(self) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for part in self._stateful:
            changes.update(part.changes())
        return changes
