"""One run of one subject: a process pinned to the crawler's core, and what it took."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.sites import pinned

SUBJECTS = Path(__file__).parent / "subjects"
ROOT = Path(__file__).parent.parent


@dataclass(slots=True)
class Run:
    """What one run took. ``elapsed_s`` is the crawl by its own clock, ``wall_s`` and ``cpu_s`` are of the whole process."""

    pages: int
    items: int
    elapsed_s: float
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def pages_per_s(self) -> float:
        """Pages a second of the crawl."""
        return self.pages / self.elapsed_s

    @property
    def cpu_us_per_page(self) -> float:
        """Microseconds of processor time a page, user and system, the process's start included."""
        return 1e6 * self.cpu_s / max(1, self.pages)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where runs take place: their folder, the crawler's and the server's cores, and a Python that has Scrapy."""

    work: Path
    crawler_cpu: int | None
    server_cpu: int | None
    scrapy: str | None

    def framework(
        self,
        spider: str,
        site: str,
        pages: int,
        concurrency: int,
        frontier: str,
        env: Mapping[str, str],
        shards: int = 1,
        by: str = "url",
    ) -> Run:
        """Run a spider by ``scrape run``, as a user would: robots.txt and all limits on, "adaptive" off."""
        source = (SUBJECTS / "framework" / f"{spider}.py").read_text(encoding="utf-8")
        command = [sys.executable, str(SUBJECTS / "with_all.py")] if shards > 1 else []
        command += [sys.executable, "-m", "scraper", "run", str(SUBJECTS / "framework" / f"{spider}.py"), "-q"]
        command += ["-a", f"site={site}", *(["-a", f"pages={pages}"] if "pages: int" in source else [])]
        command += ["-s", f"crawl.concurrency={concurrency}", "-s", f"politeness.concurrency_per_host={concurrency}"]
        command += ["-s", "politeness.adaptive=false", "--frontier", frontier]
        command += ["-O", "items.jsonl", "--stats", "stats.json"]
        command += ["--shards", str(shards), "-s", f"shards.by={by}"] if shards > 1 else []
        command += ["-s", "download.private_addresses=always"] if by == "host" else []  # the site is on many of them
        run, _ = self.process(command, env)
        stats = json.loads((self.work / "stats.json").read_text())
        run.pages, run.elapsed_s = stats["pages"], stats["elapsed_s"]
        assert not stats["errors"], stats
        shutil.rmtree(self.work / ".scrape", ignore_errors=True)
        return run

    def by_hand(self, spider: str, site: str, pages: int, concurrency: int, env: Mapping[str, str]) -> Run:
        """Run the hand-written loop."""
        command = [sys.executable, str(SUBJECTS / "by_hand.py"), spider, site, str(pages), "items.jsonl"]
        return self._reporting([*command, str(concurrency)], env)

    def by_scrapy(self, spider: str, site: str, pages: int, concurrency: int, env: Mapping[str, str]) -> Run:
        """Run Scrapy."""
        assert self.scrapy is not None
        path = SUBJECTS / "for_scrapy" / f"{spider}.py"
        command = [self.scrapy, str(SUBJECTS / "run_scrapy.py"), str(path), site, str(pages), "items.jsonl"]
        return self._reporting([*command, str(concurrency)], env)

    def process(self, command: list[str], env: Mapping[str, str] | None = None) -> tuple[Run, bytes]:
        """Run any command to its end; return what it took and what it printed. Exits where it fails."""
        items, printed = self.work / "items.jsonl", self.work / "printed"
        items.unlink(missing_ok=True)
        with printed.open("wb") as output, pinned(self.crawler_cpu):
            began = time.perf_counter()
            process = subprocess.Popen(command, stdout=output, cwd=self.work, env={**os.environ, **(env or {})})
            _, status, usage = os.wait4(process.pid, 0)
            wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"exit status {process.returncode}: {' '.join(command)}")
        unit = 1 if sys.platform == "darwin" else 1024
        count = sum(1 for _ in items.open("rb")) if items.exists() else 0
        cpu_s = usage.ru_utime + usage.ru_stime
        return Run(0, count, wall_s, wall_s, cpu_s, usage.ru_maxrss * unit / 1e6), printed.read_bytes()

    def _reporting(self, command: list[str], env: Mapping[str, str]) -> Run:
        run, printed = self.process(command, env)
        found = json.loads(printed.splitlines()[-1])
        run.pages, run.elapsed_s = found.pop("pages"), found.pop("elapsed_s")
        run.notes = found
        return run


def find_scrapy(given: str | None) -> str:
    """Return a Python that has Scrapy: the one given, or of an environment in the cache folder, made where it is missing."""
    if given is not None:
        program = shutil.which(given)
        if not program or subprocess.run([program, "-c", "import scrapy"], capture_output=True, check=False).returncode:
            raise SystemExit(f"--scrapy {given}: this Python has no Scrapy")
        return program
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scraper-benchmarks" / "scrapy"
    python = cache / "bin" / "python"
    if (
        not python.exists()
        or subprocess.run([python, "-c", "import scrapy"], capture_output=True, check=False).returncode
    ):
        print(f"installing Scrapy in {cache} (delete the folder to have a newer one)", flush=True)
        steps = (
            [sys.executable, "-m", "venv", "--clear", str(cache)],
            [str(python), "-m", "pip", "install", "-q", "--upgrade", "scrapy"],
        )
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                shutil.rmtree(cache, ignore_errors=True)
                last = (done.stderr.strip() or "no message").splitlines()[-1]
                raise SystemExit(f"Scrapy cannot be installed ({last}); name a Python by --scrapy, or --without scrapy")
    return str(python)
