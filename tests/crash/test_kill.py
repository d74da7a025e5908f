"""A real crawl is killed at random instants and resumed: the output is that of a run nobody killed."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from .conftest import Whole, Wholes
from .site import CONCURRENCY, FIRST_FETCH_S, Folder, Site, Torture, difference, torture


@pytest.fixture(scope="module")
def large_site() -> Iterator[Site]:
    """A site of about three hundred pages."""
    with Site(pages=240) as site:
        yield site


@pytest.fixture
def folder(tmp_path: Path, large_site: Site) -> Iterator[Folder]:
    """A project for the large site."""
    large_site.forget()
    made = Folder(tmp_path / "project", large_site)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def whole(large_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """What runs on the large site give that nobody stops."""
    return Wholes(large_site, tmp_path_factory)


def survives(folder: Folder, whole: Whole, kills: list[int], output: str, *arguments: str) -> Torture:
    """Kill a crawl at each of the given numbers of requests in turn, resume it, and compare it with a whole one."""
    strikes = [partial(strike, folder, after) for after in kills]
    report = torture(folder, whole.asked, strikes, *arguments, "-o", output, "--stats", "stats.json")
    what = f"killed at requests {kills}"
    assert report.status == 0, f"{what}: {report.err}"
    assert report.kills, f"{what}: it was never killed"
    lines = folder.lines(output)
    assert lines == whole.lines, f"{what}: {difference(lines, whole.lines)}"
    assert not whole.asked - folder.site.times, f"{what}: pages were never fetched"
    assert max(report.refetched) <= CONCURRENCY, f"{what}: fetched again: {report.refetched}"
    assert max(report.first_fetch_s) <= FIRST_FETCH_S, f"{what}: first fetches after {report.first_fetch_s} s"
    stats = folder.stats()
    assert (stats["pending"], stats["failed"]) == (0, 0)
    return report


def strike(folder: Folder, after: int, process: subprocess.Popen[str]) -> None:
    """Kill the process at its so-manieth request."""
    folder.site.strike(process.pid, after)


def numbers(seed: int, kills: int, requests: int) -> list[int]:
    """Random numbers of requests after which to kill, so many that a crawl of ``requests`` bears them all."""
    rng = random.Random(seed)
    return [rng.randrange(1, max(2, requests // kills)) for _ in range(kills)]


@pytest.mark.parametrize(("seed", "kills"), [(1, 1), (3, 2), (4, 8)])
def test_killed(folder: Folder, whole: Wholes, seed: int, kills: int) -> None:
    """Nothing is lost, doubled or broken, however often a crawl is killed."""
    usual = whole("shop", "whole.jsonl", "-a", "first=full")
    assert len(usual.asked) > 280
    run = folder.arguments("shop", "-a", "first=full")
    report = survives(folder, usual, numbers(seed, kills, usual.requests), "out.jsonl", *run)
    assert report.kills == kills
    assert folder.stats()["items"] == usual.lines.total()


@pytest.mark.parametrize(
    ("spider", "options"),
    [
        ("shop", ("-s", "frontier.durability=full")),
        ("shop", ("-s", "crawl.order=depth")),
        ("slowly", ()),
        ("lazy", ()),
        ("hosts", ("-s", "politeness.robots=false")),
    ],
    ids=["full", "depth", "fetch", "start", "hosts"],
)
def test_kinds(folder: Folder, whole: Wholes, spider: str, options: tuple[str, ...]) -> None:
    """The same for other settings, callbacks, starts and many hosts."""
    usual = whole(spider)
    kills = numbers(11, 2, usual.requests)
    survives(folder, usual, kills, "out.jsonl", *folder.arguments(spider, *options))


def test_asynchronous_pipeline(folder: Folder, whole: Wholes) -> None:
    """Items that are under way in a pipeline when the process dies come again with their page."""
    folder.write("settings.toml", '[[pipelines]]\nuse = "effects:Pauses"\n')
    survives(folder, whole(), numbers(21, 2, whole().requests), "out.jsonl", *folder.arguments())


def test_csv(folder: Folder, whole: Wholes) -> None:
    """A table keeps one header, and each row once."""
    usual = whole("shop", "whole.csv")
    survives(folder, usual, numbers(31, 2, usual.requests), "out.csv", *folder.arguments())
    assert (folder.root / "out.csv").read_bytes().startswith(b"url,part,title,text\r\n")


def test_two_outputs_one_of_them_older(folder: Folder, whole: Wholes) -> None:
    """What a file held before stays, the end of its last line is mended, and a second output holds the same items."""
    usual = whole()
    for killed in numbers(41, 2, usual.requests):
        folder.write("first.jsonl", '{"old":1}\n{"old":2}')
        folder.write("second.jsonl", '{"to be":"replaced"}\n')
        folder.site.forget()
        outputs = ["-o", "first.jsonl", "-O", "second.jsonl"]
        assert folder.struck(killed, *folder.arguments("shop", *outputs)).status == -9
        assert folder.scrape(*folder.arguments("shop", "--resume")).status == 0
        first, second = folder.lines("first.jsonl"), folder.lines("second.jsonl")
        assert second == usual.lines, f"killed at request {killed}: {difference(second, usual.lines)}"
        assert first - usual.lines == {b'{"old":1}\n': 1, b'{"old":2}\n': 1}, f"killed at request {killed}"
        assert usual.lines - first == {}


def test_page_of_fifty_thousand_items(folder: Folder, whole: Wholes) -> None:
    """A page whose items wait in a file of their own is written as one piece, or comes again."""
    usual = whole("many")
    assert usual.lines.total() == 50_050
    survives(folder, usual, [4, 30], "out.jsonl", *folder.arguments("many"))
