"""``scrape init``, ``genspider``, ``list`` and ``settings``: a project and what is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from scraper.cli.options import complete_spider, settings_option
from scraper.errors import UsageError

_SPIDER = """\
from scraper import Response, Spider


class {class_name}(Spider):
    name = "{name}"
    start_urls = ["{url}"]
    allowed_domains = ["{domain}"]

    def parse(self, response: Response):
        yield {{"url": response.url, "title": response.css("title::text").get()}}
        # Follow links, and say what becomes of the pages behind them:
        # yield from response.follow_all(css="li.next a")
        # yield from response.follow_all(css="h3 a", callback=self.parse_page)
"""

_PIPELINE = '''\
"""The project's own pipelines. Switch one on in settings.toml:

[[pipelines]]
use = "pipelines:Strip"
"""


class Strip:
    """Takes the white space off both ends of every text."""

    def process_item(self, item, spider):
        return {key: value.strip() if isinstance(value, str) else value for key, value in item.items()}
'''


@click.command()
@click.argument("directory", metavar="DIR")
def init(directory: str) -> int:
    """Make a project in DIR: settings.toml, spiders/, pipelines/."""
    root = Path(directory)
    if (root / "settings.toml").exists():
        raise UsageError(f"{root / 'settings.toml'} is there already; this is a project")
    try:
        for folder in ("spiders", "pipelines"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        _write(root / "settings.toml", _settings_template())
        _write(root / "pipelines" / "__init__.py", _PIPELINE)
        _write(root / ".gitignore", ".scrape/\n__pycache__/\n*.jsonl\n")
    except OSError as error:
        raise UsageError(f"cannot make {error.filename}: {error.strerror}") from None
    click.echo(f"made the project {root}; now:")
    if root.resolve() != Path.cwd():
        click.echo(f"  cd {directory}")
    click.echo("  scrape genspider NAME URL")
    click.echo("  scrape run NAME -O NAME.jsonl")
    return 0


@click.command()
@click.argument("name")
@click.argument("url")
def genspider(name: str, url: str) -> int:
    """Make spiders/NAME.py, a spider that starts at URL."""
    from scraper.errors import InvalidURL
    from scraper.loader import FOLDER, find_spiders, project_root
    from scraper.urls import hostname_of, normalize

    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise UsageError(f'"{name}" cannot name a spider: use letters, digits, - and _, a letter first')
    try:
        start = normalize(url if "://" in url else f"https://{url}")
    except InvalidURL as error:
        raise UsageError(str(error)) from None
    root = project_root(Path.cwd())
    path = root / FOLDER / f"{name.replace('-', '_')}.py"
    class_name = "".join(part[:1].upper() + part[1:] for part in re.split(r"[-_]+", name) if part)
    domain = hostname_of(start).removeprefix("www.")
    # A query may have backslashes, which would be escapes in the text.
    text = _SPIDER.format(class_name=class_name, name=name, url=start.replace("\\", "\\\\"), domain=domain)
    try:
        taken = next(
            (each.path for each in find_spiders(root)[0] if each.name == name), path if path.exists() else None
        )
        if taken is not None:
            raise UsageError(f'there is a spider "{name}" already: {taken}')
        path.parent.mkdir(exist_ok=True)
        _write(path, text)
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}") from None
    click.echo(f"made {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}; run it with")
    click.echo(f"  scrape run {name} -O {name}.jsonl")
    return 0


@click.command("list")
def list_spiders() -> int:
    """List the project's spiders, a name a line."""
    import sys

    from scraper.loader import Found, find_spiders, project_root, two_of_one_name

    found, errors = find_spiders(project_root(Path.cwd()))
    places: dict[str, list[Found]] = {}
    for each in found:
        places.setdefault(each.name, []).append(each)
    for name, doubled in places.items():
        click.echo(name)
        if len(doubled) > 1:
            errors.append(two_of_one_name(doubled))
    for error in errors:
        print(f"scrape: {error}", file=sys.stderr)
    return 2 if errors else 0


