"""Which downloader fetches a request: its own, its host's, or the default one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from scraper.contracts import Downloader
from scraper.errors import FetchError, UsageError
from scraper.http import Request, Response


class Router:
    """Hands each request to a downloader by name. Implements ``contracts.Downloader``.

    ``make(name)`` makes one, when a request first asks for it (a UsageError is its word for what is not installed);
    ``default`` is made with ``open``. ``default_for(host)`` names the downloader of a host (a name, and its port where not
    the default), None the default one; without it no host is looked up.
    """

    def __init__(
        self,
        make: Callable[[str], Downloader],
        default: str,
        default_for: Callable[[str], str | None] | None = None,
    ) -> None:
        self._make = make
        self._default = default
        self._default_for = default_for
        self._opened: dict[str, Downloader] = {}
        self._fetch_by_default = self._elsewhere

    async def open(self) -> None:
        """Open the default one. Raises UsageError where it is not installed or cannot start."""
        self._fetch_by_default = (await self._get(self._default)).fetch

    def fetch(self, request: Request) -> Coroutine[Any, Any, Response]:
        """Fetch by the one whose turn it is; see ``contracts.Downloader``."""
        # No coroutine of its own: where there is no choice it costs two comparisons a page.
        if request.downloader is None and self._default_for is None:
            return self._fetch_by_default(request)
        return self._elsewhere(request)

    async def close(self) -> None:
        """Close all that were opened."""
        for downloader in self._opened.values():
            await downloader.close()

    async def _elsewhere(self, request: Request) -> Response:
        name = request.downloader
        if name is None and self._default_for is not None:
            name = self._default_for(request.host)
        name = name or self._default
        try:
            downloader = self._opened.get(name) or await self._get(name)
        except UsageError as error:
            raise FetchError(request.url, str(error)) from error
        return await downloader.fetch(request)

    async def _get(self, name: str) -> Downloader:
        downloader = self._make(name)
        await downloader.open()
        # Two requests may have come here at once where open() waits: the first one's stays.
        kept = self._opened.setdefault(name, downloader)
        if kept is not downloader:
            await downloader.close()
        return kept
