"""``run`` and ``crawl`` as scripts, notebooks and web applications use them."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from servers import Answer, Site, in_loop, links

from scraper import Request, Response, Result, Spider, crawl, run
from scraper.crawler import Output
from scraper.errors import ArgumentError, SettingsError, SpiderError, UsageError

pytestmark = pytest.mark.usefixtures("empty_folder")


class Count(Spider):
    """Yields a number for each of its pages."""

    name = "count"
    base: str
    pages: int = 3
    factor: float = 1.0

    async def start(self) -> Any:
        for number in range(self.pages):
            yield Request(f"{self.base}/{number}")

    def parse(self, response: Response) -> Any:
        return {"number": int(response.url.rpartition("/")[2]) * self.factor}


def numbers(items: list[Any]) -> list[float]:
    """The numbers that a Count spider found, sorted."""
    return sorted(item["number"] for item in items)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"spider": Count()}, "a crawl is begun with a spider's class: Count, with args= for its arguments, not <"),
        ({"spider": "count"}, "a crawl is begun with a spider's class, not 'count'"),
        ({"spider": int}, "a crawl is begun with a spider's class, not <class 'int'>"),
        ({"args": ["base"]}, "args= is a mapping of names to values, not ['base']"),
        ({"outputs": ["x.jsonl"]}, "outputs= is a list such as [Output(\"items.jsonl\")], not ['x.jsonl']"),
        ({"outputs": [Output("/x.jsonl"), Output("/./x.jsonl", replace=True)]}, "/x.jsonl is named twice as an output"),
        ({"outputs": Output("x.jsonl")}, 'outputs= is a list such as [Output("items.jsonl")], not Output('),
        (
            {"settings": {"frontier": {"use": "sqlite"}}},
            "settings=: frontier.use = 'sqlite': from Python it is 'memory'",
        ),
        ({"settings": {"shards.count": 4}}, "settings=: shards.count = 4: from Python it is 1; `scrape run` does that"),
    ],
)
def test_what_is_of_another_kind(given: dict[str, Any], said: str) -> None:
    """An instance or a name in place of a class, a file's name in place of an Output, or what only the command line can do,
    is a UsageError that says so.
    """

    def refused(begin: Any) -> str:
        with pytest.raises(UsageError) as caught:
            begin(**{"spider": Count, **given})
        return str(caught.value)

    async def first(**options: Any) -> None:
        async for _ in crawl(**options):
            break

    async def inside() -> str:
        return refused(run)

    assert refused(run).startswith(said)
    assert asyncio.run(inside()).startswith(said)
    if "outputs" not in given:
        assert refused(lambda **options: asyncio.run(first(**options))).startswith(said)


@in_loop
async def test_run_gives_items_stats_and_reason() -> None:
    """run() blocks and returns everything: items, the summary, why it ended, and whether it is broken."""
    async with Site({"*": "page"}) as site:
        result = await asyncio.to_thread(run, Count, args={"base": site.url(""), "pages": "4", "factor": "0.5"})
    assert isinstance(result, Result)
    assert numbers(result.items) == [0.0, 0.5, 1.0, 1.5]
    assert (result.reason, result.broken) == ("finished", False)
    known = (
        "spider reason requests pages items dropped errors retries bytes elapsed_s pages_per_s statuses peak_rss_mb "
        "seeded done failed pending"
    )
    assert set(known.split()) <= set(result.stats)
    found = {name: result.stats[name] for name in ("spider", "pages", "items", "statuses", "seeded", "done", "pending")}
    assert found == {
        "spider": "count", "pages": 4, "items": 4, "statuses": {"200": 4, "404": 1}, "seeded": 4, "done": 4, "pending": 0
    }  # fmt: skip
    assert result.stats["requests"] == 5, "robots.txt is a request too"
    assert result.stats["bytes"] == 4 * len("page")


@in_loop
async def test_run_twice_in_one_process() -> None:
    """The second run knows nothing of the first."""

    def twice() -> list[Result]:
        return [run(Count, args={"base": site.url("")}) for _ in range(2)]

    async with Site({"*": "page"}) as site:
        first, second = await asyncio.to_thread(twice)
    assert numbers(first.items) == numbers(second.items) == [0, 1, 2]
    assert first.stats["seeded"] == second.stats["seeded"] == 3
    assert len(site.asked) == 6


@in_loop
async def test_run_inside_a_running_loop() -> None:
    """In a notebook, whose loop is running, run() works the same: it has a thread and a loop of its own."""

    async def notebook() -> Result:
        assert asyncio.get_running_loop()
        return run(Count, args={"base": site.url("")})

    async def notebook_with_an_error() -> None:
        with pytest.raises(ArgumentError, match="base"):
            run(Count)

    async with Site({"*": "page"}) as site:
        result = await asyncio.to_thread(lambda: asyncio.run(notebook()))
        await asyncio.to_thread(lambda: asyncio.run(notebook_with_an_error()))
    assert numbers(result.items) == [0, 1, 2]


INTERRUPTED = """
import asyncio
import sys

