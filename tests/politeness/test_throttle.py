"""The adaptive throttle: a host in trouble gets less, and more again when it is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from scraper import Request, Response
from scraper.errors import ConnectError, ConnectionLost, FetchError, FetchTimeout
from scraper.politeness.throttle import MAX_RETRY_AFTER_S, Throttle, retry_after_s

URL = "http://a/"


class Host:
    """A throttle with eight slots, a clock to turn, and a book of what it was tuned to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.own: dict[str, int] = {}
        self.gaps: list[float] = []
        self.tuned: list[tuple[str, int | None, float | None]] = []
        self.throttle = Throttle(
            self.tune, 8, lambda: self.now, concurrency_of=self.own.get, wall_clock=lambda: self.now + 1e9
        )

    def tune(
        self,
        host: str,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        cause: str = "",
    ) -> None:
        if delay is not None:
            assert cause == "throttle"
            self.gaps.append(delay)
            return
        assert cause == ("throttle" if concurrency is not None else ""), "a cap is the throttle's own, a pause is all's"
        self.tuned.append((host, concurrency, not_before))

    def answer(
        self,
        status: int = 200,
        elapsed: float = 0.1,
        retry_after: str | None = "0",
        url: str = URL,
        held: bool = False,
        retries: int = 0,
    ) -> None:
        """Let the throttle see one answer."""
        headers = {"Retry-After": retry_after} if retry_after is not None and (status in (429, 503) or held) else {}
        request = Request(url).replace(retries=retries)
        self.throttle.observe(
            request.host, Response(url, request=request, status=status, headers=headers, elapsed=elapsed)
        )

    def strain(self, times: int) -> None:
        """Let the host answer 429 so many times, two seconds apart."""
        for _ in range(times):
            self.now += 2.0
            self.answer(429)


@pytest.mark.parametrize("status", [429, 503])
def test_strain_halves_the_slots(status: int) -> None:
    """A 429 or 503 halves the host's slots, down to one."""
    host = Host()
    for _ in range(5):
        host.now += 2.0
        host.answer(status)
    assert host.tuned == [("a", 4, None), ("a", 2, None), ("a", 1, None), ("a", 1, None), ("a", 1, None)]


@pytest.mark.parametrize("status", [200, 204, 301, 404, 500, 502])
def test_other_answers_are_no_strain(status: int) -> None:
    """A host that answers, whatever it says, is well."""
    host = Host()
    for _ in range(50):
        host.answer(status)
    assert host.tuned == []


def test_answers_to_requests_sent_together_count_once() -> None:
    """Eight 429s in one second are one sign of strain; the next second's is another."""
    host = Host()
    for _ in range(8):
        host.answer(429)
    assert host.tuned == [("a", 4, None)]
    host.now += 1.5
    host.answer(429)
    assert host.tuned[1:] == [("a", 2, None)]


def test_recovery() -> None:
    """A row of good answers, two for each slot, gives a slot back, up to the full number; then all is forgotten."""
    host = Host()
    host.strain(3)
    host.tuned.clear()
    for slots in range(1, 8):
        for _ in range(2 * slots - 1):
            host.answer()
        assert len(host.tuned) == slots - 1
        host.answer()
        assert host.tuned[-1] == ("a", (slots + 1) % 8, None), "0 lifts the cap"
    for _ in range(50):
        host.answer()
    assert len(host.tuned) == 7


def test_strain_interrupts_the_row() -> None:
    """Good answers before a new strain do not count after it."""
    host = Host()
    host.strain(3)
    host.answer()
    host.strain(1)
    host.tuned.clear()
    host.answer()
    assert host.tuned == []
    host.answer()
    assert host.tuned == [("a", 2, None)]


def test_hosts_are_judged_apart() -> None:
    """One host's strain is nothing to another."""
    host = Host()
    host.answer(429)
    host.answer(url="http://b/")
    host.answer(429, url="http://b:81/")
    assert [name for name, _, _ in host.tuned] == ["a", "b:81"]


