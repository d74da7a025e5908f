"""Real servers on the loopback interface: ``Site`` for pages, ``RawServer`` for answers that are no good HTTP.

And ``in_loop``, the event loop that a test and its servers run in. Nothing here sleeps: what has to wait waits for an
event, a barrier or the end of the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from inspect import isawaitable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import trustme
from aiohttp import web

Answer = str | int | web.StreamResponse
"""A page's text, a bare status, or a whole response."""

Page = Answer | Callable[[web.BaseRequest], Answer | Awaitable[Answer]]
"""An answer that is always the same, or a function that makes it."""

PATIENCE_S = 20.0
"""Past this, something that is waited for will never come."""

WARM_UP = "/warm-up"
"""The path of a page that a RawServer answers in good order."""

_BACKLOG = 4096
_GRACE_S = 0.05  # for handlers still under way when the server is closed


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make an async test a plain one: a new event loop, a timeout, and no task and no error left behind in the loop."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        strays: list[Any] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: strays.append(context))
            async with asyncio.timeout(PATIENCE_S):
                await test(*args, **kwargs)
            await asyncio.sleep(0)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks left behind: {left}"

        asyncio.run(main())
        assert not strays, f"errors that went to the event loop: {strays}"

    return run


@dataclass(slots=True)
class Asked:
    """One request as the server saw it, and when (monotonic seconds)."""

    path: str
    at: float
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


