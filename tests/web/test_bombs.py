"""Bodies made to exhaust the crawler: compression bombs, giant pages, giant tags, endless nesting."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import brotli
import pytest
from aiohttp import web
from servers import Site, in_loop

from scraper.middlewares.decompress import zstd

Watch = Callable[..., Awaitable[dict[str, Any]]]

MIB = 2**20
MAX_BODY = 32 * MIB
STALL_S = 0.1
ALLOWED_MB = 32 + 64
ZEROS = bytes(16 * MIB)


def gzipped(times: int) -> bytes:
    """A gzip body that becomes so many times 16 MiB of zeros."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(ZEROS) for _ in range(times)) + packer.flush()


def deflated(times: int) -> bytes:
    """The same as deflate."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(ZEROS) for _ in range(times)) + packer.flush()


def brotlied(times: int) -> bytes:
    """The same as br."""
    packer = brotli.Compressor(quality=1)
    return b"".join(packer.process(ZEROS) for _ in range(times)) + packer.finish()


def zstandard(times: int) -> bytes:
    """The same as zstd."""
    packer = zstd.ZstdCompressor()
    return b"".join(packer.compress(ZEROS) for _ in range(times)) + packer.flush()


BOMBS = {
    "gzip": ("gzip", lambda: gzipped(8)),
    "deflate": ("deflate", lambda: deflated(8)),
    "br": ("br", lambda: brotlied(8)),
    "zstd": ("zstd", lambda: zstandard(8)),
    "layered": ("gzip, gzip", lambda: gzip.compress(gzipped(8))),
    "gzip in br": ("gzip, br", lambda: brotli.compress(gzipped(8))),
    "empty members": ("gzip", lambda: gzip.compress(b"") * 100_000),
}


def page_of(body: bytes, encoding: str = "") -> Callable[[web.BaseRequest], web.Response]:
    """A page with this body."""
    headers = {"Content-Type": "text/html"} | ({"Content-Encoding": encoding} if encoding else {})
    return lambda request: web.Response(body=body, headers=headers)


@pytest.mark.parametrize("name", BOMBS)
@in_loop
async def test_a_bomb_is_given_up(watched: Watch, name: str) -> None:
    """F13, S1: 128 MiB out of a few kilobytes end at max_body, without holding up the loop or filling the memory."""
    encoding, make = BOMBS[name]
    async with Site({"/": page_of(make(), encoding)}) as site:
        found = await watched(site.url())
    expected = "DecodeError" if name == "empty members" else "BodyTooLarge"
    assert found["outcome"] == expected, found
    if expected == "BodyTooLarge":
        assert f"{MAX_BODY} bytes (download.max_body)" in found["error"]
    assert found["grown_mb"] <= ALLOWED_MB
    assert found["stall_s"] <= STALL_S


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
@in_loop
async def test_scrapys_bombs(watched: Watch, scrapy_source: Path, name: str) -> None:
    """F13: the four bombs of Scrapy's own tests, against a max_body smaller than what they become."""
    body = (scrapy_source / f"tests/sample_data/compressed/bomb-{name}.bin").read_bytes()
    async with Site({"/": page_of(body, name)}) as site:
        found = await watched(site.url(), "1 MiB")
    assert found["outcome"] == "BodyTooLarge", found
    assert found["grown_mb"] <= 1 + 64
    assert found["stall_s"] <= STALL_S


ROW = (
    b'<div class="row"><p>Some text of a row, as pages have it</p><span>%d</span></div>\n' * 9
    + b'<a href="/%d">x</a>\n'
)


