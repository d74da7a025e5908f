"""Whatever users' code raises, returns or cancels: its page is accounted for, the others are fetched, the crawl ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from conftest import Crawls
from servers import Site, in_loop

from scraper import CloseSpider, Request, Response, Spider
from scraper.crawler import Crawler, Output, Result, load_settings
from scraper.errors import SpiderError, UsageError
from scraper.layers import mapping_layer
from scraper.spider import make_spider

LONE = "\ud800"


class Panic(BaseException):
    """As libraries written in Rust raise it: no Exception."""


class Wordless(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        return self.args[0]  # no str


class Unshown(dict[str, Any]):
    """An item that cannot be shown, nor written."""

    def __repr__(self) -> str:
        raise RecursionError("too deep")


def panics(self: Any, response: Response) -> None:
    """Raise what is no Exception."""
    raise Panic("over")


def yields_and_panics(self: Any, response: Response) -> Any:
    """The same, of a generator."""
    yield {"url": response.url}
    raise Panic("over")


async def panics_later(self: Any, response: Response) -> None:
    """The same, of a coroutine."""
    await asyncio.sleep(0)
    raise Panic("over")


def returns_beside_a_yield(self: Any, response: Response) -> Any:
    """Python drops what a generator returns."""
    if response.status == 200:
        return {"url": response.url}
    yield {"url": response.url}


def exits(self: Any, response: Response) -> None:
    """End the program, as it seems."""
    raise SystemExit(3)


async def exits_later(self: Any, response: Response) -> None:
    """The same, of a coroutine."""
    await asyncio.sleep(0)
    raise SystemExit(3)


async def cancels_itself(self: Any, response: Response) -> None:
    """As one of several that found what all were after."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def has_no_words(self: Any, response: Response) -> None:
    """Raise what cannot be told."""
    raise Wordless(5)


def says_what_cannot_be_stored(self: Any, response: Response) -> None:
    """Raise with a page's odd text in it."""
    raise ValueError(f"unknown kind {LONE}")


def sets_what_cannot_be_stored(self: Any, response: Response) -> None:
    """Set a stat that the state cannot hold."""
    self.stats.set("last", object())


ALL = [
    returns_beside_a_yield,
    panics, yields_and_panics, panics_later, exits, exits_later, cancels_itself, has_no_words, says_what_cannot_be_stored,
    sets_what_cannot_be_stored,
]  # fmt: skip


def spider_at(site: Site, parse: Callable[..., Any], **attributes: Any) -> type[Spider]:
    """Return a spider of three pages, of which the second gets the odd callback."""

    def plain(self: Any, response: Response) -> Any:
        yield {"url": response.url}

    def start(self: Any) -> Any:
        for number in range(3):
            yield Request(site.url(f"/{number}"), "odd" if number == 1 else "parse")

    return type("Odd", (Spider,), {"name": "odd", "start": start, "parse": plain, "odd": parse, **attributes})


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("parse", ALL)
@in_loop
async def test_callbacks(empty_folder: Path, parse: Callable[..., Any], is_stored: bool) -> None:
    """One page failed, two were done; what is said of the failure can be stored."""
    async with Site({"*": "page"}) as site:
        spider = spider_at(site, parse)
        settings = load_settings(spider, [mapping_layer({"frontier.use": "sqlite" if is_stored else "memory"}, "test")])
        crawler = Crawler(make_spider(spider, {}), settings, state=empty_folder / "state" if is_stored else None)
        (empty_folder / "state").mkdir()
        result = await asyncio.wait_for(crawler.run(), 20)
    assert counts(result) == ("finished", 2, 1, 0)
    assert (result.broken, result.stats["errors"]) == (True, 1)


def counts(result: Result) -> tuple[str, int, int, int]:
    """Return how the run ended, and how many requests were done, had failed and were left."""
    stats = result.stats
    return result.reason, stats["done"], stats["failed"], stats["pending"]


@pytest.mark.parametrize("raised", [Panic("over"), asyncio.CancelledError(), SystemExit(3), Wordless(5)])
@in_loop
async def test_start(crawled: Crawls, raised: BaseException) -> None:
    """What it gave before is fetched."""
    async with Site({"*": "page"}) as site:

        async def start(self: Any) -> Any:
            yield Request(site.url())
            raise raised

        result = await asyncio.wait_for(crawled(spider_at(site, panics, start=start)), 20)
    assert counts(result) == ("finished", 1, 0, 0)
    assert result.broken


