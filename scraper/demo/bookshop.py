"""The demo bookshop's web server: its pages, its odd corners, and how to start and stop it.

`serve` runs the shop on this machine, `make_app` gives the application to run some other way, and the
books it sells are in `CATALOGUE`.  The mark-up has the structure and class names of the practice
shop at books.toscrape.com, so a spider written for that site works on this one.
"""

import asyncio
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from html import escape

from aiohttp import web

from scraper.demo.catalogue import CATALOGUE, CATEGORIES, Category, Product, products_in

__all__ = ["CATALOGUE", "CATEGORIES", "PAGE_SIZE", "Category", "Product", "make_app", "products_in", "serve"]

PAGE_SIZE = 20

_SHOP = "The Lantern Bookshop"
_RELATED = 4
_TITLE_ROOM = 38
_SLOW_DEFAULT = 3.0
_SLOW_LIMIT = 10.0
_REDIRECT_HOPS = 3
_REDIRECT_END = "/catalogue/page-1.html"
_STAR_WORDS = ("Zero", "One", "Two", "Three", "Four", "Five")
_BY_DIRECTORY = {product.directory: product for product in CATALOGUE}
_BY_CATEGORY = {category: products_in(category) for category in CATEGORIES}
_CATEGORY_BY_DIRECTORY = {category.directory: category for category in CATEGORIES}
_FLAKY_SEEN = web.AppKey("flaky_seen", set[str])

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class _Base:
    """How a page writes the addresses of book folders and of pictures."""

    books: str
    media: str


_FROM_INDEX = _Base("catalogue/", "media/")
_FROM_LISTING = _Base("", "../media/")
_FROM_CATEGORY = _Base("../../../", "../../../../media/")


@dataclass(frozen=True, slots=True)
class _Listing:
    """One page out of a series which shows `products`, twenty at a time."""

    heading: str
    category: Category | None
    products: Sequence[Product]
    number: int
    base: _Base
    first_page: str
    """The name, in the folder of its siblings, of the first page."""
    folder: str = ""
    """The way from this page to the folder of its siblings."""

    @property
    def pages(self) -> int:
        return -(-len(self.products) // PAGE_SIZE)

    @property
    def start(self) -> int:
        return (self.number - 1) * PAGE_SIZE

    @property
    def shown(self) -> Sequence[Product]:
        return self.products[self.start : self.start + PAGE_SIZE]

    def address(self, number: int) -> str:
        """The relative address of another page of the series."""
        return self.folder + (self.first_page if number == 1 else f"page-{number}.html")


# Pieces of pages


@cache
def _sidebar(current: Category | None) -> str:
    items = "\n".join(
        f'<li class="{"current-category" if category == current else "category"}">'
        f'<a href="{category.path}">{escape(category.name)}</a></li>'
        for category in CATEGORIES
    )
    return (
        '<aside class="sidebar"><div class="side_categories">\n'
        '<ul class="nav nav-list"><li><a href="/catalogue/page-1.html">Books</a>\n'
        f"<ul>\n{items}\n</ul></li></ul>\n</div></aside>"
    )


def _breadcrumb(links: Iterable[tuple[str, str]], active: str) -> str:
    items = "".join(f'<li><a href="{href}">{escape(text)}</a></li>\n' for href, text in links)
    return f'<ul class="breadcrumb">\n{items}<li class="active">{escape(active)}</li>\n</ul>'


def _layout(title: str, breadcrumb: str, main: str, sidebar: str = "") -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} | {_SHOP}</title>
<link rel="stylesheet" href="/static/shop.css">
</head>
<body>
<header class="header"><div class="container">
<a class="brand" href="/index.html">{_SHOP}</a>
<span class="tagline">A thousand books that nobody wrote</span>
<a class="basket" href="/basket/" rel="nofollow">Basket</a>
</div></header>
<div class="container page">
{breadcrumb}
<div class="columns">
{sidebar}
<main class="content">
{main}
</main>
</div>
</div>
<footer class="footer"><div class="container">
<p>A made-up shop for practising web scraping: nothing here is for sale.</p>
<p><a href="/help.html">Help</a> <a href="/sitemap.xml">Sitemap</a>
<a href="/private/" rel="nofollow">Staff only</a></p>
</div></footer>
</body>
</html>
"""


def _stars(rating: int) -> str:
    return f'<p class="star-rating {_STAR_WORDS[rating]}">{"<i></i>" * 5}</p>'


def _availability(product: Product, text: str) -> str:
    # A book which is sold out keeps the class "instock": a spider's selector has to find it, to read that it is not.
    return f'<p class="instock availability{"" if product.stock else " sold-out"}">\n<i class="icon"></i>\n{text}\n</p>'


def _shorten(title: str) -> str:
    return textwrap.shorten(title, _TITLE_ROOM, placeholder=" ...")


def _pod(product: Product, base: _Base) -> str:
    title = escape(product.title)
    href = f"{base.books}{product.directory}/index.html"
    return f"""<li><article class="product_pod">
