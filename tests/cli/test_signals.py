"""SIGINT and SIGTERM: one drains what is in flight, a second stops at once; both leave a run that can be resumed."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import Project, Running, Site, page

HELD = [f"/held/{number}" for number in range(40)]
SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def held(project: Project, site: Site) -> Running:
    """A run of which the first page is done, some pages are in flight and held back by the site, and the rest waits."""
    site.pages |= {"/": page("Home", HELD), "*": page("Held")}
    project.spider("slow", site.url())
    project.write("settings.toml", "[politeness]\nconcurrency_per_host = 4\n")
    running = project.start("run", "slow", "-o", "slow.jsonl", "--stats", "stats.json")
    site.wait_until(lambda: site.held == 4)
    return running


def paths(project: Project, site: Site) -> list[str]:
    """The paths of the items written, sorted."""
    return sorted(item["url"].removeprefix(site.url("")) for item in project.items("slow.jsonl"))


@pytest.mark.parametrize("number", SIGNALS)
def test_once(held: Running, project: Project, site: Site, number: signal.Signals) -> None:
    """What is in flight is waited for and written; nothing more is asked for; the status is 130; --resume does the rest."""
    held.send(number)
    assert "once more" in held.wait_for_line("stopping: waiting for what is in flight")
    assert held.process.poll() is None
    site.let_go()
    done = held.end()
    assert done.status == 130
    asked = list(site.asked)
    assert (len(asked), asked[0]) == (5, "/")
    assert paths(project, site) == sorted(asked)
    stats = project.stats("stats.json")
    expected = {"reason": "interrupted", "pages": 5, "items": 5, "seeded": 41, "done": 5, "failed": 0, "pending": 36}
    assert {key: stats[key] for key in expected} == expected

    rest = project.scrape("run", "slow", "--resume")
    assert rest.status == 0, rest.err
    assert sorted(site.asked) == paths(project, site) == sorted(["/", *HELD])


@pytest.mark.parametrize("number", SIGNALS)
def test_twice(held: Running, project: Project, site: Site, number: signal.Signals) -> None:
    """The second signal ends the run within a second, whatever the site does; what was in flight stays pending."""
    held.send(number)
    held.wait_for_line("stopping")
    began = time.monotonic()
    held.send(number)
    done = held.end()
    assert time.monotonic() - began < 1
    assert done.status == 130
    assert "Traceback" not in done.err
    assert paths(project, site) == ["/"]
    stats = project.stats("stats.json")
    expected = {"reason": "interrupted", "items": 1, "seeded": 41, "done": 1, "failed": 0, "pending": 40}
    assert {key: stats[key] for key in expected} == expected

    site.let_go()
    rest = project.scrape("run", "slow", "--resume")
    assert rest.status == 0, rest.err
    assert paths(project, site) == sorted(["/", *HELD])


def test_json_log_stays_json(project: Project, site: Site) -> None:
    """What is said of a signal with ``--log-format json`` is JSON as well."""
    site.pages |= {"/": page("Home", HELD), "*": page("Held")}
    project.spider("slow", site.url())
    running = project.start("run", "slow", "--log-format", "json")
    site.wait_until(lambda: site.held > 0)
    running.send(signal.SIGINT)
    running.wait_for_line("stopping")
    site.let_go()
    done = running.end()
    assert done.status == 130
    assert [line for line in done.err_lines if not (line.startswith('{"') and line.endswith("}"))] == []


def test_demo(project: Project) -> None:
    """``scrape demo`` says where the shop is, serves it until it is interrupted, and ends without a word."""
    running = project.start("demo", "--port", "0")
    base = next(word for word in running.wait_for_line("http://127.0.0.1:").split() if word.startswith("http"))
    fetched = project.scrape("fetch", base)
    assert (fetched.status, "The Lantern Bookshop" in fetched.out) == (0, True)
    running.send(signal.SIGINT)
    done = running.end()
    assert (done.status, done.err.strip()) == (130, "")


HANGING = """
import asyncio
from scraper import Spider

class Hanging(Spider):
    name = "hanging"
    start_urls = ["{url}"]

    async def {method}:
        print("it hangs", file=__import__("sys").stderr, flush=True)
        await asyncio.Event().wait()
"""


@pytest.mark.parametrize("method", ["opened(self)", "closed(self, reason)"])
def test_users_code_that_hangs(project: Project, site: Site, method: str) -> None:
    """The second signal ends what is waited for outside of the crawl, too."""
    site.pages["/"] = page("Home")
    project.write("spiders/hanging.py", HANGING.format(url=site.url(), method=method))
    running = project.start("run", "hanging", "--stats", "stats.json")
    running.wait_for_line("it hangs")
    running.send(signal.SIGINT)
    if method.startswith("opened"):
        running.wait_for_line("stopping")
    running.send(signal.SIGTERM)
    done = running.end()
    assert "Traceback" not in done.err
    if method.startswith("opened"):
        assert (done.status, project.stats("stats.json")["reason"]) == (130, "interrupted")
    else:
        assert "closed() was not waited for" in done.err
        assert (done.status, project.stats("stats.json")["pending"]) == (1, 0)


def test_a_thread_that_hangs(project: Project, site: Site) -> None:
    """Nor does the end wait for a thread in which a callback has something done."""
    site.pages["/"] = page("Home")
    project.write(
        "spiders/hanging.py",
        HANGING.format(url=site.url(), method="parse(self, response)").replace(
            "await asyncio.Event().wait()", "await asyncio.to_thread(__import__('threading').Event().wait)"
        ),
    )
    running = project.start("run", "hanging", "--stats", "stats.json")
    running.wait_for_line("it hangs")
    running.send(signal.SIGINT)
    running.wait_for_line("stopping")
    running.send(signal.SIGINT)
    done = running.end()
    assert (done.status, project.stats("stats.json")["pending"]) == (130, 1)
    assert done.err_lines[-1] == "to go on: scrape run hanging --resume"


BLOCKING = """
import signal
import threading
from scraper import Spider

