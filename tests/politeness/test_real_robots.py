"""The 4,231 real robots.txt files that protego's source distribution brings for its tests; nothing of them is kept here."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path
from time import process_time

import pytest

from scraper import Request, Response
from scraper.politeness.robots import MAX_CRAWL_DELAY_S, Robots

PINNED = "0.7.0"
COUNT = 4231
MAX_LOAD_S = 0.05


@pytest.fixture(scope="session")
def files(request: pytest.FixtureRequest) -> list[bytes]:
    """Fetch the files into pytest's cache, once."""
    folder = request.config.cache.mkdir("protego")  # type: ignore[union-attr]
    archive = Path(folder) / f"protego-{PINNED}.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "protego"]
        done = subprocess.run(
            [*command, "-d", str(folder), f"protego=={PINNED}"], capture_output=True, text=True, check=False
        )
        if not archive.exists():
            reason = f"protego's source distribution cannot be had: {done.stderr.strip()[-200:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
    with tarfile.open(archive) as tar:
        members = [each for each in tar if "/tests/test_data/" in each.name and each.isfile()]
        return [found.read() for each in members if (found := tar.extractfile(each)) is not None]


def test_real_files_load(files: list[bytes]) -> None:
    """Each gives rules, in 50 ms at most, and a URL can be judged by them."""
    assert len(files) == COUNT
    url = "http://a/robots.txt"
    slow = []
    for body in files:
        robots = Robots("scraper/1.0")
        response = Response(url, request=Request(url), body=body)
        took_s = []
        for _ in range(3):  # the machine has other things to do: the quickest of three tells the cost
            tracing = sys.gettrace()
            sys.settrace(None)  # coverage takes as long again
            began = process_time()
            rules = robots.learn("http://a", response)
            took_s.append(process_time() - began)
            sys.settrace(tracing)
            if took_s[-1] <= MAX_LOAD_S:
                break
        assert rules.allow("http://a/some/page?x=1") in (True, False)
        assert 0.0 <= rules.crawl_delay_s <= MAX_CRAWL_DELAY_S
        if min(took_s) > MAX_LOAD_S:
            slow.append((len(body), min(took_s)))
    assert slow == []