<div class="image_container"><a href="{href}">\
<img src="{base.media}{product.id}.svg" alt="{title}" class="thumbnail" loading="lazy"></a></div>
{_stars(product.rating)}
<h3><a href="{href}" title="{title}">{escape(_shorten(product.title))}</a></h3>
<div class="product_price">
<p class="price_color">£{product.price}</p>
{_availability(product, "In stock" if product.stock else "Out of stock")}
<form action="/basket/" method="post"><button type="submit" class="btn">Add to basket</button></form>
</div>
</article></li>"""


def _pods(products: Iterable[Product], base: _Base) -> str:
    return '<ol class="row">\n' + "\n".join(_pod(product, base) for product in products) + "\n</ol>"


def _pager(listing: _Listing) -> str:
    if listing.pages == 1:
        return ""
    number = listing.number
    previous = f'<li class="previous"><a href="{listing.address(number - 1)}">previous</a></li>\n' if number > 1 else ""
    following = (
        f'\n<li class="next"><a href="{listing.address(number + 1)}">next</a></li>' if number < listing.pages else ""
    )
    return f'<ul class="pager">\n{previous}<li class="current">Page {number} of {listing.pages}</li>{following}\n</ul>'


def _results(listing: _Listing) -> str:
    count = len(listing.products)
    noun = "result" if count == 1 else "results"
    if listing.pages == 1:
        return f'<p class="results"><strong>{count}</strong> {noun}.</p>'
    first, last = listing.start + 1, listing.start + len(listing.shown)
    return (
        f'<p class="results"><strong>{count}</strong> {noun} - showing <strong>{first}</strong>'
        f" to <strong>{last}</strong>.</p>"
    )


# Whole pages


def _listing_page(listing: _Listing) -> str:
    crumbs = [("/index.html", "Home")]
    if listing.category:
        crumbs.append(("/catalogue/page-1.html", "Books"))
    main = (
        f'<div class="page-header action"><h1>{escape(listing.heading)}</h1></div>\n{_results(listing)}\n'
        f"<section>\n{_pods(listing.shown, listing.base)}\n{_pager(listing)}\n</section>"
    )
    return _layout(listing.heading, _breadcrumb(crumbs, listing.heading), main, _sidebar(listing.category))


def _product_crumbs(product: Product) -> list[tuple[str, str]]:
    category = product.category
    return [("/index.html", "Home"), ("/catalogue/page-1.html", "Books"), (category.path, category.name)]


def _related(product: Product) -> list[Product]:
    """The books that follow this one in its category, then, for a small category, in the whole catalogue."""
    siblings = _BY_CATEGORY[product.category]
    place = siblings.index(product)
    related = [*siblings[place + 1 :], *siblings[:place]][:_RELATED]
    strangers = (other for other in CATALOGUE if other.category != product.category)
    return related + [next(strangers) for _ in range(_RELATED - len(related))]


def _information(product: Product) -> str:
    rows = (
        ("UPC", product.upc),
        ("Product Type", "Books"),
        ("Price (excl. tax)", f"£{product.price}"),
        ("Price (incl. tax)", f"£{product.price_incl_tax}"),
        ("Tax", f"£{product.tax}"),
        ("Availability", product.availability),
        ("Number of reviews", str(len(product.reviews))),
    )
    cells = "\n".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return f'<table class="table table-striped">\n{cells}\n</table>'


def _product_page(product: Product, origin: str) -> str:
    title = escape(product.title)
    main = f"""<article class="product_page">
