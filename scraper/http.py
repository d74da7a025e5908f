"""Request and Response: what spiders yield and what their callbacks get. Data only; nothing here does any I/O.

parsel and lxml are imported with the first document that is looked into, so that the first requests need not wait for it.
"""

from __future__ import annotations

import gc
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from scraper import urls as _urls
from scraper.errors import FetchError, RequestError

if TYPE_CHECKING:
    from parsel import SelectorList

    from scraper import selector as documents
    from scraper.selection import Selector

CallbackLike = Callable[..., Any] | str | None
Headers = CIMultiDict[str]
"""Case-insensitive header names to values, repeated ones kept (``getall``)."""

_LARGE = 256 * 1024  # bytes
_known_marks = _urls.known_marks
_LINKS_AT_A_TIME = 64
_LEAST_HEAVY = 16 * 1024  # bytes; smaller documents are not looked at twice
_TOKEN = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 section 5.6.2
_LINE_BREAK = re.compile(r"[\r\n\x00\ud800-\udfff]")
_NO_COOKIE_VALUE = re.compile(r"[\x00-\x1f\x7f;\ud800-\udfff]")


class _Late:
    """A module that is imported when something of it is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self._name), name)
        setattr(self, name, value)
        return value


if not TYPE_CHECKING:
    documents = _Late("scraper.selector")


class _OfUrl:
    """A request's ``host`` or ``origin``: when one of them is first read both are made, ordinary attributes from then on."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._is_host = name == "host"

    def __get__(self, request: Any, owner: type) -> Any:
        if request is None:
            return self
        host, origin = request.host, request.origin = _urls.host_and_origin(request.url)
        return host if self._is_host else origin


