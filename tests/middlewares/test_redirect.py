"""Redirects: where they lead, what goes along, and what must not."""

from __future__ import annotations

import asyncio
from time import process_time
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
        ("/caf\udce9?\udcff=ü", "http://a/caf%E9?%FF=%C3%BC"),
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
    [
        "mailto:me@a",
        "file:///etc/passwd",
        "ftp://a/",
        "javascript:x",
        "http://[",
        "http://a:b/",
        "/\ud800",
        "//h\udce9/",
    ],
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


# -- meta refresh ------------------------------------------------------------------------------------------------------


def page(body: bytes | str, request: Request | None = None, **options: Any) -> Again | Response:
    """Send a request to a handler that answers with this page; return the response, or what is raised in its place."""
    status, kind = options.pop("status", 200), options.pop("kind", "text/html; charset=utf-8")

    async def handle(request: Request) -> Response:
        data = body.encode() if isinstance(body, str) else body
        return Response(request.url, request=request, status=status, headers={"Content-Type": kind}, body=data)

    try:
        return asyncio.run(Redirect(20, **options)(handle)(request or Request("http://a/b/c?q")))
    except Again as again:
        return again


def refresh(content: str) -> str:
    """A page with a meta refresh."""
    return f'<!doctype html><html><head><meta http-equiv="refresh" content="{content}"></head><body>x</body></html>'


@pytest.mark.parametrize(
    ("content", "url", "delay_s"),
    [
        ("0; url=/x", "http://a/x", 0),
        ("5;URL=x", "http://a/b/x", 5),
        ("99,url='http://h/x' ", "http://h/x", 99),
        (" 0 ; url = /x ", "http://a/x", 0),
        ("0.9; url=/x", "http://a/x", 0),
        (".5;/x", "http://a/x", 0),
        ("1 https://h/?a=1&amp;b=2", "https://h/?a=1&b=2", 1),
        ("0;url=&quot;/x&quot;", "http://a/x", 0),
        ("0;url=/ü#f", "http://a/%C3%BC", 0),
        ("0;url=/b/c?q", "http://a/b/c?q", 0),
    ],
)
def test_refreshes(content: str, url: str, delay_s: float) -> None:
    """The content is read as browsers do; the request for its URL takes the page's place after that many seconds."""
    again = page(refresh(content))
    assert isinstance(again, Again)
    assert (again.request.url, again.delay, again.reason) == (url, delay_s, "redirect")
    assert again.request.redirects == ("http://a/b/c?q",)


@pytest.mark.parametrize(
    "body",
    [
        '<META HTTP-EQUIV="Refresh" CONTENT="0;URL=/x">',
        "<meta content='0;url=/x' http-equiv=REFRESH>",
        "<meta http-equiv = refresh content = 0;url=/x />",
        '<base href="http://a/"><meta http-equiv="refresh" content="0;url=x">',
        '<meta http-equiv="X-UA-Compatible" content="IE"><meta http-equiv="refresh" content="0;url=/x">',
        '<meta http-equiv="refresh" content="300"><meta http-equiv="refresh" content="0;url=/x">',
        '<script>a="<!--"</script><meta http-equiv="refresh" content="0;url=/x">',
        " " * 4000 + '<meta http-equiv="refresh" content="0;url=/x">',
    ],
)
def test_where_a_refresh_is_found(body: str) -> None:
    """In any case and order of attributes, within the first bytes of the page."""
    again = page(body)
    assert isinstance(again, Again)
    assert again.request.url == "http://a/x"


@pytest.mark.parametrize(
    "body",
    [
        refresh("0"),
        refresh("300"),
        refresh("0;"),
        refresh("0;url="),
        refresh("x;url=/x"),
        refresh("url=/x"),
        refresh("100;url=/x"),
        refresh("9" * 3000 + ";url=/x"),
        refresh("30; url=/b/c?q"),
        refresh("30; url=http://A:80/b/c?q#top"),
        refresh("0;url=javascript:alert(1)"),
        refresh("0;url=data:text/html,x"),
        refresh("0;url=file:///etc/passwd"),
        refresh("0;url=ftp://a/"),
        refresh("0;url=http://["),
        f"<noscript>{refresh('0;url=/x')}</noscript>",
        f"<script>'{refresh('0;url=/x')}'</script>",
        f"<NOSCRIPT>{refresh('0;url=/x')}",
        f"<!-- {refresh('0;url=/x')} -->",
        " " * 5000 + refresh("0;url=/x"),
        '<metal http-equiv="refresh" content="0;url=/x">',
        '<p data-x="http-equiv refresh 0;url=/x">',
    ],
)
def test_what_is_no_refresh(body: str) -> None:
    """A page that reloads itself, waits too long, leads off the web, or only holds the words is a page."""
    assert isinstance(page(body), Response)


@pytest.mark.parametrize(
    "options",
    [{"status": 404}, {"status": 206}, {"kind": "text/plain"}, {"kind": "application/json"}, {"refresh": False}],
)
def test_answers_without_refresh(options: dict[str, Any]) -> None:
    """Only HTML with status 200 is looked into, and nothing at all where it is switched off."""
    assert isinstance(page(refresh("0;url=/x"), **options), Response)


def test_a_robots_txt_does_not_refresh() -> None:
    """RFC 9309 knows the redirects of HTTP alone."""
    assert isinstance(page(refresh("0;url=/x"), Request("http://a/robots.txt")), Response)


def test_refreshes_count_as_redirects() -> None:
    """A loop of refreshes ends where one of redirects would."""
    request = Request("http://a/")
    request.redirects = ("http://z/",) * 20
    with pytest.raises(TooManyRedirects, match="more than 20"):
        page(refresh("0;url=/"), request)


def test_a_refresh_goes_on_as_get_without_what_is_not_for_others() -> None:
    """As after 303: no body; and with a change of origin no credentials."""
    headers = CIMultiDict([*SECRETS, ("Content-Type", "text/plain")])
    request = Request("http://a.com/", method="POST", body=b"x", headers=headers, cookies={"c": "3"})
    again = page(refresh("0;url=http://b.com/"), request)
    assert isinstance(again, Again)
    target = again.request
    assert (target.method, target.body, target.cookies) == ("GET", None, None)
    assert dict(target.headers or {}) == {"X-Mine": "1"}


@pytest.mark.parametrize(
    "body",
    [
        b"q" * 4096,
        b"http-equiv refresh <meta " * 200,
        b"http-equiv refresh " + b"<meta\t" * 800,
        b"http-equiv refresh " + b"<!--" * 1000,
        b"http-equiv refresh " + b"<script" * 500,
        b"http-equiv refresh <meta " + b"a" * 4000,
        b"http-equiv refresh <meta " + b"a " * 2000,
        b"http-equiv refresh <meta " + b"a=" * 2000,
        b"http-equiv refresh <meta " + b"a='\"" * 1000,
        b"http-equiv refresh <meta a" + b" " * 4000,
        b"<meta http-equiv=refresh content=" + b"1" * 4000,
        b"<meta http-equiv=refresh content='" + b" " * 4000 + b"'",
        b"<meta http-equiv=refresh content='1" + b" " * 4000,
        b"<meta http-equiv=refresh content='" + b"1." * 1900 + b"'>",
    ],
)
def test_no_page_takes_long_to_look_into(body: bytes) -> None:
    """What is looked for is found or not in time linear in the bytes: a few milliseconds at the worst."""
    page(b"x", kind="text/html")
    began = process_time()
    page(body + b" " * 10**6)
    assert process_time() - began < 0.03
