"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scraper.settings import SECTIONS

ROOT = Path(__file__).parent.parent
MODULES = [
    path for path in sorted((ROOT / "scraper").rglob("*.py")) if "demo" not in path.relative_to(ROOT / "scraper").parts
]
MOST_ATTRIBUTES = 30  # SHARED_KEYS_MAX_SIZE in CPython's dictobject.c
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SETTINGS = [f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__struct_fields__]


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Yield the public functions, classes and methods that have no docstring."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            overloads = [each for each in node.decorator_list if ast.unparse(each).endswith(("overload", ".setter"))]
            if ast.get_docstring(node) is None and not overloads:
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_name_has_a_docstring(path: Path) -> None:
    """Each module, and each public class, function and method in it, says what it promises."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) is not None
    assert list(undocumented(tree.body)) == []


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the names that a class sets on ``self``."""
    names = [each for each in ast.walk(node) if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)]
    return {each.attr for each in names if isinstance(each.value, ast.Name) and each.value.id == "self"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_class_of_many_attributes_has_slots(path: Path) -> None:
    """Past thirty, CPython 3.11 keeps a dictionary for them, and looks there for each method that is called: 1 % of a page."""
    classes = [each for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(each, ast.ClassDef)]
    crowded = [
        each.name
        for each in classes
        if len(attributes(each)) > MOST_ATTRIBUTES and "__slots__ =" not in "".join(map(ast.unparse, each.body))
    ]
    assert not crowded


def test_every_setting_is_in_the_docs() -> None:
    """Each section's keys stand on a page of docs/, in code style, on the page that names their section."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
    missing = []
    for name in SETTINGS:
        section, key = name.split(".")
        full = re.compile(rf"`{section}\.{key}`")
        short = re.compile(rf"^\s*\|?\s*`?{key}`?\s*[=|]", re.MULTILINE)
        if not any(full.search(text) or (f"[{section}]" in text and short.search(text)) for text in pages.values()):
            missing.append(name)
    assert missing == [], f"on none of the pages {', '.join(pages) or '(there are none)'}"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_sleeps(path: Path) -> None:
    """Tests wait for events or turn a clock of their own; asyncio.sleep(0) only lets the loop turn."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    sleeps = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] == "sleep"
        and ast.unparse(node) != "asyncio.sleep(0)"
    ]
    assert sleeps == []
