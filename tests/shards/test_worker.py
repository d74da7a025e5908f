"""What a shard does with messages that come to it, without its process."""

from __future__ import annotations

from typing import Any, cast

from scraper.crawler import Crawler
from scraper.shards.channel import Channel
from scraper.shards.worker import Plan, _Worker


class Ended:
    """Stands for a crawl that is being closed, and for its frontier: of that nothing can be asked any more."""

    has_ended = True
    killed = False

    @property
    def sharded(self) -> Ended:
        return self

    def kill(self) -> None:
        self.killed = True


class Heard:
    """Stands for the way to the supervisor: keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, ...]] = []

    def send(self, *message: Any) -> None:
        self.messages.append(message)


def test_what_comes_after_the_end() -> None:
    """Nothing is passed on any more, which is said; all else is left to the next process, but for a second Ctrl-C."""
    worker = _Worker(Plan(0, 2, "url", "spiders/a.py", {}, [], "", False, "error", "console"))
    crawl, heard = Ended(), Heard()
    worker._crawler, worker._channel = cast(Crawler, crawl), cast(Channel, heard)
    for kind, *values in (
        ("chunk", 1, 7, b""), ("taken", 1, 7), ("up", 1), ("facts", {"seed:a": True}), ("fetch", 1, 7, b""),
        ("fetched", 7, {}), ("down", 1), ("pause", "a", 1.0), ("grant", 16), ("recall",), ("leave",), ("over",), ("stop", "a"),
    ):  # fmt: skip
        worker._take(kind, values)
    worker._take("give", [1, 4])
    assert heard.messages == [("gave", 1, 0)]
    assert not crawl.killed
    worker._take("kill", [])
    assert crawl.killed