from scraper import Request, Spider, run
from scraper.crawler import Output


class Held(Spider):
    name = "held"
    base: str

    async def start(self):
        yield Request(self.base + "/first")
        yield Request(self.base + "/held")

    def parse(self, response):
        yield {"url": response.url}

    async def closed(self, reason):
        print("closed", flush=True)


async def notebook():
    held()


def held():
    try:
        run(Held, args={"base": sys.argv[1]}, settings={"politeness.concurrency_per_host": 1}, outputs=[Output("x.jsonl")])
    except KeyboardInterrupt:
        print("interrupted", flush=True)


asyncio.run(notebook()) if sys.argv[2] == "in a loop" else held()
"""


@pytest.mark.parametrize("where", ["plain", "in a loop"])
@in_loop
async def test_the_first_interrupt_ends_run(empty_folder: Path, where: str) -> None:
    """Ctrl-C ends a crawl in good order, be it that run() was called in a running loop or not: what it has is written."""
    came, gate = asyncio.Event(), asyncio.Event()

    async def held(request: web.BaseRequest) -> Answer:
        came.set()
        await gate.wait()
        return "page"

    async with Site({"/held": held, "*": "page"}) as site:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", INTERRUPTED, site.url(""), where), stdout=asyncio.subprocess.PIPE
        )
        try:
            await came.wait()
            process.send_signal(signal.SIGINT)
            out, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            gate.set()
    assert (process.returncode, out) == (0, b"closed\ninterrupted\n")
    assert (empty_folder / "x.jsonl").read_text().count("/first") == 1


@in_loop
async def test_several_crawls_at_once_in_one_loop() -> None:
    """Three crawls whose pages wait for each other end together, each with its own items."""
    together = asyncio.Barrier(3)

    async def page(request: web.BaseRequest) -> Answer:
        await together.wait()
        return "page"

    async def collect(base: str) -> list[Any]:
        return [item async for item in crawl(Count, args={"base": base}, settings={"politeness.robots": False})]

    async with Site({"*": page}) as site:
        found = await asyncio.gather(*[collect(site.url(f"/{name}")) for name in "abc"])
    assert [numbers(items) for items in found] == [[0, 1, 2]] * 3
    assert len(set(site.paths)) == 9


@in_loop
async def test_crawl_yields_items_while_pages_are_under_way() -> None:
    """An item is there as soon as its page is, not when the crawl ends."""
    gate = asyncio.Event()

    async def page(request: web.BaseRequest) -> Answer:
        if request.path != "/0":
            await gate.wait()
        return "page"

    async with Site({"*": page}) as site:
        items = crawl(Count, args={"base": site.url("")})
        first = await anext(items)
        gate.set()
        rest = [item async for item in items]
    assert first == {"number": 0}
    assert numbers(rest) == [1, 2]


@in_loop
async def test_settings_nested_or_dotted_lie_over_the_spiders_own() -> None:
    """settings= goes before custom_settings; both may be nested, dotted, or in Scrapy's names."""

    class Slow(Count):
        custom_settings = {"crawl": {"max_pages": 5}, "USER_AGENT": "own/1", "politeness.robots": False}

    def both() -> list[Result]:
        args = {"base": site.url(""), "pages": 9}
        return [
            run(Slow, args=args),
            run(Slow, args=args, settings={"crawl.max_pages": 2, "politeness": {"user_agent": "mine/2"}}),
        ]

    async with Site({"*": "page"}) as site:
        own, given = await asyncio.to_thread(both)
    assert (len(own.items), len(given.items)) == (5, 2)
    assert [each.headers["User-Agent"] for each in site.asked] == ["own/1"] * 5 + ["mine/2"] * 2


@in_loop
async def test_settings_of_file_and_environment(monkeypatch: pytest.MonkeyPatch, empty_folder: Path) -> None:
    """settings.toml of the folder counts, the environment goes before it."""
    (empty_folder / "settings.toml").write_text('[crawl]\nmax_pages = 2\n[politeness]\nuser_agent = "file/1"\n')
    monkeypatch.setenv("SCRAPE_POLITENESS__USER_AGENT", "environment/2")
    async with Site({"*": "page"}) as site:
        result = await asyncio.to_thread(run, Count, args={"base": site.url("")})
    assert (len(result.items), result.reason) == (2, "max_pages")
    assert site.asked[0].headers["User-Agent"] == "environment/2"


