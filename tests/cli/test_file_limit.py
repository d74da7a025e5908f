"""The limit of open files: raised to the hard one at the start of a run, and where that is too low, fewer requests."""

from __future__ import annotations

import resource
import subprocess
from functools import partial

from .conftest import PATIENCE_S, SCRAPE, Project, Site, page

WIDE = ("-s", "crawl.concurrency=1000", "-s", "politeness.concurrency_per_host=1000")


def crawl(project: Project, site: Site, soft: int, hard: int, in_flight: int) -> str:
    """Crawl 200 held pages with so many files allowed, let go once ``in_flight`` are asked for; return what was said."""
    held = [f"/held/{number}" for number in range(200)]
    site.pages |= {"/": page("Home", held), "*": page("Held")}
    project.spider("wide", site.url())
    process = subprocess.Popen(
        [*SCRAPE, "run", "wide", "-O", "wide.jsonl", "--log-level", "warning", *WIDE],
        cwd=project.root,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard)),
    )
    site.wait_until(lambda: site.held == in_flight)
    site.let_go()
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said
    assert len(project.items("wide.jsonl")) == 201
    return said


def test_a_low_hard_limit_lowers_the_concurrency(project: Project, site: Site) -> None:
    """With 150 files a run that asks for 1,000 requests at once has 40, says so in one line, and fetches every page."""
    said = crawl(project, site, 150, 150, in_flight=40)
    lines = [line for line in said.splitlines() if "warning" in line]
    assert len(lines) == 1, said
    assert "crawl.concurrency lowered to 40" in lines[0]
    assert "150 open files (ulimit -Hn)" in lines[0]


def test_a_low_soft_limit_is_raised(project: Project, site: Site) -> None:
    """Where only the soft limit is low it is raised without a word, and all pages are asked for at once."""
    assert "lowered" not in crawl(project, site, 150, 2000, in_flight=200)
