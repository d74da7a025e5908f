"""The cache around a handler with a clock of our own, and in whole crawls against a site."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal

import pytest
from aiohttp import web

from scraper import Request, Response, Spider
from scraper.contracts import Again
from scraper.errors import BodyTooLarge, ConnectionLost, FetchError, SettingsError, UsageError
from scraper.http import Headers
from scraper.log import Log
from scraper.middlewares.cache import Cache
from scraper.stats import Stats
from tests.conftest import Crawls
from tests.servers import Site, in_loop, links

URL = "http://a/page"
CC = "Cache-Control"


class Origin:
    """A handler that gives the answers it is told, in turn, and a cache around it."""

    def __init__(self, folder: Path, mode: Literal["rfc9111", "everything"] = "rfc9111", **options: Any) -> None:
        self.now = 1_700_000_000.0
        self.stats = Stats()
        self.asked: list[Request] = []
        self.answers: list[tuple[int, Mapping[str, str], bytes] | Exception] = []
        made: dict[str, Any] = {"max_age_s": 0, "max_bytes": 2**30, "user_agent": "a", **options}
        self.cache = Cache(
            mode=mode, folder=folder, stats=self.stats, log=Log("warning"), clock=lambda: self.now, **made
        )
        self.handle = self.cache(self._answer)

    async def __aenter__(self) -> Origin:
        await self.cache.open(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cache.close(None)

    async def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, headers, body = answer
        dated = Headers({"Date": formatdate(self.now, usegmt=True), **headers})
        return Response(request.url, request=request, status=status, headers=dated, body=body, ip_address="192.0.2.1")

    async def get(self, *answers: tuple[int, Mapping[str, str], bytes] | Exception, **options: Any) -> Response:
        """Send a GET, or what ``options`` make of it, to which the origin would answer so."""
        self.answers = list(answers)
        return await self.handle(Request(URL, **options))


def played(test: Callable[[Origin], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
    """Make a test with an RFC 9111 cache a plain one."""

    @in_loop
    async def run(tmp_path: Path) -> None:
        async with Origin(tmp_path) as origin:
            await test(origin)

    run.__doc__ = test.__doc__
    return run


@played
async def test_a_fresh_answer_comes_from_the_disk(origin: Origin) -> None:
    """As it was, with its age; then the origin is asked again."""
    headers = {CC: "max-age=60", "X-Odd": "\udce9t\udce9"}
    first = await origin.get((200, headers, b"one"))
    origin.now += 59
    again = await origin.get()
    assert (first.from_cache, again.from_cache) == (False, True)
    assert (again.status, again.body, again.ip_address) == (200, b"one", "192.0.2.1")
    assert (again.headers["Age"], again.headers["X-Odd"]) == ("59", "\udce9t\udce9")
    origin.now += 1
    assert (await origin.get((200, headers, b"two"))).body == b"two"
    assert (await origin.get()).body == b"two"
    assert origin.stats.cache == {"hits": 2, "misses": 2}


@played
async def test_a_stored_answer_is_validated(origin: Origin) -> None:
    """A 304 gives the stored body with the new headers and status 200, and makes it fresh again."""
    await origin.get((200, {CC: "max-age=10", "ETag": '"1"'}, b"one"))
    origin.now += 11
    fresh = await origin.get((304, {CC: "max-age=50", "ETag": '"1"', "X": "new"}, b""), headers={"X-Own": "1"})
    assert (fresh.status, fresh.body, fresh.headers["X"], fresh.from_cache) == (200, b"one", "new", True)
    assert dict(origin.asked[-1].headers or {}) == {"X-Own": "1", "If-None-Match": '"1"'}
    origin.now += 49
    assert (await origin.get()).headers["X"] == "new"
    assert origin.stats.cache == {"misses": 1, "revalidated": 1, "hits": 1}


@played
async def test_a_validation_with_a_new_answer(origin: Origin) -> None:
    """A 200 takes the stored one's place, and is no answer from the cache."""
    await origin.get((200, {"ETag": '"1"'}, b"one"))
    changed = await origin.get((200, {"ETag": '"2"'}, b"two"))
    assert (changed.body, changed.from_cache) == (b"two", False)
    assert (await origin.get((304, {}, b""))).body == b"two"


