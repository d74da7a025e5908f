"""Spiders are found by name without being imported, and imported with errors that say where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scraper import Spider
from scraper.errors import SpiderError
from scraper.loader import find_spiders, load_spider, project_root

SPIDER = 'from scraper import Spider\n\n\nclass {title}(Spider):\n    name = "{name}"\n'


@pytest.fixture
def project(empty_folder: Path) -> Iterator[Path]:
    """An empty project in the current folder; what is imported from it is forgotten afterwards."""
    (empty_folder / "settings.toml").touch()
    (empty_folder / "spiders").mkdir()
    path, modules = list(sys.path), dict(sys.modules)
    for name in [name for name in modules if name.partition(".")[0] == "spiders"]:
        del sys.modules[name]
    yield empty_folder
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def write(path: Path, text: str = "") -> Path:
    """Write a file; without a text, a spider of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or SPIDER.format(title=path.stem.title(), name=path.stem), encoding="utf-8")
    return path


def refusal(target: str, start: Path) -> str:
    """What is said where a spider cannot be loaded."""
    with pytest.raises(SpiderError) as caught:
        load_spider(target, start)
    return str(caught.value)


class TestRoot:
    """The project's folder is that of the nearest settings.toml."""

    def test_parents(self, project: Path) -> None:
        """It is found from any folder below; the nearest one counts."""
        below = project / "a" / "b"
        below.mkdir(parents=True)
        assert project_root(below) == project
        (project / "a" / "settings.toml").touch()
        assert project_root(below) == project / "a"

    def test_none(self, empty_folder: Path) -> None:
        """Without one it is the folder itself."""
        assert project_root(empty_folder) == empty_folder


class TestFind:
    """Names, files and lines are read off the source."""

    def test_names(self, project: Path) -> None:
        """Every class with bases and a name is found, in folders below too, sorted by name; nothing is imported."""
        write(project / "spiders/b.py", "raise RuntimeError('imported')\n" + SPIDER.format(title="B", name="zebra"))
        write(project / "spiders/deep/a.py", SPIDER.format(title="A", name="ant"))
        write(project / "spiders/two.py", SPIDER.format(title="C", name="cat") + SPIDER.format(title="D", name="dog"))
        write(
            project / "spiders/typed.py",
            'class E(Spider):\n    name: str = "emu"\nclass F:\n    name = "no spider"\nclass G(Spider):\n    pass\n',
        )
        found, errors = find_spiders(project)
        assert errors == []
        assert [(each.name, str(each.path.relative_to(project / "spiders")), each.line) for each in found] == [
            ("ant", "deep/a.py", 4),
            ("cat", "two.py", 4),
            ("dog", "two.py", 9),
            ("emu", "typed.py", 1),
            ("zebra", "b.py", 5),
        ]

    def test_broken_files(self, project: Path) -> None:
        """A file that cannot be read is an error of its own; the others are found."""
        write(project / "spiders/good.py")
        write(project / "spiders/bad.py", "x = 1\nclass (\n")
        (project / "spiders/binary.py").write_bytes(b"\xff\xfe\x00")
        found, errors = find_spiders(project)
        assert [each.name for each in found] == ["good"]
        assert [str(error).partition(":")[0] for error in errors] == ["spiders/bad.py", "spiders/binary.py"]

    def test_hidden_files(self, project: Path) -> None:
        """What editors and notebooks keep beside a spider is no second one of its name."""
        path = write(project / "spiders" / "books.py")
        write(project / "spiders" / ".ipynb_checkpoints" / "books-checkpoint.py", path.read_text())
        (project / "spiders" / ".#books.py").symlink_to("me@here.1234")
        assert [each.path for each in find_spiders(project)[0]] == [path]
        assert find_spiders(project)[1] == []

    def test_no_folder(self, empty_folder: Path) -> None:
        """Where there is no spiders folder there are no spiders."""
        assert find_spiders(empty_folder) == ([], [])


