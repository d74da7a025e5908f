"""A run shared by shards gives what one process gives: together, killed one by one, all at once, or interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from benchmarks.shard_torture import kill, pids, torture_round
from scraper import Request
from scraper.frontiers.split import Split
from scraper.urls import host_of

from .conftest import Wholes
from .site import PATIENCE_S, Folder, Site, difference


@pytest.fixture
def folder(tmp_path: Path, site: Site) -> Iterator[Folder]:
    """A project whose runs are processes that begin from nothing, as their shards do."""
    made = Folder(tmp_path / "project", site)
    yield made
    made.stop()


def shared(folder: Folder, spider: str, by: str, *more: str, output: str = "out.jsonl", shards: int = 2) -> list[str]:
    """The command for a run over shards."""
    options = ("-o", output, "--stats", "stats.json", "--shards", str(shards), "-s", f"shards.by={by}")
    return folder.arguments(spider, *options, *more)


@pytest.mark.parametrize(("spider", "by"), [("shop", "url"), ("hosts", "host"), ("hosts", "url")])
def test_shards_do_what_one_process_does(folder: Folder, site: Site, whole: Wholes, spider: str, by: str) -> None:
    """Each page is fetched once, each item is in the one output once, and the counts are those of the whole run."""
    usual = whole(spider)
    done = folder.scrape(*shared(folder, spider, by))
    assert (done.status, done.err) == (0, "")
    assert folder.lines("out.jsonl") == usual.lines, difference(folder.lines("out.jsonl"), usual.lines)
    assert site.times == usual.asked
    stats = folder.stats()
    assert (stats["items"], stats["pending"], stats["shards"]) == (usual.lines.total(), 0, 2)
    assert stats["requests"] == len(site.asked)
    listed = folder.scrape("jobs").out.splitlines()[1].split()
    assert (listed[1], listed[6]) == ("finished", f"{usual.lines.total():,}")
    assert [path.name for path in sorted(folder.job(spider).iterdir())] == ["job.json", "lock"]


@pytest.mark.parametrize(
    ("spider", "by", "fault"),
    [
        ("shop", "url", "kill a shard"),
        ("shop", "url", "kill all"),
        ("hosts", "url", "kill the parent"),
        ("hosts", "host", "kill a shard"),
    ],
)
def test_killed(site: Site, whole: Wholes, spider: str, by: str, fault: str) -> None:
    """Nothing is lost or doubled; of a shard that dies the others take no harm, the rest is resumed."""
    usual = whole(spider)
    problem, _ = torture_round(site, Random(f"{spider} {fault}"), spider, by, 2, fault, usual.lines, usual.requests)
    assert not problem


def test_interrupted(folder: Folder, site: Site, whole: Wholes) -> None:
    """One SIGINT drains all shards, with the state saved; `--resume` goes on exactly; another number of shards is refused."""
    usual = whole("shop", "whole.csv")
    command = shared(folder, "shop", "url", output="out.csv")
    process = folder.start(*command)
    site.strike(process.pid, 40, signal.SIGINT)
    assert folder.end(process).status == 130
    stats = folder.stats()
    assert stats["reason"] == "interrupted"
    assert stats["pending"] > 0
    rows = 2  # a text with the end of a line in it makes two lines of some
    assert stats["items"] < folder.lines("out.csv").total() <= rows * stats["items"] + 1
    refused = folder.scrape(*folder.arguments("shop", "--resume", "--shards", "3"))
    assert refused.status == 2
    assert "go on with --shards 2, or begin a new run" in refused.err
    assert folder.scrape(*command, "--resume").status == 0
    found, wanted = folder.lines("out.csv"), usual.lines
    assert found == wanted, difference(found, wanted)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("politeness.delay=0.002", "politeness.delay=0"),
        ("politeness.delay=0", "politeness.delay=0.002"),
        ("politeness.concurrency_per_host=1", "politeness.concurrency_per_host=8"),
        ("crawl.max_pages_per_host=100000", "crawl.max_pages_per_host=0"),
    ],
)
def test_resumed_with_other_limits_of_a_host(folder: Folder, site: Site, whole: Wholes, first: str, then: str) -> None:
    """Whether a host's pages go to all shards may change; what was seen is known all the same, so nothing comes twice."""
    usual = whole("shop")
    process = folder.start(*shared(folder, "shop", "url", "-s", first))
    site.strike(process.pid, 80, signal.SIGINT)
    assert folder.end(process).status == 130
    done = folder.scrape(*shared(folder, "shop", "url", "--resume", "-s", then))
    assert (done.status, done.err) == (0, "")
    assert folder.lines("out.jsonl") == usual.lines, difference(folder.lines("out.jsonl"), usual.lines)
    assert site.times == usual.asked


