"""Follows HTTP redirects (RFC 9110 section 15.4), each hop through the frontier."""

from __future__ import annotations

from scraper.contracts import Again, Handler
from scraper.errors import InvalidURL, OutOfScope, TooManyRedirects
from scraper.http import Request, Response
from scraper.urls import join

STATUSES = frozenset({301, 302, 303, 307, 308})
_ROBOTS_REDIRECTS = 5
"""RFC 9309 section 2.3.1.2 asks for at least so many; what is behind more of them counts as no file."""
_OF_ONE_ORIGIN = ("Authorization", "Cookie", "Proxy-Authorization", "Host")
_BODY_HEADERS = ("Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Location")


class Redirect:
    """Sends the target of a redirect to the frontier in the request's place, up to ``max_redirects`` in a row.

    303, and 301 and 302 after a POST, go on as GET without a body; a change of origin drops credentials. ``wanted``
    statuses are given to the spider as they are. A robots.txt is followed five times, whatever the two say.
    """

    def __init__(self, max_redirects: int, wanted: frozenset[int] = frozenset()) -> None:
        self._max_redirects = max_redirects
        self._followed = STATUSES - wanted

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def redirect(request: Request) -> Response:
            response = await handle(request)
            status = response.status
            if (
                status in STATUSES
                and "Location" in response.headers
                and (status in self._followed or _seeks_robots(request))
            ):
                raise Again(self._target(request, response), "redirect", response=response)
            return response

        return redirect

    def _target(self, request: Request, response: Response) -> Request:
        most = _ROBOTS_REDIRECTS if _seeks_robots(request) else self._max_redirects
        if len(request.redirects) >= most:
            raise TooManyRedirects(request.url, f"more than {most} redirects (download.max_redirects)")
        location = response.headers["Location"]
        try:
            target = request.replace(join(request.url, location.strip()))
        except InvalidURL:
            raise OutOfScope(request.url, f"redirected to {location!r}, which is no http or https URL") from None
        target.redirects = (*request.redirects, request.url)
        target.retries = 0
        method = request.method
        if (response.status == 303 and method != "HEAD") or (response.status in (301, 302) and method == "POST"):
            target.method, target.body = "GET", None
            _drop(target, _BODY_HEADERS)
        if target.origin != request.origin:
            _drop(target, _OF_ONE_ORIGIN)
            target.cookies = None
        return target


def _seeks_robots(request: Request) -> bool:
    url = request.redirects[0] if request.redirects else request.url
    return url.endswith("/robots.txt") and url.count("/") == 3


def _drop(request: Request, names: tuple[str, ...]) -> None:
    if request.headers is not None:
        for name in names:
            request.headers.popall(name, None)
