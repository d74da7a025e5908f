"""What may be stored, and when it may answer: HTTP caching (RFC 9111) for a private cache, and "cache everything".

Pure functions of requests, entries and the time, and two policies made of them. Times are seconds since 1970. hishel's
state machine was tried first: it knows no clock but the system's, and leaves Age and the request's directives out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

from multidict import CIMultiDict, CIMultiDictProxy

from scraper.http import Headers, Request, Response

HeadersLike = CIMultiDict[str] | CIMultiDictProxy[str]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_STORED = ("GET", "HEAD")
_CONDITIONAL = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range", "Range")
_CONNECTION = frozenset(  # section 3.1
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"}
    | {"proxy-authenticate", "proxy-authentication-info", "proxy-authorization"}
)
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "content-range", "content-type"})
_NEVER_STORED = frozenset({206, 304, 408, 425, 429})  # parts, and what says "later", as do 5xx: it would fail the retry
# RFC 9110 section 15.1, without 206
_HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
_KEPT_FOR_DEVELOPMENT = frozenset({404, 410})  # beside 2xx and 3xx; what else is an error may be gone with the next run
_HEURISTIC_SHARE, _MAX_HEURISTIC_S = 0.1, 86400.0
_MAX_SECONDS = 2**31  # RFC 9111 section 1.2.2
_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~\w-]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]*)))?', re.ASCII)
_NONE: Mapping[str, str | None] = {}


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored response, its body decoded. ``asked_at`` and ``came_at`` say when it was asked for and arrived.

    It answers requests whose headers named in ``selected_by`` give the same ``selection``: a digest, so that no
    credentials are stored.
    """

    status: int
    headers: Headers
    body: bytes
    asked_at: float
    came_at: float
    selected_by: tuple[str, ...] = ()
    selection: bytes = b""
    ip_address: str | None = None
    protocol: str = "HTTP/1.1"


class Policy(Protocol):
    """Decides for one mode of the cache."""

    def key(self, request: Request) -> bytes | None:
        """Return the name under which the request's answer is stored, or None where it passes the cache."""

    def outdated(self, request: Request, response: Response) -> Sequence[bytes]:
        """Return the keys of what an answer to a request that passed the cache makes invalid."""

    def selects(self, entry: Entry, request: Request) -> bool:
        """Say whether the entry is the one for this request's headers."""

    def is_fresh(self, entry: Entry, request: Request, now: float) -> bool:
        """Say whether the entry, which was selected, may answer the request without asking the server."""

    def entry(self, request: Request, response: Response, asked_at: float, came_at: float) -> Entry | None:
        """Return what to store of an answer, or None where it must or need not be stored."""


