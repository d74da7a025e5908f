"""An asyncio web-scraping framework: write a spider class, run ``scrape run myspider``, have a JSONL file.

The names below are the public interface; each is imported when it is first used, so that ``scrape --help`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from parsel import Selector as Selector

    from scraper.api import crawl as crawl
    from scraper.api import run as run
    from scraper.crawler import Result as Result
    from scraper.errors import CloseSpider as CloseSpider
    from scraper.errors import DropItem as DropItem
    from scraper.errors import FetchError as FetchError
    from scraper.errors import ScraperError as ScraperError
    from scraper.http import HttpError as HttpError
    from scraper.http import Request as Request
    from scraper.http import Response as Response
    from scraper.items import item_key as item_key
    from scraper.spider import Failure as Failure
    from scraper.spider import Spider as Spider

_HOMES = {
    "CloseSpider": "scraper.errors",
    "DropItem": "scraper.errors",
    "Failure": "scraper.spider",
    "FetchError": "scraper.errors",
    "HttpError": "scraper.http",
    "Request": "scraper.http",
    "Response": "scraper.http",
    "Result": "scraper.crawler",
    "ScraperError": "scraper.errors",
    "Selector": "parsel",
    "Spider": "scraper.spider",
    "crawl": "scraper.api",
    "item_key": "scraper.items",
    "run": "scraper.api",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'scraper' has no attribute {name!r}") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