@in_loop
async def test_run_writes_outputs(empty_folder: Path) -> None:
    """Outputs are appended to or replaced, and the items are returned as well."""

    def thrice() -> None:
        for replace in (True, False, False):
            run(Count, args={"base": site.url(""), "pages": 1}, outputs=[Output("a.jsonl", replace=replace)])
        run(Count, args={"base": site.url(""), "pages": 2}, outputs=[Output("b.jsonl", replace=True)])

    (empty_folder / "a.jsonl").write_text("old\n")
    (empty_folder / "b.jsonl").write_text("old\n")
    async with Site({"*": "page"}) as site:
        await asyncio.to_thread(thrice)
    assert (empty_folder / "a.jsonl").read_text() == '{"number":0.0}\n' * 3
    assert sorted((empty_folder / "b.jsonl").read_text().splitlines()) == ['{"number":0.0}', '{"number":1.0}']


class Bad(Spider):
    """Starts at a URL without a scheme."""

    name = "bad"
    start_urls = ["example.com/page"]


class Worse(Spider):
    """Cannot open."""

    name = "worse"

    async def opened(self) -> None:
        raise OSError("no such database")


@pytest.mark.parametrize(
    ("spider", "options", "error", "message"),
    [
        (Count, {}, ArgumentError, "needs -a base="),
        (Count, {"args": {"base": "x", "page": 3}}, ArgumentError, 'did you mean "pages"'),
        (Count, {"args": {"base": "x", "pages": "many"}}, ArgumentError, "pages='many' is not an int"),
        (Count, {"settings": {"crawl.max_page": 1}}, SettingsError, "did you mean crawl.max_pages"),
        (Count, {"settings": {"crawl": {"concurrency": 0}}}, SettingsError, "crawl.concurrency"),
        (Count, {"settings": {"nonsense": {"a": 1}}}, SettingsError, "unknown section"),
        (Count, {"settings": {"politeness.robots": "sometimes"}}, SettingsError, "politeness.robots"),
        (Count, {"settings": {"pipelines": [{"use": "no.such:Pipeline"}]}}, UsageError, "no.such"),
        (Count, {"settings": {"pipelines": [{"use": "json:JSONEncoder"}]}}, UsageError, "process_item"),
        (Count, {"outputs": [Output("no/such/folder/items.jsonl")]}, UsageError, "no/such/folder"),
        (Count, {"outputs": [Output("items.docx")]}, UsageError, "docx"),
        (Bad, {}, SpiderError, "did you mean 'https://example.com/page'"),
        (Worse, {}, SpiderError, "no such database"),
    ],
)
@in_loop
async def test_what_cannot_start_is_one_clear_error(
    spider: type[Spider], options: dict[str, Any], error: type[UsageError], message: str
) -> None:
    """Bad arguments, settings, pipelines, outputs and start URLs raise before anything is asked for."""
    async with Site({"*": "page"}) as site:
        if spider is Count and message != "needs -a base=":
            options = {"args": {"base": site.url("")}, **options}
        with pytest.raises(error, match=message) as raised:
            await asyncio.to_thread(run, spider, **options)
    assert "\n" not in str(raised.value)
    assert site.asked + site.asked_robots == []


@in_loop
async def test_crawl_raises_usage_errors_too() -> None:
    """What run() raises, crawl() raises at the first item."""
    with pytest.raises(SpiderError, match=r"example.com/page"):
        async for _ in crawl(Bad):
            pass
    with pytest.raises(ArgumentError):
        await anext(crawl(Count))


@in_loop
async def test_run_inside_a_web_application() -> None:
    """A handler of a web server crawls another site while the server goes on answering."""

    async def handler(request: web.BaseRequest) -> Answer:
        found = [item["number"] async for item in crawl(Count, args={"base": site.url("")})]
        return web.json_response(sorted(found))

    class Caller(Spider):
        name = "caller"
        base: str

        async def start(self) -> Any:
            for number in range(3):
                yield Request(f"{self.base}/crawl?{number}")

        def parse(self, response: Response) -> Iterator[Any]:
            yield {"found": response.json()}

    async with Site({"*": "page"}) as site, Site({"/crawl": handler, "/": links([])}) as application:
        result = await asyncio.to_thread(run, Caller, args={"base": application.url("")})
    assert result.items == [{"found": [0, 1, 2]}] * 3
