"""Follows redirects, each hop through the frontier: those of HTTP (RFC 9110 section 15.4), and HTML's meta refresh.

A refresh is read as the HTML standard says (section 4.2.5.3), in the first bytes of a page with status 200 alone; what
stands in scripts and noscript, and what asks to wait for very long, is none.
"""

from __future__ import annotations

import re
from html import unescape

from scraper.contracts import Again, Handler
from scraper.errors import InvalidURL, OutOfScope, TooManyRedirects
from scraper.http import Request, Response
from scraper.urls import dedupe_key, join

STATUSES = frozenset({301, 302, 303, 307, 308})
_ROBOTS_REDIRECTS = 5
"""RFC 9309 section 2.3.1.2 asks for at least so many; what is behind more of them counts as no file."""
_OF_ONE_ORIGIN = ("Authorization", "Cookie", "Proxy-Authorization", "Host")
_BODY_HEADERS = ("Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Location")

MAX_REFRESH_S = 100
"""A refresh that is to come later than this is for a reader who stays."""
_HEAD_BYTES = 4096
_HTML = ("text/html", "application/xhtml+xml")
# Each alternative matches wherever it begins, to the end of the text if need be: so the search is linear (S17).
_TAGS = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|noscript|style|textarea|title)\b.*?(?:</\1|\Z)|<meta(?=[\s/])([^>]*)",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""(?<![\w-])([\w-]++)\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]++))""")
_STRAY = re.compile("[\udc80-\udcff]")  # a byte that is no UTF-8, as the downloaders decode it
_REFRESH = re.compile(
    r"""\s*([0-9]++|(?=\.))[0-9.]*+(?:\s*[;,]|\s)\s*(?:url\s*=\s*)?(?:"([^"]*)|'([^']*)|(.*))""", re.I | re.S
)


class Redirect:
    """Sends the target of a redirect to the frontier in the request's place, up to ``max_redirects`` in a row.

    303, 301 and 302 after a POST, and a refresh go on as GET without a body; a change of origin drops credentials.
    ``wanted`` statuses are given to the spider as they are. ``refresh`` says whether HTML may redirect too. A robots.txt is
    followed five times, whatever the settings say.
    """

    def __init__(self, max_redirects: int, wanted: frozenset[int] = frozenset(), *, refresh: bool = True) -> None:
        self._max_redirects = max_redirects
        self._followed = STATUSES - wanted
        self._refresh = refresh

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def redirect(request: Request) -> Response:
            response = await handle(request)
            status = response.status
            if status == 200:
                if self._refresh and _may_refresh(response.body):
                    self._refresh_by(request, response)
            elif (
                status in STATUSES
                and "Location" in response.headers
                and (status in self._followed or _seeks_robots(request))
            ):
                raise Again(self._target(request, response), "redirect", response=response)
            return response

        return redirect

    def _target(self, request: Request, response: Response) -> Request:
        self._count(request)
        location = response.headers["Location"]
        try:
            target = join(request.url, _escaped(location.strip()))
            as_get = (response.status == 303 and request.method != "HEAD") or (
                response.status in (301, 302) and request.method == "POST"
            )
            return _redirected(request, target, as_get)
        except InvalidURL:
            raise OutOfScope(request.url, f"redirected to {location!r}, which is no http or https URL") from None

    def _refresh_by(self, request: Request, response: Response) -> None:
        """Raise Again where the page sends its reader on; one that only reloads itself now and then is a page."""
        if request.url.endswith("/robots.txt"):
            return  # RFC 9309 knows the redirects of HTTP alone
        if response.headers.get("Content-Type", "text/html").partition(";")[0].strip().lower() not in _HTML:
            return
        found = _refresh_of(response.body[:_HEAD_BYTES].decode(response.encoding, "replace"))
        if found is None or found[0] >= MAX_REFRESH_S:
            return
        delay_s, href = found
        try:
            target = _redirected(request, response.urljoin(href), as_get=True)
        except InvalidURL:
            return
        if delay_s and dedupe_key(target.url) == dedupe_key(request.url):
            return
        self._count(request)
        raise Again(target, "redirect", float(delay_s), response)

    def _count(self, request: Request) -> None:
        most = _ROBOTS_REDIRECTS if _seeks_robots(request) else self._max_redirects
        if len(request.redirects) >= most:
            raise TooManyRedirects(request.url, f"more than {most} redirects (download.max_redirects)")


def _escaped(location: str) -> str:
    """Return a Location with its bytes that are no UTF-8 percent-encoded as they are: so browsers ask the server for them."""
    return _STRAY.sub(lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", location)


def _redirected(request: Request, url: str, as_get: bool) -> Request:
    """Return the request for where one was redirected to. Raises InvalidURL where that is no http(s) URL."""
    target = request.replace(url)
    target.redirects = (*request.redirects, request.url)
    target.retries = 0
    if as_get:
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


def _may_refresh(body: bytes) -> bool:
    """Whether "http-equiv" and "refresh" stand in the head, in lower or upper case as everybody writes them.

    To look for the one rare letter first takes 0.3 µs on a page without it, 3 µs on another.
    """
    for letter, letters in ((b"q", b"quiv"), (b"Q", b"QUIV"), (b"Q", b"Quiv")):
        if body.find(letter, 0, _HEAD_BYTES) >= 0 and body.find(letters, 0, _HEAD_BYTES) >= 0:
            head = body[:_HEAD_BYTES].lower()
            return b"http-equiv" in head and b"refresh" in head
    return False


def _refresh_of(head: str) -> tuple[int, str] | None:
    """Return the seconds and the URL of the first meta refresh that has one."""
    for tag in _TAGS.finditer(head):
        if tag[2] is None:
            continue
        attributes: dict[str, str] = {}
        for name, *values in _ATTRIBUTE.findall(tag[2]):
            attributes.setdefault(name.lower(), unescape("".join(values)))
        if attributes.get("http-equiv", "").strip().lower() != "refresh":
            continue
        found = _REFRESH.match(attributes.get("content", ""))
        href = (found[2] or found[3] or found[4] or "").strip() if found else ""
        if found and href:
            return int(found[1] or 0), href
    return None
