"""Selections answer exactly as parsel's, whatever is asked of them and in whatever order."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import msgspec
import parsel
import pytest

from scraper.selection import Selector

HTML = b"""<html><body class="all"><h1>Name <b>bold</b> rest</h1><p class="price big">12 &amp; more</p><p>3</p>
<ul><li><a href="/1" title="one">first</a></li><li><a href="/2">second<br>line</a></li><li></li></ul><!-- note --><?pi x?>
<i class="word"></i><i class=" word\t"></i><i class="a\nword b"><b class=word>b</b></i><i class="words"></i>
<i class="sword word"></i><i class="WORD"></i><i class></i><i title="word"></i><i title="wo'rd a"></i>
<i title=" a  word"></i><i title="wo rd"></i>
<svg:rect xmlns:svg="s" id="r"/></body></html>"""
XML = b"""<feed xmlns:a="urn:a"><entry n="1"><a:t>x</a:t><t>y</t></entry><entry n="2"/></feed>"""

QUERIES: list[Callable[[Any], Any]] = [
    lambda s: s.css("h1::text"),
    lambda s: s.css("p.price"),
    lambda s: s.css("a::attr(href)"),
    lambda s: s.css("li"),
    lambda s: s.css("nothing"),
    lambda s: s.css("ul").css("a::text"),
    lambda s: s.css("li")[1:],
    lambda s: s.css("li").xpath("./a/@href"),
    lambda s: s.xpath("//comment()"),
    lambda s: s.xpath("//processing-instruction()"),
    lambda s: s.xpath("count(//li)"),
    lambda s: s.xpath("string(//h1)"),
    lambda s: s.xpath("boolean(//h1)"),
    lambda s: s.xpath("//nothing = 1"),
    lambda s: s.xpath("//a/@href | //a/text()"),
    lambda s: s.xpath("//a[re:test(@href, '1')]"),
    lambda s: s.xpath("set:difference(//p, //p[@class])"),
    lambda s: s.xpath("//a[@href=$u]", u="/2"),
    lambda s: s.xpath("//z:rect", namespaces={"z": "s"}),
    lambda s: s.xpath("//*[has-class('price')]/text()"),
    lambda s: s.xpath("//entry/@n"),
    lambda s: s.xpath("//entry"),
    lambda s: s.css("entry t::text"),
    lambda s: s.css("body p::text"),
    lambda s: s.css("html body ul a"),
    lambda s: s.css("ul a::attr(title), body h1 b"),
    lambda s: s.css("ul li:first-child a"),
    lambda s: s.css("body *:nth-child(2)"),
    lambda s: s.css("body p:nth-of-type(2)"),
    lambda s: s.css("body a:last-of-type"),
    lambda s: s.css(".price"),
    lambda s: s.css("p.big.price, .all > h1"),
    lambda s: s.css(".word"),
    lambda s: s.css("i:not(.word)"),
    lambda s: s.css("body .word b.word"),
    lambda s: s.css("i[title~=word]"),
    lambda s: s.css("i[title~='wo rd']"),
    lambda s: s.css('i[title~="wo\'rd"]'),
    lambda s: s.css("[title=\"@a and contains(@a, 'b') and contains(concat(' ', normalize-space(@a), ' '), ' b ')\"]"),
    lambda s: s.css("body :contains('/descendant-or-self::*/')"),
    lambda s: s.css("body :not(ul li)"),
    lambda s: s.css(">>"),
    lambda s: s.css("p::nothing"),
    lambda s: s.xpath("//["),
    lambda s: s.xpath("//q:x"),
    lambda s: s.xpath("nofunction()"),
    lambda s: s.xpath("//p[$x]"),
    lambda s: s.xpath(3),
    lambda s: s.css(None),
    lambda s: s.jmespath("a"),
]
ASKED: list[Callable[[Any], Any]] = [
    lambda m: m.get(),
    lambda m: m.get("none"),
    lambda m: m.get(default=None),
    lambda m: m.extract_first(),
    lambda m: m.getall(),
    lambda m: m.extract(),
    lambda m: m.attrib,
    lambda m: m.re(r"\w+"),
    lambda m: m.re_first(r"\d+", "none"),
    lambda m: (len(m), bool(m), isinstance(m, parsel.SelectorList), isinstance(m, list)),
    lambda m: [(each.get(), each.type, each._expr, each.namespaces) for each in m],
    lambda m: [each.get() for each in reversed(m)],
    lambda m: [each.root if isinstance(each.root, str) else each.root.tag for each in m],
    lambda m: m[0].get(),
    lambda m: m[-1].attrib,
    lambda m: [each.get() for each in m[:1]],
    lambda m: [each.get() for each in [*m]],
    lambda m: [each.get() for each in tuple(m)],
    lambda m: [each.get() for each in list(m)],
    lambda m: [each.get() for each in sorted(m, key=str)],
    lambda m: [each.get() for each in m + m],
    lambda m: [each.get() for each in [] + m],  # noqa: RUF005 - the very concatenation is meant
    lambda m: [each.get() for each in 2 * m],
    lambda m: [each.get() for each in copy.copy(m)],
    lambda m: [each.get() for each in m.copy()],
    lambda m: (m.pop().get(), len(m)),
    lambda m: (m.clear(), m.get(), m.getall(), bool(m)),
    lambda m: (m.append(m[0]), m.getall()),
    lambda m: (m.extend(m), m.getall()),
    lambda m: (m.__delitem__(0), m.getall(), m.get()),
    lambda m: (m.reverse(), m.getall()),
    lambda m: m[0] in m,
    lambda m: m.index(m[0]),
    lambda m: m == m[:],
    lambda m: m == [],
    lambda m: (m.get(), [each.get() for each in m], m.getall(), m.get()),
    lambda m: (m[0], m[0] is m[0]),
    lambda m: repr(m),
    lambda m: str(m),
    lambda m: json.dumps(m),
    lambda m: msgspec.json.encode(m),
    lambda m: pickle.dumps(m),
    lambda m: hash(m),
    lambda m: m.css("a").getall(),
    lambda m: m.xpath("..").getall(),
    lambda m: (m.drop(), [each.get() for each in m]),
    lambda m: "".join(m.getall()),
]


def outcome(kind: type[parsel.Selector], document: tuple[bytes, str], *steps: Callable[[Any], Any]) -> Any:
    """Return what the steps come to, an exception as its type and text."""
    value: Any = kind(body=document[0], type=document[1])
    try:
        for step in steps:
            value = step(value)
    except Exception as error:
        return type(error), str(error)
    return repr(value)


@pytest.mark.parametrize("kind", ["html", "xml"])
@pytest.mark.parametrize("query", QUERIES)
def test_every_question_has_parsels_answer(kind: str, query: Callable[[Any], Any]) -> None:
    """Same values and same errors, for each query and each thing that can be asked of what it gives."""
    document = (HTML if kind == "html" else XML, kind)
    for asked in ASKED:
        theirs = outcome(parsel.Selector, document, query, asked)
        assert outcome(Selector, document, query, asked) == theirs


def test_a_namespace_that_was_registered_holds() -> None:
    """register_namespace and remove_namespaces work as in parsel."""
    selector = Selector(body=XML, type="xml")
    selector.register_namespace("b", "urn:a")
    assert selector.xpath("//b:t/text()").get() == "x"
    assert selector.xpath("//entry")[0].xpath("b:t/text()").get() == "x"
    selector.remove_namespaces()
    assert selector.xpath("//t/text()").getall() == ["x", "y"]


def test_the_selectors_of_a_selection_stay_the_same_objects() -> None:
    """What is made once is kept."""
    found = Selector(body=HTML).css("li")
    assert found.getall() == [each.get() for each in found]
    assert found[1] is list(found)[1]


def test_an_item_with_a_forgotten_get_is_refused() -> None:
    """An encoder that looks past the methods meets no plain value."""
    for query in ("h1::text", "h1"):
        with pytest.raises(TypeError, match="Selector"):
            msgspec.json.encode({"name": Selector(body=HTML).css(query)})
