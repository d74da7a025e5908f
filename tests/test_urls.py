"""URLs have one normal form, by the WHATWG standard; what cannot be fetched is refused with a clear line."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from scraper.errors import InvalidURL, RequestError
from scraper.urls import (
    Base,
    SeenLinks,
    base_of,
    dedupe_key,
    fingerprint,
    host_of,
    hostname_of,
    join,
    normalize,
    origin_of,
)

NORMAL = [
    ("http://a", "http://a/"),
    ("http://a?b", "http://a/?b"),
    ("HTTP://EXAMPLE.com:80/a/../b?q#f", "http://example.com/b?q"),
    ("https://a:443/", "https://a/"),
    ("https://a:80/", "https://a:80/"),
    ("http:\\\\a\\b", "http://a/b"),
    ("http:a", "http://a/"),
    ("http:///a", "http://a/"),
    ("  http://a\t", "http://a/"),
    ("http://a/b\tc", "http://a/bc"),
    ("http://münchen.de/ü?ü", "http://xn--mnchen-3ya.de/%C3%BC?%C3%BC"),
    ("http://%61/", "http://a/"),
    ("http://a/%zz?%zz", "http://a/%zz?%zz"),
    ("http://a/%7e%7E", "http://a/%7e%7E"),
    ("http://a/a b", "http://a/a%20b"),
    ("http://0x7f.1/", "http://127.0.0.1/"),
    ("http://1.2.3", "http://1.2.0.3/"),
    ("http://[0:0:0:0:0:0:0:1]:80/", "http://[::1]/"),
    ("http://u:p@a:8080/@x", "http://u:p@a:8080/@x"),
    ("http://u@b@a/", "http://u%40b@a/"),
    ("http://a/./b/../../c", "http://a/c"),
    ("http://a/#", "http://a/"),
    ("http://a/?#x", "http://a/?"),
    ("http://a/?q=a#b?c", "http://a/?q=a"),
]

REFUSED = [
    ("", "not a valid URL"),
    ("   ", "not a valid URL"),
    ("a.com", "did you mean 'https://a.com'?"),
    ("/help.html", "'/help.html' is relative to some page; response.follow() and response.urljoin() make it absolute"),
    ("../a", "'../a' is relative to some page"),
    ("?page=2", "'?page=2' is relative to some page"),
    ("//a.com/x", "did you mean 'https://a.com/x'?"),
    ("/x", "not an absolute URL"),
    ("http://", "not a valid URL"),
    ("http://exa mple/", "not a valid URL"),
    ("http://a:99999/", "not a valid URL"),
    ("http://[::1/", "not a valid URL"),
    ("http://a%00b/", "not a valid URL"),
    ("http://xn--a/", "not a valid URL"),
    ("ftp://a/", "only http and https"),
    ("file:///etc/passwd", "only http and https"),
    ("javascript:alert(1)", "only http and https"),
    ("mailto:me@a.com", "only http and https"),
    ("data:text/html,x", "only http and https"),
    ("http://a/\r\nX: y", "line break or NUL"),
    ("http://a/\0", "line break or NUL"),
    ("http://a/\ud800", "not a valid URL"),
    (b"http://a/", "not bytes"),
    (None, "not NoneType"),
]


@pytest.mark.parametrize(("written", "normal"), NORMAL)
def test_normal_form(written: str, normal: str) -> None:
    """Any way of writing a URL comes to the standard's own, without the fragment; normalising again changes nothing."""
    assert normalize(written) == normal
    assert normalize(normal) == normal


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_refused(url: str, reason: str) -> None:
    """What is no absolute http(s) URL is an InvalidURL of one line that says why."""
    with pytest.raises(InvalidURL) as caught:
        normalize(url)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, (RequestError, ValueError))


