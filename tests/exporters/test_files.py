"""Output files: appended to or replaced, in whole records, and what is said where they cannot be written."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import IO, Any

import pytest

from scraper.errors import OutputError, StateError
from scraper.exporters.files import FileExporter, check_writable
from scraper.exporters.trail import _boot


def use(path: Path | str, work: Callable[[FileExporter], Awaitable[Any]], *, replace: bool = False) -> Any:
    """Open an exporter, work with it, close it."""

    async def main() -> Any:
        exporter = FileExporter(str(path), replace=replace)
        await exporter.open()
        try:
            return await work(exporter)
        finally:
            await exporter.close()

    return asyncio.run(main())


def writing(*blocks: bytes) -> Callable[[FileExporter], Awaitable[int]]:
    """Make the work of writing some blocks."""

    async def work(exporter: FileExporter) -> int:
        for block in blocks:
            exporter.write(block)
        return await exporter.flush()

    return work


def test_a_spiders_own_threads_do_not_hold_it_up(tmp_path: Path) -> None:
    """What is flushed is in the file though every thread of the event loop is taken by to_thread()."""
    held = Event()

    async def work(exporter: FileExporter) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        holding = loop.run_in_executor(None, held.wait)
        try:
            async with asyncio.timeout(5):
                return await writing(b"1\n")(exporter)
        finally:
            held.set()
            await holding

    assert use(tmp_path / "out.jsonl", work) == 2
    assert (tmp_path / "out.jsonl").read_bytes() == b"1\n"


def temporary(content: bytes) -> IO[bytes]:
    """Make a temporary file that holds something."""
    file = TemporaryFile()  # noqa: SIM115 - the exporter closes it
    file.write(content)
    return file


@pytest.mark.parametrize(
    ("before", "replace", "after"),
    [
        (None, False, b"new\n"),
        (None, True, b"new\n"),
        (b"", False, b"new\n"),
        (b"old\n", False, b"old\nnew\n"),
        (b"old\n", True, b"new\n"),
        (b"old\nbroken", False, b"old\nbroken\nnew\n"),
        (b"broken", True, b"new\n"),
    ],
)
def test_append_and_replace(tmp_path: Path, before: bytes | None, replace: bool, after: bytes) -> None:
    """A file is appended to, below a last line that was left without its end, or replaced; the length is the file's."""
    path = tmp_path / "x"
    if before is not None:
        path.write_bytes(before)
    assert use(path, writing(b"new\n"), replace=replace) == len(after)
    assert path.read_bytes() == after


def test_a_replaced_file_stays_until_the_first_flush(tmp_path: Path) -> None:
    """A run that never comes to write leaves what there was; one that writes nothing empties it."""
    path = tmp_path / "x"
    path.write_bytes(b"old\n")

    async def nothing(exporter: FileExporter) -> None:
        assert path.read_bytes() == b"old\n"

    use(path, nothing, replace=True)
    assert path.read_bytes() == b"old\n"
    assert use(path, writing(), replace=True) == 0
    assert path.read_bytes() == b""


@pytest.mark.parametrize("replace", [False, True])
def test_going_on_at_a_position(tmp_path: Path, replace: bool) -> None:
    """What lies behind the position is cut off, and the rest is kept, however the output was opened first."""
    path = tmp_path / "x"
    path.write_bytes(b"kept\nlost\nhalf")

    async def main() -> int:
        exporter = FileExporter(str(path), replace=replace)
        await exporter.open(5)
        assert exporter.length == 5
        exporter.write(b"new\n")
        length = await exporter.flush()
        await exporter.close()
        return length

    assert asyncio.run(main()) == 9
    assert path.read_bytes() == b"kept\nnew\n"


def test_a_file_that_was_cut_is_not_gone_on_with(tmp_path: Path) -> None:
    """A file shorter than what was written to it is another one: the run says so and leaves it alone."""
    path = tmp_path / "x"
    path.write_bytes(b"short")
    with pytest.raises(OutputError, match=r"x holds 5 bytes, but the run had written 1,000"):
        asyncio.run(FileExporter(str(path)).open(1000))
    assert path.read_bytes() == b"short"


async def dies(exporter: FileExporter, path: Path) -> None:
    """Leave the file and the trail as they would be if the process died now."""
    left = [(each, each.read_bytes()) for each in (path, path.with_name("trail"))]
    await exporter.close()
    for each, data in left:
        each.write_bytes(data)


