"""From bytes to a parsel Selector: which encoding, which kind of document, one parse a page.

The encoding follows browsers (WHATWG Encoding and HTML standards): byte order mark, then the Content-Type header, then
what the document declares in its first 4 KiB, then UTF-8 where the bytes are valid UTF-8, then windows-1252.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from html import unescape
from typing import Any

from lxml import etree, html
from w3lib.encoding import html_body_declared_encoding, http_content_type_encoding, read_bom

from scraper.selection import Selector, compiled_css

HREFS = etree.XPath("//a/@href | //area/@href", smart_strings=False, regexp=False)
"""Every link of an HTML document, in document order, as plain strings (compiled once)."""

_BASE_TAG = re.compile(
    rb"<base(?:\s[^>]{0,2048}?)?\shref\s*=\s*(?:\"([^\"]{1,2083})|'([^']{1,2083})|([^\"'\s>]{1,2083}))", re.IGNORECASE
)
_COMMENT = re.compile(rb"<!--.*?(?:-->|\Z)", re.DOTALL)
_LINK_TAGS = {"a", "area", "link"}
_DECLARATION_BYTES = 4096
_BOM_STARTS = frozenset({b"\xef", b"\xfe", b"\xff", b"\0"})
_META_UTF_8 = (b'<meta charset="utf-8"', b"<meta charset='utf-8'", b"<meta charset=utf-8>")
_META_BYTES = 22
_XML_UTF_8 = (b'<?xml version="1.0" encoding="UTF-8"', b'<?xml version="1.0" encoding="utf-8"')
_MORE_LABELS = {  # of the WHATWG Encoding standard, that Python's codecs do not know
    label: codec
    for codec, labels in {
        "iso8859-8": "iso-8859-8-i iso-8859-8-e csiso88598i csiso88598e logical visual",
        "cp949": "windows-949 ks_c_5601-1989 ksc_5601 iso-ir-149 cseuckr",
        "gb18030": "x-gbk gb_2312 csgb2312",
        "big5hkscs": "cn-big5 x-x-big5",
        "euc_jp": "x-euc-jp",
        "koi8_r": "koi koi8",
        "koi8_u": "koi8-ru",
        "mac_cyrillic": "x-mac-cyrillic x-mac-ukrainian",
        "mac_roman": "x-mac-roman mac",
        "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
        "cp1252": "iso88591 x-cp1252",
        "cp1254": "iso88599 x-cp1254",
        "cp874": "iso885911 dos-874",
        **{f"cp125{n}": f"x-cp125{n}" for n in (0, 1, 3, 5, 6, 7, 8)},
        **{f"iso8859-{n}": f"iso8859{n}" for n in (2, 3, 4, 5, 6, 7, 10, 13, 14, 15)},
    }.items()
    for label in labels.split()
}
_LABEL = re.compile(rb"charset\s*+=\s*+[\"']?\s*+([\w-]++)", re.IGNORECASE)
_BASE_START = re.compile(rb"<[bB][aA][sS][eE]")  # in a third less time than by IGNORECASE
_PARSER = html.HTMLParser(recover=True, encoding="utf-8", huge_tree=True)  # to make one for each page takes 8 µs
_LEAST_HEAVY = 16 * 1024  # bytes; below, no document takes longer than about 60 ms, whatever it holds
_HEAVY = 256 * 1024  # bytes that take about 10 ms to parse, a callback's slice
_BLOCK = 8 * 1024
_BLOCKS = 200 * 2**20  # a block's bytes times the document's: tags of two blocks each take about 100 ms, however many
_HIDDEN_END = re.compile(rb"=[ \t\n\r\f]*+(?:\"[^\">]*+>|'[^'>]*+>)")
_MAX_ATTRIBUTES = 5000  # of one tag: libxml2 takes the square of their number, 50 ms for these, 5 s for 32,000
_BETWEEN_ATTRIBUTES = b" \t\n\r\f/\"'"
_CHUNK = 128 * 1024
_MAX_QUIET = (
    150_000  # possible attributes in one piece: to have them told of takes 50 ms, in which no other thread runs
)
_MAX_PROBES = 32


def detect_encoding(body: bytes, content_type: str | None) -> str:
    """Return the name of the codec that ``body`` is to be decoded with."""
    if body[:1] in _BOM_STARTS:
        bom = read_bom(body)[0]
        if bom is not None:
            return bom
    if content_type and "charset" in content_type.lower():
        declared = _header_encoding(content_type)
        if declared is not None and _is_text(declared):
            return declared
    if content_type and _kind_of(content_type) == "json":  # RFC 8259 section 8.1; HTML in its texts says nothing of it
        return "utf-8" if is_utf_8(body) else "cp1252"
    if _says_utf_8(body):
        return "utf-8"
    head = body[:_DECLARATION_BYTES]
    declared = html_body_declared_encoding(head)
    if declared is None and (b"charset" in head or b"CHARSET" in head):  # to look into all pages would take 75 µs
        declared = _more_encoding(_COMMENT.sub(b"", head))
    if declared is not None and _is_text(declared):
        # Bytes in which the declaration could be read are no UTF-16 (HTML standard, section 13.2.3.2).
        return "utf-8" if declared.startswith("utf-16") else declared
    return "utf-8" if is_utf_8(body) else "cp1252"


def is_utf_8(body: bytes) -> bool:
    """Whether all of it can be read as UTF-8."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _says_utf_8(body: bytes) -> bool:
    """Whether the first word on it is an XML declaration or ``<meta charset="utf-8">``, as on most pages: 0.5 µs for 6."""
    if body.startswith(_XML_UTF_8):
        return True
    at = body.find(b"<meta", 0, _DECLARATION_BYTES - _META_BYTES)
    if at < 0 or not body[at : at + _META_BYTES].lower().startswith(_META_UTF_8):
        return False
    return body.find(b"<?", 0, at) < 0 and body.find(b"<!--", 0, at) < 0  # it may stand in a comment