class Request:
    """One page to fetch, and what to do with it.

    ``url`` is absolute http(s); it is brought to its normal form. ``callback`` and ``errback`` are methods of the spider
    (or their names); without a callback the response goes to ``parse``. ``meta`` and ``cb_kwargs`` hold JSON values.
    ``form`` (a mapping or pairs, sent urlencoded) and ``json`` (any JSON value) make the body and its Content-Type, and a
    GET becomes a POST. ``priority``: higher first, within one host. ``dont_filter`` fetches even what was seen.
    ``delay``: not before that many seconds from now. ``timeout``: seconds for the whole answer, in place of
    ``download.timeout``. ``proxy``: a proxy's URL, in place of ``download.proxy``; empty: none. ``downloader``: the name of the
    downloader to use, in place of the default.

    ``host`` is its name, with the port where that is not the default one; ``origin`` is scheme, host and port.
    ``retries`` (tries that failed so far), ``depth`` (links followed from the start request) and ``redirects`` (URLs
    that led here) are kept by the framework.

    Raises InvalidURL for a bad URL, of the page or the proxy, and RequestError for a bad method, header, body or number, and
    for what should be a mapping and is none.
    """

    # Class attributes are the defaults: the thirty links of a page set two attributes each, not twenty.
    url: str
    callback: CallbackLike = None
    errback: CallbackLike = None
    method: str = "GET"
    headers: Headers | None = None
    body: bytes | None = None
    cookies: dict[str, str] | None = None
    priority: int = 0
    dont_filter: bool = False
    delay: float = 0.0
    timeout: float | None = None
    proxy: str | None = None
    downloader: str | None = None
    retries: int = 0
    depth: int = 0
    redirects: tuple[str, ...] = ()
    is_start: bool = False
    written: int = 0
    _meta: dict[str, Any] | None = None
    _cb_kwargs: dict[str, Any] | None = None
    _added: tuple[tuple[str, str], ...] = ()  # headers of one sending
    _changed: tuple[tuple[str, Any, Any], ...] = ()  # attributes of one sending: name, what it was, what it is

    def __init__(
        self,
        url: str,
        callback: CallbackLike = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        body: bytes | str | None = None,
        form: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None,
        json: Any = None,
        cookies: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        cb_kwargs: Mapping[str, Any] | None = None,
        priority: int = 0,
        dont_filter: bool = False,
        errback: CallbackLike = None,
        delay: float = 0.0,
        timeout: float | None = None,
        proxy: str | None = None,
        downloader: str | None = None,
    ) -> None:
        self.url = _urls.normalize(url)
        self.callback = callback
        self.errback = errback
        if method != "GET":
            self.method = _checked_method(method)
        if headers:
            self.headers = _checked_headers(headers)
        if body is not None:
            self.body = _checked_body(body)
        if cookies:
            self.cookies = _checked_cookies(cookies)
        if meta:
            self._meta = _checked_data("meta", meta)
        if cb_kwargs:
            self._cb_kwargs = _checked_data("cb_kwargs", cb_kwargs)
        self.priority = priority
        self.dont_filter = dont_filter
        self.delay = delay
        self.timeout = timeout
        if priority or delay or timeout is not None:
            check_numbers(self)
        if proxy is not None:
            self.proxy = _checked_proxy(proxy)
        self.downloader = downloader
        if form is not None or json is not None:
            self._encode_body(form, json)

    @classmethod
    def link(cls, url: str, callback: CallbackLike = None) -> Request:
        """Make a plain GET request of a URL already in normal form: the quick way for the many links of a page."""
        request = cls.__new__(cls)
        request.url = url
        request.callback = callback
        return request

    if TYPE_CHECKING:
        host: str
        origin: str
    else:
        host = _OfUrl()
        origin = _OfUrl()

    @property
    def meta(self) -> dict[str, Any]:
        """The user's own data, handed on to the callback."""
        if self._meta is None:
            self._meta = {}
        return self._meta

    @meta.setter
    def meta(self, value: dict[str, Any]) -> None:
        self._meta = value

    @property
    def cb_kwargs(self) -> dict[str, Any]:
        """The callback's further arguments, by name."""
        if self._cb_kwargs is None:
            self._cb_kwargs = {}
        return self._cb_kwargs

    @cb_kwargs.setter
    def cb_kwargs(self, value: dict[str, Any]) -> None:
        self._cb_kwargs = value

    @property
    def is_bare(self) -> bool:
        """Whether it carries nothing that is the spider's: no callback, data or downloader."""
        return (
            self.callback is None
            and self.errback is None
            and self.downloader is None
            and not self._meta
            and not self._cb_kwargs
        )

    @property
    def has_data(self) -> bool:
        """Whether there is anything in ``meta`` or ``cb_kwargs``; it makes neither."""
        return bool(self._meta or self._cb_kwargs)

    def replace(self, url: str | None = None, **changes: Any) -> Request:
        """Return a copy with the given attributes changed; ``retries``, ``depth`` and ``redirects`` are kept.

        ``form`` and ``json`` take the place of the body. Raises as the constructor does.
        """
        copy = Request.__new__(Request)
        copy.__dict__.update(self.__dict__)
        if self.has_data:
            copy.meta, copy.cb_kwargs = dict(self.meta), dict(self.cb_kwargs)
        if self.headers is not None:
            copy.headers = Headers(self.headers)
        if url is not None:
            copy.url = _urls.normalize(url)
            copy.__dict__.pop("host", None)
            copy.__dict__.pop("origin", None)
        form, json = changes.pop("form", None), changes.pop("json", None)
        for name, value in changes.items():
            if name not in REQUEST_FIELDS:
                raise TypeError(f"a request has no attribute {name!r} to replace")
            if name in _CHECKS:
                value = _CHECKS[name](value) if value else None
            elif name == "proxy" and value is not None:  # an empty one means something
                value = _checked_proxy(value)
            setattr(copy, name, value)
        check_numbers(copy)
        if form is not None or json is not None:
            if "body" not in changes:
                copy.body = None
                if copy.headers is not None and "headers" not in changes:
                    copy.headers.popall("Content-Type", None)
            copy._encode_body(form, json)
        return copy

    def complete(self, headers: Mapping[str, str], **changes: Any) -> Request:
        """Return a copy for one sending: with those of ``headers`` that it lacks, and the given attributes changed.

        Of that nothing is kept: ``restore`` undoes it. Raises as ``replace`` does.
        """
        sent = self.replace(**changes)
        if sent.headers is None:
            sent.headers = Headers()
        for name, value in headers.items():
            if name not in sent.headers:
                sent.headers[name] = value
                sent._added += ((name, value),)
        if changes:
            sent._changed = (*self._changed, *((name, getattr(self, name), getattr(sent, name)) for name in changes))
        return sent

    def restore(self) -> Request:
        """Return the request without what ``complete`` gave it, as far as it is still so; itself where that is nothing."""
        if not (self._added or self._changed):
            return self
        kept = self.replace()
        kept._added = kept._changed = ()
        if kept.headers is not None:
            for name, value in self._added:
                if kept.headers.get(name) == value:
                    del kept.headers[name]
            kept.headers = kept.headers or None
        for name, before, after in reversed(self._changed):
            if getattr(kept, name) == after:
                setattr(kept, name, before)
        return kept

    @property
    def fingerprint(self) -> bytes:
        """The 16 bytes by which dedupe knows this request again: of its URL, method and body."""
        if self.method == "GET" and self.body is None:
            return _known_marks.get(self.url) or _urls.mark_of(self.url)
        return _urls.fingerprint(self.url, self.method, self.body)

    def __repr__(self) -> str:
        return f"<{self.method} {self.url}>"

    def _encode_body(self, form: Any, json: Any) -> None:
        if self.body is not None or (form is not None and json is not None):
            raise RequestError(f"{self!r}: give one of body, form and json")
        if form is not None:
            try:
                pairs = list(form.items() if isinstance(form, Mapping) else form)
                for name, value in pairs:
                    if value is None:  # what a selector did not find, most often
                        raise ValueError(f'{name!r} is None: leave it out, or write ""')
                self.body, kind = urlencode(pairs, doseq=True).encode(), "application/x-www-form-urlencoded"
            except (TypeError, ValueError) as error:
                raise RequestError(f"{self!r}: form= cannot be encoded: {error}") from None
        else:
            try:
                self.body, kind = msgspec.json.encode(json), "application/json"
            except (TypeError, ValueError) as error:
                raise RequestError(f"{self!r}: json= cannot be encoded: {error}") from None
        if self.method == "GET":
            self.method = "POST"
        self.headers = self.headers if self.headers is not None else Headers()
        self.headers.setdefault("Content-Type", kind)


