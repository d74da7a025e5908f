"""The chart of docs/performance.md: pages a second by workload and subject, as an SVG for light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

_SHOWN = ("shop", "flat", "docs", "tls", "slow-1k", "slow-10k")
_SUBJECTS = {"sqlite": "this framework, durable", "by hand": "written by hand", "scrapy": "Scrapy"}
_CLASSES = {"sqlite": "ours", "by hand": "hand", "scrapy": "theirs"}
_WIDTH, _LEFT, _RIGHT = 860, 244, 254
_BAR, _GAP, _GROUP_GAP, _TOP = 16, 5, 26, 96
_STYLE = """
  .page { fill: #ffffff } .ink { fill: #1f2328 } .soft { fill: #59636e } .line { stroke: #d1d9e0 }
  .ours { fill: #0b7a75 } .hand { fill: #8fa3b5 } .theirs { fill: #d98e3f } .best { fill: #0b7a75 }
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Helvetica, Arial, sans-serif }
  .title { font-size: 19px; font-weight: 650 } .name { font-weight: 600 } .figure { font-variant-numeric: tabular-nums }
  .best { font-weight: 650 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 } .ink { fill: #f0f6fc } .soft { fill: #9198a1 } .line { stroke: #3d444d }
    .ours { fill: #2fb8ac } .hand { fill: #5f7488 } .theirs { fill: #c97f35 } .best { fill: #4fd1c5 }
  }
"""


def draw(figures: Mapping[str, Any]) -> str:
    """Return the chart of what stands in ``figures["workloads"]``."""
    shown = [figures["workloads"][name] for name in _SHOWN if name in figures["workloads"]]
    body: list[str] = []
    y = _TOP
    for workload in shown:
        group, y = _group(workload, y)
        body += group
    height = y - _GROUP_GAP + 28
    head = [
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="8"/>',
        '<text class="ink title" x="28" y="38">Pages a second on one core</text>',
        *_legend(),
        f'<line class="line" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP - 10}" y2="{height - 20}"/>',
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
            ' role="img" aria-label="Pages a second on one core, by workload">',
            f"<style>{_STYLE}</style>",
            *head,
            *body,
            "</svg>\n",
        ]
    )


def _legend() -> list[str]:
    drawn, x = [], 28
    for name, label in _SUBJECTS.items():
        drawn.append(f'<rect class="{_CLASSES[name]}" x="{x}" y="54" width="12" height="12" rx="2.5"/>')
        drawn.append(f'<text class="soft" x="{x + 18}" y="64.5">{escape(label)}</text>')
        x += 18 + 7 * len(label) + 26
    drawn.append(
        f'<text class="soft" x="{_WIDTH - 28}" y="64.5" text-anchor="end">bars: each row to its own scale</text>'
    )
    return drawn


def _group(workload: Mapping[str, Any], y: int) -> tuple[list[str], int]:
    """Draw one workload's bars from ``y`` on; return them and where the next group begins."""
    subjects = {name: workload["subjects"][name] for name in _SUBJECTS if name in workload["subjects"]}
    most = max(each["pages_per_s"] for each in subjects.values())
    room = _WIDTH - _LEFT - _RIGHT
    name, _, about = workload["title"].partition(": ")
    about, _, more = about.partition(", ")
    middle = y + (len(subjects) * (_BAR + _GAP) - _GAP) / 2
    drawn = [
        f'<text class="ink name" x="28" y="{middle - 10:g}">{escape(name)}</text>',
        f'<text class="soft" x="28" y="{middle + 7:g}">{escape(about)}</text>',
        f'<text class="soft" x="28" y="{middle + 24:g}">{escape(more)}</text>',
    ]
    ratios = workload["ratios"]["sqlite"]
    for other, kind, row in (("scrapy", "best", y), ("by hand", "soft", y + _BAR + _GAP)):
        if other in ratios:
            drawn.append(
                f'<text class="figure {kind}" x="{_WIDTH - 28}" y="{row + _BAR - 3.5:g}" text-anchor="end">'
                f"{ratios[other]:.1f} × {_SUBJECTS[other].removeprefix('written ')}</text>"
            )
    for subject, found in subjects.items():
        width = max(2.0, room * found["pages_per_s"] / most)
        label = f"{found['pages_per_s']:,.0f}"
        if workload["metric"] == "elapsed_s":
            label += f" ({found['elapsed_s']:.1f} s)"
        kind = "best" if subject == "sqlite" else "soft"
        drawn.append(
            f'<rect class="{_CLASSES[subject]}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2.5"/>'
        )
        drawn.append(
            f'<text class="figure {kind}" x="{_LEFT + width + 8:.1f}" y="{y + _BAR - 3.5:g}">{escape(label)}</text>'
        )
        y += _BAR + _GAP
    return drawn, y - _GAP + _GROUP_GAP