@played
async def test_cookies_of_a_304(origin: Origin) -> None:
    """Set-Cookie passes once, when the server says it, and is not played back."""
    await origin.get((200, {"ETag": '"1"', CC: "max-age=9", "Set-Cookie": "a=1"}, b"one"))
    assert "Set-Cookie" not in (await origin.get()).headers
    origin.now += 10
    assert (await origin.get((304, {"Set-Cookie": "a=2"}, b""))).headers["Set-Cookie"] == "a=2"
    assert "Set-Cookie" not in (await origin.get()).headers


@played
async def test_a_304_of_another_response_asks_anew(origin: Origin) -> None:
    """The stored one is forgotten, and a plain request goes through the frontier."""
    await origin.get((200, {"ETag": '"1"'}, b"one"))
    with pytest.raises(Again) as caught:
        await origin.get((304, {"ETag": '"2"'}, b""))
    assert (caught.value.reason, caught.value.request.headers, caught.value.request.retries) == ("retry", None, 1)
    assert (await origin.get((200, {"ETag": '"2"'}, b"two"))).body == b"two"
    assert origin.asked[-1].headers is None


@played
async def test_a_retry_from_within_is_not_conditional(origin: Origin) -> None:
    """What a part inside puts in the request's place comes by the cache once more, without its headers."""
    await origin.get((200, {"ETag": '"1"'}, b"one"))
    answered = Request(URL, headers={"X-Own": "1", "If-None-Match": '"1"'})
    with pytest.raises(Again) as caught:
        await origin.get(Again(answered, "retry"))
    assert dict(caught.value.request.headers or {}) == {"X-Own": "1"}


@pytest.mark.parametrize(
    ("trouble", "stands_in"),
    [
        ((503, {}, b"sorry"), True),
        (ConnectionLost(URL, "x"), True),
        (BodyTooLarge(URL, "x"), False),
        ((404, {}, b"gone"), False),
        ((501, {}, b"no"), False),
    ],
)
@in_loop
async def test_stale_if_error(tmp_path: Path, trouble: Any, stands_in: bool) -> None:
    """Where the server cannot answer, the stale answer does, if it says so; all else is passed on."""
    async with Origin(tmp_path) as origin:
        await origin.get((200, {CC: "max-age=1, stale-if-error=60"}, b"one"))
        origin.now += 5
        if isinstance(trouble, FetchError) and not stands_in:
            with pytest.raises(type(trouble)):
                await origin.get(trouble)
            return
        assert ((await origin.get(trouble)).body == b"one") is stands_in
        origin.now += 60
        if isinstance(trouble, FetchError):
            with pytest.raises(type(trouble)):
                await origin.get(trouble)
        else:
            assert (await origin.get(trouble)).body == trouble[2]


@played
async def test_a_failure_leaves_the_stored_answer(origin: Origin) -> None:
    """A 503 to a validation is passed on; the entry is validated the next time."""
    await origin.get((200, {"ETag": '"1"'}, b"one"))
    assert (await origin.get((503, {}, b""))).status == 503
    assert (await origin.get((304, {}, b""))).body == b"one"


@played
async def test_an_answer_that_must_not_be_stored_any_more(origin: Origin) -> None:
    """no-store, in a new answer or in a 304, takes the stored one away."""
    for answer in ((200, {CC: "no-store"}, b"two"), (304, {CC: "no-store"}, b"")):
        await origin.get((200, {"ETag": '"1"'}, b"one"))
        await origin.get(answer)
        assert (await origin.get((200, {}, b"three"))).body == b"three"
        assert origin.asked[-1].headers is None


@played
async def test_requests_say_how_they_want_it(origin: Origin) -> None:
    """no-cache validates what is fresh; no-store neither takes from the disk nor puts there."""
    await origin.get((200, {CC: "max-age=60", "ETag": '"1"'}, b"one"))
    assert (await origin.get((304, {}, b""), headers={CC: "no-cache"})).from_cache
    assert (await origin.get((200, {CC: "max-age=60"}, b"two"), headers={CC: "no-store"})).body == b"two"
    assert (await origin.get()).body == b"one"
    assert len(origin.asked) == 3


@played
async def test_a_post_makes_the_page_invalid(origin: Origin) -> None:
    """After it has succeeded the page is asked for; a POST is never answered from the disk."""
    fresh = (200, {CC: "max-age=60"}, b"one")
    await origin.get(fresh)
    assert (await origin.get((500, {}, b"no"), method="POST")).body == b"no"
    assert (await origin.get()).from_cache
    assert not (await origin.get(fresh, method="POST")).from_cache
    assert not (await origin.get(fresh, method="POST")).from_cache
    assert not (await origin.get(fresh)).from_cache


