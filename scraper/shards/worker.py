"""What runs in each shard's process: the user's spider in an ordinary Crawler, told by the supervisor what concerns all."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from scraper.crawler import Crawler, Output, Shard, calm_collector, load_settings
from scraper.demo.start import start_at
from scraper.errors import FetchError, ScraperError, UsageError, story_of
from scraper.frontiers import codec
from scraper.http import Response
from scraper.jobs import BEGUN
from scraper.layers import option_layer
from scraper.loader import load_spider
from scraper.log import Log, take_over
from scraper.shards.budget import make_split, part_of
from scraper.shards.channel import Channel
from scraper.shards.errand import pack, unpack
from scraper.spider import make_spider
from scraper.stats import peak_rss_mb

if TYPE_CHECKING:
    from scraper.frontiers.sharded import ShardFrontier

PART = "items.jsonl"
LOCK = "lock"
_LOOK_EVERY_S = 0.5
_REPORT_EVERY_S = 0.1  # where nobody waits for it


class Plan(Struct, frozen=True):
    """What a shard is to do. ``folder`` keeps its state; ``base`` is the demo's address, where that is crawled.

    With ``prints_aside`` standard output is for items: what the spider prints goes to standard error.
    """

    index: int
    count: int
    by: Literal["host", "url"]
    target: str
    arguments: Mapping[str, str]
    options: list[str]
    folder: str
    writes: bool
    level: str
    style: str
    base: str = ""
    retry_failed: bool = False
    prints_aside: bool = False


async def work(plan: bytes, end: socket.socket) -> None:
    """Run one shard to its end: the target of its process. ``plan`` is a Plan as MessagePack."""
    # Ctrl-C goes to the whole group of processes; what is to be done about it the supervisor says.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    calm_collector()
    decoded = msgspec.msgpack.decode(plan, type=Plan)
    if decoded.prints_aside:
        sys.stdout = sys.stderr
    await _Worker(decoded).run(end)


class _Worker:
    """Carries messages between the supervisor and the crawl."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._channel = Channel(self._take, self._alone)
        self._crawler: Crawler | None = None
        self._is_done = False
        self._early: list[tuple[str, list[Any]]] = []
        self._shown: tuple[int, int] = (0, 0)
        self._length = -1
        self._is_limited = False
        self._due: asyncio.TimerHandle | None = None
        self._errands: list[tuple[int, int, bytes]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, end: socket.socket) -> None:
        plan, send = self._plan, self._channel.send
        await self._channel.open(end)
        folder = Path(plan.folder)
        try:
            with (folder / LOCK).open("a") as lock:
                # One that an earlier supervisor left behind when it was killed ends as soon as it notices.
                await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
                self._crawler = crawler = self._make(folder)
                for kind, values in self._early:
                    self._take(kind, values)
                self._look()
                result = await crawler.run(retry_failed=plan.retry_failed)
            self._is_done = True
            self._report({"": self._length})
            send("ended", result.reason, result.broken)
        except UsageError as error:
            send("refused", str(error))
        except OSError as error:
            send("refused", f"cannot keep the run's state in {folder}: {error.strerror}")
        except Exception as error:
            send("failed", story_of(error))
        self._is_done = True
        for task in self._tasks:
            task.cancel()
        await self._channel.close()

    def _make(self, folder: Path) -> Crawler:
        plan = self._plan
        cls = load_spider(plan.target, Path.cwd())
        spider = make_spider(cls, plan.arguments)
        if plan.base:
            start_at(spider, plan.base)
        settings = load_settings(cls, [option_layer(plan.options)])
        limits = settings.crawl
        self._is_limited = bool(limits.max_pages or limits.max_items or limits.max_errors)
        split = make_split(plan.index, plan.count, plan.by, settings)
        log = Log(plan.level, plan.style, partial(self._tell, asyncio.get_running_loop()))
        take_over(log)
        return Crawler(
            spider,
            part_of(settings, split),
            outputs=[Output(str(folder / PART))] if plan.writes else [],
            state=folder,
            shard=Shard(split, self._channel.send, self._report, bool(settings.crawl.max_pages)),
            log=log.bind(shard=plan.index),
        )

    def _tell(self, loop: asyncio.AbstractEventLoop, line: str) -> None:
        """Have a line logged; it may come from a thread of the spider's."""
        if threading.current_thread() is threading.main_thread():
            self._channel.send("log", line)
        else:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._channel.send, "log", line)

    def _report(self, outputs: Mapping[str, int]) -> None:
        """Tell the supervisor how things stand, as of the last commit."""
        crawler = self._crawler
        if crawler is None or crawler.sharded is None:
            return
        if self._length < 0:  # with the first commit, before anything is fetched, the state has begun to be one
            (Path(self._plan.folder) / BEGUN).touch()
        self._length = sum(outputs.values())
        if self._errands:
            asyncio.get_running_loop().call_soon(self._run_errands)
        if crawler.sharded.is_idle or crawler.sharded.has_drained or self._is_limited or self._is_done:
            self._send_report(crawler, crawler.sharded)
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(
                _REPORT_EVERY_S, self._send_report, crawler, crawler.sharded
            )

    def _send_report(self, crawler: Crawler, sharded: ShardFrontier) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        counts = crawler.counts
        phantom = int(not sharded.is_over)
        self._shown = (crawler.stats.requests, crawler.in_flight)
        self._channel.send(
            "state",
            {
                "counts": (
                    counts.seeded - phantom,
                    counts.done,
                    counts.failed,
                    counts.pending - phantom,
                    counts.filtered,
                ),
                "stats": crawler.stats.changes()["stats"],
                "in_flight": crawler.in_flight,
                "hosts": crawler.busy_hosts,
                "memory": peak_rss_mb(),
                "length": self._length,
                "waiting": sharded.waiting,
                "is_idle": sharded.is_idle,
                "seen": sharded.seen,
                "has_drained": sharded.has_drained,
                "reason": crawler.reason,
                "is_broken": crawler.is_broken,
            },
        )

    def _look(self) -> None:
        """Have the progress shown be that of now, also where nothing is committed for a while."""
        crawler = self._crawler
        if crawler is not None and not self._is_done:
            if self._length >= 0 and self._shown != (crawler.stats.requests, crawler.in_flight):
                self._report({"": self._length})
            asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _take(self, kind: str, values: list[Any]) -> None:
        crawler = self._crawler
        if crawler is None or crawler.sharded is None:
            self._early.append((kind, values))
            return
        sharded = crawler.sharded
        if crawler.has_ended and kind != "kill":
            if kind == "give":
                self._channel.send("gave", values[0], 0)
            return  # its hosts are closed; what is to last is sent again to the next process
        match kind:
            case "chunk":
                sharded.arrived(*values)
            case "taken":
                sharded.confirmed(*values)
            case "up":
                sharded.came_up(*values)
            case "facts":
                sharded.learn(*values)
            case "fetch":
                self._errands.append((values[0], values[1], values[2]))
                if self._length >= 0:
                    self._run_errands()
            case "fetched":
                sharded.fetched(values[0], partial(unpack, values[1]))
            case "down":
                # What that shard was to fetch nobody will: the pages that wait for it come again.
                if sharded.awaits(values[0]):
                    crawler.kill()
            case "give":
                sharded.give(*values)
            case "pause":
                sharded.pause(*values)
            case "grant":
                sharded.grant(*values)
            case "recall":
                sharded.give_back()
            case "leave":
                sharded.leave()
            case "over":
                sharded.end()
            case "stop":
                crawler.stop(*values)
            case "kill":
                crawler.kill()

    def _run_errands(self) -> None:
        """Fetch what callbacks in other shards await, now that the crawl runs."""
        errands, self._errands = self._errands, []
        for errand in errands:
            task = asyncio.ensure_future(self._fetch(*errand))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fetch(self, source: int, number: int, data: bytes) -> None:
        """Fetch for a callback in another shard, and answer whatever comes of it: it waits for that alone.

        No answer where the crawl has ended here: it hears that this shard is down, and its page comes again.
        """
        assert self._crawler is not None
        if self._crawler.has_ended:
            return
        request = codec.decode(data)
        try:
            try:
                outcome: Response | FetchError = await self._crawler.fetch(request)
            except FetchError as error:
                outcome = error
            self._channel.send("fetched", source, number, pack(outcome, request))
        except Exception as error:
            answer = FetchError(request.url, str(error) if isinstance(error, ScraperError) else story_of(error))
            self._channel.send("fetched", source, number, pack(answer, request))

    def _alone(self) -> None:
        """The supervisor is gone: whoever resumes the run finds what is committed, and this process out of the way."""
        if not self._is_done:
            os._exit(1)
