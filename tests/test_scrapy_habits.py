"""Spiders written as Scrapy's tutorial writes them run after changing the import line alone."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest
from conftest import Crawls
from servers import AUTHORS, QUOTES_A_PAGE, Site, in_loop, quotes_site

import scraper as scrapy
from scraper.log import Log

PAGES = 3
QUOTES = PAGES * QUOTES_A_PAGE


class QuotesSpider(scrapy.Spider):
    """The tutorial's first spider: lists, links to the next page, an argument, upper-case settings."""

    name = "quotes"
    custom_settings = {"DOWNLOAD_DELAY": 0.01, "CONCURRENT_REQUESTS": 4, "ROBOTSTXT_OBEY": True, "LOG_LEVEL": "ERROR"}

    def __init__(self, category=None, *args, **kwargs):  # type: ignore[no-untyped-def]
        super().__init__(*args, **kwargs)
        self.category = category
        self.started = 0

    def start_requests(self):  # type: ignore[no-untyped-def]
        for url in self.start_urls:
            self.started += 1
            yield scrapy.Request(url=url, callback=self.parse, dont_filter=True)

    def parse(self, response):  # type: ignore[no-untyped-def]
        self.log("Visited %s" % response.url)  # noqa: UP031 - as the tutorial has it
        self.logger.info("%d quotes on %s", len(response.css("div.quote")), response.url)
        for quote in response.css("div.quote"):
            yield {
                "text": quote.css("span.text::text").extract_first(),
                "author": quote.xpath('.//small[@class="author"]/text()').extract_first(),
                "tags": quote.css("div.tags > a.tag::text").extract(),
                "number": quote.css("span.text::text").re(r"(\d+)\.(\d+)"),
                "about": quote.css("a::attr(href)").get(),
                "category": self.category,
            }
        next_page_url = response.css("li.next > a::attr(href)").extract_first()
        if next_page_url is not None:
            yield scrapy.Request(response.urljoin(next_page_url))


class AuthorSpider(scrapy.Spider):
    """The tutorial's second spider: two callbacks, follow and follow_all, data handed on, errbacks, priorities."""

    name = "author"
    custom_settings = {"RETRY_TIMES": 0, "DEPTH_LIMIT": 5, "USER_AGENT": "tutorial (+http://example.com)"}

    def parse(self, response):  # type: ignore[no-untyped-def]
        for href in response.css(".author + a::attr(href)"):
            yield response.follow(href, self.parse_author, priority=10)
        page = response.meta.get("page", 1)
        for link in response.css("li.next a"):
            self.logger.info("the next one is %s", link.attrib["href"])
            yield response.follow(link, callback=self.parse, meta={"page": page + 1})
        yield from response.follow_all(response.css("div.tags a.tag"), self.parse_tag, errback=self.no_tag)
        yield scrapy.Request(
            response.urljoin("/page/1/"), callback=self.parse_first, cb_kwargs={"page": page}, dont_filter=True
        )

    def parse_author(self, response):  # type: ignore[no-untyped-def]
        def extract_with_css(query):  # type: ignore[no-untyped-def]
            return response.css(query).get(default="").strip()

        yield {
            "name": extract_with_css("h3.author-title::text"),
            "birthdate": extract_with_css(".author-born-date::text"),
            "year": response.xpath("//span/text()").re_first(r"\d{4}"),
            "bio": extract_with_css(".author-description::text"),
        }

    def parse_tag(self, response):  # type: ignore[no-untyped-def]
        raise AssertionError("there are no pages of tags")

    def parse_first(self, response, page):  # type: ignore[no-untyped-def]
        return {"from": page, "quotes": len(response.xpath('//div[@class="quote"]').getall())}

    def no_tag(self, failure):  # type: ignore[no-untyped-def]
        self.logger.error(repr(failure))
        yield {"tag": failure.request.url.split("/")[-2], "status": failure.response.status}


def starting(spider: type[scrapy.Spider], url: str) -> type[scrapy.Spider]:
    """Return the spider with this start URL."""
    return type(spider.__name__, (spider,), {"start_urls": [url]})


