"""Joining a crawl that is shared through Redis, and ``scrape collect``: what is refused, and what becomes of odd outputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from scraper.contracts import Checkpoint
from scraper.frontiers.redis import RedisFrontier
from scraper.frontiers.roll import Asked, enlist
from scraper.frontiers.server import Server
from tests.redis_servers import RedisServer, running

from .conftest import Done, Project, Site, page

START = """
base: str = ""
async def start(self):
    yield Request(self.base)
"""


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Run one Redis for all tests."""
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def fleet(redis: RedisServer, project: Project, site: Site) -> Iterator[Fleet]:
    """A spider of one page, and a Redis that holds no jobs."""
    site.pages["/"] = page("Home")
    project.spider("books", site.url())
    yield Fleet(redis, project)
    redis.send("FLUSHALL")


class Fleet:
    """One job."""

    def __init__(self, redis: RedisServer, project: Project) -> None:
        self.redis = redis
        self.project = project

    def run(self, *arguments: str) -> Done:
        """Run one worker to its end."""
        return self.project.scrape("run", "books", "-q", "--frontier", self.redis.url, "--job", "all", *arguments)

    def wrote(self, *parts: tuple[str, str]) -> None:
        """Have each of these files be a part that one worker wrote, with half a record behind what is committed."""

        async def work(number: int, path: Path, length: int) -> None:
            worker = RedisFrontier(self._server(), "all", f"w{number}", concurrency=8)
            await worker.open(lambda: None)
            await worker.commit(Checkpoint(outputs={str(path): length}))
            await worker.close()

        async def main() -> None:
            server = self._server()
            await server.open()
            await enlist(server, "all", Asked("books"))
            await server.close()
            for number, (name, text) in enumerate(parts):
                path = self.project.write(name, text)
                length = path.stat().st_size
                with path.open("ab") as file:
                    file.write('"hälf'.encode()[:3])
                await work(number, path, length)

        asyncio.run(main())

    def collect(self, *arguments: str) -> Done:
        """Put the parts together."""
        return self.project.scrape("collect", "all", "--frontier", self.redis.url, *arguments)

    def _server(self) -> Server:
        return Server(self.redis.url, lambda *_, **__: None)


def test_two_outputs_of_one_name_are_refused(fleet: Fleet, site: Site) -> None:
    """Their parts would be put together: by whatever folder a machine has them in, the name is all that tells them apart."""
    fleet.project.root.joinpath("sub").mkdir()
    said = fleet.run("-o", "a.jsonl", "-o", str(Path("sub", "a.jsonl"))).refused()
    assert said.startswith("-o sub/a.jsonl: ")
    assert site.asked == []
    assert fleet.run("-o", "a.jsonl", "-o", "b.jsonl").status == 0


def test_a_line_that_came_to_nothing_is_corrected(fleet: Fleet, site: Site) -> None:
    """A job whose first worker failed before its first page is begun anew, with the arguments of the next one."""
    fleet.project.spider("books", site.url(), START)
    for line in (("-a", "base=nonsense", "-o", "wrong.jsonl"), ("-a", "base=more", "-o", "wrong.jsonl")):
        assert "start URL" in fleet.run(*line).refused()
    assert fleet.run("-a", f"base={site.url()}").status == 0
    assert site.asked == ["/"]
    assert "begun with other arguments" in fleet.run("-a", "base=nonsense").refused()
    shown = fleet.project.scrape("jobs", "--frontier", fleet.redis.url, "show", "all").out
    assert site.url() in shown
    assert "nonsense" not in shown


def test_who_says_no_arguments_takes_those_of_the_job(fleet: Fleet, site: Site) -> None:
    """Also where nothing has come of it so far."""
    fleet.project.spider("books", site.url(), START)
    assert "nonsense" in fleet.run("-a", "base=nonsense").refused()
    assert "nonsense" in fleet.run().refused()


def test_parts_with_other_columns(fleet: Fleet) -> None:
    """They get those of the first part, as further items do in one process: left out, or empty; the rest is as it was."""
    first = 'url,text\r\n1,"a\nb, ""c"""\r\n'
    fleet.wrote(
        ("x.csv.parts/0.csv", first),
        ("x.csv.parts/1.csv", 'text,more,url\r\n"ü\r\n,",x,2\r\n' + "w" * 200_000 + ",,3\r\n"),
        ("x.csv.parts/2.csv", "url,text\r\n4,\r\n"),
        ("x.csv.parts/3.csv", "more\r\nx\r\n"),
    )
    done = fleet.collect()
    assert done.status == 0, done.err
    rows = '2,"ü\r\n,"\r\n' + "3," + "w" * 200_000 + "\r\n4,\r\n,\r\n"
    assert fleet.project.root.joinpath("x.csv").read_bytes() == (first + rows).encode()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("x.txt", "the run wrote .CSV"),
        ("x.jsonl", "the run wrote .CSV"),
        ("x", "the run wrote .CSV"),
        ("folder.csv", "is a folder"),
        ("-", "name a file"),
    ],
)
def test_targets_that_are_no_file_of_the_kind(fleet: Fleet, target: str, words: str) -> None:
    """What would be another format than its name says, or lie somewhere else, is refused; any other name is taken."""
    root = fleet.project.root
    root.joinpath("folder.csv").mkdir()
    fleet.wrote(("x.CSV.parts/0.CSV", "a\r\n1\r\n"), ("x.CSV.parts/1.CSV", "a\r\n2\r\n"))
    before = sorted(root.rglob("*"))
    said = fleet.collect("-o", target).refused()
    assert said.startswith(f"-o {target}")
    assert words in said
    assert sorted(root.rglob("*")) == before
    assert fleet.collect("-o", "y.csv").status == 0
    assert root.joinpath("y.csv").read_bytes() == b"a\r\n1\r\n2\r\n"
