"""``scrape jobs``, resuming with other options, trying again what failed, and one process a job."""

from __future__ import annotations

import re
import signal
from collections import Counter

import pytest

from .conftest import Wholes
from .site import PIPELINES, Folder, difference

REFUSED_WITHIN_S = 1.0


def one_line(text: str) -> str:
    """The only line of a text."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


class TestOneProcess:
    """A job belongs to the process that runs it, as long as that lives."""

    @pytest.mark.parametrize("how", ["--resume", "--job"])
    def test_second_is_refused(self, folder: Folder, how: str) -> None:
        """A second process is refused within a second, with the number of the first, and does no harm to the run."""
        folder.site.held.add("/item/3")
        arguments = folder.arguments("shop", "-o", "out.jsonl", "--stats", "stats.json")
        first = folder.start(*arguments, *(["--job", "state"] if how == "--job" else []))
        folder.site.wait_until(lambda: len(folder.site.asked) > 20)
        second = folder.scrape(*arguments, how, *(["state"] if how == "--job" else []))
        assert second.status == 2
        assert second.took_s < REFUSED_WITHIN_S
        assert f"pid {first.pid}" in one_line(second.err) or f"process {first.pid}" in one_line(second.err)
        name = "shop" if how == "--resume" else "state"
        listed, shown, removed = (folder.scrape("jobs", *more) for more in ([], ["show", name], ["remove", name]))
        assert "running" in shown.out
        assert how == "--job" or "running" in listed.out
        assert removed.status == 2
        assert str(first.pid) in one_line(removed.err)
        folder.site.let_go()
        assert folder.end(first).status == 0
        assert folder.stats()["pending"] == 0

    def test_lock_of_the_dead(self, folder: Folder, whole: Wholes) -> None:
        """The lock of a killed process is no obstacle, though its number now belongs to another process."""
        assert folder.struck(50, *folder.arguments("shop", "-o", "out.jsonl")).status == -9
        assert re.match(r"\d+ on ", (folder.job() / "lock").read_text())
        (folder.job() / "lock").write_text("1 on this host")
        assert "running" not in folder.scrape("jobs").out
        assert folder.scrape(*folder.arguments("shop", "--resume")).status == 0
        assert folder.lines("out.jsonl") == whole().lines

    def test_begun_in_the_same_second(self, folder: Folder, whole: Wholes) -> None:
        """Several runs begun at once each get a folder of their own."""
        processes = [folder.start(*folder.arguments("shop", "-o", f"{number}.jsonl")) for number in range(3)]
        for number, process in enumerate(processes):
            done = folder.end(process)
            assert done.status == 0, done.err
            assert folder.lines(f"{number}.jsonl") == whole().lines

    def test_two_resume_at_once(self, folder: Folder, whole: Wholes) -> None:
        """Of several processes that resume one run, those that are late are refused, and nothing is done twice."""
        assert folder.struck(50, *folder.arguments("shop", "-o", "out.jsonl")).status == -9
        processes = [folder.start(*folder.arguments("shop", "--resume")) for _ in range(3)]
        statuses = Counter(folder.end(process).status for process in processes)
        assert statuses == {0: 1, 2: 2}
        lines, usual = folder.lines("out.jsonl"), whole().lines
        assert lines == usual, difference(lines, usual)


class TestList:
    """``scrape jobs`` tells how the runs stand."""

    def test_counts(self, folder: Folder) -> None:
        """A killed run is listed with the counts of its last commit; a finished one keeps its counts."""
        assert folder.scrape("jobs").out.startswith("no runs in ")
        assert folder.struck(70, *folder.arguments("shop", "-o", "out.jsonl")).status == -9
        _, row = folder.scrape("jobs").out.splitlines()
        name, status, *numbers = row.split()
        seeded, done, failed, pending, items = (int(number.replace(",", "")) for number in numbers)
        assert (name, status) == (f"shop/{folder.job().name}", "unfinished")
        assert seeded == done + failed + pending
        assert done > 10
        assert pending > 0
        assert items > 0
        assert folder.scrape(*folder.arguments("shop", "--resume")).status == 0
        _, row = folder.scrape("jobs").out.splitlines()
        items = folder.lines("out.jsonl").total()
        _, status, seeded, done, *rest = row.split()
        assert (status, seeded) == ("finished", done)
        assert rest == ["0", "0", str(items)]

    def test_credentials_are_not_shown(self, folder: Folder) -> None:
        """What stands before the @ of a proxy is not shown, nor a password in an argument's URL."""
        arguments = folder.arguments("shop", "-a", "base=http://me:secret@127.0.0.1:1/")
        pool = "proxies.urls=http://me:secret@127.0.0.1:1,http://me:secret@127.0.0.1:2"
        options = ("download.proxy=http://me:secret@127.0.0.1:1", pool, "download.retries=0")
        folder.scrape(*arguments, *(part for option in options for part in ("-s", option)))
        shown = folder.scrape("jobs", "show", "shop").out
        assert "setting   download.proxy=http://***@127.0.0.1:1\n" in shown
        assert "setting   proxies.urls=http://***@127.0.0.1:2\n" in shown
        assert "argument  base=http://me:***@127.0.0.1:1/\n" in shown
        assert "secret" not in shown

    def test_show_and_remove(self, folder: Folder) -> None:
        """A run is shown with what was asked and why requests failed, and removed with all its files but no other."""
        done = folder.scrape(
            *folder.arguments("fragile", "-a", "raises=yes", "-s", "download.retries=0", "-o", "out.jsonl")
        )
        assert done.status == 1
        shown = folder.scrape("jobs", "show", "fragile").out
        for text in (
            f"fragile/{folder.job('fragile').name}: finished",
            "argument  raises=yes",
            "setting   download.retries=0",
            f"output    {folder.root / 'out.jsonl'}",
            "failed 2 × HttpError: HTTP status 500",
            folder.site.url("/broken/1"),
            "failed 1 × ValueError: two are enough",
            "--retry-failed",
        ):
            assert text in shown
        assert re.search(r"seeded +4\b", shown)
        assert re.search(r"failed +3\b", shown)
        folder.job("fragile").joinpath("notes.txt").write_text("mine")
        job = folder.job("fragile")
        assert folder.scrape("jobs", "remove", "fragile").status == 0
        assert [file.name for file in job.iterdir()] == ["notes.txt"]
        assert folder.scrape("jobs").out.startswith("no runs in ")
        assert folder.scrape("jobs", "show", "fragile").status == 2


