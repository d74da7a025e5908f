"""Every downloader passes the contract."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("downloader")

from downloader import DownloaderContract, Make  # noqa: E402 - its assertions are to be rewritten first

from scraper.downloaders.aiohttp import AiohttpDownloader  # noqa: E402
from scraper.downloaders.httpx import HttpxDownloader  # noqa: E402


class TestAiohttpDownloader(DownloaderContract):
    """The default one."""

    @pytest.fixture
    def make(self) -> Make:
        """Make one."""
        return lambda guard, **options: AiohttpDownloader(guard=guard, **options)


class TestHttpxDownloader(DownloaderContract):
    """The one for HTTP/2; here the servers speak HTTP/1.1."""

    @pytest.fixture
    def make(self) -> Make:
        """Make one."""
        return lambda guard, **options: HttpxDownloader(guard=guard, **options)
