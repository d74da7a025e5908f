"""What a hostile site must not get done, seen from a whole crawl: S3 to S18, and F18."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import pytest
from aiohttp import web
from conftest import Crawls
from servers import RawServer, Site, in_loop, links, redirect

from scraper import Request, Response, Spider
from scraper.crawler import Crawler, Output, load_settings
from scraper.errors import InvalidURL, RequestError
from scraper.layers import mapping_layer
from scraper.log import Log
from scraper.politeness.robots import Robots
from scraper.selector import base_href, detect_encoding
from scraper.spider import make_spider

FAST = {"politeness.robots": False, "politeness.adaptive": False, "download.retries": 0}
SOURCES = sorted((Path(__file__).parents[2] / "scraper").rglob("*.py"))
SECRETS = {"Authorization": "Basic c2VjcmV0", "Cookie": "session=secret", "Proxy-Authorization": "Basic c2VjcmV0"}


def asking(*requests: Request, **attributes: Any) -> type[Spider]:
    """A spider that asks for these, and notes what came of each."""

    class Asking(Spider):
        name = "asking"

        async def start(self) -> Any:
            for request in requests:
                yield request.replace(errback="failed")

        def parse(self, response: Response) -> Any:
            yield {"page": response.url}
            yield from response.follow_all(css="a", errback="failed")

        def failed(self, failure: Any) -> Any:
            return {"error": type(failure.error).__name__, "says": str(failure.error)}

    for name, value in attributes.items():
        setattr(Asking, name, value)
    return Asking


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@in_loop
async def test_credentials_stay_with_their_origin(crawled: Crawls, status: int) -> None:
    """S3, S9: a redirect to another port alone loses every credential; one within the origin keeps them."""
    async with Site({"*": "page"}) as other:
        pages = {"/away": redirect(other.url("/there"), status), "/here": redirect("/kept", status), "/kept": "page"}
        async with Site(pages) as site:
            pairs = [*SECRETS.items(), ("Authorization", "Bearer secret"), ("Accept", "text/html")]
            starts = [
                Request(site.url(path), headers=pairs, method="POST", body="secret=1", cookies={"own": "secret"})
                for path in ("/away", "/here")
            ]
            await crawled(asking(*starts), {**FAST, "download.private_addresses": "always"})
            there, kept = other.asked[0], next(each for each in site.asked if each.path == "/kept")
    assert "secret" not in str(dict(there.headers)).lower().replace("c2vjcmv0", "secret")
    assert there.headers["Accept"] == "text/html"
    assert there.headers.get("Content-Length", "0") == ("0" if status < 307 else "8")
    assert kept.headers["Authorization"] == SECRETS["Authorization"]
    assert (there.method, kept.method) == (("GET", "GET") if status < 307 else ("POST", "POST"))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "data:text/html,<p>x", "ftp://127.0.0.1/", "javascript:1"])
@in_loop
async def test_http_and_https_only(crawled: Crawls, target: str) -> None:
    """S4: other schemes are not fetched, from a redirect, a link, a base element or a spider."""
    pages = {"/": links([target, "/moved"]), "/moved": redirect(target), "/base": f"<base href='{target}'><a href=x>"}
    async with Site(pages) as site:
        result = await crawled(asking(Request(site.url()), Request(site.url("/base"))), FAST)
    pages_got = [item["page"] for item in result.items if "page" in item]
    assert all(url.startswith("http://127.0.0.1") for url in pages_got)
    assert "OutOfScope" in [item.get("error") for item in result.items]
    assert "/x" in site.paths
    with pytest.raises(InvalidURL):
        Request(target)


@in_loop
async def test_scope_holds_at_every_hop(crawled: Crawls) -> None:
    """S5: the second hop out of allowed_domains is refused before the other host is asked."""
    async with Site({"*": "page"}, host="127.0.0.2") as other:
        pages = {"/": redirect("/2"), "/2": redirect(other.url())}
        async with Site(pages) as site:
            result = await crawled(asking(Request(site.url()), allowed_domains=["127.0.0.1"]), FAST)
    assert [item["error"] for item in result.items] == ["OutOfScope"]
    assert other.asked == []


PRIVATE = [
    "169.254.169.254/latest/meta-data/",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[::7f00:1]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "0x7f.1",
    "2130706433",
    "0177.1",
    "0",
    "127.1",
    "100.64.0.1",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "localhost",
    "127.0.0.2",
    "１２７.0.0.2",
]


@pytest.mark.parametrize("host", PRIVATE)
@in_loop
async def test_private_addresses_behind_a_redirect(crawled: Crawls, host: str) -> None:
    """S5, S7: a start URL opens its own host; a redirect or a link to any other private one is refused, however written."""
    async with Site({}, host="127.0.0.2") as private:
        port = "" if host.endswith("/") else f":{private.port}/"
        pages = {"/": redirect(f"http://{host}{port}"), "/links": links([f"http://{host}{port}?link"])}
        async with Site(pages, host="127.0.0.9") as site:
            result = await crawled(asking(Request(site.url()), Request(site.url("/links"))), FAST)
    assert [item["error"] for item in result.items if "error" in item] == ["PrivateAddress", "PrivateAddress"]
    assert "download.private_addresses" in result.items[0].get("says", "download.private_addresses")
    assert private.asked == []


LOOKED_UP: list[str] = []


async def pointed_inside(host: str) -> list[str]:
    """A resolver for which every name leads to loopback."""
    LOOKED_UP.append(host)
    return ["127.0.0.1"]


@in_loop
async def test_a_name_that_is_pointed_inside(crawled: Crawls) -> None:
    """S7: a name is looked up once a connection, and what is judged is the address that would be connected to."""
    LOOKED_UP.clear()
    async with Site({"*": "secret"}) as site:
        page = redirect(f"http://rebound.test:{site.port}/secret")
        async with Site({"/": page}, host="127.0.0.9") as start:
            result = await crawled(
                asking(Request(start.url())), {**FAST, "download.resolver": f"{__name__}:pointed_inside"}
            )
    assert [item["error"] for item in result.items] == ["PrivateAddress"]
    assert site.asked == []
    assert LOOKED_UP == ["rebound.test"]


@in_loop
async def test_xml_has_no_entities(crawled: Crawls, empty_folder: Path) -> None:
    """S10: neither a billion laughs nor a file nor the network comes out of an XML page."""
    (empty_folder / "secret").write_text("SECRET")
    async with Site({"/dtd": "<!ENTITY remote 'REMOTE'>"}) as site:
        laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
        documents = [
            f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}]><a><b>&l9;</b></a>',
            f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{empty_folder}/secret">]><a><b>&x;</b></a>',
            f'<!DOCTYPE a [<!ENTITY x SYSTEM "{site.url("/dtd")}">]><a><b>&x;</b></a>',
            f'<!DOCTYPE a SYSTEM "{site.url("/dtd")}"><a><b>&remote;</b></a>',
            f'<!DOCTYPE a [<!ENTITY % p SYSTEM "{site.url("/dtd")}">%p;]><a><b>&remote;</b></a>',
        ]
        for number, text in enumerate(documents):
            site.pages[f"/{number}"] = web_page(text, "application/xml")

        class Reader(Spider):
            name = "reader"
            start_urls = [site.url(f"/{number}") for number in range(len(documents))]

            def parse(self, response: Response) -> Any:
                try:
                    yield {"text": response.xpath("string(/)").get() or ""}
                except ValueError as error:
                    yield {"text": "", "says": str(error)}

        result = await crawled(Reader, FAST)
    assert len(result.items) == len(documents)
    for item in result.items:
        assert len(item["text"]) < 100
        assert "SECRET" not in item["text"]
        assert "REMOTE" not in item["text"]
    assert ["entities" in item.get("says", "") for item in result.items].count(True) >= 3
    assert "/dtd" not in site.paths


def web_page(text: str, kind: str = "text/html") -> Callable[[web.BaseRequest], web.Response]:
    """A page of this Content-Type."""
    return lambda request: web.Response(text=text, content_type=kind)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_read_is_run(path: Path) -> None:
    """S11: no pickle, marshal, shelve, eval or exec anywhere; no yaml. State is JSON or msgpack."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([ast.alias(node.module or "")] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert not imported & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {"eval", "exec", "compile", "__import__", "pickle.loads"}


