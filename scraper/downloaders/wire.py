"""The short way: a plain GET on a connection that aiohttp has made.

aiohttp connects, and does everything out of the ordinary; for what is plain its connection is taken over: a transport, a
parser (llhttp, which aiohttp uses too) and a future. One answer takes 15 µs this way, 50 through aiohttp's objects.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import httptools
from msgspec import Struct
from multidict import CIMultiDict, CIMultiDictProxy

from scraper.downloaders import causes
from scraper.errors import FetchError

MAX_HEADER_BYTES = 64 * 1024
"""The longest header that is taken, name and value."""

_MAX_HEADERS = 128
_MAX_HEAD_BYTES = 4 * MAX_HEADER_BYTES  # with the informational answers before it; of a chunk or trailers, as well
_PIECE = 2048  # bytes that are parsed at once where they may be many headers, or chunks of a byte
_TURN_S = 0.001  # for pieces; then others have their turn (libuv hands over up to 32 times 256 KiB in one)
_STEPS = 64  # a deadline may come that part of its time late


class Answer(Struct):
    """What came: the body as it is on the wire, after the transfer coding."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    version: str


class Wire(asyncio.Protocol):
    """An open HTTP/1.1 connection, asked one thing at a time. ``is_idle`` says whether it may be asked the next.

    ``transport`` is taken over from whoever connected it, before its first answer or, where it ``was_used``, between two.
    """

    _url: str
    _answer: Answer | None

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop, *, was_used: bool = True) -> None:
        self._was_used = was_used
        self._transport = transport
        self._loop = loop
        peer = transport.get_extra_info("peername")
        self.peer: str | None = peer[0] if peer else None
        self.is_idle = not transport.is_closing()
        self.idle_since = 0.0
        self.phase = causes.WAITING
        self._parser = httptools.HttpResponseParser(self)
        # As lenient as aiohttp is: with bare line feeds, and spaces behind the size of a chunk.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._waiter: asyncio.Future[Answer] | None = None
        self._rest: memoryview | None = None
        self._is_over: tuple[Exception | None] | None = None
        transport.set_protocol(self)
        if not transport.is_reading():
            transport.resume_reading()

    def ask(self, url: str, head: bytes, max_body: int) -> asyncio.Future[Answer]:
        """Send a GET's ``head``; return what will hold the answer, or a FetchError of the kinds that ``causes`` has.

        ``max_body`` is in bytes. Whoever gives up waiting closes the wire.
        """
        self.is_idle = False
        self.phase = causes.WAITING
        self._url = url
        self._max_body = max_body
        self._fields: list[bytes] = []  # names and values
        self._head_bytes = 0
        self._framing_bytes = 0
        self._is_chunked = False
        self._body: bytes | bytearray = b""
        self._size = 0
        self._answer = None
        self._stays_open = True
        waiter = self._waiter = self._loop.create_future()
        self._transport.write(head)
        return waiter

    def close(self) -> None:
        """Close the connection; what is on its way is lost."""
        self.is_idle = False
        self._waiter = None
        self._transport.abort()

    def time_out(self, timeout_s: float) -> None:
        """End the fetch: the whole answer was to come in that time."""
        if self._waiter is not None:
            self._fail(causes.timed_out(self._url, timeout_s, self.phase))

    # -- the event loop's side -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes in: at once, unless the parser could be long over them."""
        if self._rest is not None:
            self._rest = memoryview(bytes(self._rest) + data)
        elif len(data) <= _PIECE or self._is_soon_parsed(data):
            self._take(data)
        else:
            self._rest = memoryview(data)
            self._take_pieces()

    def _is_soon_parsed(self, data: bytes) -> bool:
        """Whether this is a body, or begins with the short head of one, that is not in chunks."""
        if self.phase is causes.BODY:
            return not self._is_chunked
        end = data.find(b"\r\n\r\n", 0, _PIECE)
        is_final = end > 0 and not self._head_bytes and data[9:10] > b"1"  # HTTP/1.1 2..
        return is_final and b"chunked" not in data[:end].lower()

    def _take_pieces(self) -> None:
        """Parse what came piece by piece, and let the loop have its turns: it may be 40,000 chunks."""
        until = perf_counter() + _TURN_S
        while rest := self._rest:
            if self._waiter is None:
                break
            size = len(rest) if self.phase is causes.BODY and not self._is_chunked else _PIECE
            self._rest = rest[size:]
            self._take(rest[:size])
            if self._waiter is not None and perf_counter() > until:
                self._transport.pause_reading()
                self._loop.call_soon(self._take_pieces)
                return
        is_left = bool(self._rest)
        self._rest = None
        if is_left:
            self.close()
        elif self._is_over is not None:
            self._end(*self._is_over)
        elif not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def _take(self, data: bytes | memoryview) -> None:
        if self._waiter is None:
            self.close()  # nobody asked
            return
        phase, size = self.phase, self._size
        if phase is causes.WAITING:
            if not self._head_bytes:
                self._is_1_1 = data[:9] == b"HTTP/1.1 "
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._stays_open = False
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            # A ValueError: Python reads no number of 4,300 digits, and a Content-Length may be zeros above all.
            self._fail(cause if isinstance(cause, FetchError) else causes.invalid(self._url, cause or error))
            return
        except httptools.HttpParserError as error:
            if self._answer is None or self._answer.status not in causes.BODILESS:
                self._fail(causes.invalid(self._url, error))
                return
            self._stays_open = False
        if self._answer is not None:
            self._complete()
        elif self.phase is causes.WAITING:
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._fail(causes.invalid(self._url, f"headers of more than {_MAX_HEAD_BYTES} bytes"))
        elif self._size > size:
            self._framing_bytes = 0
        elif phase is causes.BODY:
            self._framing_bytes += len(data)
            if self._framing_bytes > _MAX_HEAD_BYTES:
                self._fail(causes.invalid(self._url, f"{_MAX_HEAD_BYTES} bytes of chunk heads or trailers"))

    def eof_received(self) -> None:
        """Take the server's last word; the transport then closes."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that the connection is gone."""
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        self.is_idle = False
        if self._rest is not None:
            self._is_over = (error,)  # when that is taken
            return
        if self._waiter is None:
            return
        if error is not None or self.phase is causes.WAITING:
            # With no byte of an answer: servers close a connection at rest when they like, which is no strain of theirs.
            at_rest = self._was_used and self.phase is causes.WAITING and not self._head_bytes
            self._fail(causes.lost(self._url, error or "the server closed it", at_rest=at_rest))
        elif self._has_end:
            self._fail(causes.truncated(self._url, f"{self._size} bytes came"))
        else:  # a body that ends with the connection (RFC 9112 section 6.3)
            self.on_message_complete()
            self._stays_open = False
            self._complete()

    # -- the parser's side ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Notice an answer behind the one that was asked for: the server is not to be trusted with another."""
        if self._answer is not None:
            self._stays_open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; or a trailer, which nobody looks at."""
        self._fields += (name, value)

    def on_headers_complete(self) -> None:
        """Judge the answer by its head."""
        if self._answer is not None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        self.phase = causes.BODY
        fields = self._fields
        is_long = self._head_bytes > MAX_HEADER_BYTES and any(
            len(name) + len(value) > MAX_HEADER_BYTES for name, value in zip(fields[::2], fields[1::2], strict=True)
        )
        if is_long or len(fields) > 2 * _MAX_HEADERS:
            raise causes.invalid(
                self._url, f"more than {_MAX_HEADERS} headers, or one of over {MAX_HEADER_BYTES} bytes"
            )
        text = b"\n".join(fields).decode("utf-8", "surrogateescape")
        texts = text.split("\n") if fields else []
        if len(texts) != len(fields) or "\0" in text:  # RFC 9110 section 5.5
            raise causes.invalid(self._url, "a line feed or NUL in a header")
        in_turn = iter(texts)
        headers = self._read_headers = CIMultiDictProxy(CIMultiDict(zip(in_turn, in_turn, strict=True)))
        length = headers.get("Content-Length", "")
        self._is_chunked = "Transfer-Encoding" in headers and _ends_chunked(headers)
        self._has_end = self._is_chunked or bool(length)
        self._keeps_head = causes.keeps_head(self._url, headers)
        if self._keeps_head:
            self._max_body = max(self._max_body, causes.ROBOTS_BYTES)
        elif length.isdigit() and int(length) > self._max_body and status not in causes.BODILESS:
            raise causes.too_large(self._url, self._max_body)

    def on_body(self, block: bytes) -> None:
        """Take a part of the body."""
        if self._answer is not None:
            return
        self._size += len(block)
        if not self._body:
            self._body = block
        elif isinstance(self._body, bytes):
            self._body = bytearray(self._body) + block
        else:
            self._body += block
        if self._size > self._max_body:
            kept = (bytes(self._body),) if self._keeps_head else ()
            raise causes.too_large(self._url, self._max_body, kept, self._parser.get_status_code())

    def on_message_complete(self) -> None:
        """Put the answer together."""
        if self._answer is not None:
            return
        if self.phase is causes.WAITING:  # an informational answer, before the real one (RFC 9110 section 15.2)
            self._fields.clear()
            self._is_1_1 = False
            return
        parser, body = self._parser, self._body
        self._answer = Answer(
            parser.get_status_code(),
            self._read_headers,
            body if isinstance(body, bytes) else bytes(body),
            "1.1" if self._is_1_1 else parser.get_http_version(),  # which takes 0.3 µs
        )
        self._stays_open = self._stays_open and parser.should_keep_alive()
        if not body and causes.may_have_more(self._answer.status, self._read_headers):
            self._stays_open = False

    # -- and back to who asked -----------------------------------------------------------------------------------------

    def _complete(self) -> None:
        waiter, self._waiter = self._waiter, None
        answer, self._answer = self._answer, None
        self._body = b""
        if self._stays_open and not self._rest and not self._transport.is_closing():
            self.is_idle = self._was_used = True
        else:
            self._transport.close()
        if waiter is not None and not waiter.done():
            assert answer is not None
            waiter.set_result(answer)

    def _fail(self, error: BaseException) -> None:
        waiter = self._waiter
        self.close()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)


def _ends_chunked(headers: CIMultiDictProxy[str]) -> bool:
    """Whether the last transfer coding, of all lines, is chunked; else the body ends with the connection (RFC 9112, 6.3)."""
    codings = ",".join(headers.getall("Transfer-Encoding"))
    return codings.rstrip(", \t").rpartition(",")[2].strip().lower() == "chunked"


class Deadlines:
    """Ends the fetches that take too long, with one timer for all that begin at about the same time.

    A timer for each costs as much as reading its answer. A deadline comes up to a sixty-fourth of its time late.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[tuple[float, int], set[Wire]] = {}

    def start(self, wire: Wire, timeout_s: float, since: float) -> set[Wire]:
        """End the wire's fetch ``timeout_s`` after ``since``, unless it is discarded from the set that is returned."""
        step_s = timeout_s / _STEPS
        key = timeout_s, int(since / step_s) + _STEPS + 1
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = set()
            self._loop.call_at(key[1] * step_s, self._come, key)
        waiting.add(wire)
        return waiting

    def _come(self, key: tuple[float, int]) -> None:
        for wire in self._waiting.pop(key):
            wire.time_out(key[0])


