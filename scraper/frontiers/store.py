"""The SQLite file behind the durable frontier: its tables and every statement. All of it runs in one thread.

pending   requests that wait or are leased, clustered by host and then rank: a host's next ones lie together
come      those that have no row in ``pending`` yet, with their fingerprints, as they came, a blob a batch
ended     those of both that are settled and have yet to be taken out, a blob a batch
delayed   requests that wait for a time of their own
failed    requests that failed, with the reason
seen      the 128-bit fingerprints of the requests taken in, sorted
fresh     those that are neither in ``seen`` nor in ``come``, by generation, 64 in a blob
meta      the format's version, the counts, the outputs' lengths, the parts' state

A row of its own costs as much as thirty in a blob, and what waits in memory too is most often settled before it needs
one: so that is only noted, like what ends, until 20,000 have gathered, or ``pending`` is read.
"""

from __future__ import annotations

import sqlite3
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import starmap
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Struct

from scraper.errors import StateError, UsageError

FORMAT = 3

Row = tuple[int, int, int, bytes]
"""A pending request: its host's number, minus its priority, its serial, its bytes."""

ComeRow = tuple[int, int, int, bytes, bytes]
"""One that is only noted: with its fingerprint too, or nothing where that was taken in before."""

Delayed = tuple[int, int, float, float, bytes]
"""A delayed request: serial, minus its priority, wall-clock time before which it may not go, seconds of delay, bytes."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE pending (
    host INTEGER NOT NULL, rank INTEGER NOT NULL, serial INTEGER NOT NULL, request BLOB NOT NULL,
    PRIMARY KEY (host, rank, serial)
) WITHOUT ROWID;
CREATE TABLE come (generation INTEGER NOT NULL, requests BLOB NOT NULL);
CREATE TABLE ended (keys BLOB NOT NULL);
CREATE TABLE delayed (
    serial INTEGER PRIMARY KEY, rank INTEGER NOT NULL, not_before REAL NOT NULL, delay REAL NOT NULL,
    request BLOB NOT NULL
);
CREATE TABLE failed (serial INTEGER PRIMARY KEY, request BLOB NOT NULL, error TEXT NOT NULL);
CREATE TABLE seen (mark BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE fresh (generation INTEGER NOT NULL, marks BLOB NOT NULL);
"""
_UPGRADES = {
    1: "CREATE TABLE ended (keys BLOB NOT NULL);",  # it took out each request as it was settled
    2: "CREATE TABLE come (generation INTEGER NOT NULL, requests BLOB NOT NULL);"
    " ALTER TABLE fresh RENAME COLUMN mark TO marks;",
}
_SYNCHRONOUS = {"none": "OFF", "normal": "NORMAL", "full": "FULL"}
_CHECKPOINT_PAGES = 32_768  # of 4 KiB: the write-ahead log is copied back when it holds 128 MiB
_CACHE_KIB = 64 * 1024
_PARAMETERS = 500  # values in one statement
_BEFORE_ALL = (-(2**63), -(2**63))
MERGE_SLICES = 8
_MARK_BYTES = 16
_FRESH_BYTES = 64 * _MARK_BYTES  # to split a longer blob in SQL takes longer for each
_MERGE = f"""
INSERT OR IGNORE INTO seen
WITH RECURSIVE place(at) AS (SELECT 1 UNION ALL SELECT at + {_MARK_BYTES} FROM place WHERE at + {_MARK_BYTES} < {_FRESH_BYTES})
SELECT substr(marks, at, {_MARK_BYTES}) AS mark FROM fresh, place
WHERE generation <= ? AND at < length(marks) AND mark BETWEEN ? AND ? ORDER BY mark
"""

Key = tuple[int, int, int]
"""A pending request's host, minus its priority, its serial."""


_KEY = struct.Struct("<3q")
_SORTABLE = struct.Struct(">3q")
"""Its bytes stand in the table's order, but for negative numbers, which come last."""

_encode_rows = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[ComeRow]).decode


class Batch(Struct):
    """Changes to make together. ``rows`` will be read from the file, those in ``come`` hardly ever.

    ``marks`` are the fingerprints of all but those. ``doubtful`` ones are made only where the fingerprint is new.
    """

    ended: list[Key] = []
    ended_delayed: list[tuple[int]] = []
    rows: list[Row] = []
    come: list[ComeRow] = []
    delayed: list[Delayed] = []
    marks: list[bytes] = []
    failed: list[tuple[int, bytes, str]] = []
    doubtful: list[tuple[bytes, Row | None, Delayed | None]] = []
    generation: int = 0

    def __bool__(self) -> bool:
        came = (self.rows, self.come, self.delayed, self.marks, self.doubtful)
        return any((*came, self.ended, self.ended_delayed, self.failed))


