"""robots.txt by RFC 9309: which answers allow, which forbid, and what a file may ask for."""

from __future__ import annotations

import codecs
from random import Random
from time import process_time
from typing import Any

import pytest
from protego import Protego

from scraper import Request, Response
from scraper.errors import (
    BodyTooLarge,
    ConnectError,
    DnsError,
    FetchError,
    FetchTimeout,
    OutOfScope,
    RobotsDenied,
    TooManyRedirects,
)
from scraper.http import HttpError
from scraper.politeness.robots import MAX_AGE_S, MAX_BYTES, MAX_CRAWL_DELAY_S, MIN_AGE_S, Robots, Rules, product_token

URL = "http://a/robots.txt"
PRIVATE = "http://a/private/x"
PUBLIC = "http://a/public"


def learn(body: bytes | str, status: int = 200, agent: str = "scraper/1.0") -> Rules:
    """Make the rules of one answer."""
    body = body.encode() if isinstance(body, str) else body
    return Robots(agent).learn("http://a", Response(URL, request=Request(URL), status=status, body=body))


FORBIDS = "User-agent: *\nDisallow: /private/\n"


@pytest.mark.parametrize(
    ("status", "private", "public"),
    [
        (200, False, True),
        (203, False, True),
        (204, False, True),
        (301, True, True),
        (400, True, True),
        (401, True, True),
        (403, True, True),
        (404, True, True),
        (410, True, True),
        (429, True, True),
        (500, False, False),
        (503, False, False),
        (599, False, False),
    ],
)
def test_statuses(status: int, private: bool, public: bool) -> None:
    """A 2xx is obeyed, a 4xx allows everything, a 5xx forbids everything and says why (section 2.3.1)."""
    rules = learn(FORBIDS, status)
    assert (rules.allow(PRIVATE), rules.allow(PUBLIC)) == (private, public)
    assert bool(rules.reason) is (status >= 500)


@pytest.mark.parametrize("kind", [DnsError, ConnectError, FetchTimeout, BodyTooLarge, FetchError])
def test_no_answer_forbids_everything(kind: type[FetchError]) -> None:
    """A robots.txt that cannot be reached forbids the site, and the reason names the error."""
    rules = Robots("scraper").learn("http://a", kind(URL, "it broke"))
    assert not rules.allow(PUBLIC)
    assert "it broke" in rules.reason
    assert rules.crawl_delay_s == 0.0


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("", "/x", True),
        ("\n\n# nothing\n", "/x", True),
        ("User-agent: *\nDisallow:", "/x", True),
        ("User-agent: *\nDisallow: /", "/", False),
        ("user-AGENT : *\r\ndisallow : /x", "/x/y", False),
        ("User-agent: *\nDisallow: /x # comment", "/x", False),
        ("User-agent: *\rDisallow: /x\r", "/x", False),
        ("User-agent: scraper\nDisallow: /x\nUser-agent: *\nDisallow: /", "/y", True),
        ("User-agent: SCRAPER\nDisallow: /x", "/x", False),
        ("User-agent: other\nDisallow: /", "/x", True),
        ("User-agent: other\nUser-agent: scraper\nDisallow: /", "/x", False),
        ("User-agent: scraper\nDisallow: /x\nUser-agent: scraper\nDisallow: /y", "/y", False),
        ("User-agent: *\nDisallow: /\nAllow: /x", "/x/y", True),
        ("User-agent: *\nAllow: /\nDisallow: /x", "/x", False),
        ("User-agent: *\nAllow: /x\nDisallow: /x", "/x", True),
        ("User-agent: *\nDisallow: /*.pdf$", "/a/b.pdf", False),
        ("User-agent: *\nDisallow: /*.pdf$", "/a/b.pdf?x", True),
        ("User-agent: *\nDisallow: /a*b", "/axxb/c", False),
        ("User-agent: *\nDisallow: /X", "/x", True),
        ("User-agent: *\nDisallow: /ü", "/%C3%BC", False),
        ("User-agent: *\nDisallow: /%7Ejoe", "/~joe", False),
        ("User-agent: *\nDisallow: /?q=", "/?q=1", False),
        ("Disallow: /x", "/x", True),
        ("Sitemap: http://a/s.xml\nUser-agent: *\nNonsense: 5\nDisallow: /x", "/x", False),
        *(
            (f"User-agent: scraper\n{line}\nUser-agent: other\nDisallow: /x", "/x", False)
            for line in ("Crawl-delay: 1", "Request-rate: 1/5", "Disclaimer: no", "Allowed: all", "Sitemap: http://a/")
        ),
        *(
            (f"User-agent: scraper\n{line}\nUser-agent: other\nDisallow: /x", "/x", True)
            for line in ("Disallow:", "disallow : /y", "Allow /y", "Disalow: /y", "DISSALOW: /y", "Diasllow: /y")
        ),
    ],
)
def test_rules(text: str, path: str, allowed: bool) -> None:
    """Groups, the longest match, wildcards, escapes and comments are read as section 2.2 says."""
    assert learn(text).allow("http://a" + path) is allowed


