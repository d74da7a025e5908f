"""The pool of proxies: who is asked next, who rests and for how long, and what becomes of the request meanwhile."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import Any

import pytest

from scraper import Request, Response
from scraper.contracts import Again
from scraper.errors import ConnectError, ConnectionLost, DnsError, FetchError, FetchTimeout, ProxyError, SettingsError
from scraper.layers import mapping_layer, merge, option_layer
from scraper.log import Log
from scraper.middlewares.proxy import Proxies

URL = "http://site/"


class Pool:
    """A pool of proxies a, b, c with a clock that is set, and what each of them does."""

    def __init__(self, names: str = "abc", scheme: str = "http") -> None:
        self.now = 1000.0
        self.lines: list[str] = []
        self.held: list[tuple[str, float]] = []
        self.does: dict[str, int | Exception] = {}
        self.asked = ""
        urls = [f"{scheme}://user-{name}:hush@{name}:3128" for name in names]
        log = Log("info", write=self.lines.append)
        self.proxies = Proxies(
            urls, lambda host, not_before: self.held.append((host, not_before)), log, lambda: self.now
        )

    def get(self, url: str = URL, **options: Any) -> Any:
        """Ask for a URL; return the status, or what is raised."""

        async def handle(request: Request) -> Response:
            name = request.proxy.rpartition("@")[2].partition(":")[0] if request.proxy else "-"
            self.asked += name
            outcome = self.does.get(name, 200)
            if isinstance(outcome, Exception):
                raise copy(outcome)
            return Response(request.url, request=request, status=outcome)

        request = Request(url, **options)
        try:
            return asyncio.run(self.proxies(handle)(request)).status
        except (Again, FetchError) as outcome:
            return outcome
        finally:
            assert request.proxy == options.get("proxy")


def test_in_turn() -> None:
    """Each request goes through the next proxy."""
    pool = Pool()
    assert [pool.get() for _ in range(7)] == [200] * 7
    assert pool.asked == "abcabca"


@pytest.mark.parametrize(("proxy", "asked"), [("http://@own:1", "own"), ("", "-")])
def test_a_requests_own_proxy_wins(proxy: str, asked: str) -> None:
    """A request that names a proxy goes through that, and one that names none at all goes direct."""
    pool = Pool()
    pool.does[asked] = ConnectError(URL, "x")
    assert isinstance(pool.get(proxy=proxy), ConnectError)
    assert pool.asked == asked
    assert pool.lines == []


REFUSALS = [
    ConnectError(URL, "x"),
    DnsError(URL, "x"),
    ProxyError(URL, "x"),
    ProxyError(URL, "x", 407),
    ProxyError(URL, "x", 403),
    FetchTimeout(URL, "x", "proxy"),
    407,
]


@pytest.mark.parametrize("failure", REFUSALS)
def test_one_that_fails_rests(failure: int | Exception) -> None:
    """The request goes through another at once; the proxy is left alone for 5 s, and one line says so."""
    pool = Pool()
    pool.does["a"] = failure
    again = pool.get()
    assert isinstance(again, Again)
    assert (again.delay, again.reason, again.request.proxy) == (0.0, "retry", None)
    assert [pool.get() for _ in range(4)] == [200] * 4
    assert pool.asked == "abcbc"
    pool.now += 5.0
    pool.does["a"] = 200
    assert [pool.get() for _ in range(3)] == [200] * 3
    assert sorted(pool.asked[5:]) == ["a", "b", "c"]
    assert len(pool.lines) == 2
    assert "proxy rests  proxy=http://a:3128  seconds=5.0" in pool.lines[0]
    assert "proxy is back  proxy=http://a:3128" in pool.lines[1]
    assert not any("hush" in line or "user-a" in line for line in pool.lines)
    assert pool.held == []


def test_the_rest_doubles() -> None:
    """Each rest is twice as long as the one before, up to ten minutes; a good answer ends the row."""
    pool = Pool("a")
    pool.does["a"] = ProxyError(URL, "x")
    rests = []
    for _ in range(9):
        assert isinstance(pool.get(), ProxyError)
        waits = pool.get()
        assert isinstance(waits, Again)
        rests.append(waits.delay)
        pool.now += waits.delay
    assert rests == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    pool.does["a"] = 200
    assert pool.get() == 200
    pool.does["a"] = ProxyError(URL, "x")
    pool.now += 1
    pool.get()
    assert pool.get().delay == 5


def test_where_all_rest_requests_wait_for_the_first() -> None:
    """The request and its host wait in the frontier until the first proxy returns; nobody is asked meanwhile."""
    pool = Pool("ab")
    pool.does = {"a": ProxyError(URL, "x"), "b": ProxyError(URL, "x")}
    pool.get(URL + "1")
    pool.now += 2
    pool.get(URL + "2")
    again = pool.get(URL + "3")
    assert again.delay == 3.0
    assert pool.held == [("site", 1005.0)]
    assert pool.asked == "ab"


def test_a_request_that_all_have_failed_comes_to_its_end() -> None:
    """After as many failures as there are proxies the error is the outcome, and the next row begins anew."""
    pool = Pool()
    pool.does = dict.fromkeys("abc", ProxyError(URL, "x", 407))
    for _ in range(2):
        assert [type(pool.get()) for _ in range(3)] == [Again, Again, ProxyError]
        pool.now += 1000


def test_failures_of_requests_sent_together_are_one() -> None:
    """Eight requests under way through a proxy that dies make one rest of 5 s, not of ten minutes."""
    pool = Pool("ab")

    async def handle(request: Request) -> Response:
        if "@a:" in (request.proxy or ""):
            await asyncio.sleep(0)
            raise ProxyError(URL, "x")
        return Response(request.url, request=request)

    async def main() -> None:
        fetch = pool.proxies(handle)
        await asyncio.gather(*[fetch(Request(f"{URL}{number}")) for number in range(16)], return_exceptions=True)

    asyncio.run(main())
    assert len(pool.lines) == 1
    pool.now += 5.0
    pool.does = {"b": ProxyError(URL, "x")}
    assert 200 in (pool.get(), pool.get())


def alike(outcome: Any, expected: Any) -> bool:
    """Whether this is the status, or an error of the class, that was expected."""
    return outcome == expected if isinstance(expected, int) else type(outcome) is type(expected)


DOUBTFUL = [
    502,
    504,
    ProxyError(URL, "x", 502),
    ProxyError(URL, "x", 503),
    FetchTimeout(URL, "x"),
    ConnectionLost(URL, "x"),
]


@pytest.mark.parametrize("failure", DOUBTFUL)
def test_what_may_be_the_sites_fault(failure: int | Exception) -> None:
    """A gateway error or a timeout goes to retry outside; five in a row are the proxy's fault where others work."""
    pool = Pool("ab")
    pool.does["a"] = failure
    for _ in range(4):
        assert alike(pool.get(), failure)
        pool.now += 0.1
        assert pool.get() == 200
    assert pool.lines == []
    assert alike(pool.get(), failure)
    assert len(pool.lines) == 1
    assert "5 failures in a row, while others work" in pool.lines[0]
    assert [pool.get() for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("failure", DOUBTFUL)
def test_a_site_that_is_down_costs_no_proxy(failure: int | Exception) -> None:
    """Where all proxies give the same, it is the site; and a good answer between ends the row."""
    pool = Pool("ab")
    pool.does = {"a": failure, "b": failure}
    for _ in range(20):
        assert alike(pool.get(), failure)
    pool.does = {}
    assert [pool.get() for _ in range(4)] == [200] * 4
    pool.does = {"a": failure}
    for _ in range(4):
        pool.now += 0.1
        pool.get()
    assert pool.lines == []


@pytest.mark.parametrize("failure", DOUBTFUL[-2:])
def test_whose_strain_it_is(failure: FetchTimeout | ConnectionLost) -> None:
    """A timeout is a sign that the host is strained where the one before came by another proxy, with nothing good since."""
    pool = Pool("ab")
    pool.does["a"] = failure
    assert [pool.get().is_strain, pool.get()] == [False, 200]
    assert [pool.get().is_strain, pool.get()] == [False, 200]
    pool.does["b"] = failure
    assert [pool.get().is_strain for _ in range(4)] == [False, True, True, True]
    assert pool.get("http://other/").is_strain is False
    assert Pool("a").get() == 200
    alone = Pool("a")
    alone.does["a"] = failure
    assert alone.get().is_strain is True


@pytest.mark.parametrize("status", [200, 301, 403, 404, 429, 500, 503])
def test_other_answers_are_the_sites(status: int) -> None:
    """Whatever else comes back comes from the site."""
    pool = Pool("a")
    pool.does["a"] = status
    assert [pool.get() for _ in range(8)] == [status] * 8
    assert pool.lines == []


@pytest.mark.parametrize(("scheme", "url"), [("http", "https://site/"), ("https", "https://site/"), ("socks5", URL)])
def test_a_407_through_a_tunnel_is_the_sites(scheme: str, url: str) -> None:
    """A site cannot send the proxies to rest: over https, and by SOCKS, the proxy says nothing of its own."""
    pool = Pool("ab", scheme)
    pool.does = {"a": 407, "b": 407}
    assert [pool.get(url) for _ in range(8)] == [407] * 8
    assert pool.lines == []


def test_settings() -> None:
    """Proxies are listed in settings.toml, or between commas; http, https and socks5 are known."""
    urls = ["http://u:p@h:1", "https://h", "socks5://h:1080", "socks5h://u:p@[::1]:1080"]
    assert merge([mapping_layer({"proxies": {"urls": urls}}, "x")]).proxies.urls == tuple(urls)
    assert merge([option_layer([f"proxies.urls={','.join(urls)}"])]).proxies.urls == tuple(urls)


@pytest.mark.parametrize(
    "url", ["h:3128", "u:hush@h:3128", "ftp://u:hush@h", "http://u:hush@", "http://u:hush@h:99999", ""]
)
def test_what_is_no_proxy(url: str) -> None:
    """A slip is one line with its place, without the password in it."""
    with pytest.raises(SettingsError, match=r"^settings.toml: proxies.urls: not the URL of a proxy") as caught:
        merge([mapping_layer({"proxies": {"urls": [url]}}, "settings.toml")])
    assert "hush" not in str(caught.value)
