"""The cache's file: what is kept, by several processes, over kills and damage, and in how much room."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from scraper.middlewares.cache_store import Store

PLENTY = 2**30


@contextmanager
def opened(folder: Path, max_bytes: int = PLENTY) -> Iterator[Store]:
    """Give an open store, and close it."""
    store = Store(folder, "kept", max_bytes)
    store.open()
    try:
        yield store
    finally:
        store.close()


def files(folder: Path) -> list[Path]:
    """Return the databases."""
    return sorted(folder.glob("*.db"))


def test_what_is_put_is_there(tmp_path: Path) -> None:
    """Under its key, in another process's life too; the later put wins, and a drop forgets."""
    with opened(tmp_path) as store:
        store.put(b"a", b"1")
        store.put(b"a", b"2")
        store.put(b"b", b"")
        store.put(b"c", b"3")
        store.drop(b"c", b"unknown")
    with opened(tmp_path) as store:
        assert [store.get(key) for key in (b"a", b"b", b"c", b"d")] == [b"2", b"", None, None]


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Folder, database, log and lock are nobody else's, whatever the umask."""
    before = os.umask(0)
    try:
        with opened(tmp_path / "cache") as store:
            store.put(b"a", b"1")
            made = list((tmp_path / "cache").iterdir())
            modes = {stat.S_IMODE(path.stat().st_mode) for path in made}
    finally:
        os.umask(before)
    assert len(made) == 4
    assert modes == {0o600}
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700


