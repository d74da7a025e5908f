"""Whole crawls with cookies, logins, refreshes and proxies: what the servers see of them."""

from __future__ import annotations

import asyncio
import stat
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from conftest import Crawls
from servers import RawServer, Site, in_loop, in_turn, redirect, unreachable

from scraper import Failure, Request, Response, Spider
from scraper.crawler import Crawler, load_settings
from scraper.layers import mapping_layer
from scraper.log import Log
from scraper.spider import make_spider

NO_ROBOTS = {"politeness.robots": False}


def login(request: web.BaseRequest) -> web.Response:
    """A page that sets a cookie by its query, and leads on."""
    headers = {"Set-Cookie": f"who={request.query['as']}", "Location": f"/me?{request.query['as']}-is-in"}
    return web.Response(status=302, headers=headers)


def me(request: web.BaseRequest) -> web.Response:
    """A page that says who one is."""
    return web.Response(text=request.headers.get("Cookie", "nobody"), content_type="text/html")


class Sessions(Spider):
    """Logs in as two people, each in a jar of their own, and looks again without passing the jar on."""

    name = "sessions"

    async def start(self) -> Any:
        for who in ("ada", "alan"):
            yield Request(f"{self.base}/login?as={who}", meta={"cookiejar": who}, cb_kwargs={"who": who})

    def parse(self, response: Response, who: str) -> Any:
        yield {"who": who, "page": response.text}
        again = Request(f"{self.base}/me?{who}", self.again, meta={"cookiejar": response.meta["cookiejar"]})
        yield again
        yield again.replace(f"{self.base}/me?without-{who}", meta={})

    def again(self, response: Response) -> Any:
        yield {"who": response.url.partition("?")[2], "page": response.text}


@in_loop
async def test_named_jars_keep_sessions_apart(crawled: Crawls) -> None:
    """Redirects keep the jar; what the spider yields has the run's jar unless it passes another on."""
    async with Site({"/login": login, "/me": me}) as site:
        Sessions.base = site.url("")
        result = await crawled(Sessions, {**NO_ROBOTS, "crawl.concurrency": 1})
    found = [(item["who"], item["page"]) for item in result.items]
    assert sorted(found) == sorted(
        [
            ("ada", "who=ada"),
            ("ada", "who=ada"),
            ("alan", "who=alan"),
            ("alan", "who=alan"),
            ("without-ada", "nobody"),
            ("without-alan", "nobody"),
        ]
    )


@in_loop
async def test_without_cookies_nothing_is_kept(crawled: Crawls) -> None:
    """With download.cookies = false a site's cookies are passed over."""
    async with Site({"/login": login, "/me": me}) as site:
        Sessions.base = site.url("")
        result = await crawled(Sessions, {**NO_ROBOTS, "COOKIES_ENABLED": False})
    assert {item["page"] for item in result.items} == {"nobody"}