def test_a_second_signal_ends_at_once(folder: Folder, site: Site, whole: Wholes) -> None:
    """What the site holds back is not waited for, and comes again."""
    site.held.add("/list/1")
    process = folder.start(*shared(folder, "shop", "url"))
    site.wait_until(lambda: any(each.path == "/list/1" for each in site.asked))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert folder.end(process).status == 130
    site.let_go()
    assert folder.scrape(*shared(folder, "shop", "url", "--resume")).status == 0
    assert folder.lines("out.jsonl") == whole("shop").lines


def test_all_killed_before_a_shard_has_its_state(folder: Folder, whole: Wholes) -> None:
    """The others may have fetched pages by then; the run is resumed, and that shard begins."""
    source = (folder.root / "spiders/all.py").read_text(encoding="utf-8")
    folder.write("spiders/all.py", source + KILLING)
    assert folder.scrape(*shared(folder, "shop", "url")).status == -signal.SIGKILL
    folder.write("spiders/all.py", source)
    assert (folder.root / "killed").exists()
    assert folder.scrape(*shared(folder, "shop", "url", "--resume")).status == 0
    assert folder.lines("out.jsonl") == whole("shop").lines


KILLING = """

import os
import signal
from pathlib import Path

from scraper.frontiers.store import Store


def open_state(store):
    if "shard-1" in str(store._path):
        Path("killed").touch()
        forked_off = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
        os.kill(int(forked_off[1]), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return really_open(store)


really_open, Store.open = Store.open, open_state
"""


def test_what_they_are_forked_off_is_killed(folder: Folder, site: Site, whole: Wholes) -> None:
    """The shards go on without it, and where one of them dies too, it is forked off another."""
    process = folder.start(*shared(folder, "shop", "url"))
    site.wait_until(lambda: len(site.asked) > 10)
    shard = pids(folder)[0]
    site.strike(parent_of(shard), 10)
    site.strike(shard, 20)
    done = folder.end(process)
    assert (done.status, done.err) == (0, "")
    found, wanted = folder.lines("out.jsonl"), whole("shop").lines
    assert found == wanted, difference(found, wanted)


def parent_of(pid: int) -> int:
    """Return a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_shards_begin_with_what_they_need(folder: Folder) -> None:
    """All that a plain run imports has been imported where they are forked off, and they have its environment unchanged."""
    folder.write("spiders/looking.py", LOOKING)
    done = folder.scrape("run", "looking", "-q", "-a", f"base={folder.site.url()}", "--shards", "2", "-o", "out.jsonl")
    assert (done.status, done.err) == (0, "")
    found = [msgspec.json.decode(line) for line in folder.lines("out.jsonl")]
    assert found[0]["safe_path"] is None
    code = "import sys, scraper.cli, scraper.shards.preload; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    parts = ("scraper", "aiohttp", "aiofiles", "lxml", "parsel", "cssselect", "sqlite3", "uvloop", "aiomultiprocess")
    missing = {name for name in found[0]["modules"] if name.partition(".")[0] in parts} - set(imported)
    assert not missing


LOOKING = """
import os
import sys

from scraper import Spider


class Looking(Spider):
    name = "looking"
    base: str = ""

    @property
    def start_urls(self):
        return [self.base]

    def parse(self, response):
        response.css("title::text").get()
        yield {"modules": list(sys.modules), "safe_path": os.environ.get("PYTHONSAFEPATH")}
"""


def test_a_file_of_the_project_is_taken_for_no_module(folder: Folder, whole: Wholes) -> None:
    """Its folder is the current one, and has modules of the names of others that shards need."""
    for name in ("parsel.py", "queue.py", "scraper.py"):
        folder.write(name, "raise ValueError('not this one')")
    command = [Path(sys.executable).parent / "scrape", *shared(folder, "shop", "url")]
    done = subprocess.run(command, cwd=folder.root, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert folder.lines("out.jsonl") == whole("shop").lines


def test_a_shard_that_only_dies(folder: Folder) -> None:
    """It is started again a few times; then one line says so, the run ends with status 1, and can be resumed."""
    folder.write("spiders/dying.py", DYING)
    done = folder.scrape("run", "dying", "-q", "-a", f"base={folder.site.url()}", "--shards", "2")
    assert done.status == 1
    assert "died 5 times in a row (killed by SIGKILL)" in done.err
    assert "Traceback" not in done.err


DYING = """
import os
import signal

