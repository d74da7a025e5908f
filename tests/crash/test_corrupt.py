"""State that is damaged, of another version or gone, and outputs that were changed since: told in one line, or mended."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import struct
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from scraper.frontiers.store import Store

from .conftest import Whole, Wholes
from .site import Folder, Forks, Site, difference


class Kept:
    """A project with a run that was stopped, and a copy of it: each test gets it as it was, in the same place."""

    def __init__(self, folder: Folder, number: int) -> None:
        self._folder = folder
        self._copy = folder.root.with_name("copy")
        folder.site.forget()
        done = folder.struck(70, *folder.arguments("shop", "-o", "out.jsonl"), number=number)
        assert done.status in (-9, 130), done.err
        assert (folder.root / "out.jsonl").stat().st_size > 1000
        shutil.copytree(folder.root, self._copy)

    def restored(self) -> Folder:
        """The project as it was left."""
        shutil.rmtree(self._folder.root)
        shutil.copytree(self._copy, self._folder.root)
        return self._folder


@pytest.fixture(scope="module")
def kept_killed(whole_site: Site, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A killed run."""
    return Kept(Folder(tmp_path_factory.mktemp("killed") / "project", whole_site, forks), signal.SIGKILL)


@pytest.fixture(scope="module")
def kept_interrupted(whole_site: Site, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """An interrupted run."""
    return Kept(Folder(tmp_path_factory.mktemp("interrupted") / "project", whole_site, forks), signal.SIGINT)


@pytest.fixture
def killed(kept_killed: Kept, site: Site) -> Folder:
    """A project with a killed run, whose output has some lines."""
    return kept_killed.restored()


@pytest.fixture
def interrupted(kept_interrupted: Kept, site: Site) -> Folder:
    """A project with an interrupted run: all of its state is in one file."""
    folder = kept_interrupted.restored()
    assert not (folder.job() / "frontier.db-wal").exists()
    return folder


def refused(folder: Folder, *named: str) -> None:
    """Check that a resume is refused with one line that names the file, and that it changed nothing."""
    before = (folder.root / "out.jsonl").read_bytes() if (folder.root / "out.jsonl").exists() else None
    done = folder.scrape(*folder.arguments("shop", "--resume"))
    assert done.status == 2, done.err
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    for name in named:
        assert name in lines[0]
    assert not folder.site.asked
    after = (folder.root / "out.jsonl").read_bytes() if (folder.root / "out.jsonl").exists() else None
    assert after == before
    listed = folder.scrape("jobs")
    assert listed.status == 0
    assert "shop/" in listed.out


def exact(folder: Folder, whole: Whole) -> None:
    """Check that a resume gives what an uninterrupted run gives."""
    done = folder.scrape(*folder.arguments("shop", "--resume"))
    assert done.status == 0, done.err
    lines = folder.lines("out.jsonl")
    assert lines == whole.lines, difference(lines, whole.lines)


@pytest.mark.parametrize("size", [0, 5000, 20_000])
def test_state_cut(interrupted: Folder, size: int) -> None:
    """A state file that was cut, or emptied, is refused."""
    state = interrupted.job() / "frontier.db"
    with state.open("r+b") as file:
        file.truncate(size)
    refused(interrupted, "frontier.db")


def test_state_emptied_after_kill(killed: Folder) -> None:
    """The same of a killed run, whose last commits are in the log beside it."""
    with (killed.job() / "frontier.db").open("r+b") as file:
        file.truncate(0)
    refused(killed, "frontier.db")


def test_state_is_garbage(interrupted: Folder) -> None:
    """A state file that is something else is refused."""
    (interrupted.job() / "frontier.db").write_bytes(random.Random(5).randbytes(50_000))
    refused(interrupted, "frontier.db")


def test_state_gone(killed: Folder) -> None:
    """A run whose state file is gone cannot go on, and does not begin anew behind its old output."""
    for file in killed.job().glob("frontier.db*"):
        file.unlink()
    refused(killed, "frontier.db")


def test_newer_state(interrupted: Folder) -> None:
    """State of a newer format is refused with both versions named."""
    with sqlite3.connect(interrupted.job() / "frontier.db") as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    refused(interrupted, "frontier.db", "format 9", "format 3")


@pytest.mark.parametrize("version", [1, 2])
def test_older_state(interrupted: Folder, whole: Wholes, version: int) -> None:
    """A run that a version before began, which wrote a row for all that came or took out all that ended, goes on."""
    with sqlite3.connect(interrupted.job() / "frontier.db") as db:
        keys = [key for (blob,) in db.execute("SELECT keys FROM ended") for key in struct.iter_unpack("<3q", blob)]
        come = [
            (generation, row)
            for generation, blob in db.execute("SELECT generation, requests FROM come")
            for row in msgspec.msgpack.decode(blob)
        ]
        fresh = [
            (generation, blob[at : at + 16])
            for generation, blob in db.execute("SELECT generation, marks FROM fresh")
            for at in range(0, len(blob), 16)
        ]
        assert keys
        assert come
        db.executemany("INSERT INTO pending VALUES (?,?,?,?)", [row[:4] for _, row in come])
        db.execute("DROP TABLE come")
        db.execute("DROP TABLE fresh")
        db.execute("CREATE TABLE fresh (generation INTEGER NOT NULL, mark BLOB NOT NULL)")
        fresh += [(generation, row[4]) for generation, row in come if row[4]]
        db.executemany("INSERT INTO fresh VALUES (?,?)", fresh)
        if version == 1:
            db.executemany("DELETE FROM pending WHERE host=? AND rank=? AND serial=?", keys)
            db.execute("DROP TABLE ended")
        db.execute(f"PRAGMA user_version={version}")
    db.close()
    exact(interrupted, whole())


@pytest.mark.parametrize("seed", range(4))
def test_flipped_page(interrupted: Folder, whole: Wholes, seed: int) -> None:
    """A state file with a damaged page ends the run with an error that names it, at once or when the page is read."""
    state = interrupted.job() / "frontier.db"
    data = bytearray(state.read_bytes())
    rng = random.Random(seed)
    page = rng.randrange(1, len(data) // 4096) * 4096
    data[page : page + 4096] = rng.randbytes(4096)
    state.write_bytes(data)
    done = interrupted.scrape(*interrupted.arguments("shop", "--resume"))
    if done.status == 0:  # the page held nothing that is read again
        assert interrupted.lines("out.jsonl") == whole().lines, f"seed {seed}"
        return
    assert done.status in (1, 2), f"seed {seed}: {done.err}"
    assert len(done.err.splitlines()) == 1, f"seed {seed}: {done.err}"
    assert "frontier.db" in done.err


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE pending SET request=x'c1'",
        "UPDATE come SET requests=x'c1'",
        "UPDATE come SET requests=x'91c0'",
        "UPDATE ended SET keys=x'c1'",
        "UPDATE pending SET request=x'90'",
        "INSERT INTO delayed VALUES (999999, 0, 0.0, 1.0, x'c1')",
        "UPDATE meta SET value=x'c1'",
        "UPDATE meta SET value=x'01' WHERE key='counts'",
        "DROP TABLE delayed",
    ],
)
def test_damaged_values(interrupted: Folder, damage: str) -> None:
    """Values that cannot be decoded end the run with an error that names the file."""
    if "pending" in damage:  # what came is put there when the file is opened
        store = Store(interrupted.job() / "frontier.db")
        store.open()
        store.close()
    with sqlite3.connect(interrupted.job() / "frontier.db") as db:
        assert db.execute(damage).rowcount
    db.close()
    done = interrupted.scrape(*interrupted.arguments("shop", "--resume"))
    assert done.status in (1, 2), done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert "frontier.db" in done.err