def test_retry_after_holds_the_whole_host() -> None:
    """The host gets no request until Retry-After is over, also where the slots were just halved."""
    host = Host()
    host.answer(429, retry_after="30")
    host.answer(503, retry_after="40")
    host.answer(503, retry_after=None)
    assert host.tuned == [("a", 4, None), ("a", None, 130.0), ("a", None, 140.0), ("a", None, 101.0)]


def test_a_host_that_slows_down() -> None:
    """Answers far slower than the host's usual are strain; a host that is always slow is not, nor is a slow first answer."""
    host = Host()
    for _ in range(20):
        host.answer(elapsed=0.2, url="http://quick/")
        host.answer(elapsed=5.0, url="http://slow/")
    assert host.tuned == []
    host.answer(elapsed=2.0, url="http://quick/")
    host.answer(elapsed=6.0, url="http://slow/")
    assert host.tuned == [("quick", 4, None)]


def test_short_times_are_no_sign() -> None:
    """Ten times slower than a millisecond is still quick."""
    host = Host()
    for elapsed in (0.001, 0.001, 0.4):
        host.answer(elapsed=elapsed)
    assert host.tuned == []


@pytest.mark.parametrize(
    ("error", "strained"), [(FetchTimeout, True), (ConnectionLost, True), (ConnectError, False), (FetchError, False)]
)
def test_errors(error: type[FetchError], strained: bool) -> None:
    """A timeout or a lost connection is strain, and is raised on."""
    host = Host()

    async def handle(request: Request) -> Response:
        raise error(request.url, "x")

    with pytest.raises(error):
        asyncio.run(host.throttle(handle)(Request(URL)))
    assert bool(host.tuned) is strained


def test_as_a_middleware() -> None:
    """Wrapped around a handler it sees each answer and gives it on."""
    host = Host()
    response = Response(URL, request=Request(URL), status=429, headers={"Retry-After": "5"})

    async def handle(request: Request) -> Response:
        return response

    assert asyncio.run(host.throttle(handle)(Request(URL))) is response
    assert host.tuned == [("a", 4, None), ("a", None, 105.0)]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 1.0),
        ("", 1.0),
        ("0", 0.0),
        ("5", 5.0),
        (" 120 ", 120.0),
        ("301", MAX_RETRY_AFTER_S),
        ("9" * 400, 1.0),
        ("9" * 5000, 1.0),
        ("-5", 1.0),
        ("1.5", 1.5),
        ("30.0", 30.0),
        ("1e2", 1.0),
        ("1.5.0", 1.0),
        ("²", 1.0),
        ("soon", 1.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 9015 07:28:00 GMT", MAX_RETRY_AFTER_S),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 1.0),
    ],
)
def test_retry_after(value: str | None, seconds: float) -> None:
    """Retry-After is a number of seconds or a date, capped; without a readable one it is a second."""
    assert retry_after_s(value) == seconds


@pytest.fixture(params=["UTC0", "EST5", "CET-1"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the machine into a time zone."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"])
def test_retry_after_as_a_date(form: str) -> None:
    """A date is waited for, in each of its forms (RFC 9110 section 5.6.7), wherever the machine stands."""
    later = datetime.now(UTC) + timedelta(seconds=60)
    assert 55 < retry_after_s(later.strftime(form)) <= 60


def test_strain_lasts_over_a_crash() -> None:
    """A strained host's slots are given out when they changed; another process goes on with them, and lets it recover."""
    host, other = Host(), Host()
    assert host.throttle.changes() == {}
    host.strain(2)
    state = host.throttle.changes()
    assert host.throttle.changes() == {}
    other.throttle.restore({})
    other.throttle.restore(state)
    assert other.tuned == [("a", 2, None)]
    for _ in range(4):
        other.answer()
    assert other.tuned[1:] == [("a", 3, None)]


