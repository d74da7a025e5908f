"""What is noted of a whole run, beside how far its outputs reach."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from scraper.shards.collector import Collector, Note


def test_an_earlier_process_note_stays_until_there_is_more(tmp_path: Path) -> None:
    """How long the run took so far, and that it is broken, are read from it before anything new is noted, and stay there
    should this process be killed.
    """
    path = tmp_path / "whole.json"
    path.write_bytes(msgspec.json.encode(Note(parts=[0], elapsed_s=12.5, broken=True)))

    def keep(note: Note) -> None:
        note.elapsed_s, note.broken = 20.0, False

    def noted() -> tuple[float, bool]:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
        return note.elapsed_s, note.broken

    async def main() -> None:
        collector = Collector([], [tmp_path / "part"], path, csv_formulas="escape", sync=False, keep=keep, warn=print)
        await collector.open()
        assert (collector.note.elapsed_s, collector.note.broken) == noted() == (12.5, True)
        await collector.collect()
        assert noted() == (20.0, False)
        await collector.close()

    asyncio.run(main())
