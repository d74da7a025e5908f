"""A spider's typed arguments, its start requests, and what it may ask of its run."""

from __future__ import annotations

import asyncio
import enum
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

import pytest

from scraper import Request, Response, Spider
from scraper.errors import ArgumentError, SpiderError
from scraper.log import Log
from scraper.settings import Settings
from scraper.spider import Argument, Engine, arguments_of, convert, make_spider
from scraper.stats import Stats


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


CONVERTED: list[tuple[Any, Any, Any]] = [
    (int, "3", 3),
    (int, "-3", -3),
    (int, 3, 3),
    (float, "3", 3.0),
    (float, "1e3", 1000.0),
    (float, 2, 2.0),
    (bool, "true", True),
    (bool, "True", True),
    (bool, "1", True),
    (bool, "YES", True),
    (bool, "on", True),
    (bool, "false", False),
    (bool, "0", False),
    (bool, "no", False),
    (bool, "off", False),
    (bool, True, True),
    (str, "5", "5"),
    (str, "", ""),
    (str, "null", "null"),
    (str, "a,b", "a,b"),
    (list, "a,b", ["a", "b"]),
    (list[str], "a, b,,c ", ["a", "b", "c"]),
    (list[str], "", []),
    (list[int], "1,2", [1, 2]),
    (list[int], [1, 2], [1, 2]),
    (list[float], "1,2.5", [1.0, 2.5]),
    (list[bool], "yes,0", [True, False]),
    (list[Colour], "red,blue", [Colour.RED, Colour.BLUE]),
    (list[Path], "a,b", [Path("a"), Path("b")]),
    (list[date], "2024-01-02", [date(2024, 1, 2)]),
    (list[Literal["a", "b"]], "b,a", ["b", "a"]),
    (Literal["a", "b"], "b", "b"),
    (Literal[1, 2], "2", 2),
    (Colour, "red", Colour.RED),
    (Colour, Colour.RED, Colour.RED),
    (Level, "1", Level.LOW),
    (date, "2024-02-29", date(2024, 2, 29)),
    (date, date(2024, 2, 29), date(2024, 2, 29)),
    (Path, "a/b", Path("a/b")),
    (Path, Path("a/b"), Path("a/b")),
    (Optional[int], "3", 3),  # noqa: UP045 - people write it
    (int | None, "3", 3),
    (int | None, None, None),
    (int | None, "none", None),
    (date | None, "None", None),
    (Literal["none", "all"] | None, "none", "none"),
    (str | None, "none", "none"),
    (str | None, "x", "x"),
    (bool | None, "off", False),
    (list[int] | None, "1,2", [1, 2]),
    (Path | None, "x", Path("x")),
    (Colour | None, "blue", Colour.BLUE),
    (date | None, "2024-01-02", date(2024, 1, 2)),
]


@pytest.mark.parametrize(("kind", "given", "value"), CONVERTED)
def test_arguments_convert(kind: Any, given: Any, value: Any) -> None:
    """Text from a command line, or a value from Python, becomes the type that the spider declares."""
    found = convert(Argument("x", kind), given, "s")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "given", "type_name"),
    [
        (int, "three", "an int"),
        (int, "3.5", "an int"),
        (int, "", "an int"),
        (int, True, "an int"),
        (float, "fast", "a float"),
        (bool, "maybe", "a bool"),
        (bool, "", "a bool"),
        (list[int], "1,x", "a list[int]"),
        (list[Colour], "red,green", "one of list['red' | 'blue']"),
        (Literal["a", "b"], "c", "one of 'a' | 'b'"),
        (Colour, "green", "one of 'red' | 'blue'"),
        (date, "2023-02-29", "a date"),
        (date, "tomorrow", "a date"),
        (Optional[int], "x", "an int | None"),  # noqa: UP045 - people write it
        (str, 5, "a str"),
        (Path, 5, "a Path"),
        (object, "x", "an object"),
    ],
)
def test_arguments_that_do_not_convert(kind: Any, given: Any, type_name: str) -> None:
    """What does not fit is one line with spider, argument, value and type."""
    with pytest.raises(ArgumentError) as caught:
        convert(Argument("x", kind), given, "books")
    message = str(caught.value)
    assert message.startswith(f'spider "books": argument x={given!r} is not {type_name} (')
    assert "\n" not in message