async def gone_on(path: Path, position: int, *, replace: bool = False) -> bytes:
    """Go on at a position as a resumed run with a trail does, write one more line; return what the file holds then."""
    exporter = FileExporter(str(path), replace=replace, trail=path.with_name("trail"))
    await exporter.open(position)
    exporter.write(b"new\n")
    assert await exporter.flush() == path.stat().st_size
    await exporter.close()
    return path.read_bytes()


def test_only_what_this_run_wrote_is_cut_off(tmp_path: Path) -> None:
    """Of several runs that append to one file by turns, each cuts off what it had written behind its own position, as far
    as that is at the end, and nothing else.
    """
    path = tmp_path / "x"

    async def main() -> None:
        one, other = FileExporter(str(path), trail=tmp_path / "trail"), FileExporter(str(path), trail=tmp_path / "2")
        for exporter in (one, other):
            await exporter.open()
        positions = []
        for exporter, line in ((one, b"1\n"), (other, b"other\n"), (one, b"2\n"), (one, b"3\n")):
            exporter.write(line)
            positions.append(await exporter.flush())
        assert positions == [2, 8, 10, 12]
        await other.close()
        await dies(one, path)
        kept, noted = path.read_bytes(), (tmp_path / "trail").read_bytes()
        assert await gone_on(path, 10) == b"1\nother\n2\nnew\n"
        path.write_bytes(kept + b"a stranger\n")
        (tmp_path / "trail").write_bytes(noted)
        assert await gone_on(path, 12) == b"1\nother\n2\n3\na stranger\nnew\n"

    asyncio.run(main())


@pytest.mark.parametrize("known", [None, 0, 2])
def test_a_state_that_is_too_old_is_refused(tmp_path: Path, known: int | None) -> None:
    """Where a state knows less than was committed, what the run wrote cannot be told from others' lines: one line says so."""
    path = tmp_path / "x"

    async def main() -> None:
        exporter = FileExporter(str(path), trail=tmp_path / "trail")
        await exporter.open()
        for line in (b"1\n", b"2\n", b"3\n"):
            exporter.write(line)
            await exporter.flush()
        await dies(exporter, path)
        resumed = FileExporter(str(path), trail=tmp_path / "trail")
        way = "begin a new run" if known is None else f"move what that holds behind byte {known} to another file"
        with pytest.raises(StateError, match=rf"the state in .* is older than .*/x, of which .*, or {way}"):
            await resumed.open(known)
        assert path.read_bytes() == b"1\n2\n3\n"
        assert await gone_on(path, 4) == b"1\n2\nnew\n"

    asyncio.run(main())


def test_a_file_that_is_emptied_meanwhile(tmp_path: Path) -> None:
    """A state of after that is not too old, though more had been committed before."""
    path = tmp_path / "x"

    async def main() -> bytes:
        exporter = FileExporter(str(path), trail=tmp_path / "trail")
        await exporter.open()
        for line, position in ((b"1\n" * 9, 18), (b"2\n", 2)):
            path.write_bytes(b"")
            exporter.write(line)
            assert await exporter.flush() == position
        with path.open("ab") as file:
            file.write(b"a stranger\n")
        await dies(exporter, path)
        return await gone_on(path, 2)

    assert asyncio.run(main()) == b"2\na stranger\nnew\n"


def test_what_lies_between_others_lines_is_not_cut_off(tmp_path: Path) -> None:
    """Where another writer's lines follow upon what is to be cut off, the file is left alone: one line says from where on."""
    path = tmp_path / "x"

    async def main() -> None:
        exporter = FileExporter(str(path), trail=tmp_path / "trail")
        await exporter.open()
        exporter.write(b"1\n" * 500)
        position = await exporter.flush()
        exporter.write(b"2\n")
        await exporter.flush()
        await dies(exporter, path)
        with path.open("ab") as file:
            file.write(b"a stranger\n")
        held = path.read_bytes()
        with pytest.raises(OutputError, match=r"x holds behind byte 1,000 was not \(all\) written by this run"):
            await gone_on(path, position)
        assert path.read_bytes() == held

    asyncio.run(main())


def test_what_nothing_is_noted_of_is_not_cut_off(tmp_path: Path) -> None:
    """Where the note is not of this boot of the machine, or lost, what it does not explain may be anybody's."""
    path = tmp_path / "x"
    path.write_bytes(b"1\n2\n")
    for note in (b"", b'{"boot":"an earlier one","own":[],"start":0,"size":2,"end":-1}\n1\n'):
        (tmp_path / "trail").write_bytes(note)
        with pytest.raises(OutputError, match="x holds behind byte 2"):
            asyncio.run(gone_on(path, 2))
    (tmp_path / "trail").write_bytes(b'{"boot":"an earlier one","own":[],"start":2,"size":2,"end":-1}\n2\n')
    assert asyncio.run(gone_on(path, 2)) == b"1\nnew\n"


