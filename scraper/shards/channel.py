"""Messages between two processes: MessagePack arrays, each behind its length, over a pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import msgspec

_LENGTH = 4
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Channel(asyncio.Protocol):
    """One end. ``take(kind, values)`` gets each message; ``lost()`` is called once when the other end is gone."""

    def __init__(self, take: Callable[[str, list[Any]], None], lost: Callable[[], None]) -> None:
        self._take = take
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self.closed = asyncio.Event()

    async def open(self, end: socket.socket) -> None:
        """Begin, with one end of the pair."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def send(self, kind: str, *values: Any) -> None:
        """Send a message; nothing where the other end is gone."""
        if self._transport is not None and not self._transport.is_closing():
            data = _encode((kind, *values))
            self._transport.write(len(data).to_bytes(_LENGTH, "big") + data)

    async def close(self) -> None:
        """Send what is left, and close."""
        if self._transport is not None:
            self._transport.close()
            await self.closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH:
            end = start + _LENGTH + int.from_bytes(buffer[start : start + _LENGTH], "big")
            if len(buffer) < end:
                break
            kind, *values = _decode(bytes(buffer[start + _LENGTH : end]))
            start = end
            self._take(kind, values)
        del buffer[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.closed.set()
        self._lost()
