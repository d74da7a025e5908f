"""Finding spiders: by name in the project's ``spiders/`` folder, or in a ``.py`` file; importing them with clear errors."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from msgspec import Struct

from scraper.errors import SpiderError, story_of
from scraper.layers import find_file
from scraper.spider import Spider

FOLDER = "spiders"


class Found(Struct, frozen=True):
    """A spider as its source tells: its name, its file, the line of its class. Nothing has been imported."""

    name: str
    path: Path
    line: int


def project_root(start: Path) -> Path:
    """Return the folder of the nearest settings.toml, or ``start`` where there is none."""
    file = find_file(start)
    return file.parent if file is not None else start


def find_spiders(root: Path) -> tuple[list[Found], list[SpiderError]]:
    """Return the spiders below ``root/spiders``, sorted by name, and an error for each file that cannot be read."""
    found: list[Found] = []
    errors: list[SpiderError] = []
    folder = root / FOLDER
    for path in sorted(folder.rglob("*.py")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # copies and locks of editors and notebooks, which no name could import
        try:
            found += _names_in(path)
        except SpiderError as error:
            errors.append(error)
    return sorted(found, key=lambda each: each.name), errors


def load_spider(target: str, start: Path) -> type[Spider]:
    """Return the spider class that ``target`` names: a spider's name, or the path of a ``.py`` file.

    Raises SpiderError: one line that says what is missing, broken or doubled, and where.
    """
    if target.endswith(".py"):
        return _only_one(Path(target))
    root = project_root(start)
    found, errors = find_spiders(root)
    named = [each for each in found if each.name == target]
    if len(named) > 1:
        raise two_of_one_name(named)
    if not named:
        if errors:
            raise errors[0]
        raise SpiderError(_unknown(target, [each.name for each in found], root))
    _make_importable(root)
    return _class_named(_import(named[0].path.resolve()), target, named[0].path)


def two_of_one_name(found: Sequence[Found]) -> SpiderError:
    """Return the error that says where the spiders of one name are."""
    places = " and ".join(f"{_shown(each.path)}:{each.line}" for each in found)
    return SpiderError(f'two spiders are named "{found[0].name}": {places}; give one of them another name')


def _names_in(path: Path) -> list[Found]:
    """Read the names of a file's spiders off its source: string ``name`` attributes of its classes."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise _syntax_error(path, error) from None
    except (OSError, ValueError) as error:
        raise SpiderError(f"{_shown(path)}: {error}") from None
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.bases:
            for statement in node.body:
                name = _assigned_name(statement)
                if name is not None:
                    found.append(Found(name, path, node.lineno))
    return found


def _assigned_name(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return None
    is_name = any(isinstance(target, ast.Name) and target.id == "name" for target in targets)
    return value.value if is_name and isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _only_one(path: Path) -> type[Spider]:
    if not path.is_file():
        raise SpiderError(f"there is no file {path}")
    # Last: a lone spider may be called json.py, and hide no module of Python's.
    _make_importable(path.resolve().parent, first=False)
    _make_importable(project_root(Path.cwd()))
    module = _import(path.resolve())
    classes = _classes_in(module)
    if len(classes) == 1:
        return classes[0]
    if not classes:
        raise SpiderError(f"{path}: there is no Spider class with a name in it")
    raise SpiderError(f"{path}: holds several spiders ({', '.join(cls.name for cls in classes)}); keep one a file")


def _class_named(module: ModuleType, name: str, path: Path) -> type[Spider]:
    for cls in _classes_in(module):
        if cls.name == name:
            return cls
    raise SpiderError(f'{_shown(path)}: the class named "{name}" is no subclass of scraper.Spider')


def _classes_in(module: ModuleType) -> list[type[Spider]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Spider)
        and value.__module__ == module.__name__
        and value.name
        and not value.__name__.startswith("_")
    ]


def _import(path: Path) -> ModuleType:
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise _syntax_error(Path(error.filename or path), error) from None
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f":{frames[-1].lineno}" if frames else ""
        raise SpiderError(f"{_shown(path)}{line}: {story_of(error)}") from error
    return module


def _module_name(path: Path) -> str:
    """Return ``spiders.books`` for a file of the project, and for any other a name that hides no module.

    A lone spider may well be called scraper.py or json.py.
    """
    root = project_root(Path.cwd()).resolve()
    if path.is_relative_to(root / FOLDER):
        return ".".join(path.relative_to(root).with_suffix("").parts)
    return f"__spider__.{path.stem}"


def _make_importable(folder: Path, *, first: bool = True) -> None:
    """Let spiders and settings import the project's own modules, such as ``pipelines.prices``."""
    if str(folder) not in sys.path:
        sys.path.insert(0 if first else len(sys.path), str(folder))


def _syntax_error(path: Path, error: SyntaxError) -> SpiderError:
    line = (error.text or "").strip()
    place = f"{_shown(path)}:{error.lineno}" if error.lineno else _shown(path)
    return SpiderError(f"{place}: syntax error: {error.msg}" + (f": {line}" if line else ""))


def _unknown(target: str, names: list[str], root: Path) -> str:
    near = get_close_matches(target, names, n=1)
    if near:
        return f'no spider is named "{target}"; did you mean "{near[0]}"?'
    if names:
        return f'no spider is named "{target}"; there are {", ".join(names)}'
    return f'no spider is named "{target}"; there are none in {_shown(root / FOLDER)} (`scrape genspider` makes one)'


def _shown(path: Path) -> str:
    """Return the path as the user would type it: relative to the current folder where it is below it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