@in_loop
async def test_the_quotes_spider(crawled: Crawls) -> None:
    """All quotations of all pages, in order, with their fields; each page once."""
    async with Site(quotes_site(PAGES)) as site:
        result = await crawled(starting(QuotesSpider, site.url("/page/1/")))
    assert site.paths == [f"/page/{number}/" for number in range(1, PAGES + 1)]
    assert [item["number"] for item in result.items] == [
        [str(page), str(place)] for page in range(1, PAGES + 1) for place in range(QUOTES_A_PAGE)
    ]
    assert result.items[1] == {
        "text": "“Quotation 1.1”",
        "author": AUTHORS[2],
        "tags": ["page1", "odd"],
        "number": ["1", "1"],
        "about": "/author/Grace-Hopper/",
        "category": None,
    }
    assert (result.broken, result.reason, len(result.items)) == (False, "finished", QUOTES)


@in_loop
async def test_the_author_spider(crawled: Crawls) -> None:
    """Each author once, the pages' data handed on, and every missing page in the errback."""
    async with Site(quotes_site(PAGES)) as site:
        result = await crawled(starting(AuthorSpider, site.url("/")))
    authors = [item for item in result.items if "name" in item]
    assert sorted(item["name"] for item in authors) == sorted(AUTHORS)
    assert authors[0]["year"] == "1900"
    assert authors[0]["birthdate"].startswith("Born ")
    assert authors[0]["bio"].endswith(" wrote programs.")
    firsts = [item for item in result.items if "from" in item]
    assert sorted(item["from"] for item in firsts) == [1, 2, 3]
    assert {item["quotes"] for item in firsts} == {QUOTES_A_PAGE}
    tags = {item["tag"]: item["status"] for item in result.items if "tag" in item}
    assert tags == dict.fromkeys(["odd", "even", "page1", "page2", "page3"], 404)
    assert (result.stats["failed"], result.stats["errors"], result.broken) == (5, 0, False)
    assert {each.headers["User-Agent"] for each in site.asked} == {"tutorial (+http://example.com)"}


@pytest.mark.parametrize(("args", "category"), [({}, None), ({"category": "electronics"}, "electronics")])
@in_loop
async def test_arguments_of_init(empty_folder: Any, args: dict[str, str], category: str | None) -> None:
    """``__init__(self, category=None, *args, **kwargs)`` gets -a arguments, and need not be annotated."""
    async with Site(quotes_site(1)) as site:
        spider = starting(QuotesSpider, site.url("/page/1/"))
        result = await asyncio.to_thread(scrapy.run, spider, args=args)
    assert {item["category"] for item in result.items} == {category}
    assert len(result.items) == QUOTES_A_PAGE


@in_loop
async def test_log_and_logger(crawled: Crawls) -> None:
    """self.log("…") logs at debug level, self.logger takes %-arguments; each line carries its page."""
    from scraper.crawler import Crawler, load_settings
    from scraper.layers import mapping_layer
    from scraper.spider import make_spider

    lines: list[str] = []
    async with Site(quotes_site(1)) as site:
        spider = starting(QuotesSpider, site.url("/page/1/"))
        settings = load_settings(spider, [mapping_layer({"frontier.use": "memory"}, "the test")])
        log = Log("debug", "console", lines.append)
        await Crawler(make_spider(spider, {}), settings, log=log).run()
        url = site.url("/page/1/")
    assert any(f"Visited {url}" in line and "debug" in line for line in lines)
    assert any(f"{QUOTES_A_PAGE} quotes on {url}" in line and "info" in line and f"url={url}" in line for line in lines)


@in_loop
async def test_an_unknown_scrapy_setting_is_named(crawled: Crawls) -> None:
    """A Scrapy setting without a counterpart is an error with its name, not silence."""
    spider = type("Odd", (QuotesSpider,), {"custom_settings": {"TELNETCONSOLE_ENABLED": False}})
    with pytest.raises(scrapy.ScraperError, match="TELNETCONSOLE_ENABLED"):
        await crawled(spider)


