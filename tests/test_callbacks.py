"""Running callbacks of all four kinds, and refusing what they yield where it cannot be stored."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from scraper import Request, Response, Spider
from scraper.callbacks import Callbacks, Checker
from scraper.contracts import Lease
from scraper.errors import RequestError
from scraper.items import Page
from scraper.log import current_request

URL = "http://a/"


class Run:
    """Callbacks with a taker that keeps everything, and a door that can be closed."""

    def __init__(self, refuse: Callable[[Any], None] = lambda value: None) -> None:
        self.taken: list[Any] = []
        self.ended: list[Exception | None] = []
        self.open = True
        self.seen: set[str] = set()
        self.refuse = refuse
        self.callbacks = Callbacks(self.take, self.take_links, self.knows, self.unseen, self.end, lambda: self.open)

    def knows(self, request: Request) -> bool:
        return request.url in self.seen

    def unseen(self, urls: Sequence[str], dropped: int) -> list[str]:
        return [url for url in urls if url not in self.seen]

    def take(self, page: Page, value: Any) -> None:
        self.refuse(value)
        self.taken.append(value)

    def take_links(self, page: Page, links: Sequence[Request]) -> bool:
        for link in links:
            self.take(page, link)
        return True

    def end(self, page: Page, error: Exception | None) -> None:
        self.ended.append(error)

    def start(self, callback: Callable[..., Any], **kwargs: Any) -> None:
        """Run a callback on a response."""
        request = Request(URL)
        self.callbacks.run(Page(Lease(request)), callback, Response(URL, request=request), kwargs)

    async def finish(self, turns: int = 1000) -> None:
        """Let the loop turn until a callback has ended."""
        for _ in range(turns):
            if self.ended:
                return
            await asyncio.sleep(0)
        raise AssertionError("the callback never ended")


def run(callback: Callable[..., Any], refuse: Callable[[Any], None] = lambda value: None, **kwargs: Any) -> Run:
    """Run one callback to its end."""

    async def main() -> Run:
        trial = Run(refuse)
        trial.start(callback, **kwargs)
        await trial.finish()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(trial.ended) == 1
        return trial

    return asyncio.run(main())


# -- the kinds of callbacks --------------------------------------------------------------------------------------------


def returns_nothing(response: Response) -> Any:
    return None


def returns_one(response: Response) -> Any:
    return {"n": 1}


def returns_a_request(response: Response) -> Any:
    return Request("http://b/")


def returns_a_list(response: Response) -> Any:
    return [{"n": 1}, {"n": 2}]


def generates(response: Response) -> Any:
    yield {"n": 1}
    yield None
    yield {"n": 2}


async def awaits_nothing(response: Response) -> Any:
    await asyncio.sleep(0)


async def awaits_one(response: Response) -> Any:
    await asyncio.sleep(0)
    return {"n": 1}


async def awaits_a_list(response: Response) -> Any:
    return ({"n": n} for n in (1, 2))


async def generates_asynchronously(response: Response) -> Any:
    yield {"n": 1}
    await asyncio.sleep(0)
    yield {"n": 2}


async def returns_a_generator(response: Response) -> Any:
    return generates_asynchronously(response)


ONE, TWO = [{"n": 1}], [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    ("callback", "given"),
    [
        (returns_nothing, []),
        (returns_one, ONE),
        (returns_a_list, TWO),
        (generates, [{"n": 1}, None, {"n": 2}]),
        (awaits_nothing, []),
        (awaits_one, ONE),
        (awaits_a_list, TWO),
        (generates_asynchronously, TWO),
        (returns_a_generator, TWO),
        (lambda response: {}, [{}]),
        (lambda response: iter(TWO), TWO),
    ],
)
def test_kinds_of_callbacks(callback: Callable[..., Any], given: list[Any]) -> None:
    """A function, a generator, a coroutine and an async generator all give items, requests or nothing."""
    trial = run(callback)
    assert trial.taken == given
    assert trial.ended == [None]


def test_a_single_request_is_taken() -> None:
    """A callback may return one request."""
    (request,) = run(returns_a_request).taken
    assert request.url == "http://b/"


@pytest.mark.parametrize("kind", ["generator", "async generator", "list"])
def test_a_request_that_is_known_is_not_taken(kind: str) -> None:
    """Neither is anything else done about it: it has been counted by whoever knows it."""
    values = [Request("http://a/new"), Request(URL), {"item": 1}, Request("http://a/new too")]

    def generator(response: Response) -> Any:
        yield from values

    async def asynchronous(response: Response) -> Any:
        for value in values:
            yield value

    kinds: dict[str, Callable[..., Any]] = {
        "generator": generator,
        "async generator": asynchronous,
        "list": lambda response: values,
    }

    async def main() -> Run:
        trial = Run()
        trial.seen.add(URL)
        trial.start(kinds[kind])
        await trial.finish()
        return trial

    assert asyncio.run(main()).taken == [values[0], *values[2:]]


def test_keyword_arguments() -> None:
    """cb_kwargs arrive as keyword arguments."""

    def parse(response: Response, page: int, *, tag: str = "") -> Any:
        yield {"url": response.url, "page": page, "tag": tag}

    assert run(parse, page=3, tag="x").taken == [{"url": URL, "page": 3, "tag": "x"}]


def raises(response: Response) -> Any:
    raise ValueError("oh")


def yields_then_raises(response: Response) -> Any:
    yield {"n": 1}
    raise ValueError("oh")


async def awaits_and_raises(response: Response) -> Any:
    await asyncio.sleep(0)
    raise ValueError("oh")


async def yields_then_raises_asynchronously(response: Response) -> Any:
    yield {"n": 1}
    raise ValueError("oh")


@pytest.mark.parametrize(
    ("callback", "given"),
    [(raises, []), (yields_then_raises, ONE), (awaits_and_raises, []), (yields_then_raises_asynchronously, ONE)],
)
def test_a_callback_that_raises(callback: Callable[..., Any], given: list[Any]) -> None:
    """What it gave before counts, and its end comes once, with the error."""
    trial = run(callback)
    assert trial.taken == given
    assert [str(error) for error in trial.ended] == ["oh"]


@pytest.mark.parametrize("value", ["text", b"bytes", 5, object()])
def test_a_callback_that_returns_something_else(value: Any) -> None:
    """What is neither item nor request, nor several of them, is a TypeError."""
    for callback in (lambda response: value, partial(give_later, value)):
        (error,) = run(callback).ended
        assert isinstance(error, TypeError)
        assert type(value).__name__ in str(error)


async def give_later(value: Any, response: Response) -> Any:
    """Return a value from a coroutine."""
    return value


def cancels(response: Response) -> Any:
    raise asyncio.CancelledError


async def cancels_later(response: Response) -> Any:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize("callback", [cancels, cancels_later])
def test_a_cancellation_nobody_asked_for_is_an_error(callback: Callable[..., Any]) -> None:
    """A callback in which something was cancelled comes to an end like any that fails."""
    (error,) = run(callback).ended
    assert isinstance(error, RuntimeError)


@pytest.mark.parametrize(
    "kind",
    [
        lambda n: ({"n": i} for i in range(n)),
        lambda n: [{"n": i} for i in range(n)],
        lambda n: list_later(n),
        lambda n: generate_later(n),
    ],
)
def test_a_callback_that_yields_for_long_lets_the_loop_turn(kind: Callable[[int], Any]) -> None:
    """While a callback of any kind yields for long, the event loop gets its turn again and again."""

    async def main() -> None:
        trial = Run(refuse=lambda value: sum(range(2000)) and None)  # some 20 µs of work an item
        turns = 0
        trial.start(lambda response: kind(5000))
        while not trial.ended:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 4
        assert [item["n"] for item in trial.taken] == list(range(5000))

    asyncio.run(main())


async def list_later(n: int) -> Any:
    """Return a long list from a coroutine."""
    return [{"n": i} for i in range(n)]


async def generate_later(n: int) -> Any:
    """Yield for long without ever waiting."""
    for i in range(n):
        yield {"n": i}


@pytest.mark.parametrize("callback", [generates, generates_asynchronously, awaits_a_list])
def test_callbacks_pause_while_there_is_no_room(callback: Callable[..., Any]) -> None:
    """Without room a callback waits after each thing it gives, and goes on where it was."""

    async def main() -> None:
        trial = Run()
        trial.open = False
        trial.start(callback)
        for _ in range(10):
            await asyncio.sleep(0)
        assert trial.taken == ONE
        trial.callbacks.resume()
        for _ in range(10):
            await asyncio.sleep(0)
        assert trial.taken == ONE
        trial.open = True
        trial.callbacks.resume()
        await trial.finish()
        assert [item for item in trial.taken if item] == TWO

    asyncio.run(main())


def test_the_request_is_known_inside() -> None:
    """While a callback runs, the current request is its own, after a pause too; outside there is none."""
    seen: list[str | None] = []

    def look() -> None:
        request = current_request.get()
        seen.append(request.url if request else None)

    def parse(response: Response) -> Any:
        look()
        yield {"n": 1}
        look()

    async def parse_later(response: Response) -> Any:
        look()
        await asyncio.sleep(0)
        look()

    async def main() -> None:
        trial = Run()
        trial.open = False
        trial.start(parse)
        look()
        trial.open = True
        trial.callbacks.resume()
        trial.start(parse_later)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(trial.ended) == 2
        look()

    asyncio.run(main())
    assert seen == [URL, None, URL, URL, URL, None]


def test_giving_up() -> None:
    """Cancelled, callbacks of every kind give no more, wherever they were: between slices, paused, or waiting."""

    async def main() -> None:
        trial = Run(refuse=lambda value: sum(range(2000)) and None)

        def endless(response: Response) -> Any:
            while True:
                yield {}

        async def endless_later(response: Response) -> Any:
            while True:
                yield {}

        async def waits(response: Response) -> Any:
            await asyncio.get_running_loop().create_future()

        trial.start(endless)
        trial.start(endless_later)
        trial.start(waits)
        trial.open = False
        trial.start(generates)
        trial.open = True
        await asyncio.sleep(0)
        tasks = trial.callbacks.cancel()
        if tasks:
            await asyncio.wait(tasks)
        taken = len(trial.taken)
        trial.callbacks.resume()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(trial.taken) == taken
        assert trial.ended == []

    asyncio.run(main())


# -- what may be yielded -----------------------------------------------------------------------------------------------


def decorated(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method as decorators do that forget functools.wraps."""

    def wrapper(self: Any, response: Response) -> Any:
        return method(self, response)

    return wrapper


