"""The demo bookshop, asked over a real connection on the loopback interface."""

import asyncio
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import date
from html.parser import HTMLParser
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
import pytest
from parsel import Selector

from scraper.demo.bookshop import CATALOGUE, CATEGORIES, PAGE_SIZE, Product, products_in, serve
from scraper.demo.catalogue import slugify

SITEMAP = "{http://www.sitemaps.org/schemas/sitemap/0.9}"
WORDS = {"One": 1, "Two": 2, "Three": 3, "Four": 4, "Five": 5}
T = TypeVar("T")
ODD_CORNERS = ("/slow", "/error", "/flaky", "/loop")


class Client:
    """A session on a running shop, which takes paths and full addresses alike."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        """Take the address of the shop and the session to ask it with."""
        self.base = base
        self.session = session

    async def get(self, address: str, *, allow_redirects: bool = True) -> tuple[aiohttp.ClientResponse, str]:
        """Fetch a page; the response comes with its text."""
        async with self.session.get(urljoin(self.base, address), allow_redirects=allow_redirects) as response:
            return response, await response.text()

    async def page(self, address: str) -> Selector:
        """Fetch a page which has to be there, for picking it apart."""
        response, text = await self.get(address)
        assert response.status == 200, address
        return Selector(text)

    async def status(self, address: str) -> int:
        """Fetch a page for its status alone, without following redirects."""
        response, _ = await self.get(address, allow_redirects=False)
        return response.status

    async def series(self, address: str) -> list[tuple[str, Selector]]:
        """Fetch a listing page and all that come after it by its `next` links."""
        pages = []
        following: str | None = urljoin(self.base, address)
        while following:
            page = await self.page(following)
            pages.append((following, page))
            href = page.css("li.next a::attr(href)").get()
            following = urljoin(following, href) if href else None
        return pages


def with_shop(visit: Callable[[Client], Awaitable[T]]) -> T:
    """Open a shop, let `visit` walk through it, and close it again."""

    async def run() -> T:
        async with serve() as base, aiohttp.ClientSession() as session:
            return await visit(Client(base, session))

    return asyncio.run(run())


def product_named(title: str) -> Product:
    """The book of that title."""
    return next(product for product in CATALOGUE if product.title == title)


def product_paths(pages: list[tuple[str, Selector]]) -> list[str]:
    """The paths of the books on listing pages, in the order shown."""
    return [
        urlsplit(urljoin(address, href)).path
        for address, page in pages
        for href in page.css("article.product_pod h3 a::attr(href)").getall()
    ]


def test_catalogue_has_a_thousand_distinct_books_in_fifty_categories() -> None:
    """Titles, addresses and UPCs of the thousand books differ, and every field keeps to its range."""
    assert len(CATALOGUE) == 1000
    assert len({product.title for product in CATALOGUE}) == 1000
    assert len({product.path for product in CATALOGUE}) == 1000
    assert len({product.upc for product in CATALOGUE}) == 1000
    assert [product.id for product in CATALOGUE] == list(range(1, 1001))
    assert len({category.name for category in CATEGORIES}) == len(CATEGORIES) == 50
    for product in CATALOGUE:
        assert 1 <= product.rating <= 5
        assert 10 <= product.price < 60
        assert len(str(product.price)) == 5
        assert product.stock >= 0
        assert len(product.upc) == 16
        assert int(product.upc, 16) >= 0
        assert len(product.reviews) <= 4
        assert all(1 <= review.stars <= 5 for review in product.reviews)
        assert "{" not in product.description + product.title


def test_catalogue_exercises_escaping_and_the_ends_of_ranges() -> None:
    """Some titles need escaping, some letters are beyond ASCII, some books are sold out and some have no reviews."""
    titles = [product.title for product in CATALOGUE]
    for character in "&<>\"'ø橋ч":
        assert any(character in title for title in titles), character
    assert 0 < sum(product.stock == 0 for product in CATALOGUE) < 200
    assert {len(product.reviews) for product in CATALOGUE} == {0, 1, 2, 3, 4}
    assert {product.rating for product in CATALOGUE} == {1, 2, 3, 4, 5}


def test_category_sizes_are_uneven_and_add_up() -> None:
    """The categories share out all books, among them sizes of one, of full pages and of several pages."""
    sizes = [len(products_in(category)) for category in CATEGORIES]
    assert sum(sizes) == 1000
    assert {1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE} <= set(sizes)
    assert max(sizes) > 5 * PAGE_SIZE


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Crème Brûlée, Jalapeños & Smørrebrød", "creme-brulee-jalapenos-and-smorrebrod"),
        ("Straße nach Łódź", "strasse-nach-lodz"),
        ("Zoë's 五つの橋 (Five Bridges)", "zoes-five-bridges"),
    ],
)
def test_slugs_are_plain_ascii(title: str, slug: str) -> None:
    """A title of any letters becomes lower-case ASCII words joined by hyphens."""
    assert slugify(title) == slug


def test_following_next_finds_every_book_once() -> None:
    """The next links lead from the home page over fifty pages of twenty books, which show the whole catalogue."""
    pages = with_shop(lambda client: client.series("/"))
    assert len(pages) == 50
    assert {len(page.css("article.product_pod")) for _, page in pages} == {20}
    assert product_paths(pages) == [product.path for product in CATALOGUE]


def test_listing_shows_what_the_catalogue_says() -> None:
    """Titles, prices, ratings, availability and covers on the listing pages are those of the catalogue."""
    pages = with_shop(lambda client: client.series("/catalogue/page-1.html"))
    pods = [(address, pod) for address, page in pages for pod in page.css("article.product_pod")]
    for product, (address, pod) in zip(CATALOGUE, pods, strict=True):
        assert pod.css("h3 a::attr(title)").get() == product.title
        assert pod.css("p.price_color::text").get() == f"£{product.price}"
        stars = (pod.css("p.star-rating::attr(class)").get() or "").split()[-1]
        assert WORDS[stars] == product.rating
        available = "".join(pod.css("p.instock.availability::text").getall()).strip()
        assert available == ("In stock" if product.stock else "Out of stock")
        cover = urljoin(address, pod.css("img.thumbnail::attr(src)").get() or "")
        assert urlsplit(cover).path == f"/media/{product.id}.svg"


def test_pager_leads_both_ways() -> None:
    """Each page says its number, and the first has no previous and the last no next link."""

    async def visit(client: Client) -> None:
        second = await client.page("/catalogue/page-2.html")
        assert second.css("ul.pager li.current::text").get() == "Page 2 of 50"
        assert second.css("li.previous a::attr(href)").get() == "page-1.html"
        assert (await client.page("/catalogue/page-1.html")).css("li.previous").get() is None
        assert (await client.page("/catalogue/page-50.html")).css("li.next").get() is None
        assert (await client.page("/index.html")).css("li.next a::attr(href)").get() == "catalogue/page-2.html"

    with_shop(visit)


def test_side_bar_leads_to_categories_which_add_up() -> None:
    """The side bar lists fifty categories, whose pages together show every book exactly once."""

    async def visit(client: Client) -> None:
        home = await client.page("/")
        links = home.css("div.side_categories ul.nav-list > li > ul > li > a")
        assert [link.css("::text").get() for link in links] == [category.name for category in CATEGORIES]
        found: Counter[str] = Counter()
        for category, link in zip(CATEGORIES, links, strict=True):
            pages = await client.series(link.attrib["href"])
            paths = product_paths(pages)
            assert paths == [product.path for product in products_in(category)]
            assert len(pages) == -(-len(paths) // PAGE_SIZE)
            assert pages[0][1].css("h1::text").get() == category.name
            found.update(paths)
        assert len(found) == found.total() == 1000

    with_shop(visit)


@pytest.mark.parametrize("title", ["If a < b & b < c, Then What?", '"Is It Tea-time Yet?" Asked the Hippo'])
def test_product_page_is_complete(title: str) -> None:
    """A book's page has all the catalogue knows of it, unharmed by characters which need escaping."""
    product = product_named(title)
    page = with_shop(lambda client: client.page(product.path))
    main = page.css("div.product_main")
    assert main.css("h1::text").get() == title
    assert main.css("p.price_color::text").get() == f"£{product.price}"
    assert main.css(f"p.star-rating.{list(WORDS)[product.rating - 1]}")
    assert "".join(main.css("p.instock.availability::text").getall()).strip() == product.availability
    assert page.css("#product_description + p::text").get() == product.description
    rows = {row.css("th::text").get(): row.css("td::text").get() for row in page.css("table.table-striped tr")}
    assert rows == {
        "UPC": product.upc,
        "Product Type": "Books",
        "Price (excl. tax)": f"£{product.price}",
        "Price (incl. tax)": f"£{product.price_incl_tax}",
        "Tax": "£0.00",
        "Availability": product.availability,
        "Number of reviews": str(len(product.reviews)),
    }
    crumbs = page.css("ul.breadcrumb li")
    assert [crumb.css("a::attr(href)").get() for crumb in crumbs[:3]] == [
        "/index.html",
        "/catalogue/page-1.html",
        product.category.path,
    ]
    assert page.css("ul.breadcrumb li.active::text").get() == title


