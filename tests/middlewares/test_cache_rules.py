"""The cache's rules: what is stored, for how long it is fresh, and what a 304 makes of it, case by case."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formatdate
from typing import Any

import pytest

from scraper import Request, Response
from scraper.http import Headers
from scraper.middlewares.cache_rules import (
    Entry,
    Everything,
    Policy,
    Rfc9111,
    current_age_s,
    directives,
    freshened,
    freshness_lifetime_s,
    may_stand_in,
    validators,
)

URL = "http://a/page"
NOW = 1_700_000_000.0
RULES = Rfc9111("agent/1")

Fields = Mapping[str, str] | list[tuple[str, str]]


def date(seconds: float = 0.0) -> str:
    """Return the HTTP date of so many seconds from now."""
    return formatdate(NOW + seconds, usegmt=True)


def stored(
    headers: Fields, *, rules: Policy = RULES, wanted: Fields | None = None, method: str = "GET", **options: Any
) -> Entry | None:
    """Return what is stored of an answer that came at once."""
    request = Request(URL, method=method, headers=wanted)
    return rules.entry(request, Response(URL, request=request, headers=Headers(headers), **options), NOW, NOW)


def entry(headers: Fields, status: int = 200, asked_at: float = NOW, came_at: float = NOW) -> Entry:
    """Return a stored response."""
    return Entry(status, Headers(headers), b"body", asked_at, came_at)


CC = "Cache-Control"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("max-age=10", {"max-age": "10"}),
        ("MAX-AGE=10 , No-Cache", {"max-age": "10", "no-cache": None}),
        ('private="set-cookie, x", max-age="5"', {"private": "set-cookie, x", "max-age": "5"}),
        ("max-age=1, max-age=2", {"max-age": "1"}),
        (",,  ,public", {"public": None}),
        ('a="unterminated, no-store', {"a": '"unterminated', "no-store": None}),
        ("max-age=", {"max-age": None}),
        ("", {}),
    ],
)
def test_directives(text: str, found: dict[str, str | None]) -> None:
    """Names are case-insensitive, values tokens or quoted; of one given twice the first counts."""
    assert directives(Headers({CC: text})) == found


@pytest.mark.parametrize(
    ("headers", "status", "seconds"),
    [
        ({CC: "max-age=60"}, 200, 60),
        ({CC: "max-age=60, s-maxage=600"}, 200, 60),
        ({CC: "s-maxage=600"}, 200, 0),
        ({CC: "max-age=60", "Expires": date(900), "Date": date()}, 200, 60),
        ({CC: "max-age=soon"}, 200, 0),
        ({CC: "max-age=-5"}, 200, 0),
        ({CC: "max-age=1.5"}, 200, 0),
        ({CC: "max-age=99999999999999"}, 200, 2**31),
        ({"Expires": date(90), "Date": date(-10)}, 200, 100),
        ({"Expires": date(90)}, 200, 90),
        ({"Expires": "0"}, 200, 0),
        ({"Expires": "Thu, 99 Foo 2999 99:99:99 GMT"}, 200, 0),
        ({"Expires": date(-90), "Date": date()}, 200, 0),
        ({"Expires": "0", "Last-Modified": date(-1000), "Date": date()}, 200, 0),
        ({"Last-Modified": date(-1000), "Date": date()}, 200, 100),
        ({"Last-Modified": date(-1000)}, 404, 100),
        ({"Last-Modified": date(-1000)}, 302, 0),
        ({"Last-Modified": date(-1000), CC: "public"}, 302, 100),
        ({"Last-Modified": date(-1e8)}, 200, 86400),
        ({"Last-Modified": date(50)}, 200, 0),
        ({"Last-Modified": "Tuesday, 14-Nov-23 22:00:00 GMT", "Date": "Tue Nov 14 22:10:00 2023"}, 200, 60),
        ({"Date": date()}, 200, 0),
        ({}, 200, 0),
    ],
)
def test_freshness_lifetime(headers: Fields, status: int, seconds: float) -> None:
    """max-age, then Expires less Date, then a tenth of the time since the last change, at most a day; s-maxage is others'."""
    assert freshness_lifetime_s(entry(headers, status)) == seconds


