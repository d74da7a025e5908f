"""Which downloader fetches what, alone and in a crawl."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from conftest import Crawls
from servers import Site, in_loop

from scraper import Request, Response, Spider
from scraper.downloaders.router import Router
from scraper.errors import FetchError, UsageError


class Fake:
    """A downloader that tells who it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "new"

    async def open(self) -> None:
        """Open."""
        self.state = "open"

    async def fetch(self, request: Request) -> Response:
        """Answer with the name."""
        assert self.state == "open"
        return Response(request.url, request=request, body=self.name.encode())

    async def close(self) -> None:
        """Close."""
        self.state = "closed"


class Makes:
    """Makes fakes and keeps them."""

    def __init__(self) -> None:
        self.made: list[Fake] = []

    def __call__(self, name: str) -> Any:
        if name == "missing":
            raise UsageError("not installed: pip install it")
        self.made.append(Fake(name))
        return self.made[-1]


@in_loop
async def test_the_requests_own_then_the_hosts_then_the_default() -> None:
    """Each downloader is made when first used, opened once, and closed at the end."""
    makes = Makes()
    router = Router(makes, "a", {"h:8080": "b"}.get)
    await router.open()
    assert [each.name for each in makes.made] == ["a"]
    urls = [
        ("http://x/", None),
        ("http://h:8080/", None),
        ("http://h:8080/", "a"),
        ("http://x/", "c"),
        ("http://x/", "c"),
    ]
    bodies = [(await router.fetch(Request(url, downloader=name))).body for url, name in urls]
    assert bodies == [b"a", b"b", b"a", b"c", b"c"]
    await router.close()
    assert [(each.name, each.state) for each in makes.made] == [("a", "closed"), ("b", "closed"), ("c", "closed")]


@in_loop
async def test_one_that_is_not_installed() -> None:
    """As the default it is a UsageError at the start; for one request it is that request's error."""
    with pytest.raises(UsageError, match="pip install it"):
        await Router(Makes(), "missing").open()
    router = Router(Makes(), "a")
    await router.open()
    with pytest.raises(FetchError, match=r"pip install it: http://x/"):
        await router.fetch(Request("http://x/", downloader="missing"))


def test_without_httpx_one_line_says_what_to_install() -> None:
    """No traceback of imports: the extra's name."""
    code = (
        "import sys; sys.modules['h2'] = None\n"
        "from scraper import registry\n"
        "try: registry.load(registry.DOWNLOADERS['httpx'])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "UsageError the downloader httpx is not installed: pip install 'scraper[http2]'"


@pytest.mark.parametrize("default", ["aiohttp", "httpx"])
@in_loop
async def test_a_crawl_with_both(crawled: Crawls, default: str) -> None:
    """download.downloader is the default, a request may name another; both keep to the guard's seeds."""
    async with Site({"*": "page"}) as site:

        class Both(Spider):
            name = "both"

            async def start(self) -> Any:
                for n, name in enumerate((None, "aiohttp", "httpx")):
                    yield Request(site.url(f"/{n}"), downloader=name)

            def parse(self, response: Response) -> Any:
                yield {"by": type(response.headers).__name__}

        result = await crawled(Both, {"download.downloader": default})
    assert sorted(site.paths) == ["/0", "/1", "/2"]
    kinds = sorted(item["by"] for item in result.items)
    ours, theirs = "CIMultiDict", "CIMultiDictProxy"  # what the two give as headers
    assert kinds == sorted([ours, theirs, theirs if default == "aiohttp" else ours])
