"""Every frontier passes the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("frontier")

from frontier import Clock, FrontierContract, Make  # noqa: E402 - its assertions are to be rewritten first

from scraper.frontiers.memory import MemoryFrontier  # noqa: E402
from scraper.frontiers.sqlite import SqliteFrontier  # noqa: E402
from scraper.politeness.hosts import Hosts  # noqa: E402


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

    @pytest.fixture(params=[{}, {"window": 50, "marks": 40}], ids=["wide", "small"])
    def make(self, tmp_path: Path, request: pytest.FixtureRequest) -> Make:
        """Make one with a file of its own."""
        options: dict[str, Any] = request.param

        def make(clock: Clock, *, concurrency: int = 8, delay: float = 0.0, order: str = "breadth") -> SqliteFrontier:
            return SqliteFrontier(
                Hosts(concurrency, delay), order, clock, path=tmp_path / "frontier.db", wall_clock=clock, **options
            )

        return make