REQUEST_FIELDS = tuple(
    {name for name in Request.__annotations__ if not name.startswith("_")} - {"host"} | {"meta", "cb_kwargs"}
)
"""Every attribute of a request but ``host``, which follows from the URL."""


class Response:
    """What came back for a request, whole. The document is parsed once, when first asked for.

    ``url`` is the final URL, ``body`` the decompressed bytes, ``elapsed`` the seconds from sending to the last byte,
    ``ip_address`` the peer's address, ``protocol`` such as ``HTTP/1.1``; ``from_cache`` is true where no server was asked.
    """

    __slots__ = (
        "_base",
        "_encoding",
        "_heavy",
        "_selector",
        "_text",
        "_unfit",
        "body",
        "elapsed",
        "from_cache",
        "headers",
        "ip_address",
        "protocol",
        "request",
        "status",
        "url",
    )

    def __init__(
        self,
        url: str,
        *,
        request: Request,
        status: int = 200,
        headers: CIMultiDictProxy[str] | CIMultiDict[str] | Mapping[str, str] | None = None,
        body: bytes = b"",
        elapsed: float = 0.0,
        ip_address: str | None = None,
        protocol: str = "HTTP/1.1",
        from_cache: bool = False,
    ) -> None:
        self.url = url
        self.request = request
        self.status = status
        self.headers: CIMultiDict[str] | CIMultiDictProxy[str] = (
            headers if isinstance(headers, (CIMultiDict, CIMultiDictProxy)) else Headers(headers or {})
        )
        self.body = body
        self.elapsed = elapsed
        self.ip_address = ip_address
        self.protocol = protocol
        self.from_cache = from_cache
        self._base: _urls.Base | None = None
        self._encoding: str | None = None
        self._heavy: bool | None = None
        self._selector: Selector | None = None
        self._text: str | None = None
        self._unfit: ValueError | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """The request's ``meta``."""
        return self.request.meta

    @property
    def cb_kwargs(self) -> dict[str, Any]:
        """The request's ``cb_kwargs``."""
        return self.request.cb_kwargs

    @property
    def encoding(self) -> str:
        """The codec of the body: by byte order mark, Content-Type, the document's own word, then its bytes."""
        if self._encoding is None:
            self._encoding = documents.detect_encoding(self.body, self.headers.get("Content-Type"))
        return self._encoding

    @property
    def text(self) -> str:
        """The body as text; bytes that do not fit the encoding become U+FFFD, as in a browser."""
        if self._text is None:
            text = self.body.decode(self.encoding, "replace")
            self._text = text[1:] if text.startswith("\ufeff") else text
        return self._text

    @property
    def selector(self) -> Selector:
        """The parsel Selector of the whole document: HTML, XML, JSON or text by Content-Type and URL."""
        if self._selector is None:
            if self._unfit is not None:
                raise self._unfit
            kind = documents.document_type(self.headers.get("Content-Type", ""), self.url)
            self._selector = documents.parse(self.body, self.encoding, kind, self._heavy)
        return self._selector

    @property
    def is_heavy(self) -> bool:
        """Whether this is a document, by its Content-Type, that takes long to parse: see ``prepare``."""
        if len(self.body) < _LEAST_HEAVY:
            return False
        if self._heavy is None:
            kind = self.headers.get("Content-Type", "text/html").lower()
            if not ("html" in kind or "xml" in kind):
                return False
            self._heavy = documents.is_heavy(self.body)
        return self._heavy

    def prepare(self) -> None:
        """Parse the document ahead, in a thread: the parser lets the event loop turn meanwhile. Raises nothing."""
        try:
            _ = self.selector
        except ValueError as error:  # it is raised where somebody looks into the document
            self._unfit = error

    def css(self, query: str) -> SelectorList[Selector]:
        """Select by CSS, with parsel's ``::text`` and ``::attr(name)``. Raises ValueError for a bad query."""
        try:
            selector = self._selector
            return (self.selector if selector is None else selector).css(query)
        except (SyntaxError, RuntimeError) as error:  # cssselect's two errors
            raise ValueError(f"not a CSS selector: {query!r}: {error}") from None

    def xpath(self, query: str, **kwargs: Any) -> SelectorList[Selector]:
        """Select by XPath 1.0. Raises ValueError for a bad query."""
        return self.selector.xpath(query, **kwargs)

    def jmespath(self, query: str, **kwargs: Any) -> SelectorList[Selector]:
        """Select from a JSON document by JMESPath."""
        return self.selector.jmespath(query, **kwargs)

    def re(self, regex: str | re.Pattern[str]) -> list[str]:
        """Return all matches of ``regex`` in the document, as parsel's ``Selector.re``."""
        return self.selector.re(regex)

    def json(self) -> Any:
        """Decode the body as JSON. Raises ValueError where it is none."""
        if self.body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return _decode_json(self.text)
        body = self.body[3:] if self.body.startswith(b"\xef\xbb\xbf") else self.body
        try:
            return _decode_json(body)
        except ValueError:  # msgspec's versions differ in what they raise of bytes that are no UTF-8
            if documents.is_utf_8(body):
                raise
        return _decode_json(self.text)

    def urljoin(self, url: str) -> str:
        """Join ``url`` to this page's base URL (its base element or its own URL)."""
        return _urls.join(self._base_url(), url)

    def follow(
        self, url: str | Selector, callback: CallbackLike = None, *, errback: CallbackLike = None, **options: Any
    ) -> Request:
        """Return a request for a link of this page: a relative or absolute URL, or the Selector of an element or attribute.

        ``options`` are Request's. Raises ValueError where the Selector is no link, InvalidURL where its URL is none.
        """
        href = url if isinstance(url, str) else _href_of(url)
        if not isinstance(href, str):
            raise ValueError(f"nothing to follow on {self.url}: {url!r} has no URL")
        joined = self.urljoin(href.strip())
        return Request(joined, callback, errback=errback, **options)

    def follow_all(
        self,
        urls: Iterable[str | Selector | None] | None = None,
        callback: CallbackLike = None,
        *,
        css: str | None = None,
        xpath: str | None = None,
        errback: CallbackLike = None,
        **options: Any,
    ) -> Iterator[Request]:
        """Yield a request for each distinct link: of ``urls``, or of what ``css`` or ``xpath`` selects on this page.

        Elements without an href, and hrefs that are no http(s) URL (``mailto:``, ``javascript:``), are passed over.
        ``options`` are Request's. Raises ValueError unless exactly one of ``urls``, ``css`` and ``xpath`` is given, and for
        ``urls`` that is one text.
        """
        if (urls is None) + (css is None) + (xpath is None) != 2:
            raise ValueError("follow_all() takes exactly one of urls, css and xpath")
        if isinstance(urls, str):  # its characters would be followed
            raise ValueError(f"follow_all() takes a list of URLs, not {urls!r}: follow() takes one, css= a selector")
        if css is not None:
            hrefs: Iterable[str] = self._hrefs(css)
        elif xpath is not None:
            hrefs = _hrefs_of(self.xpath(xpath))
        else:
            assert urls is not None
            hrefs = _hrefs_of(urls)
        at_a_time = _LINKS_AT_A_TIME if urls is None or isinstance(urls, list) else 1
        return Links(self._links_base, hrefs, at_a_time, callback, errback, options)

    def _hrefs(self, css: str) -> Iterable[str]:
        if css == "a" and len(self.body) >= _LARGE and self.selector.type == "html":
            return documents.hrefs_in_turn(self.selector)
        try:
            return documents.select_hrefs(self.selector, css)
        except (SyntaxError, RuntimeError) as error:  # cssselect's two errors
            raise ValueError(f"not a CSS selector: {css!r}: {error}") from None

    def links(self) -> list[str]:
        """Return the distinct http(s) URLs that this page links to (a and area elements), in document order."""
        if documents.document_type(self.headers.get("Content-Type", ""), self.url) != "html":
            return []
        hrefs: list[str] = documents.HREFS(self.selector.root)
        return list(dict.fromkeys(self._links_base().join_all(hrefs)))

    def _links_base(self) -> _urls.Base:
        if self._base is None:
            self._base = _urls.Base(self._base_url())
        return self._base

    def _base_url(self) -> str:
        return _urls.base_of(self.url, documents.base_href(self.body))

    def __repr__(self) -> str:
        return f"<{self.status} {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # What was parsed stays behind: lxml's trees cannot be pickled, and neither can the headers' proxy.
        names = ("status", "body", "elapsed", "ip_address", "protocol", "from_cache")
        options = {name: getattr(self, name) for name in names}
        return partial(Response, **options, request=self.request, headers=Headers(self.headers)), (self.url,)


