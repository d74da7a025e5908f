"""The wall clock jumps by an hour: nothing is lost, and nothing waits longer than it was to wait."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from scraper.contracts import Checkpoint, Lease, Settlement
from scraper.frontiers.sqlite import SqliteFrontier
from scraper.http import Request
from scraper.politeness.hosts import Hosts

from .conftest import Wholes
from .site import PATIENCE_S, Folder, difference

HOUR_S = 3600.0
DELAY_S = 60.0


@pytest.mark.parametrize("jumps", [[HOUR_S], [-HOUR_S], [HOUR_S, -HOUR_S, -HOUR_S, HOUR_S]], ids=str)
def test_between_runs(tmp_path: Path, jumps: list[float]) -> None:
    """What is delayed is neither lost nor held back longer than its delay, wherever the wall clock stands."""

    class Clocks:
        now, wall = 500.0, 1_700_000_000.0

    clocks = Clocks()

    def frontier() -> SqliteFrontier:
        return SqliteFrontier(
            Hosts(100),
            clock=lambda: clocks.now,
            wall_clock=lambda: clocks.wall,
            path=tmp_path / "frontier.db",
        )

    async def leases(of: SqliteFrontier, woken: asyncio.Event, n: int) -> list[Lease]:
        found: list[Lease] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(found) < n:
                woken.clear()
                found += of.lease(100, clocks.now)
                if len(found) < n:
                    await woken.wait()
        return found

    async def test() -> None:
        woken = asyncio.Event()
        first = frontier()
        await first.open(woken.set)
        late = [Request(f"http://h.example/late/{number}", delay=DELAY_S) for number in range(5)]
        first.settle(Settlement(None, [Request("http://h.example/now"), *late]))
        await first.commit(Checkpoint())
        await first.close()
        for jump in jumps:
            clocks.wall += jump
            clocks.now = 3.0  # another process, perhaps on another machine: its monotonic clock tells nothing
            again = frontier()
            await again.open(woken.set)
            assert (again.counts.seeded, again.counts.pending) == (6, 6)
            at = again.next_ready(clocks.now)
            assert at is None or at <= clocks.now + DELAY_S
            await again.commit(Checkpoint())
            await again.close()
        clocks.now = 7.0
        last = frontier()
        await last.open(woken.set)
        got = await leases(last, woken, 1)
        if len(got) < 6:
            clocks.now += DELAY_S
            got += await leases(last, woken, 6 - len(got))
        assert len({lease.request.url for lease in got}) == len(got) == 6
        for lease in got:
            last.release(lease, clocks.now)
            last.settle(Settlement(lease))
        await last.commit(Checkpoint())
        assert (last.counts.done, last.counts.pending) == (6, 0)
        await last.close()

    asyncio.run(test())


@pytest.fixture(scope="session")
def faketime() -> str:
    """The library that gives a process another clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (Debian: apt install faketime)")
    return str(found[0])


def test_resumed_an_hour_earlier(folder: Folder, whole: Wholes, faketime: str) -> None:
    """A killed crawl that is resumed an hour earlier by the clock of its machine is exact, and stalls nowhere."""
    env = {"LD_PRELOAD": faketime, "FAKETIME": "-1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    seen = subprocess.run(["date", "+%s"], env=env, capture_output=True, check=True, encoding="ascii")
    now = subprocess.run(["date", "+%s"], capture_output=True, check=True, encoding="ascii")
    assert abs(int(now.stdout) - int(seen.stdout) - HOUR_S) < 60
    # Killed near its end, with a retry waiting: the library costs a second or more for every hundred requests.
    run = folder.arguments("shop", "-a", "first=full")
    assert folder.struck(90, *run, "-o", "out.jsonl").status == -9
    done = folder.scrape(*run, "--resume", env=env)
    assert done.status == 0, done.err
    lines, usual = folder.lines("out.jsonl"), whole("shop", "whole.jsonl", "-a", "first=full").lines
    assert lines == usual, difference(lines, usual)
