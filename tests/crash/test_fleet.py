"""A fleet loses nothing and doubles nothing when one of its workers, or Redis itself, is killed or frozen."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen, TimeoutExpired

import pytest
import trustme

from scraper.frontiers.server import PASSWORD
from tests.redis_servers import RedisServer, cluster_url, free_port, running, running_nodes

from .conftest import Wholes
from .site import CLOCK_S, FIRST_FETCH_S, Folder, Site, difference


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
        self.url = redis.url
        self.env: dict[str, str] = {}

    def begin(self, spider: str = "shop", *options: str) -> Popen[str]:
        """Start a worker; four requests at a time, so that each has a share of the pages."""
        few = ("-s", "crawl.concurrency=4", "--frontier", self.url, "--job", "all")
        return self.folder.start(*self.folder.arguments(spider, *few, "-o", "out.jsonl", *options), env=self.env)

    def end(self, process: Popen[str], status: int = 0) -> str:
        """Wait for a worker; return what it said."""
        done = self.folder.end(process)
        assert done.status == status, done.err
        return done.err

    def is_exact(self, whole: Wholes, spider: str = "shop") -> None:
        """Make sure that the parts make the output of a crawl that nobody disturbed."""
        done = self.folder.scrape("collect", "all", "--frontier", self.url, env=self.env)
        assert done.status == 0, done.err
        found = self.folder.lines("out.jsonl")
        wanted = whole(spider).lines
        assert found == wanted, difference(found, wanted)
        listed = self.folder.scrape("jobs", "--frontier", self.url, env=self.env).out.splitlines()[1].split()
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


@pytest.mark.parametrize("differs", [("hosts", "-a", "raises="), ("shop", "-a", "raises=x")])
def test_two_begin_one_job_at_the_same_time(fleet: Fleet, site: Site, differs: tuple[str, ...]) -> None:
    """With other arguments, or another spider, one of the two is refused, whichever comes second."""
    for number in range(4):
        ways = (("shop", "-a", "raises="), differs)
        few = ("-s", "crawl.max_pages=20", "--job", f"j{number}")
        workers = [fleet.begin(*way, *few) for way in ways]
        done = [fleet.folder.end(worker) for worker in workers]
        assert sorted(each.status for each in done) == [0, 2], [each.err for each in done]
        assert any(words in each.err for each in done for words in ("other arguments", "one of the spider"))


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


def test_a_node_of_a_cluster_is_killed(folder: Folder, site: Site, whole: Wholes, tmp_path: Path) -> None:
    """Where a third of the keys is away, the workers wait for it; killed and started again, a worker goes on too."""
    whole("shop")
    with running_nodes(tmp_path / "nodes", "--appendonly", "yes", "--appendfsync", "always") as nodes:
        fleet = Fleet(folder, nodes[0])
        fleet.url = cluster_url(nodes)
        workers = [fleet.begin(), fleet.begin()]
        site.strike(workers[0].pid, 60)
        for node, after in ((nodes[1], 30), (nodes[0], 80)):
            site.wait_until(lambda after=after: len(site.asked) >= after)  # type: ignore[misc]
            node.kill()
            node.start()
        fleet.end(workers[0], -signal.SIGKILL)
        fleet.end(fleet.begin())
        fleet.end(workers[1])
        fleet.is_exact(whole)


def test_tls_and_a_password(folder: Folder, site: Site, whole: Wholes, tmp_path: Path) -> None:
    """A fleet works through TLS, with a password from the environment; an unknown certificate is refused in one line."""
    whole("shop")
    authority, port = trustme.CA(), free_port()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    files = [word for name, file in (("cert", "chain"), ("key", "key"), ("ca-cert", "ca"))
             for word in (f"--tls-{name}-file", str(tmp_path / f"{file}.pem"))]  # fmt: skip
    server = RedisServer(tmp_path / "redis", "--tls-port", str(port), "--tls-auth-clients", "no", *files,
                         "--requirepass", "p@ss/word", "--appendonly", "yes")  # fmt: skip
    server.answer = b"-NOAUTH"
    server.start()
    try:
        fleet = Fleet(folder, server)
        fleet.url = f"rediss://127.0.0.1:{port}/0"
        fleet.env = {PASSWORD: "p@ss/word"}
        said = fleet.end(fleet.begin(), 2)
        assert "CERTIFICATE_VERIFY_FAILED" in said
        assert len(said.splitlines()) == 1
        fleet.url += f"?ssl_ca_certs={tmp_path / 'ca.pem'}"
        for worker in [fleet.begin(), fleet.begin()]:
            fleet.end(worker)
        fleet.is_exact(whole)
        fleet.env = {PASSWORD: "another"}
        said = fleet.end(fleet.begin(), 2)
        assert "invalid username-password pair" in said
        assert "another" not in said
    finally:
        server.kill()


def test_redis_loses_everything(fleet: Fleet, site: Site) -> None:
    """A Redis that comes back empty is no end of the crawl: the worker says what happened and exits with 1."""
    fleet.redis = RedisServer(fleet.redis.folder / "empty")
    fleet.redis.start()
    fleet.url = fleet.redis.url
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


def test_redis_stands_still(fleet: Fleet, site: Site, whole: Wholes) -> None:
    """For a second nothing is answered: the workers are still there, and go on as if nothing had been."""
    usual = whole("shop")
    workers = [fleet.begin(), fleet.begin()]
    site.wait_until(lambda: len(site.asked) >= 30)
    assert fleet.redis.process is not None
    fleet.redis.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutExpired):
        workers[0].wait(1.0)
    fleet.redis.process.send_signal(signal.SIGCONT)
    for worker in workers:
        fleet.end(worker)
    assert site.times == usual.asked
    fleet.is_exact(whole)


def test_a_killed_worker_comes_back(fleet: Fleet, site: Site, whole: Wholes) -> None:
    """Started again on the same machine, a lone worker need not wait until its former self has been silent for long."""
    usual = whole("shop")
    first = fleet.begin()
    site.strike(first.pid, 2)  # robots.txt, and the only page there is so far
    fleet.end(first, -signal.SIGKILL)
    site.wait_until_quiet()
    asked, began = len(site.asked), time.monotonic()
    second = fleet.begin()
    site.wait_until(lambda: len(site.asked) > asked + 1)
    assert site.asked[asked + 1].at - began <= FIRST_FETCH_S
    fleet.end(second)
    assert (site.times - usual.asked).total() <= 4 + 2
    fleet.is_exact(whole)


def test_limits_are_the_fleets(fleet: Fleet, site: Site) -> None:
    """Three workers end when they have fetched so many pages together, but for what was under way; one more fetches none."""
    limit = ("-s", "crawl.max_pages=60", "--stats")
    for number, worker in enumerate([fleet.begin("shop", *limit, f"{n}.json") for n in range(3)]):
        fleet.end(worker)
        assert fleet.folder.stats(f"{number}.json")["reason"] == "max_pages"
    pages = sum(fleet.folder.stats(f"{number}.json")["pages"] for number in range(3))
    assert 60 <= pages <= 60 + 2 * 4
    asked = len(site.asked)
    fleet.end(fleet.begin("shop", *limit, "late.json"))
    assert fleet.folder.stats("late.json")["reason"] == "max_pages"
    assert len(site.asked) == asked


@pytest.mark.parametrize("slots", [1, 2])
def test_a_hosts_slots_are_the_fleets(fleet: Fleet, site: Site, whole: Wholes, slots: int) -> None:
    """The host is never asked more often at a time than it may be, as it sees it, by three workers of which one is killed."""
    whole("shop")
    few = ("-s", f"politeness.concurrency_per_host={slots}", "-s", "politeness.adaptive=false")
    workers = [fleet.begin("shop", *few) for _ in range(3)]
    site.strike(workers[0].pid, 60)
    fleet.end(workers[0], -signal.SIGKILL)
    again = fleet.begin("shop", *few)  # takes back at once what the killed one had
    for worker in [*workers[1:], again]:
        fleet.end(worker)
    assert site.most_at_once("127.0.0.1") <= slots
    fleet.is_exact(whole)


@pytest.mark.parametrize(("most", "slots"), [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("spider", ["hosts", "slowly"])
def test_few_requests_at_a_time(fleet: Fleet, site: Site, whole: Wholes, spider: str, most: int, slots: int) -> None:
    """A robots.txt, and what a callback awaits, get a slot of their host though there is hardly room for anything else."""
    whole(spider)
    few = ("-s", f"crawl.concurrency={most}", "-s", f"politeness.concurrency_per_host={slots}")
    fleet.end(fleet.begin(spider, *few))
    fleet.is_exact(whole, spider)


@pytest.mark.parametrize(("delay", "pages"), [(0.03, 60), (0.05, 40), (0.2, 24)])
def test_the_gap_holds_for_the_fleet(fleet: Fleet, site: Site, delay: float, pages: int) -> None:
    """Two requests to a host, robots.txt included, lie its delay apart by its kernel's clock: with no tolerance.

    Whoever makes them, on whatever connection, and though one worker is killed.
    """
    limits = ("-s", f"politeness.delay={delay}", "-s", f"crawl.max_pages={pages}")
    workers = [fleet.begin("hosts", *limits) for _ in range(3)]
    site.strike(workers[0].pid, pages // 3)
    fleet.end(workers[0], -signal.SIGKILL)
    for worker in [*workers[1:], fleet.begin("hosts", *limits)]:
        fleet.end(worker)
    for host in {each.host for each in site.asked}:
        assert min(site.gaps(host), default=delay) >= delay - CLOCK_S, host