class Parent(Spider):
    """A spider with arguments of its own."""

    name = "parent"
    max_pages: int = 50
    tags: list[str] = []
    needed: str
    shared: ClassVar[int] = 1
    _private: int = 2
    plain = 3
    start_urls: list[str] = ["http://a/"]
    allowed_domains: list[str] = ["a"]


class Child(Parent):
    """One that changes, adds and settles some."""

    name = "child"
    max_pages: int = 5
    needed = "given"
    extra: float | None = None


def test_annotated_public_attributes_are_arguments() -> None:
    """Class variables, private and unannotated attributes, and the framework's own names are no arguments."""
    assert list(arguments_of(Parent)) == ["max_pages", "tags", "needed"]
    assert arguments_of(Parent)["max_pages"] == Argument("max_pages", int, 50)
    assert arguments_of(Parent)["needed"].required


def test_arguments_are_inherited() -> None:
    """A subclass has its parents' arguments, with its own types and defaults."""
    found = arguments_of(Child)
    assert list(found) == ["max_pages", "tags", "needed", "extra"]
    assert (found["max_pages"].default, found["needed"].required, found["needed"].default) == (5, False, "given")
    assert found["extra"].type_name == "float | None"


def test_making_a_spider() -> None:
    """Given arguments become the spider's attributes, of the right type; the others keep their defaults."""
    spider = make_spider(Child, {"max_pages": "3", "tags": "a,b"})
    assert isinstance(spider, Child)
    assert (spider.max_pages, spider.tags, spider.needed, spider.extra) == (3, ["a", "b"], "given", None)
    assert Child.max_pages == 5


def test_required_arguments() -> None:
    """An argument without a default has to be given, and the message shows how."""
    with pytest.raises(ArgumentError, match=r'spider "parent" needs -a needed=…'):
        make_spider(Parent, {})


@pytest.mark.parametrize(
    ("cls", "name", "words"),
    [
        (Child, "max_page", 'did you mean "max_pages"?'),
        (Child, "colour", "it has max_pages, tags, needed, extra"),
        (Child, "shared", "no argument"),
        (Child, "_private", "no argument"),
        (Child, "plain", "no argument"),
        (Child, "start_urls", "no argument"),
        (Child, "name", "no argument"),
        (Spider, "tag", "it has none"),
    ],
)
def test_unknown_arguments(cls: type[Spider], name: str, words: str) -> None:
    """An unknown name is one line with the nearest right one, or all there are."""
    with pytest.raises(ArgumentError) as caught:
        make_spider(cls, {"needed": "x", name: "1"} if cls is Parent else {name: "1"})
    assert f'has no argument "{name}"' in str(caught.value)
    assert words in str(caught.value)


class WithInit(Spider):
    """A spider in Scrapy's manner."""

    name = "init"

    def __init__(self, category: Any = None, pages: int = 1, *args: Any, need: Level, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen = (category, pages, need)


def test_init_parameters_are_arguments() -> None:
    """Parameters of __init__ count as arguments, converted where they have a type; star ones do not."""
    assert list(arguments_of(WithInit)) == ["category", "pages", "need"]
    assert make_spider(WithInit, {"pages": "3", "need": "1", "category": "x"}).seen == ("x", 3, Level.LOW)  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match="need="):
        make_spider(WithInit, {})


class NoTypes(Spider):
    """A spider whose parameter has no type."""

    def __init__(self, tag=None, *args, **kwargs):  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.tag = tag