@pytest.mark.parametrize("text", ["", "[]", '{"spider": "shop", "began": "x", "format": 7}'], ids=range(3))
def test_damaged_job(killed: Folder, text: str) -> None:
    """A damaged job.json, or one of a newer format, is refused."""
    (killed.job() / "job.json").write_text(text)
    refused(killed, "job.json")


def test_damaged_job_does_not_hide_others(killed: Folder, whole: Wholes) -> None:
    """One damaged job.json stands in the way of nothing else: a new run begins, and others are listed and removed."""
    (killed.job() / "job.json").write_text("{")
    broken = killed.job()
    assert killed.scrape(*killed.arguments("lazy", "-o", "lazy.jsonl")).status == 0
    assert killed.scrape(*killed.arguments("shop", "-O", "out.jsonl")).status == 0
    assert killed.lines("out.jsonl") == whole().lines
    listed = killed.scrape("jobs")
    assert "lazy/" in listed.out
    removed = killed.scrape("jobs", "remove", str(broken))
    assert removed.status == 0, removed.err
    assert not broken.exists()


def test_output_shorter(killed: Folder, whole: Wholes) -> None:
    """An output that is shorter than what was committed is refused; put back, the run goes on exactly."""
    output = killed.root / "out.jsonl"
    data = output.read_bytes()
    output.write_bytes(data[: len(data) // 3])
    refused(killed, "out.jsonl")
    output.write_bytes(data)
    exact(killed, whole())


def test_output_removed(killed: Folder) -> None:
    """The same for one that was removed; none is left in its place."""
    (killed.root / "out.jsonl").unlink()
    refused(killed, "out.jsonl")
    assert not (killed.root / "out.jsonl").exists()


def test_output_replaced(killed: Folder) -> None:
    """An output that is another file by now, though long enough, is refused rather than cut in the middle of a line."""
    (killed.root / "out.jsonl").write_bytes(b"x" * 500_000 + b"\n")
    refused(killed, "out.jsonl")


@pytest.mark.parametrize("tail", [b'{"url": "half a l', b"\x00" * 5000])
def test_garbage_behind(killed: Folder, whole: Wholes, tail: bytes) -> None:
    """A torn end of the output is cut off."""
    with (killed.root / "out.jsonl").open("ab") as file:
        file.write(tail)
    exact(killed, whole())


def test_whole_lines_behind(killed: Folder, whole: Wholes) -> None:
    """They are somebody else's, and stay; behind what is not committed of the run's own, it is refused with one line."""
    path, line = killed.root / "out.jsonl", b'{"url":"a whole line"}\n'
    with path.open("ab") as file:
        file.write(line)
    before = path.read_bytes()
    done = killed.scrape(*killed.arguments("shop", "--resume"))
    if done.status == 2:
        assert "was not (all) written by this run" in done.err
        assert path.read_bytes() == before
        path.write_bytes(before.removesuffix(line))
        exact(killed, whole())
    else:
        assert done.status == 0, done.err
        assert killed.lines("out.jsonl") == whole().lines + Counter([line])


def test_state_moved(killed: Folder, whole: Wholes) -> None:
    """A job's folder that was copied elsewhere goes on from there."""
    shutil.copytree(killed.job(), killed.root / "copy")
    done = killed.scrape(*killed.arguments("shop", "--job", str(Path("copy"))))
    assert done.status == 0, done.err
    assert killed.lines("out.jsonl") == whole().lines
