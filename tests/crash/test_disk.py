"""Disks that are full, folders that are read-only or gone: the run stops, names the file, and can be resumed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import Wholes
from .site import Done, Folder, difference

STOPS_WITHIN_S = 5.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", path], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting is not permitted: {done.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def remount(path: Path, options: str) -> None:
    """Change a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)


@pytest.fixture
def wordy(folder: Folder, whole: Wholes) -> Folder:
    """A project with a spider that writes more than a small disk holds, and the lines it should write."""
    (folder.root / "whole.jsonl").write_bytes(b"".join(whole("wordy").lines.elements()))
    return folder


def stopped(done: Done, name: str) -> None:
    """Check that a run ended in time, as broken, with one error that names the file."""
    assert done.status == 1, done.err
    assert done.took_s < STOPS_WITHIN_S
    assert "Traceback" not in done.err, done.err
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert name in lines[0], done.err


def resumed(folder: Folder, output: str, *options: str) -> None:
    """Resume a run of the wordy spider, and compare it with a whole one."""
    done = folder.scrape(*folder.arguments("wordy", "--resume", "--stats", "stats.json", *options))
    assert done.status == 0, done.err
    stats, lines, usual = folder.stats(), folder.lines(output), folder.lines("whole.jsonl")
    assert (stats["reason"], stats["pending"]) == ("finished", 0)
    assert lines == usual, difference(lines, usual)


def test_output_too_long(wordy: Folder) -> None:
    """An output that may not grow any more (RLIMIT_FSIZE) ends the run; with the limit gone it is resumed exactly."""
    done = wordy.scrape(*wordy.arguments("wordy", "-o", "out.jsonl", "--stats", "stats.json"), max_file=1_000_000)
    stopped(done, "out.jsonl")
    assert wordy.stats()["reason"] == "output"
    wordy.lines("out.jsonl")  # none is broken
    resumed(wordy, "out.jsonl")


def test_output_of_shards_too_long(wordy: Folder) -> None:
    """The same with shards, whose parts come to the limit, too: with it gone nothing is broken any more."""
    done = wordy.scrape(*wordy.arguments("wordy", "-o", "out.jsonl", "--shards", "2"), max_file=400_000)
    assert done.status == 1, done.err
    assert "File too large" in done.err
    resumed(wordy, "out.jsonl")


def test_output_disk_full(wordy: Folder, small_disk: Path) -> None:
    """A disk without room for the output ends the run; with room it is resumed exactly."""
    output = str(small_disk / "out.jsonl")
    done = wordy.scrape(*wordy.arguments("wordy", "-o", output, "--stats", "stats.json"))
    stopped(done, output)
    wordy.lines(output)
    again = wordy.scrape(*wordy.arguments("wordy", "--resume"))
    stopped(again, output)
    remount(small_disk, "size=8m")
    resumed(wordy, output)


def test_one_of_two_outputs_full(wordy: Folder, small_disk: Path) -> None:
    """Where one of two outputs has no room, both are resumed exactly."""
    full = str(small_disk / "out.jsonl")
    stopped(wordy.scrape(*wordy.arguments("wordy", "-o", "other.jsonl", "-o", full)), full)
    remount(small_disk, "size=8m")
    resumed(wordy, full)
    assert wordy.lines("other.jsonl") == wordy.lines("whole.jsonl")


def test_state_disk_full(wordy: Folder, small_disk: Path) -> None:
    """A disk without room for the state ends the run, in the middle or at its start; with room it is resumed exactly."""
    job = small_disk / "job"
    filler = small_disk / "filler"
    arguments = wordy.arguments("wordy", "-o", "out.jsonl", "--job", str(job))
    filler.write_bytes(b"x" * 250_000)
    done = wordy.scrape(*arguments, "-s", "crawl.concurrency=8")
    stopped(done, str(job))
    again = wordy.scrape(*arguments)
    assert again.status in (1, 2), again.err
    assert len(again.err.splitlines()) == 1, again.err
    assert str(job) in again.err
    filler.unlink()
    remount(small_disk, "size=8m")
    resumed(wordy, "out.jsonl", "--job", str(job))


