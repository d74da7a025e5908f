"""Requests as bytes: every field comes back, defaults take no room, and what a newer version added is passed over."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from scraper.frontiers import codec
from scraper.http import REQUEST_FIELDS, Headers, Request

FULL: dict[str, Any] = {
    "callback": "parse_item",
    "errback": "failed",
    "method": "PUT",
    "headers": Headers([("Accept", "text/html"), ("X-Twice", "1"), ("x-twice", "2")]),
    "body": b"\x00\xffbytes",
    "cookies": {"a": "1"},
    "meta": {"deep": [1, {"two": None}], "text": "ü\u2028", "float": 0.1, "large": 2**63},
    "cb_kwargs": {"n": -1},
    "priority": -7,
    "dont_filter": True,
    "timeout": 1.5,
    "proxy": "http://proxy.example:3128",
    "downloader": "special",
    "retries": 2,
    "depth": 3,
    "redirects": ("http://a.example/", "http://b.example/"),
    "is_start": True,
    "written": 4,
}
FIELDS = (*FULL, "url")
LEFT_OUT = {"delay"}
"""Kept elsewhere, in the row's own column."""


def same(one: Request, other: Request) -> None:
    """Compare all that a request holds."""
    for name in FIELDS:
        left, right = getattr(one, name), getattr(other, name)
        if name == "headers" and left is not None:
            left, right = list(left.items()), list(right.items())
        assert left == right, name
        assert type(left) is type(right), name
    assert one.host == other.host


def test_every_field_is_covered() -> None:
    """A field that is added to Request is added here, and to the codec."""
    assert {*FIELDS, *LEFT_OUT} == set(REQUEST_FIELDS)


@pytest.mark.parametrize("name", FULL)
def test_one_field(name: str) -> None:
    """Each field alone comes back as it was."""
    request = Request("http://example.com/a?b=c")
    setattr(request, name, FULL[name])
    same(codec.decode(codec.encode(request)), request)


def test_all_fields() -> None:
    """All fields together come back as they were, and the request keeps its fingerprint."""
    request = Request("http://example.com/a?b=c")
    for name, value in FULL.items():
        setattr(request, name, value)
    back = codec.decode(codec.encode(request))
    same(back, request)
    assert back.fingerprint == request.fingerprint
    back.redirects += ("http://c.example/",)
    back.meta["more"] = 1
    assert "more" not in request.meta


def test_a_parsers_kind_of_text() -> None:
    """Subclasses of str and of numbers, as parsers and other libraries have them, come back as the types themselves."""
    text, number = type("Text", (str,), {}), type("Number", (int,), {})
    url = text("http://example.com/a")
    request = Request(url, headers={text("Referer"): url}, cookies={text("a"): text("b")}, priority=number(3))
    back = codec.decode(codec.encode(request))
    assert (back.url, back.headers, back.cookies, back.priority) == (url, {"Referer": url}, {"a": "b"}, 3)


def test_defaults_are_cut() -> None:
    """A plain link takes little more than its URL, and defaults after the last field that is set take nothing."""
    request = Request("http://example.com/")
    assert len(codec.encode(request)) < len(request.url) + 8
    request.depth = 1
    assert len(msgspec.msgpack.decode(codec.encode(request))) <= 3
    request.errback = "failed"
    values = msgspec.msgpack.decode(codec.encode(request))
    assert values[-1] == "failed"


def test_defaults_are_not_shared() -> None:
    """Two requests that were decoded share no dict."""
    one, two = (codec.decode(codec.encode(Request("http://example.com/", errback="failed"))) for _ in range(2))
    one.meta["x"] = one.cb_kwargs["x"] = 1
    assert (two.meta, two.cb_kwargs) == ({}, {})


def test_written_by_a_newer_version() -> None:
    """Values behind the fields that are known are passed over."""
    request = Request("http://example.com/", "parse")
    for name, value in FULL.items():
        setattr(request, name, value)
    values = msgspec.msgpack.decode(codec.encode(request))
    same(codec.decode(msgspec.msgpack.encode([*values, "from the future", {"x": 1}])), request)


def test_written_by_an_older_version() -> None:
    """An array that ends early, after any field, is filled up with defaults."""
    request = Request("http://example.com/")
    for name, value in FULL.items():
        setattr(request, name, value)
    values = msgspec.msgpack.decode(codec.encode(request))
    for length in range(1, len(values)):
        back = codec.decode(msgspec.msgpack.encode(values[:length]))
        assert back.url == "http://example.com/"
        assert back.written == 0


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\xa5http:", b"\x00" * 3])
def test_damaged(data: bytes) -> None:
    """Damaged bytes raise, and never give another request."""
    with pytest.raises((ValueError, TypeError)):
        codec.decode(data)
