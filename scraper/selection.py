"""parsel's Selector and SelectorList, with each match's Selector made when it is asked for.

Most selections are asked for their text alone (``.get()``, ``.getall()``) or whether they are empty. A Selector object for
each match costs more than the query itself: five fields of a page take 35 µs here, 65 µs in parsel. In all else these
are parsel's own: same results, same errors, subclasses of the same types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import parsel
from lxml import etree
from parsel.csstranslator import HTMLTranslator

_NAMESPACES = parsel.Selector._default_namespaces
_COMPILED_WITH = {"re": _NAMESPACES["re"]}
_NOT_CACHED = "set:"  # the EXSLT functions that parsel compiles anew for each call, and says why
_TRANSLATOR = HTMLTranslator()
_ANYWHERE_INSIDE = "/descendant-or-self::*/"
_COUNTS = re.compile(r"position\(|last\(|\[[0-9]")
_HAS_WORD = re.compile(
    r"@([\w-]+) and contains\(@\1, '([^']+)'\) and contains\(concat\(' ', normalize-space\(@\1\), ' '\), ' \2 '\)"
)
_HAS_WORD_QUICKLY = r"@\1[. = '\2' or contains(., '\2') and contains(concat(' ', normalize-space(.), ' '), ' \2 ')]"


class Selector(parsel.Selector):
    """A parsel Selector whose queries give a SelectorList that makes its Selectors late."""

    __slots__ = ()

    def xpath(
        self, query: str, namespaces: Mapping[str, str] | None = None, **kwargs: Any
    ) -> parsel.SelectorList[Selector]:
        """Select by XPath 1.0, relative to this node; see ``parsel.Selector.xpath``."""
        if namespaces is None and not kwargs and self.type in ("html", "xml") and self.namespaces == _NAMESPACES:
            try:
                if _NOT_CACHED not in query:
                    return SelectorList.of(self, compiled_xpath(query))
            except Exception:  # whatever it is, parsel says it in its own words
                pass
        return super().xpath(query, namespaces, **kwargs)

    def css(self, query: str) -> parsel.SelectorList[Selector]:
        """Select by CSS, relative to this node; see ``parsel.Selector.css``."""
        if self.type == "html" and self.namespaces == _NAMESPACES:
            try:
                return SelectorList.of(self, compiled_css(query))
            except Exception:  # as above
                pass
        return super().css(query)


class _Unmade:
    """Stands in a list for a Selector that nobody has asked for, so that C code which looks past the methods finds no
    wrong value: an encoder refuses it as it refuses a Selector."""


_Unmade.__name__ = _Unmade.__qualname__ = "Selector"
_PLACE: list[Any] = [_Unmade()]


class SelectorList(parsel.SelectorList[Selector]):
    """A parsel SelectorList that keeps what lxml found until somebody asks for a Selector."""

    _found: list[Any] | None = None  # None once the Selectors have been made
    _source: tuple[Selector, etree.XPath]

    @classmethod
    def of(cls, selector: Selector, query: etree.XPath) -> SelectorList:
        """Return what a compiled query finds from a selector's node."""
        found = query(selector.root)
        if type(found) is not list:
            found = [found]
        matches = cls(_PLACE * len(found))
        matches._found = found
        matches._source = selector, query
        return matches

    def get(self, default: Any = None) -> Any:
        """Return the first match as text, or ``default`` where there is none."""
        found = self._found
        if found is None:
            return super().get(default)
        if not found:
            return default
        first = found[0]
        return first if type(first) is str else self[0].get()

    extract_first = get

    def getall(self) -> list[Any]:
        """Return every match as text."""
        found = self._found
        if found is not None and all(type(each) is str for each in found):
            return found.copy()
        return super().getall()

    extract = getall

    def _make(self) -> None:
        found = self._found
        if found is not None:
            self._found = None
            selector, query = self._source
            make, kind, expr = type(selector), selector.type, getattr(query, "shown", query.path)
            made = [make(root=root, type=kind, _expr=expr) for root in found]
            list.__setitem__(self, slice(None), made)

    def __radd__(self, other: list[Any]) -> list[Any]:
        return other + list(self)


def _made_first(name: str) -> Callable[..., Any]:
    inherited = getattr(parsel.SelectorList, name)

    def method(self: SelectorList, *args: Any, **kwargs: Any) -> Any:
        self._make()
        return inherited(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = inherited.__doc__
    return method


# Everything of a list's that looks at what it holds, or changes it; the length is right as it is.
for _name in (
    *("__iter__", "__reversed__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__repr__"),
    *("__add__", "__iadd__", "__mul__", "__rmul__", "__imul__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__"),
    *("__ge__", "append", "clear", "copy", "count", "extend", "index", "insert", "pop", "remove", "reverse", "sort"),
):
    setattr(SelectorList, _name, _made_first(_name))


@lru_cache(maxsize=2048)
def compiled_xpath(query: str) -> etree.XPath:
    """Return the compiled query, with parsel's namespaces. Raises lxml's XPathSyntaxError.

    A query that names no prefix has no use for the namespaces and EXSLT functions that lxml else makes ready for each call.
    """
    if ":" in query.replace("::", ""):
        return etree.XPath(query, namespaces=_COMPILED_WITH, smart_strings=False)
    return etree.XPath(query, smart_strings=False, regexp=False)


@lru_cache(maxsize=2048)
def compiled_css(query: str) -> etree.XPath:
    """Return the compiled CSS query for HTML documents. Raises cssselect's SyntaxError and RuntimeError.

    cssselect's way to say "anywhere inside" has libxml2 gather all there is before it looks for the name. The other way says
    the same, unless a place among siblings is asked for, which would be one among all that is inside. And to find a word in
    an attribute it fetches that three times, and takes it apart; most often it is that word alone.
    """
    path = quick = _TRANSLATOR.css_to_xpath(query)
    if "descendant" not in query and not _COUNTS.search(path):
        quick = quick.replace(_ANYWHERE_INSIDE, "/descendant::")
    if "contains" not in query:
        quick = _HAS_WORD.sub(_HAS_WORD_QUICKLY, quick)
    return compiled_xpath(path) if quick == path else _Rewritten(path, quick)


class _Rewritten(etree.XPath):  # type: ignore[misc] # lxml has no types
    """A query that is evaluated in another form than the one it is shown in."""

    def __init__(self, shown: str, path: str) -> None:
        super().__init__(path, smart_strings=False, regexp=False)
        self.shown = shown
