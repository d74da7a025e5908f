"""A server that answers each page after so many seconds, as many at a time as are asked; robots.txt it answers at once.

    python -m benchmarks.slow_server SECONDS

Prints its port. A bare protocol on uvloop: a framework would be busier with 10,000 answers than the crawlers measured.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from typing import cast

import uvloop

_BACKLOG = 16_384
_PAGE = b"<!DOCTYPE html><html><head><title>%b</title></head><body><h1>Page %b</h1></body></html>"
_HEAD = b"HTTP/1.1 %b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
_MISSING = _HEAD % (b"404 Not Found", 0)


class Slow(asyncio.Protocol):
    """One connection; no client here asks for a second page before it has the first."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of asyncio's class

    def connection_lost(self, error: Exception | None) -> None:
        """Answer no more."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer later, once the request is whole."""
        self._received += data
        if b"\r\n\r\n" not in self._received:
            return
        path = self._received.split(b" ", 2)[1]
        self._received = b""
        if path == b"/robots.txt":
            self._answer(_MISSING)
        else:
            number = path.rpartition(b"/")[2]
            body = _PAGE % (number, number)
            self._loop.call_later(self._delay_s, self._answer, _HEAD % (b"200 OK", len(body)) + body)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def main(delay_s: float) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Slow(delay_s), "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(float(sys.argv[1])))