class TestRetryFailed:
    """``--retry-failed`` puts failed requests back."""

    def test_now_they_succeed(self, folder: Folder) -> None:
        """Pages that were broken and a callback that raised come again, and each item is there once."""
        run = folder.arguments("fragile", "-s", "download.retries=0", "--stats", "stats.json")
        assert folder.scrape(*run, "-o", "out.jsonl", "-a", "raises=yes").status == 1
        assert (folder.stats()["failed"], folder.lines("out.jsonl").total()) == (3, 3)
        assert folder.scrape(*run, "--resume").status == 2
        folder.site.mended = True
        done = folder.scrape(*run, "--resume", "--retry-failed", "-a", "raises=")
        assert done.status == 0, done.err
        stats, lines = folder.stats(), folder.lines("out.jsonl")
        assert (stats["failed"], stats["done"], stats["pending"]) == (0, 4, 0)
        assert lines.total() == len(lines) == 7
        assert "finished" in folder.scrape("jobs").out
        assert folder.scrape(*run, "--resume", "--retry-failed").status == 2

    @pytest.mark.parametrize("when", [1, 2])
    def test_killed_while_trying_again(self, folder: Folder, when: int) -> None:
        """A run killed while it tries failed requests again is unfinished, and goes on."""
        run = folder.arguments("fragile", "-s", "download.retries=0", "-o", "out.jsonl", "--job", "state")
        assert folder.scrape(*run, "-a", "raises=yes").status == 1
        folder.site.mended = True
        done = folder.struck(when, *run, "--retry-failed", "-a", "raises=")
        assert done.status == -9, done.err
        done = folder.scrape(*run, "--resume", "--retry-failed", "--stats", "stats.json")
        assert done.status == 0, done.err
        lines = folder.lines("out.jsonl")
        assert lines.total() == len(lines) == 7
        assert folder.stats()["failed"] == folder.stats()["pending"] == 0

    def test_items_of_an_errback(self, folder: Folder) -> None:
        """What an errback gave does not count among the items that the callback gives when it is tried again."""
        run = folder.arguments("fragile", "-s", "download.retries=0")
        folder.scrape(*run, "-o", "out.jsonl", "-a", "raises=noted")
        folder.site.mended = True
        folder.scrape(*run, "--resume", "--retry-failed", "-a", "raises=")
        lines = folder.lines("out.jsonl")
        numbers = sorted(re.findall(rb'"number":(\d)', b"".join(lines.elements())))
        assert numbers == [b"0", b"1", b"2", b"3"]


