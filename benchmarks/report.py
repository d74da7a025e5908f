"""From runs to figures: medians and ratios, a JSON file, the tables of docs/performance.md and its chart.

    python -m benchmarks.report [FILE]

draws the tables and the chart anew from docs/performance.json, with the figures of FILE laid over those there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chart import draw
from benchmarks.runs import ROOT, Run

DOCS = ROOT / "docs"
FIGURES = DOCS / "performance.json"
PAGE = DOCS / "performance.md"
CHART = DOCS / "performance.svg"
NAMES = {"sqlite": "this framework", "memory": "in memory", "by hand": "by hand", "scrapy": "Scrapy"}
_DIGITS = {"pages_per_s": 1, "elapsed_s": 3, "wall_s": 3, "cpu_us_per_page": 1, "peak_rss_mb": 1}

Figures = dict[str, Any]


def figures_of(title: str, metric: str, runs: Mapping[str, Sequence[Run]]) -> Figures:
    """Return a workload's figures: each subject's medians and single runs, and how many times faster one is than another."""
    subjects = {}
    for name, each in runs.items():
        values = {
            field: [round(float(getattr(run, field)), digits) for run in each] for field, digits in _DIGITS.items()
        }
        medians = {field: round(median(found), _DIGITS[field]) for field, found in values.items()}
        subjects[name] = {**medians, "pages": each[0].pages, "runs": values, "notes": each[-1].notes}
    return {
        "title": title,
        "metric": metric,
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "subjects": subjects,
        "ratios": {
            name: {other: round(faster(metric, one, two), 2) for other, two in subjects.items() if other != name}
            for name, one in subjects.items()
        },
    }


def faster(metric: str, one: Mapping[str, float], two: Mapping[str, float]) -> float:
    """Return how many times faster ``one`` is than ``two``."""
    return one[metric] / two[metric] if metric == "pages_per_s" else two[metric] / one[metric]


def machine() -> dict[str, str]:
    """Return what was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        model = found[1]
    names = ("aiohttp", "lxml", "parsel", "uvloop")
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "libraries": ", ".join(f"{name} {version(name)}" for name in names),
    }


def as_text(figures: Figures) -> str:
    """Return a workload's medians and ratios as lines for the terminal."""
    lines = [figures["title"]]
    for name, found in figures["subjects"].items():
        ratios = "  ".join(f"{ratio:.2f} x {other}" for other, ratio in figures["ratios"][name].items())
        lines.append(
            f"  {name:<16} {_shown(figures['metric'], found):>14} {found['cpu_us_per_page']:>8,.0f} µs CPU a page"
            f" {found['peak_rss_mb']:>6,.0f} MB   {ratios}"
        )
    return "\n".join(lines)


def publish(found: Mapping[str, Any]) -> None:
    """Lay new figures over those in docs/performance.json, and draw the tables and the chart anew."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {"workloads": {}}
    for key, value in found.items():
        figures[key] = {**figures.get(key, {}), **value} if key == "workloads" else value
    FIGURES.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    redraw()


def redraw() -> None:
    """Write the tables between their marks in docs/performance.md, and the chart, from docs/performance.json."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    for name, block in blocks(figures).items():
        begin, end = f"<!-- {name}: made by python -m benchmarks --docs -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{PAGE} has no block between {begin} and {end}")
        text = f"{before}{begin}\n{block}\n{end}{after}"
    PAGE.write_text(text, encoding="utf-8")
    CHART.write_text(draw(figures), encoding="utf-8")


def blocks(figures: Figures) -> dict[str, str]:
    """Return the tables of the docs by their blocks' names."""
    return {
        "machine": _machine_line(figures),
        "table": _crawls(figures["workloads"]),
        "cost": _costs(figures["workloads"]),
        "scale": _scale(figures["workloads"]),
        "shards": _shards(figures["workloads"]),
        "page": _stages(figures.get("page", {})),
    }


def _machine_line(figures: Figures) -> str:
    on = figures["machine"]
    notes = [
        subject["notes"]["version"]
        for each in figures["workloads"].values()
        for name, subject in each["subjects"].items()
        if name == "scrapy" and "version" in subject["notes"]
    ]
    scrapy = f", Scrapy {notes[-1]}" if notes else ""
    return f"{on['processor']}, {on['cores']} cores; CPython {on['python']}, {on['libraries']}{scrapy}."


def _crawls(workloads: Figures) -> str:
    lines = [
        "| workload | this framework | its state in memory | by hand | Scrapy | against by hand | against Scrapy |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for each in workloads.values():
        subjects, metric = each["subjects"], each["metric"]
        if "sqlite" not in subjects:
            continue
        shown = [_shown(metric, subjects[name]) if name in subjects else "" for name in NAMES]
        ratios = [
            f"**{each['ratios']['sqlite'][name]:.2f} ×**" if name in subjects else "" for name in ("by hand", "scrapy")
        ]
        lines.append(f"| {' | '.join([each['title'], *shown, *ratios])} |")
    return "\n".join(lines)


def _costs(workloads: Figures) -> str:
    lines = [
        "| workload | µs CPU a page | in memory | by hand | Scrapy | peak MB | in memory | by hand | Scrapy |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in workloads.values():
        subjects = each["subjects"]
        if "memory" not in subjects or each["metric"] == "wall_s":
            continue
        cells = [
            f"{subjects[name][field]:,.0f}" if name in subjects else ""
            for field in ("cpu_us_per_page", "peak_rss_mb")
            for name in NAMES
        ]
        lines.append(f"| {' | '.join([each['title'].partition(':')[0] + _size(each), *cells])} |")
    return "\n".join(lines)


def _size(workload: Figures) -> str:
    return f", {next(iter(workload['subjects'].values()))['pages']:,} pages"


def _scale(workloads: Figures) -> str:
    lines = ["| | | a second | peak MB |", "|---|---|--:|--:|"]
    for name in ("hosts", "frontier"):
        if name not in workloads:
            continue
        title = workloads[name]["title"]
        for size, found in workloads[name]["subjects"].items():
            lines.append(f"| {title} | {size} | {found['pages_per_s']:,.0f} | {found['peak_rss_mb']:,.0f} |")
            title = ""
    return "\n".join(lines)


def _shards(workloads: Figures) -> str:
    lines = ["| | one process | 2 shards | |", "|---|--:|--:|--:|"]
    for each in workloads.values():
        subjects, metric = each["subjects"], each["metric"]
        if "2 shards" in subjects:
            shown = [_shown(metric, subjects[name]) for name in ("one process", "2 shards")]
            lines.append(
                f"| {' | '.join([each['title'], *shown])} | **{each['ratios']['2 shards']['one process']:.2f} ×** |"
            )
    return "\n".join(lines)


def _stages(page: Figures) -> str:
    lines = ["| stage | µs a page | |", "|---|--:|---|"]
    lines += [f"| {stage} | {found['us']:,.1f} | {found['about']} |" for stage, found in page.items()]
    return "\n".join(lines)


def _shown(metric: str, found: Mapping[str, float]) -> str:
    if metric == "pages_per_s":
        return f"{found[metric]:,.0f} pages/s"
    return f"{found[metric]:,.2f} s"


if __name__ == "__main__":
    publish(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")) if sys.argv[1:] else {})
