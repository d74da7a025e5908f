"""robots.txt by RFC 9309: one file an origin. Fetching it is the scheduler's business.

The group that speaks to this crawler is picked here, by product token (section 2.2.1); protego reads that group alone. It
would hold every rule of every group once for each of its agents: 15,000 agents with 25,000 rules are no memory at all
for the site and 27 GB for us (72 bytes each).
"""

from __future__ import annotations

import codecs
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from protego import Protego

from scraper.errors import BodyTooLarge, FetchError, OutOfScope, TooManyRedirects
from scraper.http import Response

MAX_BYTES = 512 * 1024
"""How much of a file is parsed; RFC 9309 section 2.5 asks for at least 500 KiB.

The 48,000 shortest rules that fit take up to 0.2 s to read and 13 MiB, and 1.7 ms for each URL where every second allows; the
20,000 of an earlier bound took 0.1 s and 0.7 ms.
"""

MAX_CRAWL_DELAY_S = 60.0
MAX_AGE_S = 24 * 3600.0
"""How long a file is obeyed before it is asked for again (section 2.4)."""
MIN_AGE_S = 600.0
"""The least of that, whatever Cache-Control says; and how long a site that could not be reached stays forbidden."""

_SKEW_S = 60.0  # between the clocks of a fleet's machines
_MAX_ORIGINS = 100_000
_MAX_RULES_BYTES = 128 * 2**20  # text of all rules that are held; a parsed rule takes 3 to 11 times its text
_MAX_PATTERNS = 1_000  # rules with a wildcard or an anchor: each is tried on each URL, 0.5 to 2.6 µs
_MAX_WILDCARDS = 8  # in one rule
_MAX_KEPT_BYTES = 64 * 1024  # of an origin's rules, over a crash; a longer one is fetched again


class Rules:
    """What one origin's robots.txt says to this crawler. ``crawl_delay_s`` is 0 where it asks for none.

    ``reason`` says why everything is forbidden, where it is; ``error`` why the file could not be had. ``until`` is the
    time (seconds of the wall clock) after which the file is to be asked for again.
    """

    __slots__ = ("_lengths", "_parsed", "_prefixes", "crawl_delay_s", "error", "reason", "size", "until")

    def __init__(self, group: str, until: float, reason: str = "", error: FetchError | None = None) -> None:
        size = len(group)
        self._prefixes: frozenset[str] = frozenset()
        if group.count("\n") > _MANY_RULES and not _ALLOWS.search(group):
            # Where nothing is allowed in particular, the longest match is any match. Protego takes 48 ms for the 19,580
            # rules of docs.oracle.com, and 0.2 ms for each URL; this takes 12 ms, and some µs.
            pieces = _PLAIN_DISALLOW.split(group)  # what is left, and a prefix, in turn
            self._prefixes = frozenset(pieces[1::2])
            group = "".join([piece for piece in pieces[::2] if piece != "\n"])
        self._lengths = sorted({len(prefix) for prefix in self._prefixes})
        self._parsed = Protego.parse(group) if group else None
        self.size = size
        self.until = until
        self.reason = reason
        self.error = error
        self.crawl_delay_s = _crawl_delay_s(self._parsed) if self._parsed is not None else 0.0

    def allow(self, url: str) -> bool:
        """Whether the URL may be fetched."""
        if self._parsed is None:
            return not self.reason
        return self._parsed.can_fetch(url, "*") and not (self._prefixes and self._has_prefix(url))

    def _has_prefix(self, url: str) -> bool:
        path = url[url.find("/", url.find("//") + 2) :]
        if path.partition("?")[0] == "/robots.txt":
            return False
        if "%" in path:
            path = _ESCAPE.sub(_unreserved, path)
        return any(path[:length] in self._prefixes for length in self._lengths)