@pytest.mark.parametrize(
    ("headers", "delay_s", "later_s", "age_s"),
    [
        ({"Date": date()}, 0, 0, 0),
        ({"Date": date()}, 0, 50, 50),
        ({"Date": date(-30)}, 0, 50, 80),
        ({"Date": date(30)}, 0, 50, 50),
        ({"Date": date(), "Age": "100"}, 0, 50, 150),
        ({"Date": date(), "Age": "100"}, 4, 50, 154),
        ({"Date": date(-30), "Age": "10"}, 4, 0, 30),
        ({"Age": "nonsense"}, 0, 7, 7),
        ({"Date": "nonsense"}, 2, 7, 9),
        ({}, 0, -40, 0),
    ],
)
def test_age(headers: Fields, delay_s: float, later_s: float, age_s: float) -> None:
    """The greater of the apparent age and the one that was told, and the time since; a clock set back takes nothing off."""
    assert current_age_s(entry(headers, asked_at=NOW - delay_s), NOW + later_s) == age_s


@pytest.mark.parametrize(
    ("given", "wanted", "later_s", "fresh"),
    [
        ("max-age=60", None, 59, True),
        ("max-age=60", None, 60, False),
        ("max-age=60", "no-cache", 0, False),
        ("max-age=60, no-cache", None, 0, False),
        ('max-age=60, no-cache="x"', None, 0, False),
        ("max-age=60, must-revalidate", None, 59, True),
        ("max-age=60", "max-age=30", 30, True),
        ("max-age=60", "max-age=30", 31, False),
        ("max-age=60", "max-age=0", 1, False),
        ("max-age=60", "max-age=900", 61, False),
        ("max-age=60", "min-fresh=20", 40, True),
        ("max-age=60", "min-fresh=20", 41, False),
        ("max-age=60", "max-stale", 9999, True),
        ("max-age=60", "max-stale=10", 70, True),
        ("max-age=60", "max-stale=10", 71, False),
        ("max-age=60, must-revalidate", "max-stale", 61, False),
        ("max-age=60", "no-transform", 59, True),
        ("max-age=60, immutable", None, 61, False),
    ],
)
def test_what_may_answer(given: str, wanted: str | None, later_s: float, fresh: bool) -> None:
    """What is fresh answers, within what response and request demand; the request may take it stale."""
    request = Request(URL, headers={CC: wanted} if wanted else None)
    assert RULES.is_fresh(entry({CC: given, "Date": date()}), request, NOW + later_s) is fresh


@pytest.mark.parametrize(
    ("headers", "options", "is_stored"),
    [
        ({CC: "max-age=60"}, {}, True),
        ({CC: "private, max-age=60"}, {}, True),
        ({CC: "max-age=60"}, {"wanted": {"Authorization": "Bearer x"}}, True),
        ({CC: "no-store, max-age=60"}, {}, False),
        ({CC: "must-understand, no-store, max-age=60"}, {}, True),
        ({CC: "must-understand, no-store, max-age=60"}, {"status": 299}, False),
        ({CC: "no-cache", "ETag": '"1"'}, {}, True),
        ({CC: "max-age=0", "ETag": '"1"'}, {}, True),
        ({CC: "max-age=0"}, {}, False),
        ({CC: "s-maxage=60"}, {}, False),
        ({"ETag": '"1"'}, {}, True),
        ({"Last-Modified": date(-5000)}, {}, True),
        ({"Last-Modified": date(0)}, {}, True),
        ({"Expires": date(60)}, {}, True),
        ({"Expires": "0"}, {}, False),
        ({}, {}, False),
        ({CC: "max-age=60", "Vary": "Accept, Cookie"}, {}, True),
        ({CC: "max-age=60", "Vary": "Accept, *"}, {}, False),
        ({CC: "max-age=60", "Vary": "Accept, \udcff"}, {}, False),
        ({CC: "max-age=60"}, {"method": "HEAD"}, True),
        ({CC: "max-age=60"}, {"status": 206}, False),
        ({CC: "max-age=60"}, {"status": 304}, False),
        ({CC: "max-age=60"}, {"status": 301}, True),
        ({CC: "max-age=60"}, {"status": 302}, True),
        ({"ETag": '"1"'}, {"status": 302}, False),
        ({CC: "max-age=60"}, {"status": 404}, True),
        ({CC: "max-age=60"}, {"status": 429}, False),
        ({CC: "max-age=60"}, {"status": 500}, False),
        ({CC: "max-age=60"}, {"status": 503}, False),
        ({CC: "max-age=60"}, {"status": 501}, True),
    ],
)
def test_what_is_stored(headers: Fields, options: dict[str, Any], is_stored: bool) -> None:
    """By section 3 for a private cache; not what could never answer, nor what a retry is to ask anew."""
    assert (stored(headers, **options) is not None) is is_stored