def test_every_product_page_links_to_four_other_books_by_full_address() -> None:
    """The related books, also of a category of one, are four others, linked with the host of the request."""

    async def visit(client: Client) -> None:
        paths = {product.path for product in CATALOGUE}
        for category in CATEGORIES:
            product = products_in(category)[-1]
            page = await client.page(product.path)
            links = page.css("section.related article.product_pod h3 a::attr(href)").getall()
            assert all(link.startswith(client.base) for link in links)
            found = {urlsplit(link).path for link in links}
            assert len(found) == 4
            assert found <= paths - {product.path}

    with_shop(visit)


def test_reviews_have_a_page_of_their_own() -> None:
    """A book's page links to its reviews, and that page says so where there are none."""

    async def visit(client: Client) -> None:
        praised = next(product for product in CATALOGUE if len(product.reviews) == 4)
        page = await client.page(praised.path)
        href = page.css("p.reviews_link a::attr(href)").get() or ""
        assert urlsplit(urljoin(client.base + praised.path[1:], href)).path == praised.reviews_path
        reviews = (await client.page(praised.reviews_path)).css("article.review")
        assert [review.css(".review_text::text").get() for review in reviews] == [r.text for r in praised.reviews]
        assert [review.css(".review_author::text").get() for review in reviews] == [r.author for r in praised.reviews]
        ignored = next(product for product in CATALOGUE if not product.reviews)
        empty = await client.page(ignored.reviews_path)
        assert empty.css("p.no_reviews")
        assert not empty.css("article.review")

    with_shop(visit)