@pytest.mark.parametrize(
    "body",
    [
        codecs.BOM_UTF8 + FORBIDS.encode(),
        FORBIDS.encode("utf-16"),
        codecs.BOM_UTF16_BE + FORBIDS.encode("utf-16-be"),
        FORBIDS.replace("private", "pri\0vate").encode(),
        b"\xff\xfa\n" + FORBIDS.encode(),
        FORBIDS.encode() + b"\xe9\xe9\xe9",
        FORBIDS.replace("\n", "\r\n").encode(),
    ],
)
def test_encodings(body: bytes) -> None:
    """A byte order mark, UTF-16, NUL and broken bytes do not hide the rules."""
    rules = learn(body)
    assert not rules.allow(PRIVATE)
    assert rules.allow(PUBLIC)


def test_a_file_of_a_megabyte() -> None:
    """The first 512 KiB are obeyed, the rest is not read, and a rule cut in the middle does not count."""
    line = "Disallow: /" + "x" * 100 + "\n"
    start = FORBIDS + line * (MAX_BYTES // len(line) - 1)
    gap = MAX_BYTES - len(start)
    padding = "#" * (gap - 12) + "\n"
    body = start + padding + "Disallow: /public-not\n" + "Disallow: /late/\n" + line * (MAX_BYTES // len(line))
    assert body.encode()[:MAX_BYTES].endswith(b"\nDisallow: /")
    rules = learn(body)
    assert not rules.allow(PRIVATE)
    assert rules.allow(PUBLIC)
    assert rules.allow("http://a/late/x")


@pytest.mark.parametrize("seed", range(20))
def test_binary_garbage(seed: int) -> None:
    """Any bytes at all can be learned from; what they say is not known, but that it is an answer."""
    rules = learn(b"User-agent: *\n" + Random(seed).randbytes(3000))
    assert rules.allow(PUBLIC) in (True, False)
    assert 0.0 <= rules.crawl_delay_s <= MAX_CRAWL_DELAY_S


@pytest.mark.parametrize(
    ("line", "delay_s"),
    [
        ("", 0.0),
        ("Crawl-delay: 2", 2.0),
        ("Crawl-delay: 0.5", 0.5),
        ("crawl-DELAY:3", 3.0),
        ("Crawl-delay: 0", 0.0),
        ("Crawl-delay: -5", 0.0),
        ("Crawl-delay: soon", 0.0),
        ("Crawl-delay: nan", 0.0),
        ("Crawl-delay: inf", 0.0),
        ("Crawl-delay: 1e9", MAX_CRAWL_DELAY_S),
        ("Crawl-delay: 86400", MAX_CRAWL_DELAY_S),
        ("Request-rate: 1/5", 5.0),
        ("Request-rate: 2/1m", 30.0),
        ("Request-rate: 10/1s", 0.1),
        ("Request-rate: 1/1h", MAX_CRAWL_DELAY_S),
        ("Request-rate: 0/5", 0.0),
        ("Request-rate: 1/0", 0.0),
        ("Request-rate: x", 0.0),
        ("Request-rate: 1/5\nCrawl-delay: 2", 5.0),
        ("Request-rate: 1/5\nCrawl-delay: 20", 20.0),
    ],
)
def test_crawl_delay(line: str, delay_s: float) -> None:
    """Crawl-delay and Request-rate become seconds between requests, the longer one, capped; nonsense asks for nothing."""
    assert learn(f"User-agent: *\n{line}\nDisallow: /x").crawl_delay_s == delay_s


def test_a_delay_meant_for_others() -> None:
    """Only the group that speaks to this crawler sets its pace."""
    text = "User-agent: other\nCrawl-delay: 9\n\nUser-agent: scraper\nCrawl-delay: 2\n"
    assert learn(text).crawl_delay_s == 2.0
    for last in ("Crawl-delay: 9\nDisallow: /", "Disallow: /\nCrawl-delay: 9"):
        assert learn(f"{text}\nUser-agent: another\n{last}\n").crawl_delay_s == 2.0
    assert learn("User-agent: other\nUser-agent: scraper\nDisallow: /\nCrawl-delay: 9\n").crawl_delay_s == 9.0


def test_what_is_known() -> None:
    """Each origin has its own rules, until it has been asked it has none, and the last answer counts."""
    robots = Robots("scraper")
    assert robots.known("http://a") is None
    rules = robots.learn("http://a", FetchError(URL, "no"))
    assert robots.known("http://a") is rules
    assert robots.known("https://a") is None
    robots.learn("http://a", HttpErrorless(404))
    known = robots.known("http://a")
    assert known is not None
    assert known.allow(PRIVATE)


class HttpErrorless(Response):
    """A bare answer of some status."""

    def __init__(self, status: int) -> None:
        super().__init__(URL, request=Request(URL), status=status)


def test_an_http_error_is_no_answer() -> None:
    """Whoever turns a status into an error makes it forbid: statuses come as responses here."""
    denied = Robots("scraper").learn("http://a", HttpError(HttpErrorless(503)))
    assert not denied.allow(PUBLIC)
    assert issubclass(RobotsDenied, FetchError)


def test_the_least_recently_used_are_forgotten() -> None:
    """With 100,000 origins known, the one longest unused goes, not one in use."""
    robots = Robots("scraper")
    no = FetchError(URL, "no")
    robots.learn("http://first", no)
    for number in range(99_999):
        robots.learn(f"http://h{number}", no)
    assert robots.known("http://first") is not None
    robots.learn("http://last", no)
    assert robots.known("http://first") is not None
    assert robots.known("http://last") is not None
    assert robots.known("http://h0") is None


def test_files_last_over_a_crash() -> None:
    """Files that were read, and those that do not exist, are not asked for again; sites out of reach, and long files, are."""
    robots = Robots("scraper")
    many = FORBIDS + "".join(f"Disallow: /{n}\n" for n in range(7_000))
    answers = {"yes": (200, FORBIDS), "none": (404, "x"), "down": (503, ""), "long": (200, many)}
    for name, (status, body) in answers.items():
        request = Request(f"http://{name}/robots.txt")
        response = Response(request.url, request=request, status=status, body=body.encode())
        robots.learn(f"http://{name}", response)
    robots.learn("http://lost", FetchError(URL, "no"))
    state = robots.changes()
    assert robots.changes() == {}
    other = Robots("scraper")
    other.restore({**state, "stats": {}})
    yes, none = other.known("http://yes"), other.known("http://none")
    assert yes is not None
    assert none is not None
    assert (yes.allow("http://yes/private/"), yes.allow("http://yes/x"), none.allow("http://none/")) == (
        False,
        True,
        True,
    )
    assert [other.known(f"http://{name}") for name in ("down", "long", "lost")] == [None, None, None]


@pytest.mark.parametrize(
    "kept",
    [[2e9, FORBIDS], [2e9, FORBIDS, "another"], ["soon", FORBIDS, "scraper"], [2e9, None, "scraper"], 7, None, {}],
)
def test_rules_of_an_older_format_or_another_agent_are_asked_for_again(kept: Any) -> None:
    """What is not for our name, or not what we would have written, is passed over."""
    robots = Robots("scraper")
    robots.restore({"robots:http://a": kept, "robots:http://b": [2e9, FORBIDS, "scraper"]})
    assert robots.known("http://a") is None
    assert robots.known("http://b") is not None


MANY = [f"/{'abcdefgh'[n % 8]}/{n}" for n in range(1500)]
TRAITS = [
    *(
        "/a/0",
        "/a/00",
        "/a/8",
        "/b/1/x?y=%7E",
        "/%61/8",
        "/%61%2F8",
        "/a%2f8",
        "/a//8",
        "/A/8",
        "/x.pdf",
        "/x.pdf?",
        "/é",
    ),
    *(
        "/",
        "//a/8",
        "/?/a/8",
        "/robots.txt",
        "/robots.txt?x",
        "/a/8;x",
        "/tilde/~joe",
        "/tilde/%7ejoe",
        "/h/1",
        "/q?a=b",
    ),
    *("/q?a%3Db", "/a/8%", "/a/8%zz", "/z/a/8", "/a/%38", "/c/2=", "/d/%33"),
]


@pytest.mark.parametrize("more", [[], ["/robots.txt", "/*.pdf$", "/tilde/~joe", "/q?a=b", "/%C3%A9", "/a%2F8", "/"]])
def test_many_rules_mean_what_few_mean(more: list[str]) -> None:
    """Of a file that only forbids, most rules are compared without protego; it would say the same of every URL."""
    for extra in ([], *([each] for each in more)):
        text = "User-agent: *\n" + "".join(f"Disallow: {path}\n" for path in [*MANY, *extra])
        rules, protego = learn(text), Protego.parse(text)
        for path in TRAITS:
            url = "http://a" + path
            assert rules.allow(url) is protego.can_fetch(url, "*"), (extra, path)


def test_many_rules_with_an_allow() -> None:
    """The longest match counts among many rules, too."""
    text = "User-agent: *\nAllow: /a/8\n" + "".join(f"Disallow: {path}\n" for path in ["/a/", *MANY])
    rules = learn(text)
    assert (rules.allow("http://a/a/81"), rules.allow("http://a/a/x"), rules.allow("http://a/a/88")) == (
        True,
        False,
        False,
    )


def test_crawl_delays() -> None:
    """The delays of all known origins that ask for one."""
    robots = Robots("scraper")
    request = Request("http://a/robots.txt")
    robots.learn("http://a", Response(URL, request=request, body=b"User-agent: *\nCrawl-delay: 2"))
    robots.learn("http://b", Response(URL, request=request, body=b""))
    assert robots.crawl_delays() == {"http://a": 2.0}


@pytest.mark.parametrize("kind", [TooManyRedirects, OutOfScope])
def test_a_redirect_to_nowhere_allows(kind: type[FetchError]) -> None:
    """A chain too long, or one that leaves http, is a file that does not exist (section 2.3.1.2)."""
    assert Robots("scraper").learn("http://a", kind(URL, "no")).allow(PRIVATE)


@pytest.mark.parametrize(("status", "private", "public"), [(200, False, True), (404, True, True), (500, False, False)])
def test_a_body_too_large(status: int, private: bool, public: bool) -> None:
    """The head of a file past max_body is obeyed, and its status counts."""
    rules = Robots("scraper").learn("http://a", BodyTooLarge(URL, "too large", FORBIDS.encode() + b"#", status))
    assert (rules.allow(PRIVATE), rules.allow(PUBLIC)) == (private, public)


@pytest.mark.parametrize(
    ("agent", "token"),
    [
        ("scraper/0.1.0", "scraper"),
        ("ShopWatch/1.0 (+https://example.com/bot)", "shopwatch"),
        ("Mozilla/5.0 (compatible; mybot/1.0; +https://example.com/)", "mybot"),
        ("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101", "mozilla"),
        ("my-bot_2", "my-bot_2"),
        ("/", ""),
    ],
)
def test_product_token(agent: str, token: str) -> None:
    """Our name is the first product, or the one that is compatible with a browser."""
    assert product_token(agent) == token


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [("mybot", True), ("MyBot/2.0", True), ("bot", False), ("my", False), ("mybots", False), ("mybot-news", False)],
)
def test_groups_are_found_by_the_whole_token(name: str, forbidden: bool) -> None:
    """A part of our name is not our name (section 2.2.1)."""
    text = f"User-agent: {name}\nDisallow: /\n"
    assert learn(text, agent="mybot/1.0").allow(PUBLIC) is not forbidden


def aged(clock: list[float]) -> Robots:
    """Robots whose clock shows the list's last value."""
    return Robots("scraper", lambda: clock[-1])


@pytest.mark.parametrize(
    ("header", "age_s"),
    [("", MAX_AGE_S), ("max-age=3600", 3600), ("public, MAX-AGE=0", MIN_AGE_S), ("max-age=999999999", MAX_AGE_S)],
)
def test_age(header: str, age_s: float) -> None:
    """A file is asked for again after a day, or what Cache-Control says, within bounds (section 2.4)."""
    clock = [1000.0]
    robots = aged(clock)
    headers = {"Cache-Control": header}
    rules = robots.learn("http://a", Response(URL, request=Request(URL), headers=headers, body=FORBIDS.encode()))
    clock.append(1000.0 + age_s - 1)
    assert not robots.is_stale(rules)
    clock.append(1000.0 + age_s)
    assert robots.is_stale(rules)


def test_old_rules_outlive_a_site_out_of_reach() -> None:
    """What was read goes on to hold where asking again has no answer; a site never reached stays forbidden for minutes."""
    clock = [0.0]
    robots = aged(clock)
    first = robots.learn("http://a", Response(URL, request=Request(URL), body=FORBIDS.encode()))
    clock.append(MAX_AGE_S)
    again = robots.learn("http://a", FetchTimeout(URL, "slow"))
    assert again is first
    assert again.allow(PUBLIC)
    assert not robots.is_stale(again)
    down = robots.learn("http://b", FetchTimeout(URL, "slow"))
    clock.append(MAX_AGE_S + MIN_AGE_S)
    assert robots.is_stale(down)


@pytest.mark.parametrize("back_s", [MIN_AGE_S, 7200.0, 30 * MAX_AGE_S])
def test_a_clock_that_is_set_back(back_s: float) -> None:
    """No file and no failure holds for longer than it may: a day (section 2.4), ten minutes; then it is asked for again."""
    clock = [2e9 + 0.1]
    robots = aged(clock)
    read = robots.learn("http://a", Response(URL, request=Request(URL), body=FORBIDS.encode()))
    down = robots.learn("http://b", FetchTimeout(URL, "slow"))
    clock.append(clock[0] - 5.0)  # the clock of another machine
    assert (robots.is_stale(read), robots.is_stale(down)) == (False, False)
    clock.append(clock[0] - back_s)
    assert (robots.is_stale(read), robots.is_stale(down)) == (True, True)
    again = robots.learn("http://b", FetchTimeout(URL, "slow"))
    assert not robots.is_stale(again)
    clock.append(clock[-1] + MIN_AGE_S)
    assert robots.is_stale(again)


HOSTILE = {
    "prefixes": "User-agent: *\n" + "".join(f"Allow:/{n}\n" for n in range(40_000)),
    "anchors": "User-agent: *\n" + "".join(f"Allow:/{n}$\n" for n in range(40_000)),
    "stars": "User-agent: *\n" + "".join(f"Disallow:*{n}b\n" for n in range(40_000)),
    "wildcards": "User-agent: *\n" + ("Disallow: /" + "*a" * 900 + "b\n") * 250,
    "agents": "".join(f"User-agent: {n}\n" for n in range(15_000)) + "Allow: /x\n" * 25_000,
    "agent": "User-agent: *\n" * 15_000 + "Allow: /x\n" * 25_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_costs_little(name: str) -> None:
    """Half a megabyte of rules is read, and a URL judged, in a bounded time; a rule cut short forbids more, not less."""
    began = process_time()
    rules = learn(HOSTILE[name])
    read_s = process_time() - began
    began = process_time()
    for _ in range(5):
        rules.allow("http://a/" + "a" * 2000)
    judged_s = (process_time() - began) / 5
    assert (read_s < 1.0, judged_s < 0.05) == (True, True), f"{read_s * 1e3:.0f} ms, {judged_s * 1e3:.1f} ms"


@pytest.mark.parametrize("first", ["", "Allow: /x\n"])
def test_half_a_megabyte_of_short_rules(first: str) -> None:
    """All of 500 KiB counts, however many rules that is, to the last one (section 2.5)."""
    text = f"User-agent: *\n{first}" + "".join(f"Disallow:/{n:05x}\n" for n in range(500 * 1024 // 16))
    assert len(text) >= 500 * 1024
    rules = learn(text + "Disallow:/last\n")
    assert [rules.allow(f"http://a/{path}") for path in ("00000", "last", "x", "other")] == [False, False, True, True]


def test_rules_cut_short_forbid_more() -> None:
    """Of a rule with too many wildcards the beginning counts where it forbids, nothing where it allows."""
    many = "/x*a*a*a*a*a*a*a*a*a*a*z"
    assert not learn(f"User-agent: *\nDisallow: {many}").allow("http://a/xaaaaaaaaaa")
    assert not learn(f"User-agent: *\nDisallow: /x\nAllow: {many}").allow("http://a/xaaaaaaaaaaz")
