"""robots.txt by RFC 9309: one file an origin, parsed by protego. Fetching it is the scheduler's business."""

from __future__ import annotations

import codecs
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from protego import Protego

from scraper.errors import FetchError
from scraper.http import Response

MAX_BYTES = 512 * 1024
"""How much of a file is parsed; RFC 9309 section 2.5 asks for at least 500 KiB."""

MAX_CRAWL_DELAY_S = 60.0
_MAX_ORIGINS = 100_000
_MAX_KEPT_BYTES = 64 * 1024  # of a file, over a crash; a longer one is fetched again


class Rules:
    """What one origin's robots.txt says to this crawler. ``crawl_delay_s`` is 0 where it asks for none.

    ``reason`` says why everything is forbidden, where it is; ``error`` why the file could not be had.
    """

    __slots__ = ("_agent", "_parsed", "crawl_delay_s", "error", "reason")

    def __init__(self, parsed: Protego | None, agent: str, reason: str) -> None:
        self._parsed = parsed
        self._agent = agent
        self.reason = reason
        self.error: FetchError | None = None
        self.crawl_delay_s = _crawl_delay_s(parsed, agent) if parsed is not None else 0.0

    def allow(self, url: str) -> bool:
        """Whether the URL may be fetched."""
        return self._parsed.can_fetch(url, self._agent) if self._parsed is not None else not self.reason


class Robots:
    """The rules of each origin, as far as they are known. The least recently used go when there are 100,000."""

    def __init__(self, user_agent: str) -> None:
        self._agent = user_agent
        self._rules: OrderedDict[str, Rules] = OrderedDict()
        self._new: dict[str, str | None] = {}

    def known(self, origin: str) -> Rules | None:
        """Return the origin's rules, or None where its robots.txt has to be fetched first."""
        rules = self._rules.get(origin)
        if rules is not None:
            self._rules.move_to_end(origin)
        return rules

    def learn(self, origin: str, outcome: Response | FetchError) -> Rules:
        """Make the rules from what asking for robots.txt gave: a response of any status, or the error.

        A 4xx allows everything (section 2.3.1.3); a 5xx or no answer disallows everything (2.3.1.4).
        """
        rules = self._judge(outcome)
        if isinstance(outcome, Response) and outcome.status < 500 and len(outcome.body) <= _MAX_KEPT_BYTES:
            self._new[f"robots:{origin}"] = _text(outcome.body) if outcome.status < 300 else None
        self._keep(origin, rules)
        return rules

    def changes(self) -> dict[str, Any]:
        """Return the files that came since the last call, None for one that does not exist: see ``contracts.Stateful``.

        Sites that could not be reached are left out: a resumed run asks them again.
        """
        new, self._new = self._new, {}
        return new

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the files that an earlier process had read."""
        for name, text in state.items():
            if name.startswith("robots:"):
                parsed = Protego.parse(text) if text is not None else None
                self._keep(name.removeprefix("robots:"), Rules(parsed, self._agent, ""))

    def crawl_delays(self) -> dict[str, float]:
        """Return the crawl delay of each known origin that asks for one, in seconds."""
        return {origin: rules.crawl_delay_s for origin, rules in self._rules.items() if rules.crawl_delay_s}

    def _keep(self, origin: str, rules: Rules) -> None:
        self._rules[origin] = rules
        if len(self._rules) > _MAX_ORIGINS:
            self._rules.popitem(last=False)

    def _judge(self, outcome: Response | FetchError) -> Rules:
        if isinstance(outcome, FetchError):
            rules = Rules(None, self._agent, f"robots.txt cannot be fetched ({outcome.message})")
            rules.error = outcome
            return rules
        if 200 <= outcome.status < 300:
            return Rules(Protego.parse(_text(outcome.body)), self._agent, "")
        if outcome.status >= 500:
            return Rules(None, self._agent, f"robots.txt answers with status {outcome.status}")
        return Rules(None, self._agent, "")


def _text(body: bytes) -> str:
    """Decode as section 2.3 says: UTF-8, a byte order mark passed over; UTF-16 where its mark says so."""
    head = body[:MAX_BYTES]
    if len(body) > MAX_BYTES:
        head = head[: head.rfind(b"\n") + 1] or head  # half a rule may forbid more than the whole: "Disallow: /"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return head.decode("utf-16", "replace")
    return head.decode("utf-8-sig", "replace").replace("\0", "")


def _crawl_delay_s(parsed: Protego, agent: str) -> float:
    delay = parsed.crawl_delay(agent) or 0.0
    rate = parsed.request_rate(agent)
    if rate is not None and rate.requests > 0:
        delay = max(delay, rate.seconds / rate.requests)
    return min(max(delay, 0.0), MAX_CRAWL_DELAY_S)