@played
async def test_a_vary_that_is_no_text(origin: Origin) -> None:
    """Bytes that name no header keep a page out of the cache, and do not fail it."""
    for _ in range(2):
        response = await origin.get((200, {CC: "max-age=60", "Vary": "Accept, \udcff"}, b"page"))
        assert (response.body, response.from_cache) == (b"page", False)


@played
async def test_other_headers_another_answer(origin: Origin) -> None:
    """Vary and credentials keep one user's page from another; HEAD and GET have an answer each."""
    await origin.get((200, {CC: "max-age=60", "Vary": "Accept"}, b"html"), headers={"Accept": "html"})
    assert (await origin.get((200, {CC: "max-age=60", "Vary": "Accept"}, b"json"))).body == b"json"
    assert (await origin.get((200, {CC: "max-age=60"}, b"mine"), headers={"Authorization": "me"})).body == b"mine"
    assert (await origin.get(headers={"Authorization": "me"})).body == b"mine"
    assert (await origin.get((200, {CC: "max-age=60"}, b"yours"), headers={"Authorization": "you"})).body == b"yours"
    assert (await origin.get((200, {CC: "max-age=60"}, b""), method="HEAD")).body == b""
    assert (await origin.get(method="HEAD")).from_cache


@in_loop
async def test_everything_whatever_the_server_says(tmp_path: Path) -> None:
    """For development: no-store, cookies and POST too, for as long as set; the modes have a file each."""
    async with Origin(tmp_path, "everything", max_age_s=60) as origin:
        await origin.get((200, {CC: "no-store", "Set-Cookie": "a=1"}, b"one"), form={"a": 1})
        assert (await origin.get(form={"a": 1})).headers["Set-Cookie"] == "a=1"
        assert (await origin.get((200, {}, b"two"), form={"a": 2})).body == b"two"
        assert (await origin.get((503, {}, b""))).status == 503
        assert (await origin.get((200, {}, b"three"))).body == b"three"
        assert (await origin.get((200, {}, b"four"), headers={CC: "no-cache"})).body == b"four"
        assert (await origin.get()).body == b"four"
        origin.now += 61
        assert (await origin.get((200, {}, b"five"))).body == b"five"
    async with Origin(tmp_path) as origin:
        assert (await origin.get((200, {}, b"six"))).body == b"six"


@in_loop
async def test_an_unreadable_entry_is_fetched_anew(tmp_path: Path) -> None:
    """What decodes to no entry is dropped, without a word."""
    async with Origin(tmp_path) as origin:
        await origin.get((200, {CC: "max-age=60"}, b"one"))
    store = origin.cache._store
    store.open()
    key = origin.cache._policy.key(Request(URL))
    assert key is not None
    for junk in (b"", b"\x93\x01", b"\xff" * 50):
        store.put(key, junk)
        store.close()
        async with Origin(tmp_path) as origin:
            assert (await origin.get((200, {CC: "max-age=60"}, b"two"))).body == b"two"
            assert (await origin.get()).body == b"two"
        store.open()
    store.close()


@in_loop
async def test_a_full_disk_costs_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be stored is given on, with one warning for all; what is stored goes on answering."""
    async with Origin(tmp_path) as origin:
        await origin.get((200, {CC: "max-age=60"}, b"one"))
        file = origin.cache._store._connection
        assert file is not None
        file.execute("PRAGMA max_page_count = 1")  # SQLite's way to be full: at the size it has
        for _ in range(2):
            large = (200, {CC: "max-age=60"}, os.urandom(50_000))
            assert (await origin.get(large, headers={CC: "no-cache"})).body == large[2]
        assert (await origin.get()).body == b"one"
    assert capsys.readouterr().err.count("the cache cannot be used") == 1


@in_loop
async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """Before any request, one line that names the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot use .*file as cache\.dir"):
        async with Origin(tmp_path / "file"):
            pass


class Shop(Spider):
    name = "shop"
    custom_settings = {"cache.mode": "everything"}

    def parse(self, response: Response) -> Any:
        yield {"path": response.url.rpartition("/")[2], "from_cache": response.from_cache, "text": response.text}
        yield from response.follow_all(css="a")