@pytest.mark.parametrize(
    ("request_", "passes"),
    [
        (Request(URL), False),
        (Request(URL, headers={CC: "no-cache"}), False),
        (Request(URL, headers={CC: "no-store"}), True),
        (Request(URL, headers={"Range": "bytes=0-9"}), True),
        (Request(URL, headers={"If-None-Match": '"1"'}), True),
        (Request(URL, headers={"If-Modified-Since": date()}), True),
    ],
)
@pytest.mark.parametrize("rules", [RULES, Everything(0)])
def test_requests_that_pass_the_cache(rules: Policy, request_: Request, passes: bool) -> None:
    """no-store, and what is conditional by itself, is neither answered nor stored."""
    assert (rules.key(request_) is None) is passes


def test_a_post_passes() -> None:
    """By the RFC only GET and HEAD are stored, each by itself; everything is by method, body and who asks."""
    post = Request(URL, form={"a": 1})
    assert RULES.key(post) is None
    assert RULES.key(Request(URL)) not in (None, RULES.key(Request(URL, method="HEAD")), RULES.key(Request(URL + "x")))
    kinds = [
        post,
        post.replace(form={"a": 2}),
        Request(URL),
        Request(URL, method="HEAD"),
        Request(URL, headers={"Authorization": "x"}),
    ]
    assert len({Everything(0).key(each) for each in kinds}) == len(kinds)


@pytest.mark.parametrize(
    ("method", "status", "is_outdated"),
    [
        ("POST", 200, True),
        ("PUT", 204, True),
        ("DELETE", 303, True),
        ("POST", 404, False),
        ("POST", 500, False),
        ("OPTIONS", 200, False),
        ("GET", 200, False),
    ],
)
def test_unsafe_methods(method: str, status: int, is_outdated: bool) -> None:
    """An unsafe request that succeeded makes what is stored of its URL invalid, and no other."""
    request = Request(URL, method=method)
    outdated = RULES.outdated(request, Response(URL, request=request, status=status))
    assert set(outdated) == (
        {RULES.key(Request(URL, method=each)) for each in ("GET", "HEAD")} if is_outdated else set()
    )


@pytest.mark.parametrize(
    ("response", "one", "other", "selects"),
    [
        ({}, {"Accept": "a"}, {"Accept": "b"}, True),
        ({"Vary": "Accept"}, {"Accept": "a"}, {"Accept": "a", "X": "1"}, True),
        ({"Vary": "Accept"}, {"Accept": "a"}, {"accept": " a "}, True),
        ({"Vary": "Accept"}, {"Accept": "a"}, {"Accept": "b"}, False),
        ({"Vary": "Accept"}, {"Accept": "a"}, {}, False),
        ({"Vary": "X, Accept"}, {"Accept": "a", "X": "1"}, {"Accept": "a", "X": "2"}, False),
        ({"Vary": "Accept-Encoding"}, {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "br"}, True),
        ({"Vary": "User-Agent"}, {"User-Agent": "me"}, {}, False),
        ({}, {"Authorization": "me"}, {"Authorization": "you"}, False),
        ({}, {"Authorization": "me"}, {}, False),
        ({}, {"Cookie": "me=1"}, {"Cookie": "you=1"}, True),
        ({CC: "private, max-age=9"}, {"Cookie": "me=1"}, {"Cookie": "you=1"}, False),
        ({"Vary": "Cookie"}, {"Cookie": "me=1"}, {"Cookie": "me=1"}, True),
    ],
)
def test_selection(response: dict[str, str], one: Fields, other: Fields, selects: bool) -> None:
    """What the response varies on decides, Authorization always, and Cookie where it is private; no value is stored."""
    kept = stored({CC: "max-age=60", **response}, wanted=one)
    assert kept is not None
    assert RULES.selects(kept, Request(URL, headers=other)) is selects
    assert b"me" not in kept.selection


def test_the_crawls_own_user_agent_counts() -> None:
    """What the downloader sends where a request says nothing is part of the selection."""
    kept = stored({CC: "max-age=60", "Vary": "User-Agent"})
    assert kept is not None
    assert RULES.selects(kept, Request(URL))
    assert not Rfc9111("agent/2").selects(kept, Request(URL))