from scraper import Spider


class Dying(Spider):
    name = "dying"
    base: str = ""

    async def start(self):
        os.kill(os.getpid(), signal.SIGKILL)
        yield {}
"""


def test_replaced_appended_and_printed(folder: Folder, whole: Wholes) -> None:
    """-O replaces, -o appends behind a mended end, and standard output gets the items alone; all of them hold the same."""
    usual = whole("shop")
    folder.write("old.jsonl", '{"old":1}')
    folder.write("new.jsonl", '{"gone":1}\n')
    done = folder.scrape(*shared(folder, "shop", "url", "-O", "new.jsonl", "-o", "-", output="old.jsonl"))
    assert done.status == 0, done.err
    assert folder.lines("old.jsonl") - usual.lines == {b'{"old":1}\n': 1}
    assert folder.lines("new.jsonl") == usual.lines
    folder.write("printed.jsonl", done.out)
    assert folder.lines("printed.jsonl") == usual.lines


@pytest.mark.parametrize("by", ["host", "url"])
def test_max_pages_is_of_the_whole_run(folder: Folder, by: str) -> None:
    """So many pages and no more, over all shards; a resumed run with a higher limit goes on."""
    command = shared(folder, "hosts", by, "-s", "politeness.robots=false")
    done = folder.scrape(*command, "-s", "crawl.max_pages=37")
    assert done.status == 0, done.err
    assert (folder.stats()["pages"], folder.stats()["reason"]) == (37, "max_pages")
    done = folder.scrape(*command, "-s", "crawl.max_pages=61", "--resume")
    assert (folder.stats()["pages"], folder.stats()["reason"]) == (61, "max_pages"), done.err


def test_the_only_page_is_passed_on(folder: Folder, site: Site) -> None:
    """Its home asks for the one page that there is to fetch, then has the host's owner fetch it, who knows its robots.txt."""
    split = Split(0, 2, "url", lambda _: (8, 0.0))
    bases = [site.url("", f"127.0.0.{number}") for number in range(1, 100)]
    base = next(each for each in bases if split.home(Request(each)) != split.owner(host_of(f"{each}/")))
    done = folder.scrape(*shared(folder, "shop", "url", "-a", f"base={base}", "-s", "crawl.max_pages=1"))
    assert done.status == 0, done.err
    assert (folder.stats()["pages"], folder.stats()["reason"]) == (1, "max_pages")


def test_a_delay_holds_over_all_shards(folder: Folder, site: Site) -> None:
    """Two requests to one host lie its delay apart, though its pages have their homes on all shards."""
    limits = ("-s", "politeness.delay=0.05", "-s", "crawl.max_pages=30")
    assert folder.scrape(*shared(folder, "hosts", "url", *limits)).status == 0
    for host in {each.host for each in site.asked}:
        times = [each.at for each in site.asked if each.host == host]
        assert all(later - earlier >= 0.045 for earlier, later in pairwise(times)), host


def test_the_slots_of_a_host_are_shared(folder: Folder, site: Site) -> None:
    """A host held by all its shards at once sees no more requests at a time than its slots."""
    lists = {f"/item/{number}" for number in range(80)}
    site.held |= lists
    process = folder.start(*shared(folder, "shop", "url", "-s", "politeness.concurrency_per_host=5"))
    site.wait_until(lambda: sum(each.path in lists for each in site.asked) == 5)
    kill(pids(folder)[0])
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    folder.end(process)
    assert sum(each.path in lists for each in site.asked) <= 5


def test_what_a_callback_awaits(folder: Folder, site: Site) -> None:
    """A fetch in a callback is made by the shard that owns the host, with its budget; its error comes back as well."""
    folder.write("spiders/awaits.py", AWAITS)
    limits = ("-s", "politeness.delay=0.05", "-s", "download.retries=0")
    done = folder.scrape(*shared(folder, "awaits", "host", *limits, shards=3))
    assert done.status == 0, done.err
    items = [msgspec.json.decode(line) for line in folder.lines("out.jsonl").elements()]
    assert sorted(item["title"] for item in items) == sorted([*["side 1 „ü“"] * 10, *["HttpError 500"] * 10])
    for host in {each.host for each in site.asked}:
        times = [each.at for each in site.asked if each.host == host]
        assert len(times) >= 4
        assert all(later - earlier >= 0.045 for earlier, later in pairwise(times)), host


