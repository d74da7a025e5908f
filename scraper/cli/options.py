"""Options and completions that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scraper.errors import ArgumentError


def complete_spider(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete a spider's name from the project's ``spiders/`` folder."""
    from scraper.loader import find_spiders, project_root

    found, _errors = find_spiders(project_root(Path.cwd()))
    return [each.name for each in found if each.name.startswith(incomplete)]


arguments_option = click.option(
    "-a", "arguments", multiple=True, metavar="NAME=VALUE", help="An argument of the spider; may be repeated."
)
settings_option = click.option(
    "-s", "options", multiple=True, metavar="SECTION.KEY=VALUE", help="A setting; may be repeated."
)


def parse_arguments(pairs: tuple[str, ...]) -> dict[str, str]:
    """Return ``NAME=VALUE`` strings as a mapping. Raises ArgumentError for one without "="."""
    arguments: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise ArgumentError(f"-a {pair}: write NAME=VALUE, such as -a max_pages=3")
        arguments[name.strip()] = value
    return arguments


def as_options(given: dict[str, Any]) -> list[str]:
    """Return the options that are settings of their own as -s options; they win over -s.

    Raises SettingsError, which names the option as it was typed.
    """
    from scraper.layers import Layer, merge

    named = {"frontier": "frontier.use", "shards": "shards.count", "log_level": "log.level", "log_format": "log.format"}
    options = []
    for key, name in named.items():
        if given[key] is not None:
            merge([Layer(f"--{key.replace('_', '-')}", {name: given[key]}, text=True)])
            options.append(f"{name}={given[key]}")
    return [*given["options"], *options]


def shown(name: str) -> str:
    """Return a file's absolute path as the user would type it: relative to the current folder where it is below it."""
    path = Path(name)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else name
