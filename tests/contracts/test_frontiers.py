"""Every frontier passes the contract."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("frontier")

from frontier import Clock, FrontierContract, Make, opened, run  # noqa: E402 - its assertions are to be rewritten first

from scraper.contracts import Checkpoint  # noqa: E402
from scraper.frontiers.memory import MemoryFrontier  # noqa: E402
from scraper.frontiers.redis import RedisFrontier  # noqa: E402
from scraper.frontiers.server import Server  # noqa: E402
from scraper.frontiers.sharded import ShardFrontier  # noqa: E402
from scraper.frontiers.split import Split  # noqa: E402
from scraper.frontiers.sqlite import SqliteFrontier  # noqa: E402
from scraper.politeness.hosts import Hosts  # noqa: E402
from tests.redis_servers import running, running_cluster  # noqa: E402


class TestMemoryFrontier(FrontierContract):
    """The frontier in memory."""

    @pytest.fixture
    def make(self) -> Make:
        """Make one."""

        def make(clock: Clock, *, concurrency: int = 8, delay: float = 0.0, order: str = "breadth") -> MemoryFrontier:
            return MemoryFrontier(Hosts(concurrency, delay), order, clock)

        return make


class TestSqliteFrontier(FrontierContract):
    """The frontier in a file, with all in memory, and with little room there."""

    @pytest.fixture(params=[{}, {"window": 50, "marks": 40, "noted": 10}], ids=["wide", "small"])
    def make(self, tmp_path: Path, request: pytest.FixtureRequest) -> Make:
        """Make one with a file of its own."""
        options: dict[str, Any] = request.param

        def make(clock: Clock, *, concurrency: int = 8, delay: float = 0.0, order: str = "breadth") -> SqliteFrontier:
            return SqliteFrontier(
                Hosts(concurrency, delay), order, clock, path=tmp_path / "frontier.db", wall_clock=clock, **options
            )

        return make


class TestShardFrontier(FrontierContract):
    """The frontier of a shard, when it is the only one, and the run has come so far that it could end."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Make:
        """Make one with a file of its own."""

        def make(clock: Clock, *, concurrency: int = 8, delay: float = 0.0, order: str = "breadth") -> ShardFrontier:
            own = SqliteFrontier(
                Hosts(concurrency, delay), order, clock, path=tmp_path / "frontier.db", wall_clock=clock
            )
            made = ShardFrontier(
                own,
                Split(0, 1, "url", lambda host: (concurrency, delay)),
                lambda kind, *values: None,
                learn=lambda facts: None,
                shared=("seed:",),
                pages=lambda: 0,
                report=lambda outputs: None,
                clock=clock,
                wall_clock=clock,
            )
            made.end()
            return made

        return make


@pytest.fixture(scope="module")
def one_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one Redis for all tests."""
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Cluster of three nodes for all tests."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as url:
        yield url


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    """Number the jobs."""
    return count()


class TestRedisFrontier(FrontierContract):
    """The frontier in Redis: each test is a job of its own."""

    @pytest.fixture
    def redis_url(self, one_url: str) -> str:
        """Use the one server."""
        return one_url

    @pytest.fixture
    def make(self, redis_url: str, numbers: Iterator[int]) -> Make:
        """Make one whose Redis goes by the test's clock."""

        def make(clock: Clock, *, concurrency: int = 8, delay: float = 0.0, order: str = "breadth") -> RedisFrontier:
            return RedisFrontier(
                Server(redis_url, lambda *_, **__: None),
                f"job-{next(numbers)}",
                "worker",
                concurrency=concurrency,
                delay=delay,
                order=order,
                clock=clock,
                server_clock=clock,
                margin_s=0.0,
            )

        return make


class TestRedisClusterFrontier(TestRedisFrontier):
    """The frontier in a Cluster of three nodes."""

    @pytest.fixture
    def redis_url(self, cluster_url: str) -> str:
        """Use the Cluster."""
        return cluster_url

    def test_round_robin(self, make: Make) -> None:
        """A Cluster's buckets take turns, and the hosts within one: all hosts are among the first few leases."""

        async def main() -> None:
            async with opened(make, concurrency=1000) as desk:
                for n in range(4):
                    desk.add(*(f"http://h{host}/{n}" for host in range(5)))
                await desk.frontier.commit(Checkpoint())
                hosts = [lease.request.host for lease in await desk.leased(20)]
                assert set(hosts[:12]) == set(hosts)

        run(main)
