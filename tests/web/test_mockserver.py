"""Scrapy's own mock server, from its source distribution, crawled: answers that drop, stop, hang and lie."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Crawls
from servers import in_loop

from scraper import Request, Response, Spider

FAST = {"politeness.robots": False, "politeness.adaptive": False, "download.retries": 0, "download.timeout": 0.5}
_SERVE = """
from tests.mockserver.http import Root
from tests.mockserver.http_base import main_factory
main_factory(Root, listen_https=False)()
"""


@pytest.fixture(scope="module")
def mockserver(scrapy_source: Path) -> Iterator[str]:
    """The mock server in a process of its own; its address."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-W", "ignore", "-c", _SERVE],
        cwd=scrapy_source,
        env={**os.environ, "PYTHONPATH": str(scrapy_source)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip().rstrip("/")
    process.terminate()
    process.communicate()


CASES: dict[str, Any] = {
    "text": b"Works",
    "html": b"<body><p class='one'>Works</p><p class='two'>World</p></body>",
    "chunked": b"chunked content\n",
    "redirect": b"Redirected here",
    "bad-header": "ProtocolError",  # a line without a colon: by RFC 9112 (section 5) no header, and it may hide one
    "nocontenttype": b"",
    "status?n=404": "HttpError",
    "status?n=503": "HttpError",
    "partial": "FetchTimeout",
    "drop": "Truncated",
    "drop?abort=1": "ConnectionLost",
    "broken": "Truncated",
    "broken-chunked": "Truncated",
    "wait": "FetchTimeout",
    "hang-after-headers": "FetchTimeout",
    "raw": "ProtocolError",
    "raw?raw=HTTP/1.1%20200%20OK%0D%0A": "ConnectionLost",
    "raw?raw=HTTP/1.1%20200%20OK%0AContent-Length:%202%0A%0Aok": b"ok",
    "duplicate-header": b"",
}


@in_loop
async def test_each_answer_has_its_outcome(crawled: Crawls, mockserver: str) -> None:
    """F10, F11, F12: each is a whole page or an error of its class, and none holds up the rest."""

    class Mocked(Spider):
        name = "mocked"

        async def start(self) -> Any:
            for path in CASES:
                yield Request(f"{mockserver}/{path}", errback="failed", meta={"path": path})

        def parse(self, response: Response) -> Any:
            return {"path": response.meta["path"], "got": response.body.decode()}

        def failed(self, failure: Any) -> Any:
            return {"path": failure.request.meta["path"], "got": type(failure.error).__name__}

    result = await crawled(Mocked, FAST)
    expected = {path: got.decode() if isinstance(got, bytes) else got for path, got in CASES.items()}
    assert {item["path"]: item["got"] for item in result.items} == expected


@in_loop
async def test_the_book_of_links(crawled: Crawls, mockserver: str) -> None:
    """Every page of a chain of links is fetched once; a chunked body of 1 MB is whole."""

    class Follow(Spider):
        name = "follow"
        start_urls = [
            f"{mockserver}/follow?total=50&show=5&order=desc&maxlatency=0.0",
            f"{mockserver}/largechunkedfile",
        ]

        def parse(self, response: Response) -> Any:
            yield {"url": response.url, "size": len(response.body)}
            yield from response.follow_all(css="a")

    result = await crawled(Follow, {**FAST, "download.timeout": 10})
    sizes = {item["url"]: item["size"] for item in result.items}
    assert len(sizes) == len(result.items) > 5
    assert sizes[f"{mockserver}/largechunkedfile"] == 1024 * 1024