<div class="row product_top">
<div id="product_gallery"><img src="../../media/{product.id}.svg" alt="{title}" width="200" height="300"></div>
<div class="product_main">
<h1>{title}</h1>
<p class="price_color">£{product.price}</p>
{_availability(product, product.availability)}
{_stars(product.rating)}
<p class="reviews_link"><a href="reviews.html">Reviews ({len(product.reviews)})</a></p>
<form action="/basket/" method="post"><button type="submit" class="btn">Add to basket</button></form>
</div>
</div>
<div id="product_description" class="sub-header"><h2>Product Description</h2></div>
<p>{escape(product.description)}</p>
<div class="sub-header"><h2>Product Information</h2></div>
{_information(product)}
</article>
<section class="related">
<div class="sub-header"><h2>Others on the same shelf</h2></div>
{_pods(_related(product), _Base(f"{origin}/catalogue/", f"{origin}/media/"))}
</section>"""
    return _layout(product.title, _breadcrumb(_product_crumbs(product), product.title), main)


def _reviews_page(product: Product) -> str:
    reviews = "\n".join(
        f'<article class="review">\n{_stars(review.stars)}\n<p class="review_text">{escape(review.text)}</p>\n'
        f'<p class="review_author">{escape(review.author)}</p>\n</article>'
        for review in product.reviews
    )
    main = f"""<div class="page-header"><h1>Reviews of <a href="index.html">{escape(product.title)}</a></h1></div>
<section id="reviews">
{reviews or '<p class="no_reviews">Nobody has reviewed this book yet.</p>'}
</section>"""
    breadcrumb = _breadcrumb([*_product_crumbs(product), (product.path, product.title)], "Reviews")
    return _layout(f"Reviews of {product.title}", breadcrumb, main)


def _plain_page(heading: str, body: str) -> str:
    breadcrumb = _breadcrumb([("/index.html", "Home")], heading)
    return _layout(heading, breadcrumb, f'<div class="page-header"><h1>{escape(heading)}</h1></div>\n{body}')


def _help_page() -> str:
    corners = (
        ("/old/1", "An address of the old shop, which moved for good (301) to the page of the book with that number."),
        ("/random-redirect", "Three temporary redirects (302) in a row, which end at the first listing page."),
        ("/loop", "A redirect to itself, which never ends."),
        ("/slow?s=3", "A page which takes as many seconds as you ask for, up to ten."),
        ("/error", "A page which always fails with status 500."),
        ("/flaky?key=help", "A page which fails with status 503 the first time a key is used, and works from then on."),
        ("/missing.html", "A page which does not exist (404)."),
        ("/robots.txt", "What crawlers are asked to leave alone."),
        ("/sitemap.xml", "The addresses of all books."),
    )
    items = "\n".join(f'<dt><a href="{escape(href)}">{escape(href)}</a></dt><dd>{text}</dd>' for href, text in corners)
    body = (
        "<p>Apart from its books, the shop has some odd corners to try a crawler on.</p>\n"
        f'<dl class="corners">\n{items}\n</dl>'
    )
    return _plain_page("Help", body)


def _cover(product: Product) -> str:
    hue = product.id * 47 % 360
    lines = textwrap.wrap(product.title, 15, max_lines=7, placeholder=" …")
    text = "".join(
        f'<text x="100" y="{92 + 24 * row}">{escape(line)}</text>\n' for row, line in enumerate(lines)
    )  # fmt: skip
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 300" width="200" height="300">
<rect width="200" height="300" fill="hsl({hue}, 38%, 34%)"/>
<circle cx="{20 + product.id * 31 % 160}" cy="{240 + product.id * 13 % 50}" r="{50 + product.id * 7 % 40}" \
fill="hsl({(hue + 40) % 360}, 50%, 52%)" fill-opacity="0.7"/>
<rect width="12" height="300" fill="#000" fill-opacity="0.2"/>
<rect x="26" y="22" width="148" height="2" fill="#fff" fill-opacity="0.7"/>
<text x="100" y="46" font-family="sans-serif" font-size="10" fill="#fff" text-anchor="middle">\
{escape(product.category.name.upper())}</text>
<g font-family="Georgia, serif" font-size="18" fill="#fff" text-anchor="middle">
{text}</g>
</svg>
"""


