"""Redirects: where they lead, what goes along, and what must not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from multidict import CIMultiDict

from scraper import Request, Response
from scraper.contracts import Again
from scraper.errors import OutOfScope, TooManyRedirects
from scraper.middlewares.redirect import Redirect


def answer(
    request: Request, status: int, location: str | None = None, redirect: Redirect | None = None
) -> tuple[Response | None, Request | None]:
    """Send a request to a handler that answers so; return the response, or the request that takes its place."""

    async def handle(request: Request) -> Response:
        headers = {"Location": location} if location is not None else {}
        return Response(request.url, request=request, status=status, headers=headers)

    try:
        return asyncio.run((redirect or Redirect(20))(handle)(request)), None
    except Again as again:
        return None, again.request


def test_a_redirect_is_no_retry() -> None:
    """A redirect goes back through the frontier at once, under its own name."""

    async def handle(request: Request) -> Response:
        return Response(request.url, request=request, status=302, headers={"Location": "/x"})

    with pytest.raises(Again) as caught:
        asyncio.run(Redirect(1)(handle)(Request("http://a/")))
    assert (caught.value.reason, caught.value.delay) == ("redirect", 0.0)


def follow(request: Request, location: str, status: int = 302, **options: Any) -> Request:
    """Return the request that takes the place of one that is redirected."""
    target = answer(request, status, location, **options)[1]
    assert target is not None
    return target


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/x", "http://a/x"),
        ("x", "http://a/b/x"),
        ("", "http://a/b/c?q"),
        ("?r", "http://a/b/c?r"),
        ("//h/x", "http://h/x"),
        ("https://a/b/c?q", "https://a/b/c?q"),
        (" /x ", "http://a/x"),
        ("/x#f", "http://a/x"),
        ("/ü", "http://a/%C3%BC"),
        ("http://H:80/", "http://h/"),
    ],
)
def test_locations(status: int, location: str, url: str) -> None:
    """A Location is joined to the request's URL as a browser would; the chain so far goes along."""
    request = Request("http://a/b/c?q")
    request.redirects, request.retries, request.depth = ("http://z/",), 2, 3
    target = follow(request, location, status)
    assert target.url == url
    assert target.redirects == ("http://z/", "http://a/b/c?q")
    assert (target.retries, target.depth) == (0, 3)


@pytest.mark.parametrize("status", [200, 300, 304, 305, 400, 404])
def test_other_statuses_are_no_redirect(status: int) -> None:
    """Only 301, 302, 303, 307 and 308 redirect, whatever Location says."""
    response, target = answer(Request("http://a/"), status, "/x")
    assert response is not None
    assert target is None


def test_without_location_there_is_nowhere_to_go() -> None:
    """A redirect that does not say where is an answer like any other."""
    response, _ = answer(Request("http://a/"), 302)
    assert response is not None
    assert response.status == 302


def test_wanted_statuses_are_not_followed() -> None:
    """A redirect the spider handles itself is left to it."""
    assert answer(Request("http://a/"), 302, "/x", Redirect(20, frozenset({302})))[0] is not None
    assert answer(Request("http://a/"), 301, "/x", Redirect(20, frozenset({302})))[1] is not None


@pytest.mark.parametrize(
    "location",
    ["mailto:me@a", "file:///etc/passwd", "ftp://a/", "javascript:x", "http://[", "http://a:b/", "/\ud800"],
)
def test_leaving_the_web(location: str) -> None:
    """A Location that is no http(s) URL is OutOfScope, with the page that sent it and one line."""
    with pytest.raises(OutOfScope) as caught:
        answer(Request("http://a/"), 302, location)
    assert caught.value.url == "http://a/"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("limit", "so_far", "goes"), [(20, 19, True), (20, 20, False), (1, 0, True), (0, 0, False)])
def test_the_limit(limit: int, so_far: int, goes: bool) -> None:
    """So many redirects in a row are followed; the next is TooManyRedirects."""
    request = Request("http://a/")
    request.redirects = ("http://z/",) * so_far
    if goes:
        assert follow(request, "/x", redirect=Redirect(limit)).url == "http://a/x"
    else:
        with pytest.raises(TooManyRedirects, match=f"more than {limit}"):
            follow(request, "/x", redirect=Redirect(limit))


@pytest.mark.parametrize(
    ("status", "method", "after", "keeps_body"),
    [
        (301, "GET", "GET", True),
        (301, "POST", "GET", False),
        (301, "PUT", "PUT", True),
        (302, "POST", "GET", False),
        (302, "HEAD", "HEAD", True),
        (302, "DELETE", "DELETE", True),
        (303, "GET", "GET", False),
        (303, "POST", "GET", False),
        (303, "PUT", "GET", False),
        (303, "HEAD", "HEAD", True),
        (307, "POST", "POST", True),
        (308, "PUT", "PUT", True),
    ],
)
def test_methods(status: int, method: str, after: str, keeps_body: bool) -> None:
    """303, and 301 and 302 after a POST, go on as GET without the body and its headers; all others go on unchanged."""
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip", "X-Mine": "1"}
    request = Request("http://a/", method=method, body=b"x", headers=headers)
    target = follow(request, "/x", status)
    assert target.method == after
    assert target.body == (b"x" if keeps_body else None)
    assert target.headers is not None
    assert set(target.headers) == (set(headers) if keeps_body else {"X-Mine"})
    assert (request.method, request.body) == (method, b"x")


SECRETS = [
    ("Authorization", "Basic x"),
    ("authorization", "Bearer y"),
    ("Cookie", "a=1"),
    ("COOKIE", "b=2"),
    ("Proxy-Authorization", "Basic z"),
    ("X-Mine", "1"),
]


@pytest.mark.parametrize(
    ("location", "keeps"),
    [
        ("/x", True),
        ("http://a.com/x", True),
        ("http://A.com:80/x", True),
        ("https://a.com/x", False),
        ("http://b.com/x", False),
        ("http://www.a.com/x", False),
        ("http://a.com:8080/x", False),
        ("//a.com.evil.org/x", False),
    ],
)
@pytest.mark.parametrize("status", [302, 307])
def test_credentials_stay_with_their_origin(location: str, keeps: bool, status: int) -> None:
    """A change of scheme, host or port alone drops every Authorization and Cookie header and the request's cookies."""
    request = Request("http://a.com/", headers=CIMultiDict(SECRETS), cookies={"c": "3"})
    target = follow(request, location, status)
    assert target.headers is not None
    if keeps:
        assert list(target.headers.items()) == SECRETS
        assert target.cookies == {"c": "3"}
    else:
        assert list(target.headers.items()) == [("X-Mine", "1")]
        assert target.cookies is None
    assert request.headers is not None
    assert len(request.headers) == len(SECRETS)
    assert request.cookies == {"c": "3"}


def test_credentials_do_not_come_back() -> None:
    """A chain that leads away and back has lost them on the way."""
    request = Request("http://a.com/", headers=CIMultiDict(SECRETS), cookies={"c": "3"})
    back = follow(follow(request, "http://b.com/"), "http://a.com/")
    assert dict(back.headers or {}) == {"X-Mine": "1"}
    assert back.cookies is None


def test_a_password_in_the_url_is_not_sent_elsewhere() -> None:
    """The userinfo of a URL is part of it: another host's URL has none of it."""
    request = Request("http://u:p@a.com/x")
    assert follow(request, "/y").url == "http://u:p@a.com/y"
    assert follow(request, "//b.com/y").url == "http://b.com/y"