@lru_cache(maxsize=256)
def _header_encoding(content_type: str) -> str | None:
    return http_content_type_encoding(content_type) or _more_encoding(content_type.encode("utf-8", "replace"))


def _more_encoding(declaration: bytes) -> str | None:
    """Return the codec of a declared label that Python does not know."""
    found = _LABEL.search(declaration)
    return _MORE_LABELS.get(found[1].lower().decode("ascii", "replace")) if found else None


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
    kind = _kind_of(content_type)
    if kind:
        return kind
    path = url.partition("?")[0].lower()
    if path.endswith((".xml", ".rss", ".atom")):
        return "xml"
    return "json" if path.endswith(".json") else "html"


@lru_cache(maxsize=256)
def _kind_of(content_type: str) -> str:
    """Return the kind that the header alone says, or "" where it says none that is known."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        return "html"
    if kind.endswith(("/xml", "+xml")):
        return "xml"
    if kind.endswith(("/json", "+json")):
        return "json"
    return "text" if kind.startswith(("text/plain", "image/", "audio/", "video/")) else ""


def is_heavy(body: bytes) -> bool:
    """Whether parsing ``body`` may hold up the event loop: it is large, or much of it might be the inside of one tag.

    That is where a block has no ``>``, or where some attribute's value has one, which ends no tag. Ordinary pages below
    16 KiB cost nothing here, a larger one a tenth of its parsing.
    """
    size = len(body)
    if size < _LEAST_HEAVY or size >= _HEAVY:
        return size >= _HEAVY
    block = min(_BLOCK, _BLOCKS // size)
    return (
        any(body.find(b">", at, at + block) < 0 for at in range(0, size - block, block))
        or _HIDDEN_END.search(body) is not None
    )


def parse(body: bytes, encoding: str, kind: str, heavy: bool | None = None) -> Selector:
    """Parse ``body`` and return the Selector of the whole document; ``heavy`` is what ``is_heavy`` says, where it was asked.

    parsel's parsers load nothing: neither DTDs nor files nor the network. Raises ValueError for XML that declares entities,
    and for HTML with more than 5,000 attributes in one tag.
    """
    heavy = kind == "html" and (is_heavy(body) if heavy is None else heavy)
    if heavy:
        if encoding != "utf-8":
            body, encoding = body.decode(encoding, "replace").encode("utf-8", "replace"), "utf-8"
        body = body.translate(None, b"\0")  # as parsel does, in a tenth of the time where there are millions
        _refuse_many_attributes(body)
    if kind in ("json", "text"):
        return Selector(text=body.decode(encoding, "replace"), type=kind)
    if not body:
        return Selector(text="", type=kind)  # parsel refuses empty bytes
    if (
        kind == "html" and encoding == "utf-8" and not heavy
    ):  # heavy ones are parsed in a thread, by a parser of their own
        root = _plain_root(body)
        if root is not None:
            return Selector(root=root, type=kind)
    selector = Selector(body=body, encoding=encoding, type=kind)
    if kind == "xml":
        _refuse_entities(selector)
    return selector


def _plain_root(body: bytes) -> Any:
    """Parse an ordinary page as parsel does, or return None where it is none: then parsel knows what to do."""
    try:
        body.decode()
        return etree.fromstring(body.replace(b"\0", b"").strip(), _PARSER)
    except (UnicodeDecodeError, etree.LxmlError):
        return None


def _refuse_entities(selector: Selector) -> None:
    """They are not resolved while parsing, but reading the text of an element would: a kilobyte becomes gigabytes."""
    dtd = selector.root.getroottree().docinfo.internalDTD
    if dtd is not None and next(dtd.iterentities(), None) is not None:
        raise ValueError("not parsed: XML that declares entities of its own")


def _refuse_many_attributes(body: bytes) -> None:
    """Read all tags without building a tree, which takes time by length alone, and raise where one is an attack.

    What is read is told by the parser tag by tag. Where it has told nothing for so long that a single tag could have a
    hundred thousand attributes, what it holds back is looked at before there are millions, which would stop all threads.
    """
    if _possible_attributes(body) <= _MAX_ATTRIBUTES:
        return
    target = _AttributeCounter()
    parser = _counting_parser(target)
    quiet = probes = told = 0
    try:
        for at in range(0, len(body), _CHUNK):
            chunk = body[at : at + _CHUNK]
            parser.feed(chunk)
            quiet = _possible_attributes(chunk) + (quiet if target.told == told else 0)
            told = target.told
            if quiet > _MAX_QUIET:
                target.most = max(target.most, _held_back(body[: at + _CHUNK]))
                quiet, probes = 0, probes + 1
            if target.most > _MAX_ATTRIBUTES or probes > _MAX_PROBES:
                break
        parser.close()
    except (etree.LxmlError, ValueError):
        pass  # parsel has its own way with what is no document
    if probes > _MAX_PROBES:
        raise ValueError(f"not parsed: {len(body) >> 20} MB of it are tags and comments of megabytes each")
    if target.most > _MAX_ATTRIBUTES:
        raise ValueError(f"not parsed: a tag with {target.most} attributes; {_MAX_ATTRIBUTES} are let through")


def _possible_attributes(body: bytes) -> int:
    """Return more than there can be: each stands behind white space, a slash or a quotation mark."""
    return len(body) - len(body.translate(None, _BETWEEN_ATTRIBUTES))


def _held_back(body: bytes) -> int:
    """Return the most attributes of a tag in ``body``, the one included in which it breaks off, in a value or not."""
    target = _AttributeCounter()
    for end in (b">", b'">', b"'>"):
        with suppress(etree.LxmlError, ValueError):
            etree.fromstring(body + end, _counting_parser(target))
    return target.most


def _counting_parser(target: _AttributeCounter) -> Any:
    return etree.HTMLParser(target=target, recover=True, huge_tree=True, encoding="utf-8")


class _AttributeCounter:
    """What libxml2 tells of a document: the most attributes that a tag has, and how many things it has told."""

    def __init__(self) -> None:
        self.most = 0
        self.told = 0

    def start(self, tag: str, attributes: Any) -> None:
        self.told += 1
        if len(attributes) > self.most:
            self.most = len(attributes)

    def data(self, text: str) -> None:
        self.told += 1

    def comment(self, text: str) -> None:
        self.told += 1

    def close(self) -> None: ...


def select_hrefs(selector: Selector, css: str) -> list[str]:
    """Return the href of each element that ``css`` selects, or the text where it selects text or an attribute.

    The same as ``selector.css`` and then each element's href, but without a Selector for each: 8 µs for 30 links, not 33.
    A query for ``a`` elements has lxml give their attributes, and no elements at all.
    Raises cssselect's SyntaxError or RuntimeError for a bad query.
    """
    if selector.type == "html":
        hrefs = _hrefs_alone(css)
        if hrefs is not None:
            return list(hrefs(selector.root))
        found = compiled_css(css)(selector.root)
    else:
        found = [each.root for each in selector.css(css)]
    return [href for href in map(href_of, found) if href is not None]


def hrefs_in_turn(selector: Selector) -> Iterator[str]:
    """Yield the href of each ``a`` element: of 10 MB, all at once takes 50 ms, in which the event loop stands still."""
    for element in selector.root.iter("a"):
        href = element.get("href")
        if href is not None:
            yield href


@lru_cache(maxsize=256)
def _hrefs_alone(css: str) -> etree.XPath | None:
    """Return the query for the hrefs of what ``css`` selects, where that is sure to be ``a`` elements."""
    path = compiled_css(css).path
    step = path.rpartition("::")[2]
    is_links = step.partition("[")[0] == "a" and step.count("[") == step.count("]") and "|" not in path
    return etree.XPath(path + "/@href", smart_strings=False, regexp=False) if is_links else None


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
    if not _BASE_START.search(body, 0, _DECLARATION_BYTES):
        return None
    found = _BASE_TAG.search(_COMMENT.sub(b"", body[:_DECLARATION_BYTES]))
    return unescape(found[found.lastindex or 0].decode("utf-8", "replace")).strip() if found else None
