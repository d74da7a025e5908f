"""httpbin, the test site of the requests library, crawled: redirects, cookies, logins, encodings, delays, statuses."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import Crawls
from servers import in_loop
from werkzeug.serving import WSGIRequestHandler, make_server

from scraper import Request, Response, Spider

FAST = {"politeness.robots": False, "politeness.adaptive": False, "download.retries": 1}


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(scope="module")
def httpbin() -> Iterator[str]:
    """httpbin on a free port; its address."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from httpbin import app

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


async def answers(crawled: Crawls, *requests: Request, **settings: Any) -> dict[str, dict[str, Any]]:
    """Crawl these; return for each path that was asked for what came of it."""

    class Binned(Spider):
        name = "binned"

        async def start(self) -> Any:
            for request in requests:
                yield request.replace(errback="failed", meta={"asked": request.url.split("/", 3)[3]})

        def parse(self, response: Response) -> Any:
            kind = response.headers.get("Content-Type", "")
            return {
                **response.meta,
                "url": response.url,
                "size": len(response.body),
                "text": response.text,
                "json": response.json() if "json" in kind and response.body.count(b"\n{") == 0 else None,
                "hops": len(response.request.redirects),
            }

        def failed(self, failure: Any) -> Any:
            return {**failure.request.meta, "error": type(failure.error).__name__, "tries": failure.request.retries}

    result = await crawled(Binned, {**FAST, **settings})
    return {item["asked"]: item for item in result.items}


@in_loop
async def test_encodings(crawled: Crawls, httpbin: str) -> None:
    """gzip, deflate and brotli come out as they went in; UTF-8 is read as such."""
    paths = (
        "gzip",
        "deflate",
        "brotli",
        "encoding/utf8",
        "image/png",
        "bytes/1000",
        "stream-bytes/5000",
        "html",
        "xml",
    )
    found = await answers(crawled, *[Request(f"{httpbin}/{path}") for path in paths])
    assert found["gzip"]["json"]["gzipped"]
    assert found["deflate"]["json"]["deflated"]
    assert found["brotli"]["json"]["brotli"]
    assert "∮ E⋅da = Q" in found["encoding/utf8"]["text"]
    assert found["image/png"]["size"] == 8090
    assert (found["bytes/1000"]["size"], found["stream-bytes/5000"]["size"]) == (1000, 5000)
    assert "Herman Melville" in found["html"]["text"]
    assert "Yours Truly" in found["xml"]["text"]


@in_loop
async def test_redirects(crawled: Crawls, httpbin: str) -> None:
    """Relative and absolute chains arrive; one that is too long does not."""
    paths = ("redirect/5", "relative-redirect/5", "absolute-redirect/5", "redirect-to?url=/get&status_code=307")
    for path, hops in zip(paths, (5, 5, 5, 1), strict=True):
        found = await answers(crawled, Request(f"{httpbin}/{path}"))
        assert (found[path]["hops"], found[path]["url"]) == (hops, f"{httpbin}/get")
    found = await answers(crawled, Request(f"{httpbin}/redirect/21"))
    assert found["redirect/21"]["error"] == "TooManyRedirects"


@in_loop
async def test_cookies(crawled: Crawls, httpbin: str) -> None:
    """A cookie set on the way of a redirect is sent to its target; a request's own is sent once."""
    found = await answers(crawled, Request(f"{httpbin}/cookies/set?a=1&b=2"))
    assert next(iter(found.values()))["json"] == {"cookies": {"a": "1", "b": "2"}}
    found = await answers(crawled, Request(f"{httpbin}/cookies", cookies={"mine": "x"}))
    assert found["cookies"]["json"] == {"cookies": {"mine": "x"}}


@in_loop
async def test_logins(crawled: Crawls, httpbin: str) -> None:
    """Basic and bearer credentials in headers are sent as they are; without them there is a 401, not tried again."""
    found = await answers(
        crawled,
        Request(f"{httpbin}/basic-auth/me/secret", headers={"Authorization": "Basic bWU6c2VjcmV0"}),
        Request(f"{httpbin}/basic-auth/you/secret"),
        Request(f"{httpbin}/bearer", headers={"Authorization": "Bearer token"}),
    )
    assert found["basic-auth/me/secret"]["json"]["user"] == "me"
    assert (found["basic-auth/you/secret"]["error"], found["basic-auth/you/secret"]["tries"]) == ("HttpError", 0)
    assert found["bearer"]["json"]["token"] == "token"


@in_loop
async def test_methods_forms_and_headers(crawled: Crawls, httpbin: str) -> None:
    """Forms, JSON and headers arrive as they were given."""
    found = await answers(
        crawled,
        Request(f"{httpbin}/post", form={"a": "ü&="}),
        Request(f"{httpbin}/put", method="PUT", json={"b": [1, None]}),
        Request(f"{httpbin}/headers", headers={"X-Mine": "7"}),
        Request(f"{httpbin}/user-agent"),
    )
    assert found["post"]["json"]["form"] == {"a": "ü&="}
    assert found["put"]["json"]["json"] == {"b": [1, None]}
    assert found["headers"]["json"]["headers"]["X-Mine"] == "7"
    assert found["user-agent"]["json"]["user-agent"].startswith("scraper/")


@in_loop
async def test_statuses(crawled: Crawls, httpbin: str) -> None:
    """Errors are HttpErrors, those that may pass after another try; 204 is a page without a body."""
    codes = (204, 400, 403, 404, 410, 418, 500, 503)
    found = await answers(crawled, *[Request(f"{httpbin}/status/{code}") for code in codes])
    assert found["status/204"]["size"] == 0
    assert {code: found[f"status/{code}"]["tries"] for code in codes[1:]} == {
        code: int(code >= 500) for code in codes[1:]
    }


@in_loop
async def test_slow_answers(crawled: Crawls, httpbin: str) -> None:
    """A body that drips within the timeout is whole; one that is late is a FetchTimeout, other pages go on."""
    paths = ("drip?duration=0.3&numbytes=5&delay=0", "stream/5", "range/1000")
    late = Request(f"{httpbin}/delay/3", timeout=0.3)
    found = await answers(crawled, late, *[Request(f"{httpbin}/{path}") for path in paths], **{"download.retries": 0})
    assert [found[path]["size"] for path in (paths[0], paths[2])] == [5, 1000]
    assert len(found["stream/5"]["text"].splitlines()) == 5
    assert found["delay/3"]["error"] == "FetchTimeout"


@in_loop
async def test_all_links_are_followed_once(crawled: Crawls, httpbin: str) -> None:
    """Thirty pages that all link to each other are each fetched once."""

    class Everything(Spider):
        name = "everything"
        start_urls = [f"{httpbin}/links/30/0"]

        def parse(self, response: Response) -> Any:
            yield {"url": response.url}
            yield from response.follow_all(css="a")

    result = await crawled(Everything, FAST)
    assert sorted(item["url"] for item in result.items) == sorted(f"{httpbin}/links/30/{n}" for n in range(30))
