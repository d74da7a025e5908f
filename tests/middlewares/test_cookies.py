"""Cookies: kept over the run, sent where they belong, and a request's own ones first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from multidict import CIMultiDict

from scraper import Request, Response
from scraper.middlewares.cookies import Cookies


class Site:
    """A site behind the middleware: what each request brings along, and what it is told to keep."""

    def __init__(self) -> None:
        self.cookies = Cookies()
        self.loop = asyncio.Runner()

    def get(self, url: str, *set_cookie: str, **options: Any) -> str:
        """Ask for a URL, answer with these Set-Cookie headers; return the Cookie header that came."""
        seen: list[str] = []

        async def handle(request: Request) -> Response:
            seen.extend((request.headers or {}).getall("Cookie", []) if request.headers else [])
            headers = CIMultiDict([("Set-Cookie", value) for value in set_cookie])
            return Response(request.url, request=request, headers=headers)

        self.loop.run(self.cookies(handle)(Request(url, **options)))
        assert len(seen) <= 1
        return seen[0] if seen else ""


@pytest.fixture
def site() -> Any:
    """Make a site with a loop of its own."""
    site = Site()
    with site.loop:
        yield site


@pytest.mark.parametrize(
    ("set_cookie", "url", "sent"),
    [
        ("a=1", "http://a.com/", "a=1"),
        ("a=1", "http://a.com/deep/page", "a=1"),
        ("a=1", "https://a.com/", "a=1"),
        ("a=1", "http://b.com/", ""),
        ("a=1", "http://www.a.com/", ""),
        ("a=1; Domain=a.com", "http://www.a.com/", "a=1"),
        ("a=1; Domain=b.com", "http://b.com/", ""),
        ("a=1; Path=/deep", "http://a.com/deep/x", "a=1"),
        ("a=1; Path=/deep", "http://a.com/other", ""),
        ("a=1; Secure", "http://a.com/", ""),
        ("a=1; Secure", "https://a.com/", "a=1"),
        ("a=1; Max-Age=0", "http://a.com/", ""),
        ("a=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT", "http://a.com/", ""),
        ("a=dG9rZW4/x==", "http://a.com/", "a=dG9rZW4/x=="),
        ("a={n:1,m:2}", "http://a.com/", "a={n:1,m:2}"),
        ("a=b c", "http://a.com/", "a=b c"),
    ],
)
def test_where_a_cookie_goes(site: Site, set_cookie: str, url: str, sent: str) -> None:
    """A cookie goes back to the host, path and scheme it is meant for, until it expires (RFC 6265)."""
    assert site.get("http://a.com/", set_cookie) == ""
    assert site.get(url) == sent


def test_hosts_given_by_address_have_cookies(site: Site) -> None:
    """A site without a name keeps its session too."""
    site.get("http://127.0.0.1:8000/", "a=1")
    assert site.get("http://127.0.0.1:8000/") == "a=1"
    assert site.get("http://127.0.0.2:8000/") == ""


def test_several_cookies(site: Site) -> None:
    """Repeated Set-Cookie headers are all kept; a later value replaces an earlier one."""
    site.get("http://a.com/", "a=1", "b=2")
    site.get("http://a.com/", "a=3")
    assert sorted(site.get("http://a.com/").split("; ")) == ["a=3", "b=2"]


def test_a_requests_own_cookies(site: Site) -> None:
    """A request's cookies are sent with it alone and win over the jar's; a Cookie header of its own wins over both."""
    assert site.get("http://a.com/", cookies={"x": "1"}) == "x=1"
    assert site.get("http://a.com/", "a=1") == ""
    assert sorted(site.get("http://a.com/", cookies={"x": "1"}).split("; ")) == ["a=1", "x=1"]
    assert site.get("http://a.com/", cookies={"a": "9"}) == "a=9"
    assert site.get("http://a.com/", headers={"Cookie": "only=this"}, cookies={"a": "9"}) == "only=this"
    assert site.get("http://a.com/") == "a=1"


def test_the_request_itself_is_not_changed(site: Site) -> None:
    """The jar's cookies are on the copy that is sent: a retry or a redirect starts without them."""
    site.get("http://a.com/", "a=1")
    sent: list[Request] = []

    async def handle(request: Request) -> Response:
        sent.append(request)
        return Response(request.url, request=request)

    request = Request("http://a.com/", headers={"X": "y"})
    site.loop.run(site.cookies(handle)(request))
    assert dict(request.headers or {}) == {"X": "y"}
    assert dict(sent[0].headers or {}) == {"X": "y", "Cookie": "a=1"}


@pytest.mark.parametrize("value", ["", "=", ";", "a", "a\x01=b", "ü=ü", "a=" + "x" * 10_000, "a=b; Max-Age=soon"])
def test_odd_cookies_break_nothing(site: Site, value: str) -> None:
    """Whatever a server sets, the next request goes out, with a header of a bounded size."""
    site.get("http://a.com/", value, "good=1")
    assert len(site.get("http://a.com/")) <= 8192


def test_a_flood_of_cookies_is_bounded(site: Site) -> None:
    """A server that sets thousands of cookies gets a header that still can be sent."""
    for number in range(20):
        site.get("http://a.com/", *[f"c{number}-{n}={'x' * 100}" for n in range(200)])
    sent = site.get("http://a.com/")
    assert 0 < len(sent) <= 8192
    assert all(pair.endswith("x" * 100) for pair in sent.split("; "))


def test_the_jar_lasts_over_a_crash(site: Site) -> None:
    """What changed is given out once, and another process that takes it up sends the same cookies."""
    assert site.cookies.changes() == {}
    site.get("http://a.com/", "a=1; Domain=a.com", "s=2; Path=/x")
    state = site.cookies.changes()
    assert site.cookies.changes() == {}
    site.cookies = Cookies()

    async def restore(state: dict[str, Any]) -> None:
        site.cookies.restore(state)

    site.loop.run(restore({"other:thing": 1}))
    assert site.get("http://a.com/") == ""
    site.loop.run(restore(state))
    assert site.get("http://www.a.com/") == "a=1"
    assert sorted(site.get("http://a.com/x").split("; ")) == ["a=1", "s=2"]
