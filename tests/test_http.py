"""Request and Response: what is refused where it is made, and what a page tells of itself."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import pytest
from multidict import CIMultiDict

from scraper import Request, Response
from scraper.errors import InvalidURL, RequestError
from scraper.http import REQUEST_FIELDS, Links
from scraper.urls import SeenLinks


def page(body: bytes | str, content_type: str = "text/html", url: str = "http://a/b/c", **options: Any) -> Response:
    """Make a response as a downloader would."""
    body = body.encode() if isinstance(body, str) else body
    return Response(url, request=Request(url, **options), headers={"Content-Type": content_type}, body=body)


# -- requests --------------------------------------------------------------------------------------------------------


def test_request_defaults() -> None:
    """A request of nothing but a URL is a GET of its normal form, with empty meta and the framework's counters at 0."""
    request = Request("HTTP://A.com:80/x#f")
    assert (request.url, request.host, request.origin) == ("http://a.com/x", "a.com", "http://a.com")
    assert (request.method, request.headers, request.body, request.cookies) == ("GET", None, None, None)
    assert (request.meta, request.cb_kwargs, request.priority, request.dont_filter) == ({}, {}, 0, False)
    assert (request.retries, request.depth, request.redirects, request.is_start) == (0, 0, (), False)
    assert repr(request) == "<GET http://a.com/x>"


@pytest.mark.parametrize(
    "options",
    [
        {"method": ""},
        {"method": "GE T"},
        {"method": "GET\n"},
        {"method": "GET\r\nX: y"},
        {"method": None},
        {"headers": {"X Y": "z"}},
        {"headers": {"": "z"}},
        {"headers": {"X\n": "z"}},
        {"headers": {"X": "a\r\nY: b"}},
        {"headers": {"X": "a\0"}},
        {"headers": {"X": 5}},
        {"headers": {"X": None}},
        {"headers": [("X", "ok"), ("Ü", "z")]},
        {"body": 5},
        {"body": {"a": 1}},
        {"cookies": {"a": "b\r\nX: y"}},
        {"cookies": {"a": "b; c=d"}},
        {"cookies": {"a b": "c"}},
        {"cookies": {"a": 5}},
        {"headers": {"X": "\ud800"}},
        {"cookies": {"a": "\ud800"}},
        {"body": "\ud800"},
        {"priority": "high"},
        {"priority": 10**30},
        {"priority": 1.5},
        {"delay": -1},
        {"delay": "5"},
        {"delay": math.nan},
        {"delay": math.inf},
        {"timeout": -1},
        {"timeout": "5"},
        {"timeout": math.nan},
        {"form": {"a": 1}, "body": b"x"},
        {"form": {"a": 1}, "json": {"a": 1}},
        {"json": {"a": 1}, "body": "x"},
        {"json": object()},
        {"json": "\ud800"},
        {"form": "a=1"},
        {"form": {"a": "\ud800"}},
        {"cookies": [{"name": "a", "value": "b"}]},
        {"cookies": "a=b"},
        {"headers": "a: b"},
        {"headers": 5},
        {"meta": [1]},
        {"meta": 5},
        {"cb_kwargs": "page"},
    ],
)
def test_unsendable_requests_are_refused_where_they_are_made(options: dict[str, Any]) -> None:
    """A bad method, header, body, cookie or number is a RequestError of one line, and so is two bodies at once."""
    with pytest.raises(RequestError) as caught:
        Request("http://a/", **options)
    assert "\n" not in str(caught.value)


