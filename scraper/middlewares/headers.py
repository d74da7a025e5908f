"""Headers that every request has, unless it has its own of that name."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from scraper.contracts import Handler
from scraper.http import Request, Response


class DefaultHeaders:
    """Completes each request with ``headers``. It stands inside redirect and retry: each hop is completed anew."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        def complete(request: Request) -> Coroutine[Any, Any, Response]:
            return handle(request.complete(self._headers))

        return complete