AWAITS = """
from scraper import Request, Spider
from scraper.http import HttpError


class Awaits(Spider):
    name = "awaits"
    base: str = ""

    async def start(self):
        for number in range(1, 11):
            yield Request(self.base.replace("127.0.0.1", f"127.0.0.{number}") + "item/1")

    async def parse(self, response):
        number = int(response.url.split("/")[2].split(":")[0].rsplit(".", 1)[1])
        other = self.base.replace("127.0.0.1", f"127.0.0.{number % 10 + 1}")
        side = await self.fetch(other + "side/1")
        yield {"title": side.css("h1::text").get()}
        try:
            await self.fetch(other + "broken/1")
        except HttpError as error:
            yield {"title": f"HttpError {error.response.status}"}
"""


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param('other + "side/1"', id="a private address that a start URL names"),
        pytest.param('other + "odd/1"', id="a header that is no UTF-8"),
        pytest.param('Request(other + "to/1", meta={"k": 1})', id="a redirect"),
        pytest.param('Request(other + "flaky/1", cb_kwargs={"k": 1})', id="another try"),
        pytest.param('Request(other + "broken/1", meta={"k": 1})', id="a status"),
        pytest.param('Request(other + "late/1", timeout=0.2)', id="no answer in time"),
        pytest.param('Request(other + "side/1", meta={"o": object(), "s": "\\udce9"})', id="an object in its meta"),
        pytest.param('Request(other + "side/1", callback=lambda response: None)', id="a callback that has no name"),
    ],
)
def test_what_a_callback_awaits_is_as_in_one_process(folder: Folder, asked: str) -> None:
    """Also where another shard fetches it: the response or the error, and all that hangs on it."""
    assert told(folder, asked, "--shards", "2") == told(folder, asked)


def test_what_is_no_error_of_a_fetch(folder: Folder) -> None:
    """A callback hears of it that a middleware raised in the shard that fetches for it."""
    (item,) = told(folder, 'other + "boom"', "--shards", "2")
    assert item["error"] == "FetchError"
    assert "ValueError: no such page" in item["known"]


@pytest.mark.parametrize("ends", ["SIGINT", "CloseSpider"])
def test_a_stop_while_a_callback_awaits(folder: Folder, site: Site, ends: str) -> None:
    """The other shards go on to fetch what its page needs to come to its end; then they end as well."""
    here, there = of_two_shards(folder)
    folder.write("spiders/asking.py", ASKING)
    options = ("-s", "politeness.robots=false", "-s", "download.private_addresses=always", "--shards", "2")
    command = ("run", "asking", "-q", "-a", f"base={here}", "-a", f"other={there}", "-o", "out.jsonl", *options)
    process = folder.start(*command, "--stats", "stats.json", "-a", f"closes={int(ends == 'CloseSpider')}")
    if ends == "SIGINT":
        site.strike(process.pid, 2, signal.SIGINT)
    done = folder.end(process)
    assert "Error" not in done.err
    assert folder.lines("out.jsonl").total() == 1
    stats = folder.stats()
    assert (stats["reason"], stats["failed"]) == ("interrupted" if ends == "SIGINT" else "enough", 0)
    assert site.times.total() == 41 + (ends == "CloseSpider")


ASKING = """
import asyncio

from scraper import CloseSpider, Request, Spider


class Asking(Spider):
    name = "asking"
    base: str = ""
    other: str = ""
    closes: int = 0

    async def start(self):
        self.has_some = asyncio.Event()
        yield Request(self.base + "item/1")
        if self.closes:
            yield Request(self.base + "item/2", self.close)

    async def parse(self, response):
        for number in range(40):
            await self.fetch(self.other + f"side/{number}")
            self.has_some.set()
        yield {"url": response.url}

    async def close(self, response):
        await self.has_some.wait()
        raise CloseSpider("enough")
"""


