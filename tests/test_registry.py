"""Names of parts lead to classes, and wrong ones to a clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from scraper.errors import OutputError, UsageError
from scraper.exporters.csv import CsvExporter
from scraper.exporters.jsonl import JsonlExporter
from scraper.registry import DOWNLOADERS, EXPORTERS, FRONTIERS, exporter_for, load, make


@pytest.mark.parametrize("target", [*DOWNLOADERS.values(), *EXPORTERS.values(), *FRONTIERS.values()])
def test_everything_registered_is_there(target: str) -> None:
    """Each registered name can be imported."""
    assert isinstance(load(target), type)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("-", JsonlExporter),
        ("a.jsonl", JsonlExporter),
        ("dir.csv/a.JL", JsonlExporter),
        ("a.ndjson", JsonlExporter),
        ("a.b.csv", CsvExporter),
        ("A.CSV", CsvExporter),
    ],
)
def test_the_suffix_picks_the_format(name: str, kind: type) -> None:
    """The last suffix counts, in any case; standard output is JSON Lines."""
    assert exporter_for(name) is kind


@pytest.mark.parametrize("name", ["a.xlsx", "a", ".jsonl", "dir.csv/a", ""])
def test_an_unknown_suffix(name: str) -> None:
    """A name without a known suffix is refused with the suffixes there are."""
    with pytest.raises(OutputError, match=r"no format.*\.jsonl.*\.csv"):
        exporter_for(name)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module:X", "No module named 'no_such_module'"),
        ("scraper.urls:Nothing", "the module scraper.urls has no Nothing"),
        ("broken_module:X", "AttributeError: module 'json' has no attribute 'nothing'"),
        ("broken_syntax:X", "SyntaxError"),
        ("broken_exit:X", "SystemExit: gone"),
        ("broken_import:X", "No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, words: str) -> None:
    """A missing module, a missing class and a module that fails are three different lines."""
    (tmp_path / "broken_module.py").write_text("import json\njson.nothing\n")
    (tmp_path / "broken_syntax.py").write_text("def\n")
    (tmp_path / "broken_exit.py").write_text("raise SystemExit('gone')\n")
    (tmp_path / "broken_import.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError) as caught:
        load(target)
    assert str(caught.value).startswith(f"cannot import {target}: {words}")


@pytest.mark.parametrize("target", ["scraper.registry:EXPORTERS", "scraper:__version__"])
def test_what_is_no_class(target: str) -> None:
    """Something else of a module, an instance too, is told from a class."""
    with pytest.raises(UsageError) as caught:
        make(target, {}, "[[pipelines]]")
    assert str(caught.value) == f"[[pipelines]]: {target} is no class"