class TestWhichRun:
    """Which run is continued, and with what."""

    def test_set_aside(self, folder: Folder, whole: Wholes) -> None:
        """A new run sets an unfinished one aside; --resume takes the newest unfinished, then the one before."""
        assert folder.struck(25, *folder.arguments("shop", "-o", "first.jsonl")).status == -9
        first = folder.job()
        assert folder.struck(25, *folder.arguments("shop", "-o", "second.jsonl")).status == -9
        assert folder.job() != first
        assert folder.scrape(*folder.arguments("shop", "--resume")).status == 0
        assert folder.lines("second.jsonl") == whole().lines
        assert folder.scrape(*folder.arguments("shop", "--resume")).status == 0
        assert folder.lines("first.jsonl") == whole().lines
        done = folder.scrape(*folder.arguments("shop", "--resume"))
        assert done.status == 2
        assert "no unfinished run" in one_line(done.err)

    def test_a_folder_of_ones_own(self, folder: Folder, whole: Wholes) -> None:
        """``--job DIR`` goes on with what is unfinished there, begins anew where nothing is, and is one spider's."""
        run = folder.arguments("shop", "-O", "out.jsonl", "--job", "my/state")
        assert folder.struck(80, *run).status == -9
        asked = len(folder.site.asked)
        assert folder.scrape(*run).status == 0
        assert len(folder.site.asked) - asked < whole().requests - 10
        assert folder.lines("out.jsonl") == whole().lines
        assert folder.scrape(*run).status == 0
        assert folder.lines("out.jsonl") == whole().lines
        done = folder.scrape(*folder.arguments("lazy", "--job", "my/state"))
        assert done.status == 2
        assert '"shop"' in one_line(done.err)

    def test_usage_error_leaves_the_users_files(self, folder: Folder) -> None:
        """A run that cannot start leaves a folder given with ``--job`` as it was, whatever lies there."""
        folder.write("my/important.txt", "mine")
        folder.write("settings.toml", '[[pipelines]]\nuse = "effects:Broken"\n')
        folder.write(
            "effects.py", PIPELINES + "\n    def open(self, spider):\n        raise ValueError\n\n\nBroken = Pauses\n"
        )
        done = folder.scrape(*folder.arguments("shop", "--job", "my", "-o", "my/out.jsonl"))
        assert done.status == 2, done.err
        assert [file.name for file in (folder.root / "my").iterdir()] == ["important.txt"]

    def test_other_options(self, folder: Folder, whole: Wholes) -> None:
        """What is given anew on resuming is kept for the next resume: arguments, settings and outputs."""
        assert folder.struck(25, *folder.arguments("shop", "-o", "out.jsonl")).status == -9
        resume = ["run", "shop", "--resume", "-q"]
        done = folder.struck(25, *resume, "-a", "raises=other", "-s", "crawl.order=depth", "-o", "late.jsonl")
        assert done.status == -9, done.err
        assert folder.struck(25, *resume).status == -9
        shown = folder.scrape("jobs", "show", "shop").out
        for text in ("argument  raises=other", "setting   crawl.order=depth", "late.jsonl", "out.jsonl"):
            assert text in shown
        assert folder.scrape(*resume).status == 0
        lines, late = folder.lines("out.jsonl"), folder.lines("late.jsonl")
        assert lines == whole().lines
        assert late <= lines
        assert late

    def test_callback_that_is_gone(self, folder: Folder) -> None:
        """A request whose callback no longer exists fails and names it; the others go on."""
        code = (
            "from scraper import Spider\n\n\nclass Changing(Spider):\n    name = 'changing'\n"
            f"    start_urls = ['{folder.site.url()}']\n\n    def parse(self, response):\n"
            "        yield {'url': response.url}\n"
            "        yield response.follow('/robots.txt?a', self.parse_gone)\n"
            "        yield response.follow('/robots.txt?b', self.parse_kept)\n\n"
            "    def parse_gone(self, response):\n        yield {'gone': response.url}\n\n"
            "    def parse_kept(self, response):\n        yield {'kept': response.url}\n"
        )
        folder.write("spiders/changing.py", code)
        # One page and no more: the two requests it led to are certain to wait for the resumed run.
        done = folder.scrape("run", "changing", "-q", "-o", "out.jsonl", "-s", "crawl.max_pages=1")
        assert done.status == 0, done.err
        folder.write("spiders/changing.py", code.replace("parse_gone", "parse_renamed"))
        resume = ("run", "changing", "-q", "--resume", "-s", "crawl.max_pages=0", "--stats", "stats.json")
        done = folder.scrape(*resume)
        assert done.status == 1
        assert "parse_gone()" in done.err
        stats = folder.stats()
        assert (stats["reason"], stats["pending"], stats["failed"], stats["items"]) == ("finished", 0, 1, 2)
        assert "parse_gone()" in folder.scrape("jobs", "show", "changing").out

    def test_demo(self, folder: Folder) -> None:
        """A run on the demo is resumed on the demo, on the port it had."""
        folder.write(
            "spiders/books.py",
            "from scraper import Spider\n\n\nclass Books(Spider):\n    name = 'books'\n\n    def parse(self, response):\n"
            "        yield {'url': response.url}\n        yield from response.follow_all(css='li.next a')\n",
        )
        process = folder.start(
            "run", "books", "--demo", "-o", "out.jsonl", "-o", "-", "-q", "-s", "politeness.delay=0.02"
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith('{"url":')
        process.send_signal(signal.SIGKILL)
        assert folder.end(process).status == -9
        done = folder.scrape("run", "books", "--resume", "-q")
        assert done.status == 0, done.err
        lines = folder.lines("out.jsonl")
        assert lines.total() == len(lines) == 50
        assert len({line.split(b"/")[2] for line in lines}) == 1


@pytest.mark.parametrize("limit", ["max_pages", "max_items", "max_errors"])
def test_a_limit_that_an_earlier_process_reached(folder: Folder, limit: str) -> None:
    """A resumed run with the same limit ends at once; with a higher one it goes on to that, and no further."""
    folder.site.mended = False
    folder.write("spiders/three.py", LIMITED)
    base = (
        "run",
        "three",
        "-q",
        "-a",
        f"base={folder.site.url()}",
        "--stats",
        "stats.json",
        "-s",
        "crawl.concurrency=1",
    )
    name = {"max_pages": "pages", "max_items": "items", "max_errors": "errors"}[limit]
    path = ("-a", "path=broken") if limit == "max_errors" else ()
    for options, wanted in (((), 5), (("--resume",), 5), (("--resume", "-s", f"crawl.{limit}=7"), 7)):
        limits = () if "-s" in options else ("-s", f"crawl.{limit}=5")
        folder.scrape(*base, *path, *limits, *options)
        stats = folder.stats()
        assert (stats["reason"], stats[name]) == (limit, wanted)


LIMITED = """
from scraper import Request, Spider


class Three(Spider):
    name = "three"
    base: str = ""
    path: str = "item"
    custom_settings = {"download.retries": 0}

    async def start(self):
        for number in range(40):
            yield Request(f"{self.base}{self.path}/{number}")

    def parse(self, response):
        yield {"url": response.url}
"""


def test_pages_under_way_when_killed_count_once(folder: Folder) -> None:
    """What comes again after a kill was not counted before, so that it takes nothing from crawl.max_pages."""
    folder.write("spiders/slow.py", UNDER_WAY)
    run = ("run", "slow", "-q", "-a", f"base={folder.site.url()}", "-s", "crawl.max_pages=10", "--stats", "stats.json")
    killed = folder.scrape(*run, "-o", "out.jsonl")
    assert killed.status == -signal.SIGKILL
    assert folder.scrape(*run, "--resume").status == 0
    stats = folder.stats()
    assert (stats["reason"], stats["pages"], stats["items"], stats["done"]) == ("max_pages", 10, 10, 10)
    assert folder.lines("out.jsonl").total() == 10


UNDER_WAY = """
import asyncio
import os
import signal
from pathlib import Path

from scraper import Request, Spider


class Slow(Spider):
    name = "slow"
    base: str = ""
    settled = 0

    async def start(self):
        for number in range(10):
            yield Request(f"{self.base}item/{number}")

    async def parse(self, response):
        if not Path("killed").exists():
            if response.url[-1] in "012":
                await asyncio.Event().wait()
            self.settled += 1
            if self.settled == 7:
                # When the seven are committed, with three under way.
                asyncio.get_running_loop().call_later(0.2, self.kill)
        yield {"url": response.url}

    def kill(self):
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


class TestSharedOutput:
    """Several runs append to one file."""

    @pytest.mark.parametrize("shards", ["1", "2"])
    def test_another_run_wrote_behind(self, folder: Folder, whole: Wholes, shards: str) -> None:
        """What a run wrote behind one that was stopped is still there when that has gone on."""
        run = folder.arguments("shop", "-o", "out.jsonl", "--shards", shards)
        assert folder.scrape(*run, "-s", "crawl.max_pages=30").status == 0
        before = folder.lines("out.jsonl")
        assert folder.scrape(*folder.arguments("lazy", "-o", "out.jsonl")).status == 0
        lazy = whole("lazy").lines
        assert folder.lines("out.jsonl") == before + lazy
        done = folder.scrape(*run, "--resume", "-s", "crawl.max_pages=0")
        assert done.status == 0, done.err
        lines, usual = folder.lines("out.jsonl"), whole().lines + lazy
        assert lines == usual, difference(lines, usual)
