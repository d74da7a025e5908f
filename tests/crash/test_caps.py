"""The caps on a host's pages and a path's queries hold over kills: what is counted is committed with the pages."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from .site import Folder

HOSTS, PAGES = 10, 12


def urls(folder: Folder) -> Counter[str]:
    """How often each page's item was written."""
    counts: Counter[str] = Counter()
    for line, times in folder.lines("out.jsonl").items():
        counts[msgspec.json.decode(line)["url"]] += times
    return counts


@pytest.mark.parametrize("kills", [(40,), (25, 30, 20)])
def test_pages_of_a_host(folder: Folder, kills: tuple[int, ...]) -> None:
    """However often the crawl is killed, each host gives exactly as many pages as it may, each of them once."""
    arguments = [*folder.arguments("hosts"), "-s", f"crawl.max_pages_per_host={PAGES}", "-o", "out.jsonl"]
    for number, after in enumerate(kills):
        assert folder.struck(after, *arguments, *(["--resume"] if number else [])).status != 0
    done = folder.scrape(*arguments, "--resume", "--stats", "stats.json")
    assert done.status == 0, done.err
    found = urls(folder)
    assert set(found.values()) == {1}
    assert Counter(url.split(":")[1] for url in found) == dict.fromkeys(
        (f"//127.0.0.{number}" for number in range(1, HOSTS + 1)), PAGES
    )
    stats = folder.stats()
    assert (stats["reason"], stats["pages"]) == ("finished", HOSTS * PAGES)
    assert stats["refused"]["pages-per-host"] == stats["out_of_scope"] > 0


ENDLESS = """
from scraper import Request, Spider


class Endless(Spider):
    name = "endless"
    base: str = ""

    async def start(self):
        yield Request(self.base + "list?0")

    def parse(self, response):
        yield {"url": response.url}
        number = int(response.url.rpartition("?")[2])
        for following in range(number + 1, number + 20):
            yield response.follow(f"?{following}")
"""


def test_queries_of_a_path(folder: Folder) -> None:
    """A path without end has exactly its cap of queries fetched, killed or not."""
    folder.write("spiders/endless.py", ENDLESS)
    arguments = [*folder.arguments("endless"), "-s", "crawl.max_queries_per_path=90", "-o", "out.jsonl"]
    assert folder.struck(50, *arguments).status != 0
    done = folder.scrape(*arguments, "--resume", "--stats", "stats.json")
    assert done.status == 0, done.err
    found = urls(folder)
    assert (len(found), set(found.values())) == (90, {1})
    assert folder.stats()["refused"]["queries"] > 0
