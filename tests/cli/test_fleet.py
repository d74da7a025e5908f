"""Joining a crawl that is shared through Redis, and ``scrape collect``: what is refused, and what becomes of odd outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_servers import RedisServer, running

from .conftest import Done, Project, Site, page


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


def test_two_outputs_of_one_name_are_refused(fleet: Fleet, site: Site) -> None:
    """Their parts would be put together: by whatever folder a machine has them in, the name is all that tells them apart."""
    fleet.project.root.joinpath("sub").mkdir()
    said = fleet.run("-o", "a.jsonl", "-o", str(Path("sub", "a.jsonl"))).refused()
    assert said.startswith("-o sub/a.jsonl: ")
    assert site.asked == []
    assert fleet.run("-o", "a.jsonl", "-o", "b.jsonl").status == 0