@pytest.mark.parametrize(
    ("href", "joined"),
    [
        ("", "http://a/b/c?q"),
        ("x", "http://a/b/x"),
        ("../x", "http://a/x"),
        ("../../../x", "http://a/x"),
        ("/x", "http://a/x"),
        ("//h/x", "http://h/x"),
        ("?z", "http://a/b/c?z"),
        ("#top", "http://a/b/c?q#top"),
        ("\\x", "http://a/x"),
        (" x\n", "http://a/b/x"),
        ("https:x", "https://x/"),
        ("http:x", "http://a/b/x"),
        ("mailto:me", "mailto:me"),
        ("ü", "http://a/b/%C3%BC"),
    ],
)
def test_join(href: str, joined: str) -> None:
    """A link is joined as a browser joins it: of any scheme, with its fragment."""
    assert join("http://a/b/c?q", href) == joined


@pytest.mark.parametrize(
    ("base", "href"), [("http://a/", "http://["), ("mailto:x", "y"), ("", ""), ("http://a/", "\ud800")]
)
def test_join_refuses(base: str, href: str) -> None:
    """What cannot be joined is an InvalidURL that shows both parts."""
    with pytest.raises(InvalidURL, match="cannot join"):
        join(base, href)


@pytest.mark.parametrize(
    ("href", "joined"),
    [
        ("x#f", "http://a/b/x"),
        ("", "http://a/b/c"),
        ("#f", "http://a/b/c"),
        ("mailto:x", None),
        ("javascript:void(0)", None),
        ("tel:1", None),
        ("http://[", None),
        ("http://a:b/", None),
        ("\ud800", None),
    ],
)
def test_base_joins_links(href: str, joined: str | None) -> None:
    """A base gives a link's normal form, and None, never an error, for what is no web page."""
    assert Base("http://a/b/c").join(href) == joined


@pytest.mark.parametrize(
    ("href", "base"),
    [
        (None, "http://a/b"),
        ("", "http://a/b"),
        ("/q/", "http://a/q/"),
        ("//c/d", "http://c/d"),
        ("http://[", "http://a/b"),
        ("mailto:x", "http://a/b"),
        ("javascript:x", "http://a/b"),
        ("data:text/html,x", "http://a/b"),
    ],
)
def test_base_of(href: str | None, base: str) -> None:
    """A base element that no link can be joined to is passed over."""
    assert base_of("http://a/b", href) == base


@pytest.mark.parametrize(
    ("url", "host", "name", "origin"),
    [
        ("http://a/", "a", "a", "http://a"),
        ("https://a:8443/x", "a:8443", "a", "https://a:8443"),
        ("http://a:80/x:1@y", "a", "a", "http://a"),
        ("http://u:p@a:8080/", "a:8080", "a", "http://a:8080"),
        ("http://u:p%40@a/", "a", "a", "http://a"),
        ("http://[::1]/", "[::1]", "::1", "http://[::1]"),
        ("http://[::1]:8000/", "[::1]:8000", "::1", "http://[::1]:8000"),
        ("http://u@[::1]:8000/", "[::1]:8000", "::1", "http://[::1]:8000"),
        ("http://a?x=//b@c", "a", "a", "http://a"),
    ],
)
def test_hosts_and_origins(url: str, host: str, name: str, origin: str) -> None:
    """The host keeps a port that is not the default, never the userinfo; the host name is without either."""
    url = normalize(url)
    assert (host_of(url), hostname_of(url), origin_of(url)) == (host, name, origin)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://a/?b=1&a=2", "http://a/?a=2&b=1", True),
        ("http://a/#x", "http://a/#y", True),
        ("http://a/?a=1&a=2", "http://a/?a=2&a=1", True),
        ("http://a/?a=1", "http://a/?a=2", False),
        ("http://a/?a=1&b=2", "http://a/?a=1&c=2", False),
        ("http://a/?a=1", "http://a/?a=1&", False),
        ("http://a/x", "http://a/X", False),
        ("http://a/", "https://a/", False),
        ("http://a/b&a", "http://a/a&b", False),
        ("http://a:80/", "http://a/", True),
    ],
)
def test_dedupe(one: str, other: str, same: bool) -> None:
    """Two spellings share a fingerprint where only the order of the query or the fragment differs."""
    one, other = normalize(one), normalize(other)
    assert (dedupe_key(one) == dedupe_key(other)) is same
    assert (fingerprint(one) == fingerprint(other)) is same


