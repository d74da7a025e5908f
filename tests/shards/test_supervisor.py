"""When a run over shards is over: by the messages that come from them, without their processes."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any, cast

import pytest
from servers import in_loop

from scraper.log import Log
from scraper.settings import Crawl, Settings
from scraper.shards import supervisor
from scraper.shards.channel import Channel
from scraper.shards.supervisor import Shards, _Member
from scraper.shards.worker import Plan
from scraper.stats import Stats


class Heard:
    """Stands for the way to a shard: writes down the kinds of the messages to it."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.came = asyncio.Event()

    def send(self, kind: str, *_: Any) -> None:
        self.kinds.append(kind)
        self.came.set()


def hear(*members: _Member) -> Heard:
    """Take the place of the ways to some shards."""
    heard = Heard()
    for member in members:
        member.channel = cast(Channel, heard)
    return heard


def report(seen: int, *, has_drained: bool = False) -> list[Any]:
    """Make what a shard says that has nothing to do."""
    return [
        {
            "counts": (0, 0, 0, 0, 0), "stats": Stats().changes()["stats"], "waiting": 0, "length": 0, "is_idle": True,
            "seen": seen, "reason": "", "is_broken": False, "has_drained": has_drained,
        }
    ]  # fmt: skip


def two_shards(folder: Path, log: Log | None = None, limits: Crawl | None = None) -> Shards:
    """Make a run over two shards, which are not started."""
    plan = Plan(0, 2, "host", "spiders/a.py", {}, [], "", False, "error", "console")
    return Shards(
        cast(Any, type("Named", (), {"name": "a"})),
        Settings(crawl=limits or Crawl()),
        plan,
        folder=folder,
        folders=[folder / "0", folder / "1"],
        outputs=[],
        log=log or Log("error"),
        write=lambda line: None,
    )


def end(member: _Member) -> None:
    """Have its process be gone."""
    member._left = 2  # its process, and what it said
    member._lost()
    member._lost()


@in_loop
async def test_what_a_dead_process_said_is_not_that_its_successor_is_idle(tmp_path: Path) -> None:
    """It may have taken in and confirmed links since: the run would end with them unfetched, were it killed once more."""
    shards = two_shards(tmp_path)
    one, two = shards._members
    heard = hear(one, two)

    for member in (one, two):
        shards.take(member, "ready", [{}])
    shards.take(two, "state", report(0))
    shards.take(one, "chunk", [1, 1, b""])
    end(two)
    shards.take(two, "ready", [{}])
    shards.take(one, "state", report(0))
    assert "over" not in heard.kinds
    shards.take(two, "state", report(0))
    assert heard.kinds.count("over") == 2
    two.stop("the test is over")  # its process would be started again


@in_loop
async def test_what_a_dead_process_wanted_its_successor_does_not_get(tmp_path: Path) -> None:
    """Before that has said what was fetched, a page that it got would be forgotten, and be given once more."""
    shards = two_shards(tmp_path, limits=Crawl(max_pages=1))
    one, two = shards._members
    heard = hear(one, two)
    for member in (one, two):
        shards.take(member, "ready", [{}])
        shards.take(member, "state", [report(0)[0] | {"is_idle": False}])
    shards.take(one, "want", [])
    shards.take(two, "want", [])
    assert heard.kinds[-2:] == ["grant", "recall"]
    end(two)
    shards.take(two, "ready", [{}])
    shards.take(one, "back", [1])
    assert heard.kinds.count("grant") == 1
    shards.take(two, "state", [report(0)[0] | {"is_idle": False}])
    shards.take(two, "want", [])
    assert heard.kinds.count("grant") == 2
    two.stop("the test is over")  # its process would be started again


@in_loop
async def test_stopped_shards_end_together(tmp_path: Path) -> None:
    """Until all of them have drained, the callbacks of one may await what another is to fetch; one that died has."""
    for dies in (False, True):
        shards = two_shards(tmp_path)
        one, two = shards._members
        heard = hear(one, two)
        for member in (one, two):
            shards.take(member, "ready", [{}])
        shards.take(one, "state", report(0))
        shards.stop("interrupted")
        shards.take(one, "state", report(0, has_drained=True))
        shards.take(two, "state", report(0))
        assert "leave" not in heard.kinds
        if dies:
            shards.died(two)
        else:
            shards.take(two, "state", report(0, has_drained=True))
        assert "leave" in heard.kinds


@in_loop
async def test_a_shard_that_cannot_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no process to give: it is tried a few times, then one line says so and the run ends."""

    def start(process: Any) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(supervisor._Process, "start", start)
    monkeypatch.setattr(supervisor, "_PAUSES_S", (0.0,) * 5)
    lines: list[str] = []
    shards = two_shards(tmp_path, Log("error", "json", lines.append))
    one, two = shards._members
    two.has_ended = True
    shards.died(one)
    await asyncio.wait_for(shards._ended.wait(), 10)
    assert shards.reason == "a shard dies again and again"
    assert len(lines) == 1
    assert (
        "shard 0 died 5 times in a row (cannot start a process: Resource temporarily unavailable): the run ends"
        in lines[0]
    )


@in_loop
async def test_the_time_counts_from_when_a_shard_is_up(tmp_path: Path) -> None:
    """As one process counts it, and as elapsed_s does: what the processes take to start is no crawling."""
    shards = two_shards(tmp_path, limits=Crawl(max_seconds=0.001))
    one, two = shards._members
    heard = hear(one, two)
    shards.take(one, "ready", [{}])
    await heard.came.wait()
    assert (shards.reason, heard.kinds) == ("max_seconds", ["stop", "stop"])