def test_headers_that_are_not_stored() -> None:
    """What is of the connection, and cookies that would be set again, long outdated."""
    kept = stored(
        [
            (CC, "max-age=60"),
            ("Connection", "close, X-Hop"),
            ("X-Hop", "1"),
            ("Keep-Alive", "5"),
            ("Set-Cookie", "a=1"),
            ("Link", "1"),
            ("Link", "2"),
        ]
    )
    assert kept is not None
    assert list(kept.headers.items()) == [(CC, "max-age=60"), ("Link", "1"), ("Link", "2")]


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        ({"ETag": '"1"'}, {"If-None-Match": '"1"'}),
        ({"ETag": 'W/"1"', "Last-Modified": date(-9)}, {"If-None-Match": 'W/"1"', "If-Modified-Since": date(-9)}),
        ({"Last-Modified": date(-9)}, {"If-Modified-Since": date(-9)}),
        ({"ETag": '"\udce9"'}, {}),
        ({"ETag": '"a\tb"'}, {}),
        ({CC: "max-age=1"}, {}),
    ],
)
def test_validators(headers: Fields, sent: dict[str, str]) -> None:
    """ETag and Last-Modified are sent back, unless no request could carry them."""
    assert validators(entry(headers)) == sent


def not_modified(headers: Fields) -> Response:
    """Return a 304."""
    return Response(URL, request=Request(URL), status=304, headers=Headers(headers))


def test_a_304_updates_the_headers() -> None:
    """Its headers take the place of the stored ones, those of the body and the connection aside; the age begins anew."""
    old = entry(
        [
            (CC, "max-age=1"),
            ("ETag", '"1"'),
            ("Age", "500"),
            ("Date", date(-500)),
            ("Content-Type", "text/html"),
            ("Content-Length", "4"),
            ("X", "a"),
            ("X", "b"),
            ("Kept", "1"),
        ]
    )
    news = [
        (CC, "max-age=9"),
        ("ETag", '"1"'),
        ("Content-Length", "0"),
        ("Content-Type", "x/y"),
        ("X", "c"),
        ("X", "d"),
    ]
    fresh = freshened(old, not_modified([*news, ("Connection", "close"), ("Set-Cookie", "a=1")]), NOW + 8, NOW + 10)
    assert fresh is not None
    assert sorted(fresh.headers.items()) == sorted(
        [
            (CC, "max-age=9"),
            ("ETag", '"1"'),
            ("Content-Length", "4"),
            ("Content-Type", "text/html"),
            ("X", "c"),
            ("X", "d"),
            ("Kept", "1"),
        ]
    )
    assert (fresh.body, fresh.status) == (b"body", 200)
    assert current_age_s(fresh, NOW + 11) == 3


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"1"', '"1"', True),
        ('"1"', 'W/"1"', True),
        ('"1"', '"2"', False),
        (None, '"2"', True),
        ('"1"', None, True),
    ],
)
def test_a_304_of_another_response(old: str | None, new: str | None, same: bool) -> None:
    """A 304 with another ETag does not speak of the stored response."""
    kept = entry({"ETag": old} if old else {})
    assert (freshened(kept, not_modified({"ETag": new} if new else {}), NOW, NOW) is not None) is same


@pytest.mark.parametrize(
    ("given", "later_s", "may"),
    [
        ("max-age=10, stale-if-error=100", 110, True),
        ("max-age=10, stale-if-error=100", 111, False),
        ("max-age=10", 11, False),
        ("max-age=10, stale-if-error=100, must-revalidate", 11, False),
        ("max-age=10, stale-if-error=100, no-cache", 11, False),
        ("max-age=10, stale-if-error", 11, False),
    ],
)
def test_stale_if_error(given: str, later_s: float, may: bool) -> None:
    """A stale response stands in for as long as it says itself."""
    assert may_stand_in(entry({CC: given}), NOW + later_s) is may


@pytest.mark.parametrize(
    ("status", "kept"),
    [
        (200, True),
        (204, True),
        (301, True),
        (302, True),
        (404, True),
        (410, True),
        (206, False),
        (304, False),
        (401, False),
        (403, False),
        (408, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_everything_keeps_what_is_no_failure(status: int, kept: bool) -> None:
    """Whatever the headers say; failures are asked for anew."""
    assert (stored({CC: "no-store", "Vary": "*"}, rules=Everything(0), status=status) is not None) is kept


def test_everything_has_an_age_too() -> None:
    """For ever, or as long as the setting says; no-cache asks anew."""
    kept = entry({CC: "max-age=0"})
    assert Everything(0).is_fresh(kept, Request(URL), NOW + 1e9)
    assert Everything(60).is_fresh(kept, Request(URL), NOW + 60)
    assert not Everything(60).is_fresh(kept, Request(URL), NOW + 61)
    assert not Everything(0).is_fresh(kept, Request(URL, headers={CC: "no-cache"}), NOW)
