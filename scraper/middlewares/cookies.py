"""Keeps cookies over the run, as a browser's session would: RFC 6265, and the name prefixes of RFC 6265bis.

HttpOnly and SameSite make no difference here: no script runs, and each request is asked for by the user's own spider.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from time import time
from typing import Any

import msgspec

from scraper.contracts import Handler
from scraper.errors import InvalidURL
from scraper.http import Request, Response
from scraper.urls import hostname_of, normalize

MAX_COOKIE = 4096
"""Characters of one cookie's name and value; larger ones are not kept (RFC 6265 section 6.1)."""
MAX_PER_DOMAIN = 50
"""Cookies of one domain; past it the one that was set first goes."""
MAX_PER_JAR = 3000
"""Cookies of one jar; past it those of the domain go that has set none for the longest time."""
MAX_JARS = 1000
"""Named jars; past it the one goes that was not used for the longest time."""

_MAX_COOKIE_HEADER = 8192
_MAX_SET_COOKIE = 8192  # characters of one header, the attributes with it
_MAX_SET_COOKIES = 300  # of one answer
_MAX_ATTRIBUTES = 32
_MAX_AGE_S = 400 * 86_400  # RFC 6265bis section 5.5
_PREFIX = "cookies/"

# What cannot be sent back, bytes that are no UTF-8 among it: aiohttp gives them as surrogates.
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_MAX_AGE = re.compile(r"-?[0-9]+\Z")
_DATE_TOKEN = re.compile(r"[^\x09\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])")
_DAY = re.compile(r"([0-9]{1,2})(?![0-9])")
_YEAR = re.compile(r"([0-9]{2,4})(?![0-9])")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