class TagChecker(HTMLParser):
    """Collects the tags of a page which are closed in the wrong place."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self) -> None:
        """Start with nothing open."""
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember a tag which has to be closed."""
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Compare with the tag opened last."""
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_pages_are_well_formed_html() -> None:
    """Each kind of page is declared as UTF-8 HTML in English and closes every tag it opens."""

    async def visit(client: Client) -> None:
        odd = product_named("</Chapter>: A Life in Mark-up")
        for path in ("/", "/catalogue/page-50.html", CATEGORIES[0].path, odd.path, odd.reviews_path, "/help.html"):
            response, text = await client.get(path)
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
            assert text.startswith('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">')
            checker = TagChecker()
            checker.feed(text)
            assert (checker.open, checker.wrong) == ([], []), path

    with_shop(visit)


def test_sitemap_lists_every_book() -> None:
    """The sitemap is XML with the full address and a date of all thousand books, and the addresses work."""

    async def visit(client: Client) -> None:
        response, text = await client.get("/sitemap.xml")
        assert response.content_type == "application/xml"
        root = ElementTree.fromstring(text.encode())
        assert root.tag == f"{SITEMAP}urlset"
        locations = [location.text or "" for location in root.iter(f"{SITEMAP}loc")]
        assert locations == [client.base + product.path[1:] for product in CATALOGUE]
        for modified in root.iter(f"{SITEMAP}lastmod"):
            date.fromisoformat(modified.text or "")
        for location in locations[::100]:
            assert await client.status(location) == 200

    with_shop(visit)


def test_covers_are_valid_svg() -> None:
    """Every hundredth cover, and those of titles which need escaping, are XML pictures naming the book's category."""

    async def visit(client: Client) -> None:
        special = [product for product in CATALOGUE if set("<>&\"'") & set(product.title)]
        for product in [*CATALOGUE[::100], *special[:20]]:
            response, text = await client.get(f"/media/{product.id}.svg")
            assert response.content_type == "image/svg+xml"
            words = "".join(ElementTree.fromstring(text).itertext())
            assert product.category.name.upper() in words

    with_shop(visit)


def test_robots_file_forbids_the_private_corners() -> None:
    """The robots file closes two folders and names the sitemap, and the pages in them answer all the same."""

    async def visit(client: Client) -> None:
        response, text = await client.get("/robots.txt")
        assert response.content_type == "text/plain"
        lines = text.splitlines()
        assert [line for line in lines if line.startswith("Disallow")] == ["Disallow: /private/", "Disallow: /basket/"]
        assert f"Sitemap: {client.base}sitemap.xml" in lines
        assert (await client.page("/")).css('footer a[rel="nofollow"]::attr(href)').getall() == ["/private/"]
        assert await client.status("/private/") == 200
        assert await client.status("/basket/") == 200

    with_shop(visit)


