"""What the tests of the command line share: a web site in this process, and a project in which ``scrape`` is run.

Everything is real: the command is a process of its own, the site answers on the loopback interface, signals are sent.
Nothing sleeps; what has to wait waits for a line of output, for a request, or for the end of the process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scraper.demo.bookshop import serve

PATIENCE_S = 20.0
"""Past this, something that is waited for will never come."""

SCRAPE = [sys.executable, "-P", "-m", "scraper"]
"""The command; ``-P`` keeps the current folder off the import path, as it is for the installed ``scrape``."""


class Site:
    """A web site whose pages are given by path, a text or a bare status; the key "*" answers all other paths.

    ``asked`` holds the paths that were asked for, in order, robots.txt aside. A page below /held/ is answered once
    ``let_go`` is called; ``held`` counts those that wait.
    """

    def __init__(self) -> None:
        self.pages: dict[str, str | int] = {}
        self.asked: list[str] = []
        self.held = 0
        self._changed = threading.Condition()
        self._let_go = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "/") -> str:
        """The address of a page."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something about the requests holds."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S), f"asked: {self.asked}, held: {self.held}"

    def let_go(self) -> None:
        """Answer the pages below /held/, those that wait and all later ones."""
        self._let_go.set()

    def answer(self, path: str) -> tuple[int, str]:
        """Note the request and return the status and the text of its answer."""
        if path == "/robots.txt":
            return 404, ""
        with self._changed:
            self.asked.append(path)
            self.held += path.startswith("/held/")
            self._changed.notify_all()
        if path.startswith("/held/"):
            self._let_go.wait(PATIENCE_S)
        page = self.pages.get(path, self.pages.get("*", 404))
        return (200, page) if isinstance(page, str) else (page, "")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away."""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            status, text = site.answer(self.path)
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the test's output clean."""

    return Handler


def page(title: str, links: list[str] | tuple[str, ...] = ()) -> str:
    """A page with a title and links."""
    rows = "".join(f'<a href="{link}">{link}</a>\n' for link in links)
    return f"<!doctype html><title>{title}</title><body>{rows}</body>"


@dataclass
class Done:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def err_lines(self) -> list[str]:
        """Standard error, line by line."""
        return self.err.splitlines()

    @property
    def items(self) -> list[dict[str, Any]]:
        """The items on standard output."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]

    def refused(self) -> str:
        """Check that the command said one line and nothing else, with status 2; return what it said."""
        assert (self.status, self.out) == (2, ""), self
        assert len(self.err_lines) == 1, self.err
        assert self.err.startswith("scrape: "), self.err
        assert self.err.endswith("\n")
        return self.err.removeprefix("scrape: ").rstrip("\n")


class Running:
    """A command that runs; its output is read while it does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._err: list[str] = []
        self._out: list[str] = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(process.stderr, self._err)),
            threading.Thread(target=self._read, args=(process.stdout, self._out)),
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_line(self, part: str) -> str:
        """Wait until a line with this text has been written, to either side; return it."""

        def find() -> str | None:
            return next((line for line in self._out + self._err if part in line), None)

        with self._changed:
            assert self._changed.wait_for(find, PATIENCE_S), f"no {part!r} in {self._out + self._err}"
            line = find()
            assert line is not None
            return line

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self, within_s: float = PATIENCE_S) -> Done:
        """Wait for the end."""
        status = self.process.wait(within_s)
        for thread in self._threads:
            thread.join()
        return Done(status, "".join(self._out), "".join(self._err))

    def stop(self) -> None:
        """Make sure that nothing is left behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._changed:
                lines.append(line)
                self._changed.notify_all()


@dataclass
class Project:
    """A folder in which ``scrape`` is run."""

    root: Path
    running: list[Running] = field(default_factory=list)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def spider(self, name: str, start: str, body: str = "", parse: str = "") -> Path:
        """Write a spider that starts at a URL, yields each page's title and follows its links; or does as ``parse`` says."""
        parse = parse or (
            'yield {"url": response.url, "title": response.css("title::text").get()}\n'
            'yield from response.follow_all(css="a")'
        )
        lines = [
            "from scraper import Request, Response, Spider",
            "",
            f"class {name.title()}(Spider):",
            f'    name = "{name}"',
            f"    start_urls = [{start!r}]",
            *(f"    {line}" for line in body.splitlines()),
            "    def parse(self, response):",
            *(f"        {line}" for line in parse.splitlines()),
        ]
        return self.write(f"spiders/{name}.py", "\n".join(lines) + "\n")

    def scrape(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
        given: str | None = None,
    ) -> Done:
        """Run the command to its end."""
        done = subprocess.run(
            [*SCRAPE, *arguments],
            cwd=folder or self.root,
            env={**_environment(), **(env or {})},
            input=given or "",
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> Running:
        """Start the command."""
        process = subprocess.Popen(
            [*SCRAPE, *arguments],
            cwd=self.root,
            env=_environment(),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self.running.append(Running(process))
        return self.running[-1]

    def items(self, name: str) -> list[dict[str, Any]]:
        """The items in a JSONL file."""
        return [msgspec.json.decode(line) for line in (self.root / name).read_bytes().splitlines()]

    def stats(self, name: str) -> dict[str, Any]:
        """The summary in a ``--stats`` file, checked to add up."""
        stats: dict[str, Any] = msgspec.json.decode((self.root / name).read_bytes())
        assert stats["seeded"] == stats["done"] + stats["failed"] + stats["pending"]
        return stats


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCRAPE_", "_SCRAPE_"))}
    return {**kept, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell starts what is to run in the background with SIGINT ignored, and so would every command started here be."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def site() -> Iterator[Site]:
    """A web site without pages."""
    with Site() as site:
        yield site


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project without spiders, whose settings.toml is empty."""
    made = Project(tmp_path / "project")
    made.write("settings.toml", "")
    made.root.joinpath("spiders").mkdir()
    yield made
    for each in made.running:
        each.stop()


@pytest.fixture(scope="session")
def bookshop() -> Iterator[str]:
    """The bundled bookshop's address, served by a thread."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    addresses: list[str] = []
    is_open = threading.Event()

    async def main() -> None:
        async with serve() as base:
            addresses.append(base)
            is_open.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert is_open.wait(PATIENCE_S)
    yield addresses[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
