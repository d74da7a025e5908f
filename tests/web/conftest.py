"""What the tests of the web's faults share: the watched crawl, and other people's servers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

SCRAPY = "2.19.0"
MAX_STALL_S = 0.1
Watch = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def watched(empty_folder: Path) -> Watch:
    """Crawl one URL in a process of its own; return what ``watched.py`` prints.

    The least stall of up to three runs tells what the page costs: the rest is what else the machine does.
    """

    async def run(command: list[str]) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        found: dict[str, Any] = json.loads(out)
        return found

    async def watch(url: str, *arguments: str) -> dict[str, Any]:
        command = [sys.executable, str(Path(__file__).with_name("watched.py")), url, *arguments]
        runs = [await run(command)]
        while runs[-1]["stall_s"] > MAX_STALL_S and len(runs) < 3:
            runs.append(await run(command))
        return min(runs, key=lambda found: found["stall_s"])

    return watch


@pytest.fixture(scope="session")
def scrapy_source(pytestconfig: pytest.Config) -> Path:
    """Scrapy's source distribution, unpacked: its mock server and its bombs. Kept in pytest's cache."""
    cache = Path(pytestconfig.cache.mkdir("scrapy-sdist"))
    source = cache / f"scrapy-{SCRAPY}"
    if not source.is_dir():
        archive = cache / f"scrapy-{SCRAPY}.tar.gz"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "scrapy",
            "-d",
            str(cache),
        ]
        done = subprocess.run([*command, f"scrapy=={SCRAPY}"], capture_output=True, text=True, timeout=60)
        if done.returncode or not archive.is_file():
            if os.environ.get("CI") == "true":
                pytest.fail(f"Scrapy's sdist could not be had: {done.stderr}")
            pytest.skip(f"Scrapy's sdist cannot be had here: {done.stderr.strip()[-200:]}")
        with tarfile.open(archive) as packed:
            packed.extractall(cache, filter="data")
    return source
