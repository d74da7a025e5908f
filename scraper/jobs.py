"""Jobs: the folder in which a run keeps its state, who holds it, and what it was asked to do.

    .scrape/<spider>/<time>/     (or any folder given with --job)
        job.json       what was asked: spider, arguments, settings, outputs; how it ended
        lock           held by the process that runs it: pid and host
        frontier.db    the frontier's state; gone once a run has finished without failures
        written-0 …    for each output, what was written to it that the state does not cover yet; gone with the state
        shard-0/ …     of a run with shards, in place of it: a folder each, with a frontier.db and a part of the items;
        whole.json     and how much of the parts is in the outputs

A job is running while its lock is held (by ``flock``, which the kernel lets go however the process dies), finished once
its job.json says so, and unfinished otherwise.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

import msgspec
from msgspec import Struct

from scraper.errors import UsageError

FOLDER = ".scrape"
FORMAT = 1
_LOCK_TRIES, _LOCK_PAUSE_S = 50, 0.01
_INFO, _LOCK, STATE, TRAIL = "job.json", "lock", "frontier.db", "written-"
BEGUN = "begun"
"""A file in a shard's folder that says that it has state."""
_WHOLE, _SHARDS = "whole.json", "shard-"
_OWN = re.compile(rf"({re.escape(STATE)}|{re.escape(_WHOLE)})([.-][a-z]+)?|({TRAIL}|{_SHARDS})[0-9]+")
"""The names of what keeps a run's state."""


class Asked(Struct):
    """What a run was asked to do, so that a resumed one does the same."""

    spider: str
    arguments: dict[str, str] = {}
    options: list[str] = []
    outputs: list[tuple[str, bool]] = []
    demo_port: int = 0
    format: int = FORMAT
    began: str = ""
    reason: str = ""
    finished: bool = False
    summary: dict[str, Any] = {}
    target: str = ""
    """What names the spider for ``scrape run``: its name, or the path of its file; empty in an earlier version's."""
    shards: int = 1
    by: Literal["host", "url"] = "host"


class Job:
    """One run's folder. ``acquire`` it before anything else is done with it.

    ``found`` is what job.json held when it was read; empty for a new run. A new run with ``is_only`` takes a folder that
    no other run has, should another be begun in the same second.
    """

    def __init__(self, path: Path, asked: Asked, found: bytes = b"", *, is_only: bool = False) -> None:
        self.path = path
        self.asked = asked
        self._found = found
        self._is_only = is_only
        self._lock: IO[str] | None = None
        self.damage: UsageError | None = None
        """Why its job.json cannot be used, where it was found so."""

    @property
    def status(self) -> Literal["running", "finished", "unfinished", "damaged"]:
        """How the job stands."""
        if self.damage is not None:
            return "damaged"
        if holder(self.path) is not None:
            return "running"
        return "finished" if self.asked.finished else "unfinished"

    @property
    def shards(self) -> list[Path]:
        """The folders of its shards; none where one process does it all."""
        return [self.path / f"{_SHARDS}{index}" for index in range(self.asked.shards)] if self.asked.shards > 1 else []

    @property
    def states(self) -> list[Path]:
        """The files that hold its state, whether they are there or not."""
        return [folder / STATE for folder in self.shards] or [self.path / STATE]

    def acquire(self) -> None:
        """Make the folder and hold its lock, and note of an earlier run that it goes on.

        Raises UsageError naming the process that holds it already, or where the earlier run's state is not there.
        """
        if self.damage is not None:
            raise self.damage
        self._hold()
        if not self._found:
            return
        try:
            self._go_on()
        except UsageError:
            self.release()
            raise

    def _go_on(self) -> None:
        from scraper.frontiers.store import has_commits  # SQLite, which not every run needs

        if (self.path / _INFO).read_bytes() != self._found:
            raise UsageError(f"another process has gone on with the run in {self.path} meanwhile")
        for state in self.states:
            # The file is empty only between a run's first moment and its first commit; a log beside it tells of more.
            begun = self.asked.reason if self.asked.shards == 1 else state.with_name(BEGUN).exists()
            lost = self.asked.shards > 1 and begun and not has_commits(state)  # as without its log
            begun = begun or state.with_name(f"{STATE}-wal").exists()
            if lost or not state.exists() or (begun and not state.stat().st_size):
                raise UsageError(f"{state} is gone or empty: the run in {self.path} cannot go on")
        self.asked.reason, self.asked.finished = "", False
        self.save()

    def _hold(self) -> None:
        try:
            if self._is_only:
                self._make_folder()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.path)
        except OSError as error:
            raise UsageError(f"cannot keep the run's state in {self.path}: {error.strerror}") from None
        if self._lock is None:
            raise UsageError(f"the run in {self.path} is going on already, in process {holder(self.path)}")

    def _make_folder(self) -> None:
        first, number = self.path, 1
        while True:
            try:
                self.path.mkdir(parents=True)
                return
            except FileExistsError:
                number += 1
                self.path = first.with_name(f"{first.name}-{number}")

    def release(self) -> None:
        """Let the lock go."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def begin(self) -> None:
        """Clear what an earlier run left in the folder, and note what this one was asked."""
        self._forget_state()
        for state in self.states:
            state.parent.mkdir(exist_ok=True)
            state.touch(mode=0o600)
        self.asked.began = datetime.now(UTC).isoformat(timespec="seconds")
        self.save()

    def end(self, reason: str, summary: Mapping[str, Any]) -> None:
        """Note how the run ended; the state of one that finished without failures is not needed any more."""
        self.asked.reason = reason
        self.asked.finished = reason == "finished"
        self.asked.summary = dict(summary)
        self.save()
        if self.asked.finished and not summary["failed"]:
            self._forget_state()

    def save(self) -> None:
        """Write job.json in one step. Raises UsageError where that is not possible."""
        try:
            draft = self.path / f"{_INFO}.new"
            draft.touch(mode=0o600)  # arguments and settings may hold passwords
            draft.write_bytes(msgspec.json.format(msgspec.json.encode(self.asked, enc_hook=str)) + b"\n")
            draft.replace(self.path / _INFO)
        except OSError as error:
            raise UsageError(f"cannot write {self.path / _INFO}: {error.strerror}") from None

    def remove(self) -> None:
        """Delete the run's files, and the folder unless others lie in it.

        Raises UsageError while the run is going on, and where a file cannot be deleted.
        """
        if self._lock is None:
            self._hold()
        try:
            self._forget_state()
            for name in (_INFO, f"{_INFO}.new", _LOCK):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"cannot delete {error.filename}: {error.strerror}") from None
        finally:
            self.release()
        with suppress(OSError):
            self.path.rmdir()

    def _forget_state(self) -> None:
        # The folder is the user's to choose: other files may lie in it, an output among them.
        for path in [each for each in self.path.iterdir() if _OWN.fullmatch(each.name)]:
            if path.is_dir():
                for file in path.iterdir():
                    file.unlink()
                path.rmdir()
            else:
                path.unlink()


def new_job(root: Path, asked: Asked) -> Job:
    """Return a new job below ``root/.scrape``, named by the time; nothing is made yet."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Job(root / FOLDER / asked.spider / stamp, asked, is_only=True)


