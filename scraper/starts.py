"""The spider's start requests: ``start()`` is pulled while the crawl has room, also where it never ends.

What a resumed run has taken in already is skipped: ``start()`` is expected to yield the same in the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from inspect import isawaitable
from math import inf
from typing import Any

from scraper.callbacks import iterate
from scraper.contracts import Frontier, Settlement
from scraper.errors import RequestError, SpiderError
from scraper.http import Request
from scraper.items import Page
from scraper.spider import Spider

_BATCH = 100
_MOST_WAITING = 10_000  # requests up to which start() is pulled while slots are idle
_PATIENCE_S = 0.5  # for which most slots are idle before start() is pulled in search of hosts to use them


class Starts:
    """Takes in what ``start()`` yields, in order.

    ``check(request)`` raises RequestError where one is not fit to be taken; ``refuse`` is told of it, and the rest goes on.
    ``meet(request)`` is told the first of each run of one host.
    ``take_item(value, number)`` takes anything else: its page is to be complete before the next value is taken.
    """

    def __init__(
        self,
        spider: Spider,
        frontier: Frontier,
        settle: Callable[[Settlement], None],
        check: Callable[[Request], None],
        meet: Callable[[Request], None],
        take_item: Callable[[Any, int], Page],
        refuse: Callable[[RequestError], None],
        has_room: Callable[[], bool],
        wake: Callable[[], None],
        *,
        concurrency: int,
        clock: Callable[[], float],
    ) -> None:
        self._spider = spider
        self._frontier = frontier
        self._settle = settle
        self._check = check
        self._meet = meet
        self._take_item = take_item
        self._refuse = refuse
        self._has_room = has_room
        self._wake = wake
        self._concurrency = concurrency
        self._clock = clock
        self._wanted = asyncio.Event()
        self._is_stopped = False
        self._host = ""
        self._new: list[Request] = []
        self._idle_slots = 0
        self._idle_since = inf
        self._timer: asyncio.TimerHandle | None = None
        self.taken = 0
        """Values taken, skipped ones included."""
        self.is_over = False
        """Whether ``start()`` has nothing more to give."""

    async def pull(self) -> None:
        """Take in all of ``start()``, or what comes until ``stop``. Raises what it raises, SpiderError and StateError."""
        skip = await self._frontier.begin_start()
        if skip is None:
            self.is_over = True
            return
        room = 0
        values = self._spider.start()
        if isawaitable(values) and not isinstance(values, AsyncIterable):
            values = await values
        if values is None:  # a forgotten yield
            raise SpiderError("start() gave None: yield the requests, or return a list of them")
        async for value in values if isinstance(values, AsyncIterable) else iterate(values):
            if self.taken < skip:
                self.taken += 1
            else:
                while not room and not self._is_stopped:
                    room = self._room()
                    if not room:
                        await self._wait()
                if self._is_stopped:
                    return
                room -= 1
                page = None
                try:
                    page = self._take(value)
                except RequestError as error:
                    if not self.taken:
                        raise  # nothing has been requested: it is a mistake of the spider's
                    self._refuse(error)
                self.taken += 1
                while page is not None and not page.complete:
                    await self._wait()
            if self.taken % _BATCH == 0:
                await asyncio.sleep(0)
        self.end()

    def end(self) -> None:
        """Have it kept that ``start()`` is over: a resumed run does not begin it again."""
        self.is_over = True
        self._settle_new()
        self._settle(Settlement(None, start_over=True))

    def stop(self) -> None:
        """Take no more."""
        self._is_stopped = True
        self._wanted.set()
        if self._timer is not None:
            self._timer.cancel()

    def look(self, idle_slots: int, *, is_busy: bool) -> None:
        """Go on if there is room now: not for one or two, to wake the task takes as long as to take in a request.

        ``idle_slots`` are those that nothing that waits can use, where they are most; ``is_busy`` says whether others are used.
        """
        self._idle_slots = idle_slots
        if not idle_slots:
            self._idle_since = inf
        elif is_busy:
            now = self._clock()
            self._idle_since = min(self._idle_since, now)
            if now < self._idle_since + _PATIENCE_S:
                self._idle_slots = 0
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(_PATIENCE_S, self._look_again)
        if self._room() > self._concurrency // 2:
            self._wanted.set()

    def _look_again(self) -> None:
        self._timer = None
        self._wake()

    def go_on(self) -> None:
        """Go on: an item's page is complete."""
        self._wanted.set()

    async def _wait(self) -> None:
        self._wanted.clear()
        await self._wanted.wait()

    def _room(self) -> int:
        """How many values may be taken now: as far as the crawl has room; and while slots are idle, for all that is pending
        waits for its hosts, in search of others: no more at a time than there are slots, up to a bound.
        """
        if not self._has_room():
            return 0
        pending = self._frontier.counts.pending + len(self._new)
        room = 2 * self._concurrency - pending
        if self._idle_slots > 0:
            room = max(room, min(self._idle_slots, _MOST_WAITING - pending))
        return max(room, 0)

    def _take(self, value: Any) -> Page | None:
        """Take in a request; or an item, whose page is to be complete before the next value is taken."""
        if not isinstance(value, Request):
            self._settle_new()
            return self._take_item(value, self.taken + 1)
        request = value
        self._check(request)
        request.is_start = True
        if request.host != self._host:
            self._host = request.host
            self._meet(request)
        self._idle_slots -= 1
        if not self._new:
            asyncio.get_running_loop().call_soon(self._settle_new)
        self._new.append(request)
        return None

    def _settle_new(self) -> None:
        """Take in the requests that came in this turn of the event loop: as one settlement, in half the time."""
        if self._new:
            new, self._new = self._new, []
            self._settle(Settlement(None, new, starts=len(new)))
