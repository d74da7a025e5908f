"""``scrape init``, ``genspider``, ``list``, ``settings`` and ``version``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from scraper import __version__

from .conftest import Project, Site, page


def test_from_nothing_to_items(project: Project, site: Site, tmp_path: Path) -> None:
    """``init``, ``genspider`` and ``run``, as the help shows them, give items of a site."""
    site.pages["/"] = page("A shop")
    made = project.scrape("init", "shop", folder=tmp_path)
    assert made.status == 0
    assert "cd shop" in made.out
    shop = tmp_path / "shop"
    assert project.scrape("genspider", "books", site.url(), folder=shop).out.startswith("made spiders/books.py;")
    assert project.scrape("list", folder=shop).out == "books\n"
    done = project.scrape("run", "books", "-o", "-", folder=shop)
    assert (done.status, done.items) == (0, [{"url": site.url(), "title": "A shop"}])


class TestInit:
    """A project's files."""

    def test_files(self, project: Project, tmp_path: Path) -> None:
        """settings.toml shows every setting and changes none; the pipeline it names as an example works."""
        assert project.scrape("init", "shop", folder=tmp_path).status == 0
        shop = tmp_path / "shop"
        text = (shop / "settings.toml").read_text()
        assert not any(tomllib.loads(text).values())
        unmarked = "\n".join(line.removeprefix("# ") for line in text.splitlines()[1:])
        (shop / "settings.toml").write_text(unmarked)
        shown = project.scrape("settings", folder=shop)
        assert shown.status == 0, shown.err
        for table in ("[headers]", '[auth."https://example.com"]', '[hosts."example.com"]', "[[pipelines]]"):
            assert f"\n{table}" in shown.out
        assert 'use = "pipelines:Strip"' in shown.out
        assert "# default" not in shown.out

    def test_state_is_ignored(self, project: Project, tmp_path: Path) -> None:
        """The runs' state stays out of version control."""
        project.scrape("init", "shop", folder=tmp_path)
        assert ".scrape/" in (tmp_path / "shop/.gitignore").read_text().splitlines()

    def test_twice(self, project: Project) -> None:
        """A project is not made over another."""
        (project.root / "settings.toml").write_text("[crawl]\n")
        assert project.scrape("init", ".").refused().startswith("settings.toml is there already")
        assert (project.root / "settings.toml").read_text() == "[crawl]\n"

    def test_other_files(self, project: Project, tmp_path: Path) -> None:
        """A file that is in the way is named and kept."""
        folder = tmp_path / "shop"
        folder.mkdir()
        (folder / ".gitignore").write_text("mine\n")
        assert "shop/.gitignore" in project.scrape("init", "shop", folder=tmp_path).refused()
        assert (folder / ".gitignore").read_text() == "mine\n"


class TestGenspider:
    """A spider's file."""

    def test_existing(self, project: Project) -> None:
        """A spider is not made over another, by file or by name."""
        path = project.spider("books", "http://127.0.0.1:9/")
        before = path.read_text()
        project.write("spiders/other.py", before.replace('"books"', '"quotes"'))
        for name in ("books", "quotes"):
            said = project.scrape("genspider", name, "http://127.0.0.1:9/").refused()
            assert said.startswith(f'there is a spider "{name}" already')
        assert path.read_text() == before
        assert not (project.root / "spiders/quotes.py").exists()

    def test_in_folder_below(self, project: Project) -> None:
        """It belongs to the project's spiders, wherever in the project it is made; https is taken for granted."""
        below = project.root / "data"
        below.mkdir()
        done = project.scrape("genspider", "my-shop", "www.shop.example/a?b=c", folder=below)
        assert done.status == 0
        assert str(project.root / "spiders/my_shop.py") in done.out
        text = (project.root / "spiders/my_shop.py").read_text()
        assert 'name = "my-shop"' in text
        assert 'start_urls = ["https://www.shop.example/a?b=c"]' in text
        assert 'allowed_domains = ["shop.example"]' in text
        assert project.scrape("list").out == "my-shop\n"

    def test_backslash(self, project: Project, site: Site) -> None:
        """A URL is asked for as it was typed."""
        site.pages["*"] = page("Home")
        assert project.scrape("genspider", "odd", site.url(r"/?a=\next")).status == 0
        done = project.scrape("run", "odd", "-o", "-")
        assert [item["url"] for item in done.items] == [site.url(r"/?a=\next")]