class Base(Spider):
    def parse(self, response: Response) -> Any: ...


class Shop(Base):
    name = "shop"
    not_a_method = 5

    def parse(self, response: Response) -> Any:
        yield Request("http://b/", super().parse)

    def parse_book(self, response: Response) -> Any: ...

    async def parse_later(self, response: Response) -> Any: ...

    @decorated
    def parse_list(self, response: Response) -> Any: ...

    def __parse_private(self, response: Response) -> Any: ...

    @property
    def private(self) -> Any:
        return self.__parse_private

    @staticmethod
    def static(response: Response) -> Any: ...

    @classmethod
    def of_class(cls, response: Response) -> Any: ...


def function(response: Response) -> Any:
    """Handle nothing."""


def test_callbacks_are_kept_by_name() -> None:
    """The spider's own methods, given as such or by name, become names; no callback stays none."""
    spider = Shop()
    checker = Checker(spider)
    request = Request("http://b/", spider.parse_book, errback=spider.parse_later)
    checker.check(request)
    assert (request.callback, request.errback) == ("parse_book", "parse_later")
    checker.check(request)
    again = Request("http://b/", spider.parse_book)
    checker.check(again)
    assert (again.callback, again.errback) == ("parse_book", None)


def test_a_method_may_be_called_otherwise_than_its_function() -> None:
    """What a decorator made of one, and a private one, are kept by the names that lead to them."""
    spider = Shop()
    request = Request("http://b/", spider.parse_list, errback=spider.private)
    Checker(spider).check(request)
    assert (request.callback, request.errback) == ("parse_list", "_Shop__parse_private")


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (lambda response: None, "callback is a lambda, not a method of the spider"),
        (function, "callback is 'function', not a method"),
        (partial(function), "callback is 'partial', not a method"),
        (Shop().parse_book, "callback is 'parse_book', not a method"),
        (Shop.parse_book, "callback is 'parse_book', not a method"),
        (Shop.static, "callback is 'static', not a method"),
        (Shop.of_class, "callback is 'of_class', not a method"),
        ("parse_boook", 'callback="parse_boook": the spider has no such method'),
        ("not_a_method", "the spider has no such method"),
        ("", "the spider has no such method"),
    ],
)
def test_what_no_name_leads_back_to_is_refused(callback: Any, words: str) -> None:
    """A lambda, a function, another spider's method: the error names the request and what was given, for errbacks too."""
    spider = Shop()
    checker = Checker(spider)
    checker.check(Request("http://b/", spider.parse_book))
    for role, options in (("callback", {"callback": callback}), ("errback", {"errback": callback})):
        with pytest.raises(RequestError) as caught:
            checker.check(Request("http://b/", **options))
        assert str(caught.value).startswith("<GET http://b/>: ")
        assert words.replace("callback", role, 1) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("priority", 2.5), ("priority", "high"), ("delay", "1"), ("timeout", -1)])