@pytest.mark.parametrize(
    ("status", "pause"), [(301, 7.0), (302, 7.0), (413, 7.0), (500, 7.0), (200, None), (206, None)]
)
def test_retry_after_on_other_answers(status: int, pause: float | None) -> None:
    """A redirect or an error with Retry-After holds the host, and is no strain; with a success it means nothing."""
    host = Host()
    host.answer(status, retry_after="7", held=True)
    assert host.tuned == ([("a", None, 107.0)] if pause else [])


@pytest.mark.parametrize(
    ("passed", "left"), [(0.0, 60.0), (20.0, 40.0), (60.0, None), (3600.0, None), (-3600.0, MAX_RETRY_AFTER_S)]
)
def test_a_pause_lasts_over_a_crash(passed: float, left: float | None) -> None:
    """What is left of a Retry-After is waited out by the next process, by the wall clock; one set back adds little."""
    host, other = Host(), Host()
    host.answer(429, retry_after="60")
    other.now = host.now + passed
    other.throttle.restore(host.throttle.changes())
    assert other.tuned == [("a", 4, None)] + ([("a", None, other.now + left)] if left else [])


def test_state_that_is_over_is_taken_back() -> None:
    """A host that is well again leaves nothing for another process."""
    host, other = Host(), Host()
    host.strain(1)
    for _ in range(2 * (4 + 5 + 6 + 7) + 50):
        host.answer()
    assert host.gaps[-1] == 0
    state = host.throttle.changes()
    assert state == {"throttle:a": None}
    other.throttle.restore(state)
    assert other.tuned == []


def test_it_rises_only_while_latency_is_flat() -> None:
    """Answers that take three times as long as usual give no slot back, though they are no strain."""
    host = Host()
    for _ in range(20):
        host.answer(elapsed=0.3)
    host.strain(3)
    host.tuned.clear()
    for _ in range(3):
        host.answer(elapsed=0.9)
    assert host.tuned == []
    host.answer(elapsed=0.3)
    host.answer(elapsed=0.3)
    assert host.tuned == [("a", 2, None)]


def test_hosts_that_differ() -> None:
    """A host's own number of slots is what is halved; one with 0 is not watched."""
    host = Host()
    host.own.update({"a": 20, "b": 0})
    host.answer(429)
    assert host.tuned == [("a", 10, None)]

    async def handle(request: Request) -> Response:
        return Response(request.url, request=request, status=429)

    asyncio.run(host.throttle(handle)(Request("http://b/")))
    assert len(host.tuned) == 1


def test_a_rate_that_the_host_sets() -> None:
    """Each 429 or 503 doubles the gap between two requests, up to half a minute; eight good answers take a fifth of it back."""
    host = Host()
    host.strain(3)
    assert host.gaps == [0.05, 0.1, 0.2]
    for _ in range(16):
        host.answer()
    assert host.gaps[3:] == pytest.approx([0.16, 0.128])
    host.strain(12)
    assert host.gaps[-1] == 30.0
    for _ in range(8 * 39):
        host.answer()
    assert (host.gaps[-2] > 0.005, host.gaps[-1]) == (True, 0)


def test_a_wide_gap_comes_down_with_time() -> None:
    """Where eight answers would take minutes, those of four seconds take a fifth of the gap back, two at least."""
    host = Host()
    host.strain(10)
    for _ in range(6):
        host.now += 5.0
        host.answer()
    assert host.gaps[-4:] == pytest.approx([25.6, 20.48, 16.384, 13.1072])
    for _ in range(7):
        host.now += 0.5
        host.answer()
    assert len(host.gaps) == 13


@pytest.mark.parametrize(("each_s", "burst"), [(0.1, 5), (1.0, 1), (1.0, 20), (0.05, 40)])
def test_the_rate_of_a_host_that_counts_is_nearly_used(each_s: float, burst: int) -> None:
    """A leaky bucket, as nginx's limit_req: one answer in eight at most is a refusal."""
    host = Host()
    tokens, at, good, bad = float(burst), host.now, 0, 0
    began = host.now
    while good < 500:
        gap_s = host.gaps[-1] if host.gaps else 0.0
        host.now += max(gap_s, 0.05)
        tokens, at = min(float(burst), tokens + (host.now - at) / each_s), host.now
        if tokens >= 1.0:
            tokens, good = tokens - 1.0, good + 1
            host.answer(elapsed=0.05)
        else:
            bad += 1
            host.answer(503, retry_after=None)
            host.now += 1.0  # the pause of a 503 without Retry-After
    assert bad / (good + bad) < 0.125
    assert (host.now - began) / good < 2 * each_s