def told(folder: Folder, asked: str, *more: str) -> list[Any]:
    """Have a callback await what another shard is to fetch, were there two; return what it tells of that."""
    folder.write("spiders/tells.py", TELLS.replace("ASKED", asked))
    folder.write("breaks.py", BREAKS)
    folder.write("settings.toml", '[middlewares]\norder = ["breaks:Breaks", "retry", "redirect"]\n')
    here, there = of_two_shards(folder)
    options = ("-s", "politeness.robots=false", "-s", "download.retries=1", "-O", "told.jsonl", *more)
    folder.site.forget()
    folder.site.held.add("/late/1")
    done = folder.scrape("run", "tells", "-q", "-a", f"base={here}", "-a", f"other={there}", *options)
    assert (done.status, done.err) == (0, "")
    return [msgspec.json.decode(line) for line in folder.lines("told.jsonl").elements()]


def of_two_shards(folder: Folder) -> list[str]:
    """Return the address of a page of a host of each of two shards."""
    split = Split(0, 2, "host", lambda _: (8, 0.0))
    hosts = [folder.site.url("/", f"127.0.0.{number}") for number in range(1, 100)]
    return [next(each for each in hosts if split.owner(host_of(each)) == shard) for shard in (0, 1)]


BREAKS = """
class Breaks:
    def __call__(self, handle):
        async def fetch(request):
            if request.url.endswith("/boom"):
                raise ValueError("no such page")
            return await handle(request)

        return fetch
"""


TELLS = """
from scraper import Request, Spider


class Tells(Spider):
    name = "tells"
    base: str = ""
    other: str = ""

    async def start(self):
        yield Request(self.base + "item/1")
        yield Request(self.other + "item/1", self.leave)

    def leave(self, response):
        return None

    async def parse(self, response):
        base, other = self.base, self.other
        asked = ASKED
        asked = asked if isinstance(asked, Request) else Request(asked)
        try:
            response = await self.fetch(asked)
            yield {"url": response.url}
        except Exception as error:
            response = getattr(error, "response", None)
            known = {name: value for name, value in vars(error).items() if name != "response"}
            yield {"error": type(error).__name__, "known": ascii(sorted(known.items()))}
        if response is not None:
            yield {"status": response.status, "headers": ascii(sorted(response.headers.items())), "text": response.text}
            request = response.request
            yield {"is_same": request is asked, "meta": list(request.meta), "cb_kwargs": request.cb_kwargs}
            yield {"url": request.url, "redirects": request.redirects, "retries": request.retries, "depth": request.depth}
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--frontier", "memory"), "shards need a frontier on disk"),
        (("--frontier", "redis://localhost/0"), "start as many workers as there are processors"),
        (("-s", "shards.by=name"), "expected one of 'host', 'url'"),
        (("--shards", "none"), 'expected a number from 1 to 256, or "auto"'),
    ],
)
def test_mistakes(folder: Folder, options: tuple[str, ...], said: str) -> None:
    """Each is one clear line and status 2, before any request."""
    done = folder.scrape(*folder.arguments("shop", "--shards", "2", *options))
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not folder.site.asked


def test_a_spider_that_cannot_start(folder: Folder) -> None:
    """What goes wrong in a shard before the first request is said once, with status 2, and leaves no run behind."""
    folder.write("spiders/broken.py", BROKEN)
    done = folder.scrape("run", "broken", "-q", "--shards", "2", "-o", "out.jsonl")
    assert done.status == 2
    assert done.err == 'scrape: spider "broken": opened() raised RuntimeError: no key\n'
    assert not any((folder.root / ".scrape" / "broken").iterdir())
    assert not (folder.root / "out.jsonl").exists()


BROKEN = """
from scraper import Spider


class Broken(Spider):
    name = "broken"
    start_urls = ["http://127.0.0.1:1/"]

    async def opened(self):
        raise RuntimeError("no key")
"""


def test_failed_requests_are_tried_again(folder: Folder, site: Site) -> None:
    """--retry-failed asks again for what failed in any shard."""
    command = shared(folder, "fragile", "url")
    done = folder.scrape(*command)
    assert done.status == 1
    assert folder.stats()["failed"] == 2
    assert "2 × HttpError" in folder.scrape("jobs", "show", "fragile").out
    site.mended = True
    again = folder.scrape(*command, "--resume", "--retry-failed")
    assert again.status == 0, again.err
    assert (folder.stats()["failed"], folder.lines("out.jsonl").total()) == (0, 7)
