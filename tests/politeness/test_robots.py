"""robots.txt by RFC 9309: which answers allow, which forbid, and what a file may ask for."""

from __future__ import annotations

import codecs
from random import Random

import pytest

from scraper import Request, Response
from scraper.errors import ConnectError, DnsError, FetchError, FetchTimeout, RobotsDenied, TooManyRedirects
from scraper.http import HttpError
from scraper.politeness.robots import MAX_BYTES, MAX_CRAWL_DELAY_S, Robots, Rules

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


@pytest.mark.parametrize("kind", [DnsError, ConnectError, FetchTimeout, TooManyRedirects, FetchError])
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
    answers = {"yes": (200, FORBIDS), "none": (404, "x"), "down": (503, ""), "long": (200, FORBIDS + "#" * 70_000)}
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


def test_crawl_delays() -> None:
    """The delays of all known origins that ask for one."""
    robots = Robots("scraper")
    request = Request("http://a/robots.txt")
    robots.learn("http://a", Response(URL, request=request, body=b"User-agent: *\nCrawl-delay: 2"))
    robots.learn("http://b", Response(URL, request=request, body=b""))
    assert robots.crawl_delays() == {"http://a": 2.0}
