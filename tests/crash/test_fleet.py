"""A fleet loses nothing and doubles nothing when one of its workers, or Redis itself, is killed or frozen."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from subprocess import Popen

import pytest

from tests.redis_servers import RedisServer, running

from .conftest import Wholes
from .site import Folder, Site, difference


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that has written down what it confirms."""
    with running(tmp_path / "redis", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


class Fleet:
    """The workers of one job."""

    def __init__(self, folder: Folder, redis: RedisServer) -> None:
        self.folder = folder
        self.redis = redis

    def begin(self, spider: str = "shop", *options: str) -> Popen[str]:
        """Start a worker; four requests at a time, so that each has a share of the pages."""
        few = ("-s", "crawl.concurrency=4", "--frontier", self.redis.url, "--job", "all")
        return self.folder.start(*self.folder.arguments(spider, *few, "-o", "out.jsonl", *options))

    def end(self, process: Popen[str], status: int = 0) -> str:
        """Wait for a worker; return what it said."""
        done = self.folder.end(process)
        assert done.status == status, done.err
        return done.err

    def is_exact(self, whole: Wholes, spider: str = "shop") -> None:
        """Make sure that the parts make the output of a crawl that nobody disturbed."""
        done = self.folder.scrape("collect", "all", "--frontier", self.redis.url)
        assert done.status == 0, done.err
        found = self.folder.lines("out.jsonl")
        wanted = whole(spider).lines
        assert found == wanted, difference(found, wanted)
        listed = self.folder.scrape("jobs", "--frontier", self.redis.url).out.splitlines()[1].split()
        assert listed[1] == "finished"
        seeded, done_, failed, pending, items = (int(word.replace(",", "")) for word in listed[2:7])
        assert seeded == done_ + failed
        assert (pending, items) == (0, wanted.total())


@pytest.fixture
def fleet(folder: Folder, redis: RedisServer) -> Fleet:
    """A fleet without workers."""
    return Fleet(folder, redis)


def test_three_workers_share_a_crawl(fleet: Fleet, site: Site, whole: Wholes) -> None:
    """Each page is asked for as often as by one process, whoever asks; one that comes later is told that all is done."""
    usual = whole("shop")
    for worker in [fleet.begin() for _ in range(3)]:
        fleet.end(worker)
    assert site.times == usual.asked
    assert 'the run "all" is finished' in fleet.end(fleet.begin())
    assert site.times == usual.asked
    fleet.is_exact(whole)


@pytest.mark.parametrize("after", [1, 40, 90])
def test_a_killed_worker(fleet: Fleet, site: Site, whole: Wholes, after: int) -> None:
    """What it had leased comes back to the others; what it had not committed is cut off."""
    usual = whole("shop")
    first = fleet.begin()
    site.strike(first.pid, after)
    others = [fleet.begin(), fleet.begin()]
    fleet.end(first, -signal.SIGKILL)
    for worker in others:
        fleet.end(worker)
    assert usual.asked <= site.times
    assert (site.times - usual.asked).total() <= 4 + 2  # its concurrency, and what it was about to commit
    fleet.is_exact(whole)


def test_a_frozen_worker_is_fenced(fleet: Fleet, site: Site, whole: Wholes) -> None:
    """One that stood still too long finds its requests given to others: it says so and ends, and doubles nothing."""
    whole("shop")
    frozen = fleet.begin()
    site.strike(frozen.pid, 30, signal.SIGSTOP)
    site.wait_until(lambda: len(site.asked) >= 30)
    fleet.end(fleet.begin())
    frozen.send_signal(signal.SIGCONT)
    assert "was not heard for so long" in fleet.end(frozen, 1)
    fleet.is_exact(whole)


def test_redis_is_killed(fleet: Fleet, site: Site, whole: Wholes) -> None:
    """The workers wait until it is there again and go on; a line says when it went and when it came."""
    whole("shop")
    workers = [fleet.begin("shop", "--log-level", "warning"), fleet.begin()]
    site.wait_until(lambda: len(site.asked) >= 30)
    fleet.redis.kill()
    fleet.redis.start()
    for worker in workers:
        fleet.end(worker)
    fleet.is_exact(whole)


def test_redis_loses_everything(fleet: Fleet, site: Site) -> None:
    """A Redis that comes back empty is no end of the crawl: the worker says what happened and exits with 1."""
    fleet.redis = RedisServer(fleet.redis.folder / "empty")
    fleet.redis.start()
    try:
        worker = fleet.begin()
        site.wait_until(lambda: len(site.asked) >= 30)
        fleet.redis.kill()
        fleet.redis.start()
        assert "it has lost what it had confirmed" in fleet.end(worker, 1)
    finally:
        fleet.redis.kill()


def test_a_second_signal_while_redis_is_away(fleet: Fleet, site: Site) -> None:
    """It ends the worker though nothing can be committed any more, and one line says so."""
    worker = fleet.begin()
    site.wait_until(lambda: len(site.asked) >= 30)
    fleet.redis.kill()
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGTERM)
    said = fleet.end(worker, 1)
    assert "it does not answer, and this worker is to end now" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("delay", "pages"), [(0.05, 40), (0.2, 8)])
def test_the_gap_holds_for_the_fleet(fleet: Fleet, site: Site, delay: float, pages: int) -> None:
    """Two requests to a host lie its delay apart as the host sees them, whoever makes them."""
    limits = ("-s", f"politeness.delay={delay}", "-s", f"crawl.max_pages={pages}")
    for worker in [fleet.begin("hosts", *limits) for _ in range(3)]:
        fleet.end(worker)
    for host in {each.host for each in site.asked}:
        times = [each.at for each in site.asked if each.host == host]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap >= delay for gap in gaps), (host, sorted(gaps)[:3])