def test_numbers_that_were_set_later(name: str, value: Any) -> None:
    """What the constructor would have refused is refused where the request is yielded."""
    request = Request("http://b/", "parse_book")
    setattr(request, name, value)
    with pytest.raises(RequestError, match=f"<GET http://b/>: {name} is a"):
        Checker(Shop()).check(request)


def test_a_parents_method_under_the_same_name_is_refused() -> None:
    """super().parse would be found again as the spider's own parse: that is refused, not silently another method."""
    spider = Shop()
    (request,) = spider.parse(Response(URL, request=Request(URL)))
    with pytest.raises(RequestError, match="'parse', not a method of the spider"):
        Checker(spider).check(request)


class Text(str):
    """Text as some parsers give it."""


class Number(int):
    """A number of another library's."""


class Score(float):
    """One with a point."""


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (None, None),
        ("ü", "ü"),
        (2**64 - 1, 2**64 - 1),
        ("a\ud800", "a\ufffd"),
        ({"\ud83d\ude00": ["\udfff"]}, {"😀": ["\ufffd"]}),
        (True, True),
        (1.5, 1.5),
        ((1, (2,)), [1, [2]]),
        ([], []),
        ({"a": {"b": [None]}}, {"a": {"b": [None]}}),
        (Text("a"), "a"),
        (Text("ü"), "ü"),
        (Number(7), 7),
        (Score(0.5), 0.5),
    ],
)
def test_json_values_may_be_stored(value: Any, stored: Any) -> None:
    """meta and cb_kwargs hold JSON values; tuples become lists, as they would come back from storage, text plain text."""
    given = {"k": value}
    request = Request("http://b/", meta=given, cb_kwargs=given)
    Checker(Shop()).check(request)
    assert request.meta == {"k": stored}
    assert request.cb_kwargs == {"k": stored}
    assert type(request.meta["k"]) is type(stored)
    assert given == {"k": value}