@in_loop
async def test_no_text_splits_a_record(crawled: Crawls, empty_folder: Path) -> None:
    """S13: line ends of every kind inside an item leave one record a line, in JSONL and, quoted, in CSV."""
    text = "a\nb\rc\r\nd\u2028e\u2029f\x85g\x0bh\x0ci\x1cj,\"k'"
    async with Site({"/": web_page(f"<p>{text.encode('unicode_escape').decode()}")}) as site:

        class Odd(Spider):
            name = "odd"
            start_urls = [site.url()]

            def parse(self, response: Response) -> Any:
                return {"text": text, "formula": "=1+1"}

        names = [str(empty_folder / name) for name in ("odd.jsonl", "odd.csv")]
        await crawled(Odd, FAST, outputs=[Output(name) for name in names])
    lines = (empty_folder / "odd.jsonl").read_text(encoding="utf-8").splitlines()
    assert [msgspec.json.decode(line) for line in lines] == [{"text": text, "formula": "=1+1"}]
    assert (empty_folder / "odd.csv").read_bytes().count(b'"a\n') == 1


@pytest.mark.parametrize(("option", "shown"), [("keep", "{}"), ("escape", "'{}")])
@in_loop
async def test_formulas_in_csv(crawled: Crawls, empty_folder: Path, option: str, shown: str) -> None:
    """S13: items.csv_formulas = "escape" makes texts of what a spreadsheet would run, headers too; numbers stay numbers."""
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"]

    class Sheet(Spider):
        name = "sheet"

        async def start(self) -> Any:
            yield {"=head": "plain", "number": -1, **{f"t{n}": text for n, text in enumerate(texts)}}

    for _ in range(2):
        await crawled(Sheet, {**FAST, "items.csv_formulas": option}, outputs=[Output(str(empty_folder / "sheet.csv"))])
    with (empty_folder / "sheet.csv").open(newline="", encoding="utf-8") as file:
        header, row, appended = csv.reader(file)
    assert header[0] == shown.format("=head")
    assert row == ["plain", "-1", *map(shown.format, texts)]
    assert appended == row


