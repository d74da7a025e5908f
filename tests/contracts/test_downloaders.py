"""Every downloader passes the contract."""

from __future__ import annotations

from contextlib import suppress

import pytest

pytest.register_assert_rewrite("downloader")

from downloader import DownloaderContract, Make  # noqa: E402 - its assertions are to be rewritten first
from servers import WARM_UP, RawServer  # noqa: E402

from scraper import Request, Response  # noqa: E402
from scraper.downloaders.aiohttp import AiohttpDownloader  # noqa: E402
from scraper.downloaders.httpx import HttpxDownloader  # noqa: E402
from scraper.errors import FetchError  # noqa: E402


class TestAiohttpDownloader(DownloaderContract):
    """The default one."""

    @pytest.fixture
    def make(self) -> Make:
        """Make one."""
        return lambda guard, **options: AiohttpDownloader(guard=guard, **options)


class Warmed(AiohttpDownloader):
    """Asks each raw server for a good page first, so that what is tested goes over a connection that is open."""

    async def fetch(self, request: Request) -> Response:
        """Fetch twice."""
        port = int(request.host.rpartition(":")[2]) if request.host.startswith("127.0.0.1:") else 0
        if port in RawServer.warmable and request.proxy is None and self._proxy is None:
            RawServer.warmable.discard(port)
            with suppress(FetchError):
                await super().fetch(Request(request.origin + WARM_UP))
        return await super().fetch(request)


class TestAiohttpDownloaderOnAnOpenConnection(DownloaderContract):
    """Its short way, for a GET on a connection that was used before."""

    @pytest.fixture
    def make(self) -> Make:
        """Make one."""
        return lambda guard, **options: Warmed(guard=guard, **options)


class TestHttpxDownloader(DownloaderContract):
    """The one for HTTP/2; here the servers speak HTTP/1.1."""

    @pytest.fixture
    def make(self) -> Make:
        """Make one."""
        return lambda guard, **options: HttpxDownloader(guard=guard, **options)