@pytest.mark.parametrize("is_coroutine", [False, True])
@in_loop
async def test_a_start_that_gives_none(crawled: Crawls, is_coroutine: bool) -> None:
    """A yield was forgotten: that is no crawl without requests that went well."""

    async def later(self: Any) -> None:
        Request("http://127.0.0.1/")

    def at_once(self: Any) -> None:
        Request("http://127.0.0.1/")

    spider = type("Odd", (Spider,), {"name": "odd", "start": later if is_coroutine else at_once})
    with pytest.raises(SpiderError) as error:
        await crawled(spider)
    assert str(error.value).endswith("start() gave None: yield the requests, or return a list of them")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (Wordless(5), "Wordless: <Wordless, whose text raises TypeError>"),
        (SystemExit("no database"), "SystemExit: no database"),
        (Panic("over"), "Panic: over"),
        (asyncio.CancelledError("gone"), "CancelledError: gone"),
    ],
)
@in_loop
async def test_what_cannot_open(
    crawled: Crawls, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, told: str
) -> None:
    """One line says why there is no crawl, of what has no text as well."""

    def opened(self: Any, *_: object) -> None:
        raise raised

    async with Site({"*": "page"}) as site:
        with pytest.raises(SpiderError) as error:
            await crawled(spider_at(site, panics, opened=opened))
        assert str(error.value) == f'spider "odd": opened() raised {told}'

        pipeline = project_module(
            empty_folder, monkeypatch, "class Odd:\n    def process_item(self, item, spider): ...\n"
        )
        settings = {"pipelines": [{"use": f"{pipeline}:Odd"}]}
        monkeypatch.setattr(f"{pipeline}.Odd.open", opened, raising=False)
        with pytest.raises(UsageError) as usage:
            await crawled(spider_at(site, panics), settings)
        assert str(usage.value) == f"Odd.open() raised {told}"


@pytest.mark.parametrize("is_coroutine", [False, True])
@in_loop
async def test_what_yields_outside_of_callbacks(crawled: Crawls, is_coroutine: bool) -> None:
    """Of an opened() or closed() that is a generator nothing would run: that is said."""

    def at_once(self: Any, *_: object) -> Any:
        yield {"a": 1}

    async def later(self: Any, *_: object) -> Any:
        yield {"a": 1}

    yields = later if is_coroutine else at_once
    async with Site({"*": "page"}) as site:
        with pytest.raises(SpiderError, match=r"opened\(\) raised TypeError: it yields, so nothing of it would run"):
            await crawled(spider_at(site, panics, opened=yields))
        result = await crawled(spider_at(site, lambda self, response: None, closed=yields))
    assert (result.broken, result.stats["errors"]) == (True, 1)


@pytest.mark.parametrize("name", ["allowed_domains", "handle_httpstatus_list"])
@in_loop
async def test_what_opens_too_late(crawled: Crawls, name: str) -> None:
    """What the crawl has taken up before is not changed without effect."""

    def opened(self: Any) -> None:
        getattr(self, name).append("example.com" if name == "allowed_domains" else 404)

    async with Site({"*": "page"}) as site:
        with pytest.raises(SpiderError) as error:
            await crawled(spider_at(site, panics, opened=opened, **{name: []}))
    assert str(error.value) == f'spider "odd": opened() changes {name}, which is read before: set it in __init__()'


@pytest.mark.parametrize("raised", [SystemExit(3), Panic("over"), asyncio.CancelledError()])
@in_loop
async def test_what_cannot_close(crawled: Crawls, raised: BaseException) -> None:
    """The crawl has its end all the same, and is a broken one."""

    def closed(self: Any, reason: str) -> None:
        raise raised

    async with Site({"*": "page"}) as site:
        result = await crawled(spider_at(site, lambda self, response: None, closed=closed))
    assert counts(result) == ("finished", 3, 0, 0)
    assert (result.broken, result.stats["errors"]) == (True, 1)


def project_module(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> str:
    """Write a module of the user's own, which settings may name; return its name."""
    name = f"odd_{sha256(source.encode()).hexdigest()[:12]}"
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    return name


CANCELS = "asyncio.current_task().cancel(); await asyncio.sleep(0)"


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        *[
            (kind, f"raise {what}")
            for kind in ("", "async ")
            for what in ("Panic()", "SystemExit(3)", "CancelledError()")
        ],
        ("async ", CANCELS),
    ],
)
@in_loop
async def test_pipelines(
    crawled: Crawls, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, what: str
) -> None:
    """The item is lost and counted, its page is done."""
    source = (
        "import asyncio\nfrom asyncio import CancelledError\nclass Panic(BaseException): pass\nclass Odd:\n"
        f"    {kind}def process_item(self, item, spider):\n        {what}\n        return item\n"
    )
    settings = {"pipelines": [{"use": f"{project_module(empty_folder, monkeypatch, source)}:Odd"}]}
    async with Site({"*": "page"}) as site:
        result = await asyncio.wait_for(crawled(spider_at(site, lambda self, response: None), settings), 20)
    assert counts(result) == ("finished", 3, 0, 0)
    assert (result.broken, result.stats["items"], result.stats["errors"]) == (True, 0, 2)