@pytest.mark.parametrize("torn", [b'{"url": "half', b"\x00" * 3_000_000])
def test_a_torn_end_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    """Also behind what the run itself had not committed, whole or in part, and behind others' lines, which stay."""
    path = tmp_path / "x"
    note = b'{"boot":"%s","own":[],"start":2,"size":4,"end":-1}\n2\n3\n' % _boot().encode()
    for written, kept in ((b"", b"1\n"), (b"2\n3\n", b"1\n"), (b"2\n3", b"1\n"), (b"other\n", b"1\nother\n")):
        path.write_bytes(b"1\n" + written + torn)
        (tmp_path / "trail").write_bytes(note)
        assert asyncio.run(gone_on(path, 2)) == kept + b"new\n"


def test_after_a_power_failure_a_synced_note_holds(tmp_path: Path) -> None:
    """What it does not explain others have written: that stays, and the run goes on behind it."""
    path = tmp_path / "x"
    path.write_bytes(b"1\n2\n")
    note = b'{"boot":"an earlier one","own":[],"start":0,"size":2,"end":-1,"is_synced":true}\n1\n'
    (tmp_path / "trail").write_bytes(note)
    assert asyncio.run(gone_on(path, 2)) == b"1\n2\nnew\n"


def test_the_note_is_synced_with_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that with `frontier.durability = "full"` it outlives a power failure; else nothing is waited for."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))

    async def main() -> None:
        exporter = FileExporter(str(tmp_path / "x"), trail=tmp_path / "trail")
        await exporter.open()
        for sync in (False, True):
            exporter.write(b"1\n")
            await exporter.flush(sync=sync)
        await exporter.close()

    asyncio.run(main())
    assert synced == [str(tmp_path / "trail"), str(tmp_path / "x")]


@pytest.mark.parametrize("ends", ["killed", "closed"])
def test_replacing_waits_over_a_resume(tmp_path: Path, ends: str) -> None:
    """A run that was stopped before its first block replaces the file when it goes on."""
    path = tmp_path / "x"
    path.write_bytes(b"old\n")

    async def main() -> bytes:
        exporter = FileExporter(str(path), replace=True, trail=tmp_path / "trail")
        await exporter.open()
        if ends == "killed":
            await dies(exporter, path)
        else:
            await exporter.close()
        return await gone_on(path, exporter.length, replace=True)

    assert asyncio.run(main()) == b"new\n"


def test_blocks_and_files_keep_their_order(tmp_path: Path) -> None:
    """What is taken is written in the order in which it was taken; temporary files are closed."""
    files = [temporary(b"2\n" * 1000), temporary(b""), temporary(b"4\n")]

    async def work(exporter: FileExporter) -> int:
        exporter.write(b"1\n")
        exporter.write_file(files[0])
        exporter.write_file(files[1])
        exporter.write(b"3\n")
        exporter.write(b"3\n")
        exporter.write_file(files[2])
        exporter.write(b"5\n")
        assert exporter.buffered == 8
        length = await exporter.flush()
        assert exporter.buffered == 0
        return length

    expected = b"1\n" + b"2\n" * 1000 + b"3\n3\n4\n5\n"
    assert use(tmp_path / "x", work) == len(expected)
    assert (tmp_path / "x").read_bytes() == expected
    assert all(file.closed for file in files)


def test_a_large_file_goes_through_in_pieces(tmp_path: Path) -> None:
    """A page of many megabytes comes out byte for byte."""
    content = os.urandom(2**20) * 3 + b"end\n"

    async def work(exporter: FileExporter) -> int:
        exporter.write_file(temporary(content))
        return await exporter.flush()

    assert use(tmp_path / "x", work) == len(content)
    assert (tmp_path / "x").read_bytes() == content


def test_what_is_written_during_a_flush_waits_for_the_next(tmp_path: Path) -> None:
    """A flush answers for what was taken before it, and for no more."""

    async def work(exporter: FileExporter) -> tuple[int, int]:
        exporter.write(b"a" * 1000)
        flush = asyncio.ensure_future(exporter.flush())
        await asyncio.sleep(0)
        exporter.write(b"b" * 10)
        first = await flush
        assert exporter.buffered == 10
        return first, await exporter.flush()

    assert use(tmp_path / "x", work) == (1000, 1010)


