"""URLs: one normal form, joining, the key that dedupe compares, the host that politeness counts.

All parsing is by the WHATWG URL standard (https://url.spec.whatwg.org/), as browsers do, through Ada. The normal form
is the standard's serialisation without the fragment, which names a place inside a page and is never sent.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

import can_ada

from scraper.errors import InvalidURL

MAX_URL_LENGTH = 2083
"""Characters; the longest URL that old browsers took, and what a site's own links stay far below."""

_MAX_REMEMBERED = 256  # characters; so 16,384 of them stay within some megabytes
_FORBIDDEN = re.compile(r"[\r\n\x00]")
_WEB = ("https://", "http://")


def normalize(url: str) -> str:
    """Return the normal form of an absolute http(s) URL.

    Raises InvalidURL, with what is wrong and where possible the mend, for everything else.
    """
    if not isinstance(url, str):
        raise InvalidURL(f"a URL is a string, not {type(url).__name__}: {url!r}")
    if _FORBIDDEN.search(url):
        raise InvalidURL(f"a URL cannot hold a line break or NUL: {url!r}")
    try:
        href = str(can_ada.parse(url))
    except (ValueError, TypeError):  # a TypeError is Ada's word for a lone surrogate
        if url.strip() and "://" not in url:
            raise InvalidURL(
                f"not an absolute URL: {url!r}; did you mean 'https://{url.strip().lstrip('/')}'?"
            ) from None
        raise InvalidURL(f"not a valid URL: {url!r}") from None
    if not href.startswith(_WEB):
        raise InvalidURL(f"only http and https URLs can be fetched: {url!r}")
    return _without_fragment(href)


class Base:
    """A base URL, parsed once, that the links of a page are joined to."""

    __slots__ = ("_base", "_origin")

    def __init__(self, url: str) -> None:
        self._base = can_ada.parse(url)
        self._origin = url[: url.index("/", url.index("//") + 2)]

    def join(self, href: str) -> str | None:
        """Return the normal form of ``href`` seen from this base, or None where it is no http(s) URL."""
        try:
            url = str(self._base + href)
        except (ValueError, TypeError):
            return None
        return _without_fragment(url) if url.startswith(_WEB) else None

    def join_path(self, path: str) -> str | None:
        """Do as ``join`` for an absolute path, which comes to the same from every page of the origin: remembered."""
        return _join_path(self._origin, path) if len(path) <= _MAX_REMEMBERED else self.join(path)


@lru_cache(maxsize=16_384)
def _join_path(origin: str, path: str) -> str | None:
    return Base(origin + "/").join(path)


def join(base: str, href: str) -> str:
    """Join ``href`` to ``base`` by the WHATWG rules, of any scheme and with its fragment, as a browser's link would.

    Raises InvalidURL where either cannot be parsed.
    """
    try:
        return str(can_ada.parse(base) + href)
    except (ValueError, TypeError):
        raise InvalidURL(f"cannot join {href!r} to {base!r}") from None


def base_of(url: str, href: str | None) -> str:
    """Return the base URL of a page at ``url`` whose base element says ``href``.

    As in the HTML standard (section 4.2.3), a base that cannot be parsed, or that no link can be joined to, is passed over.
    """
    if not href:
        return url
    try:
        base = join(url, href)
    except InvalidURL:
        return url
    return base if base.startswith(_WEB) else url


def host_of(url: str) -> str:
    """Return the host that politeness counts, of a URL in normal form: its name, and its port where not the default."""
    start = url.index("//") + 2
    end = url.find("/", start)
    authority = url[start:] if end < 0 else url[start:end]
    return authority[authority.rfind("@") + 1 :]


def hostname_of(url: str) -> str:
    """Return the host name alone, without port; an IPv6 address without its brackets."""
    host = host_of(url)
    if host.startswith("["):
        return host[1 : host.index("]")]
    return host.partition(":")[0]


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL in normal form, such as ``https://example.com:8443`` (RFC 6454)."""
    return url[: url.index(":")] + "://" + host_of(url)


def dedupe_key(url: str) -> str:
    """Return the canonical form that two spellings of one page share: a normal-form URL with its query sorted."""
    start = url.find("?")
    if start < 0 or "&" not in url:
        return url
    return url[: start + 1] + "&".join(sorted(url[start + 1 :].split("&")))


def fingerprint(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """Return the 128-bit key by which the frontier knows a request again: BLAKE2b (RFC 7693) of URL, method and body.

    A cryptographic hash, so that no site can craft two URLs that shadow each other.
    """
    if method == "GET" and not body:
        return _mark_of(url) if len(url) <= _MAX_REMEMBERED else _mark_of.__wrapped__(url)
    key = _key_bytes(url) + b"\0" + method.encode() + b"\0" + (body or b"")
    return blake2b(key, digest_size=16).digest()


@lru_cache(maxsize=16_384)
def _mark_of(url: str) -> bytes:
    """Remembered, for a page's links are mostly those of the page before."""
    return blake2b(_key_bytes(url), digest_size=16).digest()


def _key_bytes(url: str) -> bytes:
    return dedupe_key(url).encode("utf-8", "surrogatepass")


def _without_fragment(href: str) -> str:
    cut = href.find("#")
    return href if cut < 0 else href[:cut]
