"""Measures a fleet on the shop: SQLite's frontier, one worker with Redis, and two, in turn; and where the CPU goes.

    python -m benchmarks.fleet                 20,000 products, three rounds
    python -m benchmarks.fleet --quick         1,000 products, one round
    python -m benchmarks.fleet --slots 8       the host has so many slots, not 64

Nothing is pinned: workers, nginx and Redis share what cores there are. For each process it prints CPU time a page, the
start of a worker (0.3 s) included, and how long the workers' main threads waited for a core: where that is not near 0, the
machine had other work, and pages a second say little. Last comes what the cores would do if they never stood still:
cores / (CPU a page of two workers, nginx and Redis together).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from benchmarks.runs import SUBJECTS
from benchmarks.sites import make_shop, nginx
from tests.redis_servers import RedisServer, running

_TICKS = os.sysconf("SC_CLK_TCK")
_LOOK_S = 0.05


class Turn(Struct):
    """One crawl: pages a second by the workers' own clocks, and microseconds a page of each kind of process."""

    pages_per_s: float
    workers_us: float
    nginx_us: float
    redis_us: float
    waited: float

    @property
    def all_us(self) -> float:
        """CPU a page of all processes."""
        return self.workers_us + self.nginx_us + self.redis_us


def crawl(work: Path, site: str, workers: int, redis: RedisServer | None, slots: int) -> Turn:
    """Crawl the shop once."""
    served, answered = _cpu_s(_nginx_of(work)), _cpu_s([redis.process.pid]) if redis and redis.process else 0.0
    spider = SUBJECTS / "framework" / "shop.py"
    command = [sys.executable, "-m", "scraper", "run", str(spider), "-q", "-a", f"site={site}", "--stats", "stats.json"]
    command += ["-s", "crawl.concurrency=64", "-s", f"politeness.concurrency_per_host={slots}"]
    command += ["-s", "politeness.adaptive=false", "-o", "items.jsonl"]
    command += ["--frontier", redis.url, "--job", f"shop-{workers}"] if redis else ["--frontier", "sqlite"]
    with TemporaryDirectory(dir=work) as folder:
        homes = [Path(folder) / str(number) for number in range(workers)]
        for home in homes:
            home.mkdir()
        began = time.perf_counter()
        running_ = [subprocess.Popen(command, cwd=home) for home in homes]
        waited_s = _watch([each.pid for each in running_])
        cpu_s = 0.0
        for process in running_:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, "a worker failed"
            cpu_s += usage.ru_utime + usage.ru_stime
        wall_s = time.perf_counter() - began
        stats = [json.loads((home / "stats.json").read_text()) for home in homes]
    pages = sum(each["pages"] for each in stats)
    served = _cpu_s(_nginx_of(work)) - served
    answered = _cpu_s([redis.process.pid]) - answered if redis and redis.process else 0.0
    rate = pages / max(each["elapsed_s"] for each in stats)
    waited = waited_s / workers / wall_s
    return Turn(rate, 1e6 * cpu_s / pages, 1e6 * served / pages, 1e6 * answered / pages, waited)


def _watch(pids: list[int]) -> float:
    """Wait until the processes have ended; return for how long their main threads were ready to run, and did not."""
    waited: dict[int, float] = {}
    alive = set(pids)
    while alive:
        for pid in list(alive):
            try:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    alive.discard(pid)
                waited[pid] = int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9
            except (OSError, IndexError):
                alive.discard(pid)
        time.sleep(_LOOK_S)
    return sum(waited.values())


def _nginx_of(work: Path) -> list[int]:
    master = (work / "nginx.pid").read_text().strip()
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [int(pid) for pid in (master, *children)]


def _cpu_s(pids: list[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def main() -> None:
    """Measure in turn, print each crawl, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="1,000 products, one round")
    options = parser.parse_args()
    found: dict[str, list[Turn]] = {"sqlite": [], "one worker": [], "two workers": []}
    with TemporaryDirectory(prefix="benchmark-") as folder:
        work = Path(folder)
        work.chmod(0o755)  # nginx's worker is another user
        make_shop(work / "site", 1_000 if options.quick else 20_000)
        with nginx(work / "site", work) as site:
            for number in range(1 if options.quick else options.rounds):
                with running(work / f"redis-{number}") as redis:
                    for name, workers in (("sqlite", 1), ("one worker", 1), ("two workers", 2)):
                        turn = crawl(work, site, workers, None if name == "sqlite" else redis, options.slots)
                        found[name].append(turn)
                        print(
                            f"{name:<12} {turn.pages_per_s:>6,.0f} pages/s; µs CPU a page: workers {turn.workers_us:.0f}, "
                            f"nginx {turn.nginx_us:.0f}, Redis {turn.redis_us:.0f}; waited for a core {turn.waited:.0%}",
                            flush=True,
                        )
    rates = {name: statistics.median(each.pages_per_s for each in turns) for name, turns in found.items()}
    two = min(found["two workers"], key=lambda each: each.all_us)
    cores = len(os.sched_getaffinity(0))
    print(f"one worker is {rates['one worker'] / rates['sqlite']:.0%} of SQLite", end="; ")
    print(f"two workers are {rates['two workers'] / rates['one worker']:.2f} x one")
    full = cores * 1e6 / two.all_us
    print(
        f"{cores} cores at {two.all_us:.0f} µs a page never stand still at {full:,.0f} pages/s, "
        f"{full / rates['one worker']:.2f} x one worker"
    )


if __name__ == "__main__":
    main()