class Links(Iterator[Request]):
    """What ``follow_all`` gives: a request for each distinct link, in order, made when it is asked for.

    ``base`` gives what ``hrefs`` are joined to, up to ``at_a_time`` of them at once: a page of a million links is not to hold
    up the event loop, nor one that never ends.
    """

    __slots__ = (
        "_ahead",
        "_at_a_time",
        "_base",
        "_callback",
        "_errback",
        "_hrefs",
        "_options",
        "_taken",
        "_urls",
        "is_plain",
    )

    def __init__(
        self,
        base: Callable[[], _urls.Base],
        hrefs: Iterable[str],
        at_a_time: int,
        callback: CallbackLike,
        errback: CallbackLike,
        options: dict[str, Any],
    ) -> None:
        self._base = base
        self._hrefs = iter(hrefs)
        self._at_a_time = at_a_time
        self._ahead = 1  # who drives the callback may ask for the rest, and for some of it, it need not be joined
        self._callback = callback
        self._errback = errback
        self._options = options
        self._taken: set[str] = set()
        self._urls: Iterator[str] = iter(())
        self.is_plain = not options and errback is None
        """Whether the requests differ by their URLs alone: those ``unseen`` may be asked for."""

    def __next__(self) -> Request:
        taken = self._taken
        while True:
            for url in self._urls:
                if url not in taken:
                    taken.add(url)
                    return self._request(url)
            hrefs = list(islice(self._hrefs, self._ahead))
            if not hrefs:
                raise StopIteration
            self._ahead = self._at_a_time
            self._urls = iter(self._base().join_all(hrefs))

    def unseen(self, seen: _urls.SeenLinks) -> tuple[list[Request], Callable[[], None] | None]:
        """Pass some of the links, and return the requests of those that a crawl has not seen yet.

        So whoever drives a callback need not have a request made, and be handed it, for each link that is known. The
        function, where there are any, is to be called when the frontier has all of them: it has ``seen`` remember that.
        """
        self._ahead = 1
        hrefs = [*self._urls, *islice(self._hrefs, self._at_a_time)]
        if not hrefs:
            return [], None
        taken, base = self._taken, self._base()
        found = seen.new_of(base, hrefs)
        new = [url for url in found if url not in taken]
        if not new:
            return [], None
        taken.update(new)
        remember = partial(seen.remember, base, [found[url] for url in new])
        return [Request.link(url, self._callback) for url in new], remember

    def __repr__(self) -> str:
        # Who yields it gets to see this.
        return "<the requests of follow_all(): hand them on with `yield from`>"

    def _request(self, url: str) -> Request:
        if self.is_plain:
            return Request.link(url, self._callback)
        return Request(url, self._callback, errback=self._errback, **self._options)


