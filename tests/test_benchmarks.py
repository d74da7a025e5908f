"""The benchmarks run, and docs/performance.md shows the figures that docs/performance.json holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.chart import draw
from benchmarks.runs import ROOT, Run


def test_the_docs_show_the_figures() -> None:
    """The tables and the chart are what the command makes of docs/performance.json."""
    figures = json.loads(report.FIGURES.read_text(encoding="utf-8"))
    page = report.PAGE.read_text(encoding="utf-8")
    for name, block in report.blocks(figures).items():
        assert f"{block}\n<!-- end of {name} -->" in page
    assert report.CHART.read_text(encoding="utf-8") == draw(figures)


def test_ratios_are_of_medians_and_above_one_where_the_first_is_faster() -> None:
    """Of rates the larger is faster, of times the smaller; one odd run out of three changes nothing."""
    runs = {
        "sqlite": [Run(100, 100, seconds, seconds + 1, 0.1, 50.0) for seconds in (1.0, 1.0, 50.0)],
        "scrapy": [Run(100, 100, seconds, seconds + 3, 0.1, 50.0) for seconds in (4.0, 0.1, 4.0)],
    }
    assert report.figures_of("", "pages_per_s", runs)["ratios"]["sqlite"]["scrapy"] == 4.0
    assert report.figures_of("", "elapsed_s", runs)["ratios"]["scrapy"]["sqlite"] == 0.25
    assert report.figures_of("", "wall_s", runs)["ratios"]["sqlite"]["scrapy"] == 3.5


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx in PATH")
def test_a_quick_run_measures_all_but_scrapy(tmp_path: Path) -> None:
    """A small flat crawl by this framework, in memory and with SQLite, and by hand, ends with the figures of each."""
    command = [sys.executable, "-m", "benchmarks", "--only", "flat", "--quick", "--rounds", "1", "--without", "scrapy"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "found.json")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    [found] = json.loads((tmp_path / "found.json").read_text())["workloads"].values()
    assert {name: each["pages"] for name, each in found["subjects"].items()} == {
        "sqlite": 500,
        "memory": 500,
        "by hand": 500,
    }
    assert all(each["peak_rss_mb"] > 10 and each["cpu_us_per_page"] > 10 for each in found["subjects"].values())
