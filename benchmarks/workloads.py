"""The workloads: what is crawled, by whom, and how many pages and items there must be at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.runs import ROOT, SUBJECTS, Bench, Run
from benchmarks.sites import free_port, make_certificate, make_flat, make_hosts, make_shop, nginx, slow_server

MANUAL = Path("/usr/share/doc/postgresql-doc-15")
_NO_ENV: Mapping[str, str] = {}

Measure = Callable[[], Run]


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload. ``subjects(bench, site)`` gives each subject's way to run once; ``metric`` names what is compared.

    ``metric`` is "pages_per_s", "elapsed_s" (of the crawl) or "wall_s" (of the process). ``repeats``: runs a round.
    """

    name: str
    title: str
    metric: str
    serve: Callable[[Bench], AbstractContextManager[str]]
    subjects: Callable[[Bench, str], Mapping[str, Measure]]
    repeats: int = 1
    is_long: bool = False


def workloads(quick: bool) -> list[Workload]:
    """Return all workloads, or small ones of the same kinds."""
    products, flat = (1_000, 500) if quick else (20_000, 10_000)
    shop_pages = 1 + products // 20 + products
    slow = ((100, "slow-100"),) if quick else ((1_000, "slow-1k"), (10_000, "slow-10k"))
    many, hosts_pages = (20, 400) if quick else (200, 20_000)
    delay_s = 1.0 if quick else 3.0
    hosts = (10, 2_000) if quick else (10, 100_000)
    urls = (50_000,) if quick else (1_000_000, 10_000_000)
    in_flight = ((64, ""), (128, "-128"))
    return [
        Workload(
            "shop",
            f"shop: {shop_pages:,} pages of 5 KB, 30 links each, 5 fields a product",
            "pages_per_s",
            lambda bench: _files(bench, lambda root: make_shop(root, products)),
            _crawl("shop", shop_pages, products),
        ),
        Workload(
            "flat",
            f"flat: {flat:,} product pages, no link followed",
            "pages_per_s",
            lambda bench: _files(bench, lambda root: make_flat(root, flat)),
            _crawl("flat", flat, flat),
        ),
        *(
            Workload(
                f"shards{name}",
                f"shards: {shop_pages:,} pages of shop, {at_a_time} at a time, on all cores, nginx among them",
                "pages_per_s",
                lambda bench: _files(replace(bench, server_cpu=None), lambda root: make_shop(root, products)),
                _shards("shop", shop_pages, products, at_a_time),
            )
            for at_a_time, name in in_flight
        ),
        *(
            Workload(
                f"shards-hosts{name}",
                f"shards by host: {hosts_pages:,} pages of 5 KB on {many} hosts, {at_a_time} at a time, on all cores",
                "pages_per_s",
                lambda bench: _many_hosts(bench, many, hosts_pages // many),
                _shards("shop", hosts_pages, hosts_pages, at_a_time, "host"),
            )
            for at_a_time, name in in_flight
        ),
        Workload("docs", "docs: the PostgreSQL manual, 16 MB", "pages_per_s", _manual, _manual_crawl),
        *(
            Workload(
                f"shards-{name}",
                f"slow, shards: {pages:,} pages of {delay_s:g} s each, all at once",
                "elapsed_s",
                lambda bench: slow_server(delay_s, None),
                _shards("slow", pages, pages, pages),
            )
            for pages, name in slow
        ),
        *(
            Workload(
                name,
                f"slow: {pages:,} pages of {delay_s:g} s each, all at once",
                "elapsed_s",
                lambda bench: slow_server(delay_s, bench.server_cpu),
                _crawl("slow", pages, pages, concurrency=pages),
            )
            for pages, name in slow
        ),
        Workload(
            "tls",
            f"TLS: {flat:,} pages of flat over https",
            "pages_per_s",
            lambda bench: _files(bench, lambda root: make_flat(root, flat), tls=True),
            _crawl("flat", flat, flat, tls=True),
        ),
        Workload(
            "start-up",
            "start-up: a run of one page, the whole process",
            "wall_s",
            lambda bench: _files(bench, lambda root: make_flat(root, 1)),
            _start_up,
            repeats=5,
        ),
        Workload("version", "start-up: `version`", "wall_s", lambda bench: nullcontext(""), _version, repeats=5),
        Workload(
            "hosts",
            "hosts: pages with so many hosts in the SQLite frontier, simulated downloader",
            "pages_per_s",
            lambda bench: nullcontext(""),
            lambda bench, site: {f"{each:,} hosts": _module(bench, "hosts", f"--hosts={each}") for each in hosts},
        ),
        Workload(
            "frontier",
            "frontier: URLs into the SQLite frontier, until it holds so many",
            "pages_per_s",
            lambda bench: nullcontext(""),
            lambda bench, site: {f"{each:,} URLs": _module(bench, "frontier", f"--urls={each}") for each in urls},
            is_long=True,
        ),
    ]


def _crawl(
    spider: str, pages: int, items: int, *, concurrency: int = 64, tls: bool = False
) -> Callable[[Bench, str], Mapping[str, Measure]]:
    def subjects(bench: Bench, site: str) -> Mapping[str, Measure]:
        env = {"SSL_CERT_FILE": str(bench.work / "certificate.pem")} if tls else _NO_ENV
        plan = (spider, site, pages, concurrency)
        made: dict[str, Measure] = {
            "sqlite": lambda: bench.framework(*plan, "sqlite", env),
            "memory": lambda: bench.framework(*plan, "memory", env),
            "by hand": lambda: bench.by_hand(*plan, env),
        }
        if bench.scrapy is not None:
            made["scrapy"] = lambda: bench.by_scrapy(*plan, env)
        return {name: _checked(measure, pages, items) for name, measure in made.items()}

    return subjects


def _checked(measure: Measure, pages: int, items: int) -> Measure:
    """Return the same that ends the benchmark where a run has not got all."""

    def run() -> Run:
        found = measure()
        if (found.pages, found.items) != (pages, items):
            raise SystemExit(f"not {pages:,} pages and {items:,} items: {found}")
        return found

    return run


def _shards(
    spider: str, pages: int, items: int, concurrency: int, by: str = "url"
) -> Callable[[Bench, str], Mapping[str, Measure]]:
    """Return the subjects of one process and of two shards, which the system places as it likes."""

    def subjects(bench: Bench, site: str) -> Mapping[str, Measure]:
        free = replace(bench, crawler_cpu=None)

        def measure(shards: int) -> Measure:
            def run() -> Run:
                return free.framework(spider, site, pages, concurrency, "sqlite", _NO_ENV, shards, by)

            return _checked(run, pages, items)

        return {"one process": measure(1), "2 shards": measure(2)}

    return subjects


def _manual_crawl(bench: Bench, site: str) -> Mapping[str, Measure]:
    pages = sum(1 for _ in (MANUAL / "html").glob("*.html"))
    return _crawl("docs", pages, pages)(bench, site)


def _start_up(bench: Bench, site: str) -> Mapping[str, Measure]:
    made = dict(_crawl("flat", 1, 1)(bench, site))
    if bench.scrapy is not None:
        # As users run it, by Scrapy's own command.
        command = [bench.scrapy, "-m", "scrapy", "runspider", str(SUBJECTS / "for_scrapy" / "flat.py")]
        command += ["-a", f"site={site}", "-a", "pages=1", "-L", "ERROR", "-s", "ROBOTSTXT_OBEY=1", "-O", "items.jsonl"]
        made["scrapy"] = lambda: _one_page(bench, command)
    return made


def _one_page(bench: Bench, command: list[str]) -> Run:
    run, _ = bench.process(command)
    assert run.items == 1, run
    run.pages = 1
    return run


def _version(bench: Bench, site: str) -> Mapping[str, Measure]:
    made: dict[str, Measure] = {"sqlite": lambda: bench.process([sys.executable, "-m", "scraper", "version"])[0]}
    scrapy = bench.scrapy
    if scrapy is not None:
        made["scrapy"] = lambda: bench.process([scrapy, "-m", "scrapy", "version"])[0]
    return made


def _module(bench: Bench, module: str, *options: str) -> Measure:
    def measure() -> Run:
        command = [sys.executable, "-m", f"benchmarks.{module}", *options]
        run, printed = bench.process(command, {"PYTHONPATH": str(ROOT)})
        found = json.loads(printed.splitlines()[-1])
        run.pages, run.elapsed_s = found.pop("urls"), found.pop("seconds")
        run.peak_rss_mb = found.pop("peak_rss_mb")
        run.notes = found
        return run

    return measure


@contextmanager
def _files(bench: Bench, make: Callable[[Path], None], tls: bool = False) -> Iterator[str]:
    make(bench.work / "site")
    certificate = make_certificate(bench.work) if tls else None
    with nginx(bench.work / "site", bench.work, bench.server_cpu, certificate) as site:
        yield site


@contextmanager
def _many_hosts(bench: Bench, hosts: int, pages: int) -> Iterator[str]:
    port = free_port()
    make_hosts(bench.work / "site", port, hosts, pages)
    with nginx(bench.work / "site", bench.work, port=port, hosts=hosts) as site:
        yield site


@contextmanager
def _manual(bench: Bench) -> Iterator[str]:
    if not (MANUAL / "html").is_dir():
        raise SystemExit(f"the manual is not in {MANUAL}; on Debian: apt-get install postgresql-doc-15")
    with nginx(MANUAL, bench.work, bench.server_cpu) as site:
        yield site