def test_pages_that_always_fail_do_not_stop_the_site() -> None:
    """One page in twenty answers 503 to each of its three tries, however rarely it is asked: the gap stays small."""
    host = Host()
    for _ in range(50):
        for number in range(20):
            for retries in range(3 if number == 7 else 1):
                host.now += 2.0
                host.answer(503 if number == 7 else 200, retries=retries)
    assert max(host.gaps) <= 0.8
    host.gaps.clear()
    for _ in range(50):  # what is left at the end are retries of such pages alone
        host.now += 2.0
        host.answer(503, retries=2)
    assert max(host.gaps) <= 0.8
    host.strain(20)
    assert host.gaps[-1] == 30.0, "a host that refuses what is new is asked less all the same"


def test_very_many_hosts_in_trouble() -> None:
    """A crawl of the whole web meets hosts that never recover: what is held for them is bounded, caps are lifted in turn."""
    host = Host()
    answer = Response(URL, request=Request(URL), status=429)
    for number in range(100_002):
        host.throttle.observe(f"h{number}", answer)
    assert [each for each in host.tuned if each[1] == 0] == [("h0", 0, None), ("h1", 0, None)]
    assert host.gaps.count(0.0) == 2
    assert host.throttle.changes()["throttle:h0"][0] == 0


def test_a_slow_hosts_gap() -> None:
    """With one slot left a gap shorter than the host's latency would change nothing."""
    host = Host()
    host.throttle.restore({"throttle:a": [1, 0.0, 0.0]})
    host.answer(elapsed=2.0)
    host.strain(1)
    assert host.gaps == [2.0]


def test_a_gap_lasts_over_a_crash() -> None:
    """A later process goes on with it; what an earlier version wrote has none."""
    host, other, older = Host(), Host(), Host()
    host.strain(2)
    other.throttle.restore(host.throttle.changes())
    assert other.gaps == [0.1]
    older.throttle.restore({"throttle:a": [4, 0.0]})
    assert (older.gaps, older.tuned) == ([], [("a", 4, None)])


def test_a_kept_connection_that_ends_is_no_strain() -> None:
    """A server may close what it has kept open; that it did so while a request was on its way says nothing."""
    host = Host()

    async def handle(request: Request) -> Response:
        error = ConnectionLost(URL, "x")
        error.is_strain = False
        raise error

    with pytest.raises(ConnectionLost):
        asyncio.run(host.throttle(handle)(Request(URL)))
    assert host.tuned == []


@pytest.mark.parametrize("error", [FetchTimeout(URL, "x"), ConnectionLost(URL, "x")])
def test_timeouts_set_no_rate(error: FetchError) -> None:
    """They say that a host is slow, not that it counts."""
    host = Host()

    async def handle(request: Request) -> Response:
        raise error

    with pytest.raises(type(error)):
        asyncio.run(host.throttle(handle)(Request(URL)))
    assert (host.tuned, host.gaps) == ([("a", 4, None)], [])


def test_each_proxy_has_a_latency_of_its_own() -> None:
    """Answers that come slowly by one proxy and fast by another are no strain; one that grows slow is."""
    host = Host()

    def answer(elapsed: float, proxy: str) -> None:
        request = Request(URL, proxy=proxy)
        host.throttle.observe(request.host, Response(URL, request=request, elapsed=elapsed))

    for _ in range(20):
        answer(0.1, "http://fast:1")
        answer(5.0, "http://slow:1")
    assert host.tuned == []
    answer(25.0, "http://slow:1")
    assert host.tuned == [("a", 4, None)]
