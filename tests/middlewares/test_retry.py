"""Retry: what is tried again, how often, and after how long."""

from __future__ import annotations

import asyncio

import pytest

from scraper import Request, Response
from scraper.contracts import Again
from scraper.errors import (
    BodyTooLarge,
    ConnectError,
    ConnectionLost,
    DecodeError,
    DnsError,
    FetchError,
    FetchTimeout,
    OutOfScope,
    PrivateAddress,
    ProtocolError,
    RobotsDenied,
    TlsError,
)
from scraper.middlewares.retry import Retry

URL = "http://a/"


def fetch(outcome: int | Exception, request: Request | None = None, retry: Retry | None = None) -> Response:
    """Send a request through the middleware to a handler that gives a status or raises."""

    async def handle(request: Request) -> Response:
        if isinstance(outcome, Exception):
            raise outcome
        return Response(request.url, request=request, status=outcome)

    return asyncio.run((retry or Retry(2))(handle)(request or Request(URL)))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 522, 524])
def test_statuses_that_say_later(status: int) -> None:
    """A status that may pass puts the request back, with one try more to its name."""
    with pytest.raises(Again) as caught:
        fetch(status)
    assert caught.value.reason == "retry"
    assert caught.value.request.retries == 1


@pytest.mark.parametrize("status", [200, 204, 301, 304, 400, 401, 403, 404, 410, 501, 505])
def test_other_statuses_are_final(status: int) -> None:
    """A status that will not change is given on at once."""
    assert fetch(status).status == status


@pytest.mark.parametrize("kind", [DnsError, ConnectError, FetchTimeout, ConnectionLost, ProtocolError])
def test_errors_that_may_pass(kind: type[FetchError]) -> None:
    """A network's hiccup puts the request back; the error that led to it is kept as its cause."""
    error = kind(URL, "x")
    with pytest.raises(Again) as caught:
        fetch(error)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "kind", [TlsError, BodyTooLarge, DecodeError, RobotsDenied, OutOfScope, PrivateAddress, FetchError]
)
def test_errors_that_stay(kind: type[FetchError]) -> None:
    """What a further try cannot mend is raised on."""
    with pytest.raises(kind):
        fetch(kind(URL, "x"))


@pytest.mark.parametrize(("retries", "done", "again"), [(0, 0, False), (2, 1, True), (2, 2, False), (2, 5, False)])
def test_the_tries_come_to_an_end(retries: int, done: int, again: bool) -> None:
    """After so many tries the last answer, or the last error, is the outcome."""
    request = Request(URL)
    request.retries = done
    retry = Retry(retries)
    if again:
        with pytest.raises(Again):
            fetch(503, request, retry)
        with pytest.raises(Again):
            fetch(FetchTimeout(URL, "x"), request, retry)
    else:
        assert fetch(503, request, retry).status == 503
        with pytest.raises(FetchTimeout):
            fetch(FetchTimeout(URL, "x"), request, retry)


def test_wanted_statuses_are_not_retried() -> None:
    """A status the spider handles itself comes to it at once."""
    assert fetch(503, retry=Retry(2, frozenset({503}))).status == 503


@pytest.mark.parametrize(("done", "usual_s"), [(0, 0.5), (1, 1.0), (2, 2.0), (5, 16.0), (10, 60.0), (100, 60.0)])
def test_the_wait_doubles(done: int, usual_s: float) -> None:
    """Each wait is twice the last, up to a minute, and half to one and a half times that."""
    request = Request(URL)
    request.retries = done
    waits = set()
    for _ in range(20):
        with pytest.raises(Again) as caught:
            fetch(503, request, Retry(1000))
        waits.add(caught.value.delay)
    assert all(0.5 * usual_s <= wait <= 1.5 * usual_s for wait in waits)
    assert len(waits) > 1


def test_the_request_goes_back_as_it_was() -> None:
    """Method, body, headers, meta and redirects of a retried request are its own; the first request is left alone."""
    request = Request(URL, method="POST", body="x", headers={"A": "b"}, meta={"k": 1}, priority=3, dont_filter=True)
    request.redirects = ("http://z/",)
    with pytest.raises(Again) as caught:
        fetch(500, request)
    again = caught.value.request
    assert (again.method, again.body, dict(again.headers or {})) == ("POST", b"x", {"A": "b"})
    assert (again.meta, again.priority, again.dont_filter, again.redirects) == ({"k": 1}, 3, True, ("http://z/",))
    assert again.fingerprint == request.fingerprint
    assert request.retries == 0


@pytest.mark.parametrize(("status", "header", "least_s"), [(429, "7", 7), (503, "7", 7), (500, "7", 7), (503, "0", 0)])
def test_retry_after(status: int, header: str, least_s: float) -> None:
    """The retry comes no sooner than Retry-After says, and no sooner than without it."""

    async def handle(request: Request) -> Response:
        return Response(request.url, request=request, status=status, headers={"Retry-After": header})

    retry = Retry(2, retry_after_s=float)
    with pytest.raises(Again) as caught:
        asyncio.run(retry(handle)(Request(URL)))
    assert caught.value.delay >= max(least_s, 0.25)