class Blocking(Spider):
    name = "blocking"
    start_urls = ["{url}"]
    blocks: bool = True

    def parse(self, response):
        yield {{"url": response.url}}
        yield from response.follow_all(css="a", callback=self.block)

    def block(self, response):
        if self.blocks:
            self.heard, former = 0, signal.getsignal(signal.SIGINT)

            def hear(*given):
                self.heard += 1
                print("signal", self.heard, flush=True)
                former(*given)

            signal.signal(signal.SIGINT, hear)
            print("it blocks", flush=True)
            threading.Event().wait()
        yield {{"url": response.url}}
"""


def test_a_callback_that_holds_the_event_loop_up(project: Project, site: Site) -> None:
    """The loop cannot hear of a signal then: the third ends the process, and nothing is lost."""
    site.pages |= {"/": page("Home", ["/block"]), "*": page("Block")}
    project.write("spiders/blocking.py", BLOCKING.format(url=site.url()))
    running = project.start("run", "blocking", "-o", "slow.jsonl")
    running.wait_for_line("it blocks")
    for number in (1, 2):
        running.send(signal.SIGINT)
        running.wait_for_line(f"signal {number}")
    assert running.process.poll() is None
    running.send(signal.SIGINT)
    done = running.end()
    assert (done.status, done.err_lines[-1]) == (130, "ended at once")
    assert project.scrape("run", "blocking", "--resume", "-a", "blocks=false").status == 0
    assert paths(project, site) == ["/", "/block"]


LEFT = """
import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from scraper import Spider

class Threads(ThreadPoolExecutor):
    def shutdown(self, *given, **options):
        print("the crawl has ended", flush=True)
        super().shutdown(*given, **options)

class Leaving(Spider):
    name = "leaving"
    start_urls = ["{url}"]

    async def parse(self, response):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(Threads())
        loop.run_in_executor(None, threading.Event().wait)
        return {{"url": response.url}}
"""


def test_a_thread_that_is_left(project: Project, site: Site) -> None:
    """A signal after the crawl, while Python waits for a thread that nobody awaits, ends the run as it is: all is kept."""
    site.pages["/"] = page("Home")
    project.write("spiders/leaving.py", LEFT.format(url=site.url()))
    running = project.start("run", "leaving", "-o", "slow.jsonl", "--stats", "stats.json")
    running.wait_for_line("the crawl has ended")
    running.send(signal.SIGINT)
    done = running.end()
    assert (done.status, "Traceback" in done.err) == (0, False)
    assert paths(project, site) == ["/"]
    assert project.stats("stats.json")["done"] == 1


def test_while_importing(project: Project, tmp_path: Path) -> None:
    """Ctrl-C before the command is there to take it ends like any other: status 130, and no traceback."""
    finder = (
        "import os, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
    )
    tmp_path.joinpath("sitecustomize.py").write_text(finder)
    done = project.scrape("list", env={"PYTHONPATH": str(tmp_path)})
    assert (done.status, done.out, done.err) == (130, "", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_after_the_end(project: Project, site: Site, number: signal.Signals) -> None:
    """A signal that comes when all is done and the process is about to end changes nothing, and says nothing."""
    site.pages["/"] = page("Home")
    text = project.spider("late", site.url()).read_text()
    project.write(
        "spiders/late.py", f"import atexit, os\natexit.register(lambda: os.kill(os.getpid(), {number:d}))\n{text}"
    )
    done = project.scrape("run", "late", "-q")
    assert (done.status, done.err) == (0, "")


def test_fetch_in_a_shell(project: Project, site: Site) -> None:
    """Ctrl-C during a fetch() in the shell ends the fetch, with a word and no traceback; the shell goes on."""
    running = project.start("shell", "-s", "politeness.robots=false", stdin=subprocess.PIPE)
    stdin = running.process.stdin
    assert stdin is not None
    stdin.write(f"fetch({site.url('/held/1')!r})\n")
    stdin.flush()
    site.wait_until(lambda: site.held == 1)
    running.send(signal.SIGINT)
    running.wait_for_line("interrupted")
    stdin.write("print('still', 'here')\n")
    stdin.close()
    running.wait_for_line("still here")
    done = running.end()
    assert done.status == 0
    assert "Traceback" not in done.err + done.out