class Rfc9111:
    """A private cache by RFC 9111, of GET and HEAD. One answer is kept for each URL and method, as browsers do."""

    def __init__(self, user_agent: str) -> None:
        self._user_agent = user_agent

    def key(self, request: Request) -> bytes | None:
        """Pass over other methods, ``no-store``, and requests that are conditional or for a part by themselves."""
        if request.method not in _STORED or request.body or _goes_past(request):
            return None
        return _digest(request.method, request.url)

    def outdated(self, request: Request, response: Response) -> Sequence[bytes]:
        """Unsafe methods that succeeded, section 4.4."""
        if request.method in _SAFE or not 200 <= response.status < 400:
            return ()
        return [_digest(method, request.url) for method in _STORED]

    def selects(self, entry: Entry, request: Request) -> bool:
        """Say whether the entry is the one for this request's headers, section 4.1."""
        return self._selection(request, entry.selected_by) == entry.selection

    def is_fresh(self, entry: Entry, request: Request, now: float) -> bool:
        """Section 4.2, with what the request allows and demands, section 5.2.1."""
        given, wanted = directives(entry.headers), directives(request.headers)
        if "no-cache" in given or "no-cache" in wanted:
            return False
        lifetime_s, age_s = freshness_lifetime_s(entry), current_age_s(entry, now)
        if "max-age" in wanted and age_s > _seconds(wanted["max-age"]):
            return False
        if "min-fresh" in wanted:
            return lifetime_s - age_s >= _seconds(wanted["min-fresh"])
        if age_s < lifetime_s:
            return True
        if "max-stale" not in wanted or "must-revalidate" in given:
            return False
        allowed = wanted["max-stale"]
        return allowed is None or age_s - lifetime_s <= _seconds(allowed)

    def entry(self, request: Request, response: Response, asked_at: float, came_at: float) -> Entry | None:
        """Section 3; not what neither stays fresh nor can be validated, and not ``Vary: *``."""
        status, given = response.status, directives(response.headers)
        understood = status in _HEURISTIC
        if status in _NEVER_STORED or (status >= 500 and not understood):
            return None
        if "no-store" in given and not ("must-understand" in given and understood):
            return None
        if not understood and not ({"public", "private", "max-age"} & given.keys() or "Expires" in response.headers):
            return None
        varying = _listed(response.headers, "Vary")
        if "*" in varying or not all(map(str.isascii, varying)):  # bytes that are no text name no header either
            return None
        names = {"authorization", *varying} | ({"cookie"} if "private" in given else set())
        selected_by = tuple(sorted(names - {"accept-encoding"}))  # bodies are stored decoded
        entry = Entry(
            status,
            _without(response.headers, _CONNECTION | _listed(response.headers, "Connection") | {"set-cookie"}),
            response.body,
            asked_at,
            came_at,
            selected_by,
            self._selection(request, selected_by),
            response.ip_address,
            response.protocol,
        )
        return entry if freshness_lifetime_s(entry) > 0 or validators(entry) else None

    def _selection(self, request: Request, names: Sequence[str]) -> bytes:
        headers = request.headers if request.headers is not None else Headers()
        values = [name + ":" + ",".join(value.strip() for value in headers.getall(name, ())) for name in names]
        if "user-agent" in names and "User-Agent" not in headers:
            values.append(self._user_agent)  # the downloader sends it
        return _digest(*values)


class Everything:
    """For development: whatever succeeded answers, of every method, for ``max_age_s`` (0: for ever)."""

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s

    def key(self, request: Request) -> bytes | None:
        """Pass over ``no-store``, and requests that are conditional or for a part by themselves."""
        if _goes_past(request):
            return None
        authorization = request.headers.get("Authorization", "") if request.headers is not None else ""
        return _digest(request.method, request.url, authorization, request.body or b"")

    def outdated(self, request: Request, response: Response) -> Sequence[bytes]:
        """Nothing."""
        return ()

    def selects(self, entry: Entry, request: Request) -> bool:
        """Vary does not count."""
        return True

    def is_fresh(self, entry: Entry, request: Request, now: float) -> bool:
        """Until ``max_age_s``, unless the request says ``no-cache``."""
        if "no-cache" in directives(request.headers):
            return False
        return not self._max_age_s or current_age_s(entry, now) <= self._max_age_s

    def entry(self, request: Request, response: Response, asked_at: float, came_at: float) -> Entry | None:
        """Every success, redirect, 404 and 410."""
        status = response.status
        if status in _NEVER_STORED or (status >= 400 and status not in _KEPT_FOR_DEVELOPMENT):
            return None
        headers = _without(response.headers, _CONNECTION)
        return Entry(
            status,
            headers,
            response.body,
            asked_at,
            came_at,
            ip_address=response.ip_address,
            protocol=response.protocol,
        )


def freshness_lifetime_s(entry: Entry) -> float:
    """Return for how many seconds the response is fresh, section 4.2.1; heuristically at most a day, section 4.2.2."""
    headers = entry.headers
    given = directives(headers)
    if "max-age" in given:
        return _seconds(given["max-age"])
    date_s = _date_s(headers.get("Date"))
    began_s = entry.came_at if date_s is None else date_s
    if "Expires" in headers:
        expires_s = _date_s(headers["Expires"])
        return max(0.0, expires_s - began_s) if expires_s is not None else 0.0
    modified_s = _date_s(headers.get("Last-Modified"))
    if modified_s is None or not (entry.status in _HEURISTIC or "public" in given):
        return 0.0
    return min(max(0.0, (began_s - modified_s) * _HEURISTIC_SHARE), _MAX_HEURISTIC_S)


