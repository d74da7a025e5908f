"""Measures this framework beside a loop written by hand and Scrapy, in turn, round by round, on one core.

    python -m benchmarks                            everything but the long ones, three rounds
    python -m benchmarks --quick --without scrapy   a minute's look at whether it works
    python -m benchmarks --only shop --rounds 5     one workload; may be repeated
    python -m benchmarks --long --docs              everything, and the tables and the chart of docs/ anew

nginx has one core, the crawler another. Prints each run, then medians, ratios of medians, CPU time a page and peak memory,
and writes them to a JSON file. Scrapy is installed into an environment of its own in the cache folder. ``page`` among the
workloads is the cost of one page by stage (``python -m benchmarks.page``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Sequence
from compileall import compile_dir
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import report
from benchmarks.runs import ROOT, Bench, Run, find_scrapy
from benchmarks.workloads import Workload, workloads


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the options say."""
    options = _options(arguments)
    _raise_file_limit()
    found: dict[str, Any] = {"machine": report.machine(), "workloads": {}}
    scrapy = None if "scrapy" in options.without else find_scrapy(options.scrapy)
    compile_dir(ROOT / "scraper", quiet=1)  # as pip does with what it installs, Scrapy too
    server, crawler = _cores()
    for workload in _chosen(options):
        with TemporaryDirectory(prefix="benchmark-") as folder:
            work = Path(folder)
            work.chmod(0o755)  # nginx's worker is another user
            runs = _rounds(workload, Bench(work, crawler, server, scrapy), options)
        figures = report.figures_of(workload.title, workload.metric, runs)
        found["workloads"][workload.name] = figures
        print(report.as_text(figures), flush=True)
    if "page" in options.only or not options.only:
        found["page"] = _stages(crawler, server, options.quick)
    options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {options.json}")
    if options.docs:
        report.publish(found)
        print(f"written: {report.FIGURES}, {report.PAGE}, {report.CHART}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [*dict.fromkeys(each.name for quick in (False, True) for each in workloads(quick)), "page"]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", default=[], choices=names, help="this workload; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="how often each subject runs (3)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see whether all works")
    parser.add_argument("--long", action="store_true", help="the long workloads too: frontier")
    parser.add_argument(
        "--without", action="append", default=[], choices=["memory", "by hand", "scrapy"], help="leave a subject out"
    )
    parser.add_argument("--scrapy", metavar="PYTHON", help="a Python that has Scrapy, in place of an own environment")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), metavar="FILE", help="benchmarks.json")
    parser.add_argument("--docs", action="store_true", help="write the figures into docs/performance.{json,md,svg}")
    options = parser.parse_args(arguments)
    if options.docs and options.quick:
        parser.error("--docs takes no figures of --quick")
    return options


def _chosen(options: argparse.Namespace) -> list[Workload]:
    known = workloads(options.quick)
    if options.only:
        return [each for each in known if each.name in options.only]
    return [each for each in known if options.long or not each.is_long]


def _rounds(workload: Workload, bench: Bench, options: argparse.Namespace) -> dict[str, list[Run]]:
    with workload.serve(bench) as site:
        subjects = {
            name: measure for name, measure in workload.subjects(bench, site).items() if name not in options.without
        }
        runs: dict[str, list[Run]] = {name: [] for name in subjects}
        for number in range(options.rounds * workload.repeats):
            for name, measure in subjects.items():
                run = measure()
                runs[name].append(run)
                print(
                    f"{workload.name} {number + 1}, {name}: {run.elapsed_s:.3f} s, {run.pages_per_s:,.0f} pages/s, "
                    f"{run.cpu_us_per_page:,.0f} µs CPU a page, {run.peak_rss_mb:.0f} MB",
                    flush=True,
                )
        return runs


def _stages(crawler: int | None, server: int | None, quick: bool) -> dict[str, Any]:
    with TemporaryDirectory(prefix="benchmark-") as folder:
        bench = Bench(Path(folder), crawler, server, None)
        command = [sys.executable, "-m", "benchmarks.page", "--json", *(["--quick"] if quick else [])]
        command += [] if server is None else ["--server-cpu", str(server)]
        _, printed = bench.process(command, {"PYTHONPATH": str(ROOT)})
    stages: dict[str, Any] = json.loads(printed)
    for stage, found in stages.items():
        print(f"{found['us']:>8.1f} µs  {stage}")
    return stages


def _cores() -> tuple[int | None, int | None]:
    """Return the server's core and the crawler's; none where there is but one, or where processes cannot be pinned."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        print("server and crawler share what there is of cores: the figures say little", file=sys.stderr)
        return None, None
    return cores[-1], cores[0]


def _raise_file_limit() -> None:
    """10,000 connections at a time need as many open files, in each of the processes started here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
