"""What is fetched in another shard comes back as it was."""

from __future__ import annotations

import msgspec
import pytest

from scraper.errors import BodyTooLarge, ConnectError, ConnectionLost, FetchError, FetchTimeout, ProxyError, Truncated
from scraper.http import Headers, HttpError, Request, Response
from scraper.shards.errand import pack, unpack

ODD = "caf\udce9 \ud83d"
"""Text that no UTF-8 can hold: a byte of another encoding, and half a character out of a JSON document."""


def sent(outcome: Response | FetchError, errand: Request, asked: Request) -> Response | FetchError:
    """Return what comes of an outcome on its way to another shard, for the request that was made there."""
    return unpack(msgspec.msgpack.decode(msgspec.msgpack.encode(pack(outcome, errand))), asked)


def test_any_text_travels() -> None:
    """Of headers, URLs and messages."""
    request = Request("http://127.0.0.1/")
    response = Response(f"http://127.0.0.1/{ODD}", request=request, headers=Headers([("X-Name", ODD)]), protocol=ODD)
    found = sent(response, request, request)
    assert isinstance(found, Response)
    assert (found.url, found.headers["x-name"], found.protocol) == (response.url, ODD, ODD)
    error = sent(ConnectError(response.url, ODD), request, request)
    assert isinstance(error, ConnectError)
    assert (error.url, error.message) == (response.url, ODD)


class Odd(FetchTimeout):
    """A middleware's own."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "odd", "proxy")
        self.what = object()


LOST = ConnectionLost("http://127.0.0.1/", "lost")
LOST.is_strain = False


@pytest.mark.parametrize(
    ("error", "kind", "known"),
    [
        (FetchTimeout("http://127.0.0.1/", "slow", "body"), FetchTimeout, {"phase": "body"}),
        (ProxyError("http://127.0.0.1/", "no", 407), ProxyError, {"status": 407}),
        (BodyTooLarge("http://127.0.0.1/", "much", b"\xff", 404), BodyTooLarge, {"head": b"\xff", "status": 404}),
        (LOST, ConnectionLost, {"is_strain": False}),
        (Truncated("http://127.0.0.1/", "short"), Truncated, {}),
        (Odd("http://127.0.0.1/"), FetchTimeout, {"phase": "proxy"}),
    ],
)
def test_an_error_says_all_that_it_said(error: FetchError, kind: type[FetchError], known: dict[str, object]) -> None:
    """It is of its class, or of the one that its own is derived from, with what is known of the failure."""
    request = Request("http://127.0.0.1/")
    found = sent(error, request, request)
    assert type(found) is kind
    assert str(found) == str(error)
    assert vars(found) == {"url": error.url, "message": error.message} | known


def test_the_request_is_the_one_that_was_answered() -> None:
    """It has the callback's own data, however it got there; without a redirect or another try it is the very same."""
    asked = Request("http://127.0.0.1/", print, meta={"o": object()}, cb_kwargs={"k": print}, method="POST", body=b"a")
    errand = Request("http://127.0.0.1/", method="POST", body=b"a")
    final = errand.replace("http://127.0.0.1/2", method="GET", body=None, retries=1)
    final.redirects = (errand.url,)
    for outcome in (Response(final.url, request=final), HttpError(Response(final.url, request=final, status=500))):
        found = sent(outcome, errand, asked)
        response = found.response if isinstance(found, HttpError) else found
        assert isinstance(response, Response)
        request = response.request
        assert (request.url, request.method, request.body, request.retries) == (final.url, "GET", None, 1)
        assert (request.redirects, request.callback) == ((errand.url,), print)
        assert (request.meta, request.cb_kwargs) == (asked.meta, asked.cb_kwargs)
    found = sent(Response(errand.url, request=errand), errand, asked)
    assert isinstance(found, Response)
    assert found.request is asked
