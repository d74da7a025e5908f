"""Undoes Content-Encoding (RFC 9110 section 8.4), never producing more than ``max_body`` bytes."""

from __future__ import annotations

import asyncio
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli

from scraper.contracts import Handler
from scraper.errors import BodyTooLarge, DecodeError
from scraper.http import Request, Response

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENCODINGS = "gzip, deflate, br, zstd"
"""What Accept-Encoding may offer."""

_BLOCK = 128 * 1024  # bytes a step: about 0.3 ms of work, after which the event loop gets its turn
_ROBOTS_BYTES = 512 * 1024
_MAX_LAYERS = 4
_MAX_MEMBERS = 1000
_ZSTD_WINDOW_LOG = 23  # 8 MiB, the most that HTTP allows (RFC 9659): a frame may not claim gigabytes of memory
_ZEROS = re.compile(rb"\0*")

_Decoder = Callable[[bytes], Iterator[bytes]]


class Decompress:
    """Decodes gzip, deflate, br and zstd bodies, layered too. Broken data is a DecodeError, a bomb a BodyTooLarge."""

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def decompress(request: Request) -> Response:
            response = await handle(request)
            if "Content-Encoding" in response.headers and response.body:
                await self._decode(response, ",".join(response.headers.getall("Content-Encoding")))
            return response

        return decompress

    async def _decode(self, response: Response, encoding: str) -> None:
        layers = [name.strip().lower() for name in encoding.split(",")]
        layers = [name for name in layers if name and name != "identity"]
        if len(layers) > _MAX_LAYERS:
            raise DecodeError(response.url, f"{len(layers)} layers of content encoding")
        for left, name in zip(range(len(layers) - 1, -1, -1), reversed(layers), strict=True):
            decode = _DECODERS.get(name)
            if decode is None:
                raise DecodeError(response.url, f"unknown content encoding {name[:40]!r}")
            response.body = await self._undo(decode, name, response, is_last=not left)

    async def _undo(self, decode: _Decoder, name: str, response: Response, *, is_last: bool) -> bytes:
        blocks: list[bytes] = []
        size = 0
        is_robots = is_last and response.url.endswith("/robots.txt")
        limit = max(self._max_body, _ROBOTS_BYTES) if is_robots else self._max_body
        try:
            for block in decode(response.body):
                if blocks:
                    await asyncio.sleep(0)
                size += len(block)
                if size > limit:
                    error = BodyTooLarge(
                        response.url, f"the {name} body is larger than {limit} bytes (download.max_body)"
                    )
                    if is_robots:
                        error.head, error.status = b"".join([*blocks, block])[:_ROBOTS_BYTES], response.status
                    raise error
                blocks.append(block)
        except (zlib.error, brotli.error, zstd.ZstdError, EOFError, ValueError) as error:
            raise DecodeError(response.url, f"broken {name} data ({error})") from None
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _gzip(data: bytes) -> Iterator[bytes]:
    """RFC 1952; members may follow each other, and zero bytes after the last are padding."""
    at = 0
    for _ in range(_MAX_MEMBERS):
        decoder = zlib.decompressobj(wbits=31)
        # Fed in pieces: what a member leaves unused is copied, and a thousand small members have all the rest behind them.
        while not decoder.eof:
            piece = data[at : at + _BLOCK]
            if not piece:
                raise EOFError("it ends too early")
            at += len(piece)
            yield from _drain(decoder, piece)
        at -= len(decoder.unused_data)
        padding = _ZEROS.match(data, at)
        at = padding.end() if padding else at
        if at == len(data):
            return
    raise ValueError(f"more than {_MAX_MEMBERS} gzip members")


def _deflate(data: bytes) -> Iterator[bytes]:
    """RFC 1950, or the bare RFC 1951 stream that many servers send under this name."""
    wrapped = len(data) >= 2 and data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
    decoder = zlib.decompressobj(wbits=15 if wrapped else -15)
    yield from _drain(decoder, data)
    if not decoder.eof:
        raise EOFError("it ends too early")


def _drain(decoder: Any, data: bytes) -> Iterator[bytes]:
    while True:
        block = decoder.decompress(data, _BLOCK)
        yield block
        data = decoder.unconsumed_tail
        if decoder.eof or (not data and not block):
            return


def _br(data: bytes) -> Iterator[bytes]:
    """RFC 7932."""
    decoder = brotli.Decompressor()
    block = decoder.process(data, output_buffer_limit=_BLOCK)
    while block:
        yield block
        if decoder.is_finished():
            return
        block = decoder.process(b"", output_buffer_limit=_BLOCK)
    if not decoder.is_finished():
        raise EOFError("it ends too early")


def _zstd(data: bytes) -> Iterator[bytes]:
    """RFC 8878; frames may follow each other."""
    at = 0
    for _ in range(_MAX_MEMBERS):
        decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})
        while not decoder.eof:
            piece = data[at : at + _BLOCK] if decoder.needs_input else b""
            if decoder.needs_input and not piece:
                raise EOFError("it ends too early")
            at += len(piece)
            yield decoder.decompress(piece, _BLOCK)
        at -= len(decoder.unused_data)
        if at == len(data):
            return
    raise ValueError(f"more than {_MAX_MEMBERS} zstd frames")


_DECODERS: dict[str, _Decoder] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}