def _sitemap(origin: str) -> str:
    entries = "\n".join(
        f"<url><loc>{origin}{product.path}</loc><lastmod>{product.added.isoformat()}</lastmod></url>"
        for product in CATALOGUE
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{entries}\n</urlset>\n'
    )


_ROBOTS = """User-agent: *
Disallow: /private/
Disallow: /basket/

Sitemap: {origin}/sitemap.xml
"""

_CSS = """* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; color: #2b2a28; background: #faf7f2; }
a { color: #1d5c63; text-decoration: none; }
a:hover { text-decoration: underline; }
h1, h2, h3 { font-family: Georgia, serif; line-height: 1.25; }
h1 { margin: 0 0 0.5rem; font-size: 1.9rem; }
.container { max-width: 1160px; margin: 0 auto; padding: 0 1.25rem; }
.header { background: #1d3b40; color: #d8e3e0; }
.header .container { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; padding-block: 1rem; }
.header a { color: #fff; }
.brand { font: bold 1.5rem Georgia, serif; }
.basket { margin-left: auto; }
.page { padding-block: 1rem 3rem; min-height: 70vh; }
.breadcrumb { list-style: none; margin: 0 0 1.25rem; padding: 0; font-size: 0.875rem; color: #77716a; }
.breadcrumb li { display: inline; }
.breadcrumb li + li::before { content: "/"; margin: 0 0.5rem; color: #b9b1a6; }
.columns { display: flex; gap: 2.5rem; align-items: flex-start; }
.sidebar { flex: 0 0 12rem; font-size: 0.925rem; }
.sidebar ul { list-style: none; margin: 0; padding: 0; }
.sidebar ul ul { margin: 0.35rem 0 0; padding-left: 0.75rem; border-left: 2px solid #e5ddd0; }
.nav-list > li > a, .current-category { font-weight: bold; }
.content { flex: 1; min-width: 0; }
.results { margin: 0 0 1rem; color: #77716a; }
ol.row { list-style: none; margin: 0; padding: 0; display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(175px, 1fr)); }
ol.row > li { display: flex; }
.product_pod { display: flex; flex-direction: column; width: 100%; padding: 1rem; background: #fff;
  border: 1px solid #e9e2d7; border-radius: 8px; }
.product_pod p { margin: 0; }
.product_pod h3 { flex: 1; margin: 0.25rem 0 0.5rem; font-size: 1rem; }
.product_pod img { display: block; width: 120px; height: 180px; margin: 0 auto 0.75rem; }
.thumbnail, #product_gallery img { border-radius: 3px; box-shadow: 0 2px 8px rgb(0 0 0 / 25%); }
.price_color { font-weight: bold; font-size: 1.1rem; }
.availability { color: #3a7d44; font-size: 0.875rem; }
.availability .icon::before { content: "\\2713"; font-style: normal; }
.sold-out { color: #a5402d; }
.sold-out .icon::before { content: "\\2717"; }
.star-rating i { font-style: normal; color: #d9d2c7; }
.star-rating i::before { content: "\\2605"; }
.One i:nth-child(-n+1), .Two i:nth-child(-n+2), .Three i:nth-child(-n+3), .Four i:nth-child(-n+4),
.Five i:nth-child(-n+5) { color: #e0a526; }
.btn { width: 100%; margin-top: 0.6rem; padding: 0.4rem 1rem; border: 0; border-radius: 5px; font: inherit;
  font-size: 0.875rem; color: #fff; background: #1d5c63; cursor: pointer; }
.btn:hover { background: #17494f; }
.pager { list-style: none; display: flex; justify-content: center; gap: 1.5rem; margin: 2rem 0 0; padding: 0; }
.pager .current { color: #77716a; }
.product_top { display: flex; flex-wrap: wrap; gap: 2rem; }
.product_main { flex: 1; min-width: 16rem; }
.product_main p { margin: 0 0 0.5rem; }
.product_main .price_color { font-size: 1.5rem; }
.product_main .btn { width: auto; }
.sub-header h2 { margin: 2rem 0 0.75rem; padding-bottom: 0.25rem; font-size: 1.25rem;
  border-bottom: 1px solid #e5ddd0; }
.product_page > p { max-width: 46rem; }
.table { width: 100%; max-width: 46rem; border-collapse: collapse; }
.table th, .table td { padding: 0.4rem 0.75rem; text-align: left; }
.table th { width: 14rem; }
.table-striped tr:nth-child(odd) { background: #f1ebe1; }
.review { max-width: 46rem; margin-bottom: 1rem; padding: 0.75rem 1.25rem; background: #fff; border: 1px solid #e9e2d7;
  border-radius: 8px; }
.review p { margin: 0.25rem 0; }
.review_author { color: #77716a; font-size: 0.875rem; }
.corners dt { font-weight: bold; }
.corners dd { margin: 0 0 0.75rem; }
.footer { padding: 1rem 0; background: #efe8dc; font-size: 0.875rem; color: #77716a; }
.footer p { margin: 0.25rem 0; }
.footer a { margin-right: 1rem; }
@media (max-width: 700px) {
  .columns { flex-direction: column-reverse; }
  .content { width: 100%; }
  .tagline { display: none; }
}
"""