class Robots:
    """The rules of each origin, as far as they are known. ``clock`` gives wall-clock seconds: rules outlive a process.

    ``agent`` is a User-Agent, or the product token alone: by that name robots.txt speaks to this crawler.
    The least recently used go when there are 100,000, or when their text is more than 128 MiB.
    """

    def __init__(self, agent: str, clock: Callable[[], float] = time.time) -> None:
        self._token = product_token(agent)
        self._clock = clock
        self._rules: OrderedDict[str, Rules] = OrderedDict()
        self._size = 0
        self._new: dict[str, Any] = {}

    def known(self, origin: str) -> Rules | None:
        """Return the origin's rules, or None where its robots.txt has to be fetched first."""
        rules = self._rules.get(origin)
        if rules is not None:
            self._rules.move_to_end(origin)
        return rules

    def is_stale(self, rules: Rules) -> bool:
        """Whether the file is to be asked for again. Until that has an answer, its rules hold."""
        now = self._clock()
        # Never longer than it may hold, should the clock have been set back.
        return not now < rules.until <= now + _SKEW_S + (MIN_AGE_S if rules.reason else MAX_AGE_S)

    def learn(self, origin: str, outcome: Response | FetchError) -> Rules:
        """Make the rules from what asking for robots.txt gave: a response of any status, or the error.

        A 4xx and a redirect that leads nowhere allow everything (sections 2.3.1.2, 2.3.1.3); a 5xx or no answer disallows
        everything (2.3.1.4), unless an earlier answer is known: that goes on to hold (2.4).
        """
        now = self._clock()
        status, body = _answer(outcome)
        if status >= 500:
            old = self._rules.get(origin)
            if old is not None and not old.reason:
                old.until = now + MIN_AGE_S
                return old
            if isinstance(outcome, FetchError):
                why, error = f"robots.txt cannot be fetched ({outcome.message})", outcome
            else:
                why, error = f"robots.txt answers with status {status}", None
            rules = Rules("", now + MIN_AGE_S, why, error)
        else:
            until = now + (_max_age_s(outcome) if isinstance(outcome, Response) else MAX_AGE_S)
            group = _own_group(_text(body), self._token) if 200 <= status < 300 else ""
            rules = Rules(group, until)
            if len(group) <= _MAX_KEPT_BYTES:
                self._new[f"robots:{origin}"] = [until, group, self._token]
        self._keep(origin, rules)
        return rules

    def changes(self) -> dict[str, Any]:
        """Return the rules that came since the last call, with their time: see ``contracts.Stateful``.

        Sites that could not be reached are left out: a resumed run asks them again.
        """
        new, self._new = self._new, {}
        return new

    def news_of(self, origin: str) -> dict[str, Any]:
        """Return what ``changes`` is to say of an origin."""
        name = f"robots:{origin}"
        return {name: self._new[name]} if name in self._new else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the rules that an earlier process had read; not those for another name than ours."""
        for name, kept in state.items():
            if not name.startswith("robots:"):
                continue
            match kept:
                case [float() | int() as until, str() as group, self._token]:
                    self._keep(name.removeprefix("robots:"), Rules(group, until))

    def crawl_delays(self) -> dict[str, float]:
        """Return the crawl delay of each known origin that asks for one, in seconds."""
        return {origin: rules.crawl_delay_s for origin, rules in self._rules.items() if rules.crawl_delay_s}

    def _keep(self, origin: str, rules: Rules) -> None:
        old = self._rules.pop(origin, None)
        self._rules[origin] = rules
        self._size += rules.size - (old.size if old is not None else 0)
        while len(self._rules) > _MAX_ORIGINS or (self._size > _MAX_RULES_BYTES and len(self._rules) > 1):
            _, gone = self._rules.popitem(last=False)
            self._size -= gone.size


def product_token(user_agent: str) -> str:
    """Return the name by which robots.txt speaks to this crawler (section 2.2.1), in lower case.

    It is the first product of the User-Agent: ``mybot`` of ``mybot/1.0 (+https://…)``; or, where that is a browser's
    ``Mozilla/5.0 (compatible; mybot/1.0; …)``, the one after ``compatible;``.
    """
    compatible = _COMPATIBLE.match(user_agent)
    found = _PRODUCT.match(compatible[1] if compatible else user_agent.strip())
    return found[0].lower() if found else ""


_COMPATIBLE = re.compile(r"\s*Mozilla/[^(]*\(\s*compatible\s*;\s*(.*)", re.IGNORECASE | re.DOTALL)
_PRODUCT = re.compile(r"[^\s/*;()]+")
_MANY_RULES = 1_000
_ALLOWS = re.compile(r"^allow", re.IGNORECASE | re.MULTILINE)
# Characters that no escape stands for: compared as they are, once the URL's own needless escapes are undone.
_PLAIN_DISALLOW = re.compile(r"^disallow[ \t]*:[ \t]*(/[A-Za-z0-9_./-]*)$", re.IGNORECASE | re.MULTILINE)
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_AGENT = re.compile(r"user[- ]?agent\s*:?\s*(.*)", re.IGNORECASE | re.DOTALL)
_RULES = frozenset({"dis", "dia", "all"})
_RULE = re.compile(r"(?:allow|disall[oa]w|dissallow|diss?alow|diasllow)(?=[\s:]|\Z)", re.IGNORECASE)
"""What protego takes for a rule, with several misspellings; ``_RULES`` says how it begins."""
_PACES = frozenset({"cra", "req"})
_US, _ALL = 1, 2


def _own_group(text: str, token: str) -> str:
    """Return the lines of all groups that name the token, or else of those for "*", as one group for everyone.

    A rule alone ends the list of agents that it is for (sections 2.2, 2.2.4). A crawl delay, which RFC 9309 does not know,
    is for the agents named just above it.
    """
    named: list[str] = []
    others: list[str] = []
    ruled = paced = 0  # of _US and _ALL, whom a rule and whom a crawl delay is for
    is_named = is_heading = is_above = False
    for raw in text.splitlines():
        line = (raw.partition("#")[0] if "#" in raw else raw).strip()
        kind = line[:3].lower()
        if kind in _RULES:
            if is_heading and not _RULE.match(line):
                continue
            is_heading = is_above = False
            whom = ruled
        elif kind in _PACES:
            is_above = False
            whom = paced
        elif kind == "use" and (agent := _AGENT.match(line)):
            product = _PRODUCT.match(agent[1])
            who = _ALL if agent[1] == "*" else _US if product and product[0].lower() == token else 0
            is_named = is_named or who == _US
            ruled = ruled | who if is_heading else who
            paced = paced | who if is_above else who
            is_heading = is_above = True
            continue
        else:
            continue
        if whom & _US:
            named.append(line)
        if whom & _ALL:
            others.append(line)
    lines = list(dict.fromkeys(named if is_named else others))
    # What says nothing to us need not be kept, an empty group neither.
    return "User-agent: *\n" + "\n".join(_bounded(lines)) if lines else ""


def _bounded(lines: list[str]) -> Iterator[str]:
    """Give the rules, those with too many wildcards cut short: a Disallow forbids more then, an Allow is left out.

    No site gains by that but one that wants to keep the crawler busy: see ``_MAX_PATTERNS`` for what each costs.
    """
    patterns = 0
    for line in lines:
        if "*" in line or "$" in line:
            patterns += 1
            most = _MAX_WILDCARDS if patterns <= _MAX_PATTERNS else 0
            pieces = line.split("*", most + 1)
            if len(pieces) > most + 1 or not most:
                if line[0] in "aA":
                    continue
                line = "*".join(pieces[: most + 1]).rstrip("$")
                if line.rstrip().endswith(":"):
                    line += " /"  # a rule that began with its wildcard
        yield line


def _unreserved(escape: re.Match[str]) -> str:
    """Undo the escape of a character that needs none (RFC 3986 section 2.3)."""
    character = chr(int(escape[1], 16))
    return character if character.isascii() and (character.isalnum() or character in "-._~") else escape[0]


def _answer(outcome: Response | FetchError) -> tuple[int, bytes]:
    """Return the status and body that an outcome comes to: no answer is a 503, a redirect to nowhere a 404."""
    if isinstance(outcome, Response):
        return outcome.status, outcome.body
    if isinstance(outcome, BodyTooLarge) and outcome.head:
        return outcome.status, outcome.head
    return (404 if isinstance(outcome, (TooManyRedirects, OutOfScope)) else 503), b""


def _max_age_s(response: Response) -> float:
    """How long the answer holds by its Cache-Control (RFC 9111 section 5.2.2.1): 10 minutes to a day, which is the rule."""
    found = re.search(r"(?:^|[\s,])max-age=\"?(\d{1,9})", response.headers.get("Cache-Control", ""), re.IGNORECASE)
    return min(max(float(found[1]), MIN_AGE_S), MAX_AGE_S) if found else MAX_AGE_S


def _text(body: bytes) -> str:
    """Decode as section 2.3 says: UTF-8, a byte order mark passed over; UTF-16 where its mark says so."""
    head = body[:MAX_BYTES]
    if len(body) > MAX_BYTES:
        head = head[: head.rfind(b"\n") + 1] or head  # half a rule may forbid more than the whole: "Disallow: /"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return head.decode("utf-16", "replace")
    return head.decode("utf-8-sig", "replace").replace("\0", "")


def _crawl_delay_s(parsed: Protego) -> float:
    delay = parsed.crawl_delay("*") or 0.0
    rate = parsed.request_rate("*")
    if rate is not None and rate.requests > 0:
        delay = max(delay, rate.seconds / rate.requests)
    return min(max(delay, 0.0), MAX_CRAWL_DELAY_S)
