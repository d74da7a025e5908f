"""Where cached responses lie: one SQLite file, which several processes share and any of them may be killed over."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_FORMAT = 1
_PATIENCE_S = 5.0  # for another process's commit
_READ_PATIENCE_S = 0.05  # readers wait for nobody, but for a log that is being mended
_SHARE = 10  # an entry may take a tenth of the file
_TABLE = "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL)"
_OPTIONS: dict[int, int] = {zstd.CompressionParameter.compression_level: 1, zstd.CompressionParameter.checksum_flag: 1}
_SECRET = 0o600  # private pages lie in it


class Store:
    """Keeps bytes by key, compressed and with a checksum.

    ``get`` is for the event loop: a hit takes some 75 µs of a page of 30 kB; from a thread it took 290, and longer in a
    busy process, waiting for the interpreter's lock. All else blocks, and is for one other thread.

    The files are ``folder/name.N.db``, of which the highest N counts: a file found damaged is deleted and the next one
    begun, since processes that still have it open would take away a new one's log by its name. Past ``max_bytes`` the
    entries stored longest ago go. Methods raise sqlite3.Error or OSError where the disk does not play along.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._max_bytes = max_bytes
        self._number = 0
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None  # the event loop's own
        self._reader_number = 0
        self._damage: sqlite3.DatabaseError | None = None  # found by the reader, for the next write to mend

    def open(self) -> None:
        """Make the folder and the file, readable by their owner alone, or take up what is there."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock():
            newest = max(self._numbers(), default=1)
            try:
                self._take_up(newest)
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._begin_after(newest)

    def get(self, key: bytes) -> bytes | None:
        """Return what was put under the key; None where there is nothing, or nothing that can be read."""
        try:
            row = self._file_to_read().execute("SELECT value FROM entries WHERE key = ?", (key,)).fetchone()
            return zstd.decompress(row[0]) if row is not None else None
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            if self._reader_number == self._number:  # else it has been mended meanwhile
                self._damage = error
        except (zstd.ZstdError, TypeError):
            pass  # what is put in its place will be whole
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Store, in the place of what was there. What would take more than a tenth of the room is not stored."""
        packed = zstd.compress(value, options=_OPTIONS)
        if len(packed) > self._max_bytes // _SHARE:
            self.drop(key)
            return
        try:
            with self._transaction() as file:
                file.execute("REPLACE INTO entries (key, value) VALUES (?, ?)", (key, packed))
                while self._used_bytes(file) > self._max_bytes:
                    if not file.execute("DELETE FROM entries WHERE id = (SELECT min(id) FROM entries)").rowcount:
                        break
        except sqlite3.DatabaseError as error:
            self._replace_if_damaged(error)

    def drop(self, *keys: bytes) -> None:
        """Forget what is stored under the keys."""
        try:
            with self._transaction() as file:
                file.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])
        except sqlite3.DatabaseError as error:
            self._replace_if_damaged(error)

    def close(self) -> None:
        """Close the file."""
        for connection in (self._reader, self._connection):
            if connection is not None:
                connection.close()
        self._reader = self._connection = None

    def _file_to_read(self) -> sqlite3.Connection:
        if self._reader is None or self._reader_number != self._number:
            if self._reader is not None:
                self._reader.close()
            self._reader_number = self._number
            self._reader = sqlite3.connect(
                self._path(self._number), timeout=_READ_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        return self._reader

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}.{number}.db"

    def _numbers(self) -> list[int]:
        pattern = re.compile(rf"{re.escape(self._name)}\.(\d+)\.db")
        return [int(found[1]) for each in os.listdir(self._folder) if (found := pattern.fullmatch(each))]

    def _take_up(self, number: int) -> None:
        path = self._path(number)
        # SQLite's log takes this mode over.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _SECRET))
        connection = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _FORMAT):
                raise sqlite3.DatabaseError(f"written in format {version}")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")
            connection.execute("SELECT key, value FROM entries LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        self._connection, self._damage = connection, None
        self._number = number  # last: from here on the reader takes it up

    def _replace_if_damaged(self, error: sqlite3.DatabaseError) -> None:
        """Begin a new file where this one is damaged, unless another process has. Raises what else is wrong."""
        if not _is_damage(error):
            raise error
        with self._lock():
            if self._connection is not None:
                self._connection.close()
            newest = max(self._numbers(), default=self._number)
            if newest > self._number:
                self._take_up(newest)
            else:
                self._begin_after(self._number)

    def _begin_after(self, damaged: int) -> None:
        self._take_up(damaged + 1)
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{self._path(damaged)}{suffix}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        file = self._connection
        assert file is not None, "open() comes first"
        if self._damage is not None:
            raise self._damage
        file.execute("BEGIN IMMEDIATE")
        try:
            yield file
            file.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                file.execute("ROLLBACK")
            raise

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other processes from opening or replacing the file meanwhile; the kernel lets go if this one dies."""
        lock = os.open(self._folder / f"{self._name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, _SECRET)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @staticmethod
    def _used_bytes(file: sqlite3.Connection) -> int:
        pages, free, size = (
            file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Tell a damaged file, or one of another make, from a disk that is full or a lock that is held."""
    if getattr(error, "sqlite_errorcode", None) is None:
        return True
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