# Request handlers


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def _origin(request: web.Request) -> str:
    # The client chooses the host, so it could hold anything.
    return escape(f"{request.scheme}://{request.host}")


def _all_books(number: int, base: _Base, folder: str = "") -> web.Response:
    listing = _Listing("All books", None, CATALOGUE, number, base, "page-1.html", folder)
    if number > listing.pages:
        raise web.HTTPNotFound
    return _html(_listing_page(listing))


async def _index(request: web.Request) -> web.Response:
    return _all_books(1, _FROM_INDEX, "catalogue/")


async def _catalogue(request: web.Request) -> web.Response:
    return _all_books(int(request.match_info["number"]), _FROM_LISTING)


async def _category(request: web.Request) -> web.Response:
    category = _CATEGORY_BY_DIRECTORY.get(request.match_info["category"])
    if category is None:
        raise web.HTTPNotFound
    number = int(request.match_info.get("number", "1"))
    listing = _Listing(category.name, category, _BY_CATEGORY[category], number, _FROM_CATEGORY, "index.html")
    if number > listing.pages:
        raise web.HTTPNotFound
    return _html(_listing_page(listing))


async def _root_category(request: web.Request) -> web.Response:
    raise web.HTTPMovedPermanently(f"/catalogue/page-{request.match_info.get('number', '1')}.html")


def _requested_product(request: web.Request) -> Product:
    product = _BY_DIRECTORY.get(request.match_info["product"])
    if product is None:
        raise web.HTTPNotFound
    return product


def _numbered_product(request: web.Request) -> Product:
    number = int(request.match_info["id"])
    if not 1 <= number <= len(CATALOGUE):
        raise web.HTTPNotFound
    return CATALOGUE[number - 1]


async def _product(request: web.Request) -> web.Response:
    return _html(_product_page(_requested_product(request), _origin(request)))


async def _reviews(request: web.Request) -> web.Response:
    return _html(_reviews_page(_requested_product(request)))


async def _media(request: web.Request) -> web.Response:
    return web.Response(text=_cover(_numbered_product(request)), content_type="image/svg+xml")


async def _style(request: web.Request) -> web.Response:
    return web.Response(text=_CSS, content_type="text/css")


async def _robots(request: web.Request) -> web.Response:
    return web.Response(text=_ROBOTS.format(origin=_origin(request)))