def test_what_should_be_a_mapping_is_said() -> None:
    """Cookies and data that are no mapping are shown with what is expected."""
    with pytest.raises(
        RequestError, match=r'cookies= is a mapping of names to values, such as {"name": "value"}, not str'
    ):
        Request("http://a/", cookies="a=b")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"meta= is a mapping of names to values, not list"):
        Request("http://a/", meta=[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "method", "body", "content_type"),
    [
        ({"form": {"a": 1, "b": "ü&"}}, "POST", b"a=1&b=%C3%BC%26", "application/x-www-form-urlencoded"),
        ({"form": [("a", 1), ("a", 2)]}, "POST", b"a=1&a=2", "application/x-www-form-urlencoded"),
        ({"form": {"a": [1, 2]}}, "POST", b"a=1&a=2", "application/x-www-form-urlencoded"),
        ({"form": {}}, "POST", b"", "application/x-www-form-urlencoded"),
        ({"json": {"a": [1, None, "ü"]}}, "POST", '{"a":[1,null,"ü"]}'.encode(), "application/json"),
        ({"json": []}, "POST", b"[]", "application/json"),
        ({"json": 0, "method": "put"}, "PUT", b"0", "application/json"),
        ({"json": 1, "headers": {"content-type": "a/b"}}, "POST", b"1", "a/b"),
    ],
)
def test_form_and_json_make_the_body(options: dict[str, Any], method: str, body: bytes, content_type: str) -> None:
    """form= and json= give body and Content-Type; a GET becomes a POST, another method and an own Content-Type stay."""
    request = Request("http://a/", **options)
    assert (request.method, request.body) == (method, body)
    assert request.headers is not None
    assert request.headers.getall("Content-Type") == [content_type]


@pytest.mark.parametrize("form", [{"csrf": None, "user": "me"}, [("user", "me"), ("csrf", None)]])
def test_none_in_a_form(form: Any) -> None:
    """What a selector did not find is not sent as the text "None"."""
    with pytest.raises(RequestError, match=r"<GET http://a/>: form= cannot be encoded: 'csrf' is None: leave it out"):
        Request("http://a/", form=form)


def test_headers_are_case_insensitive_and_repeated_ones_kept() -> None:
    """Headers come as a mapping or as pairs; a name given twice is sent twice."""
    request = Request("http://a/", headers=[("X-A", "1"), ("x-a", "2")])
    assert request.headers is not None
    assert request.headers.getall("X-a") == ["1", "2"]
    again = Request("http://a/", headers=request.headers)
    assert again.headers is not None
    assert again.headers.getall("x-A") == ["1", "2"]


def test_a_text_body_is_sent_as_utf8() -> None:
    """A str body is encoded, a lower-case method is put right."""
    request = Request("http://a/", method="post", body="ü")
    assert (request.method, request.body) == ("POST", b"\xc3\xbc")


def test_replace_changes_a_copy() -> None:
    """The copy has the new values and its own dicts; the original and the framework's counters stay."""
    request = Request("http://a/", headers={"A": "1"}, meta={"k": 1}, priority=3)
    request.retries, request.depth, request.redirects = 1, 2, ("http://z/",)
    copy = request.replace("HTTP://B:8080/x", headers={"A": "2"}, dont_filter=True, method="post", body="x")
    copy.meta["k"] = 2
    assert (copy.url, copy.host, copy.method, copy.body) == ("http://b:8080/x", "b:8080", "POST", b"x")
    assert (copy.retries, copy.depth, copy.redirects, copy.priority) == (1, 2, ("http://z/",), 3)
    assert (request.url, dict(request.headers or {}), request.meta) == ("http://a/", {"A": "1"}, {"k": 1})
    assert not request.dont_filter


def test_what_completes_a_request_is_taken_back() -> None:
    """restore() gives what was there before each complete(), its own headers and what was changed since with it."""
    request = Request("http://a/", headers={"A": "own"}, timeout=3.0)
    once = request.complete({"a": "1", "B": "1"}, proxy="http://p:1/")
    sent = once.complete({"C": "1"}, timeout=5.0, proxy="http://q:1/").replace("http://b/", priority=2)
    assert dict(sent.headers or {}) == {"A": "own", "B": "1", "C": "1"}
    kept = sent.restore()
    assert (kept.url, dict(kept.headers or {}), kept.timeout, kept.proxy) == ("http://b/", {"A": "own"}, 3.0, None)
    assert (kept.priority, kept.restore() is kept, request.restore() is request) == (2, True, True)
    changed = sent.replace(headers={"B": "2", "C": "1"}, proxy="").restore()
    assert (dict(changed.headers or {}), changed.timeout, changed.proxy) == ({"B": "2"}, 3.0, "")
    assert Request("http://a/").complete({"A": "1"}).restore().headers is None