@in_loop
async def test_logs_are_safe_to_show(crawled: Crawls) -> None:
    """S14: a site's words cannot steer the terminal or show a password, and a dead host fills no log."""
    lines: list[str] = []
    evil = "/\x1b[31m\u202egnp.exe\x07".encode("latin-1", "ignore")
    answer = b"HTTP/1.1 302 Found\r\nLocation: ftp://user:hunter2@" + evil + b"\r\nContent-Length: 0\r\n\r\n"
    async with RawServer(answer) as server:
        url = server.url("/%E2%80%AE").replace("http://", "http://me:hunter2@")
        urls = [f"{url}?{number}" for number in range(200)]
        spider = make_spider(type("Many", (Spider,), {"name": "many", "start_urls": urls}), {})
        settings = load_settings(Spider, [mapping_layer({**FAST, "frontier.use": "memory"}, "the test")])
        result = await Crawler(spider, settings, log=Log("debug", "console", lines.append)).run()
    assert result.stats["failed"] == 200
    text = "\n".join(lines)
    assert "hunter2" not in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert len([line for line in lines if "failed" in line]) <= 10


@in_loop
async def test_nothing_listens(crawled: Crawls) -> None:
    """S15: a crawl opens no port."""
    listening: list[set[str]] = []

    def ports() -> set[str]:
        rows = [
            row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/self/net/{name}").read_text().splitlines()
        ]
        inodes = {row[9] for row in rows if row[3] == "0A"}
        own = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
        return {inode for inode in inodes if f"socket:[{inode}]" in own}

    class Look(Spider):
        name = "look"

        def parse(self, response: Response) -> None:
            listening.append(ports())

    async with Site({"/": "page"}) as site:
        Look.start_urls = [site.url()]
        before = ports()
        await crawled(Look, FAST)
    assert before, "the site's own"
    assert listening == [before]