async def _sitemap_xml(request: web.Request) -> web.Response:
    return web.Response(text=_sitemap(_origin(request)), content_type="application/xml")


async def _help(request: web.Request) -> web.Response:
    return _html(_help_page())


async def _private(request: web.Request) -> web.Response:
    return _html(_plain_page("Staff only", "<p>The rules in robots.txt ask crawlers not to come in here.</p>"))


async def _basket(request: web.Request) -> web.Response:
    return _html(_plain_page("Basket", "<p>Your basket is empty, and will stay so: this is only a demo.</p>"))


async def _old(request: web.Request) -> web.Response:
    raise web.HTTPMovedPermanently(_numbered_product(request).path)


async def _random_redirect(request: web.Request) -> web.Response:
    hop = int(request.match_info.get("hop", "1"))
    raise web.HTTPFound(f"/random-redirect/{hop + 1}" if hop < _REDIRECT_HOPS else _REDIRECT_END)


async def _loop(request: web.Request) -> web.Response:
    raise web.HTTPFound("/loop")


def _slow_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return _SLOW_DEFAULT
    return min(_SLOW_LIMIT, seconds) if seconds >= 0 else 0.0


async def _slow(request: web.Request) -> web.Response:
    seconds = _slow_seconds(request.query.get("s", ""))
    await asyncio.sleep(seconds)
    return _html(_plain_page("Slow", f"<p>This page took {seconds:g} seconds.</p>"))


async def _error(request: web.Request) -> web.Response:
    return _html(_plain_page("Server error", "<p>This page always fails.</p>"), 500)


async def _flaky(request: web.Request) -> web.Response:
    seen, key = request.app[_FLAKY_SEEN], request.query.get("key", "")
    if key in seen:
        return _html(_plain_page("Flaky", "<p>It worked this time.</p>"))
    seen.add(key)
    return _html(_plain_page("Service unavailable", "<p>Please try again.</p>"), 503)


@web.middleware
async def _friendly_not_found(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _html(_plain_page("Page not found", "<p>The shop has no page at this address.</p>"), 404)


_PAGE = r"page-{number:[1-9]\d{0,3}}.html"
_ID = r"{id:[1-9]\d{0,5}}"
_ROUTES: tuple[tuple[str, Callable[[web.Request], Awaitable[web.Response]]], ...] = (
    ("/", _index),
    ("/index.html", _index),
    (f"/catalogue/{_PAGE}", _catalogue),
    ("/catalogue/category/books_1/index.html", _root_category),
    (f"/catalogue/category/books_1/{_PAGE}", _root_category),
    ("/catalogue/category/books/{category}/index.html", _category),
    (f"/catalogue/category/books/{{category}}/{_PAGE}", _category),
    ("/catalogue/{product}/index.html", _product),
    ("/catalogue/{product}/reviews.html", _reviews),
    (f"/media/{_ID}.svg", _media),
    ("/static/shop.css", _style),
    ("/robots.txt", _robots),
    ("/sitemap.xml", _sitemap_xml),
    ("/help.html", _help),
    ("/private/", _private),
    ("/basket/", _basket),
    (f"/old/{_ID}", _old),
    ("/random-redirect", _random_redirect),
    ("/random-redirect/{hop:[23]}", _random_redirect),
    ("/loop", _loop),
    ("/slow", _slow),
    ("/error", _error),
    ("/flaky", _flaky),
)


def make_app() -> web.Application:
    """Build the shop as an application; each one remembers by itself which keys `/flaky` has seen."""
    app = web.Application(middlewares=[_friendly_not_found])
    app[_FLAKY_SEEN] = set()
    app.add_routes([web.get(path, handler) for path, handler in _ROUTES])
    app.router.add_post("/basket/", _basket)
    return app


@asynccontextmanager
async def serve(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Run the shop for the length of an `async with` block and give its address, such as `http://127.0.0.1:43121/`.

    Port 0 means any free port.  On the way out, requests still being answered are cut off after a moment.
    """
    runner = web.AppRunner(make_app(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{f'[{host}]' if ':' in host else host}:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
