"""Kills shards of a run, the process that holds them together, or all at random instants; compares the output with a whole one.

Run by ``python -m benchmarks.torture --shards 4``. Each round is one crawl with one fault, or two; where the run ends, it is
resumed. The crawls are by URL, of one host and of ten, and by host.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random
from subprocess import Popen
from tempfile import TemporaryDirectory

from tests.crash.site import Folder, Site, difference, some_moment

FAULTS = ("kill a shard", "kill the parent", "kill all", "kill two, one twice", "interrupt")
KINDS = (("shop", "url"), ("hosts", "host"), ("hosts", "url"))
PATIENCE_S = 5.0
"""The longest time without a request after a shard was killed; where the run ends, its new start counts as well."""


def torture_shards(site: Site, rng: Random, rounds: int, shards: int) -> bool:
    """Torture so many crawls; print what came of each kind; return whether all were exact."""
    rows: Counter[tuple[str, str]] = Counter()
    whole: dict[str, tuple[Counter[bytes], int]] = {}
    slowest: dict[str, float] = dict.fromkeys(FAULTS, 0.0)
    for number in range(rounds):
        fault = FAULTS[number % len(FAULTS)]
        spider, by = KINDS[number // len(FAULTS) % len(KINDS)]
        if spider not in whole:
            whole[spider] = _whole(site, spider)
        problem, wait_s = torture_round(site, rng, spider, by, shards, fault, *whole[spider])
        slowest[fault] = max(slowest[fault], wait_s)
        rows[fault, "rounds"] += 1
        if problem:
            rows[fault, "broken"] += 1
            print(f"{number}: {fault}, {spider} by {by}: {problem}", flush=True)
    for fault in FAULTS:
        print(
            f"{fault:<20} {rows[fault, 'rounds']:>5} rounds {rows[fault, 'broken']:>5} not exact "
            f"{slowest[fault]:>6.2f} s at most without a request after it"
        )
    broken = sum(number for (_, what), number in rows.items() if what == "broken")
    return not broken and max(slowest["kill a shard"], slowest["kill two, one twice"]) <= PATIENCE_S


def torture_round(
    site: Site, rng: Random, spider: str, by: str, shards: int, fault: str, wanted: Counter[bytes], requests: int
) -> tuple[str, float]:
    """Crawl once with a fault; return what is wrong, or nothing, and the longest gap between two requests after it."""
    site.forget()
    with TemporaryDirectory(prefix="torture-") as path:
        folder = Folder(Path(path), site)
        command = folder.arguments(spider, "-o", "out.jsonl", "--stats", "stats.json", "--shards", str(shards))
        command += ["-s", f"shards.by={by}"]
        process = folder.start(*command)
        try:
            begun = strike(folder, process, rng, fault, some_moment(rng, requests))
            done = folder.end(process)
            while done.status in (-signal.SIGKILL, 130):
                done = folder.scrape(*command, "--resume")
            # Killed between its end and its exit, it has left nothing to resume, and may have written no stats.
            if done.status and "no unfinished run" not in done.err:
                return f"status {done.status}: {done.err[-400:]}", 0.0
            found = folder.lines("out.jsonl")
            times = [each.at for each in site.asked if each.at >= begun]
            gaps = [later - earlier for earlier, later in zip([begun, *times], times, strict=False)]
            if found != wanted:
                return difference(found, wanted), 0.0
            if done.status:
                return "", max(gaps, default=0.0)
            stats = folder.stats()
            if (stats["pending"], stats["failed"], stats["items"]) != (0, 0, wanted.total()):
                return f"the summary does not fit: {stats}", 0.0
            return "", max(gaps, default=0.0)
        except AssertionError as error:
            return str(error), 0.0
        finally:
            folder.stop()


def strike(folder: Folder, process: Popen[str], rng: Random, fault: str, after: int) -> float:
    """Wait until the site was asked for so much, and do it; return when that was."""
    folder.site.wait_until(lambda: len(folder.site.asked) >= after or process.poll() is not None)
    running = pids(folder)
    if fault == "interrupt":
        process.send_signal(signal.SIGINT)
    elif fault == "kill the parent":
        process.kill()
    elif fault == "kill all":
        for pid in [process.pid, *running]:
            kill(pid)
    else:
        kill(rng.choice(running))
        if fault != "kill a shard":
            reached = len(folder.site.asked) + 5
            folder.site.wait_until(lambda: len(folder.site.asked) >= reached or process.poll() is not None)
            for pid in pids(folder)[:2]:
                kill(pid)
    return time.monotonic()


def pids(folder: Folder) -> list[int]:
    """Return the processes of the newest run's shards."""
    texts = [path.read_text() for path in sorted(folder.root.glob(".scrape/*/*/shard-*/lock"))]
    return [int(text) for text in texts if text]


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _whole(site: Site, spider: str) -> tuple[Counter[bytes], int]:
    """Crawl by one process without a fault; return its lines and how many requests that took."""
    with TemporaryDirectory(prefix="torture-") as path:
        folder = Folder(Path(path), site)
        site.forget()
        done = folder.scrape(*folder.arguments(spider, "-o", "out.jsonl"))
        assert done.status == 0, done.err
        return folder.lines("out.jsonl"), len(site.asked)