@pytest.mark.parametrize("role", ["meta", "cb_kwargs"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "['k'] is of type object"),
        (10**30, "['k'] is an integer of more than 64 bits"),
        ({1}, "['k'] is of type set"),
        (b"x", "['k'] is of type bytes"),
        ([1, [{"a": 1j}]], "['k'][1][0]['a'] is of type complex"),
        ({"a": {2: 3}}, "['k']['a'] has the key 2 of type int"),
        (math.nan, "['k'] is nan"),
        ([math.inf], "['k'][0] is inf"),
        (Response(URL, request=Request(URL)), "['k'] is of type Response"),
        (lambda: 1, "['k'] is of type function"),
    ],
)
def test_what_json_cannot_hold_is_refused(role: str, value: Any, words: str) -> None:
    """The error names the request, the way to the value and its type."""
    with pytest.raises(RequestError) as caught:
        Checker(Shop()).check(Request("http://b/", **{role: {"k": value}}))
    assert str(caught.value).startswith(f"<GET http://b/>: {role}{words}")


def check_requests(value: Any) -> None:
    """Refuse what a spider's checker would."""
    if isinstance(value, Request):
        Checker(Shop()).check(value)


def test_a_refused_request_raises_at_its_yield() -> None:
    """The error is raised in the callback, so that the traceback shows the line with the yield."""

    def parse(response: Response) -> Any:
        yield {"n": 1}
        yield Request("http://b/", lambda response: None)  # this line
        yield {"n": 2}

    trial = run(parse, check_requests)
    (error,) = trial.ended
    assert isinstance(error, RequestError)
    assert "this line" in "".join(traceback.format_exception(error))
    assert trial.taken == ONE


def test_a_callback_may_catch_the_refusal() -> None:
    """A generator that catches the error goes on, or ends, as it likes."""

    def goes_on(response: Response) -> Any:
        for n in (1, 2):
            try:
                yield Request("http://b/", lambda response: None)
            except RequestError:
                yield {"n": n}

    def ends(response: Response) -> Any:
        yield {"n": 1}
        try:
            yield Request("http://b/", lambda response: None)
        except RequestError:
            return

    for callback, given in ((goes_on, TWO), (ends, ONE)):
        trial = run(callback, check_requests)
        assert trial.taken == given
        assert trial.ended == [None]


def test_a_refused_request_of_another_kind_of_callback() -> None:
    """Where there is no yield to raise at, the refusal is the callback's error all the same."""

    async def later(response: Response) -> Any:
        yield Request("http://b/", lambda response: None)

    for callback in (later, lambda response: [Request("http://b/", lambda response: None)]):
        (error,) = run(callback, check_requests).ended
        assert isinstance(error, RequestError)


def test_unknown_downloader_is_refused() -> None:
    """A request for a downloader that does not exist is refused where it is yielded, with what there is."""
    with pytest.raises(RequestError, match='no downloader "httpx"; there is aiohttp'):
        Checker(Spider("x")).check(Request("http://a/", downloader="httpx"))
    Checker(Spider("x")).check(Request("http://a/", downloader="aiohttp"))
