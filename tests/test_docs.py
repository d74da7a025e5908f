"""The documentation names every setting, command and option; its links lead somewhere and its spiders compile and run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from scraper import Spider, crawl
from scraper.cli import cli
from scraper.demo.bookshop import serve
from scraper.errors import SettingsError
from scraper.layers import SCRAPY_NAMES, mapping_layer
from scraper.settings import SECTIONS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
DOCS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def settings() -> Iterator[tuple[str, str]]:
    """Give each section with each of its keys."""
    for section, cls in SECTIONS.items():
        for field in msgspec.structs.fields(cls):
            yield section, field.name


def options() -> Iterator[tuple[str, str]]:
    """Give each command with each of its options, in the longest spelling."""
    for name, command in cli.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield name, max(parameter.opts, key=len)


def section_of(text: str, heading: str) -> str:
    """Return what stands under a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"no page has the heading {heading!r}"
    return found[1]


def anchors(page: Path) -> set[str]:
    """Return what a link to a heading of the page may name, by GitHub's rules."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("section", "key"), list(settings()))
def test_a_setting_is_documented(section: str, key: str) -> None:
    """Each key has a row in the table of its section."""
    assert f"\n| `{key}` |" in section_of(DOCS, f"## [{section}]")


@pytest.mark.parametrize(("name", "setting"), list(SCRAPY_NAMES.items()))
def test_a_name_of_scrapys_is_documented(name: str, setting: str) -> None:
    """Each Scrapy name that is understood stands in a row with its counterpart here."""
    assert f"| `{name}` | `{setting}` |" in DOCS


def test_names_of_scrapys_that_are_refused_are_said_to_be() -> None:
    """A Scrapy name in the tables of settings is understood, or stands among those that are of another shape here."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    refused = set(re.findall(r"\| `([A-Z_]+)` \|$", page, re.MULTILINE)) - SCRAPY_NAMES.keys()
    assert refused
    told = set(re.findall(r"`([A-Z_]+)`", section_of(page, "## Scrapy's names")))
    assert refused <= told
    for name in told:
        with pytest.raises(SettingsError, match=f"{name} is Scrapy's; here, "):
            mapping_layer({name: {}}, "here")


@pytest.mark.parametrize("name", list(cli.commands))
def test_a_command_is_documented(name: str) -> None:
    """Each command has a section of its own."""
    assert section_of(DOCS, f"## scrape {name}").strip()


@pytest.mark.parametrize(("command", "option"), list(options()))
def test_an_option_is_documented(command: str, option: str) -> None:
    """Each option stands in the section of its command, as code."""
    assert re.search(rf"`[^`]*(?<![\w-]){re.escape(option)}(?![\w-])", section_of(DOCS, f"## scrape {command}"))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file of the repository, and its fragment a heading of that file."""
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_contents_list_the_page(page: Path) -> None:
    """Each page is linked from the table of contents."""
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert page.name == "index.md" or f"]({page.name})" in contents


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_python_blocks_compile(page: Path) -> None:
    """Each block of Python is whole: it compiles as it stands."""
    for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1):
        compile(block, f"{page.name}, block {number}", "exec")


@pytest.mark.usefixtures("empty_folder")
def test_the_readmes_spider_crawls_the_shop() -> None:
    """The spider on the first page of all gives the shop's books, with a title and a price each."""
    block = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    names: dict[str, type[Spider]] = {}
    exec(compile(block, "README.md", "exec"), names)

    async def items() -> list[dict[str, str]]:
        async with serve() as base:
            names["Shop"].start_urls = [base]
            return [item async for item in crawl(names["Shop"], args={"max_pages": 2})]

    books = asyncio.run(items())
    assert len(books) == 40
    assert all(book["title"] and re.fullmatch(r"£\d+\.\d\d", book["price"]) for book in books)