MIB = 2**20
ADVERSARIAL = [
    b"<base " * (MIB // 6),
    b"<base" + b" " * MIB,
    b"<base href=" * (MIB // 11),
    b"<base href='" + b"x" * MIB,
    b"<!--" * (MIB // 4),
    b"<!--" + b"-" * MIB,
    b"<meta " * (MIB // 6),
    b"<meta charset=" * (MIB // 14),
    b"<meta" + b" " * MIB,
    b"<meta http-equiv=content-type content='" + b" " * MIB,
    b"<?xml " * (MIB // 6),
    b"<?xml" + b" " * MIB + b"encoding=",
    b"User-agent: *\nDisallow: /" + b"*a" * (MIB // 2) + b"$",
    b"User-agent: *\n" + b"Disallow: /a*b*c*d*e*f*g*$\n" * (MIB // 27),
]


@pytest.mark.parametrize("body", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_patterns_take_linear_time(body: bytes) -> None:
    """S17: what looks into a page's first bytes takes 100 ms at most for 1 MB of the worst."""
    began = perf_counter()
    detect_encoding(body, "text/html; charset=" + body[:MIB].decode("latin-1"))
    detect_encoding(body, None)
    base_href(body)
    assert perf_counter() - began < 0.1


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\r\n"])
def test_line_breaks_in_urls_and_headers(bad: str) -> None:
    """S18: refused where the request is made: in the URL, the method, a header's name and value, a cookie."""
    with pytest.raises(InvalidURL):
        Request(f"http://example.com/a{bad}b")
    for options in (
        {"headers": {"X": f"a{bad}b"}},
        {"headers": {f"X{bad}": "a"}},
        {"method": f"GET{bad}"},
        {"cookies": {"a": f"b{bad}"}},
        {"cookies": {f"a{bad}": "b"}},
    ):
        with pytest.raises(RequestError):
            Request("http://example.com/", **options)  # type: ignore[arg-type]


@in_loop
async def test_long_urls(crawled: Crawls) -> None:
    """S18: a link or redirect of more than 2,083 characters is not followed; one of 2,083 is."""
    async with Site({"*": "page"}) as site:
        fits = site.url("/") + "a" * (2083 - len(site.url("/")))
        site.pages |= {"/": links([fits, fits + "a", "/moved"]), "/moved": redirect(fits + "b")}
        result = await crawled(asking(Request(site.url())), FAST)
    assert {len(site.url(path)) for path in site.paths if "aaa" in path} == {2083}
    assert [item["error"] for item in result.items if "error" in item] == ["OutOfScope"]


@in_loop
async def test_a_flood_of_cookies(crawled: Crawls) -> None:
    """F18: 10,000 cookies, malformed ones among them: the Cookie header stays below 8 KB, and the crawl goes on."""

    def flood(request: web.BaseRequest) -> web.Response:
        response = web.Response(text=links([f"/{int(request.path[1:] or 0) + 1}"]) if request.path != "/120" else "end")
        response.content_type = "text/html"
        for number in range(85):
            response.headers.add("Set-Cookie", f"c{request.path[1:]}-{number}={'v' * 50}; Path=/")
        for odd in ("", "=", ";;;", "a", "=b", "x=\x80\xff", "y=1; Max-Age=z; Domain=.; Expires=never", "__Host-z=1"):
            response.headers.add("Set-Cookie", odd)
        return response

    async with Site({"*": flood}) as site:
        result = await crawled(asking(Request(site.url())), FAST)
    assert result.stats["pages"] == 121
    assert 0 < max(len(each.headers.get("Cookie", "")) for each in site.asked) <= 8192


def test_robots_of_adversarial_patterns() -> None:
    """S17: a robots.txt of wildcards is parsed and asked in linear time."""
    request = Request("http://example.com/robots.txt")
    for rule in ("/" + "*a" * 1000 + "$", "/" + "a*" * 1000 + "b", "/" + "*" * 1000):
        rules = Robots("bot").learn(
            "http://example.com",
            Response(request.url, request=request, body=f"User-agent: *\nDisallow: {rule}\n".encode()),
        )
        began = perf_counter()
        rules.allow("http://example.com/" + "a" * 2000)
        assert perf_counter() - began < 0.1, rule[:20]