def page(text: str, **headers: str) -> Callable[[web.BaseRequest], web.Response]:
    """A compressed page with headers, that knows a 304."""

    def answer(request: web.BaseRequest) -> web.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if "ETag" in given and request.headers.get("If-None-Match") == given["ETag"]:
            return web.Response(status=304, headers=given)
        made = web.Response(text=text, content_type="text/html", headers=given)
        made.enable_compression(web.ContentCoding.gzip)
        return made

    return answer


@in_loop
async def test_the_second_crawl_asks_nothing(crawled: Crawls, empty_folder: Path) -> None:
    """With "everything": no page, no redirect, no robots.txt; the items are the same, cookies and codings too."""
    pages: dict[str, Any] = {
        "/": page(links(["/a", "/b", "/gone", "/old"]), Set_Cookie="s=1", Cache_Control="no-store"),
        "/a": page("käse", Vary="Cookie"),
        "/b": page("b"),
        "/old": lambda request: web.Response(status=301, headers={"Location": "/new"}),
        "/new": lambda request: web.Response(text=request.headers.get("Cookie", "none"), content_type="text/html"),
    }
    async with Site(pages, robots="User-agent: *\nDisallow: /private") as site:
        Shop.start_urls = [site.url("/")]
        first = await crawled(Shop)
        asked = len(site.asked) + len(site.asked_robots)
        second = await crawled(Shop)
        assert len(site.asked) + len(site.asked_robots) == asked
    by_path = [{item["path"]: item["text"] for item in result.items} for result in (first, second)]
    assert by_path[0] == by_path[1]
    assert by_path[0]["a"] == "käse"
    assert by_path[0]["new"] == "s=1"
    assert {item["from_cache"] for item in first.items} == {False}
    assert {item["from_cache"] for item in second.items} == {True}
    assert first.stats["cache"] == {"misses": asked}
    assert second.stats["cache"] == {"hits": asked}
    assert second.stats["error_classes"] == first.stats["error_classes"] == {"HttpError": 1}
    assert sorted(os.listdir(empty_folder / ".scrape" / "cache")) == ["everything.1.db", "everything.lock"]


@in_loop
async def test_what_is_in_the_cache_waits_for_no_delay(crawled: Crawls) -> None:
    """A page, a redirect and a robots.txt that are there do not have the next one wait; what is fetched keeps its distance."""
    pages: dict[str, Any] = {
        "/": page(links(["/old", *[f"/{number}" for number in range(6)]]), Cache_Control="max-age=60"),
        "/old": lambda _: web.Response(status=301, headers={"Location": "/new", "Cache-Control": "max-age=60"}),
        "/0": page("changes", ETag='"0"', Cache_Control="no-cache"),
        "/1": page("is new", Cache_Control="no-store"),
        "*": page("stays", Cache_Control="max-age=60"),
    }
    async with Site(pages, robots=page("", Cache_Control="max-age=60")) as site:
        Shop.start_urls = [site.url("/")]
        settings = {"cache.mode": "rfc9111"}
        await crawled(Shop, settings)
        asked = len(site.asked)
        began = time.monotonic()
        second = await crawled(Shop, settings | {"politeness.delay": 0.5})
        elapsed = time.monotonic() - began
    assert second.stats["pages"] == 8
    assert sorted(site.paths[asked:]) == ["/0", "/1"]
    earlier, later = (each.at for each in site.asked[asked:])
    assert later - earlier >= 0.5 - 0.015
    assert elapsed < 1.5


@in_loop
async def test_the_second_crawl_asks_whether_it_changed(crawled: Crawls) -> None:
    """With "rfc9111": nothing for what is fresh, a conditional request for what has a tag, all else anew."""
    pages: dict[str, Any] = {
        "/": page(links(["/fresh", "/tagged", "/plain"]), ETag='"1"', Cache_Control="no-cache"),
        "/fresh": page("fresh", Cache_Control="max-age=600"),
        "/tagged": page("tagged", ETag='"2"'),
        "/plain": page("plain"),
    }
    settings = {"cache.mode": "rfc9111", "politeness.robots": False}
    async with Site(pages) as site:
        Shop.start_urls = [site.url("/")]
        await crawled(Shop, settings)
        site.asked.clear()
        second = await crawled(Shop, settings)
        tags = {each.path: each.headers.get("If-None-Match") for each in site.asked}
    assert tags == {"/": '"1"', "/tagged": '"2"', "/plain": None}
    assert {item["path"]: item["from_cache"] for item in second.items} == {
        "": True,
        "fresh": True,
        "tagged": True,
        "plain": False,
    }
    assert second.stats["statuses"] == {"200": 4}
    assert second.stats["cache"] == {"hits": 1, "misses": 1, "revalidated": 2}


