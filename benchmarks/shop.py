"""The shop crawl: this framework with its memory and SQLite frontiers, a hand-written loop, and Scrapy, in turn.

    python -m benchmarks.shop [--rounds 3] [--scrapy /path/to/a/python/that/has/scrapy]

21,001 pages of 5 KB with 30 links each, five fields a product. nginx has one core, the crawler another. Prints pages a
second, the medians, and the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.sites import make_shop, nginx

_HERE = Path(__file__).parent / "subjects"
_SETTINGS = ("crawl.concurrency=64", "politeness.concurrency_per_host=64", "politeness.adaptive=false")


def main() -> None:
    """Run the subjects in turn, round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scrapy", metavar="PYTHON", help="a Python that has Scrapy; without it, Scrapy is left out")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="shop-") as folder:
        work = Path(folder)
        work.chmod(0o755)  # nginx's worker is another user
        make_shop(work / "site")
        with nginx(work / "site", work, cpu=1) as port:
            start = f"http://127.0.0.1:{port}/index.html"
            subjects = {
                "memory": lambda: _framework(start, work, "memory"),
                "sqlite": lambda: _framework(start, work, "sqlite"),
                "by hand": lambda: _script([sys.executable, str(_HERE / "shop_by_hand.py"), start], work),
            }
            if options.scrapy:
                subjects["scrapy"] = lambda: _script([options.scrapy, str(_HERE / "shop_scrapy.py"), start], work)
            rates: dict[str, list[float]] = {name: [] for name in subjects}
            for _ in range(options.rounds):
                for name, measure in subjects.items():
                    found = measure()
                    items = sum(1 for _ in (work / "items.jsonl").open("rb"))
                    # Scrapy does not dedupe start requests: it fetches the index once more when a page links to it.
                    assert found["pages"] == 21_001 + (name == "scrapy"), (name, found)
                    assert items == 20_000, (name, items)
                    rates[name].append(found["pages"] / found["elapsed_s"])
                    print(name, json.dumps(found), flush=True)
    medians = {name: median(values) for name, values in rates.items()}
    for name, value in medians.items():
        ratios = "  ".join(f"{value / other:.2f} x {each}" for each, other in medians.items() if each != name)
        print(f"{name:<8} {value:>7,.0f} pages/s   {ratios}")


def _framework(start: str, work: Path, frontier: str) -> dict[str, float]:
    command = [sys.executable, "-m", "scraper", "run", str(_HERE / "shop.py"), "-q", "-a", f"start={start}"]
    command += ["-O", str(work / "items.jsonl"), "--frontier", frontier, "--stats", str(work / "stats.json")]
    command += [part for each in _SETTINGS for part in ("-s", each)]
    subprocess.run(_on_first_core(command), check=True, cwd=work)
    stats = json.loads((work / "stats.json").read_text())
    return {name: stats[name] for name in ("pages", "elapsed_s", "pages_per_s", "peak_rss_mb", "filtered")}


def _script(command: list[str], work: Path) -> dict[str, float]:
    done = subprocess.run(
        _on_first_core([*command, str(work / "items.jsonl")]), check=True, stdout=subprocess.PIPE, cwd=work
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _on_first_core(command: list[str]) -> list[str]:
    return ["taskset", "-c", "0", *command] if shutil.which("taskset") else command


if __name__ == "__main__":
    main()
