"""Assembly: builds the parts of a crawl from settings, opens and closes them, and the event loop they run in."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from importlib import import_module
from inspect import isawaitable, iscoroutinefunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from scraper import jobs, registry
from scraper.addresses import AddressGuard
from scraper.contracts import Counts, Departures, Downloader, Exporter, Frontier, Stateful
from scraper.descriptors import affordable
from scraper.downloaders.resolver import Resolve, by_system
from scraper.downloaders.router import Router
from scraper.downloaders.tls import late_authorities
from scraper.errors import OutputError, ScraperError, SpiderError, StateError, UsageError, story_of
from scraper.frontiers.server import Server, is_redis
from scraper.frontiers.split import Split
from scraper.host_settings import HostSettings
from scraper.http import Request, Response
from scraper.items import Items, Listener, taking_spider
from scraper.layers import Layer, environment_layer, file_layer, find_file, mapping_layer, merge
from scraper.log import Log
from scraper.middlewares.decompress import ENCODINGS
from scraper.onion import make_middlewares, wrap
from scraper.politeness.hosts import Budgets, Hosts, Policy
from scraper.politeness.robots import Robots
from scraper.scheduler import Scheduler
from scraper.scope import Scope
from scraper.settings import PartSettings, Settings
from scraper.spider import Engine, Spider, check_start
from scraper.stats import Stats
from scraper.urls import host_of

if TYPE_CHECKING:
    from scraper.frontiers.sharded import ShardFrontier

T = TypeVar("T")
_OF_SCRAPY = ("download_delay", "download_timeout", "http_user", "user_agent")
_budgets: WeakKeyDictionary[asyncio.AbstractEventLoop, Budgets] = WeakKeyDictionary()
"""One budget a host for all crawls of an event loop."""


class Output(Struct, frozen=True):
    """One output: a file's name, or "-" for standard output; ``replace`` empties a file first."""

    name: str
    replace: bool = False


class Membership(Struct, frozen=True):
    """A worker's place in a fleet: the job's name, the worker's own, and what it says of itself."""

    job: str
    worker: str
    about: Mapping[str, Any]


class Shard(Struct, frozen=True):
    """A process' place among the shards of a run: its part, how it sends a message to the one that holds them together, and
    what is called with the outputs' lengths when a commit has ended.
    """

    split: Split
    post: Callable[..., None]
    report: Callable[[Mapping[str, int]], None]
    limits_pages: bool = False


class Result(Struct):
    """How a run ended. ``stats`` is the summary; ``items`` the items, where they were kept; ``broken`` means exit status 1.

    ``written`` are the names of the outputs that took something, or had nothing to take.
    """

    reason: str
    stats: dict[str, Any]
    items: list[Any] = []
    broken: bool = False
    written: list[str] = []


