"""Kills and freezes workers of a fleet, and its Redis, at random instants; compares the output with an undisturbed crawl's.

Run by ``python -m benchmarks.torture --frontier redis``. Each round is a crawl of three workers on a Redis that writes down
what it confirms (``appendfsync always``), with one fault; a worker that is killed is started again. Redis is away for
``--away`` seconds where it is frozen, or killed and started again on the same folder.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from random import Random
from subprocess import Popen
from tempfile import TemporaryDirectory

from tests.crash.site import Folder, Site, some_moment
from tests.redis_servers import RedisServer, running

FAULTS = ("kill a worker", "kill Redis", "freeze a worker", "freeze Redis", "kill both")


def torture_fleet(
    site: Site, rng: Random, rounds: int, wanted: Counter[bytes], requests: int, away_s: float = 0.0
) -> bool:
    """Torture so many crawls; print what came of each kind; return whether all were exact."""
    rows: Counter[tuple[str, str]] = Counter()
    slowest_s = 0.0
    for number in range(rounds):
        fault = FAULTS[number % len(FAULTS)]
        began = time.monotonic()
        refetched, lost, doubled, problem = _round(site, rng, fault, wanted, requests, away_s)
        slowest_s = max(slowest_s, time.monotonic() - began)
        rows[fault, "rounds"] += 1
        rows[fault, "refetched"] += refetched
        rows[fault, "lost"] += lost
        rows[fault, "doubled"] += doubled
        if problem or lost or doubled:
            rows[fault, "broken"] += 1
            print(f"{fault}: {problem or f'{lost} lost, {doubled} doubled'}", flush=True)
    for fault in FAULTS:
        print(
            f"{fault:<20} {rows[fault, 'rounds']:>5} rounds {rows[fault, 'broken']:>5} not exact "
            f"{rows[fault, 'lost']:>5} items lost {rows[fault, 'doubled']:>5} doubled "
            f"{rows[fault, 'refetched']:>5} pages fetched again"
        )
    print(f"slowest round {slowest_s:.1f} s")
    return not sum(number for (_, what), number in rows.items() if what == "broken")


def _round(
    site: Site, rng: Random, fault: str, wanted: Counter[bytes], requests: int, away_s: float
) -> tuple[int, int, int, str]:
    """Crawl once with one fault; return the requests too many, the items lost and doubled, and what else is wrong."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with TemporaryDirectory(prefix="torture-") as path, running(Path(path) / "redis", *options) as redis:
        folder = Folder(Path(path) / "project", site)
        shared = ["-a", "first=full", "-s", "crawl.concurrency=4"]
        shared += ["--frontier", redis.url]
        command = folder.arguments("shop", *shared, "--job", "all", "-o", "out.jsonl")
        site.forget()
        workers = [folder.start(*command) for _ in range(3)]
        victim, after = rng.choice(workers), some_moment(rng, requests)
        try:
            _strike(site, fault, redis, victim, workers, after, away_s)
            problem = _end(folder, workers, victim, fault)
            if not problem:
                folder.scrape(*command)  # the victim's successor
                done = folder.scrape("collect", "all", "--frontier", redis.url)
                problem = done.err if done.status else ""
            if problem:
                return 0, 0, 0, problem[-300:]
            found = folder.lines("out.jsonl")
            return site.times.total() - requests, (wanted - found).total(), (found - wanted).total(), ""
        finally:
            folder.stop()


def _strike(
    site: Site,
    fault: str,
    redis: RedisServer,
    victim: Popen[str],
    workers: list[Popen[str]],
    after: int,
    away_s: float,
) -> None:
    if fault == "freeze a worker":
        site.strike(victim.pid, after, signal.SIGSTOP)
    if fault in ("kill a worker", "kill both"):
        site.strike(victim.pid, after)
    if fault in ("kill Redis", "freeze Redis", "kill both"):
        site.wait_until(lambda: len(site.asked) >= after or all(each.poll() is not None for each in workers))
        assert redis.process is not None
        if fault == "freeze Redis":
            redis.process.send_signal(signal.SIGSTOP)
            time.sleep(away_s)
            redis.process.send_signal(signal.SIGCONT)
        else:
            redis.kill()
            time.sleep(away_s)
            redis.start()


def _end(folder: Folder, workers: list[Popen[str]], victim: Popen[str], fault: str) -> str:
    """Wait for all workers; return what is wrong with how they ended, or nothing."""
    statuses = {"kill a worker": {0, -signal.SIGKILL}, "kill both": {0, -signal.SIGKILL}, "freeze a worker": {0, 1}}
    for worker in [*(each for each in workers if each is not victim), victim]:
        if worker is victim:
            worker.send_signal(signal.SIGCONT)
        done = folder.end(worker)
        if done.status == 2 and fault in ("kill Redis", "freeze Redis", "kill both") and "cannot use" in done.err:
            continue  # it began while Redis was away, and never joined
        if done.status not in (statuses.get(fault, {0}) if worker is victim else {0}):
            return f"status {done.status}{' of the victim' if worker is victim else ''}: {done.err}"
    return ""