class Store:
    """One SQLite file. Every change joins the transaction that ``commit`` ends; a crash undoes what is not committed.

    ``most_noted`` requests that came, or were settled, are noted at a time: 20,000 take 3 MB of memory.
    """

    def __init__(
        self, path: Path, durability: Literal["none", "normal", "full"] = "normal", most_noted: int = 20_000
    ) -> None:
        self._path = path
        self._durability = durability
        self._most_noted = most_noted
        self._db: sqlite3.Connection | None = None
        self._noted_come = 0
        self._noted_ended = 0
        self._ended: set[int] = set()
        """The serials of those that ``ended`` holds and that stand in ``come`` or ``pending`` all the same."""

    def open(self) -> dict[str, Any]:
        """Open or make the file; return what ``meta`` holds. Raises UsageError where it cannot be used."""
        try:
            with suppress(OSError):  # which SQLite will tell of
                self._path.touch(mode=0o600)  # there are cookies in it; SQLite gives the files beside it the same mode
            self._db = db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"PRAGMA synchronous={_SYNCHRONOUS[self._durability]}")
            db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
            db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if not 0 <= version <= FORMAT:
                raise UsageError(
                    f"{self._path}: written in format {version}, this version reads format {FORMAT}; "
                    "finish that run with the version that began it"
                )
            changes = _SCHEMA if version == 0 else "".join(_UPGRADES[older] for older in range(version, FORMAT))
            if changes:
                db.executescript(f"BEGIN; {changes} PRAGMA user_version={FORMAT}; COMMIT;")
            db.execute("BEGIN")
            self._ended = {key[2] for key in self._ended_keys(db)}
            self._noted_come = db.execute("SELECT count(*) FROM come").fetchone()[0]
            self._bring_in(db)
            self._take_out(db)
            db.execute("COMMIT")
            meta = {key: msgspec.msgpack.decode(value) for key, value in db.execute("SELECT key, value FROM meta")}
        except (sqlite3.Error, struct.error, msgspec.MsgspecError) as error:
            self.close()
            raise UsageError(f"{self._path}: the run's state cannot be used: {error}") from None
        return meta

    def close(self) -> None:
        """Close the file; what is not committed is undone."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def write(self, batch: Batch, meta: Mapping[str, Any] | None) -> list[bool]:
        """Apply the batch, and commit where ``meta`` is given: one trip to the thread for both."""
        verdict = self.apply(batch)
        if meta is not None:
            self.commit(meta)
        return verdict

    def apply(self, batch: Batch) -> list[bool]:
        """Make the changes; return for each doubtful one whether it was new."""
        with self._errors() as db:
            rows, delayed, marks = batch.rows, batch.delayed, batch.marks
            verdict: list[bool] = []
            if batch.doubtful:
                seen = self._seen(db, [mark for mark, _, _ in batch.doubtful])
                for mark, row, late in batch.doubtful:
                    is_new = mark not in seen
                    seen.add(mark)  # the same request may be in here twice: the first is the new one
                    verdict.append(is_new)
                    if is_new:
                        marks.append(mark)
                    if is_new and row is not None:
                        rows.append(row)
                    elif is_new and late is not None:
                        delayed.append(late)
            if marks:
                self._note_fresh(db, batch.generation, marks)
            if rows:
                db.executemany("INSERT INTO pending VALUES (?,?,?,?)", sorted(rows))
            if batch.come:
                db.execute("INSERT INTO come VALUES (?,?)", (batch.generation, _encode_rows(batch.come)))
                self._noted_come += len(batch.come)
            if delayed:
                db.executemany("INSERT INTO delayed VALUES (?,?,?,?,?)", delayed)
            # Last, for a request may have come, been fetched and ended while an earlier batch was being written.
            if batch.ended:
                # One blob, where to take out each row would be one page to write for each host.
                db.execute("INSERT INTO ended VALUES (?)", (b"".join(starmap(_KEY.pack, batch.ended)),))
                self._ended.update([key[2] for key in batch.ended])
                self._noted_ended += len(batch.ended)
            if max(self._noted_come, self._noted_ended) >= self._most_noted:
                self._bring_in(db)
                self._take_out(db)
            if batch.ended_delayed:
                db.executemany("DELETE FROM delayed WHERE serial=?", batch.ended_delayed)
            if batch.failed:
                db.executemany("INSERT OR REPLACE INTO failed VALUES (?,?,?)", batch.failed)
            return verdict

    def next_rows(self, behind: Mapping[int, tuple[int, int]], first: Sequence[int], n: int) -> list[Row]:
        """Return the next ``n`` pending requests or more of some hosts, one host after the other.

        Of those in ``behind`` they come behind a rank and serial, of those in ``first``, which is sorted, they are the first.
        """
        with self._errors() as db:
            self._bring_in(db)
            rows: list[Row] = []
            for host, after in behind.items():
                rows += self._rows_behind(db, host, after, n)
            if len(first) > 1:
                some, first = self._first_rows(db, first, n)
                rows += some
            for host in first:
                rows += self._rows_behind(db, host, _BEFORE_ALL, n)
            return rows

    def _first_rows(self, db: sqlite3.Connection, hosts: Sequence[int], n: int) -> tuple[list[Row], Sequence[int]]:
        """Return the pending requests of the first of some hosts, as many as one query finds, and the other hosts.

        Where few lie between them, as with very many hosts in the table's order, none is left.
        """
        most = n * len(hosts)
        query = "SELECT * FROM pending WHERE host BETWEEN ? AND ? ORDER BY host, rank, serial LIMIT ?"
        rows = db.execute(query, (hosts[0], hosts[-1], most)).fetchall()
        known = len(hosts) if len(rows) < most else bisect_left(hosts, rows[-1][0])  # of that one there may be more
        wanted, ended = set(hosts[:known]), self._ended
        return [row for row in rows if row[2] not in ended and row[0] in wanted], hosts[known:]

    def _rows_behind(self, db: sqlite3.Connection, host: int, after: tuple[int, int], n: int) -> list[Row]:
        query = "SELECT * FROM pending WHERE host=? AND (rank, serial) > (?, ?) ORDER BY rank, serial LIMIT ?"
        rows: list[Row] = []
        while True:
            some = db.execute(query, (host, *after, n)).fetchall()
            rows += [row for row in some if row[2] not in self._ended]
            if len(some) < n or len(rows) >= n:
                return rows[:n]
            after = some[-1][1:3]

    def hosts(self) -> list[int]:
        """Return the numbers of all hosts that have pending requests, by skipping from one to the next."""
        with self._errors() as db:
            found: list[int] = []
            row = db.execute("SELECT min(host) FROM pending").fetchone()
            while row[0] is not None:
                found.append(row[0])
                row = db.execute("SELECT min(host) FROM pending WHERE host > ?", row).fetchone()
            return found

    def all_delayed(self) -> list[Delayed]:
        """Return every delayed request."""
        with self._errors() as db:
            return db.execute("SELECT serial, rank, not_before, delay, request FROM delayed").fetchall()

    def fresh_marks(self) -> tuple[list[bytes], int, bool]:
        """Return the fingerprints that are not merged, the newest generation, and whether any have been merged."""
        with self._errors() as db:
            fresh = db.execute("SELECT generation, marks FROM fresh").fetchall()
            merged = db.execute("SELECT 1 FROM seen LIMIT 1").fetchone() is not None
            marks = [blob[at : at + _MARK_BYTES] for _, blob in fresh for at in range(0, len(blob), _MARK_BYTES)]
            return marks, max((generation for generation, _ in fresh), default=0), merged

    def merge(self, generation: int, number: int) -> None:
        """Bring one of MERGE_SLICES slices of the fresh fingerprints up to a generation into ``seen``.

        A B-tree of random keys costs a page written for each key, unless many keys go in at once, in order. To do it
        again after a crash changes nothing.
        """
        low, high = (
            bytes([number * 256 // MERGE_SLICES]),
            bytes([(number + 1) * 256 // MERGE_SLICES - 1]) + b"\xff" * 16,
        )
        with self._errors() as db:
            self._bring_in(db)
            db.execute(_MERGE, (generation, low, high))
            if number == MERGE_SLICES - 1:
                db.execute("DELETE FROM fresh WHERE generation <= ?", (generation,))

    def failures(self) -> list[tuple[bytes, str]]:
        """Return the failed requests and why they failed."""
        with self._errors() as db:
            return db.execute("SELECT request, error FROM failed").fetchall()

    def forget_failures(self) -> None:
        """Take all requests out of the failed ones."""
        with self._errors() as db:
            db.execute("DELETE FROM failed")

    def commit(self, meta: Mapping[str, Any]) -> None:
        """Make all changes so far durable, together with these entries of ``meta``; None takes an entry out."""
        with self._errors() as db:
            db.executemany("DELETE FROM meta WHERE key=?", [(key,) for key, value in meta.items() if value is None])
            entries = [(key, msgspec.msgpack.encode(value)) for key, value in meta.items() if value is not None]
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", entries)
            db.execute("COMMIT")

    def _bring_in(self, db: sqlite3.Connection) -> None:
        """Bring what has come into ``pending``, in its order; what is settled by now needs no row any more."""
        if not self._noted_come:
            return
        rows: list[Row] = []
        for generation, blob in db.execute("SELECT generation, requests FROM come"):
            come = _decode_rows(blob)
            self._note_fresh(db, generation, [row[4] for row in come])
            rows += [row[:4] for row in come if row[2] not in self._ended]
            self._ended.difference_update([row[2] for row in come])
        db.executemany("INSERT INTO pending VALUES (?,?,?,?)", sorted(rows))
        db.execute("DELETE FROM come")
        self._noted_come = 0

    @staticmethod
    def _note_fresh(db: sqlite3.Connection, generation: int, marks: Sequence[bytes]) -> None:
        joined = b"".join(marks)
        blobs = [joined[at : at + _FRESH_BYTES] for at in range(0, len(joined), _FRESH_BYTES)]
        db.executemany("INSERT INTO fresh VALUES (?,?)", [(generation, blob) for blob in blobs])

    def _take_out(self, db: sqlite3.Connection) -> None:
        """Delete the settled requests, in the table's order: those that lie together go together."""
        # As bytes, for 20,000 tuples at a time would have the garbage collector look at all that waits.
        packed = [_SORTABLE.pack(*key) for key in self._ended_keys(db) if key[2] in self._ended]
        keys = map(_SORTABLE.unpack, sorted(packed))
        db.executemany("DELETE FROM pending WHERE host=? AND rank=? AND serial=?", keys)
        db.execute("DELETE FROM ended")
        self._ended.clear()
        self._noted_ended = 0

    @staticmethod
    def _ended_keys(db: sqlite3.Connection) -> Iterator[Key]:
        for (keys,) in db.execute("SELECT keys FROM ended"):
            yield from _KEY.iter_unpack(keys)

    @staticmethod
    def _seen(db: sqlite3.Connection, marks: Sequence[bytes]) -> set[bytes]:
        """Return those of the fingerprints that are in ``seen``."""
        found: set[bytes] = set()
        for start in range(0, len(marks), _PARAMETERS):
            part = sorted(marks[start : start + _PARAMETERS])
            places = ",".join("?" * len(part))
            found.update(mark for (mark,) in db.execute(f"SELECT mark FROM seen WHERE mark IN ({places})", part))
        return found

    def _errors(self) -> _Errors:
        assert self._db is not None, "open() comes first"
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        return _Errors(self._path, self._db)


def look(path: Path) -> tuple[dict[str, Any], list[tuple[bytes, str]]]:
    """Return ``meta`` and the failures of a file that another process may be writing, as of its last commit.

    Raises StateError where it cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            if not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return {}, []  # a run that begins this moment
            meta = {key: msgspec.msgpack.decode(value) for key, value in db.execute("SELECT key, value FROM meta")}
            return meta, db.execute("SELECT request, error FROM failed").fetchall()
    except (sqlite3.Error, ValueError) as error:
        raise StateError(f"{path}: {error}") from None


def has_commits(path: Path) -> bool:
    """Whether anything was committed to a file; also where that cannot be said, for who opens it will say why."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
            has_tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            return bool(has_tables and db.execute("SELECT count(*) FROM meta").fetchone()[0])
    except sqlite3.Error:
        return True


class _Errors:
    """Turns sqlite3's exceptions into ours, and those of blobs that are damaged and of values that cannot be stored."""

    __slots__ = ("_db", "_path")

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        return self._db

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, (sqlite3.Error, struct.error, TypeError, ValueError, OverflowError)):
            raise StateError(f"{self._path}: {error}") from None