def read_job(path: Path) -> Job | None:
    """Return the job in a folder, or None where there is none. Raises UsageError where its job.json cannot be used."""
    try:
        data = (path / _INFO).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path / _INFO}: {error.strerror}") from None
    try:
        asked = msgspec.json.decode(data, type=Asked)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path / _INFO} is damaged: {error}") from None
    if asked.format != FORMAT:
        raise UsageError(f"{path / _INFO} is of format {asked.format}; this version reads format {FORMAT}")
    return Job(path, asked, data)


def find_job(path: Path) -> Job | None:
    """Return the job in a folder as ``read_job`` does, one with ``damage`` where its job.json cannot be used.

    Raises UsageError where the folder cannot be looked into.
    """
    try:
        return read_job(path)
    except UsageError as error:
        try:
            stamp = (path / _INFO).stat().st_mtime
        except OSError:
            raise error from None
        began = datetime.fromtimestamp(stamp, UTC).isoformat(timespec="seconds")
        job = Job(path, Asked(path.parent.name, began=began))
        job.damage = error
        return job


def all_jobs(root: Path, spider: str | None = None) -> list[Job]:
    """Return the jobs below ``root/.scrape``, of one spider or all, the newest first; damaged ones are among them."""
    infos = (root / FOLDER).glob(f"{glob.escape(spider) if spider else '*'}/*/{_INFO}")
    found = [job for info in infos if (job := find_job(info.parent)) is not None]
    return sorted(found, key=lambda job: (job.asked.began, job.path.name), reverse=True)


def holder(path: Path) -> str | None:
    """Return the process that holds a job's lock as "pid 123 on host", or None where nobody does."""
    try:
        with (path / _LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "an unknown process"
    except OSError:
        return None
    return None


def _lock(path: Path) -> IO[str] | None:
    """Return the lock file, held; or None where another process holds it."""
    file = (path / _LOCK).open("a+")
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # One that only looks (``holder``) holds it for an instant, and together with others that look.
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            fcntl.flock(file, fcntl.LOCK_UN)
            time.sleep(_LOCK_PAUSE_S)
    else:
        file.close()
        return None
    file.seek(0)
    file.truncate()
    file.write(f"{os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
