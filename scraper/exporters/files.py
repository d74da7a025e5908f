"""Appending to one file in large blocks, by aiofiles and a thread; or to standard output or another stream."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import aiofiles

from scraper.errors import OutputError, StateError
from scraper.exporters.trail import Trail

T = TypeVar("T")
_COPY_BYTES = 2**20


class FileExporter:
    """One output file, written in whole records; the name "-" is standard output. A pipe or a device is a stream like that.

    ``replace`` empties the file with the first flush, not before: a run that never starts leaves it as it was. ``trail`` is
    the file in which a run that can be resumed notes what it writes.

    Formats subclass it with an ``encode`` of their own.
    """

    def __init__(self, name: str, *, replace: bool = False, trail: Path | None = None) -> None:
        self.name = name
        self._replace = replace
        self._is_stream = name == "-" or _is_stream(name)
        self._trail = Trail(trail) if trail is not None and not self._is_stream else None
        self._own: list[tuple[int, int]] = []
        self._first = 0
        self._is_covered = True
        self._flushed = 0
        self._sync = False
        self._blocks: list[bytes | IO[bytes]] = []
        self._file: Any = None
        # Not the event loop's threads: a spider's own to_thread() may hold all of those.
        self._thread = ThreadPoolExecutor(1, "output")
        self._length = 0
        self._began = 0
        self._is_broken = False
        self.buffered = 0

    @property
    def length(self) -> int:
        """Where what this run wrote ends in the output, that in the buffer left out."""
        return self._length

    @property
    def has_taken(self) -> bool:
        """Whether what the run gave it is in the output, or a part of that where no more could be written."""
        return not self._is_broken or self._length > self._began

    async def open(self, position: int | None = None) -> None:
        """Open the file: anew, or to go on at ``position``, where what this run wrote behind it is cut off.

        What others wrote there stays. Without a ``trail`` nobody knows who did, and all of it is cut off. A file that is
        appended to gets the end of its last line, should an earlier writer have left it without.
        """
        try:
            await self._open(position)
        except OSError as error:
            await self._release()
            raise _refused(self.name, error) from None
        except (OutputError, StateError):
            await self._release()
            raise

    async def _open(self, position: int | None) -> None:
        if self.name == "-":
            self._file = aiofiles.stdout_bytes
            return
        if self._is_stream:
            self._file = await aiofiles.open(self.name, "wb", buffering=0, opener=_open_at_once, executor=self._thread)
            os.set_blocking(self._file.fileno(), True)
            return
        self._file = await aiofiles.open(self.name, "a+b", buffering=0, executor=self._thread)
        if self._trail is not None:
            self._trail.open()
        if position is not None:
            await self._go_on_at(position)
            return
        if self._trail is not None:
            self._trail.check_age(self.name, None)
            self._trail.begin()
        if not self._replace:
            await self._mend_end()
        self._began = self._length

    async def _go_on_at(self, position: int) -> None:
        found = await self._file.seek(0, os.SEEK_END)
        if found < position:
            raise OutputError(
                f"{self.name} holds {found:,} bytes, but the run had written {position:,}: it was cut, moved or replaced; "
                "put it back to resume"
            )
        if position:
            await self._file.seek(position - 1)
            if await self._file.read(1) != b"\n":
                raise OutputError(
                    f"{self.name} has no end of a line at byte {position:,}, up to which the run had written: it was "
                    "replaced; put the run's own file back to resume"
                )
        if self._replace and self._trail is not None and not position and self._trail.is_fresh:
            return
        end = position
        if self._trail is not None:
            end = self._trail.cut_at(self._file.fileno(), self.name, position)
        if end < found:
            await self._file.truncate(end)
        if self._trail is not None:
            self._trail.committed = self._flushed = position
            self._trail.note([], end)
        self._replace = False
        await self._mend_end()

    async def _mend_end(self) -> None:
        self._length = await self._file.seek(0, os.SEEK_END)
        if self._length:
            await self._file.seek(self._length - 1)
            if await self._file.read(1) != b"\n":
                self._length += await self._file.write(b"\n")

    def write(self, block: bytes) -> None:
        """Take whole records into the buffer."""
        self._blocks.append(block)
        self.buffered += len(block)

    def write_file(self, file: IO[bytes]) -> None:
        """Take the whole records that a temporary file holds."""
        self._blocks.append(file)

    async def flush(self, *, sync: bool = False, is_part: bool = False) -> int:
        """Write what was taken before the call; return the file's length.

        What the call before has written counts as committed, unless it was ``is_part`` of what one commit is to cover.
        """
        if self._is_covered:
            self._own.clear()
            if self._trail is not None:
                self._trail.committed = self._flushed
        self._is_covered = not is_part
        self._flushed = await self._flush(sync)
        return self._flushed

    async def _flush(self, sync: bool) -> int:
        self._sync = sync
        blocks, self._blocks = self._blocks, []
        length, self._first = self._length, len(self._own)
        try:
            if blocks and not self._is_stream and not os.fstat(self._file.fileno()).st_nlink:
                raise OSError(0, "it was deleted while the run wrote to it")
            if self._replace and not self._is_stream:
                await self._file.truncate(0)
                self._replace = False
                if self._trail is not None:
                    self._trail.note([], 0)
            for is_data, run in groupby(blocks, lambda block: isinstance(block, bytes)):
                if is_data:
                    data = b"".join(cast("Iterable[bytes]", run))
                    await self._write_all(data)
                    self.buffered -= len(data)
                else:
                    for file in cast("Iterable[IO[bytes]]", run):
                        await self._copy(file)
            if sync and blocks and not self._is_stream:
                await self._in_thread(os.fsync, self._file.fileno())
        except (OSError, StateError) as error:
            self._is_broken = True
            await self._cut_to(length)
            if isinstance(error, StateError):
                raise
            raise _refused(self.name, error) from None
        return self._length

    async def _cut_to(self, length: int) -> None:
        """Leave no half record behind a flush that failed, unless others have written behind it."""
        if self._is_stream or self._replace:
            return
        with suppress(OSError, StateError):
            found = end = await self._file.seek(0, os.SEEK_END)
            while len(self._own) > self._first and self._own[-1][1] == end:
                end = self._own.pop()[0]
            if end < found:
                await self._file.truncate(end)
            self._length = length
            if self._trail is not None:
                self._trail.note(self._own, end)

    async def close(self) -> None:
        """Flush and close."""
        if self._file is None:
            return
        try:
            if self._blocks and not self._is_broken:
                await self._flush(sync=False)
            if self._trail is not None and not self._replace:  # what it has yet to replace it does when it goes on
                self._trail.end(self._own, self._length)
        finally:
            await self._release()

    async def _release(self) -> None:
        file, self._file = self._file, None
        if file is not None and self.name != "-":
            await file.close()
        self._thread.shutdown(wait=False)
        if self._trail is not None:
            self._trail.close()

    async def _in_thread(self, job: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job, *arguments)

    async def _copy(self, file: IO[bytes]) -> None:
        with file:
            file.seek(0)
            while block := await self._in_thread(file.read, _COPY_BYTES):
                await self._write_all(block)

    async def _write_all(self, data: bytes) -> None:
        if self.name == "-":
            self._length += len(data)
            await self._file.write(data)
            await self._file.flush()
            return
        await self._in_thread(self._append, self._file.fileno(), data)

    def _append(self, output: int, data: bytes) -> None:
        if self._trail is not None:
            size = os.fstat(output).st_size
            self._trail.committed = min(self._trail.committed, size)  # somebody may have emptied it
            self._trail.note(self._own, size, data, sync=self._sync)
        view = memoryview(data)
        while view:
            # A write may take a part only (a disk nearly full): the rest is tried until an error says why.
            written = os.write(output, view)
            view = view[written:]
            if self._is_stream:
                self._length += written
                continue
            # Others may append to the file: where the block came to lie is known behind it.
            self._length = os.lseek(output, 0, os.SEEK_CUR)
            start = self._length - written
            if len(self._own) > self._first and self._own[-1][1] == start:
                start = self._own.pop()[0]
            self._own.append((start, self._length))


def place_of(name: str) -> str:
    """Return an output's name as it is the same for one file, whichever way leads there."""
    return name if name == "-" else os.path.realpath(name)


def check_writable(name: str) -> None:
    """Raise OutputError where the file cannot be opened for writing; leaves nothing behind and changes nothing."""
    if name == "-":
        return
    path = Path(name)
    try:
        if path.is_fifo():
            # To open it would wait for a reader, and to close it would be the end of what that reads.
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise _refused(name, error) from None


def _is_stream(name: str) -> bool:
    try:
        mode = Path(name).stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _open_at_once(name: str, flags: int) -> int:
    """Open a pipe that somebody reads from, or raise OSError: no signal would end the wait for a reader."""
    return os.open(name, flags | os.O_NONBLOCK)


def _refused(name: str, error: OSError) -> OutputError:
    where = "standard output" if name == "-" else name
    hint = ""
    if isinstance(error, FileNotFoundError):
        hint = f"; there is no folder {Path(name).parent}"
    elif error.errno == errno.ENXIO:
        hint = "; nobody reads from it"
    return OutputError(f"cannot write to {where}: {error.strerror or error}{hint}")
