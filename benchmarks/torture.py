"""Kills real crawls at random instants, resumes them, and compares their output with that of a crawl nobody killed.

    python -m benchmarks.torture --kills 200 [--seed N] [--pages 1000]
    python -m benchmarks.torture --frontier redis --kills 100    (three workers: see fleet_torture.py)
    python -m benchmarks.torture --shards 4 --kills 100          (see shard_torture.py)

The crawls differ: plain, deep first, with async callbacks, an async pipeline, many hosts, full durability, CSV. Some kills
come when the server has seen so many requests, others after so many milliseconds, down to none at all. Exits with 1 if
one page or item is lost or doubled, one line is broken, more pages than ``crawl.concurrency`` are fetched again after a
kill, or the first fetch after a restart takes longer than 2 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Timer

from benchmarks.fleet_torture import torture_fleet
from benchmarks.shard_torture import torture_shards
from tests.crash.site import CONCURRENCY, FIRST_FETCH_S, Folder, Site, torture

_PIPELINE = '[[pipelines]]\nuse = "effects:Pauses"\n'


@dataclass(frozen=True)
class Kind:
    """A kind of crawl: its spider, options, the settings.toml and the output's suffix."""

    name: str
    spider: str = "shop"
    options: tuple[str, ...] = ()
    settings: str = ""
    suffix: str = ".jsonl"


KINDS = (
    Kind("plain", options=("-a", "first=full")),
    Kind("deep first", options=("-s", "crawl.order=depth")),
    Kind("full durability", options=("-s", "frontier.durability=full")),
    Kind("async pipeline", settings=_PIPELINE),
    Kind("async callbacks", "slowly"),
    Kind("items of start()", "lazy"),
    Kind("ten hosts", "hosts", ("-s", "politeness.robots=false")),
    Kind("50,000 items a page", "many"),
    Kind("CSV", suffix=".csv"),
)


@dataclass
class Row:
    """What came of all crawls of one kind."""

    crawls: int = 0
    kills: int = 0
    lost: int = 0
    doubled: int = 0
    broken: int = 0
    failed: int = 0
    most_refetched: int = 0
    slowest_s: float = 0.0
    notes: list[str] = field(default_factory=list)

    def add(self, other: Row) -> None:
        """Add another row to this one."""
        for name in ("crawls", "kills", "lost", "doubled", "broken", "failed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.most_refetched = max(self.most_refetched, other.most_refetched)
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.notes += other.notes

    @property
    def is_exact(self) -> bool:
        """Whether nothing went wrong."""
        return (
            not (self.lost or self.doubled or self.broken or self.failed)
            and self.most_refetched <= CONCURRENCY
            and self.slowest_s <= FIRST_FETCH_S
        )


def strikes(rng: Random, site: Site, kills: int, requests: int, whole_s: float) -> Iterator[Callable[..., None]]:
    """Yield ways to kill a process: at a number of requests, or at an instant."""
    for _ in range(kills):
        if rng.random() < 0.5:
            after = rng.randrange(1, max(2, 2 * requests // kills))
            yield lambda process, after=after: site.strike(process.pid, after)
        else:
            delay_s = rng.uniform(0.0, 0.3 + 2 * whole_s / kills)
            yield lambda process, delay_s=delay_s: _kill_later(process, delay_s)


def _kill_later(process: subprocess.Popen[str], delay_s: float) -> None:
    timer = Timer(delay_s, process.kill)
    timer.daemon = True
    timer.start()


def whole(kind: Kind, site: Site) -> tuple[Counter[bytes], Counter[str], float]:
    """Crawl without a kill; return the lines, how often each page was asked for, and the seconds it took."""
    with TemporaryDirectory(prefix="torture-") as path:
        folder = Folder(Path(path), site)
        folder.write("settings.toml", kind.settings)
        site.forget()
        began = time.monotonic()
        done = folder.scrape(*folder.arguments(kind.spider, "-o", f"out{kind.suffix}", *kind.options))
        if done.status:
            sys.exit(f"{kind.name}: the crawl that nobody kills fails: {done.err}")
        return folder.lines(f"out{kind.suffix}"), site.times, time.monotonic() - began


def tortured(kind: Kind, site: Site, rng: Random, kills: int, usual: tuple[Counter[bytes], Counter[str], float]) -> Row:
    """Crawl with so many kills; return what came of it."""
    lines, asked, whole_s = usual
    with TemporaryDirectory(prefix="torture-") as path:
        folder = Folder(Path(path), site)
        folder.write("settings.toml", kind.settings)
        site.forget()
        output = f"out{kind.suffix}"
        ways = strikes(rng, site, kills, asked.total(), whole_s)
        report = torture(folder, asked, ways, *folder.arguments(kind.spider, "-o", output, *kind.options))
        row = Row(crawls=1, kills=report.kills, failed=int(report.status != 0))
        row.most_refetched = max(report.refetched, default=0)
        row.slowest_s = max(report.first_fetch_s, default=0.0)
        if report.status:
            row.notes.append(f"{kind.name}: status {report.status}: {report.err[:500]}")
        try:
            found = folder.lines(output)
        except (AssertionError, ValueError) as error:
            row.broken += 1
            row.notes.append(f"{kind.name}: {error}")
            return row
        row.lost, row.doubled = (lines - found).total(), (found - lines).total()
        row.lost += (asked - site.times).total()
        return row


def main() -> int:
    """Torture until there were enough kills; print a table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--frontier", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument(
        "--away", type=float, default=1.0, metavar="SECONDS", help="how long Redis is away, with redis (1)"
    )
    options = parser.parse_args()
    rng = Random(options.seed)
    if options.shards > 1:
        with Site(options.pages) as site:
            is_exact = torture_shards(site, rng, options.kills, options.shards)
        print("exact" if is_exact else "NOT EXACT")
        return 0 if is_exact else 1
    if options.frontier == "redis":
        with Site(options.pages) as site:
            lines, asked, _ = whole(KINDS[0], site)
            is_exact = torture_fleet(site, rng, options.kills, lines, asked.total(), options.away)
        print("exact" if is_exact else "NOT EXACT")
        return 0 if is_exact else 1
    rows: dict[str, Row] = {}
    total = Row()
    with Site(options.pages) as site:
        known = {}
        while total.kills < options.kills:
            kind = KINDS[total.crawls % len(KINDS)]
            if kind not in known:
                known[kind] = whole(kind, site)
            kills = min(rng.choice((1, 2, 5, 10, 20)), options.kills - total.kills)
            row = tortured(kind, site, rng, kills, known[kind])
            rows.setdefault(kind.name, Row()).add(row)
            total.add(row)
            if sys.stderr.isatty():
                print(f"\r{total.kills} of {options.kills} kills", end="", file=sys.stderr, flush=True)
    print(f"seed {options.seed}, {options.pages:,} items")
    print(
        f"{'':<20} {'crawls':>6} {'kills':>6} {'lost':>6} {'doubled':>8} {'broken':>7} {'failed':>7} "
        f"{'refetched/kill':>15} {'first fetch':>12}"
    )
    for name, row in [*rows.items(), ("all", total)]:
        print(
            f"{name:<20} {row.crawls:>6} {row.kills:>6} {row.lost:>6} {row.doubled:>8} {row.broken:>7} {row.failed:>7} "
            f"{row.most_refetched:>11} max {row.slowest_s:>8.2f} max"
        )
    for note in total.notes:
        print(note)
    print("exact" if total.is_exact else "NOT EXACT")
    return 0 if total.is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