@in_loop
async def test_an_item_that_cannot_be_shown(crawled: Crawls, empty_folder: Path) -> None:
    """It cannot be written, and the line that says so does without it."""

    def parse(self: Any, response: Response) -> Any:
        yield Unshown(value=object())

    async with Site({"*": "page"}) as site:
        outputs = [Output(str(empty_folder / "items.jsonl"))]
        result = await asyncio.wait_for(crawled(spider_at(site, parse), outputs=outputs), 20)
    assert counts(result) == ("finished", 3, 0, 0)
    assert (result.stats["items"], result.stats["errors"]) == (2, 1)


@pytest.mark.parametrize("reason", [f"found {LONE}", Wordless(5), 7])
@in_loop
async def test_reasons_to_close(crawled: Crawls, reason: Any) -> None:
    """Any reason is one that the summary can hold."""

    def parse(self: Any, response: Response) -> None:
        raise CloseSpider(reason)

    async with Site({"*": "page"}) as site:
        result = await asyncio.wait_for(crawled(spider_at(site, parse)), 20)
    result.reason.encode()


@pytest.mark.parametrize(
    "handler",
    [
        "async def handle(request): return None",
        "async def handle(request): return 'page'",
        "def handle(request): return None",
        "async def handle(request): raise Again('http://a/', 'retry')",
        "async def handle(request): raise Panic('over')",
        "async def handle(request): raise SystemExit(3)",
    ],
)
@in_loop
async def test_middlewares(crawled: Crawls, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, handler: str) -> None:
    """A request that one of the user's own spoils has failed."""
    source = (
        "from scraper.contracts import Again\nclass Panic(BaseException): pass\n"
        f"{handler}\nclass Odd:\n    def __call__(self, usual):\n"
        "        return lambda request: (handle if request.url.endswith('/1') else usual)(request)\n"
    )
    order = [f"{project_module(empty_folder, monkeypatch, source)}:Odd", "retry", "decompress"]
    async with Site({"*": "page"}) as site:
        spider = spider_at(site, lambda self, response: None)
        result = await asyncio.wait_for(crawled(spider, {"middlewares.order": order, "politeness.robots": False}), 20)
    assert counts(result) == ("finished", 2, 1, 0)


@pytest.mark.parametrize(
    ("call", "line"),
    [
        ("", "the middleware Own has no __call__(handler)"),
        (
            "def __call__(self, request, handle): pass",
            "the middleware Own: __call__(handler) raised TypeError: "
            "Own.__call__() missing 1 required positional argument: 'handle'",
        ),
        ("def __call__(self, handle): pass", "the middleware Own: __call__(handler) is to return a handler, not None"),
    ],
)
@in_loop
async def test_what_is_no_middleware(
    crawled: Crawls, empty_folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, line: str
) -> None:
    """It is refused before anything is requested."""
    name = project_module(empty_folder, monkeypatch, f"class Own:\n    {call or 'pass'}\n")
    with pytest.raises(UsageError) as error:
        crawled.make(Spider, {"middlewares.order": [f"{name}:Own"]})
    assert str(error.value) == line


@in_loop
async def test_many_links_past_dedupe(crawled: Crawls) -> None:
    """Those that wait for the page's end are not gone through for each one more."""
    looked = 0

    class Asked(Request):
        @property
        def dont_filter(self) -> bool:  # type: ignore[override]
            nonlocal looked
            looked += 1
            return True

        @dont_filter.setter
        def dont_filter(self, value: bool) -> None:
            pass

    def parse(self: Any, response: Response) -> Any:
        for number in range(4000):
            yield Asked(site.url(f"/more/{number}"), "parse")

    async with Site({"*": "page"}) as site:
        result = await asyncio.wait_for(
            crawled(spider_at(site, parse), {"crawl.max_depth": 1, "crawl.max_pages": 3}), 20
        )
    assert result.stats["seeded"] == 4003
    assert looked < 100_000