def test_replace_with_json_takes_the_place_of_a_form() -> None:
    """A new form or json value replaces body and Content-Type, and keeps headers given beside it."""
    form = Request("http://a/", form={"a": 1}, headers={"X": "y"})
    copy = form.replace(json=[1])
    assert (copy.body, copy.method) == (b"[1]", "POST")
    assert dict(copy.headers or {}) == {"X": "y", "Content-Type": "application/json"}
    beside = Request("http://a/").replace(json=[1], headers={"Z": "z"})
    assert dict(beside.headers or {}) == {"Z": "z", "Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"colour": "red"}, TypeError),
        ({"host": "b"}, TypeError),
        ({"url": "b"}, InvalidURL),
        ({"method": "GET\n"}, RequestError),
        ({"headers": {"a": "\n"}}, RequestError),
        ({"body": 5}, RequestError),
        ({"delay": -1}, RequestError),
        ({"cookies": {"a": "\n"}}, RequestError),
        ({"proxy": "http://"}, RequestError),
        ({"proxy": 0}, RequestError),
        ({"cookies": "a=b"}, RequestError),
        ({"meta": [1]}, RequestError),
    ],
)
def test_replace_checks_as_the_constructor_does(changes: dict[str, Any], error: type[Exception]) -> None:
    """replace() refuses unknown names, and every value that the constructor refuses."""
    with pytest.raises(error):
        Request("http://a/").replace(**changes)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://",
        "http:///h:1",
        "http://h:99999",
        "http://h h:1",
        "socks4://x",
        "socks5://x",
        "socks5://me:1@x",
        "foo",
        "proxy.example:3128",
        " http://h:1",
        "http://h:1\n",
        "ftp://h:1",
        5,
    ],
)
def test_a_proxy_that_is_none_is_refused(proxy: Any) -> None:
    """What is no proxy's URL is a RequestError of one line where the request is made: it must not go without one."""
    with pytest.raises(RequestError, match="proxy") as caught:
        Request("http://a/", proxy=proxy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "http://h",
        "https://me:secret@h:3128/",
        "http://h:1/?a=b",
        "http://[::1]:3128",
        "socks5://me:secret@h:1080",
        "socks5h://[::1]:1080",
    ],
)
def test_proxies(proxy: str) -> None:
    """A proxy's URL is kept as it is, and an empty one, which goes direct, too."""
    assert Request("http://a/", proxy=proxy).proxy == proxy
    assert Request("http://a/", proxy="http://other:1").replace(proxy=proxy).proxy == proxy
    assert Request("http://a/", proxy=proxy).replace(proxy=None).proxy is None


def test_link_is_a_plain_request() -> None:
    """The quick way to make a request gives the same as the constructor, attribute by attribute."""
    quick, plain = Request.link("http://a/x", "parse"), Request("http://a/x", "parse")
    assert [getattr(quick, name) for name in REQUEST_FIELDS] == [getattr(plain, name) for name in REQUEST_FIELDS]


def test_fingerprint_is_of_url_method_and_body() -> None:
    """Requests that differ in headers, meta or callback alone are the same to dedupe."""
    assert Request("http://a/?b&a").fingerprint == Request("http://a/?a&b#x", "cb", meta={"a": 1}).fingerprint
    assert Request("http://a/", json=1).fingerprint != Request("http://a/", json=2).fingerprint


# -- links -----------------------------------------------------------------------------------------------------------

LINKS = """<a href="x">1</a> <a href=" x ">again</a> <a href="/b/x#top">and again</a> <a>none</a> <a href="">self</a>
<a href="mailto:me@a">m</a> <a href="javascript:void(0)">j</a> <a href="tel:1">t</a> <a href="http://[">bad</a>
<area href="/y"> <link href="/style.css"> <a href="//h/z">h</a> <a href="https://s/?q=1&amp;r=2">s</a>"""


