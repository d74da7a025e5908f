"""Auth: who gets the credentials, and who never does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scraper import Request, Response
from scraper.contracts import Again
from scraper.errors import SettingsError
from scraper.layers import environment_layer, mapping_layer, merge, option_layer
from scraper.middlewares.auth import Auth
from scraper.middlewares.redirect import Redirect
from scraper.settings import Auth as Credentials
from scraper.settings import Settings

AUTH = Auth({"https://a.com": "Bearer t", "http://127.0.0.1:8000": "Basic eDp5"})


def sent(url: str, **options: Any) -> list[str]:
    """Send a request through the middleware; return the Authorization headers that go out."""
    out: list[Request] = []

    async def handle(request: Request) -> Response:
        out.append(request)
        return Response(request.url, request=request)

    request = Request(url, **options)
    asyncio.run(AUTH(handle)(request))
    assert "Authorization" not in (options.get("headers") or {}) or request is out[0]
    return out[0].headers.getall("Authorization", []) if out[0].headers is not None else []


@pytest.mark.parametrize(
    ("url", "values"),
    [
        ("https://a.com/", ["Bearer t"]),
        ("https://A.com:443/deep?q", ["Bearer t"]),
        ("http://127.0.0.1:8000/x", ["Basic eDp5"]),
        ("http://127.0.0.1:8001/x", []),
        ("http://a.com/", []),
        ("https://a.com:8443/", []),
        ("https://www.a.com/", []),
        ("https://a.com.evil.org/", []),
        ("https://a.com@evil.org/", []),
        ("https://u:p@a.com/", []),
    ],
)
def test_one_origin(url: str, values: list[str]) -> None:
    """Scheme, host and port must all be the same; a URL with credentials of its own goes as it is."""
    assert sent(url) == values


def test_a_requests_own_header_wins() -> None:
    """A request that brings an Authorization header is sent with that."""
    assert sent("https://a.com/", headers={"authorization": "Mine"}) == ["Mine"]
    assert sent("https://a.com/", headers={"X": "y"}) == ["Bearer t"]


def test_what_goes_back_to_the_frontier_has_no_credentials() -> None:
    """Behind redirect, neither the request nor the one in its place has them; the next hop gets its own origin's or none."""
    out: list[Request] = []

    async def handle(request: Request) -> Response:
        out.append(request)
        return Response(request.url, request=request, status=302, headers={"Location": "https://b.com/"})

    request = Request("https://a.com/", headers={"X": "y"})
    with pytest.raises(Again) as caught:
        asyncio.run(Redirect(20)(AUTH(handle))(request))
    assert "Authorization" in (out[0].headers or {})
    assert dict(request.headers or {}) == dict(caught.value.request.headers or {}) == {"X": "y"}


def made(table: Any) -> Settings:
    """Settings with this [auth] section."""
    return merge([mapping_layer({"auth": table}, "settings.toml")])


@pytest.mark.parametrize(
    ("table", "header"),
    [
        ({"user": "ada", "password": "x:y"}, "Basic YWRhOng6eQ=="),
        ({"user": "ü", "password": "€"}, "Basic w7w64oKs"),
        ({"user": "ada"}, "Basic YWRhOg=="),
        ({"user": "ada", "password": "$$P"}, "Basic YWRhOiRQ"),
        ({"user": "$NAME", "password": "$PASS"}, "Basic YWRhOiRhJGI="),
        ({"token": "$PASS"}, "Bearer $a$b"),
        ({"token": "abc.def-_~+/=="}, "Bearer abc.def-_~+/=="),
    ],
)
def test_headers(table: dict[str, str], header: str) -> None:
    """User and password make a basic header (RFC 7617), a token a bearer one; "$NAME" is of the environment."""
    (auth,) = made({"HTTPS://A.com:443": table}).auth.values()
    assert auth.header("here", {"NAME": "ada", "PASS": "$a$b"}) == header
    assert "ada" not in repr(auth)


def test_tables_are_by_origin() -> None:
    """An origin is written as it is in URLs; a later source takes the place of an earlier one's table."""
    layers = [mapping_layer({"auth": {f"https://{host}": {"token": host}}}, host) for host in ("a.com", "B.com:443")]
    layers.append(mapping_layer({"auth": {"https://a.com/": {"user": "x"}}}, "spider"))
    settings = merge(layers)
    assert settings.auth == {"https://a.com": Credentials("x"), "https://b.com": Credentials(token="B.com:443")}
    assert settings.origins["auth.https://a.com"] == "spider"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"example.com": {"token": "secret"}}, ['[auth."https://example.com"]']),
        ({"https://a.com/x": {"token": "secret"}}, ['[auth."https://example.com"]']),
        ({"https://u:secret@a.com": {"token": "secret"}}, ['[auth."https://example.com"]']),
        ({"ftp://a.com": {"token": "secret"}}, ['[auth."https://example.com"]']),
        ({"token": "secret"}, ['[auth."https://example.com"]']),
        ({"https://a.com": {"pasword": "secret"}}, ["unknown setting pasword", "did you mean password?"]),
        ({"https://a.com": {"token": 5}}, ["expected str, got int"]),
        ({"https://a.com": {}}, ["give user and password, or token"]),
        ({"https://a.com": {"user": "x", "token": "secret"}}, ["give user and password, or token"]),
        ({"https://a.com": {"user": "x:y", "password": "secret"}}, ["no colon"]),
        ({"https://a.com": {"user": "x", "password": "secret\r\nX: y"}}, ["control characters"]),
        ({"https://a.com": {"token": "secret word"}}, ["without spaces"]),
        ({"https://a.com": {"token": "$NOT_THERE"}}, ["no variable NOT_THERE"]),
    ],
)
def test_a_slip_is_one_clear_line(table: Any, words: list[str]) -> None:
    """What is wrong with a table is said with its place, and without what is secret in it."""
    with pytest.raises(SettingsError) as caught:
        [auth.header(f'settings.toml: [auth."{name}"]', {}) for name, auth in made(table).auth.items()]
    line = str(caught.value)
    assert line.startswith("settings.toml: ")
    assert "\n" not in line
    assert "secret" not in line
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    "layer", [option_layer(["auth.token=secret"]), environment_layer({"SCRAPE_AUTH__X": "secret"})]
)
def test_credentials_are_no_options(layer: Any) -> None:
    """On the command line anybody could read them: they are written in a file."""
    with pytest.raises(SettingsError, match=r"auth: write a table for each origin") as caught:
        merge([layer])
    assert "secret" not in str(caught.value)