class TestList:
    """The project's spiders."""

    def test_sorted(self, project: Project) -> None:
        """A name a line, sorted; nothing is imported for it."""
        for name in ("quotes", "books"):
            path = project.spider(name, "http://127.0.0.1:9/")
            path.write_text(f"print('imported')\n{path.read_text()}")
        done = project.scrape("list")
        assert (done.status, done.out, done.err) == (0, "books\nquotes\n", "")

    def test_broken(self, project: Project) -> None:
        """A file that cannot be read is named, the others are listed, the status is 2."""
        project.spider("books", "http://127.0.0.1:9/")
        project.write("spiders/bad.py", "class Bad(\n")
        done = project.scrape("list")
        assert (done.status, done.out) == (2, "books\n")
        assert done.err_lines[0].startswith("scrape: spiders/bad.py:1: syntax error:")

    def test_two_of_one_name(self, project: Project) -> None:
        """Two spiders of one name are said to be, with both places."""
        text = project.spider("books", "http://127.0.0.1:9/").read_text()
        project.write("spiders/copy.py", text)
        done = project.scrape("list")
        assert (done.status, done.out) == (2, "books\n")
        assert "spiders/books.py:3" in done.err
        assert "spiders/copy.py:3" in done.err


class TestSettings:
    """What is in force, and whence."""

    def test_origins(self, project: Project) -> None:
        """Each value is shown with its source, for a spider with the spider's own."""
        path = project.write(
            "settings.toml",
            '[crawl]\nconcurrency = 10\nmax_pages = 10\n[[pipelines]]\nuse = "mine:Keep"\ncolour = "red"\n',
        )
        project.spider(
            "own", "http://127.0.0.1:9/", 'custom_settings = {"crawl": {"max_depth": 3}, "DOWNLOAD_DELAY": 2}'
        )
        env = {"SCRAPE_CRAWL__MAX_PAGES": "20", "SCRAPE_LOG__LEVEL": "error"}
        done = project.scrape("settings", "own", "-s", "download.max_body=1 MiB", env=env)
        assert done.status == 0, done.err
        rows = {}
        section = ""
        for line in done.out.splitlines():
            section = line.split("]")[0] + "]" if line.startswith("[") else section
            key, _, rest = line.partition(" = ")
            value, _, meaning = rest.partition("#")
            rows[section + key] = (value.strip(), meaning.partition(": ")[0].strip())
        expected = {
            "[crawl]concurrency": ("10", str(path)),
            "[crawl]max_pages": ("20", "the environment"),
            "[crawl]max_depth": ("3", 'custom_settings of spider "own"'),
            "[crawl]max_items": ("0", "default"),
            "[politeness]delay": ("2.0", 'custom_settings of spider "own"'),
            "[politeness]robots": ("true", "default"),
            "[download]max_body": ('"1 MiB"', "-s"),
            "[log]level": ('"error"', "the environment"),
            "[frontier]use": ('"sqlite"', "default"),
            "[[pipelines]use": ('"mine:Keep"', ""),
            "[[pipelines]colour": ('"red"', ""),
        }
        assert {key: rows.get(key) for key in expected} == expected
        assert f"[[pipelines]]  # {path}" in done.out

    def test_output_is_toml(self, project: Project) -> None:
        """What is printed is itself a settings.toml that says the same."""
        first = project.scrape("settings", "-s", "crawl.concurrency=7").out
        project.write("settings.toml", first)
        again = project.scrape("settings").out
        assert tomllib.loads(again) == tomllib.loads(first)
        assert tomllib.loads(first)["crawl"]["concurrency"] == 7

    def test_secrets_are_not_shown(self, project: Project) -> None:
        """Passwords, tokens and the credentials of proxies are hidden; the name of a variable is not."""
        project.write(
            "settings.toml",
            """
            [download]
            proxy = "http://s3cret:hush@proxy.example:3128"
            [auth."https://a.example"]
            user = "ada"
            password = "$$ecret-hush"
            [auth."https://b.example"]
            token = "$B_TOKEN"
            [auth."https://c.example"]
            token = "s3cret"
            """,
        )
        done = project.scrape("settings")
        assert done.status == 0, done.err
        shown = tomllib.loads(done.out)
        assert shown["auth"] == {
            "https://a.example": {"user": "ada", "password": "***"},
            "https://b.example": {"token": "$B_TOKEN"},
            "https://c.example": {"token": "***"},
        }
        assert shown["download"]["proxy"] == "http://***@proxy.example:3128"
        assert not any(secret in done.out for secret in ("s3cret", "hush"))


@pytest.mark.parametrize("name", ["scraper", "Python", "aiohttp", "lxml"])
def test_version(version_lines: dict[str, str], name: str) -> None:
    """The versions that a bug report needs."""
    assert version_lines[name][0].isdigit()
    assert version_lines["scraper"] == __version__


@pytest.fixture(scope="module")
def version_lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """``scrape version``, by name."""
    done = Project(tmp_path_factory.mktemp("nowhere")).scrape("version")
    assert (done.status, done.err) == (0, "")
    return {line.split()[0]: line.split()[1] for line in done.out.splitlines()}
