"""Holds the shards of a run together: starts them, starts one again that dies, carries their messages, ends the run.

All messages between two shards pass here, each way in order. So the run is over exactly when every shard has said that it
has nothing to do since the last chunk that was carried to it: none can be on its way then, for a shard with a chunk that is
not confirmed does not say so.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import aiomultiprocess
import msgspec
from aiomultiprocess.types import Unit
from msgspec.structs import replace

from scraper.contracts import Counts
from scraper.crawler import Output, Result, new_loop
from scraper.errors import OutputError, StateError, UsageError
from scraper.frontiers.split import portion
from scraper.log import Log
from scraper.settings import Settings
from scraper.shards.channel import Channel
from scraper.shards.collector import Collector, Note
from scraper.shards.feed import Feed
from scraper.shards.forkserver import METHOD, prepare, signals_held_back
from scraper.shards.tally import Tally
from scraper.shards.worker import PART, Plan, work
from scraper.stats import Stats, peak_rss_mb

NOTE = "whole.json"
_PAUSES_S = (0.0, 0.1, 0.4, 1.0, 3.0)  # before a shard is started again, by its deaths in a row
_UNWRITABLE = ("output", "state")
_LASTING_S = 10.0  # a shard that was up for so long has made progress
_GRACE_S = 1.0  # for the shards to end at once


class Named(Protocol):
    """A spider, as far as its name goes: it runs in the shards."""

    name: str


class Shards:
    """One run over ``plan.count`` processes, for whom ``plan`` is the pattern. Runs in an event loop, once, as a Crawler does.

    ``folders`` keep the shards' state; ``folder`` that of the whole.
    """

    def __init__(
        self,
        spider: Named,
        settings: Settings,
        plan: Plan,
        *,
        folder: Path,
        folders: Sequence[Path],
        outputs: Sequence[Output],
        log: Log,
        write: Callable[[str], None],
    ) -> None:
        self.spider = spider
        self.log = log.bind(spider=spider.name)
        self._write = write
        self._limits = settings.crawl
        self._members = [
            _Member(self, replace(plan, index=index, folder=str(path), writes=bool(outputs)))
            for index, path in enumerate(folders)
        ]
        self._collector = Collector(
            outputs,
            [path / PART for path in folders],
            folder / NOTE,
            csv_formulas=settings.items.csv_formulas,
            sync=settings.frontier.durability == "full",
            keep=self._note,
            warn=self.log.warning,
        )
        self._tally = Tally(self._limits.max_pages, len(folders))
        self._facts: dict[str, Any] = {}
        self._feed = Feed()
        self._refusal = ""
        self._is_over = False
        self._has_failed = False
        self._retries_failed = False
        self._earlier_s = 0.0
        self.earlier_pages = 0
        """Those of ``stats.pages`` that an earlier run's processes fetched."""
        self._began: float | None = None
        self._over: float | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._ended = asyncio.Event()
        self.reason = ""

    # -- what a Crawler shows of itself ----------------------------------------------------------------------------------

    @property
    def stats(self) -> Stats:
        """The counts of all shards together."""
        stats = Stats()
        for member in self._members:
            kept = member.report.get("stats")
            if kept:
                _add(stats, kept)
        return stats

    @property
    def counts(self) -> Counts:
        """The frontiers' counts, added up."""
        found = [member.report["counts"] for member in self._members if member.report]
        return Counts(*map(sum, zip(*found, strict=True))) if found else Counts()

    @property
    def in_flight(self) -> int:
        """Requests being fetched now."""
        return sum(member.report.get("in_flight", 0) for member in self._members)

    @property
    def busy_hosts(self) -> int:
        """Hosts being asked now; one that several shards ask counts for each."""
        return sum(member.report.get("hosts", 0) for member in self._members)

    def stop(self, reason: str) -> None:
        """Begin no more fetches; the run ends when what is under way has ended. The first reason stays."""
        if not self.reason:
            self.reason = reason
            for member in self._members:
                member.stop(reason)

    def kill(self) -> None:
        """End at once; what is under way stays pending."""
        self.stop("killed")
        for member in self._members:
            member.channel.send("kill")
        asyncio.get_running_loop().call_later(_GRACE_S, self._kill_hard)

    async def run(self, *, retry_failed: bool = False) -> Result:
        """Run to the end. Raises UsageError where a shard, an output or the spider cannot start."""
        loop = asyncio.get_running_loop()
        self._retries_failed = retry_failed
        await self._collector.open()
        self._earlier_s = self._collector.note.elapsed_s
        self._has_failed = self._collector.note.broken and not retry_failed
        collecting = loop.create_task(self._collect())
        try:
            for member in self._members:
                await member.start(retry_failed=retry_failed)
            await self._ended.wait()
        except OSError as error:
            self._refusal = f"cannot start a process: {error.strerror}"
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self._kill_hard()
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)
        if self._refusal:
            await self._collector.close()
            raise UsageError(self._refusal)
        self._over = self._over or time.monotonic()
        await self._finish()
        counts, reason = self.counts, self.reason or "finished"
        if counts.seeded != counts.done + counts.failed + counts.pending:
            self._fail("the frontiers' counts do not add up", counts=str(counts))
        return Result(reason, self.summary(reason), broken=self._is_broken, written=self._collector.written)

    def summary(self, reason: str = "") -> dict[str, Any]:
        """Return the summary of the whole run as of now; memory is that of all processes together."""
        found = self.stats.summary(self.spider.name, reason, self._elapsed_s, self.counts)
        memory = peak_rss_mb() + sum(member.report.get("memory", 0.0) for member in self._members)
        return {**found, "peak_rss_mb": round(memory, 1), "shards": len(self._members)}

    @property
    def _elapsed_s(self) -> float:
        """Seconds of crawling, as of one process: without what the shards import first and what is closed after the end."""
        if self._began is None:
            return self._earlier_s
        return self._earlier_s + (self._over or time.monotonic()) - self._began

    @property
    def _is_broken(self) -> bool:
        return self._has_failed or any(member.report.get("is_broken") for member in self._members)

    @property
    def _reasons(self) -> list[str]:
        return [member.report.get("reason", "") for member in self._members]

    # -- the outputs -----------------------------------------------------------------------------------------------------

    async def _collect(self) -> None:
        try:
            await self._collector.run()
        except (OutputError, StateError) as error:
            self._cannot_write(error)

    async def _finish(self) -> None:
        try:
            if self.reason not in _UNWRITABLE:
                await self._collector.collect()
            await self._collector.close()
        except (OutputError, StateError) as error:
            self._cannot_write(error)

    def _cannot_write(self, error: Exception) -> None:
        self._fail(str(error))
        self.reason = "state" if isinstance(error, StateError) else "output"
        self.kill()

    def _note(self, note: Note) -> None:
        note.elapsed_s = self._elapsed_s
        # What could not be written comes again: once it can be, a resumed run is whole.
        if not any(reason in _UNWRITABLE for reason in (self.reason, *self._reasons)):
            note.broken = self._is_broken

    def _fail(self, message: str, **details: Any) -> None:
        self._has_failed = True
        self.log.error(message, **details)

    # -- the shards ------------------------------------------------------------------------------------------------------

    @property
    def is_refused(self) -> bool:
        """Whether nothing was requested, because of a mistake."""
        return bool(self._refusal)

    def take(self, sender: _Member, kind: str, values: list[Any]) -> None:
        """Take a message of a shard."""
        match kind:
            case "state":
                self._state(sender, values[0])
            case "chunk":
                place, number, chunk = values
                receiver = self._members[place]
                if receiver.is_up:
                    self._feed.carried(sender.plan.index, place)
                    receiver.carried += 1
                    receiver.channel.send("chunk", sender.plan.index, number, chunk)
            case "fetch":
                place, number, request = values
                if self._members[place].has_ended:
                    sender.channel.send("down", place)
                elif self._members[place].is_up:
                    self._members[place].channel.send("fetch", sender.plan.index, number, request)
            case "fetched":
                self._members[values[0]].channel.send("fetched", *values[1:])
            case "taken":
                place, number = values
                self._members[place].channel.send("taken", sender.plan.index, number)
            case "facts":
                self._spread(sender, values[0])
            case "pause":
                for other in self._others(sender):
                    other.channel.send("pause", *values)
            case "want":
                self._tally.want(sender.plan.index)
                self._grant()
            case "back":
                self._tally.back(sender.plan.index, values[0])
                self._grant()
            case "hungry":
                self._feed.hungry(sender.plan.index, values[0])
                self._pass_on()
            case "gave":
                self._feed.gave(sender.plan.index, *values)
            case "log":
                self._write(values[0])
            case "failed":
                self._fail(f"shard {sender.plan.index} failed: {values[0]}")
            case "ready":
                self._came_up(sender, values[0])
            case "refused":
                sender.has_ended = True
                self._refused(values[0])
            case "ended":
                sender.has_ended = True
                if not self.reason and not self._is_over:
                    self.stop(values[0])

    def died(self, member: _Member) -> None:
        """A shard's process has ended: start it again, unless it was to end, or does nothing but die."""
        self._feed.died(member.plan.index)
        self._tally.died(member.plan.index)
        if member.has_ended or self.reason or self._is_over or self._refusal:
            member.has_ended = True
        elif member.deaths >= len(_PAUSES_S):
            member.has_ended = True
            self._fail(f"shard {member.plan.index} died {member.deaths} times in a row ({member.fate}): the run ends")
            self.stop("a shard dies again and again")
        else:
            pause_s = _PAUSES_S[member.deaths - 1]
            self.log.warning(f"shard {member.plan.index} died ({member.fate}) and is started again", after_s=pause_s)
            member.start_later(pause_s)
        if member.has_ended:
            for other in self._others(member):
                other.channel.send("down", member.plan.index)
            self._let_leave()
        if all(each.has_ended and not each.is_running for each in self._members):
            self._ended.set()

    def _state(self, sender: _Member, report: dict[str, Any]) -> None:
        if not sender.report:  # that of its first commit, or of 0.1 s later
            self.earlier_pages += report["stats"]["pages"]
        sender.report = report
        sender.waiting = report["waiting"]
        self._pass_on()
        try:
            self._collector.grew(sender.plan.index, report["length"])
        except StateError as error:
            self._cannot_write(error)
            return
        limits = self._limits
        if report["reason"] and not self.reason:
            self.stop(report["reason"])
        if limits.max_pages:
            if sender.has_reported:
                self._tally.stirred(sender.plan.index)
            else:
                self._tally.joined(sender.plan.index, report["stats"]["pages"])
            self._grant()
        sender.has_reported = True
        if limits.max_pages or limits.max_items or limits.max_errors:
            stats = [member.report["stats"] for member in self._members if member.report]
            if limits.max_pages and sum(each["pages"] for each in stats) >= limits.max_pages:
                self.stop("max_pages")
            if limits.max_items and sum(each["items"] for each in stats) >= limits.max_items:
                self.stop("max_items")
            if limits.max_errors and sum(each["errors"] for each in stats) >= limits.max_errors:
                self.stop("max_errors")
        if not (self.reason or self._is_over) and all(member.is_idle for member in self._members):
            self._is_over = True
            self._over = time.monotonic()
            for member in self._members:
                member.channel.send("over")
        self._let_leave()

    def _let_leave(self) -> None:
        """Have the shards of a stopped run end: when all have drained, no callback awaits what another is to fetch."""
        if self.reason and all(member.has_drained for member in self._members):
            self._over = self._over or time.monotonic()
            for member in self._members:
                member.channel.send("leave")

    def _came_up(self, member: _Member, facts: dict[str, Any]) -> None:
        """A shard has its state open: tell it what the others know, and all of them that they may send to each other."""
        if self._began is None:
            self._began = time.monotonic()
            if self._limits.max_seconds:
                loop = asyncio.get_running_loop()
                self._deadline = loop.call_later(self._limits.max_seconds, self.stop, "max_seconds")
        self._spread(member, facts)
        if self._facts:
            member.channel.send("facts", self._facts)
        member.is_up = True
        for other in self._others(member):
            if other.is_up:
                other.channel.send("up", member.plan.index)
                member.channel.send("up", other.plan.index)

    def _spread(self, sender: _Member, facts: dict[str, Any]) -> None:
        new = {name: value for name, value in facts.items() if self._facts.get(name) != value}
        if new:
            self._facts.update(new)
            for other in self._others(sender):
                if other.is_up:
                    other.channel.send("facts", new)

    def _others(self, member: _Member) -> list[_Member]:
        return [each for each in self._members if each is not member]

    def _grant(self) -> None:
        """Let shards fetch more pages, and ask for what others do not need where there are no more to give."""
        grants, recalls = self._tally.decide()
        for index, pages in grants:
            self._members[index].channel.send("grant", pages)
        for index in recalls:
            self._members[index].channel.send("recall")

    def _pass_on(self) -> None:
        """Have those who have nothing to do get some of what waits at others."""
        for giver, place, free in self._feed.decide([member.waiting for member in self._members]):
            self._members[giver].waiting -= portion(self._members[giver].waiting, free)
            self._members[giver].channel.send("give", place, free)

    def _refused(self, message: str) -> None:
        """A shard cannot start: nothing was requested, or else the run ends as it is."""
        if any(member.report and member.report["stats"]["requests"] for member in self._members):
            self._fail(message)
            self.stop("a shard cannot start")
            return
        self._refusal = self._refusal or message
        self._kill_hard()

    def _kill_hard(self) -> None:
        for member in self._members:
            member.kill()