def test_links() -> None:
    """The distinct web pages that a and area elements link to, in document order."""
    assert page(LINKS).links() == [
        "http://a/b/x",
        "http://a/b/c",
        "http://a/y",
        "http://h/z",
        "https://s/?q=1&r=2",
    ]


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "image/png", "application/xml"])
def test_only_html_has_links(kind: str) -> None:
    """A document that is not HTML has no links of this kind."""
    assert page('<a href="x">', kind).links() == []


@pytest.mark.parametrize(
    "how", [{"css": "a"}, {"css": "a::attr(href)"}, {"xpath": "//a"}, {"xpath": "//a/@href"}, {"urls": None}]
)
def test_follow_all(how: dict[str, Any]) -> None:
    """follow_all yields one request for each distinct page, however the links are given, and passes over the others."""
    response = page(LINKS)
    if "urls" in how:
        how = {"urls": ["x", response.css("a")[0], " x ", "/b/x#top", "", "mailto:x", "//h/z", "https://s/?q=1&r=2"]}
    found = list(response.follow_all(callback="parse_it", **how))
    assert [request.url for request in found] == [
        "http://a/b/x",
        "http://a/b/c",
        "http://h/z",
        "https://s/?q=1&r=2",
    ]
    assert {request.callback for request in found} == {"parse_it"}


def test_follow_all_gives_its_options_to_each_request() -> None:
    """What Request takes, follow_all takes for all of them."""
    (request,) = page("<a href=x>").follow_all(css="a", errback="oops", meta={"k": 1}, priority=2)
    assert (request.errback, request.meta, request.priority) == ("oops", {"k": 1}, 2)


@pytest.mark.parametrize("given", [{}, {"css": "a", "xpath": "//a"}, {"urls": [], "css": "a"}])
def test_follow_all_takes_one_kind(given: dict[str, Any]) -> None:
    """Exactly one of urls, css and xpath is given; the error comes at the call, not at the first link."""
    with pytest.raises(ValueError, match="exactly one"):
        page("").follow_all(**given)


def test_follow_all_of_one_text() -> None:
    """A URL or a selector where a list of links is meant is refused at the call; its characters are not followed."""
    with pytest.raises(
        ValueError, match=r"takes a list of URLs, not 'li.next a': follow\(\) takes one, css= a selector"
    ):
        page("").follow_all("li.next a")


@pytest.mark.parametrize("odd", [b"/abc", 5, {"href": "/abc"}, Request("http://a.example/")])
def test_follow_all_of_what_is_no_link(odd: Any) -> None:
    """It is not passed over like an element without an href."""
    with pytest.raises(ValueError, match=r"follow_all\(\) takes URLs and Selectors, not "):
        list(page("").follow_all(["/a", None, odd]))


def test_follow() -> None:
    """follow takes text, an element or an attribute, and keeps the options."""
    response = page('<a href=" x ">1</a><p>p</p>')
    assert response.follow("y?z#f").url == "http://a/b/y?z"
    assert response.follow(response.css("a")[0]).url == "http://a/b/x"
    assert response.follow(response.css("a::attr(href)")[0]).url == "http://a/b/x"
    request = response.follow("y", "cb", errback="eb", cb_kwargs={"n": 1})
    assert (request.callback, request.errback, request.cb_kwargs) == ("cb", "eb", {"n": 1})


def test_follow_refuses_what_is_no_link() -> None:
    """An element without href is a ValueError, another scheme an InvalidURL: unlike follow_all, follow was told to go."""
    response = page("<a>none</a><p>p</p>")
    for selector in (response.css("a")[0], response.css("p")[0]):
        with pytest.raises(ValueError, match="nothing to follow"):
            response.follow(selector)
    with pytest.raises(InvalidURL):
        response.follow("mailto:me@a")


