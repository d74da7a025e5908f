"""CSV: a header, then a row for each item, however the pages of a crawl come in."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from scraper.errors import OutputError
from scraper.exporters.csv import CsvExporter


async def write(path: Path, items: Sequence[Any], *, replace: bool = False) -> list[str]:
    """Write items to a file and close it; return what was warned of."""
    warnings: list[str] = []
    exporter = CsvExporter(str(path), replace=replace, warn=warnings.append)
    await exporter.open()
    try:
        for item in items:
            exporter.write(exporter.encode(item))
        await exporter.flush()
    finally:
        await exporter.close()
    return warnings


def rows_of(path: Path) -> list[list[str]]:
    """Read a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@dataclass
class Book:
    title: str
    price: Decimal


def test_a_header_and_rows(tmp_path: Path) -> None:
    """The first item's keys are the columns, in its order; lines end as RFC 4180 says."""
    path = tmp_path / "x.csv"
    asyncio.run(write(path, [Book("A", Decimal("1.50")), Book("B", Decimal(2))]))
    assert path.read_bytes() == b"title,price\r\nA,1.50\r\nB,2\r\n"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("a,b", "a,b"),
        ('say "x"', 'say "x"'),
        ("two\nlines", "two\nlines"),
        ("two\r\nlines", "two\r\nlines"),
        ("ünï 中\u2028", "ünï 中\u2028"),
        ("\ud800", "\ufffd"),
        ("", ""),
        (None, ""),
        (True, "true"),
        (1.5, "1.5"),
        ([1, "ü"], '[1,"ü"]'),
        ({"a": None}, '{"a":null}'),
    ],
)
def test_cells(tmp_path: Path, value: Any, cell: str) -> None:
    """Text stands as it is, quoted where need be; numbers, truths and nested values as in JSON; nothing as nothing."""
    path = tmp_path / "x.csv"
    asyncio.run(write(path, [{"n": 1, "v": value}]))
    assert rows_of(path) == [["n", "v"], ["1", cell]]


def test_items_with_other_keys(tmp_path: Path) -> None:
    """A missing key is an empty cell; a key that is no column is left out."""
    path = tmp_path / "x.csv"
    asyncio.run(write(path, [{"a": 1, "b": 2}, {"b": 3}, {"c": 4, "b": 5, "a": 6}]))
    assert rows_of(path) == [["a", "b"], ["1", "2"], ["", "3"], ["6", "5"]]


def test_keys_without_a_column_are_told_once(tmp_path: Path) -> None:
    """One warning names the file and the keys of the first item that has some, be the columns the file's or an item's."""
    path = tmp_path / "x.csv"
    items = [{"a": 1}, {"a": 1, "c": 2, "b": 3}, {"d": 4}]
    warned = [f"{path} has no column for c, b: left out"]
    assert asyncio.run(write(path, items)) == warned
    assert asyncio.run(write(path, items)) == warned
    assert rows_of(path) == [["a"], *[["1"], ["1"], [""]] * 2]
    assert asyncio.run(write(path, items[:1])) == []


def test_a_file_of_quite_other_columns(tmp_path: Path) -> None:
    """A file that is appended to, and has a column for none of an item's keys, is left as it is."""
    path = tmp_path / "x.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(OutputError, match=r"x\.csv: its columns are x, y, the items' s, t"):
        asyncio.run(write(path, [{"s": 1, "t": 2}]))
    assert path.read_text() == "x,y\n1,2\n"


def test_going_on_with_an_item_of_other_columns(tmp_path: Path) -> None:
    """The columns are the run's own then, and an item may have none of them."""
    path = tmp_path / "x.csv"
    path.write_bytes(b"x\r\n1\r\n")

    async def main() -> None:
        exporter = CsvExporter(str(path))
        await exporter.open(path.stat().st_size)
        exporter.write(exporter.encode({"s": 1}))
        await exporter.close()

    asyncio.run(main())
    assert rows_of(path) == [["x"], ["1"], [""]]


def test_appending_keeps_the_header(tmp_path: Path) -> None:
    """A file that is appended to keeps its columns, also where the header has a byte order mark or two lines."""
    path = tmp_path / "x.csv"
    for text in ("b,a\r\n1,2\r\n", "\ufeffb,a\r\n1,2", '"b","a"\n1,2\n'):
        path.write_text(text, encoding="utf-8", newline="")
        asyncio.run(write(path, [{"a": 3, "b": 4, "c": 5}]))
        assert rows_of(path)[1:] == [["1", "2"], ["4", "3"]]


def test_replacing_starts_anew(tmp_path: Path) -> None:
    """A file that is replaced gets the new items' header."""
    path = tmp_path / "x.csv"
    path.write_text("b,a\n1,2\n")
    asyncio.run(write(path, [{"z": 1}], replace=True))
    assert rows_of(path) == [["z"], ["1"]]


@pytest.mark.parametrize("first", [0, 1])
def test_the_header_comes_first_in_whatever_order_pages_are_done(tmp_path: Path, first: int) -> None:
    """Records are written in the order in which pages are settled, not encoded: the header is above them all the same."""

    async def main() -> None:
        exporter = CsvExporter(str(tmp_path / "x.csv"))
        await exporter.open()
        records = [exporter.encode({"n": 0}), exporter.encode({"n": 1})]
        exporter.write(records[first])
        await exporter.flush()
        exporter.write(records[1 - first])
        await exporter.close()

    asyncio.run(main())
    assert rows_of(tmp_path / "x.csv") == [["n"], [str(first)], [str(1 - first)]]


def test_the_header_comes_before_a_large_page(tmp_path: Path) -> None:
    """A page whose records waited in a file is written below the header too."""

    async def main() -> None:
        exporter = CsvExporter(str(tmp_path / "x.csv"))
        await exporter.open()
        file = TemporaryFile()  # noqa: SIM115 - the exporter closes it
        file.write(exporter.encode({"n": 1}))
        exporter.write_file(file)
        exporter.write(exporter.encode({"n": 2}))
        await exporter.close()

    asyncio.run(main())
    assert rows_of(tmp_path / "x.csv") == [["n"], ["1"], ["2"]]


def test_an_item_without_keys(tmp_path: Path) -> None:
    """An empty first item is a line of nothing, and no error."""
    asyncio.run(write(tmp_path / "x.csv", [{}, {}]))
    assert [row for row in csv.reader(io.StringIO((tmp_path / "x.csv").read_text())) if row] == []


def test_a_file_that_is_no_csv(tmp_path: Path) -> None:
    """A file whose header cannot be read is not appended to."""
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe\x00,\n")
    with pytest.raises(OutputError, match=r"x\.csv: its header cannot be read"):
        asyncio.run(write(path, [{"a": 1}]))