def large_page() -> bytes:
    """A page of 10 MB, with a link every 800 bytes."""
    row = ROW.replace(b"%d", b"1", 9)
    rows = b"".join(row % number for number in range(10 * MIB // len(row)))
    return b"<!doctype html><title>large</title><body>" + rows


@in_loop
async def test_a_page_of_10_mb(watched: Watch) -> None:
    """F17: a large page is parsed beside the event loop, and its links are all found."""
    body = large_page()
    async with Site({"/": page_of(body)}) as site:
        found = await watched(site.url())
    assert (found["outcome"], found["title"], found["links"]) == ("page", "large", body.count(b"<a ")), found
    assert found["stall_s"] <= STALL_S


@pytest.mark.parametrize(
    ("name", "body", "links"),
    [
        ("one attribute of 10 MB", b'<title>t</title><a href="/' + b"x" * (10 * MIB) + b'">', 1),
        ("a tag of 10 MB without end", b"<title>t</title><a " + b"x" * (10 * MIB), 0),
        ("100,000 nested elements", b"<title>t</title>" + b"<div>" * 100_000 + b'<a href="/x">', None),
        ("10 MB of NUL", b"<title>t</title>" + bytes(10 * MIB), 0),
        ("10 MB of tag openings", b"<title>t</title>" + b"<" * (10 * MIB), 0),
        ("mixed encodings", b"<title>t</title><meta charset=utf-16>\xff\xfe\x80" + "é\0ü".encode("utf-16") * 1000, 0),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@in_loop
async def test_what_no_page_should_be(watched: Watch, name: str, body: bytes, links: int | None) -> None:
    """F17: giant tags, nesting, NUL and mixed encodings break nothing and hold nothing up: text comes out."""
    async with Site({"/": page_of(body)}) as site:
        found = await watched(site.url())
    assert (found["outcome"], found["title"], found["errors"]) == ("page", "t", 0), found
    assert links is None or found["links"] == links
    assert found["stall_s"] <= STALL_S


@pytest.mark.parametrize("size", [16_000, 64_000, 250_000])
@in_loop
async def test_tags_of_as_many_attributes_as_pass(watched: Watch, size: int) -> None:
    """F17: pages of nothing but long tags, none of which is refused, are parsed in time or beside the event loop."""
    attributes = [b"%x" % number for number in range(5000)]
    for length in (900, 4900):
        tag = b"<a " + b" ".join(attributes[:length]) + b">"
        async with Site({"/": page_of(b"<title>t</title>" + tag * (size // len(tag)))}) as site:
            found = await watched(site.url())
        assert (found["outcome"], found["title"], found["errors"]) == ("page", "t", 0), found
        assert found["stall_s"] <= STALL_S


@pytest.mark.parametrize(
    "body",
    [
        b"<!-- " + b"abc def " * MIB + b"-->",
        b"<script>" + b"if (i<n) { a = ' abc def " * (MIB // 3) + b"</script>",
        b"<p title='" + b"abc def " * MIB + b"'>",
        b"<textarea>" + b"<p abc def " * MIB + b"</textarea>",
    ],
    ids=["comment", "script", "value", "textarea"],
)
@in_loop
async def test_much_text_is_no_attributes(watched: Watch, body: bytes) -> None:
    """F17: eight megabytes of words in a comment, a script, a value or a text field are a page like any other."""
    async with Site({"/": page_of(b"<title>t</title>" + body + b"<a href=/x>")}) as site:
        found = await watched(site.url())
    assert (found["outcome"], found["title"], found["links"], found["errors"]) == ("page", "t", 1, 0), found
    assert found["stall_s"] <= STALL_S


@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-16-be", "windows-1252", "gb18030", "shift_jis"])
@in_loop
async def test_charsets_of_large_pages(watched: Watch, charset: str) -> None:
    """F17: a page that is parsed ahead is read by the same charset as a small one."""
    text = "<title>ab</title>" + "<p>x</p>" * 50_000 + "<a href=/x>x</a>"
    pages = {
        "/": lambda request: web.Response(
            body=text.encode(charset), headers={"Content-Type": f"text/html; charset={charset}"}
        )
    }
    async with Site(pages) as site:
        found = await watched(site.url())
    assert (found["outcome"], found["title"], found["links"], found["errors"]) == ("page", "ab", 1, 0), found


@pytest.mark.parametrize(
    ("size", "hidden"),
    [(30_000, ""), (30_000, "ends"), (64_000, "ends"), (200_000, "start"), (10 * MIB, ""), (10 * MIB, "start")],
)
@in_loop
async def test_a_tag_of_endless_attributes(watched: Watch, size: int, hidden: str) -> None:
    """F17: libxml2 takes the square of their number, many seconds for 1 MB; it is an error of the page, at once.

    Also where values hold what looks like tags' ends, and where what looks like a tag begins in a comment before.
    """
    attributes = b"".join(b"%x " % number for number in range(size // 4))
    if hidden == "ends":
        attributes = b"".join(attributes[at : at + 600] + b' y=" <b> " ' for at in range(0, len(attributes), 600))
    before = b"<!-- <x y=' -->" if hidden == "start" else b""
    async with Site({"/": page_of(before + b"<a " + attributes[:size] + b">")}) as site:
        found = await watched(site.url())
    assert (found["outcome"], found["errors"]) == ("ValueError", 1), found
    assert "attributes; 5000 are let through" in found["error"]
    assert found["stall_s"] <= STALL_S
