"""Content encodings: undone in order, never past the limit, and broken ones told from whole ones."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from random import Random

import brotli
import pytest

from scraper import Request, Response
from scraper.errors import BodyTooLarge, DecodeError
from scraper.middlewares.decompress import ENCODINGS, Decompress

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = Random(0).randbytes(50_000) + b"a long page " * 50_000
BARE = zlib.compressobj(wbits=-15)
ENCODED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "br": brotli.compress(TEXT, quality=3),
    "zstd": zstd.compress(TEXT),
}


def decode(body: bytes, encoding: str | None, max_body: int = 10**6) -> bytes:
    """Send a body through the middleware; the encoding may be of several lines."""

    async def handle(request: Request) -> Response:
        headers = [("Content-Encoding", line) for line in encoding.split("\n")] if encoding is not None else []
        return Response(request.url, request=request, headers=headers, body=body)

    return asyncio.run(Decompress(max_body)(handle)(Request("http://a/"))).body


@pytest.mark.parametrize("encoding", ENCODED)
def test_encodings(encoding: str) -> None:
    """Each encoding is undone, small bodies, empty ones and large ones."""
    assert decode(ENCODED[encoding], encoding) == TEXT
    assert decode(ENCODED[encoding], f" {encoding.upper()} ") == TEXT
    assert decode(b"", encoding) == b""


def test_what_is_offered_is_understood() -> None:
    """Every encoding that Accept-Encoding offers can be undone."""
    assert set(ENCODINGS.split(", ")) <= set(ENCODED)


def test_deflate_without_its_wrapper() -> None:
    """The bare stream that many servers send as deflate is understood too."""
    assert decode(BARE.compress(TEXT) + BARE.flush(), "deflate") == TEXT


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (None, TEXT),
        ("identity", TEXT),
        ("", TEXT),
        (", identity,", TEXT),
        ("gzip, br", brotli.compress(ENCODED["gzip"])),
        ("identity\ngzip", ENCODED["gzip"]),
        ("\ngzip", ENCODED["gzip"]),
        ("gzip\nbr", brotli.compress(ENCODED["gzip"])),
        ("br, identity, gzip", gzip.compress(ENCODED["br"])),
        ("gzip,gzip,gzip,gzip", gzip.compress(gzip.compress(gzip.compress(ENCODED["gzip"])))),
    ],
)
def test_layers(encoding: str | None, body: bytes) -> None:
    """Several encodings, on one line or more, are undone from the last to the first; identity is none."""
    assert decode(body, encoding) == TEXT


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b" two")),
        ("gzip", gzip.compress(b"one") + b"\0" * 5 + gzip.compress(b" two") + b"\0" * 100_000),
        ("zstd", zstd.compress(b"one") + zstd.compress(b"") + zstd.compress(b" two")),
    ],
)
def test_members(encoding: str, body: bytes) -> None:
    """Members and frames that follow each other are one body; zero bytes behind a gzip member are padding."""
    assert decode(body, encoding) == b"one two"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_members_larger_than_a_step(encoding: str) -> None:
    """Members of any size, and a border between them at any place, come out whole."""
    compress = gzip.compress if encoding == "gzip" else zstd.compress
    parts = [Random(n).randbytes(size) for n, size in enumerate((1, 131_000, 131_100, 300_000, 5))]
    assert decode(b"".join(map(compress, parts)), encoding) == b"".join(parts)


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("cut", [1, 2, 9, 20_000])
def test_truncated(encoding: str, cut: int) -> None:
    """A body that ends too early is a DecodeError: part of a page is never taken for the page."""
    with pytest.raises(DecodeError, match=r"broken .*http://a/$"):
        decode(ENCODED[encoding][:-cut], encoding)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_cut_to_the_first_byte(encoding: str) -> None:
    """However early it ends, it is broken."""
    with pytest.raises(DecodeError):
        decode(ENCODED[encoding][:1], encoding)


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("garbage", [b"<html>not compressed at all</html>", b"\xff" * 50, b"\0" * 50])
def test_garbage(encoding: str, garbage: bytes) -> None:
    """A body that is not what the header says is a DecodeError of one line."""
    with pytest.raises(DecodeError) as caught:
        decode(garbage, encoding)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_garbage_behind_the_data(encoding: str) -> None:
    """What follows the data and is none is broken too."""
    with pytest.raises(DecodeError):
        decode(ENCODED[encoding] + b"garbage", encoding)


def test_a_flipped_bit() -> None:
    """The checksum counts."""
    broken = bytearray(ENCODED["gzip"])
    broken[-6] ^= 1
    with pytest.raises(DecodeError):
        decode(bytes(broken), "gzip")


@pytest.mark.parametrize("encoding", ["compress", "bogus", "gzip, bogus", "aws-chunked", "x" * 10_000])
def test_unknown_encodings(encoding: str) -> None:
    """An encoding nobody asked for is a DecodeError that names it, in few words."""
    with pytest.raises(DecodeError, match="unknown content encoding") as caught:
        decode(ENCODED["gzip"], encoding)
    assert len(str(caught.value)) < 200


def test_too_many_layers() -> None:
    """More than four layers are an attack, not an encoding."""
    with pytest.raises(DecodeError, match="5 layers"):
        decode(b"x", "gzip," * 5)


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize(("limit", "fits"), [(len(TEXT), True), (len(TEXT) - 1, False)])
def test_the_limit(encoding: str, limit: int, fits: bool) -> None:
    """A body of exactly the limit is taken; one byte more is a BodyTooLarge."""
    if fits:
        assert len(decode(ENCODED[encoding], encoding, limit)) == limit
    else:
        with pytest.raises(BodyTooLarge, match=r"download\.max_body"):
            decode(ENCODED[encoding], encoding, limit)


ZEROS = b"\0" * 50_000_000
BOMBS = {
    "gzip": gzip.compress(ZEROS),
    "deflate": zlib.compress(ZEROS),
    "br": brotli.compress(ZEROS, quality=1),
    "zstd": zstd.compress(ZEROS),
    "gzip, gzip": gzip.compress(gzip.compress(ZEROS)),
    "gzip, br": brotli.compress(gzip.compress(ZEROS)),
}


@pytest.mark.parametrize("encoding", BOMBS)
def test_bombs_stop_at_the_limit(encoding: str) -> None:
    """A few kilobytes that would become 50 MB are given up when the limit is passed, and soon."""
    steps = 0
    limit = 10**6

    async def handle(request: Request) -> Response:
        return Response(request.url, request=request, headers={"Content-Encoding": encoding}, body=BOMBS[encoding])

    async def count_turns() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    async def main() -> None:
        turns = asyncio.ensure_future(count_turns())
        try:
            await Decompress(limit)(handle)(Request("http://a/"))
        finally:
            turns.cancel()

    with pytest.raises(BodyTooLarge):
        asyncio.run(main())
    assert 2 < steps < 100


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_hundred_thousand_empty_members(encoding: str) -> None:
    """Members without content are given up after a thousand, before they cost more than a body of their size may."""
    compress = gzip.compress if encoding == "gzip" else zstd.compress
    with pytest.raises(DecodeError, match="more than 1000"):
        decode(compress(b"") * 100_000, encoding)


def test_a_window_of_gigabytes_is_refused() -> None:
    """A zstd frame may not ask for more memory than HTTP allows (RFC 9659: 8 MiB)."""
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(b"x" * 100) + compressor.flush()
    with pytest.raises(DecodeError, match="zstd"):
        decode(frame, "zstd")
