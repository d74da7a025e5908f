"""``scrape run``: what it asks for, what it writes, what it counts, and its exit status."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
from pathlib import Path

import msgspec
import pytest

from .conftest import PATIENCE_S, SCRAPE, Done, Project, Site, page

SUMMARY_KEYS = {
    "spider",
    "reason",
    "requests",
    "pages",
    "items",
    "dropped",
    "errors",
    "retries",
    "bytes",
    "elapsed_s",
    "pages_per_s",
    "statuses",
    "peak_rss_mb",
    "seeded",
    "done",
    "failed",
    "pending",
}
BOOKS = Path(__file__).parents[2] / "spiders" / "books.py"


@pytest.fixture
def small(project: Project, site: Site) -> Project:
    """A project with the spider "small" for a site of three pages."""
    site.pages |= {"/": page("Home", ["/a", "/b"]), "/a": page("Ä"), "/b": page("B")}
    project.spider("small", site.url())
    return project


def titles(items: list[dict[str, str]]) -> list[str]:
    """The titles of items, sorted: pages come in any order."""
    return sorted(item["title"] for item in items)


def test_demo(project: Project) -> None:
    """The books spider with ``--demo`` gives the 1,000 products of the bundled shop, each complete."""
    project.write("spiders/books.py", BOOKS.read_text(encoding="utf-8"))
    done = project.scrape("run", "books", "--demo", "-O", "books.jsonl", "--stats", "stats.json")
    assert done.status == 0, done.err
    items = project.items("books.jsonl")
    assert len(items) == len({item["upc"] for item in items}) == len({item["url"] for item in items}) == 1000
    names = "url title category price rating stock upc description reviews image"
    assert {" ".join(item) for item in items} == {names}
    assert [item for item in items if not (item["title"] and item["category"])] == []
    assert [item for item in items if not re.fullmatch(r"£\d+\.\d\d", item["price"])] == []
    assert {item["rating"] for item in items} == {1, 2, 3, 4, 5}
    stats = project.stats("stats.json")
    assert (stats["pages"], stats["items"], stats["errors"]) == (1050, 1000, 0)


class TestOutputs:
    """Files are appended to or replaced, by their suffix; "-" is standard output."""

    def test_append_and_replace(self, small: Project) -> None:
        """``-o`` keeps what a file holds, ``-O`` does not; each line is one object, in UTF-8, keys in the item's order."""
        for name in ("appended.jsonl", "replaced.jsonl"):
            small.write(name, '{"title":"old"}\n')
        done = small.scrape("run", "small", "-o", "appended.jsonl", "-O", "replaced.jsonl")
        assert done.status == 0
        assert small.items("appended.jsonl")[0] == {"title": "old"}
        assert titles(small.items("appended.jsonl")) == ["B", "Home", "old", "Ä"]
        assert titles(small.items("replaced.jsonl")) == ["B", "Home", "Ä"]
        lines = (small.root / "replaced.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        assert all(re.fullmatch(r'\{"url":"http://[^"]*","title":"(B|Home|Ä)"\}\n', line) for line in lines)

    def test_append_twice(self, small: Project) -> None:
        """A second run with ``-o`` writes behind the first, to CSV below the one header."""
        for _ in range(2):
            assert small.scrape("run", "small", "-o", "all.csv", "-o", "all.jsonl").status == 0
        with (small.root / "all.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["url", "title"]
        assert (
            sorted(row[1] for row in rows[1:])
            == titles(small.items("all.jsonl"))
            == ["B", "B", "Home", "Home", "Ä", "Ä"]
        )

    def test_standard_output(self, small: Project, site: Site) -> None:
        """With ``-o -`` standard output holds JSON lines and nothing else: log, summary and prints of -q stay away."""
        done = small.scrape("run", "small", "-o", "-", "-O", "too.jsonl", "--log-level", "debug")
        assert done.status == 0
        assert titles(done.items) == titles(small.items("too.jsonl")) == ["B", "Home", "Ä"]
        assert "small: finished in" in done.err

    @pytest.mark.parametrize("shards", ["1", "2"])
    def test_prints_of_a_spider(self, project: Project, site: Site, shards: str) -> None:
        """They do not stand among the items on standard output; without ``-o -`` they go there."""
        site.pages["/"] = page("Home")
        path = project.spider("loud", site.url(), parse='print("at", response.url)\nyield {"a": 1}')
        path.write_text('print("imported")\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
        done = project.scrape("run", "loud", "-o", "-", "--stats", "-", "--shards", shards)
        items, stats = done.items
        assert (done.status, items, stats["items"]) == (0, {"a": 1}, 1)
        assert set(done.err_lines) > {"imported", f"at {site.url()}"}
        assert project.scrape("run", "loud", "-q").out == f"imported\nat {site.url()}\n"

    def test_closed_pipe(self, project: Project, site: Site) -> None:
        """When the reader of standard output goes away the run ends, without a traceback."""
        many = [f"/{number}" for number in range(300)]
        site.pages |= {"/": page("x" * 1000, many), "*": page("y" * 1000)}
        project.spider("many", site.url())
        command = " ".join([f"'{part}'" for part in SCRAPE]) + " run many -o - | head -1"
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"],
            cwd=project.root,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.stdout.count("\n") == 1
        assert msgspec.json.decode(done.stdout)["url"].startswith(site.url())
        assert "Traceback" not in done.stderr
        assert "Broken pipe" in done.stderr or done.returncode == 0, done.stderr

    def test_dropped_keys_and_nested_values(self, project: Project, site: Site) -> None:
        """JSONL keeps nested values, CSV writes them as JSON."""
        site.pages["/"] = page("Home")
        project.spider(
            "deep", site.url(), parse='yield {"tags": ["a", "b"], "size": {"w": 1}, "none": None, "text": "x,\\ny"}'
        )
        assert project.scrape("run", "deep", "-O", "deep.jsonl", "-O", "deep.csv").status == 0
        assert project.items("deep.jsonl") == [{"tags": ["a", "b"], "size": {"w": 1}, "none": None, "text": "x,\ny"}]
        with (project.root / "deep.csv").open(encoding="utf-8", newline="") as file:
            assert list(csv.reader(file))[1] == ['["a","b"]', '{"w":1}', "", "x,\ny"]


class TestSummary:
    """What is said of a run, on standard error and in the file for it."""

    def test_stats(self, small: Project, site: Site) -> None:
        """``--stats`` has every key of the interface, and the numbers are those of the site."""
        site.pages["/b"] = page("B", ["/", "/a", "/none"])
        assert small.scrape("run", "small", "--stats", "stats.json").status == 0
        stats = small.stats("stats.json")
        assert stats.keys() >= SUMMARY_KEYS
        expected = {
            "spider": "small",
            "reason": "finished",
            "requests": 5,
            "pages": 3,
            "items": 3,
            "dropped": 0,
            "errors": 1,
            "retries": 0,
            "statuses": {"200": 3, "404": 2},
            "seeded": 4,
            "done": 3,
            "failed": 1,
            "pending": 0,
        }
        assert {key: stats[key] for key in expected} == expected
        assert stats["bytes"] == sum(len(each.encode()) for each in site.pages.values() if isinstance(each, str))
        assert 0 < stats["elapsed_s"] < PATIENCE_S
        assert 10 < stats["peak_rss_mb"] < 500

    def test_summary(self, small: Project) -> None:
        """Without a terminal the run ends with the summary."""
        done = small.scrape("run", "small", "-O", "small.jsonl")
        assert done.out == ""
        rows = {line.split()[0]: line.split()[1] for line in done.err_lines[-9:]}
        assert {key: rows[key] for key in ("small:", "pages", "items", "errors", "queue")} == {
            "small:": "finished",
            "pages": "3",
            "items": "3",
            "errors": "0",
            "queue": "0",
        }
        assert rows["written"].endswith("small.jsonl")

    @pytest.mark.parametrize("shards", ["1", "2"])
    def test_an_output_that_took_nothing(self, small: Project, shards: str) -> None:
        """What could not be written to, from the first block on, is not said to be written."""
        small.root.joinpath("full.jsonl").symlink_to("/dev/full")
        done = small.scrape("run", "small", "-o", "small.jsonl", "-o", "full.jsonl", "--shards", shards)
        assert done.status == 1
        assert "full.jsonl: No space left on device" in done.err
        assert [line.split()[1] for line in done.err_lines if line.startswith("  written ")] == ["small.jsonl"]

    @pytest.mark.parametrize("shards", ["1", "2"])
    def test_a_table_of_quite_other_columns(self, small: Project, shards: str) -> None:
        """A CSV file whose header has nothing to do with the items is one error and status 1, and stays as it is."""
        path = small.write("old.csv", "x,y\n1,2\n")
        done = small.scrape("run", "small", "-o", "old.csv", "--shards", shards)
        assert (done.status, path.read_text()) == (1, "x,y\n1,2\n")
        assert "old.csv: its columns are x, y, the items' url, title" in done.err
        assert "written" not in done.err

    @pytest.mark.parametrize("shards", ["1", "2"])
    def test_a_table_without_a_column(self, small: Project, shards: str) -> None:
        """A key that the file has no column for is told once."""
        path = small.write("old.csv", "url\n")
        done = small.scrape("run", "small", "-o", "old.csv", "--shards", shards)
        assert (done.status, len(path.read_text().splitlines())) == (0, 4)
        assert [line.split("warning ")[1].split("  ")[0].strip() for line in done.err_lines if "warning" in line] == [
            f"{path} has no column for title: left out"
        ]

    def test_quiet(self, small: Project, site: Site) -> None:
        """``-q`` leaves errors only: nothing where there are none."""
        assert small.scrape("run", "small", "-q") == Done(0, "", "")
        small.spider("small", site.url(), parse="raise ValueError('no title')")
        done = small.scrape("run", "small", "-q")
        assert done.status == 1
        assert "ValueError: no title" in done.err
        assert "finished" not in done.err

    def test_start_url_that_fails_is_said_with_quiet(self, small: Project, site: Site) -> None:
        """A run that ends with status 1 says why, ``-q`` or not."""
        site.pages["/"] = 404
        done = small.scrape("run", "small", "-q")
        assert done.status == 1
        assert site.url() in done.err

    def test_log_level(self, project: Project, site: Site) -> None:
        """``--log-level`` is the least level shown; the setting does the same, and the option wins."""
        site.pages["/"] = page("Home")
        levels = ("debug", "info", "warning", "error")
        project.spider("talks", site.url(), parse="\n".join(f'self.log.{level}("this is {level}")' for level in levels))
        for options, shown in (
            (["--log-level", "debug"], levels),
            (["-s", "log.level=debug", "--log-level", "warning"], levels[2:]),
        ):
            done = project.scrape("run", "talks", *options)
            assert tuple(re.findall(r"this is (\w+)", done.err)) == shown

    @pytest.mark.parametrize("options", [[], ["--shards", "2"]])
    def test_pythons_own_logging(self, project: Project, site: Site, options: list[str]) -> None:
        """Its lines are lines of the log, those of a thread too; a configuration of the user's goes before."""
        site.pages["/"] = page("Home")
        body = (
            "import asyncio, logging\n"
            "from scraper import Spider\n"
            "class Talking(Spider):\n"
            "    name = 'talking'\n"
            f"    start_urls = [{site.url()!r}]\n"
            "    async def parse(self, response):\n"
            "        logging.getLogger('mine').debug('never')\n"
            "        logging.getLogger('mine').info('even %s', 2)\n"
            "        logging.getLogger('mine').warning('odd %d', 'one')\n"
            "        await asyncio.to_thread(logging.error, 'worse')\n"
        )
        project.write("spiders/talking.py", body)
        done = project.scrape("run", "talking", "--log-format", "json", *options)
        lines = [msgspec.json.decode(line) for line in done.err_lines]
        assert [(line["level"], line["logger"], line["event"]) for line in lines if "logger" in line] == [
            ("info", "mine", "even 2"),
            ("warning", "mine", "odd %d ('one',)"),
            ("error", "root", "worse"),
        ]
        project.write("spiders/talking.py", body.replace("class", "logging.basicConfig(level='INFO')\nclass"))
        done = project.scrape("run", "talking", "--log-format", "json", *options)
        assert {"INFO:mine:even 2", "ERROR:root:worse"} <= set(done.err_lines)

    def test_json_log(self, small: Project, site: Site) -> None:
        """With ``--log-format json`` each line of standard error is one JSON object, the summary too."""
        site.pages["/"] = page("Home", ["/a", "/none"])
        parse = 'self.log.info("seen", n=1)\nyield from response.follow_all(css="a")\nraise ValueError("x")'
        small.spider("small", site.url(), parse=parse)
        done = small.scrape("run", "small", "--log-format", "json", "-o", "-")
        events = [msgspec.json.decode(line) for line in done.err_lines]
        assert all(isinstance(event, dict) and event["event"] for event in events)
        assert [(event["n"], event["spider"], event["level"]) for event in events if event["event"] == "seen"] == [
            (1, "small", "info")
        ] * 2
        assert any("ValueError: x" in event.get("traceback", "") for event in events)
        assert [event["pages"] for event in events if event["event"] == "summary"] == [2]


class TestExitStatus:
    """0 finished, 1 finished but broken."""

    def test_page_that_fails(self, small: Project, site: Site) -> None:
        """A failing page that is no start page is counted and logged, and the run is whole."""
        site.pages["/a"] = 404
        done = small.scrape("run", "small", "-O", "small.jsonl", "--stats", "stats.json")
        assert done.status == 0
        assert site.url("/a") in done.err
        assert titles(small.items("small.jsonl")) == ["B", "Home"]
        stats = small.stats("stats.json")
        assert [stats[key] for key in ("done", "failed", "errors")] == [2, 1, 1]

    def test_start_page_that_fails(self, small: Project, site: Site) -> None:
        """A start page that is not there makes the status 1."""
        site.pages["/"] = 404
        done = small.scrape("run", "small", "--stats", "stats.json")
        assert done.status == 1
        assert "404" in done.err
        stats = small.stats("stats.json")
        assert [stats[key] for key in ("seeded", "done", "failed", "errors", "items")] == [1, 0, 1, 1, 0]

    def test_callback_that_raises(self, project: Project, site: Site) -> None:
        """One callback in ten raises: the others' items are there, the failures are counted, the status is 1."""
        site.pages |= {"/": page("Home", [f"/{number}" for number in range(100)]), "*": page("Page")}
        project.spider(
            "tenth",
            site.url(),
            parse="""\
yield from response.follow_all(css="a")
number = response.url.rpartition("/")[2]
if number.endswith("0"):
    raise ValueError(f"page {number}")
yield {"number": number}
""",
        )
        done = project.scrape("run", "tenth", "-O", "tenth.jsonl", "--stats", "stats.json")
        assert done.status == 1
        numbers = {str(number) for number in range(100)}
        assert {item["number"] for item in project.items("tenth.jsonl")} == {
            each for each in numbers if each[-1] != "0"
        } | {""}
        stats = project.stats("stats.json")
        expected = {
            "pages": 101,
            "items": 91,
            "errors": 10,
            "done": 91,
            "failed": 10,
            "error_classes": {"ValueError": 10},
        }
        assert {key: stats[key] for key in expected} == expected
        assert "ValueError: page 10" in done.err
        assert "spiders/tenth.py" in done.err

    def test_pipeline_that_raises(self, small: Project) -> None:
        """An item that a pipeline loses is counted; the other items are written; the status is 1."""
        small.write(
            "mine.py",
            "class NoB:\n    def process_item(self, item, spider):\n"
            "        if item['title'] == 'B':\n            raise ValueError('B')\n        return item\n",
        )
        small.write("settings.toml", '[[pipelines]]\nuse = "mine:NoB"\n')
        done = small.scrape("run", "small", "-O", "small.jsonl", "--stats", "stats.json")
        assert done.status == 1
        assert "ValueError: B" in done.err
        assert titles(small.items("small.jsonl")) == ["Home", "Ä"]
        stats = small.stats("stats.json")
        assert [stats[key] for key in ("items", "dropped", "errors")] == [2, 0, 1]

    def test_pipeline_that_drops(self, small: Project) -> None:
        """An item that a pipeline drops is counted as dropped, and the run is whole."""
        small.write(
            "mine.py",
            "from scraper import DropItem\nclass NoB:\n    def process_item(self, item, spider):\n"
            "        if item['title'] == 'B':\n            raise DropItem('B')\n        return item\n",
        )
        small.write("settings.toml", '[[pipelines]]\nuse = "mine:NoB"\n')
        done = small.scrape("run", "small", "-o", "-", "--stats", "stats.json")
        assert (done.status, titles(done.items)) == (0, ["Home", "Ä"])
        assert small.stats("stats.json")["dropped"] == 1

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
    def test_output_that_fails(self, small: Project) -> None:
        """An output that takes nothing more, as on a full disk, ends the run with status 1 and is named."""
        (small.root / "full.jsonl").symlink_to("/dev/full")
        done = small.scrape("run", "small", "-o", "full.jsonl")
        assert done.status == 1
        assert re.search(r"cannot write to \S*full.jsonl: No space left on device", done.err)
        assert "Traceback" not in done.err


def test_going_on_past_a_limit(small: Project) -> None:
    """What a run that has reached a limit says of how to go on does go on: with the same limit it would end at once."""
    done = small.scrape("run", "small", "-O", "small.jsonl", "-s", "crawl.max_pages=1")
    assert done.status == 0
    assert titles(small.items("small.jsonl")) == ["Home"]
    command = done.err.splitlines()[-1].removeprefix("to go on: scrape ")
    assert small.scrape(*command.split()).status == 0, command
    assert titles(small.items("small.jsonl")) == ["B", "Home", "Ä"]


class TestPlaces:
    """Where spiders and settings are found."""

    def test_settings_in_parent_folder(self, small: Project) -> None:
        """In a folder below, the project is the same: its settings, its spiders, its modules; outputs go to the folder."""
        small.write("settings.toml", "[crawl]\nmax_pages = 1\n")
        below = small.root / "data" / "2024"
        below.mkdir(parents=True)
        done = small.scrape("run", "small", "-O", "small.jsonl", folder=below)
        assert done.status == 0, done.err
        assert titles(small.items("data/2024/small.jsonl")) == ["Home"]

    def test_file_without_project(self, project: Project, site: Site, tmp_path: Path) -> None:
        """A .py file runs on the defaults where there is no settings.toml, whatever it is called."""
        site.pages["/"] = page("Home")
        text = project.spider("lone", site.url()).read_text()
        for name in ("lone.py", "scraper.py", "json.py"):
            folder = tmp_path / f"for_{name}"
            folder.mkdir()
            (folder / name).write_text(text)
            done = project.scrape("run", name, "-o", "-", folder=folder)
            assert (done.status, titles(done.items)) == (0, ["Home"]), done.err

    def test_file_of_project(self, small: Project) -> None:
        """A spider's path runs what its name does, with the modules beside it."""
        small.write("spiders/__init__.py", "")
        small.write("spiders/names.py", 'KEY = "name"\n')
        path = small.root / "spiders/small.py"
        path.write_text(f"from .names import KEY\n{path.read_text().replace(chr(34) + 'title' + chr(34), 'KEY')}")
        for target in ("small", str(path)):
            done = small.scrape("run", target, "-o", "-")
            assert done.status == 0, done.err
            assert sorted(item["name"] for item in done.items) == ["B", "Home", "Ä"]

    def test_precedence(self, project: Project, site: Site) -> None:
        """Defaults < settings.toml < environment < custom_settings < -s."""
        site.pages["/"] = page("Home")
        keys = "timeout retries max_redirects verify_tls"
        project.spider(
            "tells",
            site.url(),
            'custom_settings = {"download": {"retries": 7, "max_redirects": 8}}',
            f'yield {{key: getattr(self.settings.download, key) for key in "{keys}".split()}}',
        )
        project.write("settings.toml", "[download]\ntimeout = 5\nretries = 5\nmax_redirects = 5\n")
        done = project.scrape(
            "run",
            "tells",
            *("-s", "download.max_redirects=9", "-o", "-"),
            env={
                "SCRAPE_DOWNLOAD__TIMEOUT": "6",
                "SCRAPE_DOWNLOAD__RETRIES": "6",
                "SCRAPE_DOWNLOAD__MAX_REDIRECTS": "6",
            },
        )
        assert done.items == [{"timeout": 6.0, "retries": 7, "max_redirects": 9, "verify_tls": True}]

    def test_arguments(self, project: Project, site: Site) -> None:
        """Arguments come to the spider in their types."""
        site.pages["/"] = page("Home")
        body = "n: int = 1\nx: float = 0.5\nyes: bool = False\nnames: list[str] = []\nmaybe: int | None = 3"
        project.spider(
            "typed", site.url(), body, 'yield {k: getattr(self, k) for k in ("n", "x", "yes", "names", "maybe")}'
        )
        done = project.scrape("run", "typed", "-o", "-", "-a", "n=3", "-a", "x=2", "-a", "yes=on", "-a", "names=a, b")
        assert done.items == [{"n": 3, "x": 2.0, "yes": True, "names": ["a", "b"], "maybe": 3}]

    @pytest.mark.parametrize("target", ["lone/g.py", "a lone/g.py", "shop"])
    def test_hint_to_try_again_works_as_it_stands(self, project: Project, site: Site, target: str) -> None:
        """What ``jobs show`` prints to try failures again names the spider as it was run, be it by its file."""
        project.spider("shop", site.url("/none"))
        lone = "lone/g.py" if target == "shop" else target
        project.write(lone, (project.root / "spiders/shop.py").read_text().replace('"shop"', '"g"'))
        name = "shop" if target == "shop" else "g"
        assert project.scrape("run", target, "-s", "download.retries=0").status == 1
        shown = project.scrape("jobs", "show", name).out
        hint = shlex.split(shown.partition("to try these again: scrape ")[2])
        assert hint[:2] == ["run", target]
        site.pages["/none"] = page("Back")
        again = project.scrape(*hint, "-o", "-")
        assert (again.status, [item["title"] for item in again.items]) == (0, ["Back"]), again.err

    def test_hint_to_go_on_works_as_it_stands(self, project: Project, site: Site) -> None:
        """Its words are quoted where a shell would take them apart."""
        site.pages |= {"/": page("Home", ["/a"]), "/a": page("A")}
        path = project.spider("shop", site.url()).rename(project.root / "my shop.py")
        done = project.scrape("run", path.name, "--job", "my job", "-s", "crawl.max_pages=1")
        hint = shlex.split(done.err_lines[-1].partition("to go on: scrape ")[2])
        assert hint == ["run", "my shop.py", "--job", "my job", "-s", "crawl.max_pages=0"]
        again = project.scrape(*hint, "-o", "-")
        assert [item["title"] for item in again.items] == ["A"], again.err
