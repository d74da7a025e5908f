"""The story of a crawl: requests become tasks, tasks become responses, responses become items and further requests.

    Starts      takes in the spider's start requests as there is room         (starts.py)
    _pump       leases what may go now, as long as there is room              (nothing polls: it runs when something changed)
    _begin      asks the gate (robots.txt), makes the request a task          (tasks do not talk to each other)
    _fetched    the task's done-callback: frees the host, judges the outcome  (a failure is an outcome, it never vanishes)
    _arrived    hands the response to the spider's callback
    _take       takes what the callback yields: items to the pipelines, requests to the page's children
    _settle     one settlement says that the page is done and what it led to

There are two kinds of lease: stored ones, settled in the frontier; and private ones (with a ``waiter``), fetches that
somebody here awaits (``self.fetch``, robots.txt). Those go first, pass backpressure, and are never stored.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from scraper.addresses import AddressGuard
from scraper.callbacks import Callbacks, Checker
from scraper.commits import Commits
from scraper.contracts import Again, Departures, Frontier, Handler, Lease, Settlement, Stateful, Tally
from scraper.errors import (
    CloseSpider,
    FetchError,
    OutOfScope,
    OutputError,
    RequestError,
    SpiderError,
    StateError,
    ordinary,
    shown,
    story_of,
    text_of,
)
from scraper.gate import ROBOTS, Gate
from scraper.http import HttpError, Request, Response
from scraper.items import MAX_CHILDREN, Items, Page, is_item, unfit
from scraper.log import BOUNDS, FailureLog, Log, RefusalLog, current_request
from scraper.politeness.robots import Robots
from scraper.scope import Scope
from scraper.settings import Crawl
from scraper.spider import Failure, Spider
from scraper.starts import Starts
from scraper.stats import Stats
from scraper.urls import hostname_of

_MAX_STORY = 2000  # characters
_GRACE_S = 1.0  # for users' code that is cancelled


class Scheduler:
    """Runs one crawl from its start requests to its end.

    Every part comes in by name; what waits, waits here. ``may_leave`` says whether a stopped crawl may end that has nothing
    under way. Raises nothing into the event loop: each request's outcome is counted, and reaches its errback or the log.
    """

    __slots__ = (  # many attributes: see tests/test_house.py
        *("_callbacks", "_checker", "_clock", "_commits", "_departures", "_fetches", "_frontier", "_gate", "_guard"),
        *("_handle", "_items", "_limits", "_log", "_loop", "_max_buffer", "_parser", "_scope", "_spider", "_stats"),
        *("_cannot_commit", "_elsewhere", "_ended", "_failures", "_fetching_stored", "_held_bytes", "_is_running"),
        *("_open_pages", "_preparing", "_pump_is_due", "_refusals", "_timer", "_timer_at", "_unsent", "_wanted"),
        *("_may_leave", "_starts", "broken", "reason"),
    )

    def __init__(
        self,
        *,
        spider: Spider,
        frontier: Frontier,
        departures: Departures,
        handle: Handler,
        items: Items,
        scope: Scope,
        guard: AddressGuard,
        robots: Robots | None,
        limits: Crawl,
        obeys_robots: Callable[[str], bool] | None,
        max_buffer: int,
        downloaders: Collection[str],
        stateful: Sequence[Stateful],
        sync: bool,
        stats: Stats,
        log: Log,
        may_leave: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spider = spider
        self._frontier = frontier
        self._departures = departures
        self._unsent = departures.unsent
        self._handle = handle
        self._items = items
        self._scope = scope
        self._guard = guard
        self._limits = limits
        self._elsewhere = Tally()
        self._max_buffer = max_buffer
        self._stats = stats
        self._log = log
        self._may_leave = may_leave
        self._clock = clock
        self._wanted = frozenset(spider.handle_httpstatus_list)
        self._loop = asyncio.get_running_loop()
        # Held responses are no reason for a callback to pause: it is the callbacks' end that lets them go.
        self._callbacks = Callbacks(
            self._take,
            self._take_links,
            frontier.knows,
            frontier.unseen,
            self._callback_ended,
            lambda: items.has_room and frontier.has_room and self._commits.has_room,
        )
        self._checker = Checker(spider, downloaders)
        items.bind(self.settle, self.stop, self.wake, self._output_failed)
        self._commits = Commits(
            frontier,
            items,
            stateful,
            self.wake,
            max_uncommitted=max(1, limits.concurrency // 2),
            sync=sync,
        )
        self._starts = Starts(
            spider,
            frontier,
            self._commits.settle,
            self._checker.check,
            self._meet_start,
            self._take_start_item,
            self._refuse_start,
            self._has_room,
            self.wake,
            concurrency=limits.concurrency,
            clock=clock,
        )
        self._fetches: dict[asyncio.Task[Response], Lease] = {}
        self._fetching_stored = 0
        self._gate = Gate(robots, frontier, log, obeys_robots)
        self._failures = FailureLog(log)
        self._parser = ThreadPoolExecutor(1, "parser")
        self._preparing: set[asyncio.Future[None]] = set()
        self._refusals = RefusalLog(log)
        self._open_pages = 0
        self._held_bytes = 0
        self._pump_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._is_running = False
        self._cannot_commit = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.reason = ""
        """Why no more fetches are begun; empty while they are."""
        self.broken = False
        """Whether a start request failed, or a callback, pipeline or output raised: exit status 1."""

    # -- the run -------------------------------------------------------------------------------------------------------

    async def run(self) -> str:
        """Crawl to the end; return the reason: "finished", or what ended it early.

        Raises SpiderError where ``start()`` fails before the first request, StateError where the state cannot be written
        at all.
        """
        await self._commits.begin()
        self._is_running = True
        self._heed_limits()  # an earlier process may have reached them
        self.wake()
        tasks = [self._loop.create_task(self._pull_start()), self._loop.create_task(self._commits.run())]
        tasks[1].add_done_callback(self._commits_ended)
        deadline = None
        if self._limits.max_seconds:
            deadline = self._loop.call_later(self._limits.max_seconds, self.stop, "max_seconds")
        try:
            await self._ended
        finally:
            self._is_running = False
            if deadline is not None:
                deadline.cancel()
            await self._give_up(tasks)
        if not self._cannot_commit:
            try:
                await self._commits.commit()
            except (OutputError, StateError) as error:
                self._output_failed(error)
        return self.reason or "finished"

    def stop(self, reason: str) -> None:
        """Begin no more fetches; end when what is under way has ended. The first reason stays."""
        if not self.reason:
            self.reason = text_of(reason)
            self._log.debug("stopping", reason=reason, in_flight=len(self._fetches))
        self._starts.stop()
        self.wake()

    def kill(self) -> None:
        """End now. What is under way stays pending."""
        self.reason = self.reason or "killed"
        if not self._ended.done():
            self._ended.set_result(None)

    def bring_in(self, settlement: Settlement) -> None:
        """Have a settlement applied that no page of this process led to, between two commits."""
        self._commits.settle(settlement)

    def hurry(self) -> None:
        """Have what has been settled committed soon: see ``Commits.hurry``."""
        self._commits.hurry()

    def sent(self) -> None:
        """Take note, in the task that fetches it, that a request has been written: its host's delay counts from here."""
        if self._unsent:
            task = asyncio.current_task()
            lease = self._fetches.get(task) if task is not None else None
            if lease is not None:
                self._tell_sent(lease)

    def count_elsewhere(self, tally: Tally) -> None:
        """Take note of what the other workers of a fleet have counted: the limits are for all together."""
        self._elsewhere = tally
        self._heed_limits()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is fetched any more."""
        return self._ended.done()

    @property
    def in_flight(self) -> int:
        """Requests being fetched now."""
        return len(self._fetches)

    @property
    def busy_hosts(self) -> int:
        """Hosts being asked now."""
        return len({lease.request.host for lease in self._fetches.values()})

    async def fetch(self, request: Request) -> Response:
        """Fetch for a callback that awaits it; raises FetchError as an errback would get it."""
        if not self._is_running:
            raise SpiderError(
                "fetch() works while the crawl runs: in start() and callbacks, not in opened() or closed()"
            )
        parent = current_request.get()
        request.depth = parent.depth if parent is not None else 0
        refusal = self._scope.refuses(request, is_link=False)
        if refusal:
            raise OutOfScope(request.url, f"out of the crawl's bounds ({BOUNDS[refusal]})")
        lease = Lease(request, waiter=self._loop.create_future())
        assert lease.waiter is not None
        if request.delay:
            self._loop.call_later(request.delay, self._frontier.requeue, lease)
        else:
            self._frontier.requeue(lease)
        return await lease.waiter

    async def _give_up(self, tasks: list[asyncio.Task[None]]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._starts.stop()
        users = [*self._callbacks.cancel(), *self._items.cancel()]
        cancelled: list[asyncio.Future[Any]] = [*tasks, *self._fetches, *self._preparing]
        self._parser.shutdown(wait=False, cancel_futures=True)
        self._fetches.clear()
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        if users:
            await asyncio.wait(users, timeout=_GRACE_S)

    def _commits_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._output_failed(error)

    def _output_failed(self, error: BaseException) -> None:
        """An output or the state cannot be written: what is not committed is fetched again by a resumed run."""
        if self._cannot_commit:
            return
        self._log.error(str(error))
        self._stats.errors += 1
        self.broken = self._cannot_commit = True
        self.reason = "state" if isinstance(error, StateError) else "output"
        self.kill()

    # -- start requests --------------------------------------------------------------------------------------------------

    async def _pull_start(self) -> None:
        starts = self._starts
        try:
            await starts.pull()
        except CloseSpider as close:
            self.stop(close.reason)
            starts.end()
        except StateError as error:
            self._output_failed(error)
        except BaseException as raised:
            if not self._is_running:
                raise
            self._start_raised(ordinary(raised, "start()"))
        self.wake()

    def _start_raised(self, error: Exception) -> None:
        """Count and log it; where nothing had come of ``start()`` the run cannot begin."""
        if self._starts.taken:
            self._count_error(error)
            self.broken = True
            self._log.error("start() raised", exc_info=error)
            self._starts.end()
            return
        if isinstance(error, SpiderError):
            what = str(error)
        else:
            what = f"start URL: {error}" if isinstance(error, RequestError) else f"start() raised {_where(error)}"
        if not self._ended.done():
            self._ended.set_exception(SpiderError(f'spider "{self._spider.name}": {what}'))

    def _meet_start(self, request: Request) -> None:
        self._scope.add_host(request.host)
        self._guard.add_seed(hostname_of(request.url))

    def _refuse_start(self, error: RequestError) -> None:
        self._count_error(error)
        self.broken = True
        self._log.error(f"start(): {error}")

    def _take_start_item(self, value: Any, number: int) -> Page:
        page = Page(None, start=number)
        self._open_pages += 1
        unfit: Exception | None = None
        try:
            self._take(page, value)
        except TypeError as error:
            unfit = error
        self._callback_ended(page, unfit)
        return page

    # -- from the frontier to the network --------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look soon at what may be done: something changed."""
        if not self._pump_is_due and not self._ended.done():
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        if self._ended.done() or not self._is_running:
            return  # a resumed run's frontier calls before the downloader is open
        self._callbacks.resume()
        room = self._room_for_pages()
        free = self._limits.concurrency - len(self._fetches)
        now = self._clock()
        try:
            if free > 0 and room < free:
                for lease in self._frontier.lease(free, now, private_only=True):
                    self._begin(lease, now)
                free = self._limits.concurrency - len(self._fetches)
            if room and free > 0:
                for lease in self._frontier.lease(min(free, room), now):
                    self._begin(lease, now)
        except StateError as error:
            self._output_failed(error)
            return
        self._look_for_starts()
        if not self._has_ended():
            self._arm_timer(now, private_only=not room)

    def _look_for_starts(self) -> None:
        """Have start() pulled where there is room. Slots count as idle where nothing that waits can use them."""
        if not self._starts.is_over:
            fetching = len(self._fetches)
            idle = self._limits.concurrency - fetching
            self._starts.look(min(idle, self._room_for_pages()) if idle > fetching else 0, is_busy=bool(fetching))

    def _has_room(self) -> bool:
        held = self._held_bytes < self._max_buffer
        return held and self._items.has_room and self._frontier.has_room and self._commits.has_room

    def _room_for_pages(self) -> int:
        """How many more stored requests may be fetched now; 0 while stopping or while pages and items pile up."""
        limits = self._limits
        if self.reason or not self._has_room():
            return 0
        room = limits.concurrency - self._fetching_stored - self._open_pages - self._commits.uncommitted
        if limits.max_pages:
            pages = self._stats.pages + self._elsewhere.pages
            room = min(room, limits.max_pages - pages - self._fetching_stored)
        return max(0, room)

    def _arm_timer(self, now: float, *, private_only: bool) -> None:
        at = None
        if len(self._fetches) < self._limits.concurrency:
            at = self._frontier.next_ready(now, private_only=private_only)
            if at is not None and at <= now:
                at = None
        if at == self._timer_at:
            return  # a host that waits for minutes costs nothing a page
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_later(at - now, self._time_has_come) if at is not None else None

    def _time_has_come(self) -> None:
        self._timer = self._timer_at = None
        self.wake()

    def _has_ended(self) -> bool:
        fetches: Collection[Lease] = self._fetches.values()
        if self.reason and not self._open_pages:  # nobody has a use for a robots.txt any more
            fetches = [lease for lease in fetches if lease.key is not ROBOTS]
        busy = fetches or self._open_pages or not self._commits.idle
        waiting = not self._starts.is_over or self._frontier.counts.pending
        if busy or (waiting and not (self.reason and self._may_leave())):
            return False
        if self._ended.done():
            return True
        self._ended.set_result(None)
        return True

    def _begin(self, lease: Lease, now: float) -> None:
        if lease.waiter is not None and lease.waiter.done():  # the callback has been cancelled, or waits no longer
            self._frontier.release(lease, now, unused=True)
            self.wake()
            return
        if not self._gate.judge(lease, now, self._failed):
            self.wake()  # its slot is free, for what this one may wait for as well
            return
        request = lease.request
        if lease.waiter is None:
            refusal = self._scope.begin(request)
            if refusal:
                self._frontier.release(lease, now, unused=True)
                self._leave_alone(request, refusal)
                self._commits.settle(Settlement(lease))
                return
            lease.counted = True
            self._fetching_stored += 1
        self._stats.requests += 1
        try:
            task = self._loop.create_task(self._handle(request))
        except Exception as error:  # a middleware of the user's own is no coroutine function
            task = self._loop.create_task(_raise(error))
        self._fetches[task] = lease
        task.add_done_callback(self._fetched)

    # -- from the network to the spider ----------------------------------------------------------------------------------

    def _fetched(self, task: asyncio.Task[Response]) -> None:
        lease = self._fetches.pop(task, None)
        if lease is None:
            return
        if lease.waiter is None:
            self._fetching_stored -= 1
        unused = False
        if self._unsent:
            unused = not lease.sent and _is_from_cache(task)
            if not unused:
                self._tell_sent(lease)
        self._frontier.release(lease, self._clock(), unused=unused)
        self.wake()
        error = task.exception() if not task.cancelled() else RuntimeError("a middleware cancelled the fetch")
        if error is None and not isinstance(task.result(), Response):
            error = TypeError(f"a middleware returned {shown(task.result())}: return the response")
        if error is None:
            self._arrived(lease, task.result())
        elif isinstance(error, Again):
            self._again(lease, error)
        else:
            self._failed(lease, ordinary(error, "fetch"))

    def _tell_sent(self, lease: Lease) -> None:
        if not lease.sent and lease.request.host in self._unsent:
            lease.sent = True
            self._departures.sent(lease.request.host, self._clock())
            self.wake()

    def _again(self, lease: Lease, again: Again) -> None:
        """Put the retry or redirect in the request's place, through the frontier."""
        request = again.request
        if again.response is not None:
            self._stats.statuses[again.response.status] += 1
            self._stats.bytes += len(again.response.body)
        if again.reason == "retry":
            self._stats.retries += 1
        else:
            self._stats.redirects += 1
            refusal = self._scope.refuses(request, is_link=False) if lease.key is not ROBOTS else ""
            if refusal:
                way = f"redirected from {lease.request.url} out of the crawl's bounds ({BOUNDS[refusal]})"
                self._failed(lease, OutOfScope(request.url, way))
                return
        if lease.waiter is not None:
            replacement = Lease(request, lease.key, lease.waiter)
            self._loop.call_later(again.delay, self._frontier.requeue, replacement)
            return
        if lease.counted:
            self._scope.end(lease.request, failed=False)
        not_before = self._clock() + again.delay if again.delay else 0.0
        self._commits.settle(Settlement(lease, again=request, not_before=not_before))

    def _arrived(self, lease: Lease, response: Response) -> None:
        response.request = lease.request
        stats, status = self._stats, response.status
        stats.statuses[status] += 1
        stats.bytes += len(response.body)
        good = 200 <= status < 300 or status in self._wanted
        if lease.waiter is not None:
            if lease.waiter.done():
                return
            if good and lease.key is not ROBOTS and response.is_heavy:
                self._prepare(response, partial(_answer, lease.waiter, response))
            elif good or lease.key is ROBOTS:
                lease.waiter.set_result(response)
            else:
                lease.waiter.set_exception(HttpError(response))
            return
        if not good:
            self._failed(lease, HttpError(response), response)
            return
        if self.reason == "max_pages":
            return  # it came beyond the limit: undelivered, it stays pending for a resume
        stats.pages += 1
        stats.unsettled_pages += 1
        page = self._open(lease, len(response.body))
        page.response = response
        if response.is_heavy:
            self._prepare(response, partial(self._deliver, page, response))
        else:
            self._deliver(page, response)
        if self._limits.max_pages:
            self._heed_limits()

    def _prepare(self, response: Response, then: Callable[[], None]) -> None:
        """Have a large document parsed in a thread, one at a time, before anybody looks into it."""

        def parsed(future: asyncio.Future[None]) -> None:
            self._preparing.discard(future)
            if not future.cancelled() and not self._ended.done():
                then()

        future = self._loop.run_in_executor(self._parser, response.prepare)
        self._preparing.add(future)
        future.add_done_callback(parsed)

    def _deliver(self, page: Page, response: Response) -> None:
        request = response.request
        self._callbacks.run(page, self._method(request.callback or "parse"), response, request.cb_kwargs)

    def _failed(self, lease: Lease, error: Exception, response: Response | None = None) -> None:
        """A request came to nothing: tell its errback, or count and log it."""
        if lease.waiter is not None:
            if not lease.waiter.done():
                lease.waiter.set_exception(error)
            return
        self._stats.error_classes[type(error).__name__] += 1
        request = lease.request
        if request.is_start:
            self.broken = True
        page = self._open(lease)
        page.error = _story(error)
        if request.errback is not None:
            self._callbacks.run(page, self._method(request.errback), Failure(request, response, error), {})
            return
        self._stats.errors += 1
        if isinstance(error, FetchError):
            self._failures.log(request, error)
        else:
            self._log.error("request failed: a middleware, or the framework, raised", url=request.url, exc_info=error)
        self._callback_ended(page, None)

    def _method(self, name: Any) -> Callable[..., Any]:
        method: Callable[..., Any] | None = getattr(self._spider, name, None)
        return method if method is not None else self._missing(name)

    def _missing(self, name: str) -> Callable[..., Any]:
        """Stand in for a callback that a resumed run's spider no longer has."""

        def missing(_: Any, **__: Any) -> None:
            raise SpiderError(
                f'spider "{self._spider.name}" has no method {name}() any more; the run was begun with one'
            )

        return missing

    # -- from the spider to the outputs and the frontier -----------------------------------------------------------------

    def _open(self, lease: Lease, size: int = 0) -> Page:
        self._open_pages += 1
        self._held_bytes += size
        return Page(lease, size)

    def _take(self, page: Page, value: Any) -> None:
        """Take one thing that a callback yields. Raises RequestError or TypeError where it is not fit to be taken."""
        if isinstance(value, Request):
            if not value.is_bare:
                self._checker.check(value)
            if value.is_start or value.retries or value.redirects or value.written:  # it has been fetched before
                value.is_start, value.retries, value.redirects, value.written = False, 0, (), 0
            self._add_children(page, (value,))
        elif is_item(value):
            self._items.submit(value, page)
        elif value is not None:
            raise unfit(value)

    def _take_links(self, page: Page, links: Sequence[Request]) -> bool:
        """Take requests that differ by their URLs alone, one at least; return whether all of them belong to the crawl.

        Raises RequestError where their callback is not fit to be taken.
        """
        if links[0].callback is not None:
            self._checker.check(links[0])
            for link in links:
                link.callback = links[0].callback
        return self._add_children(page, links)

    def _add_children(self, page: Page, requests: Sequence[Request]) -> bool:
        """Have the page lead to those of the requests that belong to the crawl; return whether all of them do."""
        depth = page.lease.request.depth + 1 if page.lease is not None else 0
        refuses, children, are_all_in = self._scope.refuses, page.children, True
        for request in requests:
            request.depth = depth
            refusal = refuses(request)
            if refusal:
                are_all_in = False
                self._leave_alone(request, refusal)
            else:
                children.append(request)
        if len(children) >= page.most_children:
            self._pass_on_children(page)
        return are_all_in

    def _leave_alone(self, request: Request, cause: str) -> None:
        self._stats.refused[cause] += 1
        self._refusals.log(request, cause)

    def _pass_on_children(self, page: Page) -> None:
        """Take in a page's children before the page is done, so that one with endless links takes no memory.

        Should the page have to be fetched again, dedupe knows them; those it would not know wait for the page's end.
        """
        early = [child for child in page.children if not child.dont_filter]
        page.children = [child for child in page.children if child.dont_filter]
        self._commits.settle(Settlement(None, early))
        page.most_children = len(page.children) + MAX_CHILDREN
        page.have_settled()

    def _callback_ended(self, page: Page, error: Exception | None) -> None:
        if isinstance(error, CloseSpider):
            self.stop(error.reason)
        elif error is not None and self._raised(page, error):
            return
        page.finished = True
        if page.complete:
            self.settle(page)

    def _raised(self, page: Page, error: Exception) -> bool:
        """A callback or errback raised: log, count, and pass it on to the errback; return whether that goes on."""
        self._count_error(error)
        self.broken = True
        request = page.lease.request if page.lease is not None else None
        was_errback = bool(page.error)
        page.error = page.error or _story(error)
        if request is None:
            self._log.error("an item of start() is unfit", exc_info=error)
            return False
        name = request.errback if was_errback else request.callback or "parse"
        self._log.error("callback raised", callback=name, url=request.url, exc_info=error)
        if was_errback or request.errback is None:
            return False
        self._callbacks.run(page, self._method(request.errback), Failure(request, page.response, error), {})
        return True

    def settle(self, page: Page) -> None:
        """The page's callback has ended and its items are through: settle it with all it led to."""
        self._open_pages -= 1
        self._held_bytes -= page.size
        if page.response is not None:
            self._stats.unsettled_pages -= 1
        if page.lease is not None:
            if page.error:
                page.lease.request.written = max(page.written, page.skip)
            if page.lease.counted:
                self._scope.end(page.lease.request, failed=bool(page.error))
        starts = 1 if page.lease is None else 0
        self._commits.settle(Settlement(page.lease, page.children, error=page.error, starts=starts), page)
        page.have_settled()
        if starts:
            self._starts.go_on()
        if self._limits.max_items or self._limits.max_errors:
            self._heed_limits()
        self.wake()

    def _heed_limits(self) -> None:
        limits, stats, elsewhere = self._limits, self._stats, self._elsewhere
        if limits.max_pages and stats.pages + elsewhere.pages >= limits.max_pages:
            self.stop("max_pages")
        if limits.max_items and stats.items + elsewhere.items >= limits.max_items:
            self.stop("max_items")
        if limits.max_errors and stats.errors + elsewhere.errors >= limits.max_errors:
            self.stop("max_errors")

    def _count_error(self, error: Exception) -> None:
        self._stats.errors += 1
        self._stats.error_classes[type(error).__name__] += 1


def _is_from_cache(task: asyncio.Task[Response]) -> bool:
    """Whether the answer, or the redirect, was found in the cache; what asked the server first has told that it did."""
    error = task.exception() if not task.cancelled() else None
    answer = error.response if isinstance(error, Again) else None
    if error is None and not task.cancelled():
        answer = task.result()
    return isinstance(answer, Response) and answer.from_cache


async def _raise(error: Exception) -> Response:
    raise error


def _answer(waiter: asyncio.Future[Response], response: Response) -> None:
    if not waiter.done():
        waiter.set_result(response)


def _story(error: Exception) -> str:
    """Return what is kept of an error, for a failed request may be tried again much later."""
    return story_of(error)[:_MAX_STORY]


def _where(error: Exception) -> str:
    """Return an error on one line, with the place in the user's code it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{story_of(error)}{place}"
