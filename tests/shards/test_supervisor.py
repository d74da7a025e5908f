"""When a run over shards is over: by the messages that come from them, without their processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from servers import in_loop

from scraper.log import Log
from scraper.settings import Settings
from scraper.shards.channel import Channel
from scraper.shards.supervisor import Shards, _Member
from scraper.shards.worker import Plan
from scraper.stats import Stats


class Heard:
    """Stands for the way to a shard: writes down the kinds of the messages to it."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def send(self, kind: str, *_: Any) -> None:
        self.kinds.append(kind)


def report(seen: int) -> list[Any]:
    """Make what a shard says that has nothing to do."""
    return [
        {
            "counts": (0, 0, 0, 0, 0), "stats": Stats().changes()["stats"], "waiting": 0, "length": 0, "is_idle": True,
            "seen": seen, "reason": "", "is_broken": False,
        }
    ]  # fmt: skip


@in_loop
async def test_what_a_dead_process_said_is_not_that_its_successor_is_idle(tmp_path: Path) -> None:
    """It may have taken in and confirmed links since: the run would end with them unfetched, were it killed once more."""
    plan = Plan(0, 2, "host", "spiders/a.py", {}, [], "", False, "error", "console")
    folders = [tmp_path / "0", tmp_path / "1"]
    shards = Shards(
        cast(Any, type("Named", (), {"name": "a"})),
        Settings(),
        plan,
        folder=tmp_path,
        folders=folders,
        outputs=[],
        log=Log("error"),
        write=lambda line: None,
    )
    one, two = shards._members
    heard = Heard()
    one.channel = two.channel = cast(Channel, heard)

    def end(member: _Member) -> None:
        member._left = 2  # its process, and what it said
        member._lost()
        member._lost()

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
