"""Jobs: the folder of a run, its lock, and what it says of the run."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scraper.errors import UsageError
from scraper.frontiers.store import Store
from scraper.jobs import BEGUN, STATE, Asked, Job, all_jobs, find_job, holder, new_job, read_job

SUMMARY: dict[str, Any] = {"failed": 0, "items": 3}


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A run that has begun."""
    made = new_job(tmp_path, Asked("books", {"max": "3"}, ["crawl.order=depth"], [("/tmp/x.jsonl", True)]))
    made.acquire()
    made.begin()
    yield made
    made.release()


def reread(job: Job) -> Job:
    """The job as another process would find it."""
    found = read_job(job.path)
    assert found is not None
    return found


def test_asked_comes_back(job: Job) -> None:
    """What a run was asked is read as it was written."""
    assert reread(job).asked == job.asked
    assert job.asked.outputs == [("/tmp/x.jsonl", True)]


def test_nothing_is_made_before_it_is_acquired(tmp_path: Path) -> None:
    """A run that is refused for a mistake leaves no trace."""
    new_job(tmp_path, Asked("books"))
    assert list(tmp_path.iterdir()) == []


def test_status(job: Job) -> None:
    """A job is running while its lock is held, then as its job.json says."""
    found = reread(job)
    assert found.status == "running"
    assert holder(job.path) == f"{os.getpid()} on {os.uname().nodename}"
    job.release()
    assert found.status == "unfinished"
    job.end("finished", SUMMARY)
    assert reread(job).status == "finished"


def test_state_goes_with_success(job: Job) -> None:
    """The state is kept until a run has finished without failures."""
    state = job.path / STATE
    job.end("interrupted", SUMMARY)
    assert state.exists()
    job.end("finished", {"failed": 1})
    assert state.exists()
    job.end("finished", SUMMARY)
    assert not state.exists()


def test_second_is_refused(job: Job) -> None:
    """A job that is held is not acquired again, nor removed."""
    for action in ("acquire", "remove"):
        with pytest.raises(UsageError, match=f"going on already, in process {os.getpid()} on "):
            getattr(reread(job), action)()
    assert reread(job).status == "running"


def test_looking_is_no_obstacle(job: Job) -> None:
    """Others that look who holds a job do not keep it from being acquired."""
    job.release()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            holder(job.path)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            again = reread(job)
            again.acquire()
            again.release()
    finally:
        over.set()
        for looker in lookers:
            looker.join()


def test_going_on_is_noted(job: Job) -> None:
    """A job that is acquired again is unfinished again, with what was asked in addition, before anything else happens."""
    (job.path / STATE).write_bytes(b"something")
    job.end("finished", {"failed": 2})
    job.release()
    again = reread(job)
    again.asked.outputs.append(("/tmp/y.jsonl", False))
    again.acquire()
    again.release()
    found = reread(job)
    assert (found.asked.finished, found.asked.reason, len(found.asked.outputs)) == (False, "", 2)


def test_ended_meanwhile(job: Job) -> None:
    """A job that another process ended between being read and being acquired is not begun a second time."""
    late = reread(job)
    job.end("finished", SUMMARY)
    job.release()
    with pytest.raises(UsageError, match="another process has gone on"):
        late.acquire()
    assert late.status == "unfinished"


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_state_is_missing(job: Job, how: str) -> None:
    """A run that had got somewhere does not begin anew because its state is gone."""
    (job.path / STATE).write_bytes(b"something")
    job.end("interrupted", SUMMARY)
    job.release()
    if how == "gone":
        (job.path / STATE).unlink()
    else:
        (job.path / STATE).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"frontier\.db is gone or empty"):
            reread(job).acquire()


def test_a_shards_log_is_missing(tmp_path: Path) -> None:
    """What a shard had sent the others know, so it does not begin anew: its file alone, without the log, holds nothing."""
    job = Job(tmp_path / "job", Asked("books", shards=2))
    job.acquire()
    job.begin()
    for path in job.states:
        store = Store(path)
        store.open()
        if path.parent.name == "shard-0":
            store.commit({"serial": 1})
            store.close()
        path.with_name(BEGUN).touch()
    job.release()
    with pytest.raises(UsageError, match=r"shard-1/frontier\.db is gone or empty"):
        reread(job).acquire()
    store.commit({"serial": 1})
    store.close()
    again = reread(job)
    again.acquire()
    again.release()


def test_killed_at_its_first_moment(job: Job) -> None:
    """A run that died before its first commit goes on: nothing had been done."""
    job.release()
    again = reread(job)
    again.acquire()
    again.release()


def test_same_second(tmp_path: Path) -> None:
    """Runs begun in the same second get folders of their own."""
    jobs = [new_job(tmp_path, Asked("books")) for _ in range(12)]
    for each in jobs:
        each.acquire()
        each.release()
    assert len({each.path for each in jobs}) == 12


def test_newest_first(tmp_path: Path) -> None:
    """Jobs are listed by when they began, of one spider or of all; a name is no pattern."""
    for number, spider in enumerate(("books", "quotes", "books", "b*")):
        each = Job(tmp_path / ".scrape" / spider / f"run-{number}", Asked(spider))
        each.acquire()
        each.begin()
        each.asked.began = f"2026-01-0{number + 1}T00:00:00+00:00"
        each.save()
        each.release()
    assert [job.path.name for job in all_jobs(tmp_path)] == ["run-3", "run-2", "run-1", "run-0"]
    assert [job.path.name for job in all_jobs(tmp_path, "books")] == ["run-2", "run-0"]
    assert [job.path.name for job in all_jobs(tmp_path, "b*")] == ["run-3"]


def test_damaged(job: Job) -> None:
    """A damaged job.json is an error for who needs it, an entry for who lists, and can be removed."""
    (job.path / "job.json").write_text("{")
    job.release()
    with pytest.raises(UsageError, match="is damaged"):
        read_job(job.path)
    found = find_job(job.path)
    assert found is not None
    assert found.status == "damaged"
    with pytest.raises(UsageError, match="is damaged"):
        found.acquire()
    found.remove()
    assert not job.path.exists()


def test_newer_format(job: Job) -> None:
    """A job of another format is refused with both formats named."""
    job.asked.format = 9
    job.save()
    with pytest.raises(UsageError, match="format 9; this version reads format 1"):
        read_job(job.path)


def test_remove_leaves_what_is_not_its_own(job: Job) -> None:
    """Removing a job deletes its own files; a folder that holds others stays."""
    others = ["mine.txt", "shard-prices", "whole.jsonl", "written-2026.csv"]
    for name in others:
        (job.path / name).write_text("mine")
    for name in ("frontier.db-wal", "frontier.db-journal", "whole.json", "whole.json.new", "written-0", "written-10"):
        (job.path / name).write_text("its own")
    (job.path / "shard-1").mkdir()
    (job.path / "shard-1" / "items.jsonl").write_text("its own")
    job.remove()
    assert sorted(file.name for file in job.path.iterdir()) == others


def test_its_files_are_for_the_owner_alone(job: Job) -> None:
    """The state holds cookies, and job.json what was typed: nobody else may read them, whatever the umask says."""
    before = os.umask(0)
    try:
        job.begin()
        job.save()
    finally:
        os.umask(before)
    for name in (STATE, "job.json"):
        assert (job.path / name).stat().st_mode & 0o777 == 0o600
