"""A crawl is killed at every boundary of every commit, one after the other, and resumed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from .site import PATIENCE_S, Folder, Site, difference, environment

FAILING = Path(__file__).with_name("failing.py")
KINDS = (
    "before a flush",
    "after half of a flush",
    "after a flush",
    "before a commit",
    "after a batch",
    "before COMMIT",
    "after COMMIT",
    "closing an output",
    "closing the frontier",
)


class Forks:
    """A process that runs ``scrape`` in forks of itself, each killed at one boundary."""

    def __init__(self, folder: Folder) -> None:
        self.errors = (folder.root / "errors.txt").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(FAILING)],
            cwd=folder.root,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
        )

    def run(self, *argv: str, kind: str = "", at: int = 0) -> int:
        """Run it to its end or its death; return the exit status, or minus the signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode({"argv": argv, "kind": kind, "at": at}) + b"\n")
        self._process.stdin.flush()
        is_over, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        assert is_over, f"a run does not end, {kind} {at}: {self.said()}"
        return int(self._process.stdout.readline())

    def said(self) -> str:
        """What the runs wrote to standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def close(self) -> None:
        """End the process, and with it a run that hangs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        self.errors.close()


@pytest.fixture(scope="module")
def little_site() -> Iterator[Site]:
    """A site of some fifty pages."""
    with Site(pages=30) as site:
        yield site


@pytest.fixture(scope="module")
def little(little_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A project for it, with small commits, so that there are several."""
    folder = Folder(tmp_path_factory.mktemp("little"), little_site)
    folder.write("settings.toml", "[crawl]\nconcurrency = 12\n")
    return folder


@pytest.fixture(scope="module")
def forks(little: Folder) -> Iterator[Forks]:
    """The process that forks."""
    made = Forks(little)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole_lines(little: Folder, forks: Forks) -> Counter[bytes]:
    """The lines of a run that nobody kills."""
    assert forks.run(*arguments(little), "-O", "whole.jsonl") == 0, forks.said()
    return little.lines("whole.jsonl")


def arguments(folder: Folder) -> list[str]:
    """A run of the shop that begins at its lists, without its late and flaky pages."""
    return ["run", "shop", "-a", f"base={folder.site.url('/list/0')}", "-q"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_boundary(little: Folder, forks: Forks, whole_lines: Counter[bytes], kind: str) -> None:
    """Nothing is lost or doubled, whichever boundary the process dies at."""
    run = arguments(little)
    for at in range(1, 1000):
        (little.root / "out.jsonl").unlink(missing_ok=True)
        status = forks.run(*run, "-o", "out.jsonl", kind=kind, at=at)
        if status == 0:
            break
        assert status == -9, forks.said()
        assert forks.run(*run, "--resume") == 0, f"{kind} {at}: {forks.said()}"
        lines = little.lines("out.jsonl")
        assert lines == whole_lines, f"{kind} {at}: {difference(lines, whole_lines)}"
    assert at > (1 if kind.startswith("closing") else 3), f"only {at - 1} boundaries of the kind: {kind}"


@pytest.mark.parametrize("kind", ["after half of a flush", "before COMMIT", "after COMMIT"])
def test_again_and_again(little: Folder, forks: Forks, whole_lines: Counter[bytes], kind: str) -> None:
    """A crawl that gets no further than its third such boundary, process after process, still comes to its end."""
    (little.root / "out.jsonl").unlink(missing_ok=True)
    run, resume, deaths = arguments(little), [], 0
    while (status := forks.run(*run, *resume, "-o", "out.jsonl", kind=kind, at=3)) != 0:
        assert status == -9, forks.said()
        resume, deaths = ["--resume"], deaths + 1
        assert deaths < 60, "no progress"
    lines = little.lines("out.jsonl")
    assert lines == whole_lines, f"{kind}: {difference(lines, whole_lines)}"
    assert deaths > 1