def test_state_too_long(folder: Folder, whole: Wholes) -> None:
    """The same where the state may not grow any more (RLIMIT_FSIZE)."""
    options = ("-o", "out.jsonl", "-s", "crawl.concurrency=8")
    stopped(folder.scrape(*folder.arguments("shop", *options), max_file=100_000), "frontier.db")
    assert folder.scrape(*folder.arguments("shop", "--resume")).status == 0
    lines, usual = folder.lines("out.jsonl"), whole().lines
    assert lines == usual, difference(lines, usual)


def test_no_room_to_begin(wordy: Folder, small_disk: Path) -> None:
    """Where there is no room for the state at all, nothing is fetched: status 2, one line that names the folder."""
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    done = wordy.scrape(*wordy.arguments("wordy", "-o", "out.jsonl", "--job", str(small_disk / "job")))
    assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
    assert str(small_disk) in done.err
    assert not wordy.site.asked


def test_read_only_state(wordy: Folder, small_disk: Path) -> None:
    """A state folder that is read-only is told at once, for a new run and for a resumed one."""
    job = small_disk / "job"
    arguments = wordy.arguments("shop", "-o", "out.jsonl", "--job", str(job))
    assert wordy.struck(60, *arguments).status == -9
    asked = len(wordy.site.asked)
    remount(small_disk, "ro")
    for each in (arguments, wordy.arguments("shop", "-o", "x.jsonl", "--job", str(small_disk / "other"))):
        done = wordy.scrape(*each)
        assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
        assert str(small_disk) in done.err
    assert len(wordy.site.asked) == asked
    remount(small_disk, "rw,size=8m")
    assert wordy.scrape(*arguments).status == 0


def test_read_only_output(wordy: Folder, small_disk: Path) -> None:
    """An output on a read-only disk is told before the first request."""
    remount(small_disk, "ro")
    done = wordy.scrape(*wordy.arguments("wordy", "-o", str(small_disk / "out.jsonl")))
    assert (done.status, len(done.err.splitlines())) == (2, 1), done.err
    assert "out.jsonl" in done.err
    assert not wordy.site.asked


def test_stats_cannot_be_written(wordy: Folder) -> None:
    """A summary that finds no room is one line and status 1; the crawl itself is whole."""
    done = wordy.scrape(*wordy.arguments("wordy", "-o", "out.jsonl", "--stats", "/dev/full"))
    stopped(done, "/dev/full")
    assert wordy.lines("out.jsonl") == wordy.lines("whole.jsonl")


def test_job_folder_deleted(wordy: Folder) -> None:
    """A run whose folder is deleted under it says so, and is broken: it could not have been resumed."""
    process = wordy.start(*wordy.arguments("wordy", "-o", "out.jsonl", "-s", "politeness.delay=0.01"))
    wordy.site.wait_until(lambda: len(wordy.site.asked) > 40)
    shutil.rmtree(wordy.root / ".scrape")
    done = wordy.end(process)
    assert done.status == 1, done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert ".scrape" in done.err


def test_output_deleted(wordy: Folder) -> None:
    """An output that is deleted under a run ends it: what it would write from there on nobody could find."""
    process = wordy.start(*wordy.arguments("wordy", "-o", "out.jsonl", "-s", "politeness.delay=0.01"))
    wordy.site.wait_until(lambda: len(wordy.site.asked) > 40)
    (wordy.root / "out.jsonl").unlink()
    done = wordy.end(process)
    assert done.status == 1, done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert "out.jsonl: it was deleted" in done.err
    assert len(wordy.site.asked) < 120


def test_no_room_for_a_large_page(folder: Folder, whole: Wholes, small_disk: Path) -> None:
    """A page whose items find no room in the temporary folder ends the run; with room it is resumed exactly."""
    done = folder.scrape(*folder.arguments("many", "-o", "out.jsonl"), env={"TMPDIR": str(small_disk)})
    assert done.status == 1, done.err
    assert len(done.err.splitlines()) < 10, done.err
    folder.lines("out.jsonl")
    folder.scrape(*folder.arguments("many", "--resume"))
    usual = whole("many")
    assert folder.lines("out.jsonl") == usual.lines, difference(folder.lines("out.jsonl"), usual.lines)