def test_close_writes_the_rest(tmp_path: Path) -> None:
    """Nothing that was taken is lost by closing; closing twice is no harm."""

    async def main() -> None:
        exporter = FileExporter(str(tmp_path / "x"))
        await exporter.close()
        await exporter.open()
        exporter.write(b"x\n")
        await exporter.close()
        await exporter.close()

    asyncio.run(main())
    assert (tmp_path / "x").read_bytes() == b"x\n"


def test_synced_output_is_the_same(tmp_path: Path) -> None:
    """Waiting for the disk changes nothing of what is written."""

    async def work(exporter: FileExporter) -> int:
        exporter.write(b"x\n")
        return await exporter.flush(sync=True)

    assert use(tmp_path / "x", work) == 2


@pytest.mark.parametrize(
    ("name", "words"), [("none/x.jsonl", "there is no folder"), ("", "directory"), ("x" * 300, "name too long")]
)
def test_what_cannot_be_opened(tmp_path: Path, name: str, words: str) -> None:
    """A folder that is missing, a name that is a folder, a name too long: one line that names the output."""
    path = f"{tmp_path}/{name}"
    for attempt in (lambda: check_writable(path), lambda: use(path, writing(b"x"))):
        with pytest.raises(OutputError) as caught:
            attempt()
        assert str(caught.value).startswith(f"cannot write to {path}: ")
        assert words in str(caught.value).lower()
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    """A folder without permission is one line too."""
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        check_writable(str(tmp_path / "x"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk() -> None:
    """Where the disk is full the flush says so; what was written is not counted as kept."""

    async def main() -> None:
        exporter = FileExporter("/dev/full")
        await exporter.open()
        exporter.write(b"x\n")
        with pytest.raises(OutputError, match="No space left"):
            await exporter.flush()
        await exporter.close()

    asyncio.run(main())


@pytest.mark.parametrize("before", [None, b"", b"old"])
def test_checking_changes_nothing(tmp_path: Path, before: bytes | None) -> None:
    """Asking whether a file can be written leaves it as it was, or not there."""
    path = tmp_path / "x"
    if before is not None:
        path.write_bytes(before)
    check_writable(str(path))
    check_writable("-")
    assert (path.read_bytes() if path.exists() else None) == before


def test_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """The name "-" is standard output, which is left open."""

    async def work(exporter: FileExporter) -> int:
        exporter.write(b'{"a":1}\n')
        exporter.write_file(temporary(b'{"b":2}\n'))
        return await exporter.flush()

    assert use("-", work) == 16
    assert use("-", work, replace=True) == 16
    assert capfdbinary.readouterr().out == b'{"a":1}\n{"b":2}\n' * 2


@pytest.mark.parametrize("replace", [False, True])
def test_a_pipe(tmp_path: Path, replace: bool) -> None:
    """A pipe with a name is a stream, also where an earlier process wrote to it; looking whether it can be written ends
    nothing.
    """
    path = tmp_path / "x"
    os.mkfifo(path)

    async def main(position: int | None) -> None:
        exporter = FileExporter(str(path), replace=replace, trail=tmp_path / "trail")
        await exporter.open(position)
        exporter.write(b"1\n")
        exporter.write_file(temporary(b"2\n"))
        assert await exporter.flush(sync=True) == 4
        await exporter.close()

    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for position in (None, 1000):
        check_writable(str(path))
        asyncio.run(main(position))
        assert os.read(reader, 100) == b"1\n2\n"
    os.close(reader)


def test_a_pipe_without_a_reader(tmp_path: Path) -> None:
    """Nobody waits for one to come: one line says so."""
    os.mkfifo(tmp_path / "x")
    check_writable(str(tmp_path / "x"))
    with pytest.raises(OutputError, match=r"x: .*; nobody reads from it"):
        use(tmp_path / "x", writing(b"1\n"))


def test_a_pipe_whose_reader_has_gone(tmp_path: Path) -> None:
    """What is written then is an error, as it is on a full disk."""
    os.mkfifo(tmp_path / "x")
    reader = os.open(tmp_path / "x", os.O_RDONLY | os.O_NONBLOCK)

    async def work(exporter: FileExporter) -> None:
        os.close(reader)
        exporter.write(b"1\n")
        with pytest.raises(OutputError, match="x: Broken pipe"):
            await exporter.flush()

    use(tmp_path / "x", work)