def test_redirects() -> None:
    """Old addresses move for good, the chain takes three hops to the first page, and the loop never ends."""

    async def visit(client: Client) -> None:
        old, _ = await client.get("/old/7", allow_redirects=False)
        assert (old.status, old.headers["Location"]) == (301, CATALOGUE[6].path)
        chain, _ = await client.get("/random-redirect")
        assert [hop.status for hop in chain.history] == [302, 302, 302]
        assert (chain.status, chain.url.path) == (200, "/catalogue/page-1.html")
        loop, _ = await client.get("/loop", allow_redirects=False)
        assert (loop.status, loop.headers["Location"]) == (302, "/loop")
        with pytest.raises(aiohttp.TooManyRedirects):
            await client.get("/loop")
        root, _ = await client.get("/catalogue/category/books_1/page-3.html")
        assert root.url.path == "/catalogue/page-3.html"

    with_shop(visit)


def test_failures() -> None:
    """The error page always fails, and the flaky one only the first time for each key."""

    async def visit(client: Client) -> None:
        assert [await client.status("/error") for _ in range(2)] == [500, 500]
        assert [await client.status("/flaky?key=a") for _ in range(3)] == [503, 200, 200]
        assert await client.status("/flaky?key=b") == 503

    with_shop(visit)


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/catalogue/page-51.html",
        "/catalogue/page-0.html",
        "/catalogue/no-such-book_1/index.html",
        "/catalogue/category/books/travel_3/index.html",
        "/catalogue/category/books/travel_2/page-99.html",
        "/media/1001.svg",
        "/old/0",
        "/old/1001",
    ],
)
def test_other_addresses_are_not_found(path: str) -> None:
    """Addresses which the shop does not have get a page with status 404."""
    response, text = with_shop(lambda client: client.get(path))
    assert response.status == 404
    assert "Page not found" in text


def test_slow_page_waits_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow page takes three seconds unless asked otherwise, and never less than none or more than ten."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    async def visit(client: Client) -> None:
        monkeypatch.setattr("scraper.demo.bookshop.asyncio.sleep", note)
        for query in ("", "?s=0.5", "?s=60", "?s=-1", "?s=soon", "?s=nan"):
            assert await client.status(f"/slow{query}") == 200
        monkeypatch.undo()

    with_shop(visit)
    assert waits == [3.0, 0.5, 10.0, 0.0, 3.0, 0.0]


def test_only_the_help_page_links_to_the_odd_corners() -> None:
    """A crawler which keeps to listing and product pages never meets the slow, broken or looping ones."""

    async def visit(client: Client) -> None:
        for path in ("/", "/catalogue/page-2.html", CATEGORIES[0].path, CATALOGUE[0].path, CATALOGUE[0].reviews_path):
            links = (await client.page(path)).css("a::attr(href)").getall()
            assert not [link for link in links if urlsplit(link).path in ODD_CORNERS], path
            assert "/help.html" in links
        links = (await client.page("/help.html")).css("a::attr(href)").getall()
        assert set(ODD_CORNERS) <= {urlsplit(link).path for link in links}

    with_shop(visit)


def test_host_of_the_request_is_escaped() -> None:
    """A host which is not one cannot smuggle mark-up into a page."""

    async def visit(client: Client) -> None:
        address = urljoin(client.base, CATALOGUE[0].path)
        async with client.session.get(address, headers={"Host": '"><script>'}) as response:
            assert response.status == 200
            assert "<script>" not in await response.text()

    with_shop(visit)


def test_two_shops_serve_the_same_pages() -> None:
    """Pages depend on nothing but the catalogue and the host asked for."""
    paths = ("/", "/catalogue/page-9.html", CATEGORIES[0].path, CATALOGUE[9].path, "/media/9.svg", "/sitemap.xml")

    async def visit(client: Client) -> list[bytes]:
        pages = []
        for path in paths:
            async with client.session.get(urljoin(client.base, path), headers={"Host": "shop.test"}) as response:
                pages.append(await response.read())
        return pages

    assert with_shop(visit) == with_shop(visit)


def test_shop_closes_at_the_end_of_the_block() -> None:
    """After the block nothing listens on the port any more."""

    async def run() -> None:
        async with serve() as base:
            port = urlsplit(base).port
            assert base == f"http://127.0.0.1:{port}/"
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(run())
