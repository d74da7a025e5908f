"""SIGINT and SIGTERM: one drains, two stop at once; both leave a run that ``--resume`` continues exactly."""

from __future__ import annotations

import signal
import time

import pytest

from .conftest import Wholes
from .site import CONCURRENCY, Folder, difference

STOPS_WITHIN_S = 1.0


@pytest.mark.parametrize(("number", "after"), [(signal.SIGINT, 1), (signal.SIGINT, 60), (signal.SIGTERM, 30)])
def test_once(folder: Folder, whole: Wholes, number: int, after: int) -> None:
    """One signal drains what is in flight: status 130, counts that add up, and nothing is fetched a second time."""
    usual = whole()
    options = ("-o", "out.jsonl", "--stats", "stats.json")
    done = folder.struck(after, *folder.arguments("shop", *options), number=number)
    assert done.status == 130, done.err
    stats = folder.stats()
    assert (stats["reason"], stats["items"]) == ("interrupted", folder.lines("out.jsonl").total())
    assert stats["pending"] > 0
    assert folder.lines("out.jsonl") <= usual.lines
    assert folder.scrape(*folder.arguments("shop", "--resume", "--stats", "stats.json")).status == 0
    assert folder.lines("out.jsonl") == usual.lines, difference(folder.lines("out.jsonl"), usual.lines)
    assert folder.site.times == usual.asked
    stats = folder.stats()
    assert (stats["reason"], stats["pending"]) == ("finished", 0)
    assert (stats["pages"], stats["items"]) == (stats["statuses"]["200"], usual.lines.total())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_twice(folder: Folder, whole: Wholes, number: int) -> None:
    """A second signal ends a run at once, though pages never answer; what was in flight is fetched again."""
    usual = whole()
    folder.site.held |= {f"/item/{number}" for number in range(40, 45)}
    arguments = [each for each in folder.arguments("shop", "-o", "out.jsonl") if each != "-q"]
    process = folder.start(*arguments, "--stats", "stats.json")
    folder.site.strike(process.pid, 50, number)
    folder.site.wait_until(lambda: len(folder.site.asked) >= 50)
    assert process.stderr is not None
    while "stopping: waiting" not in (line := process.stderr.readline()):
        assert line, "the run ended by itself"
    process.send_signal(number)
    began = time.monotonic()
    done = folder.end(process)
    assert time.monotonic() - began < STOPS_WITHIN_S
    assert done.status == 130, done.err
    assert "--resume" in done.err
    assert folder.stats()["reason"] == "interrupted"
    assert folder.lines("out.jsonl") <= usual.lines
    folder.site.let_go()
    assert folder.scrape(*folder.arguments("shop", "--resume", "--stats", "stats.json")).status == 0
    assert folder.lines("out.jsonl") == usual.lines, difference(folder.lines("out.jsonl"), usual.lines)
    again = folder.site.times - usual.asked
    assert again.total() <= CONCURRENCY
    assert folder.stats()["pending"] == 0
