"""The site and the project that the crash tests share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .site import Folder, Forks, Site


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted run gives: its lines, and how often each page was asked for."""

    lines: Counter[bytes]
    asked: Counter[str]
    requests: int


class Wholes:
    """Runs spiders without a kill, once for each set of options."""

    def __init__(self, site: Site, folders: pytest.TempPathFactory) -> None:
        self._site = site
        self._folders = folders
        self._known: dict[tuple[str, ...], Whole] = {}

    def __call__(self, spider: str = "shop", output: str = "whole.jsonl", *options: str) -> Whole:
        """Return what a spider gives."""
        key = (spider, output, *options)
        if key not in self._known:
            folder = Folder(self._folders.mktemp("whole"), self._site)
            self._site.forget()
            done = folder.scrape(*folder.arguments(spider, "-o", output, *options))
            assert done.status == 0, done.err
            self._known[key] = Whole(folder.lines(output), self._site.times, len(self._site.asked))
            self._site.forget()
        return self._known[key]


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """The process that runs ``scrape`` for all tests whose subject is not how fast it starts."""
    made = Forks(tmp_path_factory.mktemp("forks"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def whole_site() -> Iterator[Site]:
    """One site for all tests, of about a hundred pages."""
    with Site(pages=80) as site:
        yield site


@pytest.fixture
def site(whole_site: Site) -> Site:
    """The site, with nothing counted yet."""
    whole_site.forget()
    whole_site.mended = False
    whole_site.held.clear()
    return whole_site


@pytest.fixture
def folder(tmp_path: Path, site: Site, forks: Forks) -> Iterator[Folder]:
    """A project with the spiders for the site."""
    made = Folder(tmp_path / "project", site, forks)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def whole(whole_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """What runs give that nobody stops."""
    return Wholes(whole_site, tmp_path_factory)