class HttpError(FetchError):
    """The server answered with a status outside 2xx that the spider does not list in ``handle_httpstatus_list``."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.url, f"HTTP status {response.status}")
        self.response = response
        self.status = response.status

    def __reduce__(self) -> tuple[Any, ...]:
        return HttpError, (self.response,)


def plain(value: Any) -> Any:
    """Return an object of a subclass of str, int, float or bytes, which no encoder takes, as one of that type itself.

    A parser's kind of text, for one. Raises TypeError for any other object.
    """
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int.__int__(value)
        case float():
            return float.__float__(value)
        case bytes():
            return bytes.__bytes__(value)
    raise TypeError(f"a value of type {type(value).__name__} cannot be stored")


def _decode_json(text: bytes | str) -> Any:
    """Decode. Of a large text without the garbage collector, which would look at all that is there time and again.

    10 MB take 60 ms in place of 75, and 0.2 s in place of 2.5 s where they are lists in lists.
    """
    if len(text) < _LARGE or not gc.isenabled():
        return msgspec.json.decode(text)
    gc.disable()
    try:
        return msgspec.json.decode(text)
    finally:
        gc.enable()


def _hrefs_of(links: Iterable[str | Selector | None]) -> Iterator[str]:
    for link in links:
        if isinstance(link, str) or link is None:
            href = link
        elif hasattr(link, "root"):
            href = _href_of(link)
        else:
            raise ValueError(f"follow_all() takes URLs and Selectors, not {link!r}")
        if href is not None:
            yield href


def _href_of(selector: Selector) -> str | None:
    return documents.href_of(getattr(selector, "root", None))


@lru_cache(maxsize=64)
def _checked_method(method: str) -> str:
    if not isinstance(method, str) or not _TOKEN.match(method):
        raise RequestError(f"not an HTTP method: {method!r}")
    return method.upper()


def _checked_body(body: bytes | str) -> bytes:
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"body= cannot be encoded: {error}") from None
    if not isinstance(body, bytes):
        raise RequestError(f"a body is bytes or str, not {type(body).__name__}; see also form= and json=")
    return body


def _checked_data(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(data)
    except (TypeError, ValueError):
        raise RequestError(f"{name}= is a mapping of names to values, not {type(data).__name__}") from None


def _checked_cookies(cookies: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(cookies, Mapping):
        raise RequestError(
            f'cookies= is a mapping of names to values, such as {{"name": "value"}}, not {type(cookies).__name__}'
        )
    for name, value in cookies.items():
        if not isinstance(name, str) or not _TOKEN.match(name):
            raise RequestError(f"not a cookie name: {name!r}")
        if not isinstance(value, str) or _NO_COOKIE_VALUE.search(value):
            raise RequestError(
                f"cookie {name}: a value is a string without semicolons and control characters, not {value!r}"
            )
    return dict(cookies)


def _checked_proxy(proxy: str) -> str:
    if not isinstance(proxy, str):
        raise RequestError(f"a proxy is a URL, not {type(proxy).__name__}")
    if proxy:
        _urls.check_proxy(proxy)
    return proxy


def check_numbers(request: Request) -> None:
    """Raise RequestError where its priority, delay or timeout cannot be one."""
    if not isinstance(request.priority, int) or not -(2**62) < request.priority < 2**62:
        raise RequestError(f"{request!r}: priority is an int of 62 bits, not {request.priority!r}")
    for name, seconds in (("delay", request.delay), ("timeout", request.timeout)):
        if seconds is not None and not (isinstance(seconds, (int, float)) and 0 <= seconds < math.inf):
            raise RequestError(f"{request!r}: {name} is a number of seconds, 0 or more, not {seconds!r}")


def _checked_headers(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
    try:
        pairs = [(name, value) for name, value in (headers.items() if isinstance(headers, Mapping) else headers)]
    except (TypeError, ValueError):
        raise RequestError(f"headers= is a mapping or pairs, not {type(headers).__name__}") from None
    checked = Headers()
    for name, value in pairs:
        if not isinstance(name, str) or not _TOKEN.match(name):
            raise RequestError(f"not a header name: {name!r}")
        if not isinstance(value, str) or _LINE_BREAK.search(value):
            raise RequestError(
                f"header {name}: a value is a string without line breaks, NUL or surrogates, not {value!r}"
            )
        checked.add(name, value)
    return checked


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "method": _checked_method,
    "headers": _checked_headers,
    "body": _checked_body,
    "cookies": _checked_cookies,
    "meta": partial(_checked_data, "meta"),
    "cb_kwargs": partial(_checked_data, "cb_kwargs"),
}
"""What ``Request.replace`` sends a new value through."""
