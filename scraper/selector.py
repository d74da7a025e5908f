"""From bytes to a parsel Selector: which encoding, which kind of document, one parse a page.

The encoding follows browsers (WHATWG Encoding and HTML standards): byte order mark, then the Content-Type header, then
what the document declares in its first 4 KiB, then UTF-8 where the bytes are valid UTF-8, then windows-1252.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from html import unescape
from typing import Any

from lxml import etree
from w3lib.encoding import html_body_declared_encoding, http_content_type_encoding, read_bom

from scraper.selection import Selector, compiled_css

HREFS = etree.XPath("//a/@href | //area/@href", smart_strings=False)
"""Every link of an HTML document, in document order, as plain strings (compiled once)."""

_BASE_TAG = re.compile(
    rb"<base(?:\s[^>]{0,2048}?)?\shref\s*=\s*(?:\"([^\"]{1,2083})|'([^']{1,2083})|([^\"'\s>]{1,2083}))", re.IGNORECASE
)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_LINK_TAGS = {"a", "area", "link"}
_DECLARATION_BYTES = 4096


def detect_encoding(body: bytes, content_type: str | None) -> str:
    """Return the name of the codec that ``body`` is to be decoded with."""
    bom = read_bom(body)[0]
    if bom is not None:
        return bom
    if content_type and "charset" in content_type.lower():
        declared = _header_encoding(content_type)
        if declared is not None and _is_text(declared):
            return declared
    declared = html_body_declared_encoding(body[:_DECLARATION_BYTES])
    if declared is not None and _is_text(declared):
        return declared
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


@lru_cache(maxsize=256)
def _header_encoding(content_type: str) -> str | None:
    return http_content_type_encoding(content_type)


@lru_cache(maxsize=256)
def _is_text(codec: str) -> bool:
    """Whether Python's codec decodes any bytes to text: "rot13", "zlib" or "idna" in a header must not break a page."""
    try:
        b"a\xff".decode(codec, "replace")
    except (LookupError, ValueError):
        return False
    return True


def document_type(content_type: str, url: str) -> str:
    """Return parsel's name of the document's kind: "html", "xml", "json" or "text".

    XHTML counts as HTML: with an XML parser its elements have a namespace, and no CSS selector finds them.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        return "html"
    if kind.endswith(("/xml", "+xml")):
        return "xml"
    if kind.endswith(("/json", "+json")):
        return "json"
    if kind.startswith(("text/plain", "image/", "audio/", "video/")):
        return "text"
    path = url.partition("?")[0].lower()
    if path.endswith((".xml", ".rss", ".atom")):
        return "xml"
    return "json" if path.endswith(".json") else "html"


def parse(body: bytes, encoding: str, kind: str) -> Selector:
    """Parse ``body`` and return the Selector of the whole document.

    parsel's parsers resolve no entities and load nothing: neither DTDs nor files nor the network.
    """
    if kind in ("json", "text"):
        return Selector(text=body.decode(encoding, "replace"), type=kind)
    if not body:
        return Selector(text="", type=kind)  # parsel refuses empty bytes
    return Selector(body=body, encoding=encoding, type=kind)


def select_hrefs(selector: Selector, css: str) -> Iterator[str | None]:
    """Return the href of each element that ``css`` selects, or the text where it selects text or an attribute.

    The same as ``selector.css`` and then each element's href, but without a Selector for each: 8 µs for 30 links, not 33.
    Raises cssselect's SyntaxError or RuntimeError for a bad query.
    """
    if selector.type == "html":
        return map(href_of, compiled_css(css)(selector.root))
    return (href_of(found.root) for found in selector.css(css))


def href_of(root: Any) -> str | None:
    """Return the URL that a selected node stands for: a link element's href, or a text itself."""
    if isinstance(root, str):
        return root
    if getattr(root, "tag", None) in _LINK_TAGS:
        href: str | None = root.get("href")
        return href
    return None


def base_href(body: bytes) -> str | None:
    """Return the href of the document's base element, looked for in the first 4 KiB, or None."""
    head = body[:_DECLARATION_BYTES]
    if b"<base" not in head and b"<base" not in head.lower():
        return None
    found = _BASE_TAG.search(_COMMENT.sub(b"", head))
    return unescape(found[found.lastindex or 0].decode("utf-8", "replace")).strip() if found else None