class _Member:
    """One shard as the supervisor sees it: its process, the channel to it, and what it said last."""

    def __init__(self, shards: Shards, plan: Plan) -> None:
        self._shards = shards
        self.plan = plan
        self.channel = Channel(self._take, self._lost)
        self.report: dict[str, Any] = {}
        self.is_up = False
        self.is_running = False
        self.has_reported = False
        self.has_ended = False
        self.carried = 0
        self.waiting = 0
        self.deaths = 0
        self._process: _Process | None = None
        self._later: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[None] | None = None
        self._left = 0
        self._settled = -1
        self._began = 0.0
        self._problem = ""

    @property
    def is_idle(self) -> bool:
        """Whether it has had nothing to do since the last chunk that was carried to it, by a report of this very process.

        What one that was killed had said last may be older than what it had committed since.
        """
        said_so = self.is_up and self.has_reported and self.report["is_idle"]
        return bool(said_so and self.report["seen"] == self.carried)

    @property
    def has_drained(self) -> bool:
        """Whether nothing is under way in it any more that was when the run was stopped."""
        return self.has_ended or bool(self.has_reported and self.report["has_drained"])

    @property
    def fate(self) -> str:
        """How its process ended."""
        if self._problem:
            return self._problem
        status = self._process.exitcode if self._process is not None else None
        if status is not None and status < 0:
            return f"killed by {signal.Signals(-status).name}"
        return f"status {status}"

    async def start(self, *, retry_failed: bool = False) -> None:
        """Start the process, unless the run has come to its end already."""
        if self._shards.is_refused:
            self.has_ended = True
            self._shards.died(self)
            return
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.channel = Channel(self._take, self._lost)
        self._settled, self._began, self._problem = self._progress, time.monotonic(), ""
        plan = msgspec.msgpack.encode(replace(self.plan, retry_failed=retry_failed))
        self._process = process = _Process(work, (plan, theirs))
        with theirs:
            try:
                process.start()
            except OSError:
                ours.close()
                raise
        self.is_running = True
        self._left = 2
        loop.add_reader(process.sentinel, self._gone, process)
        await self.channel.open(ours)
        if self._shards.reason:
            self.channel.send("stop", self._shards.reason)

    def start_later(self, pause_s: float) -> None:
        """Start the process again after a while."""

        def start() -> None:
            self._later = None
            self._starting = asyncio.ensure_future(self._start_again())

        self._later = asyncio.get_running_loop().call_later(pause_s, start)

    async def _start_again(self) -> None:
        try:
            await self.start()
        except OSError as error:
            self.deaths += 1
            self._problem = f"cannot start a process: {error.strerror}"
            self._shards.died(self)

    def stop(self, reason: str) -> None:
        """Have it begin no more fetches; one that waits to be started has ended."""
        self.channel.send("stop", reason)
        if self._later is not None:
            self._later.cancel()
            self._later = None
            self.has_ended = True
            asyncio.get_running_loop().call_soon(self._shards.died, self)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None and self.is_running:
            self._process.kill()

    @property
    def _progress(self) -> int:
        counts = self.report.get("counts", (0, 0, 0))
        return int(counts[1] + counts[2])

    def _take(self, kind: str, values: list[Any]) -> None:
        self._shards.take(self, kind, values)

    def _gone(self, process: _Process) -> None:
        asyncio.get_running_loop().remove_reader(process.sentinel)
        process.reap()
        self._lost()

    def _lost(self) -> None:
        """The process has ended, or all it said has come: both make its death."""
        self._left -= 1
        if self._left:
            return
        self.is_running = self.is_up = self.has_reported = False
        self.carried = 0
        has_lasted = time.monotonic() - self._began > _LASTING_S
        self.deaths = 1 if has_lasted or self._progress > self._settled else self.deaths + 1
        self._shards.died(self)


