"""Default headers: where they are added, where they are not, and what may not be one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scraper import Request, Response
from scraper.errors import SettingsError
from scraper.layers import environment_layer, mapping_layer, merge, option_layer
from scraper.middlewares.headers import DefaultHeaders


def test_a_request_is_completed() -> None:
    """Each header is added unless the request has one of that name; the request itself is left alone."""
    sent: list[Request] = []

    async def handle(request: Request) -> Response:
        sent.append(request)
        return Response(request.url, request=request)

    fetch = DefaultHeaders({"accept-language": "de", "x-client": "me"})(handle)
    own = Request("http://a/", headers={"Accept-Language": "fr"})
    for request in (Request("http://a/"), own):
        asyncio.run(fetch(request))
    assert [dict(each.headers or {}) for each in sent] == [
        {"accept-language": "de", "x-client": "me"},
        {"Accept-Language": "fr", "x-client": "me"},
    ]
    assert dict(own.headers or {}) == {"Accept-Language": "fr"}


def test_where_they_come_from() -> None:
    """A later source wins for a header, in whatever case; Scrapy's own name for them is understood."""
    layers = [
        mapping_layer({"headers": {"Accept-Language": "de", "X-A": "file"}}, "settings.toml"),
        environment_layer({"SCRAPE_HEADERS__X-A": "environment"}),
        mapping_layer({"DEFAULT_REQUEST_HEADERS": {"X-B": "spider"}}, "custom_settings"),
        option_layer(["headers.accept-language=fr"]),
    ]
    settings = merge(layers)
    assert settings.headers == {"accept-language": "fr", "x-a": "environment", "x-b": "spider"}
    assert settings.origins["headers.accept-language"] == "-s"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"User-Agent": "x"}, "politeness.user_agent"),
        ({"authorization": "x"}, r"\[auth."),
        ({"Cookie": "x"}, "every host"),
        ({"X Y": "x"}, "not a header's name"),
        ({"X": "a\r\nY: b"}, "control characters"),
        ({"X": 5}, "a value is text"),
        ("X: y", r"write \[headers\]"),
    ],
)
def test_what_is_refused(table: Any, words: str) -> None:
    """A slip is one line with its place."""
    with pytest.raises(SettingsError, match=words) as caught:
        merge([mapping_layer({"headers": table}, "settings.toml")])
    assert str(caught.value).startswith("settings.toml: headers")
    assert "\n" not in str(caught.value)
