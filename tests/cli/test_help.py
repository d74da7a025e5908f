"""``--help`` and completion: quick, and of use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import Project

HEAVY = {"aiohttp", "lxml", "parsel", "structlog", "rich", "uvloop", "asyncio", "msgspec"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_imports_little(arguments: list[str]) -> None:
    """The help needs none of the modules that a run needs, so that it is there at once."""
    program = (
        "import sys; from scraper.cli import main\n"
        f"sys.argv = {['scrape', *arguments]!r}\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: scrape ")
    loaded = set(done.stderr.split())
    assert "scraper.cli.run" in loaded
    assert loaded & HEAVY == set()


def test_commands(project: Project) -> None:
    """Each command is listed with a whole sentence, and has a help of its own."""
    done = project.scrape("--help")
    assert done.status == 0
    _, _, rows = done.out.partition("Commands:\n")
    listed = dict(row.split(maxsplit=1) for row in rows.splitlines())
    wanted = "collect run list init genspider shell fetch parse settings jobs demo version"
    assert listed.keys() == set(wanted.split())
    assert [text for text in listed.values() if text.endswith("...")] == []


def test_options_of_run(project: Project) -> None:
    """``run --help`` names every option of the interface, without a spider and with one."""
    done = project.scrape("run", "-h")
    assert done.status == 0
    wanted = "-a -s -o -O --frontier --job --resume --stats --demo -q --log-level --log-format"
    assert [option for option in wanted.split() if f"{option} " not in done.out] == []


def test_arguments_of_spider(project: Project) -> None:
    """``run SPIDER --help`` lists the spider's arguments with type and default, as they are typed on the command line."""
    project.write(
        "spiders/typed.py",
        """\
from __future__ import annotations
from datetime import date
from enum import Enum
from pathlib import Path
from typing import ClassVar, Literal
from scraper import Spider

class Colour(Enum):
    RED = "red"
    BLUE = "blue"

class Typed(Spider):
    name = "typed"
    pages: int = 50
    rate: float = 0.5
    all: bool = False
    city: str
    tags: list[str] = ["a", "b"]
    order: Literal["up", "down"] = "up"
    colour: Colour = Colour.RED
    since: date = date(2024, 1, 31)
    folder: Path = Path("data")
    most: int | None = None
    limit: ClassVar[int] = 3
    _own: int = 3
""",
    )
    done = project.scrape("run", "typed", "--help")
    assert done.status == 0
    _, _, text = done.out.partition('Arguments of "typed" (-a NAME=VALUE):\n')
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert rows == [
        "pages: int default 50",
        "rate: float default 0.5",
        "all: bool default no",
        "city: str required",
        "tags: list[str] default a,b",
        "order: 'up' | 'down' default up",
        "colour: 'red' | 'blue' default red",
        "since: date default 2024-01-31",
        "folder: Path default data",
        "most: int | None default none",
    ]


def test_no_arguments(project: Project) -> None:
    """A spider without arguments says so."""
    project.spider("plain", "http://127.0.0.1:9/")
    assert 'The spider "plain" takes no arguments.' in project.scrape("run", "plain", "--help").out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("scrape run b", ["plain,books", "plain,buch"]),
        ("scrape parse --spider q", ["plain,quotes"]),
        ("scrape ge", ["plain,genspider"]),
        ("scrape run books --log-l", ["plain,--log-level"]),
    ],
)
def test_completion(project: Project, words: str, completed: list[str]) -> None:
    """The shell completes spiders' names, in the order of the alphabet, also while one of them is broken."""
    for name in ("books", "quotes", "buch"):
        project.spider(name, "http://127.0.0.1:9/")
    project.write("spiders/broken.py", "class Broken(\n")
    given = words.split()
    env = {"_SCRAPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(given) - 1)}
    done = project.scrape(env=env)
    assert (done.status, done.err) == (0, "")
    assert [line for line in done.out.splitlines() if line] == completed