def test_fingerprint_knows_method_and_body() -> None:
    """GET, HEAD and POST of one URL are three requests, and so are two bodies; the key is always 16 bytes."""
    url = "http://a/"
    marks = {
        fingerprint(url),
        fingerprint(url, "HEAD"),
        fingerprint(url, "POST"),
        fingerprint(url, "POST", b"x"),
        fingerprint(url, "POST", b"y"),
        fingerprint(url, "GET", b"x"),
    }
    assert len(marks) == 6
    assert {len(mark) for mark in marks} == {16}
    assert fingerprint(url, "GET", b"") == fingerprint(url)


@pytest.mark.parametrize(
    "page", ["http://h:8/a/b/c?x=/y/#f", "https://h/", "https://h/d/?q", "http://[::1]/a/b/", "http://h/a/b#/c/d"]
)
@pytest.mark.parametrize(
    "href",
    [
        *(
            "",
            " ",
            "#f",
            "?q",
            " ?q",
            "\t#",
            "x",
            "./x",
            "../x",
            "../../../x",
            "/",
            "/x/../y",
            "//other/z",
            "\\x",
            "\\\\o\\z",
        ),
        *(
            "http:x",
            "https:x",
            "http://o/x",
            "HTTP://O",
            "mailto:a@b",
            "javascript:1",
            "data:,x",
            "x?y#z",
            "x:y",
            "a b",
            "é",
        ),
        *(
            "\n?q",
            "%20",
            ".",
            "..",
            ";p",
            "x" * 300,
            "/" + "x" * 300,
            "\x00",
            " /x",
            "//",
            "///",
            "http://",
            "[",
            "~",
            "&a=1",
        ),
    ],
)
def test_a_link_is_what_joining_comes_to(page: str, href: str) -> None:
    """What is remembered of one page of a folder holds on the others."""
    page = join(page, "")  # a base element's URL may have a fragment
    other = page.partition("#")[0].partition("?")[0].rpartition("/")[0] + "/some-other-page?of=the&folder"
    Base(normalize(other)).join_all([href])
    base = Base(page)
    assert base.join_all([href]) == [url for url in [base.join(href)] if url is not None]


PLACES = ["http://h/a/x", "http://h/a/y?q#f", "http://h/b/x", "https://h/a/x", "http://o/a/x"]
HREFS = ["x", "/x", "../x", "?q", "", "http://h/x", "//h/x", "mailto:x", "x#1", "x" * 300, " x"]


def test_seen_links_lead_to_what_was_seen() -> None:
    """Whatever pages the hrefs stood on before, of those on a page exactly the URLs that were not seen are new."""
    random = Random(1)
    seen: set[str] = set()
    dropped = 0

    def unseen(urls: Sequence[str], n: int) -> list[str]:
        nonlocal dropped
        new = [url for url in urls if url not in seen]
        dropped += n + len(urls) - len(new)
        return new

    links = SeenLinks(unseen)
    for _ in range(3000):
        base = Base(random.choice(PLACES))
        hrefs = random.choices(HREFS, k=random.randrange(8))
        urls = dict.fromkeys(base.join_all(hrefs))
        new = links.new_of(base, hrefs)
        assert list(new) == [url for url in urls if url not in seen]
        assert all(base.join(href) == url for url, href in new.items())
        seen.update(url for url in urls if random.random() < 0.05)
        links.remember(base, [href for url, href in new.items() if url in seen])
    assert dropped > 5000


def test_a_seen_link_is_not_asked_for_again() -> None:
    """The frontier is told how many there were, and not which."""
    asked: list[tuple[list[str], int]] = []

    def unseen(urls: Sequence[str], n: int) -> list[str]:
        asked.append((list(urls), n))
        return []

    links = SeenLinks(unseen)
    for _ in range(2):
        assert links.new_of(Base("http://h/a/b"), ["x", "/y", "?z"]) == {}
    assert asked == [(["http://h/a/x", "http://h/y", "http://h/a/b?z"], 0), (["http://h/a/b?z"], 2)]
