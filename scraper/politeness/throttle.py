"""The adaptive throttle: asks less of a host that shows strain, and more again when it is well.

Additive increase, multiplicative decrease, as in TCP congestion control (RFC 5681): a 429, a 503 or a timeout halves the
host's slots; a row of good answers, none much slower than usual, gives one back. A host that says 429 or 503 may count
requests a second, which one slot alone can be too many of: it also gets a gap between two, doubled with each such answer
and taken back step by step, so that the crawl comes to the rate that the host allows. A gap that a row of good answers
came with is about long enough: four times the least such one is the most, unless most of what is asked anew is refused. So
pages that always answer 503 do not slow down a whole site. Retry-After (RFC 9110 section 10.2.3) holds the whole host,
capped: with a 429 or 503, and where another answer that is no success brings it, a redirect too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import inf
from time import time
from typing import Any, Protocol

from scraper.contracts import Handler
from scraper.errors import FetchError
from scraper.http import Request, Response

MAX_RETRY_AFTER_S = 300.0
_STRAIN = frozenset({429, 503})
_DEFAULT_PAUSE_S = 1.0
_CAUSE = "throttle"
_FLAT = 2.0  # times a host's usual latency up to which an answer is a good one
_SLOWER = 4.0  # times a host's usual latency that count as strain
_SLOW_S = 0.5  # seconds under which latency never counts as strain
_FIRST_GAP_S = 0.05
_LEAST_GAP_S = 0.005  # a smaller one is none
_MOST_GAP_S = 30.0
_GAP_FACTOR = 0.8  # after a row of good answers
_GAP_ROW = 8
_GAP_ROW_S = 4.0
_MOST_GAPS = 4.0  # times the least gap that a row of good answers came with
_REFUSES = 0.5  # the share of good answers under which that gap is one no more
_WEIGHT = 0.1  # of one answer in that share
_MAX_STRAINED = 100_000  # hosts, of 1 kB each: those that strained first are forgotten
_SECONDS = re.compile(r"[0-9]{1,300}(?:\.[0-9]*)?")  # the fraction is no standard's, but sent: by Shopify, "2.0"


class Tune(Protocol):
    """``Frontier.tune``."""

    def __call__(
        self,
        host: str,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        cause: str = "",
    ) -> None: ...


class _Health:
    __slots__ = ("enough_s", "full", "gap_at", "gap_s", "good", "good_at_gap", "halved_at", "share", "slots")

    def __init__(self, slots: int, full: int, now: float, gap_s: float = 0.0) -> None:
        self.slots = slots
        self.full = full
        self.gap_s = gap_s
        self.gap_at = now  # when the gap was set, or a bad answer came since
        self.enough_s = inf
        self.share = 1.0
        self.good = self.good_at_gap = 0
        self.halved_at = -inf


class Throttle:
    """Watches each answer and caps the budget of its host. ``concurrency`` is the most slots a host may have.

    ``concurrency_of`` says it of a host that differs: None for the same, 0 for one that is not to be watched.
    ``wall_clock`` gives the seconds since 1970 in which a Retry-After lasts over a crash.
    """

    def __init__(
        self,
        tune: Tune,
        concurrency: int,
        clock: Callable[[], float],
        *,
        concurrency_of: Callable[[str], int | None] | None = None,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        self._tune = tune
        self._concurrency = concurrency
        self._concurrency_of = concurrency_of
        self._clock = clock
        self._wall_clock = wall_clock
        self._strained: dict[str, _Health] = {}
        self._usual_s: dict[str, float] = {}
        self._until: dict[str, float] = {}
        self._changed: set[str] = set()

    def __call__(self, handle: Handler) -> Handler:
        """Wrap ``handle``: the innermost layer, so that every single answer is seen."""

        async def watch(request: Request) -> Response:
            if self._concurrency_of is not None and self._full(request.host) == 0:
                return await handle(request)
            try:
                response = await handle(request)
            except FetchError as error:
                if error.is_strain:
                    self._strain(request.host)
                raise
            self.observe(request.host, response)
            return response

        return watch

    def changes(self) -> dict[str, Any]:
        """Return the slots, and the end of the pause, of each host where they changed: see ``contracts.Stateful``."""
        if not self._changed:
            return {}
        changed, self._changed = self._changed, set()
        return {f"throttle:{host}": self._state(host) for host in changed}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the slots that an earlier process had come down to, and what is left of the pauses."""
        now, wall_now = self._clock(), self._wall_clock()
        for name, found in state.items():
            if not name.startswith("throttle:") or not found:
                continue
            host = name.removeprefix("throttle:")
            slots, until, gap_s = found if len(found) == 3 else (*found, 0.0)  # two in runs of an earlier version
            # Never longer than a pause may be, should the clock have been set back.
            pause_s = min(until - wall_now, MAX_RETRY_AFTER_S)
            full = self._full(host)
            if slots and full:
                self._strained[host] = _Health(slots, full, now, gap_s)
                self._tune(host, concurrency=slots, cause=_CAUSE)
                if gap_s:
                    self._tune(host, delay=gap_s, cause=_CAUSE)
            if pause_s > 0 and full:
                self._until[host] = wall_now + pause_s
                self._tune(host, not_before=now + pause_s)

    def observe(self, host: str, response: Response) -> None:
        """Take one answer into account."""
        if response.status in _STRAIN:
            self._strain(host, retry_after_s(response.headers.get("Retry-After")), response.request.retries)
            return
        if response.status >= 300 and "Retry-After" in response.headers:
            self._pause(host, retry_after_s(response.headers["Retry-After"]))
        elapsed_s = response.elapsed
        # Each proxy has a latency of its own, which is none of the host's business.
        proxy = response.request.proxy
        way = f"{host} {proxy}" if proxy else host
        usual_s = self._usual_s.get(way, elapsed_s)
        if len(self._usual_s) > 100_000:
            self._usual_s.clear()
        self._usual_s[way] = usual_s * 0.95 + elapsed_s * 0.05
        if elapsed_s > _SLOW_S and elapsed_s > usual_s * _SLOWER:
            self._strain(host)
        elif host in self._strained and (elapsed_s <= _SLOW_S or elapsed_s <= usual_s * _FLAT):
            self._recover(host)

    def _full(self, host: str) -> int:
        own = self._concurrency_of(host) if self._concurrency_of is not None else None
        return own if own is not None else self._concurrency

    def _strain(self, host: str, pause_s: float | None = None, retries: int = 0) -> None:
        """Halve what the host is asked. ``pause_s`` is what it asks for itself by a 429 or 503, None where it says nothing."""
        now = self._clock()
        health = self._strained.get(host)
        if health is None:
            full = self._full(host)
            health = self._strained[host] = _Health(full, full, now)
            if len(self._strained) > _MAX_STRAINED:
                self._forget(next(iter(self._strained)))
        health.good = health.good_at_gap = 0
        health.gap_at = now
        if pause_s is not None and not retries:  # one that fails again may do so for a reason of its own
            health.share *= 1 - _WEIGHT
            if health.share < _REFUSES:
                health.enough_s = inf
        # Answers to requests sent together are one sign of strain, not many.
        if now - health.halved_at > _DEFAULT_PAUSE_S:
            health.halved_at = now
            self._changed.add(host)
            if pause_s is not None:
                # One slot alone keeps a gap of the host's latency.
                least_s = max(self._usual_s.get(host, 0.0), _FIRST_GAP_S) if health.slots == 1 else _FIRST_GAP_S
                most_s = min(_MOST_GAP_S, _MOST_GAPS * health.enough_s)
                self._set_gap(host, health, min(max(2 * health.gap_s, least_s), most_s))
            health.slots = max(1, health.slots // 2)
            self._tune(host, concurrency=health.slots, cause=_CAUSE)
        if pause_s:
            self._pause(host, pause_s)

    def _pause(self, host: str, pause_s: float) -> None:
        self._until[host] = max(self._until.get(host, 0.0), self._wall_clock() + pause_s)
        self._changed.add(host)
        self._tune(host, not_before=self._clock() + pause_s)

    def _recover(self, host: str) -> None:
        health = self._strained[host]
        health.share += _WEIGHT * (1 - health.share)
        if health.gap_s:
            health.good_at_gap += 1
            # By time too: at a wide gap eight answers take minutes.
            lasted = health.good_at_gap >= 2 and self._clock() - health.gap_at >= _GAP_ROW_S
            if lasted or health.good_at_gap >= _GAP_ROW:
                health.enough_s = min(health.enough_s, health.gap_s)
                gap_s = health.gap_s * _GAP_FACTOR
                self._set_gap(host, health, gap_s if gap_s >= _LEAST_GAP_S else 0.0)
        health.good += 1
        if health.slots < health.full and health.good >= 2 * health.slots:
            health.good = 0
            health.slots += 1
            self._changed.add(host)
            self._tune(host, concurrency=health.slots if health.slots < health.full else 0, cause=_CAUSE)
        if health.slots >= health.full and not health.gap_s:
            del self._strained[host]
            self._until.pop(host, None)

    def _forget(self, host: str) -> None:
        del self._strained[host]
        self._changed.add(host)
        self._tune(host, concurrency=0, cause=_CAUSE)
        self._tune(host, delay=0.0, cause=_CAUSE)

    def _set_gap(self, host: str, health: _Health, gap_s: float) -> None:
        health.gap_s = gap_s
        health.gap_at = self._clock()
        health.good_at_gap = 0
        self._changed.add(host)
        self._tune(host, delay=gap_s, cause=_CAUSE)

    def _state(self, host: str) -> list[float] | None:
        health, until = self._strained.get(host), self._until.get(host, 0.0)
        if until <= self._wall_clock():
            self._until.pop(host, None)
            until = 0.0
        if health is not None:
            return [health.slots, until, health.gap_s]
        return [0, until, 0.0] if until else None


def retry_after_s(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks to wait: a number or an HTTP date; capped, garbage is a second."""
    if not value:
        return _DEFAULT_PAUSE_S
    text = value.strip()
    try:
        seconds = float(text) if _SECONDS.fullmatch(text) else _date_s(text) - time()
    except (ValueError, TypeError, OverflowError):
        return _DEFAULT_PAUSE_S
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _date_s(text: str) -> float:
    """Read an HTTP date (RFC 9110 section 5.6.7) as seconds since 1970; the form that names no zone is in UTC, too."""
    date = parsedate_to_datetime(text)
    return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