@in_loop
async def test_the_jar_is_kept_with_the_job(empty_folder: Path) -> None:
    """A run that goes on sends the cookies of the one before; the file with them is its owner's alone."""

    class Stops(Spider):
        name = "stops"

        async def start(self) -> Any:
            yield Request(f"{self.base}/login?as=ada")
            yield Request(f"{self.base}/me?again")

        def parse(self, response: Response) -> Any:
            seen.append(response.text)

    seen: list[str] = []
    async with Site({"/login": login, "/me": me}) as site:
        Stops.base = site.url("")
        for limit in (1, 0):
            layer = mapping_layer({**NO_ROBOTS, "crawl.max_pages": limit, "crawl.concurrency": 1}, "the test")
            await Crawler(make_spider(Stops, {}), load_settings(Stops, [layer]), state=empty_folder).run()
    assert seen == ["who=ada", "who=ada"]
    for file in empty_folder.glob("frontier.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


class Private(Spider):
    """Reads pages, and says what it knows of each request."""

    name = "private"

    def parse(self, response: Response) -> Any:
        self.log.warning("seen", headers=dict(response.request.headers or {}))
        yield {"path": response.url.rpartition("/")[2], "headers": dict(response.request.headers or {})}


@in_loop
async def test_credentials_stay_with_their_origin(crawled: Crawls, monkeypatch: Any) -> None:
    """A site gets its credentials with each of its pages, the one it redirects to gets none, and the spider sees none."""
    monkeypatch.setenv("SITE_TOKEN", "t0ps3cret")
    async with Site({"/b": "b"}) as other, Site({"/a": "a", "/hop": redirect(other.url("/b"))}) as site:
        Private.start_urls = [site.url("/a"), site.url("/hop")]
        settings = {"auth": {site.url("").rstrip("/"): {"token": "$SITE_TOKEN"}}}
        lines: list[str] = []
        layer = mapping_layer({"frontier.use": "memory", **settings}, "the test")
        result = await Crawler(Private(), load_settings(Private, [layer]), log=Log("debug", write=lines.append)).run()
    assert result.stats["pages"] == 2
    assert [each.headers.get("Authorization") for each in site.asked + site.asked_robots] == ["Bearer t0ps3cret"] * 3
    assert [each.headers.get("Authorization") for each in other.asked + other.asked_robots] == [None] * 2
    assert lines
    assert "t0ps3cret" not in "".join(lines)


class Gate(Site):
    """An HTTP proxy; behind it a.invalid logs in at /login and leads from /hop to b.invalid, every other page is empty."""

    def __init__(self) -> None:
        super().__init__({"*": self._answer})

    def _answer(self, request: web.BaseRequest) -> web.Response:
        where = {"/login": "/home", "/hop": "http://b.invalid/landing"}.get(request.path)
        headers = {"Set-Cookie": f"sid=of-{request.path[1:]}; Path=/"} if request.path in ("/login", "/form") else {}
        if where is not None:
            return web.Response(status=302, headers={**headers, "Location": where})
        return web.Response(headers=headers, content_type="text/html")


SECRETS = {
    "auth": {"http://a.invalid": {"token": "t0ken-of-a"}},
    "hosts": {"a.invalid": {"headers": {"X-Api-Key": "k3y-of-a"}, "timeout": 11.0}},
    "headers": {"X-Everybodys": "everybody"},
}


@in_loop
async def test_what_a_dead_proxy_sends_back_has_no_credentials(empty_folder: Path) -> None:
    """Through another proxy and a redirect each host gets its own headers; the spider and the state's file see none."""
    seen: list[tuple[dict[str, str], float | None]] = []

    class Hops(Spider):
        name = "hops"

        async def start(self) -> Any:
            yield Request("http://a.invalid/hop", headers={"X-Own": "mine"})

        def parse(self, response: Response) -> Any:
            seen.append((dict(response.request.headers or {}), response.request.timeout))

    async with Gate() as gone:
        dead = gone.url("")
    async with Gate() as gate:
        layer = mapping_layer({**NO_ROBOTS, **SECRETS, "proxies.urls": [dead, gate.url("")]}, "the test")
        result = await Crawler(Hops(), load_settings(Hops, [layer]), state=empty_folder).run()
    assert (result.stats["pages"], result.stats["retries"]) == (1, 1)
    names = ("X-Own", "X-Everybodys", "X-Api-Key", "Authorization")
    sent = [tuple(each.headers.get(name) for name in names) for each in gate.asked]
    assert sent == [("mine", "everybody", "k3y-of-a", "Bearer t0ken-of-a"), ("mine", "everybody", None, None)]
    assert seen == [({"X-Own": "mine"}, None)]
    stored = b"".join(file.read_bytes() for file in empty_folder.glob("frontier.db*"))
    assert b"mine" in stored
    assert not any(secret in stored for secret in (b"t0ken-of-a", b"k3y-of-a", b"everybody"))


@in_loop
async def test_a_login_through_another_proxy(crawled: Crawls) -> None:
    """The cookie that is sent is the jar's at that time, not the one of when the first proxy was tried."""
    async with Gate() as gate, Gate() as other:

        class Login(Spider):
            name = "login"
            start_urls = ["http://a.invalid/form"]

            async def parse(self, response: Response) -> Any:
                if response.url.endswith("/form"):
                    await other.__aexit__()  # it is the next one's turn, and it is gone
                    yield Request("http://a.invalid/login", form={"user": "ada"})
                else:
                    yield dict(response.request.headers or {})

        settings = {**NO_ROBOTS, **SECRETS, "proxies.urls": [gate.url(""), other.url("")]}
        result = await crawled(Login, settings)
    assert result.stats["retries"] == 1
    sent = [(each.path, each.headers.get("Cookie")) for each in gate.asked]
    assert sent == [("/form", None), ("/login", "sid=of-form"), ("/home", "sid=of-login")]
    assert result.items == [{}]


@in_loop
async def test_what_the_cache_asks_anew_has_no_credentials(crawled: Crawls) -> None:
    """Where a 304 speaks of another response and the page is asked for once more, the spider sees neither token nor cookie."""

    def page(request: web.BaseRequest) -> web.Response:
        if "If-None-Match" in request.headers:
            return web.Response(status=304, headers={"ETag": '"2"'})
        first = len(site.asked) == 2
        return web.Response(text="one" if first else "two", headers={"ETag": '"1"', "Cache-Control": "no-cache"})

    class Twice(Spider):
        name = "twice"

        def parse(self, response: Response) -> Any:
            yield {"page": response.text, "headers": dict(response.request.headers or {})}
            if response.text == "one":
                yield Request(response.url, dont_filter=True)

    async with Site({"/login": login, "/me": page}) as site:
        Twice.start_urls = [site.url("/login?as=ada")]
        settings = {**NO_ROBOTS, "cache.mode": "rfc9111", "auth": {site.url("").rstrip("/"): {"token": "t0ken"}}}
        result = await crawled(Twice, settings)
    assert [each.headers.get("If-None-Match") for each in site.asked] == [None, None, '"1"', None]
    assert [each.headers.get("Authorization") for each in site.asked] == ["Bearer t0ken"] * 4
    assert result.items == [{"page": "one", "headers": {}}, {"page": "two", "headers": {}}]


def refresh(target: str, delay: int = 0) -> str:
    """A page that sends its reader on."""
    return f'<!doctype html><meta http-equiv="refresh" content="{delay}; url={target}"><p>wait</p>'


@in_loop
async def test_a_meta_refresh_leads_on(crawled: Crawls) -> None:
    """The page behind it comes to the callback after the delay; its own page does not."""
    async with Site({"/": refresh("/on", 1), "/on": "on"}) as site:
        Private.start_urls = [site.url("/")]
        result = await crawled(Private, NO_ROBOTS)
    assert [item["path"] for item in result.items] == ["on"]
    assert (result.stats["redirects"], result.stats["retries"]) == (1, 0)
    assert site.asked[1].at - site.asked[0].at >= 1


@pytest.mark.parametrize("pages", [{"/": refresh("/")}, {"/": refresh("/b?x=1&y=2"), "/b": refresh("/")}])
@in_loop
async def test_a_loop_of_refreshes_ends(crawled: Crawls, pages: dict[str, Any]) -> None:
    """Twenty hops are followed, then there is one error."""
    async with Site(pages) as site:
        Private.start_urls = [site.url("/")]
        result = await crawled(Private, NO_ROBOTS)
    assert len(site.asked) == 21
    assert result.stats["error_classes"] == {"TooManyRedirects": 1}


@in_loop
async def test_a_refresh_out_of_bounds_is_refused(crawled: Crawls) -> None:
    """The domains of the spider hold for it as for every redirect."""
    bound = type("Bound", (Private,), {"allowed_domains": ["127.0.0.1"]})
    async with Site({"/": refresh("http://elsewhere.invalid/")}) as site:
        bound.start_urls = [site.url("/")]
        result = await crawled(bound, NO_ROBOTS)
    assert result.stats["error_classes"] == {"OutOfScope": 1}


@in_loop
async def test_a_retry_keeps_retry_after_without_the_throttle(crawled: Crawls) -> None:
    """With politeness.adaptive off the page itself is still asked no sooner than it said."""
    busy = web.Response(status=429, headers={"Retry-After": "2"})
    async with Site({"/": in_turn(busy, "at last"), "/other": "other"}) as site:
        Private.start_urls = [site.url("/"), site.url("/other")]
        result = await crawled(Private, {**NO_ROBOTS, "politeness.adaptive": False})
    assert len(result.items) == 2
    first, second = (each.at for each in site.asked if each.path == "/")
    assert second - first >= 2


class Proxy(Site):
    """An HTTP proxy that makes up its answers; ``wants`` is the Proxy-Authorization that it asks for."""

    def __init__(self, wants: str | None = None) -> None:
        super().__init__({"*": self._answer}, robots=404)
        self._wants = wants

    def _answer(self, request: web.BaseRequest) -> web.Response:
        if self._wants is not None and request.headers.get("Proxy-Authorization") != self._wants:
            return web.Response(status=407)
        return web.Response(text=f"page of {request.headers['Host']}", content_type="text/html")

    def with_user(self, credentials: str) -> str:
        """Its URL, with a user and a password."""
        return self.url("").replace("://", f"://{credentials}@")


@in_loop
async def test_a_crawl_through_a_pool(crawled: Crawls) -> None:
    """Every page comes, though of three proxies one is down and one refuses; the site's own gap is kept all the while."""

    class Many(Private):
        name = "many"
        start_urls = [f"http://site.invalid/{number}" for number in range(12)]

    async with Proxy() as gone:
        dead = gone.with_user("u:hush")
    async with Proxy("never") as refusing, Proxy("Basic dTpodXNo") as good:
        settings = {
            **NO_ROBOTS,
            "frontier.use": "memory",
            "politeness.delay": 0.03,
            "proxies.urls": [dead, refusing.with_user("u:hush"), good.with_user("u:hush")],
        }
        lines: list[str] = []
        layer = mapping_layer(settings, "the test")
        result = await Crawler(Many(), load_settings(Many, [layer]), log=Log("debug", write=lines.append)).run()
    assert (result.stats["pages"], result.stats["errors"]) == (12, 0)
    assert len(refusing.asked) == 1
    times = [each.at for each in good.asked]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.03 - 0.015
    text = "".join(lines)
    assert text.count("proxy rests") == 2
    assert "hush" not in text


@in_loop
async def test_a_slow_proxy_and_one_that_is_out_of_reach(crawled: Crawls) -> None:
    """Every page comes without a retry being spent on the proxies; the site's slots and its pace stay as they were."""
    together: list[int] = []

    async def hesitate(request: web.BaseRequest) -> web.Response:
        together.append(sluggish.inside)
        waited = asyncio.Event()
        asyncio.get_running_loop().call_later(0.6, waited.set)
        await waited.wait()
        return web.Response(text="page", content_type="text/html")

    urls = [f"http://site.invalid/{number}" for number in range(40)]
    spider = type("Many", (Private,), {"name": "many", "start_urls": urls})
    with unreachable() as port:
        async with Proxy() as good, Site({"*": hesitate}) as sluggish:
            urls = [f"http://127.0.0.1:{port}", good.url(), sluggish.url()]
            settings = {"download.connect_timeout": 0.2, "download.retries": 0, "proxies.urls": urls}
            result = await crawled(spider, NO_ROBOTS | settings)
    assert (result.stats["pages"], result.stats["errors"]) == (40, 0)
    assert len(good.asked) + len(together) == 40
    assert max(together[8:]) == 8


@in_loop
async def test_one_proxy_wins_over_the_pool(crawled: Crawls) -> None:
    """With download.proxy, and with a request's own proxy before it, the pool is not asked."""

    class Two(Private):
        name = "two"

        async def start(self) -> Any:
            yield Request("http://site.invalid/1")
            yield Request("http://site.invalid/2", proxy=self.own)

    async with Proxy() as pooled, Proxy() as one, Proxy() as own:
        Two.own = own.url()
        settings = {**NO_ROBOTS, "proxies.urls": [pooled.url()], "download.proxy": one.url()}
        await crawled(Two, settings)
        assert [len(each.asked) for each in (pooled, one, own)] == [0, 1, 1]
        del settings["download.proxy"]
        await crawled(Two, settings)
        assert [len(each.asked) for each in (pooled, one, own)] == [1, 1, 2]


@in_loop
async def test_robots_goes_the_way_of_the_request(crawled: Crawls) -> None:
    """By its own proxy: the site sees nobody else. One that is down costs the requests that name it, and no others."""
    failed: dict[str, str] = {}

    class Some(Private):
        name = "some"

        async def start(self) -> Any:
            for number in range(6):
                proxy = [dead, good.url(""), other.url("")][number % 3]
                yield Request(f"http://site.invalid/{number}", proxy=proxy, errback=self.failed)

        def failed(self, failure: Failure) -> None:
            failed[failure.request.url[-1]] = type(failure.error).__name__

    async with Proxy() as gone:
        dead = gone.url("")
    async with Proxy() as good, Proxy() as other:
        result = await crawled(Some, {"download.retries": 0})
    assert failed == {"0": "ProxyError", "3": "ProxyError"}
    assert (result.stats["pages"], len(good.asked), len(other.asked)) == (4, 2, 2)
    assert (len(good.asked_robots), len(other.asked_robots)) == (1, 0)


@in_loop
async def test_robots_is_fetched_as_the_request_is(crawled: Crawls) -> None:
    """By the downloader that it names: here a site that says HTTP/1.2, which httpx takes and aiohttp does not."""
    async with RawServer(b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n") as server:

        class One(Private):
            name = "one"

            async def start(self) -> Any:
                yield Request(server.url(), downloader="httpx")

        result = await crawled(One, {"download.retries": 0})
    assert (result.stats["pages"], result.stats["errors"], server.connections) == (1, 0, 2)


@in_loop
async def test_a_proxys_password_is_in_no_error(crawled: Crawls) -> None:
    """A tunnel that is refused fails with the status, and what is kept and told of it has no credentials."""
    refused = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(refused) as proxy:
        url = proxy.url("").replace("://", "://u:hush@")

        class Told(Private):
            name = "told"

            async def start(self) -> Any:
                yield Request("https://site.invalid/", errback=self.failed)

            def failed(self, failure: Failure) -> Any:
                yield {"error": str(failure.error), "status": failure.error.status}

        result = await crawled(Told, {**NO_ROBOTS, "download.proxy": url, "download.retries": 0})
    assert result.items[0]["status"] == 407
    assert "hush" not in result.items[0]["error"]