@pytest.mark.parametrize(
    ("head", "link"),
    [
        ('<base href="/q/">', "http://a/q/x"),
        ("<base href='//cdn/q/'>", "http://cdn/q/x"),
        ("<base href=/q/>", "http://a/q/x"),
        ('<BASE target="_blank" HREF = "/q/" >', "http://a/q/x"),
        ('<Base href="/q/">', "http://a/q/x"),
        ('<base href="/q w/">', "http://a/q%20w/x"),
        ('<base href="/q/?a=1&amp;b=2">', "http://a/q/x"),
        ('<base data-href="/z/" href="/q/">', "http://a/q/x"),
        ('<!-- <base href="/z/"> -->', "http://a/b/x"),
        ("<base target=_blank>", "http://a/b/x"),
        ('<base href="">', "http://a/b/x"),
        ('<base href="http://[">', "http://a/b/x"),
        ('<base href="javascript:x">', "http://a/b/x"),
        ('<basefont href="/z/">', "http://a/b/x"),
    ],
)
def test_the_base_element_counts(head: str, link: str) -> None:
    """Links, follow, follow_all and urljoin all start from the base element, where it has a usable href."""
    response = page(f"<html><head>{head}</head><a href=x>")
    assert response.links() == [link]
    assert [request.url for request in response.follow_all(css="a")] == [link]
    assert response.follow("x").url == link
    assert response.urljoin("x") == link


# -- documents ---------------------------------------------------------------------------------------------------------

TEXT = "<html><body><p>café “中”</p></body></html>"


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        (TEXT.encode(), "text/html", "utf-8"),
        (TEXT.encode(), "text/html; charset=UTF8", "utf-8"),
        (TEXT.encode("utf-8-sig"), "text/html; charset=latin1", "utf-8"),
        (b"\xff\xfe" + TEXT.encode("utf-16-le"), "text/html; charset=utf-8", "utf-16-le"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "text/html", "utf-16-be"),
        (TEXT.encode("utf-16-le"), "text/html; charset=utf-16le", "utf-16-le"),
        (TEXT.encode("gb18030"), 'text/html; charset="gb2312"', "gb18030"),
        (b"<meta charset=gbk>" + TEXT.encode("gb18030"), "text/html", "gb18030"),
        (
            b"<meta http-equiv=content-type content='text/html; charset=gbk'>" + TEXT.encode("gb18030"),
            "text/html; charset=nonsense",
            "gb18030",
        ),
        (b'<!-- <meta charset="utf-8"> --><meta charset="gbk">' + TEXT.encode("gb18030"), "text/html", "gb18030"),
        (b'<?xml version="1.0" encoding="gbk"?>' + TEXT.encode("gb18030"), "text/html", "gb18030"),
        (b"<meta charset=latin1>" + TEXT.encode(), "text/html; charset=utf-8", "utf-8"),
    ],
)
def test_encodings(body: bytes, content_type: str, encoding: str) -> None:
    """Byte order mark, header, the document's own word, valid UTF-8: the first that speaks decides, for text and CSS."""
    response = page(body, content_type)
    assert response.encoding == encoding
    assert "café “中”" in response.text
    assert response.css("p::text").get() == "café “中”"
    assert not response.text.startswith("\ufeff")


def test_html_inside_json_does_not_speak_for_it() -> None:
    """What a text in it declares is the text's own."""
    body = """{"html": "<meta charset='iso-8859-1'>", "name": "café"}""".encode()
    response = page(body, "application/json")
    assert (response.encoding, response.jmespath("name").get()) == ("utf-8", "café")


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("iso-8859-8-i", "iso8859-8", "שלום"),
        ("ISO88592", "iso8859-2", "žluťoučký"),
        ("windows-949", "cp949", "똠방각하"),
        ("x-euc-jp", "euc_jp", "日本語"),
        ("x-cp1251", "cp1251", "привет"),
        ("x-gbk", "gb18030", "中文"),
        ("x-mac-cyrillic", "mac_cyrillic", "Привет"),
    ],
)
def test_labels_of_the_web(label: str, codec: str, text: str) -> None:
    """Names of encodings that browsers know and Python does not, in the header and in the document."""
    body = f"<p>{text}</p>".encode(codec)
    declared = f'<!-- charset=x --><meta charset="{label}">'.encode() + body
    for response in (page(body, f"text/html; charset={label}"), page(declared, "text/html")):
        assert response.css("p::text").get() == text


