"""The site and the project that the crash tests share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .site import Folder, Site


@pytest.fixture(scope="session")
def whole_site() -> Iterator[Site]:
    """One site for all tests."""
    with Site() as site:
        yield site


@pytest.fixture
def site(whole_site: Site) -> Site:
    """The site, with nothing counted yet."""
    whole_site.forget()
    whole_site.mended = False
    whole_site.held.clear()
    return whole_site


@pytest.fixture
def folder(tmp_path: Path, site: Site) -> Iterator[Folder]:
    """A project with the spiders for the site."""
    made = Folder(tmp_path / "project", site)
    yield made
    made.stop()


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted run gives: its lines, and how often each page was asked for."""

    lines: Counter[bytes]
    asked: Counter[str]
    requests: int


@pytest.fixture(scope="session")
def whole(whole_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Whole]:
    """Run a spider without a kill, once for each set of options, and return what it gave."""
    known: dict[tuple[str, ...], Whole] = {}

    def run(spider: str = "shop", output: str = "whole.jsonl", *options: str) -> Whole:
        key = (spider, output, *options)
        if key not in known:
            folder = Folder(tmp_path_factory.mktemp("whole"), whole_site)
            whole_site.forget()
            done = folder.scrape(*folder.arguments(spider, "-o", output, *options))
            assert done.status == 0, done.err
            known[key] = Whole(folder.lines(output), whole_site.times, len(whole_site.asked))
            whole_site.forget()
        return known[key]

    return run
