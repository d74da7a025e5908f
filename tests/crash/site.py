"""A web site in this process that kills its visitor, and the project in which the visitor is run.

The site counts what it is asked, and notes when by the kernel's clock, however late this process sees it; ``strike`` has
it send a signal at the n-th request from then on, before it answers. So a crawl dies at an instant that a random number
chose, and nothing here waits for a time to pass.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import msgspec

PATIENCE_S = 30.0
"""Past this, a process will never end."""

CONCURRENCY = 64
"""The default of crawl.concurrency: what a kill may have fetched again."""

FIRST_FETCH_S = 2.0
"""The longest time from the start of a process to its first request."""

SCRAPE = [sys.executable, "-P", "-m", "scraper"]

CLOCK_S = 1e-6
"""How exactly the sum of a monotonic and a wall clock can be had."""

Answer = tuple[int, dict[str, str], bytes]

_SO_TIMESTAMPNS = 35  # Linux: the kernel notes when each segment came


@dataclass(slots=True)
class Asked:
    """One request: when the kernel got it, and when its answer began to be sent; in seconds of the monotonic clock."""

    at: float
    path: str
    host: str
    answered: float = math.inf


class Site:
    """A shop of ``pages`` items on the loopback interface, on all of 127.0.0.0/8.

    /            links to all lists, and to what is late
    /full        the same, and a flaky page
    /list/I      fifteen items, five of them also on the next list; a redirect; and the next list
    /item/K      links to two other items
    /to/K        redirects to /item/K, or to /only/K, which nothing else links to
    /flaky/K     answers 503 the first time
    /side/K      what an async callback fetches on its own
    /late/K      asked for with a delay
    /broken/K    answers 500 until ``mended``
    /odd/K       has a header whose value is no UTF-8

    Some pages are answered a few milliseconds later than others, so that they come back in another order.
    """

    def __init__(self, pages: int = 240) -> None:
        self.pages = pages
        self.asked: list[Asked] = []
        self.mended = False
        self.held: set[str] = set()
        self._strikes: list[tuple[int, int, int]] = []
        self._changed = threading.Condition()
        self._release: list[tuple[_Connection, bytes, Asked]] = []
        self._loop = asyncio.new_event_loop()
        self._connections: set[_Connection] = set()
        self._socket = socket.create_server(("0.0.0.0", 0), backlog=1024)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)  # its connections inherit it
        self._socket.setblocking(False)
        self._wall_to_monotonic_s = time.monotonic() - time.time()
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """The address of a page."""
        return f"http://{host}:{self.port}{path}"

    @property
    def times(self) -> Counter[str]:
        """How often each page was asked for, by host and path, robots.txt aside."""
        return Counter(f"{each.host}{each.path}" for each in self.asked if each.path != "/robots.txt")

    def most_at_once(self, host: str) -> int:
        """How many requests to a host had come and were not answered, at the most."""
        asked = [each for each in self.asked if each.host == host]
        steps = sorted([*((each.answered, -1) for each in asked), *((each.at, 1) for each in asked)])
        return max(accumulate(step for _, step in steps), default=0)

    def gaps(self, host: str) -> list[float]:
        """The seconds between each request to a host and the next, of whatever kind."""
        times = sorted(each.at for each in self.asked if each.host == host)
        return [later - earlier for earlier, later in pairwise(times)]

    def forget(self) -> None:
        """Begin to count anew."""
        with self._changed:
            self.asked.clear()
            self._strikes.clear()

    def strike(self, pid: int, after: int, number: int = signal.SIGKILL) -> None:
        """Send a process a signal when so many more requests have come."""
        with self._changed:
            self._strikes.append((len(self.asked) + after, pid, number))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something about the requests holds."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE_S), f"{len(self.asked)} requests came"

    def wait_until_quiet(self) -> None:
        """Wait until all connections of a process that has ended are read to their end."""
        self.wait_until(lambda: not self._connections)

    def let_go(self) -> None:
        """Answer what is held back, now and from now on."""

        def answer() -> None:
            for each in self._release:
                self._answer(*each)
            self._release.clear()

        self.held.clear()
        self._loop.call_soon_threadsafe(answer)

    def _serve(self) -> None:
        self._loop.add_reader(self._socket, self._accept)
        self._loop.run_forever()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for connection in list(self._connections):
            connection.close()
        self._loop.close()

    def _accept(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                self._connections.add(_Connection(self, self._loop, self._socket.accept()[0]))

    def _lost(self, connection: _Connection) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def _came(self, connection: _Connection, path: str, host: str, at: float) -> None:
        asked = Asked(at + self._wall_to_monotonic_s, path, host)
        with self._changed:
            times = sum(each.path == path for each in self.asked) if path.startswith("/flaky/") else 0
            self.asked.append(asked)
            due = [each for each in self._strikes if each[0] <= len(self.asked)]
            for each in due:
                self._strikes.remove(each)
                with suppress(ProcessLookupError):
                    os.kill(each[1], each[2])
            self._changed.notify_all()
        status, headers, body = self.answer(path, times)
        lines = [f"HTTP/1.1 {status} OK", *(f"{name}: {value}" for name, value in headers.items())]
        lines += ["Content-Type: text/html; charset=utf-8", f"Content-Length: {len(body)}", "", ""]
        data = "\r\n".join(lines).encode("utf-8", "surrogateescape") + body
        if path in self.held:
            self._release.append((connection, data, asked))
            return
        latency_s = (crc32(path.encode()) % 4) * 0.004
        if latency_s:
            self._loop.call_later(latency_s, self._answer, connection, data, asked)
        else:
            self._answer(connection, data, asked)

    def _answer(self, connection: _Connection, data: bytes, asked: Asked) -> None:
        asked.answered = time.time() + self._wall_to_monotonic_s
        connection.write(data)

    def answer(self, path: str, times: int) -> Answer:
        """What a page answers that was asked for so many times before."""
        kind, _, rest = path.strip("/").partition("/")
        number = int(rest) if rest.isdigit() else 0
        lists = self.pages // 10
        if kind in ("", "full"):
            more = ["/flaky/1"] if kind else []
            return _page("Home", [f"/list/{i}" for i in range(0, lists, 3)] + ["/late/1", "/late/2", *more])
        if kind == "list":
            items = [f"/item/{k % self.pages}" for k in range(number * 10, number * 10 + 15)]
            following = [f"/list/{number + 1}"] if number + 1 < lists else []
            return _page(f"List {number}", [*items, f"/to/{number}", *following])
        if kind == "item":
            return _page(f"Item {number}", [f"/item/{number * 7 % self.pages}", f"/item/{(number + 1) % self.pages}"])
        if kind == "to":
            target = f"/item/{number}" if number % 2 else f"/only/{number}"
            return 302, {"Location": target}, b""
        if kind == "flaky" and not times:
            return 503, {"Retry-After": "0"}, b""
        if kind == "broken" and not self.mended:
            return 500, {}, b""
        if kind == "robots.txt":
            return 404, {}, b""
        if kind == "odd":
            return 200, {"X-Name": "caf\udce9"}, b"odd"
        return _page(f"{kind} {number}", ["/item/1"])


def _page(title: str, links: list[str]) -> Answer:
    anchors = "".join(f'<a href="{link}">{link}</a>\n' for link in links)
    return 200, {}, f"<!doctype html><title>{title}</title><h1>{title} „ü“</h1>{anchors}".encode()


class _Connection:
    """HTTP/1.1 as far as GET without a body needs it; asyncio's transports do not tell when the kernel got something."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._site = site
        self._loop = loop
        self._socket = connection
        self._buffer = b""
        loop.add_reader(connection, self._read)

    def write(self, data: bytes) -> None:
        """Send an answer; nobody may be there any more."""
        with suppress(OSError):
            assert self._socket.send(data) == len(data), "the kernel takes no page as long as this one at once"

    def close(self) -> None:
        """End the connection."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._site._lost(self)

    def _read(self) -> None:
        try:
            data, notes, _, _ = self._socket.recvmsg(65536, 256)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        seconds, nanoseconds = struct.unpack("ll", notes[0][2][:16])
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            host = next(line.partition(":")[2].strip() for line in lines if line.lower().startswith("host:"))
            self._site._came(self, lines[0].split(" ")[1], host.rpartition(":")[0], seconds + nanoseconds / 1e9)


SPIDERS = '''
from __future__ import annotations

from scraper import Request, Spider


class Shop(Spider):
    """Follows all links; a list gives no item, any other page one to three."""

    name = "shop"
    base: str = ""
    first: str = ""
    raises: str = ""

    async def start(self):
        yield Request(self.base + self.first)

    def parse(self, response):
        kind = response.url.rsplit("/", 2)[1]
        if kind == "item":
            number = int(response.url.rsplit("/", 1)[1])
            for part in range(number % 3 + 1):
                yield {"url": response.url, "part": part, "title": response.css("h1::text").get(), "text": "\\u2028\\n"}
        elif kind in ("only", "late", "flaky", "broken"):
            yield {"url": response.url, "part": 0, "title": response.css("h1::text").get(), "text": ""}
        for number, link in enumerate(response.css("a::attr(href)").getall()):
            if link.startswith("/late/"):
                yield response.follow(link, delay=0.15)
            else:
                yield response.follow(link, priority=number % 3, cb_kwargs={"n": number} if number % 2 else None,
                                      callback=self.parse_more if number % 2 else None)

    def parse_more(self, response, n):
        return self.parse(response)


class Slowly(Shop):
    """Async callbacks, each of which fetches another page in between."""

    name = "slowly"

    async def parse(self, response):
        side = None
        if "/item/" in response.url and response.url.endswith(("1", "4", "6")):
            side = await self.fetch(response.urljoin("/side/" + response.url.rsplit("/", 1)[1]))
        for value in super().parse(response):
            if isinstance(value, dict):
                value["side"] = side.css("h1::text").get() if side is not None else None
            yield value


class Lazy(Shop):
    """start() gives items and requests in turn, as they are taken."""

    name = "lazy"

    async def start(self):
        for number in range(100):
            yield {"start": number}
            yield Request(self.base + f"item/{number}", self.parse_item)
            if number % 10 == 0:
                yield Request(self.base, self.parse_item, dont_filter=True)

    def parse_item(self, response):
        yield {"url": response.url}


class Hosts(Shop):
    """Ten hosts, each page linking to the same path of the next one."""

    name = "hosts"

    async def start(self):
        for number in range(1, 11):
            yield Request(self.base.replace("127.0.0.1", f"127.0.0.{number}") + "item/1")

    def parse(self, response):
        host = response.url.split("/")[2].split(":")[0]
        following = int(host.rsplit(".", 1)[1]) % 10 + 1
        yield {"url": response.url}
        for link in response.css("a::attr(href)").getall():
            if int(link.rsplit("/", 1)[1]) > 30:
                continue
            yield response.follow(link)
            yield Request(response.urljoin(link).replace(host, f"127.0.0.{following}"))


class Many(Shop):
    """One page gives 50,000 items, of about 100 bytes each, and others a few."""

    name = "many"

    async def start(self):
        yield Request(self.base + "only/1", self.parse_many)
        for number in range(50):
            yield Request(self.base + f"item/{number}", self.parse_item)

    def parse_many(self, response):
        for number in range(50_000):
            yield {"url": response.url, "number": number, "text": "a text that is somewhat longer than nothing " * 2}

    def parse_item(self, response):
        yield {"url": response.url}


class Wordy(Shop):
    """120 pages, each with an item of 20 kB."""

    name = "wordy"

    async def start(self):
        for number in range(120):
            yield Request(self.base + f"item/{number}")

    def parse(self, response):
        yield {"url": response.url, "text": "words " * 3400}


class Fragile(Shop):
    """Two broken pages, and one whose callback raises after two of its four items while ``raises``."""

    name = "fragile"

    async def start(self):
        for path in ("item/1", "broken/1", "broken/2"):
            yield Request(self.base + path, self.parse_item)
        yield Request(self.base + "only/1", self.parse_four, errback=self.note if self.raises else None)

    def parse_item(self, response):
        yield {"url": response.url}

    def parse_four(self, response):
        for number in range(4):
            if number == 2 and self.raises:
                raise ValueError("two are enough")
            yield {"url": response.url, "number": number}

    def note(self, failure):
        if self.raises == "noted":
            yield {"failed": failure.request.url}
'''

PIPELINES = '''
import asyncio


class Pauses:
    """Gives every item back some turns of the event loop later."""

    async def process_item(self, item, spider):
        for _ in range(20 * (len(str(item)) % 3)):
            await asyncio.sleep(0)
        return item
'''


@dataclass
class Done:
    """A process that has ended."""

    status: int
    out: str
    err: str
    started: float
    took_s: float


class Forks:
    """A process that has imported everything and runs ``scrape`` in forks of itself, one at a time: see ``failing.py``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("failing.py"))],
            # These runs are here to be quick, and die too early to write what was measured.
            env={name: value for name, value in environment().items() if not name.startswith("COVERAGE")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self,
        argv: tuple[str, ...],
        cwd: Path,
        *,
        began: Callable[[int], None] = lambda pid: None,
        max_file: int = 0,
        kind: str = "",
        at: int = 0,
    ) -> Done:
        """Run it to its end; ``began`` is told its number. With ``kind`` it dies at the so-manieth such boundary."""
        assert self._process.stdin is not None
        started = time.monotonic()
        out, err = self._folder / "out", self._folder / "err"
        order = {"argv": argv, "cwd": str(cwd), "out": str(out), "err": str(err)}
        order |= {"max_file": max_file, "kind": kind, "at": at}
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        began(self._answer())
        status = self._answer()
        took_s = time.monotonic() - started
        return Done(status, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"), started, took_s)

    def close(self) -> None:
        """End the process, and with it a run that hangs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = bytearray()
        while not line.endswith(b"\n"):
            is_there, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
            assert is_there, "a run does not end"
            byte = os.read(self._process.stdout.fileno(), 1)
            assert byte, "the process that forks has ended"
            line += byte
        return int(line)


@dataclass
class Folder:
    """A project with the spiders above, in which ``scrape`` is run as a process of its own.

    With ``forks`` it is run as one of these, without the time that Python takes to start.
    """

    root: Path
    site: Site
    forks: Forks | None = None
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.write("settings.toml", "")
        self.write("spiders/all.py", SPIDERS)
        self.write("effects.py", PIPELINES)

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, max_file: int = 0) -> subprocess.Popen[str]:
        """Start the command; ``max_file`` limits how long a file it may write, in bytes."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file, max_file))

        process = subprocess.Popen(
            [*SCRAPE, *arguments],
            cwd=self.root,
            env={**environment(), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            preexec_fn=limit if max_file else None,
        )
        self.running.append(process)
        return process

    def end(self, process: subprocess.Popen[str], started: float = 0.0) -> Done:
        """Wait for a process."""
        out, err = process.communicate(timeout=PATIENCE_S)
        return Done(process.returncode, out, err, started, time.monotonic() - started)

    def scrape(self, *arguments: str, **options: Any) -> Done:
        """Run the command to its end."""
        if self.forks is not None and "env" not in options:
            return self.forks.run(arguments, self.root, **options)
        started = time.monotonic()
        return self.end(self.start(*arguments, **options), started)

    def struck(self, after: int, *arguments: str, number: int = signal.SIGKILL, **options: Any) -> Done:
        """Run the command; the site sends it a signal at its so-manieth request, if it comes to that."""
        if self.forks is not None:
            return self.forks.run(arguments, self.root, began=lambda pid: self.site.strike(pid, after, number))
        started = time.monotonic()
        process = self.start(*arguments, **options)
        self.site.strike(process.pid, after, number)
        return self.end(process, started)

    def arguments(self, spider: str = "shop", *more: str) -> list[str]:
        """``run`` for one of the spiders on the site."""
        return ["run", spider, "-a", f"base={self.site.url()}", "-q", *more]

    def lines(self, name: str) -> Counter[bytes]:
        """The lines of an output; none may be broken."""
        data = (self.root / name).read_bytes()
        assert data.endswith(b"\n") or not data, f"{name} ends in half a line: {data[-80:]!r}"
        lines = data.splitlines(keepends=True)
        if not name.endswith(".csv"):
            for line in lines:
                msgspec.json.decode(line)
        return Counter(lines)

    def stats(self, name: str = "stats.json") -> dict[str, Any]:
        """The summary in a ``--stats`` file, checked to add up."""
        stats: dict[str, Any] = msgspec.json.decode((self.root / name).read_bytes())
        assert stats["seeded"] == stats["done"] + stats["failed"] + stats["pending"], stats
        return stats

    def job(self, spider: str = "shop") -> Path:
        """The folder of the spider's newest run."""
        return max((self.root / ".scrape" / spider).iterdir())

    def stop(self) -> None:
        """End what is still running."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.communicate()


def environment() -> dict[str, str]:
    """This process's environment without settings of a crawl.

    What tells a child to measure its coverage stays: commands with several processes are seen nowhere else.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCRAPE_", "_SCRAPE_"))}
    return {**kept, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}


def some_moment(rng: Random, requests: int) -> int:
    """Return after how many requests to strike: half the time among the first, while some processes still begin."""
    return rng.randrange(1, rng.choice((requests, 20)))


def difference(found: Counter[bytes], wanted: Counter[bytes]) -> str:
    """What two outputs differ in, for a person."""
    lost, doubled = wanted - found, found - wanted
    return f"{lost.total()} lost: {list(lost)[:3]}; {doubled.total()} too many: {list(doubled)[:3]}"


@dataclass
class Torture:
    """What came of a crawl that was killed and resumed over and over.

    ``refetched`` says for each kill how many pages were fetched before it and again after it, sooner or later; those
    that a callback fetches in between are not counted, they come again with the callback's own page.
    """

    status: int = 0
    kills: int = 0
    refetched: list[int] = field(default_factory=list)
    first_fetch_s: list[float] = field(default_factory=list)
    err: str = ""


def torture(folder: Folder, usual: Counter[str], kills: Iterable[Strike], *arguments: str) -> Torture:
    """Run ``scrape`` and resume it, each time struck as the next of ``kills`` says; at last run it to its end.

    ``usual`` is how often an uninterrupted crawl asks for each page.
    """
    site, report = folder.site, Torture()
    ends: list[int] = []
    struck = iter(kills)
    while True:
        began = len(site.asked)
        started = time.monotonic()
        has_begun = any(folder.root.glob(".scrape/*/*/job.json"))
        process = folder.start(*arguments, *(["--resume"] if has_begun else []))
        strike = next(struck, None)
        if strike is not None:
            strike(process)
        done = folder.end(process, started)
        site.wait_until_quiet()
        if len(site.asked) > began:
            report.first_fetch_s.append(site.asked[began].at - started)
        ends.append(len(site.asked))
        if done.status != -signal.SIGKILL:
            # Killed between its end and its exit, it has left nothing to resume.
            had_ended = bool(report.kills) and "no unfinished run" in done.err
            report.status, report.err = 0 if had_ended else done.status, done.err
            report.refetched = _refetched(site.asked, usual, ends)
            return report
        report.kills += 1


def _refetched(asked: list[Asked], usual: Counter[str], ends: list[int]) -> list[int]:
    """Blame each fetch beyond the usual ones on the kill that came after the fetch before it."""
    runs: dict[str, list[int]] = {}
    for number, each in enumerate(asked):
        if each.path != "/robots.txt" and not each.path.startswith("/side/"):
            runs.setdefault(each.host + each.path, []).append(bisect_right(ends, number))
    blamed = [0] * len(ends)
    for page, fetches in runs.items():
        for run in fetches[: len(fetches) - max(1, usual[page])]:
            blamed[run] += 1
    return blamed[:-1]


Strike = Callable[["subprocess.Popen[str]"], None]
"""Has a process killed, sooner or later."""