class Crawler:
    """One run of one spider. Make it inside the event loop that it is to run in; ``run`` it once."""

    def __init__(
        self,
        spider: Spider,
        settings: Settings,
        *,
        outputs: Sequence[Output] = (),
        state: Path | None = None,
        membership: Membership | None = None,
        shard: Shard | None = None,
        log: Log | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.spider = spider
        self.stats = Stats()
        self._settings = settings
        self.log = (log or Log("warning")).bind(spider=spider.name)
        noted_in = state if shard is None else None  # nobody else writes to the part of a shard
        self._exporters: list[Exporter] = make_exporters(
            outputs, settings.items.csv_formulas, noted_in, self.log.warning
        )
        self._pipelines = [_make_pipeline(each) for each in settings.pipelines]
        limits, politeness, download = settings.crawl, settings.politeness, settings.download
        concurrency, self._max_idle = affordable(limits.concurrency, self.log)
        limits = msgspec.structs.replace(limits, concurrency=concurrency)
        self._guard = AddressGuard(download.private_addresses)
        self._host_settings = HostSettings(settings.hosts)
        self._hosts = self._make_hosts()
        self._server: Server | None = None
        self._departures: Departures = self._hosts
        has_robots = politeness.robots or self._host_settings.any("robots")
        self._robots = Robots(politeness.robots_agent or politeness.user_agent) if has_robots else None
        self._frontier = self._make_frontier(state, membership)
        self.sharded = self._shard(shard) if shard is not None else None
        self._scope = Scope(
            spider.allowed_domains,
            limits.max_depth,
            max_path_repeats=limits.max_path_repeats,
            max_pages_per_host=limits.max_pages_per_host,
            max_queries_per_path=limits.max_queries_per_path,
        )
        self._middlewares = make_middlewares(
            settings, self._host_settings, spider, tune=self._frontier.tune, stats=self.stats, log=self.log
        )
        parts: tuple[Any, ...] = (self.stats, self._guard, self._scope, self._robots, *self._middlewares)
        self._stateful: list[Stateful] = [part for part in parts if hasattr(part, "changes")]
        self._downloader = Router(self._make_downloader, download.downloader)
        self._items = Items(
            self._pipelines,
            self._exporters,
            spider=spider,
            stats=self.stats,
            log=self.log,
            concurrency=settings.items.concurrency,
            max_buffer=settings.items.max_buffer,
            listener=listener,
        )
        self._scheduler = Scheduler(
            spider=spider,
            frontier=self._frontier,
            departures=self._departures,
            handle=wrap(self._downloader.fetch, self._middlewares),
            items=self._items,
            scope=self._scope,
            guard=self._guard,
            robots=self._robots,
            limits=limits,
            obeys_robots=self._obeys_robots if self._host_settings else None,
            max_buffer=settings.items.max_buffer,
            downloaders=registry.DOWNLOADERS,
            stateful=[*self._stateful, self],
            sync=settings.frontier.durability == "full",
            stats=self.stats,
            log=self.log,
            may_leave=self.sharded.may_leave if self.sharded is not None else lambda: True,
        )
        if self.sharded is not None:
            self.sharded.bind(self._scheduler.bring_in, self._scheduler.hurry)
        self._began = time.monotonic()
        self._elapsed_s = 0.0
        self.earlier_pages = 0
        """Those of ``stats.pages`` that an earlier process fetched."""
        self._broken_before = False
        self._retries_failed = False
        self._opened: list[Any] = []
        self._spider_is_open = False
        self._waiting: asyncio.Task[Any] | None = None
        self._is_killed = False

    def _make_hosts(self) -> Hosts:
        politeness = self._settings.politeness
        loop = asyncio.get_running_loop()
        return Hosts(
            politeness.concurrency_per_host,
            politeness.delay,
            politeness.jitter,
            policy_of=self._policy_of if self._host_settings else None,
            budgets=_budgets.setdefault(loop, Budgets()),
            tells_sent=True,
        )

    def _policy_of(self, host: str) -> Policy | None:
        own, each = self._host_settings.for_host(host), self._settings.politeness
        if own is None:
            return None
        return Policy(
            each.concurrency_per_host if own.concurrency is None else own.concurrency,
            each.delay if own.delay is None else own.delay,
            each.jitter if own.jitter is None else own.jitter,
        )

    def _obeys_robots(self, host: str) -> bool:
        own = self._host_settings.for_host(host)
        return self._settings.politeness.robots if own is None or own.robots is None else own.robots

    def _make_frontier(self, state: Path | None, membership: Membership | None) -> Frontier:
        settings = self._settings
        if is_redis(settings.frontier.use):
            return self._make_shared_frontier(membership)
        hosts = self._hosts
        cls = registry.load(registry.FRONTIERS[settings.frontier.use])
        frontier: Frontier
        if settings.frontier.use == "memory":
            frontier = cls(hosts, settings.crawl.order)
        elif state is None:
            raise UsageError(f'frontier.use = "{settings.frontier.use}" needs a folder for the state of the run')
        else:
            frontier = cls(
                hosts, settings.crawl.order, path=state / jobs.STATE, durability=settings.frontier.durability
            )
        return frontier

    def _make_shared_frontier(self, membership: Membership | None) -> Frontier:
        settings = self._settings
        if membership is None:
            raise UsageError("frontier.use names a Redis: that is for `scrape run`, which joins a job there")
        self._server = Server(settings.frontier.use, self.log.warning)
        frontier = registry.load(registry.FRONTIERS["redis"])(
            self._server,
            membership.job,
            membership.worker,
            concurrency=settings.politeness.concurrency_per_host,
            delay=settings.politeness.delay,
            jitter=settings.politeness.jitter,
            policy_of=self._policy_of if self._host_settings else None,
            tells_sent=True,
            order=settings.crawl.order,
            about=membership.about,
            learn=self._learn,
            count_elsewhere=lambda tally: self._scheduler.count_elsewhere(tally),
        )
        self._departures = frontier
        shared: Frontier = frontier
        return shared

    def _shard(self, shard: Shard) -> ShardFrontier:
        """Have the frontier send what belongs to other shards to them."""
        split, spreads = shard.split, shard.split.by == "url"
        sharded: ShardFrontier = registry.load("scraper.frontiers.sharded:ShardFrontier")(
            self._frontier,
            split,
            shard.post,
            learn=self._learn,
            news=lambda: self._guard.news | self._scope.news,
            shared=("seed:", "scope:", "robots:") if spreads else ("seed:", "scope:"),
            pages=lambda: self.stats.pages,
            report=shard.report,
            is_spread=partial(self._is_spread, split) if spreads else None,
            rules_of=self._robots.news_of if self._robots is not None else lambda origin: {},
            limits_pages=shard.limits_pages,
        )
        self._frontier = sharded
        return sharded

    def _is_spread(self, split: Split, request: Request) -> bool | None:
        """Whether all shards may fetch a request: its host is not to be asked with a delay. None: only its owner may know.

        Only the owner asks for a robots.txt that nobody knows, and only it keeps a Crawl-delay.
        """
        host = request.host
        if not split.spreads(host):
            return False
        if self._robots is None or not self._obeys_robots(host):
            return True
        origin = request.origin
        rules = self._robots.known(origin)
        if rules is None:
            return None
        if rules.reason or rules.crawl_delay_s:
            return False
        scheme, _, rest = origin.partition(":")
        other = self._robots.known(("https:" if scheme == "http" else "http:") + rest)
        return other is None or not other.crawl_delay_s

    def _learn(self, facts: Mapping[str, Any]) -> None:
        """Take up what other workers of a fleet found out."""
        for part in (self._guard, self._scope, self._robots):
            if part is not None:
                part.restore(facts)

    def _make_downloader(self, name: str) -> Downloader:
        download = self._settings.download
        downloader: Downloader = registry.load(registry.DOWNLOADERS[name])(
            guard=self._guard,
            user_agent=self._settings.politeness.user_agent,
            encodings=ENCODINGS if "decompress" in self._settings.middlewares.order else "identity",
            timeout_s=download.timeout,
            connect_timeout_s=download.connect_timeout,
            max_body=download.max_body,
            verify_tls=download.verify_tls,
            ca_file=download.ca_file,
            proxy=download.proxy,
            sent=lambda: self._scheduler.sent(),
            resolve=_resolver(download.resolver),
            max_idle=self._max_idle,
        )
        return downloader

    async def run(self, *, retry_failed: bool = False) -> Result:
        """Crawl to the end; with ``retry_failed``, from where an earlier process left off and what failed there again.

        Raises UsageError where an output, a pipeline or the spider cannot start; after the first request nothing raises.
        """
        with late_authorities():
            # 0.2 s of importing, which are no crawling.
            registry.load(registry.DOWNLOADERS[self._settings.download.downloader])
        self._began = time.monotonic()
        self.spider.attach(Engine(self._settings, self.stats, self.log, self._scheduler.fetch))
        reason = "failed"
        try:
            await self._open(retry_failed)
            # Importing the parser takes about 40 ms: it is done while the first pages are under way.
            asyncio.get_running_loop().call_later(0.01, import_module, "scraper.selector")
            reason = await self._scheduler.run()
        except asyncio.CancelledError:
            self._have_been_killed()
            reason = self._scheduler.reason
        finally:
            self._elapsed_s = time.monotonic() - self._began
            await self._close(reason)
        counts = self._frontier.counts
        broken = self.is_broken
        if counts.seeded != counts.done + counts.failed + counts.pending:
            self.log.error("the frontier's counts do not add up", counts=str(counts))
            broken = True
        written = [exporter.name for exporter in self._exporters if exporter.has_taken]
        return Result(reason, self.summary(reason), broken=broken, written=written)

    @property
    def reason(self) -> str:
        """Why the run is coming to its end; empty while it is not."""
        return self._scheduler.reason

    @property
    def is_broken(self) -> bool:
        """Whether something broke: exit status 1."""
        return self._broken_before or self._scheduler.broken or self._items.failures > 0

    def changes(self) -> dict[str, Any]:
        """Return how long the run has taken and whether it is broken: see ``contracts.Stateful``."""
        return {"run": {"elapsed_s": time.monotonic() - self._began, "broken": self.is_broken}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where an earlier process was."""
        run = state.get("run", {})
        self._began -= run.get("elapsed_s", 0.0)
        self.earlier_pages = self.stats.pages
        self._broken_before = run.get("broken", False) and not self._retries_failed

    def stop(self, reason: str) -> None:
        """Begin no more fetches; the run ends when what is under way has ended."""
        self._scheduler.stop(reason)

    async def fetch(self, request: Request) -> Response:
        """Fetch as a callback's ``self.fetch`` does, past dedupe. Raises FetchError."""
        return await self._scheduler.fetch(request)

    def wake(self) -> None:
        """Tell the crawl that a listener has room again."""
        self._scheduler.wake()

    def kill(self) -> None:
        """End at once; what is under way stays pending."""
        if self._server is not None:
            self._server.hurry()
        if self._waiting is not None:
            self._is_killed = True
            self._waiting.cancel()
        self._scheduler.kill()

    @property
    def counts(self) -> Counts:
        """The frontier's counts of now."""
        return self._frontier.counts

    @property
    def has_ended(self) -> bool:
        """Whether nothing is fetched any more: the run is over but for what is to be closed."""
        return self._scheduler.has_ended

    @property
    def in_flight(self) -> int:
        """Requests being fetched now."""
        return self._scheduler.in_flight

    @property
    def busy_hosts(self) -> int:
        """Hosts being asked now."""
        return self._scheduler.busy_hosts

    def summary(self, reason: str = "") -> dict[str, Any]:
        """Return the summary as of now."""
        elapsed_s = self._elapsed_s or time.monotonic() - self._began
        return self.stats.summary(self.spider.name, reason, elapsed_s, self._frontier.counts)

    async def _open(self, retry_failed: bool) -> None:
        """Open all parts, each where an earlier process left it."""
        self._hosts.open(self._scheduler.wake)
        recovered = await self._frontier.open(self._scheduler.wake)
        if retry_failed:
            self._retries_failed = True
            self.log.info("failed requests are tried again", requests=await self._frontier.retry_failed())
        for part in [*self._stateful, self]:
            part.restore(recovered.state)
        if recovered.state:
            self._hosts.resume(time.monotonic())
        self._restore_delays()
        for exporter in self._exporters:
            try:
                await exporter.open(recovered.outputs.get(exporter.name))
            except (OutputError, StateError) as error:
                raise UsageError(str(error)) from None
        await self._downloader.open()
        for part in [*self._middlewares, *self._pipelines]:
            try:
                await self._call(part, ("open", "open_spider"))
                self._opened.append(part)
            except BaseException as error:
                if not _is_of_the_code(error):
                    raise
                raise UsageError(f"{type(part).__name__}.open() raised {_brief(error)}") from error
        taken = {name: repr(getattr(self.spider, name)) for name in ("allowed_domains", "handle_httpstatus_list")}
        try:
            await self._wait_for(self.spider.opened())
            self._spider_is_open = True
        except BaseException as error:
            if not _is_of_the_code(error):
                raise
            raise SpiderError(f'spider "{self.spider.name}": opened() raised {_brief(error)}') from error
        for name, former in taken.items():
            if repr(getattr(self.spider, name)) != former:
                raise SpiderError(
                    f'spider "{self.spider.name}": opened() changes {name}, which is read before: set it in __init__()'
                )
        check_start(self.spider)
        for name in _OF_SCRAPY:
            if hasattr(self.spider, name):
                instead = (
                    f'write custom_settings = {{"{name.upper()}": …}}'
                    if "_user" not in name
                    else "write an [auth] table"
                )
                self.log.warning(f"the spider's {name}, which Scrapy obeys, has no effect here; {instead}")

    def _restore_delays(self) -> None:
        for origin, delay_s in (self._robots.crawl_delays() if self._robots is not None else {}).items():
            if self._obeys_robots(host := host_of(origin + "/")):
                self._frontier.tune(host, delay=delay_s, cause=origin)

    async def _close(self, reason: str) -> None:
        """Close everything that was opened, whatever one of them raises."""
        self._hosts.close(time.monotonic())
        steps: list[tuple[str, Callable[[], Any]]] = []
        if self._spider_is_open:
            steps.append(("closed()", lambda: self._wait_for(self.spider.closed(reason))))
        for part in self._opened:
            close = partial(self._call, part, ("close", "close_spider"))
            steps.append((type(part).__name__, close))
        steps += [(exporter.name, exporter.close) for exporter in self._exporters]
        steps += [("downloader", self._downloader.close), ("frontier", self._frontier.close)]
        for name, step in steps:
            try:
                await step()
            except (OutputError, StateError) as error:
                self._closing_failed(str(error))
            except BaseException as error:
                if _is_of_the_code(error):
                    self._closing_failed(f"{name} raised while closing", exc_info=error)
                    continue
                self._have_been_killed()
                self._closing_failed(f"{name} was not waited for")

    async def _call(self, part: Any, names: tuple[str, ...]) -> None:
        for name in names:
            method = getattr(part, name, None)
            if callable(method):
                await self._wait_for(taking_spider(method, 1)(self.spider))
                return

    async def _wait_for(self, result: Any) -> None:
        """Wait for what users' code gives, if that is to be waited for; ``kill`` cancels this."""
        if isinstance(result, (AsyncGenerator, Generator)):
            raise TypeError("it yields, so nothing of it would run: items and requests come from start() and callbacks")
        if isawaitable(result):
            self._waiting = asyncio.current_task()
            try:
                await result
            finally:
                self._waiting = None

    def _have_been_killed(self) -> None:
        """Go on after a cancellation by ``kill``; raises any other anew."""
        task = asyncio.current_task()
        if not self._is_killed or task is None:
            raise
        self._is_killed = False
        task.uncancel()

    def _closing_failed(self, message: str, **details: Any) -> None:
        self._scheduler.broken = True
        self.stats.errors += 1
        self.log.error(message, **details)


def calm_collector() -> None:
    """Have Python's cyclic garbage collector look at less, in a process that does nothing but crawl.

    What is imported stays, so it need not be looked at; and the requests that wait are many and in no cycles: to look at
    all of them time and again took a fifth of a crawl of 100,000 hosts, up to 0.1 s at a time.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_in_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop, uvloop's where it is installed."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def load_settings(spider: type[Spider], over: Sequence[Layer] = (), start: Path | None = None) -> Settings:
    """Return the settings of a run: settings.toml as found from ``start``, the environment, the spider's, ``over``."""
    path = find_file(start or Path.cwd())
    found = [file_layer(path)] if path is not None else []
    own = mapping_layer(spider.custom_settings, f'custom_settings of spider "{spider.name}"')
    root = path.parent if path is not None else None
    return merge([*found, environment_layer(), own, *over], root)


def make_exporters(
    outputs: Sequence[Output], csv_formulas: str, state: Path | None, warn: Callable[[str], None]
) -> list[Any]:
    """Return the outputs' exporters, which note what they write in the folder ``state``.

    Raises UsageError where an output's suffix has none.
    """
    made = []
    for number, output in enumerate(outputs):
        options: dict[str, Any] = (
            {"formulas": csv_formulas, "warn": warn} if output.name.lower().endswith(".csv") else {}
        )
        trail = state / f"{jobs.TRAIL}{number}" if state is not None else None
        try:
            made.append(registry.exporter_for(output.name)(output.name, replace=output.replace, trail=trail, **options))
        except OutputError as error:
            raise UsageError(str(error)) from None
    return made


def _resolver(target: str) -> Resolve:
    resolve: Resolve = registry.load(target) if target else by_system
    if not iscoroutinefunction(resolve):
        raise UsageError(f"download.resolver: {target} is no coroutine function: async def resolve(host) -> addresses")
    return resolve


def _make_pipeline(table: PartSettings) -> Any:
    pipeline = registry.make(table.use, table.arguments, f'[[pipelines]] use = "{table.use}"')
    if not callable(getattr(pipeline, "process_item", None)):
        raise UsageError(f'[[pipelines]] use = "{table.use}": the class has no process_item(item, spider)')
    try:  # or else each item would be lost
        taking_spider(pipeline.process_item, 2)
    except TypeError:
        said = f"process_item{signature(pipeline.process_item)} is to take (item, spider)"
        raise UsageError(f'[[pipelines]] use = "{table.use}": {said}') from None
    return pipeline


def _is_of_the_code(error: BaseException) -> bool:
    """Whether users' code ended with it of itself, be it by sys.exit(); nobody interrupted or cancelled it."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None:
        return not task.cancelling()
    return not isinstance(error, (KeyboardInterrupt, asyncio.CancelledError))


def _brief(error: BaseException) -> str:
    return story_of(error) if not isinstance(error, ScraperError) else str(error)