def test_bytes_that_say_nothing_are_windows_1252() -> None:
    """Without any declaration and no valid UTF-8, bytes are read as browsers read them."""
    response = page("<p>“café” €</p>".encode("cp1252"))
    assert response.encoding == "cp1252"
    assert response.css("p::text").get() == "“café” €"


def test_bytes_that_do_not_fit_the_declared_encoding_are_replaced() -> None:
    """A wrong charset costs the characters it cannot read, never the page behind them."""
    response = page(b"<p>caf\xe9</p><p>rest</p>", "text/html; charset=utf-8")
    assert response.text == "<p>caf\ufffd</p><p>rest</p>"
    assert response.css("p::text").getall() == ["caf\ufffd", "rest"]


@pytest.mark.parametrize("name", ["rot13", "base64", "zlib", "idna", "undefined", "hex", "mbcs", "", "x" * 1000, "ü"])
def test_a_charset_that_is_none_is_passed_over(name: str) -> None:
    """A name that no text can be decoded with, whatever it does in Python, leaves the page readable."""
    for response in (page(TEXT, f"text/html; charset={name}"), page(f"<meta charset='{name}'>{TEXT}")):
        assert response.encoding == "utf-8"
        assert response.css("p::text").get() == "café “中”"


def test_nul_bytes() -> None:
    """NUL bytes inside a page hide nothing that follows them."""
    response = page(b"<p>a\0b</p><p>c</p>")
    assert response.css("p::text").getall() == ["ab", "c"]
    assert response.text == "<p>a\0b</p><p>c</p>"


@pytest.mark.parametrize("body", [b"", b" \n", b"\0"])
def test_an_empty_page_selects_nothing(body: bytes) -> None:
    """A page without content answers every question with nothing."""
    response = page(body)
    assert response.css("a").getall() == []
    assert response.xpath("//a").getall() == []
    assert response.links() == []
    assert list(response.follow_all(css="a")) == []


def test_xhtml_with_an_xml_declaration_is_html() -> None:
    """An XHTML page's elements are found by plain selectors, and its links are links."""
    body = """<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE html>
    <html xmlns="http://www.w3.org/1999/xhtml"><body><a href="/x">café</a></body></html>"""
    for kind in ("application/xhtml+xml", "text/html; charset=utf-8"):
        response = page(body, kind)
        assert response.css("a::text").get() == "café"
        assert response.links() == ["http://a/x"]


@pytest.mark.parametrize("kind", ["text/xml", "application/rss+xml; charset=utf-8"])
def test_xml(kind: str) -> None:
    """An XML document is parsed as one: case counts, and elements that HTML would close stay open."""
    response = page('<?xml version="1.0"?><rss><Item><link>http://x/</link></Item></rss>', kind)
    assert response.xpath("//Item/link/text()").getall() == ["http://x/"]
    assert response.css("item").getall() == []


def test_xml_entities_are_refused() -> None:
    """A document that declares entities is not looked into: the file that one names is never read."""
    response = page('<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/hostname">]><r>[&e;]</r>', "text/xml")
    with pytest.raises(ValueError, match="declares entities"):
        response.xpath("//r//text()")


@pytest.mark.parametrize(
    ("content_type", "url", "kind"),
    [
        ("", "http://a/feed.rss?x=1", "xml"),
        ("", "http://a/data.json", "json"),
        ("application/octet-stream", "http://a/page", "html"),
        ("application/ld+json", "http://a/", "json"),
        ("text/plain", "http://a/x.html", "text"),
        ("text/html", "http://a/x.json", "html"),
    ],
)
def test_the_kind_of_document(content_type: str, url: str, kind: str) -> None:
    """The Content-Type decides what a document is, and the URL's suffix where it does not say."""
    assert page('{"a": 1}', content_type, url).selector.type == kind


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": [1, 2.5, null, true, "\xc3\xbc"]}', {"a": [1, 2.5, None, True, "ü"]}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"a": "ü"}'.encode("utf-16"), {"a": "ü"}),
        (b" [] \n", []),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_json(body: bytes, value: Any) -> None:
    """json() decodes the body, with or without a byte order mark."""
    assert page(body, "application/json").json() == value