def current_age_s(entry: Entry, now: float) -> float:
    """Return the seconds since the origin server made or validated the response, section 4.2.3."""
    date_s = _date_s(entry.headers.get("Date"))
    apparent_s = max(0.0, entry.came_at - date_s) if date_s is not None else 0.0
    age = entry.headers.get("Age", "").strip()
    told_s = _seconds(age) + max(0.0, entry.came_at - entry.asked_at)
    return max(apparent_s, told_s) + max(0.0, now - entry.came_at)


def may_stand_in(entry: Entry, now: float) -> bool:
    """Say whether the stale entry may answer where the server cannot: ``stale-if-error``, RFC 5861 section 4."""
    given = directives(entry.headers)
    if "stale-if-error" not in given or "must-revalidate" in given or "no-cache" in given:
        return False
    return current_age_s(entry, now) - freshness_lifetime_s(entry) <= _seconds(given["stale-if-error"])


def validators(entry: Entry) -> dict[str, str]:
    """Return the headers that make a request conditional on the entry, section 4.3.1; empty where it has none."""
    found = {"If-None-Match": entry.headers.get("ETag"), "If-Modified-Since": entry.headers.get("Last-Modified")}
    return {name: value for name, value in found.items() if value and value.isascii() and value.isprintable()}


def freshened(entry: Entry, not_modified: Response, asked_at: float, came_at: float) -> Entry | None:
    """Return the entry with the headers of the 304, sections 3.2 and 4.3.4; None where that speaks of another response."""
    etag, stored = not_modified.headers.get("ETag"), entry.headers.get("ETag")
    if etag is not None and stored is not None and etag.removeprefix("W/") != stored.removeprefix("W/"):
        return None
    left_out = _CONNECTION | _OF_THE_BODY | _listed(not_modified.headers, "Connection") | {"set-cookie"}
    news = _without(not_modified.headers, left_out)
    # An Age or a Date of the stored response would count the time before the validation.
    headers = _without(entry.headers, {"age", "date"} | {name.lower() for name in news})
    headers.extend(news)
    return Entry(
        entry.status,
        headers,
        entry.body,
        asked_at,
        came_at,
        entry.selected_by,
        entry.selection,
        not_modified.ip_address,
        not_modified.protocol,
    )


def directives(headers: HeadersLike | None) -> Mapping[str, str | None]:
    """Return the Cache-Control directives, names in lower case; of one given twice, the first (section 4.2.1)."""
    if headers is None or "Cache-Control" not in headers:
        return _NONE
    return _directives(", ".join(headers.getall("Cache-Control")))


@lru_cache(maxsize=256)
def _directives(text: str) -> Mapping[str, str | None]:
    found: dict[str, str | None] = {}
    for name, quoted, plain in _DIRECTIVE.findall(text):
        found.setdefault(name.lower(), quoted or plain or None)
    return found


def _goes_past(request: Request) -> bool:
    headers = request.headers
    return headers is not None and ("no-store" in directives(headers) or any(name in headers for name in _CONDITIONAL))


def _listed(headers: HeadersLike, name: str) -> set[str]:
    return {part.strip().lower() for value in headers.getall(name, ()) for part in value.split(",") if part.strip()}


def _without(headers: HeadersLike, names: Set[str]) -> Headers:
    return Headers((name, value) for name, value in headers.items() if name.lower() not in names)


def _seconds(value: str | None) -> float:
    """Read delta-seconds (section 1.2.2); what is none counts as 0, which is stale."""
    return min(int(value[:11]), _MAX_SECONDS) if value and value.isascii() and value.isdigit() else 0


def _date_s(value: str | None) -> float | None:
    """Read an HTTP date in any of its three forms (RFC 9110 section 5.6.7); None where it is none."""
    try:
        parsed = parsedate_tz(value) if value else None
        return float(mktime_tz(parsed)) if parsed is not None else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _digest(*parts: str | bytes) -> bytes:
    state = blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8))
        state.update(data)
    return state.digest()
