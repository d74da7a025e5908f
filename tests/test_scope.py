"""Which URLs belong to a crawl."""

from __future__ import annotations

import pytest

from scraper import Request
from scraper.scope import Scope
from scraper.urls import MAX_URL_LENGTH


@pytest.mark.parametrize(
    ("domains", "url", "inside"),
    [
        ([], "http://anything/", True),
        (["a.com"], "http://a.com/", True),
        (["a.com"], "https://a.com:8443/", True),
        (["a.com"], "http://www.a.com/", True),
        (["a.com"], "http://x.y.a.com/", True),
        (["a.com"], "http://nota.com/", False),
        (["a.com"], "http://a.com.evil.org/", False),
        (["a.com"], "http://a.com@evil.org/", False),
        (["a.com"], "http://evil.org/a.com", False),
        (["a.com", "b.org"], "http://b.org/", True),
        (["www.a.com"], "http://a.com/", False),
        ([" A.Com "], "http://a.com/", True),
        ([".a.com"], "http://a.com/", True),
        (["münchen.de"], "http://www.münchen.de/", True),
        (["localhost:8000"], "http://localhost:8000/", True),
        (["localhost:8000"], "http://localhost:9000/", False),
        (["127.0.0.1"], "http://127.0.0.1:8000/", True),
        (["::1"], "http://[::1]:8000/", True),
        ("a.com", "http://a.com/", True),
        ("a.com", "http://m/", False),
    ],
)
def test_domains(domains: list[str], url: str, inside: bool) -> None:
    """A domain takes in its subdomains and all ports, nothing that only looks like it; no domains take in everything."""
    assert Scope(domains).refuses(Request(url)) == ("" if inside else "offsite")


@pytest.mark.parametrize(("max_depth", "depth", "reason"), [(0, 1000, ""), (2, 2, ""), (2, 3, "depth"), (1, 0, "")])
def test_depth(max_depth: int, depth: int, reason: str) -> None:
    """Links are followed as far as the depth allows; 0 allows all."""
    request = Request("http://a/")
    request.depth = depth
    assert Scope(max_depth=max_depth).refuses(request) == reason


def test_length() -> None:
    """A URL longer than any real one is a trap."""
    url = "http://a/"
    assert Scope().refuses(Request(url + "x" * (MAX_URL_LENGTH - len(url)))) == ""
    assert Scope().refuses(Request(url + "x" * MAX_URL_LENGTH)) == "length"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/b/b/b", ""),
        ("/b/b/b/b", "path-repeat"),
        ("/x/b/b/b/b/y", "path-repeat"),
        ("/a/b/a/b/a/b", ""),
        ("/a/b/a/b/a/b/a/b", "path-repeat"),
        ("/a/b/c/d/a/b/c/d/a/b/c/d/a/b/c/d", "path-repeat"),
        ("/a/x/a/y/a/z/a/w/a/v", ""),
        ("/2024/01/01/01/page/2", ""),
        ("/s?next=/b/b/b/b/b/b", ""),
    ],
)
def test_paths_that_repeat_themselves(path: str, reason: str) -> None:
    """The same one to four segments, more than three times in a row, are a link gone wrong."""
    assert Scope().refuses(Request("http://a" + path)) == reason


def test_hosts_of_start_urls_are_in() -> None:
    """A start URL's host belongs to the crawl whatever the domains say, and stays in it however many hosts follow."""
    scope = Scope(["a.com"])
    start = Request("http://start:8000/")
    assert scope.refuses(start) == "offsite"
    scope.add_host(start.host)
    assert scope.refuses(start) == ""
    for number in range(10_001):
        assert scope.refuses(Request.link(f"http://h{number}/")) == "offsite"
    assert scope.refuses(start) == ""
    assert scope.refuses(Request("http://start:9000/")) == "offsite"


def test_start_hosts_last_over_a_crash() -> None:
    """New start hosts are given out once, and another process that takes them up lets them in."""
    scope = Scope(["a.com"])
    scope.add_host("start:8000")
    scope.add_host("start:8000")
    state = scope.changes()
    assert scope.changes() == {}
    other = Scope(["a.com"])
    other.restore({**state, "seed:elsewhere": True})
    assert other.refuses(Request("http://start:8000/")) == ""
    assert other.refuses(Request("http://elsewhere/")) == "offsite"
    assert other.changes() == {}
