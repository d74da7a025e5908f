"""The middlewares that settings list: their order, the user's own among them, and what is said of a slip."""

from __future__ import annotations

from typing import Any

import pytest

from scraper import Response, Spider
from scraper.errors import SettingsError, UsageError
from scraper.layers import mapping_layer, merge
from tests.conftest import Crawls
from tests.servers import Site, in_loop

OWN = """
from scraper import Response

trace = []


class Note:
    def __init__(self, name, answer=False):
        self.name, self.answer = name, answer

    def open(self, spider):
        trace.append(f"open {self.name}")

    async def close(self, spider):
        trace.append(f"close {self.name}")

    def __call__(self, handle):
        async def note(request):
            trace.append(self.name)
            if self.answer and request.url.endswith("/made-up"):
                return Response(request.url, request=request, body=b"from nowhere")
            return await handle(request)

        return note


class Second(Note):
    pass


class Shy:
    def __init__(self):
        raise ValueError("not today")
"""


class Pages(Spider):
    name = "pages"

    def parse(self, response: Response) -> Any:
        yield {"text": response.text}


@pytest.fixture
def notes(empty_folder: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a module of middlewares to import."""
    (empty_folder / "notes.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(empty_folder))
    monkeypatch.delitem(__import__("sys").modules, "notes", raising=False)


@pytest.mark.usefixtures("notes")
@in_loop
async def test_own_middlewares_wrap_in_the_order_listed(crawled: Crawls) -> None:
    """The first listed is the outermost; arguments come from the part's table; open and close are called."""
    async with Site({"/": "hello", "/gone": 503}) as site:
        Pages.start_urls = [site.url("/")]
        settings = {
            "middlewares": {
                "order": ["notes:Note", "retry", "notes:Second", "decompress"],
                "notes:Note": {"name": "outer"},
                "notes:Second": {"name": "inner"},
            },
            "politeness.robots": False,
        }
        await crawled(Pages, settings)
    import notes  # type: ignore[import-not-found]

    assert notes.trace == ["open outer", "open inner", "outer", "inner", "close outer", "close inner"]


@pytest.mark.usefixtures("notes")
@in_loop
async def test_a_middleware_may_answer_itself(crawled: Crawls) -> None:
    """What it returns is the response; no server is asked."""
    Pages.start_urls = ["http://nowhere.invalid/made-up"]
    settings = {
        "middlewares": {"order": ["notes:Note"], "notes:Note": {"name": "one", "answer": True}},
        "politeness.robots": False,
    }
    result = await crawled(Pages, settings)
    assert result.items == [{"text": "from nowhere"}]


@in_loop
async def test_a_name_left_out_is_not_there(crawled: Crawls) -> None:
    """Without "retry" a 503 is tried once."""
    async with Site({"/": "hello", "/gone": 503}) as site:
        Pages.start_urls = [site.url("/gone")]
        result = await crawled(Pages, {"middlewares.order": ["decompress"], "politeness.robots": False})
    assert (result.stats["requests"], result.stats["retries"]) == (1, 0)


@in_loop
async def test_without_decompress_nothing_packed_is_asked_for(crawled: Crawls) -> None:
    """Nobody would unpack it."""
    async with Site({"/": "hello"}) as site:
        Pages.start_urls = [site.url("/")]
        await crawled(Pages, {"middlewares.order": ["retry"]})
        await crawled(Pages, {"middlewares.order": ["decompress"]})
        assert [asked.headers["Accept-Encoding"] for asked in site.asked] == ["identity", "gzip, deflate, br, zstd"]


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ({"hosts": {"example.com": {"delay": 1}}}, "hosts"),
        ({"headers": {"X-A": "b"}}, "headers"),
        ({"auth": {"https://example.com": {"token": "t"}}}, "auth"),
        ({"proxies.urls": ["http://127.0.0.1:1"]}, "proxy"),
    ],
)
def test_an_order_without_what_the_settings_need(setting: dict[str, Any], name: str) -> None:
    """Headers, credentials and proxies are not left out because the list names one's own middleware alone."""
    layer = mapping_layer({"middlewares.order": ["notes:Note", "decompress"], **setting}, "here")
    with pytest.raises(SettingsError, match=rf'^here: middlewares\.order lacks "{name}", which the settings of'):
        merge([layer])


@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"order": ["retry", "cokies"]}, ["middlewares.order", '"cokies"', "did you mean cookies?"]),
        ({"order": ["notes:Gone"]}, ["notes:Gone", "has no Gone"]),
        ({"order": ["nothing:Here"]}, ["cannot import nothing:Here"]),
        ({"order": ["notes:Shy"]}, ['[middlewares."notes:Shy"]', "not today"]),
        ({"order": ["notes:Note"], "notes:Note": {"nmae": "x"}}, ["unknown argument nmae", "did you mean name?"]),
        ({"notes:Note": {"name": "x"}}, ['[middlewares."notes:Note"] is not in middlewares.order']),
        ({"retry": {"retries": 5}}, ['[middlewares."retry"] is built in: other sections have its settings']),
        ({"order": "retry"}, ["middlewares.order = 'retry'"]),
    ],
)
@in_loop
async def test_a_slip_is_one_clear_line(crawled: Crawls, table: dict[str, Any], words: list[str]) -> None:
    """What is wrong with the list or a table is said before any request, with where it stands."""
    Pages.start_urls = ["http://nowhere.invalid/"]
    with pytest.raises(UsageError) as caught:
        crawled.make(Pages, {"middlewares": table})
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line