class Cookies:
    """Sends the cookies that sites set back to them. A request's own ``cookies`` go before, and are not kept.

    There is one jar, and a further one for each ``meta["cookiejar"]``; redirects and retries keep theirs. Without ``keep``
    what sites set is passed over. ``clock`` gives wall-clock seconds.
    """

    def __init__(self, *, keep: bool = True, clock: Callable[[], float] = time) -> None:
        self._keeps = keep
        self._clock = clock
        self._jars: OrderedDict[str, _Jar] = OrderedDict()
        self._changed: set[tuple[str, str]] = set()

    def changes(self) -> dict[str, Any]:
        """Return the cookies of each domain where they changed since the last call: see ``contracts.Stateful``."""
        if not self._changed:
            return {}
        changed, self._changed = self._changed, set()
        return {f"{_PREFIX}{domain}/{name}": self._saved(name, domain) for name, domain in changed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the jars of an earlier process."""
        for key, saved in state.items():
            if saved and key.startswith(_PREFIX):
                _, domain, name = key.split("/", 2)
                self._jar(name).load(domain, saved)

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""
        if not self._keeps:
            return lambda request: handle(_sent(request, ()) if request.cookies else request)

        async def cookies(request: Request) -> Response:
            name = request.meta.get("cookiejar") if request.has_data else None
            name = "" if name is None else str(name)
            jar = self._jars.get(name)
            if jar is not None:
                self._jars.move_to_end(name)
                request = _sent(request, jar.matching(request.url, self._clock()))
            elif request.cookies:
                request = _sent(request, ())
            response = await handle(request)
            if "Set-Cookie" in response.headers:
                await self._keep(name, response)
            return response

        return cookies

    async def _keep(self, name: str, response: Response) -> None:
        headers = [each for each in response.headers.getall("Set-Cookie") if len(each) <= _MAX_SET_COOKIE]
        headers = headers[:_MAX_SET_COOKIES]
        if any("domain" in header.lower() for header in headers):
            # The list takes about 130 ms to read, once: in a thread the other fetches go on meanwhile.
            await asyncio.to_thread(_public_suffixes)
        jar, host = self._jar(name), hostname_of(response.url)
        for header in headers:
            for domain in jar.store(header, response.url, host, self._clock()):
                self._changed.add((name, domain))

    def _jar(self, name: str) -> _Jar:
        jar = self._jars.get(name)
        if jar is None:
            jar = self._jars[name] = _Jar()
            if len(self._jars) > MAX_JARS:
                oldest = next(each for each in self._jars if each)
                self._changed.update((oldest, domain) for domain in self._jars.pop(oldest).domains)
        return jar

    def _saved(self, name: str, domain: str) -> list[Any] | None:
        jar = self._jars.get(name)
        kept = jar.domains.get(domain) if jar is not None else None
        return [msgspec.to_builtins(cookie) for cookie in kept.values()] if kept else None


class _Cookie(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one cookie; its domain is kept above it. ``expires`` is in wall-clock seconds, None: with the job."""

    name: str
    value: str
    path: str
    expires: float | None
    secure: bool
    host_only: bool


class _Jar:
    """Cookies by domain, then by name and path, in the order in which they were created.

    ``size`` is the number of all cookies; a domain without cookies is not there.
    """

    __slots__ = ("domains", "size")

    def __init__(self) -> None:
        self.domains: OrderedDict[str, dict[tuple[str, str], _Cookie]] = OrderedDict()
        self.size = 0

    def load(self, domain: str, saved: Iterable[Any]) -> None:
        """Take up what was saved of a domain; what is no cookie is passed over."""
        for each in saved:
            with suppress(msgspec.ValidationError):
                self._put(domain, msgspec.convert(each, _Cookie))

    def matching(self, url: str, now: float) -> list[_Cookie]:
        """Return the cookies to be sent to ``url``, longer paths first (RFC 6265 section 5.4)."""
        if not self.domains:
            return []
        host, secure, path = hostname_of(url), url.startswith("https:"), _path_of(url)
        found: list[_Cookie] = []
        for domain in _with_parents(host):
            found += [
                cookie
                for cookie in self.domains.get(domain, {}).values()
                if (not cookie.host_only or domain == host)
                and (secure or not cookie.secure)
                and (cookie.expires is None or cookie.expires > now)
                and _path_matches(path, cookie.path)
            ]
        if len(found) > 1:
            found.sort(key=lambda cookie: -len(cookie.path))
        return found

    def store(self, header: str, url: str, host: str, now: float) -> Iterator[str]:
        """Keep what a Set-Cookie header of an answer from ``url`` says (section 5.3); yield the domains that changed."""
        parsed = _parse(header, now)
        if parsed is None:
            return
        cookie, domain = parsed
        if domain and domain != host and (_is_address(host) or not host.endswith("." + domain)):
            return
        if domain and _public_suffixes()(domain) == domain:
            if domain != host:
                return
            domain = ""
        path = cookie.path or _default_path(url)
        if not _prefix_holds(cookie, bool(domain), url.startswith("https:")):
            return
        cookie = msgspec.structs.replace(cookie, path=path, host_only=not domain)
        yield from self._keep(domain or host, cookie, now)

    def _keep(self, domain: str, cookie: _Cookie, now: float) -> Iterator[str]:
        kept = self.domains.get(domain, {})
        key = cookie.name, cookie.path
        if cookie.expires is not None and cookie.expires <= now:
            if key in kept:
                self._drop(domain, key)
                yield domain
            return
        if kept.get(key) == cookie:
            return
        if key not in kept and len(kept) >= MAX_PER_DOMAIN:
            gone = next((old for old, each in kept.items() if each.expires is not None and each.expires <= now), None)
            self._drop(domain, gone or next(iter(kept)))
        self._put(domain, cookie)
        yield domain
        if self.size > MAX_PER_JAR:
            oldest = next(iter(self.domains))
            self._drop(oldest, next(iter(self.domains[oldest])))
            yield oldest

    def _put(self, domain: str, cookie: _Cookie) -> None:
        kept = self.domains.setdefault(domain, {})
        self.size += (cookie.name, cookie.path) not in kept
        kept[cookie.name, cookie.path] = cookie
        self.domains.move_to_end(domain)

    def _drop(self, domain: str, key: tuple[str, str]) -> None:
        kept = self.domains[domain]
        del kept[key]
        self.size -= 1
        if not kept:
            del self.domains[domain]


def _sent(request: Request, kept: Iterable[_Cookie]) -> Request:
    """Return a copy of the request with its own and the kept cookies in a header, or itself where there is nothing."""
    if request.headers is not None and "Cookie" in request.headers:
        return request
    own = request.cookies or {}
    header = ""
    for pair in [
        *(f"{name}={value}" for name, value in own.items()),
        *(f"{cookie.name}={cookie.value}" for cookie in kept if cookie.name not in own),
    ]:
        if len(header) + 2 + len(pair) <= _MAX_COOKIE_HEADER:
            header = f"{header}; {pair}" if header else pair
    if not header:
        return request
    return request.complete({"Cookie": header})


def _parse(header: str, now: float) -> tuple[_Cookie, str] | None:
    """Return a Set-Cookie header's cookie, its path "" where none is given, and its Domain or "" (section 5.2)."""
    pair, _, rest = header.partition(";")
    name, equals, value = pair.partition("=")
    name, value = name.strip(" \t"), value.strip(" \t")
    if not equals or not name or len(name) + len(value) > MAX_COOKIE or _UNFIT.search(header):
        return None
    domain = path = ""
    secure = False
    max_age: float | None = None
    expires: float | None = None
    for attribute in rest.split(";", _MAX_ATTRIBUTES)[:_MAX_ATTRIBUTES] if rest else ():
        key, _, text = attribute.partition("=")
        key, text = key.strip(" \t").lower(), text.strip(" \t")
        if key == "secure":
            secure = True
        elif len(text) > 1024:
            continue
        elif key == "path":
            path = text if text.startswith("/") else ""
        elif key == "domain":
            domain = _canonical(text.removeprefix("."))
        elif key == "expires":
            date = _date(text)
            expires = expires if date is None else date
        elif key == "max-age" and _MAX_AGE.match(text):
            max_age = 0.0 if text.startswith("-") else min(float(text.lstrip("0")[:12] or 0), _MAX_AGE_S)
    if max_age is not None:
        expires = now + max_age if max_age else 0.0
    elif expires is not None:
        expires = min(expires, now + _MAX_AGE_S)
    return _Cookie(name, value, path, expires, secure, False), domain


def _canonical(domain: str) -> str:
    """Return a domain as hosts are spelt in URLs; one that can be no host stays as it is, and matches none."""
    if not domain or (domain.isascii() and domain.islower()):
        return domain
    try:
        return hostname_of(normalize(f"http://{domain}/"))
    except InvalidURL:
        return domain


def _prefix_holds(cookie: _Cookie, has_domain: bool, from_https: bool) -> bool:
    """Whether the cookie is what its name claims (RFC 6265bis section 4.1.3)."""
    name = cookie.name.lower()
    if name.startswith("__secure-"):
        return cookie.secure and from_https
    if name.startswith("__host-"):
        return cookie.secure and from_https and not has_domain and cookie.path == "/"
    return True


def _date(text: str) -> float | None:
    """Return a date as wall-clock seconds, or None where it is none (section 5.1.1)."""
    clock: tuple[int, int, int] | None = None
    day = month = year = None
    for token in _DATE_TOKEN.findall(text[:100]):
        if clock is None and (found := _TIME.match(token)):
            clock = int(found[1]), int(found[2]), int(found[3])
        elif day is None and (found := _DAY.match(token)):
            day = int(found[1])
        elif month is None and token[:3].lower() in _MONTHS:
            month = _MONTHS.index(token[:3].lower()) + 1
        elif year is None and (found := _YEAR.match(token)):
            year = int(found[1])
            year += 1900 if 70 <= year <= 99 else 2000 if year < 70 else 0
    if clock is None or day is None or month is None or year is None or year < 1601:
        return None
    try:
        return datetime(year, month, day, *clock, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _with_parents(host: str) -> Iterator[str]:
    yield host
    if not _is_address(host):
        while "." in host:
            host = host.partition(".")[2]
            yield host


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _path_of(url: str) -> str:
    """Return the path of a URL in normal form."""
    start = url.index("/", url.index("//") + 2)
    end = url.find("?", start)
    return url[start:] if end < 0 else url[start:end]


def _default_path(url: str) -> str:
    """Return the path of a cookie that names none (section 5.1.4)."""
    return _path_of(url).rpartition("/")[0] or "/"


def _path_matches(path: str, own: str) -> bool:
    """Whether a cookie's ``own`` path holds a request's ``path`` (section 5.1.4)."""
    return path.startswith(own) and (len(path) == len(own) or own.endswith("/") or path[len(own)] == "/")


@cache
def _public_suffixes() -> Callable[[str], str | None]:
    """Return what finds the public suffix of a domain (https://publicsuffix.org/); the list comes with its package."""
    from publicsuffixlist import PublicSuffixList

    found: Callable[[str], str | None] = PublicSuffixList().publicsuffix
    return found