def test_json_in_a_declared_encoding() -> None:
    """JSON in an old encoding, against RFC 8259, is read by what the header says."""
    assert page('{"a": "é"}'.encode("latin-1"), "application/json; charset=latin1").json() == {"a": "é"}


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": 1', b'{"a": 1} x', b"\xff\xfe{"])
def test_what_is_no_json_raises_value_error(body: bytes) -> None:
    """json() never gives part of a value, nor None for a page that is none."""
    with pytest.raises(ValueError, match=r".+"):
        page(body, "application/json").json()


def test_jmespath() -> None:
    """A JSON document is selected from by JMESPath, and css() on it says what is wrong."""
    response = page('{"a": [{"b": "1"}, {"b": "2"}]}', "application/json")
    assert response.jmespath("a[].b").getall() == ["1", "2"]
    with pytest.raises(ValueError, match="css"):
        response.css("a")


@pytest.mark.parametrize(("method", "query"), [("css", "a["), ("xpath", "a["), ("xpath", "")])
def test_a_bad_query_is_a_value_error(method: str, query: str) -> None:
    """A query with a typing mistake raises where it is written."""
    with pytest.raises(ValueError, match=r".*"):
        getattr(page("<a>"), method)(query)


def test_selecting() -> None:
    """css, xpath and re find what parsel finds; the document is parsed once."""
    response = page('<p class="x">price: 12</p><p>price: 7</p>')
    assert response.css("p.x::text").get() == "price: 12"
    assert response.css("p.none::text").get(default="-") == "-"
    assert response.xpath("//p[@class=$c]/text()", c="x").getall() == ["price: 12"]
    assert response.re(r"price: (\d+)") == ["12", "7"]
    assert response.css("p::text").re(r"\d+") == ["12", "7"]
    assert response.selector is response.selector


def test_repeated_response_headers_are_kept() -> None:
    """Headers are case-insensitive, and a header sent twice is there twice."""
    headers = CIMultiDict([("Set-Cookie", "a=1"), ("set-cookie", "b=2")])
    response = Response("http://a/", request=Request("http://a/"), headers=headers)
    assert response.headers.getall("SET-COOKIE") == ["a=1", "b=2"]
    assert response.headers.get("Nothing") is None


def test_meta_and_cb_kwargs_are_the_requests() -> None:
    """A response carries what its request was given."""
    response = page("", meta={"k": 1}, cb_kwargs={"n": 2})
    assert (response.meta, response.cb_kwargs) == ({"k": 1}, {"n": 2})
    assert repr(response) == "<200 http://a/b/c>"


@pytest.mark.parametrize(
    "css",
    [
        *(
            "a",
            "a.next",
            "li a",
            "li > a:first-child",
            "p:has(a.next)",
            "li, a",
            "p a, li a",
            "a[href*='b']",
            "area",
            "*",
        ),
        *("a::attr(href)", "a::text", "a:not(.next)", "li:has(> a)", "link", "a[title='x::a[1]']", "p a[title='|']"),
    ],
)
def test_follow_all_by_css_goes_where_its_elements_lead(css: str) -> None:
    """The quick ways give what a Selector for each element gives."""
    body = (
        b'<link href="/css"><area href="/area"><p><a class=next href="/n" title="x::a[1]">n</a><a>none</a></p>'
        b'<ul href="/no"><li href="/li"><a href="/b" title="|">b</a><a href="">empty</a></li></ul>'
    )
    response = Response("http://h/d/page", request=Request("http://h/d/page"), body=body)
    selected = [each.root if isinstance(each.root, str) else each for each in response.css(css)]
    expected = [request.url for request in response.follow_all(selected)]
    assert [request.url for request in response.follow_all(css=css)] == expected


@pytest.mark.parametrize("body", [b"[" + b"[[]]," * 100_000 + b"[]]", b"[" + b"[[]]," * 100_000])
def test_large_json_is_decoded_without_the_garbage_collector(body: bytes) -> None:
    """It would look at all lists that are there again and again; afterwards it is on, whether the text was JSON or not."""
    before = gc.get_stats()[0]["collections"]
    with nullcontext() if body.endswith(b"]]") else pytest.raises(ValueError, match="truncated"):
        page(body, "application/json").json()
    assert gc.get_stats()[0]["collections"] <= before + 1
    assert gc.isenabled()


@pytest.mark.parametrize("filler", ["", " " * 256 * 1024])
def test_the_links_of_a_large_page(filler: str) -> None:
    """Past 256 KiB they are looked for while they are taken: the same ones, without those that have no href."""
    links = "".join(f'<p><a name="{number}">none</a><a href="/{number}">link</a></p>' for number in range(300))
    response = page(f"<body>{links}{filler}</body>")
    expected = [f"http://a/{number}" for number in range(300)]
    assert [request.url for request in response.follow_all(css="a")] == expected
    assert [request.url for request in response.follow_all(xpath="//a")] == expected


def test_a_large_document_without_elements_has_no_links_by_css() -> None:
    """It is refused as a small one is."""
    for size in (10, 300_000):
        with pytest.raises(ValueError, match="css"):
            page(f'["{"x" * size}"]', "application/json").follow_all(css="a")
        assert list(page("x" * size, "text/plain").follow_all(css="a")) == []


def unseen_but(*seen: str) -> SeenLinks:
    """What a crawl remembers that has seen these URLs."""
    return SeenLinks(lambda urls, dropped: [url for url in urls if url not in seen])


def test_links_of_a_page_that_a_crawl_has_not_seen() -> None:
    """Whoever drives a callback gets, behind the first link, those alone that are new, each once and in order."""
    body = "".join(f"<a href={href}>" for href in ("one", "two", "/b/two#top", "three", "mailto:x", "one", "four"))
    links = page(body).follow_all(css="a", callback="parse_it")
    assert isinstance(links, Links)
    first = next(links)
    rest, _ = links.unseen(unseen_but("http://a/b/three"))
    assert [request.url for request in (first, *rest)] == ["http://a/b/one", "http://a/b/two", "http://a/b/four"]
    assert {request.callback for request in rest} == {"parse_it"}
    assert links.unseen(unseen_but()) == ([], None)
    assert list(links) == []


def test_links_that_the_frontier_has_are_dropped_by_their_hrefs() -> None:
    """Once a crawl says that it has taken a page's links in, the next page's are not asked for again, whatever they were."""
    asked: list[list[str]] = []

    def unseen(urls: Sequence[str], dropped: int) -> list[str]:
        asked.append(list(urls))
        return list(urls)

    seen = SeenLinks(unseen)
    for say in (False, True, True):
        links = page("<a href=/><a href=one><a href=/two><a href=?three>").follow_all(css="a")
        assert isinstance(links, Links)
        next(links)
        _, remember = links.unseen(seen)
        if say:
            assert remember is not None
            remember()
    assert asked == [["http://a/b/one", "http://a/two", "http://a/b/c?three"]] * 2 + [["http://a/b/c?three"]]


def test_links_taken_one_by_one_and_many_at_once() -> None:
    """However they are taken, of several hundred links none is left out, none comes twice, and the order stays."""
    urls = [f"http://a/{number}" for number in range(500)]
    body = "".join(f"<a href={url}>" for url in urls)
    for pattern in ("nnnuunnunuu", "unnnnnnnnuu", "nununununuu"):
        links = page(body).follow_all(css="a")
        assert isinstance(links, Links)
        found: list[str] = []
        for step in pattern * 50:
            found += [
                request.url for request in (links.unseen(unseen_but())[0] if step == "u" else list(islice(links, 1)))
            ]
        assert found == urls


@pytest.mark.parametrize("options", [{"errback": "oops"}, {"meta": {"k": 1}}, {"dont_filter": True}])
def test_links_with_options_are_not_plain(options: dict[str, Any]) -> None:
    """What is not to be filtered, or has data of its own, is taken one by one."""
    links = page("<a href=x>").follow_all(css="a", **options)
    assert isinstance(links, Links)
    assert not links.is_plain