@in_loop
async def test_meta_that_scrapy_obeys(crawled: Crawls, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no effect: that is said, once for each key, with what to write; other keys are the user's own."""

    class Slow(scrapy.Spider):
        name = "slow"

        async def start(self) -> Any:
            for number in range(3):
                yield scrapy.Request(site.url(f"/{number}"), meta={"proxy": "http://127.0.0.1:1", "page": number})

        def parse(self, response: scrapy.Response) -> Any:
            yield response.follow("/last", meta={"dont_redirect": True}, callback=self.last)

        def last(self, response: scrapy.Response) -> None: ...

    async with Site({"*": "page"}) as site:
        await crawled(Slow)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert 'Scrapy\'s meta["proxy"] has no effect here; write Request(…, proxy=…)' in said[0]
    assert (
        'meta["dont_redirect"] has no effect here; list the statuses in the spider\'s handle_httpstatus_list' in said[1]
    )


@in_loop
async def test_attributes_that_scrapy_obeys(crawled: Crawls, capsys: pytest.CaptureFixture[str]) -> None:
    """A spider's own user_agent or download_delay is no setting: that is said."""
    async with Site(quotes_site(1)) as site:
        gentle = {"download_delay": 3, "user_agent": "me/1", "start_urls": [site.url("/page/1/")]}
        await crawled(type("Gentle", (QuotesSpider,), gentle))
    said = capsys.readouterr().err
    assert "the spider's download_delay, which Scrapy obeys, has no effect here; write custom_settings" in said
    assert 'write custom_settings = {"USER_AGENT": …}' in said
    assert len(said.splitlines()) == 2


class WithoutSpider:
    """A pipeline as Scrapy's template has it from version 2.13 on."""

    seen: ClassVar[list[str]] = []

    def open_spider(self) -> None:
        self.seen.append("open")

    async def process_item(self, item: Any) -> Any:
        return {**item, "seen": True}

    def close_spider(self) -> None:
        self.seen.append("close")


@in_loop
async def test_a_pipeline_whose_methods_take_no_spider(crawled: Crawls) -> None:
    """It gets what it takes."""
    async with Site(quotes_site(1)) as site:
        settings = {"pipelines": [{"use": f"{__name__}:WithoutSpider"}]}
        result = await crawled(type("Piped", (QuotesSpider,), {"start_urls": [site.url("/page/1/")]}), settings)
    assert [item["seen"] for item in result.items] == [True] * QUOTES_A_PAGE
    assert WithoutSpider.seen == ["open", "close"]


@in_loop
async def test_the_rest_of_a_response(crawled: Crawls) -> None:
    """What else tutorials use: attrib, follow_all by css and xpath, re, url, status, headers, meta, selector."""
    async with Site(quotes_site(2)) as site:

        class Pages(scrapy.Spider):
            name = "pages"
            start_urls = [site.url("/page/1/")]
            found: dict[str, Any] = {}

            def parse(self, response):  # type: ignore[no-untyped-def]
                self.found |= {
                    "attrib": response.css("li.next a").attrib["href"],
                    "css": [request.url for request in response.follow_all(css="li.next a")],
                    "xpath": [request.url for request in response.follow_all(xpath="//li[@class='next']/a")],
                    "positional": [r.callback for r in response.follow_all(response.css("li.next a"), self.parse)],
                    "re": response.css("small.author::text").re(r"^(\w+)")[:1],
                    "getall": len(response.selector.css("span.text").getall()),
                    "status": response.status,
                    "type": response.headers["content-type"],
                    "meta": response.meta,
                    "join": response.urljoin("../x"),
                }

        await crawled(Pages)
        assert Pages.found == {
            "attrib": "/page/2/",
            "css": [site.url("/page/2/")],
            "xpath": [site.url("/page/2/")],
            "positional": [Pages.found["positional"][0]],
            "re": ["Alan"],
            "getall": QUOTES_A_PAGE,
            "status": 200,
            "type": "text/html; charset=utf-8",
            "meta": {},
            "join": site.url("/page/x"),
        }
        assert Pages.found["positional"][0].__name__ == "parse"
