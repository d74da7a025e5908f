"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from servers import Authority

from scraper.crawler import Crawler, Output, Result, load_settings
from scraper.layers import mapping_layer
from scraper.spider import Spider, make_spider


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a certificate authority that no system trusts."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one, out of reach of settings.toml and the environment's settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SCRAPE_")]:
        monkeypatch.delenv(name)
    return tmp_path


@dataclass
class Kept:
    """A listener that keeps the items it is given."""

    items: list[Any] = field(default_factory=list)
    has_room: bool = True

    def put(self, item: Any) -> None:
        """Keep one item."""
        self.items.append(item)


class Crawls:
    """Makes crawlers and runs them to their end."""

    def __init__(self) -> None:
        self._kept: dict[Crawler, Kept] = {}

    def make(
        self,
        spider: type[Spider] | Spider,
        settings: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[Output] = (),
        kept: Kept | None = None,
    ) -> Crawler:
        """Make a crawler, for a test that holds on to it while it runs."""
        layers = [mapping_layer({"frontier.use": "memory", **(settings or {})}, "the test")]
        made = spider if isinstance(spider, Spider) else make_spider(spider, {})
        kept = kept or Kept()
        crawler = Crawler(made, load_settings(type(made), layers), listener=kept, outputs=outputs)
        self._kept[crawler] = kept
        return crawler

    async def __call__(
        self, spider: type[Spider] | Spider | Crawler, settings: Mapping[str, Any] | None = None, **options: Any
    ) -> Result:
        """Crawl to the end; return the Result with all items. Checks what holds for every run."""
        crawler = spider if isinstance(spider, Crawler) else self.make(spider, settings, **options)
        result = await crawler.run()
        stats = result.stats
        assert stats["seeded"] == stats["done"] + stats["failed"] + stats["pending"]
        if result.reason == "finished":
            assert stats["pending"] == 0
        result.items = self._kept[crawler].items
        return result


@pytest.fixture
def crawled(empty_folder: Path) -> Crawls:
    """Run spiders in an empty folder."""
    return Crawls()