@click.command(short_help="Print the settings in force and their sources.")
@click.argument("spider", required=False, shell_complete=complete_spider)
@settings_option
def settings(spider: str | None, options: tuple[str, ...]) -> int:
    """Print the settings in force, where each comes from and what it means; with SPIDER, as that spider has them."""
    from scraper.crawler import load_settings
    from scraper.layers import option_layer, without_passwords
    from scraper.loader import load_spider
    from scraper.settings import SECTIONS, describe
    from scraper.spider import Spider

    cls = load_spider(spider, Path.cwd()) if spider is not None else Spider
    chosen = load_settings(cls, [option_layer(options)])
    for section in SECTIONS:
        click.echo(f"[{section}]")
        for key, meaning in describe(section):
            value = _toml(without_passwords(key, getattr(getattr(chosen, section), key)))
            origin = chosen.origins.get(f"{section}.{key}", "default")
            click.echo(f"{key} = {value}".ljust(36) + f"  # {origin}: {meaning}")
        click.echo()
    if chosen.headers:
        click.echo("[headers]")
        for name, value in chosen.headers.items():
            click.echo(f"{name} = {_toml(value)}".ljust(36) + f"  # {chosen.origins[f'headers.{name}']}")
        click.echo()
    for origin, auth in chosen.auth.items():
        click.echo(f'[auth."{origin}"]  # {chosen.origins[f"auth.{origin}"]}')
        for key in auth.__struct_fields__:
            if value := getattr(auth, key):
                click.echo(f"{key} = {_toml(value if key == 'user' or _names_a_variable(value) else '***')}")
        click.echo()
    for name, arguments in chosen.arguments.items():
        click.echo(f'[middlewares."{name}"]  # {chosen.origins["middlewares." + name]}')
        click.echo("".join(f"{key} = {_toml(value)}\n" for key, value in arguments.items()))
    for host, own in chosen.hosts.items():
        click.echo(f'[hosts."{host}"]')
        for name, value in [(name, getattr(own, name)) for name in own.__struct_fields__ if name != "headers"]:
            if value is not None:
                shown = _toml(without_passwords(name, value))
                click.echo(f"{name} = {shown}".ljust(36) + f"  # {chosen.origins[f'hosts.{host}.{name}']}")
        for name, value in own.headers.items():
            origin = chosen.origins[f"hosts.{host}.headers.{name}"]
            click.echo(f"headers.{name} = {_toml(value)}".ljust(36) + f"  # {origin}")
        click.echo()
    for pipeline in chosen.pipelines:
        click.echo(f'[[pipelines]]  # {chosen.origins["pipelines"]}\nuse = "{pipeline.use}"')
        for name, value in pipeline.arguments.items():
            click.echo(f"{name} = {_toml(value)}")
        click.echo()
    return 0


def _names_a_variable(value: str) -> bool:
    return value.startswith("$") and not value.startswith("$$")


def _settings_template() -> str:
    """Return a settings.toml with every key at its default, commented out."""
    from scraper.settings import SECTIONS, describe

    lines = ["# Every setting there is, at its default. `scrape settings` shows what is in force."]
    for section, cls in SECTIONS.items():
        defaults = cls()
        lines += ["", f"[{section}]"]
        for key, meaning in describe(section):
            lines.append(f"# {key} = {_toml(getattr(defaults, key))}".ljust(40) + f"  # {meaning}")
    lines += ["", "# [headers]  # what every request carries", '# Accept-Language = "en"']
    lines += ["", '# [auth."https://example.com"]  # a login for one origin', '# token = "$EXAMPLE_TOKEN"']
    lines += ["", '# [hosts."example.com"]  # what is different for one host', "# delay = 2.0"]
    lines += ["", "# [[pipelines]]", '# use = "pipelines:Strip"', ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    from scraper.settings import Size

    if isinstance(value, Size) and value % 2**20 == 0:
        return f'"{value // 2**20} MiB"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        import msgspec

        return msgspec.json.encode(value).decode()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)


def _write(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
