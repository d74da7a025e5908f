"""Keeps cookies over the run (RFC 6265), as a browser's session would."""

from __future__ import annotations

from collections.abc import Mapping
from http.cookies import CookieError
from tempfile import NamedTemporaryFile
from typing import Any

from aiohttp import CookieJar
from yarl import URL

from scraper.contracts import Handler
from scraper.http import Headers, Request, Response

_MAX_COOKIE_HEADER = 8192
_MAX_SET_COOKIES = 64


class Cookies:
    """One jar for the run. A request's own ``cookies`` are sent with it and win over the jar's."""

    def __init__(self) -> None:
        self._jar: CookieJar | None = None
        self._changed = False

    def changes(self) -> dict[str, Any]:
        """Return the jar, if it changed since the last call: see ``contracts.Stateful``."""
        if self._jar is None or not self._changed:
            return {}
        self._changed = False
        with NamedTemporaryFile("w+", prefix="cookies-") as file:
            self._jar.save(file.name)
            return {"cookies": file.read()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the jar of an earlier process."""
        if "cookies" in state:
            self._jar = _new_jar()
            with NamedTemporaryFile("w", prefix="cookies-") as file:
                file.write(state["cookies"])
                file.flush()
                self._jar.load(file.name)

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def cookies(request: Request) -> Response:
            if request.cookies or self._jar is not None:
                request = self._with_cookies(request)
            response = await handle(request)
            if "Set-Cookie" in response.headers:
                self._keep(response)
            return response

        return cookies

    def _with_cookies(self, request: Request) -> Request:
        pairs: dict[str, str] = {}
        if self._jar is not None:
            # Not coded_value, which quotes: browsers send "token==" back as it came.
            pairs = {name: morsel.value for name, morsel in self._jar.filter_cookies(URL(request.url)).items()}
        pairs.update(request.cookies or {})
        header = ""
        for name, value in pairs.items():
            longer = f"{header}; {name}={value}" if header else f"{name}={value}"
            if len(longer) <= _MAX_COOKIE_HEADER:
                header = longer
        if not header or (request.headers is not None and "Cookie" in request.headers):
            return request
        sent = request.replace()
        sent.headers = Headers(request.headers or {})
        sent.headers["Cookie"] = header
        return sent

    def _keep(self, response: Response) -> None:
        if self._jar is None:
            self._jar = _new_jar()
        headers = response.headers.getall("Set-Cookie")[:_MAX_SET_COOKIES]
        self._changed = True
        try:
            self._jar.update_cookies_from_headers(headers, URL(response.url))
        except (CookieError, ValueError):
            return


def _new_jar() -> CookieJar:
    """Make an empty jar; "unsafe" is aiohttp's word for cookies of hosts given by address."""
    return CookieJar(unsafe=True)