def test_parameters_without_a_type_are_text() -> None:
    """An untyped parameter takes the text as it is."""
    assert make_spider(NoTypes, {"tag": "5"}).tag == "5"  # type: ignore[attr-defined]


class Breaks(Spider):
    """A spider that cannot be made."""

    name = "breaks"

    def __init__(self) -> None:
        raise KeyError("no luck")


class Exits(Spider):
    """A spider that ends the program, as it thinks."""

    name = "exits"

    def __init__(self) -> None:
        raise SystemExit("no key")


class Unresolved(Spider):
    """A spider with a type that is nowhere defined."""

    name = "unresolved"
    x: Nowhere = None  # type: ignore[name-defined] # noqa: F821


def test_a_spider_that_cannot_be_made_is_a_spider_error() -> None:
    """Whatever __init__ raises, and a type that cannot be found, is one line with the spider's name."""
    with pytest.raises(SpiderError, match=r'spider "breaks": __init__ raised KeyError: .no luck'):
        make_spider(Breaks, {})
    with pytest.raises(SpiderError, match=r'spider "exits": __init__ raised SystemExit: no key'):
        make_spider(Exits, {})
    with pytest.raises(SpiderError, match=r'spider "unresolved": cannot resolve an annotation: .*Nowhere'):
        arguments_of(Unresolved)


@pytest.mark.parametrize("name", ["start", "parse", "fetch", "opened", "closed", "attach"])
def test_an_argument_that_hides_a_method(name: str) -> None:
    """A page to start with, say, cannot be called like the method that starts."""
    hiding = type("Hiding", (Spider,), {"name": "hiding", "__annotations__": {name: int}, name: 1})
    with pytest.raises(SpiderError, match=rf'^spider "hiding": {name} = 5 hides its method: name it otherwise$'):
        make_spider(hiding, {name: "5"})


async def collect(spider: Spider) -> list[Any]:
    """Take all that start() yields."""
    return [value async for value in spider.start()]


def test_start_yields_the_start_urls() -> None:
    """Without a start() of its own a spider begins with its start URLs, in order, for parse."""

    class Two(Spider):
        start_urls = ["http://a/2", "http://a/1"]

    requests = asyncio.run(collect(Two()))
    assert [(request.url, request.callback) for request in requests] == [("http://a/2", None), ("http://a/1", None)]


def test_start_requests_of_older_spiders_are_used() -> None:
    """A start_requests method is where an older spider begins."""

    class Older(Spider):
        def start_requests(self) -> Any:
            yield Request("http://b/")

    assert [request.url for request in asyncio.run(collect(Older()))] == ["http://b/"]


def test_what_needs_a_run_says_so() -> None:
    """log, stats, settings and fetch() outside a run, and a missing parse(), are errors with the spider's name."""
    spider = Child()
    for name in ("log", "logger", "stats", "settings"):
        with pytest.raises(SpiderError, match=r'"child" is not running'):
            getattr(spider, name)
    with pytest.raises(SpiderError, match="no parse"):
        spider.parse(Response("http://a/", request=Request("http://a/")))
    with pytest.raises(SpiderError, match="not running"):
        asyncio.run(spider.fetch("http://a/"))


def test_a_running_spider_has_its_runs_parts() -> None:
    """Once attached, the spider's log, stats and settings are the run's, and fetch() makes a Request of a URL."""
    asked = []

    async def fetch(request: Request) -> Response:
        asked.append(request)
        return Response(request.url, request=request)

    engine = Engine(Settings(), Stats(), Log(), fetch)
    spider = Child()
    spider.attach(engine)
    assert (spider.log, spider.logger, spider.stats) == (engine.log, engine.log, engine.stats)
    assert spider.settings.crawl.concurrency == 64
    request = Request("http://a/2")
    assert asyncio.run(spider.fetch("http://a/1")).url == "http://a/1"
    assert asyncio.run(spider.fetch(request)).request is request
    assert [type(each) for each in asked] == [Request, Request]
