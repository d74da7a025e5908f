"""Little proxies on loopback: HTTP (RFC 9110 section 9.3.6 for CONNECT) and SOCKS5 (RFC 1928, RFC 1929)."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from contextlib import suppress
from types import TracebackType
from typing import Any


class HttpProxy:
    """Passes on what it is asked for, whatever the name, to ``port`` of loopback. ``heads`` holds what it was asked.

    With ``user`` ("name:password") it refuses those who do not say it. With ``tls`` it is to be reached over TLS.
    """

    scheme = "http"

    def __init__(self, port: int, user: str = "", tls: ssl.SSLContext | None = None) -> None:
        if tls is not None:
            self.scheme = "https"
        self._tls = tls
        self._target = port
        self._user = user
        self._tasks: set[asyncio.Task[Any]] = set()
        self.heads: list[bytes] = []

    async def __aenter__(self) -> Any:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, user: str = "") -> str:
        """The proxy's address, with the credentials that a client is to say."""
        return f"{self.scheme}://{user + '@' if user else ''}127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._converse(reader, writer)
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        wanted = b"Basic " + b64encode(self._user.encode())
        if self._user and wanted not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await self._join(reader, writer)
        else:
            await self._join(reader, writer, head)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b"") -> None:
        """Pass bytes to and fro until one side ends."""
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        back.write(first)

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                while block := await source.read(65536):
                    sink.write(block)
                    await sink.drain()

        ways = [asyncio.ensure_future(each) for each in (pass_on(reader, back), pass_on(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            back.close()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


class SocksProxy(HttpProxy):
    """The same by SOCKS5. ``heads`` holds the names that were asked for; ``reply`` other than 0 refuses them."""

    scheme = "socks5"

    def __init__(self, port: int, user: str = "", reply: int = 0) -> None:
        super().__init__(port, user)
        self._reply = reply

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        await reader.readexactly(count)
        writer.write(b"\x05\x02" if self._user else b"\x05\x00")
        if self._user:
            _, length = await reader.readexactly(2)
            name = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            granted = name + b":" + password == self._user.encode()
            writer.write(b"\x01\x00" if granted else b"\x01\x01")
            if not granted:
                return
        _, _, _, kind = await reader.readexactly(4)
        length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        self.heads.append(await reader.readexactly(length))
        await reader.readexactly(2)
        writer.write(bytes([5, self._reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if not self._reply:
            await self._join(reader, writer)
