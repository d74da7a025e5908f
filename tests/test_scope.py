"""Which URLs belong to a crawl."""

from __future__ import annotations

import json
from typing import Any

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
        ("/b/b/b/b/", "path-repeat"),
        ("/b/b//b/b", "path-repeat"),
        ("/b/b/b/b//", "path-repeat"),
        ("/b/b/b/b?page=/2", "path-repeat"),
        ("/b/b/b?/b", ""),
        ("/x/b/b/b/b/y", "path-repeat"),
        ("/a/b/a/b/a/b", ""),
        ("/a/b/a/b/a/b/a/b", "path-repeat"),
        ("/a/b/a/b/a/b/a/c", ""),
        ("/a/b/c/d/a/b/c/d/a/b/c/d/a/b/c/d", "path-repeat"),
        ("/a/x/a/y/a/z/a/w/a/v", ""),
        ("/2024/01/01/01/page/2", ""),
        ("/s?next=/b/b/b/b/b/b", ""),
    ],
)
def test_paths_that_repeat_themselves(path: str, reason: str) -> None:
    """The same one to four segments, more than three times in a row, are a link gone wrong, asked first or again."""
    scope = Scope(max_path_repeats=3)
    assert [scope.refuses(Request("http://a" + path)) for _ in range(2)] == [reason, reason]


@pytest.mark.parametrize(("most", "path", "reason"), [(1, "/b", ""), (1, "/b/b", "path-repeat"), (0, "/b" * 900, "")])
def test_how_often_a_path_may_repeat_itself(most: int, path: str, reason: str) -> None:
    """The number can be set; with 0 any path will do."""
    assert Scope(max_path_repeats=most).refuses(Request("http://a" + path)) == reason


def test_a_path_does_not_hide_among_many() -> None:
    """However many directories were looked into before, a path that repeats itself is found, and no other one."""
    scope = Scope(max_path_repeats=3)
    for number in range(5000):
        assert scope.refuses(Request.link(f"http://a/{number}/b/b/b/x")) == ""
        assert scope.refuses(Request.link(f"http://a/{number}/b/b/b/b")) == "path-repeat"


def redirected(request: Request, to: str) -> Request:
    """Return what follows the request's redirect."""
    target = request.replace(to)
    target.redirects = (*request.redirects, request.url)
    return target


def retried(request: Request) -> Request:
    """Return the request's next try."""
    target = request.replace()
    target.retries += 1
    return target


def test_pages_of_a_host() -> None:
    """So many requests of a host are begun, others not; links to it are refused then, those to other hosts are not."""
    scope = Scope(max_pages_per_host=2)
    pages = [Request(f"http://a/{number}") for number in range(4)]
    assert [scope.refuses(page) for page in pages] == ["", "", "", ""]
    assert [scope.begin(page) for page in pages] == ["", "", "pages-per-host", "pages-per-host"]
    assert scope.refuses(pages[0]) == "pages-per-host"
    assert scope.refuses(pages[0], is_link=False) == ""
    assert (scope.refuses(Request("http://b/")), scope.begin(Request("http://a:81/"))) == ("", "")


def test_retries_and_redirects_are_one_page() -> None:
    """They pass a cap that is full, and where they fail the page that they stand for is given back."""
    scope = Scope(max_pages_per_host=1)
    first = Request("http://a/1")
    assert scope.begin(first) == ""
    scope.end(first, failed=False)
    again = redirected(retried(first), "http://b/1")
    assert (scope.begin(again), scope.begin(Request("http://a/2"))) == ("", "pages-per-host")
    assert scope.refuses(Request("http://b/2")) == ""
    scope.end(again, failed=True)
    assert scope.begin(Request("http://a/3")) == ""


def test_queries_of_a_path() -> None:
    """A path's queries are counted apart from other paths, other hosts, forms, and requests that are to be repeated."""
    scope = Scope(max_queries_per_path=2)

    def begun(url: str, **options: Any) -> str:
        return scope.begin(Request(url, **options))

    assert [begun(f"http://a/s?q={number}") for number in range(3)] == ["", "", "queries"]
    assert scope.refuses(Request("http://a/s?q=9")) == "queries"
    others = ["http://a/s", "http://a/t?q=1", "http://b/s?q=1", "http://a/s/?q=1"]
    assert [begun(url) or scope.refuses(Request(url)) for url in others] == [""] * 4
    assert [begun("http://a/s?q=4", form={"a": "1"}), begun("http://a/s?q=4", dont_filter=True)] == ["", ""]


def test_counts_last_over_a_crash() -> None:
    """What is settled counts in the next process, what was under way does not, and each change is given out once."""
    scope = Scope(max_pages_per_host=3, max_queries_per_path=2)
    done, failed, under_way = (Request(f"http://a/s?{name}") for name in ("done", "failed", "under-way"))
    for page in (done, failed):
        assert scope.begin(page) == ""
    scope.end(done, failed=False)
    scope.end(failed, failed=True)
    assert scope.begin(under_way) == ""
    state = json.loads(json.dumps(scope.changes()))
    assert sorted(state.values()) == [1, 1]
    assert scope.changes() == {}
    other = Scope(max_pages_per_host=3, max_queries_per_path=2)
    other.restore({**state, "scope:named": True, "stats": {}})
    assert [other.begin(Request(f"http://a/s?{number}")) for number in range(2)] == ["", "queries"]
    assert [other.begin(Request(f"http://a/{number}")) for number in range(2)] == ["", "pages-per-host"]
    full = Scope(max_queries_per_path=1)
    full.restore(state)
    assert full.refuses(under_way) == "queries"


def test_a_path_of_few_queries_is_not_kept() -> None:
    """From a hundredth of the cap on a path's count outlives the process; a million paths of one query cost no state."""
    scope = Scope(max_queries_per_path=1000)
    for number in range(12):
        page = Request(f"http://a/s?q={number}")
        scope.begin(page)
        scope.end(page, failed=False)
        assert list(scope.changes().values()) == ([number + 1] if number >= 9 else [])


def test_counting_takes_bounded_memory() -> None:
    """Past 100,000 paths those with few queries are forgotten; the trap among them is not."""
    scope = Scope(max_queries_per_path=5)
    for number in range(4):
        assert scope.begin(Request.link(f"http://a/trap?{number}")) == ""
    for number in range(100_001):
        assert scope.begin(Request.link(f"http://a/{number}?x")) == ""
    assert [scope.begin(Request.link(f"http://a/trap?{number}")) for number in range(4, 6)] == ["", "queries"]


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