class _Process(aiomultiprocess.Process):  # type: ignore[misc]
    """A process with an event loop of its own. It begins with SIGINT and SIGTERM held back.

    Unlike its base it has no manager: that is one more process, of use for results alone, which outlives a parent that
    is killed.
    """

    def __init__(self, target: Callable[..., Coroutine[Any, Any, None]], args: Sequence[Any]) -> None:
        self.unit = Unit(target, args, {}, None, None, (), new_loop)
        context: Any = get_context(METHOD)
        self.aio_process = context.Process(target=self.run_async, args=(self.unit,))

    def start(self) -> None:
        """Start it. Raises OSError where that is not possible."""
        prepare()
        try:
            with signals_held_back():
                super().start()
        except EOFError:
            raise OSError(0, "the one that it is forked off has ended") from None

    @property
    def sentinel(self) -> int:
        """A file descriptor that becomes readable when the process has ended."""
        found: int = self.aio_process.sentinel
        return found

    def reap(self) -> None:
        """Take note of the end of a process that has ended."""
        self.aio_process.join()


def _add(stats: Stats, kept: dict[str, Any]) -> None:
    """Add a shard's counts; of the spider's own, numbers are added, and of others the last one stays."""
    for name, value in kept.items():
        own = getattr(stats, name)
        if isinstance(value, dict):
            for key, each in value.items():
                is_number = isinstance(each, (int, float)) and not isinstance(each, bool)
                place = int(key) if name == "statuses" else key
                former = own.get(place)
                adds = is_number and isinstance(former, (int, float)) and not isinstance(former, bool)
                own[place] = former + each if adds else each
        else:
            setattr(stats, name, own + value)