class TestByName:
    """A name is a spider of the project."""

    def test_class(self, project: Path) -> None:
        """The class is that of the name, though others stand beside it, and belongs to a module of the project."""
        text = SPIDER.format(title="One", name="one") + SPIDER.format(title="Two", name="two")
        write(project / "spiders/both.py", text)
        cls = load_spider("two", project)
        assert (cls.__name__, cls.name, cls.__module__) == ("Two", "two", "spiders.both")
        assert issubclass(cls, Spider)

    def test_broken_neighbour(self, project: Path) -> None:
        """A broken file does not keep another's spider from running."""
        write(project / "spiders/good.py")
        write(project / "spiders/bad.py", "class (\n")
        assert load_spider("good", project).name == "good"
        assert refusal("other", project).startswith("spiders/bad.py:1: syntax error")

    def test_project_modules(self, project: Path) -> None:
        """A spider imports the project's own modules, from its root and from beside it."""
        write(project / "prices.py", "CURRENCY = 'GBP'\n")
        write(project / "spiders/__init__.py", "# a package\n")
        write(project / "spiders/common.py", "LIMIT = 3\n")
        text = "from prices import CURRENCY\nfrom .common import LIMIT\n" + SPIDER.format(title="A", name="a")
        write(project / "spiders/a.py", text + "    both = (CURRENCY, LIMIT)\n")
        for target in ("a", "spiders/a.py"):
            assert vars(load_spider(target, project))["both"] == ("GBP", 3)

    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (["books", "quotes"], 'no spider is named "boks"; did you mean "books"?'),
            (["cats", "dogs"], 'no spider is named "boks"; there are cats, dogs'),
            ([], 'no spider is named "boks"; there are none in spiders (`scrape genspider` makes one)'),
        ],
    )
    def test_unknown(self, project: Path, names: list[str], said: str) -> None:
        """The nearest name is offered, or all, or how to make one."""
        for name in names:
            write(project / f"spiders/{name}.py")
        assert refusal("boks", project) == said

    def test_doubled(self, project: Path) -> None:
        """Two of one name are refused with both places, in one file or in two."""
        write(project / "spiders/a.py", SPIDER.format(title="A", name="a") + SPIDER.format(title="B", name="a"))
        assert refusal("a", project).startswith('two spiders are named "a": spiders/a.py:4 and spiders/a.py:9;')

    def test_no_subclass(self, project: Path) -> None:
        """A class that looks like a spider and is none is named."""
        write(project / "spiders/a.py", 'class A(object):\n    name = "a"\n')
        assert refusal("a", project) == 'spiders/a.py: the class named "a" is no subclass of scraper.Spider'


class TestByPath:
    """A path is a file with one spider."""

    @pytest.mark.parametrize("name", ["lone.py", "scraper.py", "json.py", "two words.py"])
    def test_any_name(self, empty_folder: Path, project: Path, name: str) -> None:
        """The file may have any name: no module of another is hidden by it, ours least of all."""
        before = {module: sys.modules.get(module) for module in ("scraper", "json")}
        write(empty_folder / name, SPIDER.format(title="A", name="a"))
        assert load_spider(name, empty_folder).name == "a"
        assert {module: sys.modules.get(module) for module in before} == before

    def test_imported_spiders_do_not_count(self, project: Path) -> None:
        """Spiders that the file imports, private ones, and those without a name are not what it holds."""
        write(project / "spiders/__init__.py", "# a package\n")
        write(project / "spiders/first.py")
        text = "from spiders.first import First\nclass _Base(First):\n    pass\nclass Plain(First):\n    name = ''\n"
        path = write(project / "spiders/second.py", text + "class Second(_Base):\n    name = 'second'\n")
        assert load_spider(str(path), project).name == "second"

    def test_several(self, project: Path) -> None:
        """A file of several is refused, since the path does not say which."""
        text = SPIDER.format(title="One", name="one") + SPIDER.format(title="Two", name="two")
        path = write(project / "both.py", text)
        assert refusal(str(path), project).endswith("both.py: holds several spiders (one, two); keep one a file")

    def test_none(self, project: Path) -> None:
        """A file without a spider, and one that is not there, are named."""
        write(project / "empty.py", "x = 1\n")
        assert refusal("empty.py", project) == "empty.py: there is no Spider class with a name in it"
        assert refusal("nowhere.py", project) == "there is no file nowhere.py"

    def test_dataclass_items(self, project: Path) -> None:
        """A file's module is registered while it runs, as dataclasses with postponed annotations need it."""
        text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        text += SPIDER.format(title="A", name="a").replace("\n\n\n", "\n@dataclass\nclass Item:\n    n: int\n")
        assert load_spider(str(write(project / "a.py", text)), project).name == "a"


class TestErrors:
    """Whatever importing a file raises is one line with its place."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("import nowhere_to_be_found", "bad.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
            ("def f():\n    raise ValueError('x')\nf()", "bad.py:2: ValueError: x"),
            ("raise SystemExit(3)", "bad.py:1: SystemExit: 3"),
            ("class A(\n", "bad.py:1: syntax error: '(' was never closed: class A("),
            ("return", "bad.py:1: syntax error: 'return' outside function: return"),
        ],
    )
    def test_place(self, project: Path, text: str, said: str) -> None:
        """The line is the deepest one in the file itself, by relative and by whole path."""
        path = write(project / "bad.py", text + "\n")
        assert refusal("bad.py", project) == refusal(str(path), project) == said

    def test_elsewhere(self, project: Path) -> None:
        """A syntax error in a module that a spider imports is shown where it is."""
        write(project / "spiders/a.py", "import mistaken\n" + SPIDER.format(title="A", name="a"))
        write(project / "mistaken.py", "\nx = = 1\n")
        assert refusal("a", project) == "mistaken.py:2: syntax error: invalid syntax: x = = 1"

    def test_null_byte(self, project: Path) -> None:
        """An error without a line is shown without one."""
        (project / "bad.py").write_bytes(b"x = 1\0")
        assert refusal("bad.py", project) == "bad.py: syntax error: source code string cannot contain null bytes"

    def test_interrupt(self, project: Path) -> None:
        """Ctrl-C during an import is no error of the spider's."""
        write(project / "slow.py", "raise KeyboardInterrupt\n")
        with pytest.raises(KeyboardInterrupt):
            load_spider("slow.py", project)
