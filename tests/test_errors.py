"""The tree of errors: one root, one line each, and the three exceptions that are none."""

from __future__ import annotations

import inspect
import pickle

import pytest

from scraper import Request, Response, errors
from scraper.contracts import Again
from scraper.errors import CloseSpider, DropItem, FetchError, RequestError, ScraperError, UsageError
from scraper.http import HttpError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
FETCH_ERRORS = [kind for kind in CLASSES if issubclass(kind, FetchError)]
RETRYABLE = {"DnsError", "ConnectError", "FetchTimeout", "ConnectionLost", "Truncated", "ProtocolError", "ProxyError"}


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """Every class stands in the drawing at the top of the module, and each but control flow under ScraperError."""
    drawing = errors.__doc__ or ""
    for kind in CLASSES:
        assert kind.__name__ in drawing
        assert issubclass(kind, ScraperError) is (kind not in (DropItem, CloseSpider, Again))


@pytest.mark.parametrize("kind", FETCH_ERRORS)
def test_every_fetch_error_has_its_url(kind: type[FetchError]) -> None:
    """A failed fetch's error carries the URL and is one line that ends with it; each kind says whether to try again."""
    url = "http://a/x"
    response = Response(url, request=Request(url), status=404)
    error = kind(response) if kind is HttpError else kind(url, "what happened")  # type: ignore[call-arg, arg-type]
    assert error.url == url
    assert str(error).endswith(f": {url}")
    assert "\n" not in str(error)
    assert error.retryable is (kind.__name__ in RETRYABLE)


@pytest.mark.parametrize("kind", FETCH_ERRORS)
def test_fetch_errors_can_be_pickled(kind: type[FetchError]) -> None:
    """An error comes whole out of another process: its class, its URL and its words."""
    error = pickle.loads(pickle.dumps(kind("http://a/x", "what happened")))
    assert (type(error), error.url, error.message) == (kind, "http://a/x", "what happened")
    assert str(error) == "what happened: http://a/x"


def test_the_phase_of_a_timeout_and_a_response_can_be_pickled() -> None:
    """A FetchTimeout keeps its phase, an HttpError its response with headers, body and request."""
    assert pickle.loads(pickle.dumps(errors.FetchTimeout("http://a/", "late", "body"))).phase == "body"
    response = Response(
        "http://a/", request=Request("http://a/", meta={"n": 1}), status=503, headers={"X-A": "1"}, body=b"no"
    )
    error = pickle.loads(pickle.dumps(HttpError(response)))
    assert (error.status, error.response.body, error.response.headers["x-a"], error.response.meta) == (
        503,
        b"no",
        "1",
        {"n": 1},
    )


def test_http_errors_carry_the_response() -> None:
    """An HttpError has the response and its status."""
    response = Response("http://a/", request=Request("http://a/"), status=503)
    error = HttpError(response)
    assert (error.response, error.status, str(error)) == (response, 503, "HTTP status 503: http://a/")


@pytest.mark.parametrize("name", ["SettingsError", "SpiderError", "ArgumentError"])
def test_usage_errors(name: str) -> None:
    """What the user typed wrongly can be told from what failed."""
    assert issubclass(getattr(errors, name), UsageError)
    assert not issubclass(getattr(errors, name), FetchError)


def test_request_errors_are_value_errors() -> None:
    """A request that can never be sent is a ValueError to those who know no more."""
    assert issubclass(RequestError, ValueError)


def test_control_flow() -> None:
    """CloseSpider has a reason, one by default; Again has the request that goes on and its delay."""
    request = Request("http://a/")
    assert CloseSpider("enough").reason == "enough"
    assert CloseSpider().reason
    again = Again(request, "retry", 1.5)
    assert (again.request, again.reason, again.delay) == (request, "retry", 1.5)
