"""The adaptive throttle: asks less of a host that shows strain, and more again when it is well.

Additive increase, multiplicative decrease, as in TCP congestion control (RFC 5681): a 429, a 503 or a timeout halves the
host's slots; a row of good answers gives one back. Retry-After (RFC 9110 section 10.2.3) holds the whole host, capped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Protocol

from scraper.contracts import Handler
from scraper.errors import ConnectionLost, FetchTimeout
from scraper.http import Request, Response

MAX_RETRY_AFTER_S = 300.0
_STRAIN = frozenset({429, 503})
_DEFAULT_PAUSE_S = 1.0
_SLOWER = 4.0  # times a host's usual latency that count as strain
_SLOW_S = 0.5  # seconds under which latency never counts as strain


class Tune(Protocol):
    """``Frontier.tune``."""

    def __call__(self, host: str, *, concurrency: int | None = None, not_before: float | None = None) -> None: ...


class _Health:
    __slots__ = ("good", "halved_at", "latency_s", "slots")

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.good = 0
        self.halved_at = float("-inf")
        self.latency_s = 0.0


class Throttle:
    """Watches each answer and tunes the budget of its host. ``concurrency`` is the most slots a host may have."""

    def __init__(self, tune: Tune, concurrency: int, clock: Callable[[], float]) -> None:
        self._tune = tune
        self._concurrency = concurrency
        self._clock = clock
        self._strained: dict[str, _Health] = {}
        self._usual_s: dict[str, float] = {}
        self._changed = False

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``: the innermost layer, so that every single answer is seen."""

        async def watch(request: Request) -> Response:
            try:
                response = await handle(request)
            except (FetchTimeout, ConnectionLost):
                self._strain(request.host, 0.0)
                raise
            self.observe(request.host, response)
            return response

        return watch

    def changes(self) -> dict[str, Any]:
        """Return the slots of each strained host, if any changed since the last call: see ``contracts.Stateful``."""
        if not self._changed:
            return {}
        self._changed = False
        return {"throttle": {host: health.slots for host, health in self._strained.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the slots that an earlier process had come down to."""
        for host, slots in state.get("throttle", {}).items():
            self._strained[host] = _Health(slots)
            self._tune(host, concurrency=slots)

    def observe(self, host: str, response: Response) -> None:
        """Take one answer into account."""
        if response.status in _STRAIN:
            self._strain(host, retry_after_s(response.headers.get("Retry-After")))
            return
        usual = self._usual_s.get(host, response.elapsed)
        if len(self._usual_s) > 100_000:
            self._usual_s.clear()
        self._usual_s[host] = usual * 0.95 + response.elapsed * 0.05
        if response.elapsed > _SLOW_S and response.elapsed > usual * _SLOWER:
            self._strain(host, 0.0)
        elif host in self._strained:
            self._recover(host)

    def _strain(self, host: str, pause_s: float) -> None:
        now = self._clock()
        health = self._strained.get(host)
        if health is None:
            health = self._strained[host] = _Health(self._concurrency)
        health.good = 0
        self._changed = True
        slots = None
        # Answers to requests sent together are one sign of strain, not many.
        if now - health.halved_at > _DEFAULT_PAUSE_S:
            health.halved_at = now
            slots = health.slots = max(1, health.slots // 2)
        if slots is not None or pause_s:
            self._tune(host, concurrency=slots, not_before=now + pause_s if pause_s else None)

    def _recover(self, host: str) -> None:
        health = self._strained[host]
        health.good += 1
        if health.good < 2 * health.slots:
            return
        health.good = 0
        health.slots += 1
        self._changed = True
        self._tune(host, concurrency=health.slots)
        if health.slots >= self._concurrency:
            del self._strained[host]


def retry_after_s(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks to wait: a number or an HTTP date; capped, garbage is a second."""
    if not value:
        return _DEFAULT_PAUSE_S
    text = value.strip()
    try:
        seconds = float(int(text)) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time()
    except (ValueError, TypeError, OverflowError):
        return _DEFAULT_PAUSE_S
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