@in_loop
async def test_a_304_that_brings_a_body(crawled: Crawls) -> None:
    """What it brings is none of the page, which comes from the cache."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status, body = (b"304 Not Modified", b"other") if b"If-None-Match" in head else (b"200 OK", b"<p>page")
        writer.write(
            b'HTTP/1.1 %b\r\nETag: "1"\r\nCache-Control: no-cache\r\nContent-Length: %d\r\n\r\n%b'
            % (status, len(body), body)
        )
        writer.close()

    settings = {"cache.mode": "rfc9111", "politeness.robots": False}
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        Shop.start_urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"]
        first, second = await crawled(Shop, settings), await crawled(Shop, settings)
    assert [item["text"] for item in (*first.items, *second.items)] == ["<p>page", "<p>page"]
    assert second.stats["cache"] == {"revalidated": 1}


@in_loop
async def test_the_settings_of_the_cache(crawled: Crawls, empty_folder: Path) -> None:
    """dir and max_age are kept to; what is too old is asked for again."""
    settings = {"cache.dir": "kept/here", "cache.max_age": 1e-6, "politeness.robots": False}
    async with Site({"/": "page"}) as site:
        Shop.start_urls = [site.url("/")]
        await crawled(Shop, settings)
        await crawled(Shop, settings)
        assert site.paths == ["/", "/"]
        assert (await crawled(Shop, {**settings, "cache.max_age": 600})).stats["cache"] == {"hits": 1}
    assert (empty_folder / "kept" / "here" / "everything.1.db").exists()


@in_loop
async def test_two_crawls_share_a_cache(crawled: Crawls) -> None:
    """At once, in one folder: both end well, and a third finds everything."""
    paths = [f"/{number}" for number in range(40)]
    async with Site({"/": links(paths), "*": "page"}) as site:
        Shop.start_urls = [site.url("/")]
        results = await asyncio.gather(crawled(Shop), crawled(Shop))
        asked = len(site.asked)
        third = await crawled(Shop)
        assert len(site.asked) == asked
    assert [len(result.items) for result in (*results, third)] == [41, 41, 41]


@in_loop
async def test_a_disk_that_fails_costs_no_page(crawled: Crawls, empty_folder: Path) -> None:
    """The files are filled with junk in mid-crawl: the crawl goes on without a cache."""
    folder = empty_folder / ".scrape" / "cache"

    class Tears(Shop):
        name = "tears"

        def parse(self, response: Response) -> Any:
            # Not the -shm file: processes map it, and cutting off a mapped file kills them, whatever their program.
            for path in (*folder.glob("*.db"), *folder.glob("*.db-wal")):
                path.write_bytes(b"junk" * 5000)
            yield from super().parse(response)

    async with Site({"/": links(["/1", "/2", "/3"]), "*": "page"}) as site:
        Tears.start_urls = [site.url("/")]
        result = await crawled(Tears)
    assert (len(result.items), result.stats["errors"]) == (4, 0)


@in_loop
async def test_off_is_not_there(crawled: Crawls, empty_folder: Path) -> None:
    """By default no cache is built, and no folder made."""
    async with Site({"/": page("x", Cache_Control="max-age=600")}) as site:
        Shop.start_urls = [site.url("/")]
        crawler = crawled.make(Shop, {"cache.mode": "off"})
        assert not any(isinstance(part, Cache) for part in crawler._middlewares)
        result = await crawled(crawler)
    assert result.stats["cache"] == {}
    assert not (empty_folder / ".scrape").exists()


def test_an_order_without_the_cache(crawled: Crawls) -> None:
    """A mode that nothing would carry out is an error, said before any request."""
    with pytest.raises(SettingsError, match=r'middlewares\.order lacks "cache", which the settings of'):
        crawled.make(Shop, {"middlewares.order": ["retry", "decompress"]})
