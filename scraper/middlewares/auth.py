"""Logs in where the settings say so: basic (RFC 7617) and bearer (RFC 6750) credentials, each bound to one origin."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from scraper.contracts import Handler
from scraper.http import Request, Response


class Auth:
    """Adds the Authorization header of the request's origin, unless the request or its URL brings credentials itself.

    ``headers`` has the values by origin, such as ``https://example.com``. It stands inside redirect and retry, so that
    only what is sent has them: never the request that is kept, logged, or given to the spider.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        def auth(request: Request) -> Coroutine[Any, Any, Response]:
            value = self._headers.get(request.origin)
            if value is None or (request.headers is not None and "Authorization" in request.headers):
                return handle(request)
            if not request.url.startswith(request.origin):
                return handle(request)  # a name and password in the URL
            return handle(request.complete({"Authorization": value}))

        return auth
