"""When the supervisor takes a shard to have nothing left to do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from scraper.shards.supervisor import Shards, _Member
from scraper.shards.worker import Plan


def member() -> _Member:
    plan = Plan(1, 2, "host", "spiders/a.py", {}, [], "folder", True, "info", "console")
    return _Member(cast(Shards, SimpleNamespace()), plan)


def test_what_a_dead_process_said_is_not_that_its_successor_is_idle() -> None:
    """It may have taken in and confirmed links since: the run would end with them unfetched, were it killed once more."""
    shard = member()
    idle: dict[str, Any] = {"is_idle": True, "seen": 0}
    shard.report, shard.is_up, shard.has_reported = idle, True, True
    assert shard.is_idle
    shard.has_reported = False  # as when its process is started again
    assert not shard.is_idle
    shard.has_reported, shard.carried = True, 1
    assert not shard.is_idle
    shard.report = {**idle, "seen": 1}
    assert shard.is_idle
