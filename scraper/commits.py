"""Group commits: outputs are written, then the frontier is told how far they reach, over and over.

The order is the promise: a page's records are in the output's buffer in the same instant in which the page is settled;
a commit first writes the buffers and then has the frontier make everything settled so far durable together with the
outputs' lengths. What is settled while that is under way is held back until the next round. So a crash at any instant
leaves outputs that reach at least as far as the frontier says, and what goes beyond is cut off on resume.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from scraper.contracts import Checkpoint, Exporter, Frontier, Settlement
from scraper.items import Items, Page

INTERVAL_S = 0.5
BLOCK_BYTES = 256 * 1024


class Commits:
    """Applies settlements to the frontier and records to the outputs, and commits both together now and then.

    A commit begins ``INTERVAL_S`` after the first change or as soon as ``BLOCK_BYTES`` of records wait. ``applied`` is
    called after settlements that had been held back are applied.
    """

    def __init__(
        self, frontier: Frontier, items: Items, exporters: Sequence[Exporter], applied: Callable[[], None]
    ) -> None:
        self._frontier = frontier
        self._items = items
        self._exporters = exporters
        self._applied = applied
        self._held: list[tuple[Settlement, Page | None]] = []
        self._committing = False
        self._dirty = asyncio.Event()
        self._full = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether every settlement has been applied."""
        return not self._held

    def settle(self, settlement: Settlement, page: Page | None = None) -> None:
        """Apply a settlement and write its page's records, now or right after the commit under way."""
        if self._committing:
            self._held.append((settlement, page))
        else:
            self._apply(settlement, page)
        self._dirty.set()

    async def run(self) -> None:
        """Commit until cancelled. Raises OutputError where an output cannot be written."""
        while True:
            await self._dirty.wait()
            try:
                async with asyncio.timeout(INTERVAL_S):
                    await self._full.wait()
            except TimeoutError:
                pass
            await self.commit()

    async def commit(self) -> None:
        """Write what is buffered and commit it. Raises OutputError."""
        self._dirty.clear()
        self._full.clear()
        self._committing = True
        try:
            outputs = {exporter.name: await exporter.flush() for exporter in self._exporters}
            await self._frontier.commit(Checkpoint(outputs))
        finally:
            self._committing = False
            held, self._held = self._held, []
            for settlement, page in held:
                self._apply(settlement, page)
            self._applied()

    def _apply(self, settlement: Settlement, page: Page | None) -> None:
        if page is not None:
            self._items.write(page)
            if self._items.unwritten >= BLOCK_BYTES:
                self._full.set()
        if settlement.lease is not None or settlement.children:
            self._frontier.settle(settlement)