class Site:
    """A web site whose pages are given by path; the key "*" answers all other paths.

    ``asked`` holds what the server was asked, in order of arrival, robots.txt aside; ``most_at_once`` is the largest
    number of requests that were inside together. ``robots`` is the page at /robots.txt.
    """

    def __init__(self, pages: Mapping[str, Page], *, robots: Page = 404, host: str = "127.0.0.1") -> None:
        self.pages = dict(pages)
        self.robots = robots
        self.asked: list[Asked] = []
        self.asked_robots: list[Asked] = []
        self.most_at_once = 0
        self.inside = 0
        self._host = host
        self._waiting: list[tuple[int, asyncio.Event]] = []
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=_GRACE_S
        )

    async def __aenter__(self) -> Site:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, 0, backlog=_BACKLOG).start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def url(self, path: str = "/") -> str:
        """The address of a page."""
        return f"http://{self._host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        """The paths asked for, in order, without robots.txt."""
        return [each.path for each in self.asked]

    @property
    def times(self) -> Counter[str]:
        """How often each path was asked for."""
        return Counter(self.paths)

    async def was_asked(self, times: int, by: asyncio.Future[Any]) -> None:
        """Wait until so many requests have come in all; raise where the one who asks ends before."""
        if len(self.asked) < times:
            came = asyncio.Event()
            self._waiting.append((times, came))
            waiter = asyncio.ensure_future(came.wait())
            await asyncio.wait((waiter, by), return_when=asyncio.FIRST_COMPLETED)
            if not came.is_set():
                waiter.cancel()
                raise AssertionError(f"only {len(self.asked)} of {times} requests came: {by}")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        seen = Asked(request.path, time.monotonic(), request.method, dict(request.query), request.headers)
        if request.path == "/robots.txt":
            self.asked_robots.append(seen)
            page: Page = self.robots
        else:
            self.asked.append(seen)
            for times, came in self._waiting:
                if len(self.asked) >= times:
                    came.set()
            page = self.pages.get(request.path, self.pages.get("*", 404))
        self.inside += 1
        self.most_at_once = max(self.most_at_once, self.inside)
        try:
            answer = page(request) if callable(page) else page
            return _response(await answer if isawaitable(answer) else answer)
        finally:
            self.inside -= 1


def _response(answer: Answer) -> web.StreamResponse:
    if isinstance(answer, int):
        return web.Response(status=answer)
    if isinstance(answer, str):
        return web.Response(text=answer, content_type="text/html")
    return answer


def links(paths: Iterable[str]) -> str:
    """A page with a link to each of the paths."""
    return "<!doctype html><title>Links</title>" + "".join(f'<a href="{path}">{path}</a>\n' for path in paths)


def redirect(location: str, status: int = 302) -> Callable[[web.BaseRequest], web.Response]:
    """A page that redirects."""
    return lambda request: web.Response(status=status, headers={"Location": location})


def in_turn(*answers: Answer) -> Callable[[web.BaseRequest], Answer]:
    """A page that gives one answer after the other, and the last one for ever."""
    left = list(answers)
    return lambda request: left.pop(0) if len(left) > 1 else left[0]


async def never(request: web.BaseRequest) -> Answer:
    """A page that does not answer until the client goes away."""
    await asyncio.Event().wait()
    return ""


@contextmanager
def unreachable() -> Iterator[int]:
    """A port of 127.0.0.1 that drops packets: to connect to it takes for ever."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # its queue is full with one: the next SYN is dropped
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class RawServer:
    """Answers each request with the given bytes as they are, then closes the connection as ``end`` says.

    ``end`` is "close", "reset" (RST), or "hang" (nothing more, until the server is closed). ``connections`` counts, and
    ``heads`` holds the requests' heads. With ``tls`` it speaks TLS. A page at WARM_UP is answered before, in good order, on
    a connection that stays open; ``warmable`` are the ports of the servers that can.
    """

    warmable: ClassVar[set[int]] = set()

    def __init__(
        self, answer: bytes, end: str = "close", *, read: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self._answer = answer
        self._end = end
        self._read = read
        self._tls = tls
        self.heads: list[bytes] = []
        self._writers: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        self.connections = 0

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        if self._read:
            self.warmable.add(self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.warmable.discard(self.port)
        self._server.close()
        serving = dict(self._writers)
        for writer in serving.values():
            writer.close()
        # A handshake that failed is a task of asyncio's own, which may need another turn to end.
        names = {task: getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
        shaking = [task for task, name in names.items() if name.endswith("_accept_connection2")]
        await asyncio.gather(*serving, *shaking)
        await self._server.wait_closed()

    def url(self, path: str = "/") -> str:
        """The address of a page."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task: Any = asyncio.current_task()
        self._writers[task] = writer
        try:
            if self._read:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET " + WARM_UP.encode()):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwarm")
                    head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
            writer.write(self._answer)
            await writer.drain()
            if self._end == "hang":
                await reader.read()
            if self._end == "reset":
                connection: Any = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            del self._writers[task]


class Authority:
    """A certificate authority, its file, and servers' contexts for certificates of its making."""

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def context(self, *names: str, **options: Any) -> ssl.SSLContext:
        """Return the context of a server with a certificate for the names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.issue(*names, **options).configure_cert(context)
        return context

    def issue(self, *names: str, **options: Any) -> trustme.LeafCert:
        """Return a certificate for the names."""
        return self._ca.issue_cert(*names, **options)


AUTHORS = ("Ada Lovelace", "Alan Turing", "Grace Hopper")
QUOTES_A_PAGE = 5


def quotes_site(pages: int = 3) -> dict[str, Page]:
    """The pages of a small site of quotations: lists under /page/N/, authors under /author/NAME/, a search by POST."""
    site: dict[str, Page] = {f"/page/{number}/": _quotes_page(number, pages) for number in range(1, pages + 1)}
    site["/"] = site["/page/1/"]
    for name in AUTHORS:
        site[f"/author/{_slug(name)}/"] = (
            f'<!doctype html><html><body><h3 class="author-title">{name}\n    </h3>'
            f'<span class="author-born-date">Born {AUTHORS.index(name) + 1} May 1900</span>'
            f'<div class="author-description">\n  {name} wrote programs.\n</div></body></html>'
        )
    return site


def _quotes_page(number: int, pages: int) -> str:
    quotes = []
    for place in range(QUOTES_A_PAGE):
        author = AUTHORS[(number + place) % len(AUTHORS)]
        parity = "odd" if place % 2 else "even"
        quotes.append(
            f'<div class="quote"><span class="text">“Quotation {number}.{place}”</span>'
            f'<span>by <small class="author">{author}</small> <a href="/author/{_slug(author)}/">(about)</a></span>'
            f'<div class="tags">Tags: <a class="tag" href="/tag/page{number}/">page{number}</a>'
            f'<a class="tag" href="/tag/{parity}/">{parity}</a></div></div>'
        )
    following = f'<li class="next"><a href="/page/{number + 1}/">Next →</a></li>' if number < pages else ""
    return f"<!doctype html><html><body>{''.join(quotes)}<ul class='pager'>{following}</ul></body></html>"


def _slug(name: str) -> str:
    return name.replace(" ", "-")
