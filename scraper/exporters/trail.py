"""What of an output no commit covers yet: noted before it is written, so that a resumed run cuts off that and nothing else.

A file may have other writers, before, beside and after a run. So the run notes in a file of its own where its blocks have
come to lie since the last commit, and the block it is about to write, byte by byte: a kill may leave any part of that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct

from scraper.errors import OutputError, StateError

_PART_BYTES = 2**20
_BESIDE_BYTES = 16 * 2**20  # what others may have appended in the instant between a note and its block


class _Note(Struct):
    """``own`` are the extents that hold, ``start`` is where a block of ``size`` bytes, behind this in the file, was to go.

    ``start`` is -1 before anything was written, ``end`` the output's length where the run has closed it. ``boot`` is the
    machine's; ``is_synced`` says that the note has outlived a power failure, if there was one. ``committed`` is how far the
    output reached with a commit that had ended.
    """

    boot: str = ""
    own: list[tuple[int, int]] = []
    start: int = -1
    size: int = 0
    end: int = -1
    is_synced: bool = False
    committed: int = 0


class Trail:
    """The note of one output, in the file ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._boot = _boot()
        self._found = _Note()
        self._block = b""
        self.committed = 0

    def open(self) -> None:
        """Read what an earlier process noted; begin a note where there is none. Raises StateError."""
        try:
            self._file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
            head, _, block = self._file.read().partition(b"\n")
        except OSError as error:
            raise StateError(f"cannot use {self._path}: {error.strerror}") from None
        try:
            self._found = msgspec.json.decode(head, type=_Note)
        except msgspec.DecodeError:
            self._found = _Note()  # new, or lost in a power failure
        self._block = block[: self._found.size]

    def begin(self) -> None:
        """Note that nothing is written yet. Raises StateError."""
        self._note(_Note(self._boot))

    def note(self, own: list[tuple[int, int]], start: int, block: bytes = b"", *, sync: bool = False) -> None:
        """Note that ``block`` is about to be written, at ``start`` or behind it. Raises StateError.

        With ``sync``, wait until the note has reached the disk.
        """
        self._note(_Note(self._boot, own, start, len(block), is_synced=sync, committed=self.committed), block)

    def end(self, own: list[tuple[int, int]], end: int) -> None:
        """Note that the run has closed the output. Raises StateError."""
        self._note(_Note(self._boot, own, end, end=end, committed=self.committed))

    def close(self) -> None:
        """Close the note's file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def is_fresh(self) -> bool:
        """Whether the earlier process had written nothing, nor emptied the output."""
        return self._found.start < 0 and self._found.boot != ""

    def check_age(self, name: str, position: int | None) -> None:
        """Raise StateError where more was committed than the state says: what was written in between is noted no more."""
        note = self._found
        if note.committed > (position or 0) or (position is None and (note.own or note.size)):
            way = (
                "begin a new run"
                if position is None
                else f"move what that holds behind byte {position:,} to another file"
            )
            raise StateError(
                f"the state in {self._path.parent} is older than {name}, of which the run had written more by then: put the "
                f"newer one back, or {way}"
            )

    def cut_at(self, output: int, name: str, position: int) -> int:
        """Return from where on an output holds nothing but what this run wrote behind ``position``; else its length.

        A torn line at the end is nobody's: it is cut off, too. ``output`` is its descriptor. Raises OutputError where cutting
        there would leave some of what the run wrote, or where it cannot be known, StateError where the state is too old.
        """
        end = os.fstat(output).st_size
        if end == position:
            return end
        self.check_age(name, position)
        refusal = OutputError(
            f"what {name} holds behind byte {position:,} was not (all) written by this run: move it to another file to resume"
        )
        note = self._found
        own = [(max(start, position), stop) for start, stop in note.own if stop > position]
        if self._block and note.start >= position:
            found = os.pread(output, len(self._block) + _BESIDE_BYTES, note.start)
            at = found.find(self._block)
            same = _alike(found, self._block)
            if at >= 0:
                own.append((note.start + at, note.start + at + len(self._block)))
            elif same and _end_of_lines(output, note.start + same, end) == note.start + same:
                own.append((note.start, note.start + same))
            elif b"\n" in self._block[:same] or (same and found[same : same + 1] == b"\n"):
                raise refusal  # a part of it, and another writer's data behind
        end = _end_of_lines(output, max([stop for _, stop in own], default=position), end)
        for start, stop in sorted(own, reverse=True):
            if stop != end:
                raise refusal
            end = start
        # After a power failure a note that was not waited for may be older than the output.
        if end > position and note.boot != self._boot and note.end != position and not note.is_synced:
            raise refusal
        return end

    def _note(self, note: _Note, block: bytes = b"") -> None:
        if self._file is None:
            return
        view = memoryview(msgspec.json.encode(note) + b"\n" + block)
        written = 0
        try:
            while written < len(view):
                written += os.pwrite(self._file.fileno(), view[written:], written)
            if note.is_synced:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise StateError(f"cannot write {self._path}: {error.strerror}") from None


def _end_of_lines(output: int, start: int, end: int) -> int:
    """Return where the last whole line of a part of a file ends: its start where there is none."""
    while end > start:
        at = max(start, end - _PART_BYTES)
        found = os.pread(output, end - at, at).rfind(b"\n")
        if found >= 0:
            return at + found + 1
        end = at
    return start


def _alike(one: bytes, other: bytes) -> int:
    """Return how many bytes two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