def test_a_damaged_entry_is_dropped(tmp_path: Path) -> None:
    """One flipped bit, and the entry is gone; the others stay."""
    with opened(tmp_path) as store:
        store.put(b"a", b"page " * 100)
        store.put(b"b", b"2")
    with sqlite3.connect(files(tmp_path)[0]) as file:
        packed = bytearray(file.execute("SELECT value FROM entries WHERE key = ?", (b"a",)).fetchone()[0])
        packed[len(packed) // 2] ^= 1
        file.execute("UPDATE entries SET value = ? WHERE key = ?", (bytes(packed), b"a"))
    file.close()
    with opened(tmp_path) as store:
        assert (store.get(b"a"), store.get(b"b")) == (None, b"2")
        store.put(b"a", b"1")
        assert store.get(b"a") == b"1"


@pytest.mark.parametrize("damage", [b"no database at all" * 999, b"SQLite format 3\0" + b"\xff" * 9999, b"short"])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """What is no database any more gives way to an empty one."""
    with opened(tmp_path) as store:
        store.put(b"a", b"1")
    files(tmp_path)[0].write_bytes(damage)
    with opened(tmp_path) as store:
        assert store.get(b"a") is None
        store.put(b"a", b"2")
        assert store.get(b"a") == b"2"
    assert [path.name for path in files(tmp_path)] == ["kept.2.db"]


def test_damage_found_on_the_way(tmp_path: Path) -> None:
    """Pages that turn out to be damaged while it is open: nothing raises, two processes go on in one new file."""
    with opened(tmp_path) as store:
        for number in range(300):
            store.put(b"%d" % number, os.urandom(2000))
    [path] = files(tmp_path)
    with opened(tmp_path) as one, opened(tmp_path) as other:
        with path.open("r+b") as file:
            file.seek(3 * 4096)
            file.write(b"\xff" * (path.stat().st_size - 3 * 4096))
        for number in range(300):
            one.get(b"%d" % number)
            other.get(b"%d" % number)
        for store in (one, other):
            store.put(b"lost", b"")  # the write that mends is not repeated
        one.put(b"a", b"1")
        other.put(b"b", b"2")
        assert [(each.get(b"a"), each.get(b"b")) for each in (one, other)] == [(b"1", b"2")] * 2
    assert [path.name for path in files(tmp_path)] == ["kept.2.db"]


def test_damage_that_a_read_finds(tmp_path: Path) -> None:
    """One page of the file is damaged: the read gives nothing, and the next write, of whatever key, mends."""
    values = [os.urandom(2000) for _ in range(50)]
    with opened(tmp_path) as store:
        for number, value in enumerate(values):
            store.put(b"%d" % number, value)
    [path] = files(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(values[25]) // 4096 * 4096)
        file.write(b"\xff" * 4096)
    with opened(tmp_path) as store:
        assert store.get(b"49") is not None
        store.put(b"50", b"1")
        assert store.get(b"25") is None
        store.put(b"51", b"1")
        assert (store.get(b"50"), files(tmp_path)) == (None, [tmp_path / "kept.2.db"])
        store.put(b"52", b"1")
        assert store.get(b"52") == b"1"


def test_another_format_is_not_read(tmp_path: Path) -> None:
    """A file that another version wrote is replaced."""
    with opened(tmp_path) as store:
        store.put(b"a", b"1")
    with sqlite3.connect(files(tmp_path)[0]) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with opened(tmp_path) as store:
        assert store.get(b"a") is None


def test_room_is_kept_to(tmp_path: Path) -> None:
    """Past the limit the oldest go; what is too large for the whole is not stored, nor what it was to replace kept."""
    limit = 500_000
    with opened(tmp_path, limit) as store:
        for number in range(400):
            store.put(b"%d" % number, os.urandom(4000))
        there = [number for number in range(400) if store.get(b"%d" % number) is not None]
        assert there == list(range(there[0], 400))
        assert 80 < len(there) < 125
        store.put(b"399", os.urandom(limit // 5))
        assert store.get(b"399") is None
    assert files(tmp_path)[0].stat().st_size < 1.1 * limit


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    """A folder that cannot be made raises; it is no damage, and nothing is deleted."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), opened(tmp_path / "file"):
        pass


def _write(folder: Path, name: int, together: Barrier, ready: Connection) -> None:
    store = Store(folder, "kept", PLENTY)
    together.wait(20)
    store.open()
    for number in range(150):
        store.put(b"%d %d" % (name, number), b"%d" % number * 500)
        assert store.get(b"%d %d" % (name, number)) == b"%d" % number * 500
    ready.send("written")
    store.close()


def test_several_processes_at_once(tmp_path: Path) -> None:
    """Four that find a damaged file, write and read together agree on a new one, and lose nothing of each other's."""
    (tmp_path / "kept.1.db").write_bytes(b"no database at all" * 999)
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    pipes = [context.Pipe(duplex=False) for _ in range(4)]
    writers = [
        context.Process(target=_write, args=(tmp_path, name, together, write)) for name, (_, write) in enumerate(pipes)
    ]
    for writer in writers:
        writer.start()
    for writer, (read, _) in zip(writers, pipes, strict=True):
        assert read.poll(20)
        assert read.recv() == "written"
        writer.join()
        assert writer.exitcode == 0
    assert [path.name for path in files(tmp_path)] == ["kept.2.db"]
    with opened(tmp_path) as store:
        for name in range(4):
            for number in range(150):
                assert store.get(b"%d %d" % (name, number)) == b"%d" % number * 500


def _write_for_ever(folder: Path, told: Connection) -> None:
    store = Store(folder, "kept", PLENTY)
    store.open()
    number = 0
    while True:
        store.put(b"%d" % number, b"%d" % number * 500)
        told.send(number)
        number += 1


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """After kill -9 what was put is there, whole, and the file can be written."""
    context = multiprocessing.get_context("spawn")
    put = 0
    for kill_after in (7, 23, 61):
        read, write = context.Pipe(duplex=False)
        writer = context.Process(target=_write_for_ever, args=(tmp_path, write))
        writer.start()
        for _ in range(kill_after):
            assert read.poll(20)
            put = max(put, read.recv())
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        with opened(tmp_path) as store:
            assert [store.get(b"%d" % number) for number in range(put)] == [
                b"%d" % number * 500 for number in range(put)
            ]
            store.put(b"mine", b"1")
            assert store.get(b"mine") == b"1"
    assert [path.name for path in files(tmp_path)] == ["kept.1.db"]