class Wires:
    """The open connections by origin, the one used last first.

    Those idle for ``idle_s`` seconds are closed, and past ``max_idle`` those to the origin that was met first.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, idle_s: float, max_idle: int) -> None:
        self._loop = loop
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._count = 0
        self._idle: dict[str, list[Wire]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    def take(self, origin: str) -> Wire | None:
        """Return an idle wire to the origin, or None."""
        wires = self._idle.get(origin)
        while wires:
            wire = wires.pop()
            self._count -= 1
            if wire.is_idle:
                return wire
        return None

    def give_back(self, origin: str, wire: Wire) -> None:
        """Keep a wire that has been asked, if it may be asked again."""
        if not wire.is_idle:
            return
        wire.idle_since = self._loop.time()
        wires = self._idle.get(origin)
        if wires is None:
            wires = self._idle[origin] = []
        wires.append(wire)
        self._count += 1
        while self._count > self._max_idle:
            self._close(next(iter(self._idle)))
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._idle_s / 2, self._sweep)

    def close(self) -> None:
        """Close all idle wires."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for origin in list(self._idle):
            self._close(origin)

    def _close(self, origin: str) -> None:
        wires = self._idle.pop(origin)
        self._count -= len(wires)
        for wire in wires:
            wire.close()

    def _sweep(self) -> None:
        oldest = self._loop.time() - self._idle_s
        for origin, wires in list(self._idle.items()):
            kept = [wire for wire in wires if wire.is_idle and wire.idle_since >= oldest]
            for wire in wires:
                if wire not in kept:
                    wire.close()
                    self._count -= 1
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        self._sweeping = self._loop.call_later(self._idle_s / 2, self._sweep) if self._idle else None
