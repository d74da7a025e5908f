"""Tries again what may pass: lost connections, timeouts, and statuses that say "later"."""

from __future__ import annotations

from collections.abc import Callable
from random import random

from scraper.contracts import Again, Handler
from scraper.errors import FetchError
from scraper.http import Request, Response

STATUSES = frozenset({408, 429, 500, 502, 503, 504, 522, 524})
_MAX_DELAY_S = 60.0


class Retry:
    """Sends a request back to the frontier up to ``retries`` times, after ``base_s`` × 2ⁿ seconds, with jitter.

    The jitter (half to one and a half times) keeps requests that failed together from returning together. ``wanted``
    statuses are the spider's own business and are never retried. ``retry_after_s`` reads a Retry-After header (RFC 9110
    section 10.2.3) as seconds, capped: the retry comes no sooner, whether the host as a whole is held or not.
    """

    def __init__(
        self,
        retries: int,
        wanted: frozenset[int] = frozenset(),
        base_s: float = 0.5,
        retry_after_s: Callable[[str], float] = lambda _: 0.0,
    ) -> None:
        self._retries = retries
        self._retried = STATUSES - wanted
        self._base_s = base_s
        self._retry_after_s = retry_after_s

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``."""

        async def retry(request: Request) -> Response:
            try:
                response = await handle(request)
            except FetchError as error:
                if error.retryable and request.retries < self._retries:
                    raise self._again(request) from error
                raise
            if response.status in self._retried and request.retries < self._retries:
                raise self._again(request, response)
            return response

        return retry

    def _again(self, request: Request, response: Response | None = None) -> Again:
        delay = min(self._base_s * 2**request.retries, _MAX_DELAY_S) * (0.5 + random())
        if response is not None and "Retry-After" in response.headers:
            delay = max(delay, self._retry_after_s(response.headers["Retry-After"]))
        return Again(request.replace(retries=request.retries + 1), "retry", delay, response)
