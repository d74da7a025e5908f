"""Kills and freezes workers of a fleet, and its Redis, at random instants; compares the output with an undisturbed crawl's.

Run by ``python -m benchmarks.torture --frontier redis``. Each round is a crawl of three workers on a Redis that writes down
what it confirms (``appendfsync always``), with one fault; a worker that is killed is started again.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.crash.site import Folder, Site, difference
from tests.redis_servers import running

FAULTS = ("kill a worker", "kill Redis", "freeze a worker")


def torture_fleet(site: Site, rng: Random, rounds: int, wanted: Counter[bytes], requests: int) -> bool:
    """Torture so many crawls; print what came of each kind; return whether all were exact."""
    rows: Counter[tuple[str, str]] = Counter()
    slowest_s = 0.0
    for number in range(rounds):
        fault = FAULTS[number % len(FAULTS)]
        began = time.monotonic()
        problem = _round(site, rng, fault, wanted, requests)
        slowest_s = max(slowest_s, time.monotonic() - began)
        rows[fault, "rounds"] += 1
        if problem:
            rows[fault, "broken"] += 1
            print(f"{fault}: {problem}")
    for fault in FAULTS:
        print(f"{fault:<20} {rows[fault, 'rounds']:>5} rounds {rows[fault, 'broken']:>5} not exact")
    print(f"slowest round {slowest_s:.1f} s")
    return not sum(number for (_, what), number in rows.items() if what == "broken")


def _round(site: Site, rng: Random, fault: str, wanted: Counter[bytes], requests: int) -> str:
    """Crawl once with one fault; return what is wrong, or nothing."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with TemporaryDirectory(prefix="torture-") as path, running(Path(path) / "redis", *options) as redis:
        folder = Folder(Path(path) / "project", site)
        shared = (
            "-a",
            "first=full",
            "-s",
            "crawl.concurrency=4",
            "--frontier",
            redis.url,
            "--job",
            "all",
            "-o",
            "out.jsonl",
        )
        site.forget()
        workers = [folder.start(*folder.arguments("shop", *shared)) for _ in range(3)]
        victim, after = rng.choice(workers), rng.randrange(1, requests)
        statuses = {0}
        if fault == "kill Redis":
            site.wait_until(lambda: len(site.asked) >= after or all(each.poll() is not None for each in workers))
            redis.kill()
            redis.start()
        elif fault == "kill a worker":
            site.strike(victim.pid, after)
            statuses.add(-signal.SIGKILL)
        else:
            site.strike(victim.pid, after, signal.SIGSTOP)
            statuses.add(1)
        try:
            for worker in [each for each in workers if each is not victim]:
                done = folder.end(worker)
                if done.status:
                    return f"status {done.status}: {done.err[-300:]}"
            victim.send_signal(signal.SIGCONT)
            done = folder.end(victim)
            if done.status not in statuses:
                return f"status {done.status} of the victim: {done.err[-300:]}"
            done = folder.scrape(*folder.arguments("shop", *shared))
            done = folder.scrape("collect", "all", "--frontier", redis.url)
            if done.status:
                return done.err
            found = folder.lines("out.jsonl")
            return "" if found == wanted else difference(found, wanted)
        finally:
            folder.stop()
