"""A crawl is killed at every boundary of every commit, one after the other, and resumed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from .site import Folder, Forks, Site, difference

KINDS = (
    "before a flush",
    "after a note",
    "after half of a flush",
    "after a flush",
    "before a commit",
    "after a batch",
    "before COMMIT",
    "after COMMIT",
    "closing an output",
    "closing the frontier",
)


@pytest.fixture(scope="module")
def little_site() -> Iterator[Site]:
    """A site of some fifty pages."""
    with Site(pages=30) as site:
        yield site


@pytest.fixture(scope="module")
def little(little_site: Site, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A project for it, with small commits, so that there are several."""
    folder = Folder(tmp_path_factory.mktemp("little"), little_site, forks)
    folder.write("settings.toml", "[crawl]\nconcurrency = 12\n")
    return folder


@pytest.fixture(scope="module")
def whole_lines(little: Folder) -> Counter[bytes]:
    """The lines of a run that nobody kills."""
    done = little.scrape(*arguments(little), "-O", "whole.jsonl")
    assert done.status == 0, done.err
    return little.lines("whole.jsonl")


def arguments(folder: Folder) -> list[str]:
    """A run of the shop that begins at its lists, without its late and flaky pages."""
    return ["run", "shop", "-a", f"base={folder.site.url('/list/0')}", "-q"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_boundary(little: Folder, whole_lines: Counter[bytes], kind: str) -> None:
    """Nothing is lost or doubled, whichever boundary the process dies at."""
    run = arguments(little)
    for at in range(1, 1000):
        (little.root / "out.jsonl").unlink(missing_ok=True)
        done = little.scrape(*run, "-o", "out.jsonl", kind=kind, at=at)
        if done.status == 0:
            break
        assert done.status == -9, done.err
        done = little.scrape(*run, "--resume")
        assert done.status == 0, f"{kind} {at}: {done.err}"
        lines = little.lines("out.jsonl")
        assert lines == whole_lines, f"{kind} {at}: {difference(lines, whole_lines)}"
    assert at > (1 if kind.startswith("closing") else 3), f"only {at - 1} boundaries of the kind: {kind}"


@pytest.mark.parametrize("kind", ["after half of a flush", "before COMMIT", "after COMMIT"])
def test_again_and_again(little: Folder, whole_lines: Counter[bytes], kind: str) -> None:
    """A crawl that gets no further than its third such boundary, process after process, still comes to its end."""
    (little.root / "out.jsonl").unlink(missing_ok=True)
    run, resume, deaths = arguments(little), [], 0
    while (done := little.scrape(*run, *resume, "-o", "out.jsonl", kind=kind, at=3)).status != 0:
        assert done.status == -9, done.err
        resume, deaths = ["--resume"], deaths + 1
        assert deaths < 60, "no progress"
    lines = little.lines("out.jsonl")
    assert lines == whole_lines, f"{kind}: {difference(lines, whole_lines)}"
    assert deaths > 1


@pytest.mark.parametrize("kind", ["before a flush", "after a note", "after COMMIT", "closing an output"])
def test_another_run_writes_behind_the_dead(little: Folder, whole_lines: Counter[bytes], kind: str) -> None:
    """Where all that a killed run had written is committed, what another one appended stays when it goes on."""
    (little.root / "out.jsonl").unlink(missing_ok=True)
    run = arguments(little)
    assert little.scrape(*run, "-o", "out.jsonl", kind=kind, at=1 if kind.startswith("closing") else 3).status == -9
    # Of another host, for one and the same block, noted here and written there, would be taken for this run's.
    other = [each.replace("127.0.0.1", "127.0.0.2") for each in run]
    assert little.scrape(*other, "-o", "out.jsonl", "--job", "another").status == 0
    done = little.scrape(*run, "--resume")
    assert done.status == 0, done.err
    lines = little.lines("out.jsonl")
    usual = whole_lines + Counter(
        {line.replace(b"127.0.0.1", b"127.0.0.2"): number for line, number in whole_lines.items()}
    )
    assert lines == usual, difference(lines, usual)


@pytest.mark.parametrize("kind", ["after half of a flush", "after a flush", "before COMMIT"])
def test_another_run_writes_behind_what_is_not_committed(
    little: Folder, whole_lines: Counter[bytes], kind: str
) -> None:
    """Where it is not, the file cannot be put right: one line says what to move away, and then the run goes on exactly."""
    path = little.root / "out.jsonl"
    path.unlink(missing_ok=True)
    run = arguments(little)
    assert little.scrape(*run, "-o", "out.jsonl", kind=kind, at=3).status == -9
    assert little.scrape(*run, "-o", "out.jsonl", "--job", "another").status == 0
    written = path.read_bytes()
    done = little.scrape(*run, "--resume")
    assert (done.status, len(done.err.splitlines()), path.read_bytes()) == (2, 1, written), done.err
    found = re.search(r"out\.jsonl holds behind byte ([0-9,]+) was not \(all\) written by this run: move it", done.err)
    assert found is not None, done.err
    path.write_bytes(written[: int(found[1].replace(",", ""))])
    done = little.scrape(*run, "--resume")
    assert done.status == 0, done.err
    assert little.lines("out.jsonl") == whole_lines, difference(little.lines("out.jsonl"), whole_lines)
