"""Whatever cannot be run is one clear line and exit status 2, before the first request and before any output is touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scraper.jobs import Asked, Job

from .conftest import PATIENCE_S, SCRAPE, Done, Project, Site, page

KEPT = '{"from":"an earlier run"}\n'
Refused = Callable[..., str]


@pytest.fixture
def refused(project: Project, site: Site) -> Refused:
    """Run ``scrape run`` with two outputs that hold items already; expect one line and that nothing else happened."""
    site.pages["/"] = page("Home")
    project.spider("books", site.url(), "pages: int = 50\ntags: list[str] = []")
    for name in ("appended.jsonl", "replaced.jsonl"):
        project.write(name, KEPT)

    def run(*arguments: str, spider: str = "books", env: dict[str, str] | None = None) -> str:
        done = project.scrape("run", spider, "-o", "appended.jsonl", "-O", "replaced.jsonl", *arguments, env=env)
        said = done.refused()
        assert site.asked == []
        assert [(project.root / name).read_text() for name in ("appended.jsonl", "replaced.jsonl")] == [KEPT, KEPT]
        assert not any(project.root.glob("new*"))
        return said

    return run


def test_project_of_these_tests_runs(project: Project, site: Site) -> None:
    """The spider that the other tests spoil runs as it is: the refusals are for what they spoil."""
    site.pages["/"] = page("Home")
    project.spider("books", site.url(), "pages: int = 50")
    done = project.scrape("run", "books", "-a", "pages=3", "-s", "crawl.concurrency=2", "-O", "new.jsonl")
    assert (done.status, site.asked) == (0, ["/"])
    assert project.items("new.jsonl") == [{"url": site.url(), "title": "Home"}]


class TestSpiders:
    """What is wrong with a spider is said with its file and line."""

    def test_unknown_name(self, refused: Refused) -> None:
        """The nearest name is offered."""
        assert refused(spider="boks") == 'no spider is named "boks"; did you mean "books"?'

    def test_syntax_error(self, refused: Refused, project: Project) -> None:
        """A syntax error is shown with file, line and the line's text."""
        project.write("spiders/bad.py", 'from scraper import Spider\n\nclass Bad(Spider)\n    name = "bad"\n')
        assert refused(spider="bad") == "spiders/bad.py:3: syntax error: expected ':': class Bad(Spider)"

    def test_raises_at_import(self, refused: Refused, project: Project) -> None:
        """What a spider's file raises is shown with file and line."""
        project.write(
            "spiders/bad.py", 'from scraper import Spider\nLIMIT = int("many")\nclass Bad(Spider):\n    name = "bad"\n'
        )
        assert refused(spider="bad").startswith("spiders/bad.py:2: ValueError: invalid literal for int()")

    def test_exits_at_import(self, refused: Refused, project: Project) -> None:
        """A spider's file that ends the process does not end it with a status of its own."""
        project.write(
            "spiders/bad.py",
            'import sys\nfrom scraper import Spider\nsys.exit(0)\nclass Bad(Spider):\n    name = "bad"\n',
        )
        assert refused(spider="bad").startswith("spiders/bad.py:3: SystemExit")

    def test_two_of_one_name(self, refused: Refused, project: Project, site: Site) -> None:
        """Both places are shown."""
        text = project.spider("books", site.url()).read_text()
        project.write("spiders/copy.py", text)
        said = refused(spider="books")
        assert said.startswith('two spiders are named "books": spiders/books.py:3 and spiders/copy.py:3')

    def test_opened_that_raises(self, refused: Refused, project: Project, site: Site) -> None:
        """What a spider raises before its first request keeps the run from starting."""
        project.spider("shut", site.url(), "async def opened(self):\n    raise OSError('no database')")
        assert refused("-o", "new.jsonl", spider="shut") == 'spider "shut": opened() raised OSError: no database'

    def test_job_folder(self, refused: Refused, project: Project) -> None:
        """A run that is refused leaves no state; a folder given for it keeps what else it holds."""
        project.write("mine/diary.txt", "today")
        project.write("settings.toml", '[[pipelines]]\nuse = "none:Nothing"\n')
        assert refused("--job", "mine").startswith("cannot import none:Nothing")
        assert [path.name for path in project.root.glob("mine/*")] == ["diary.txt"]
        assert refused().startswith("cannot import none:Nothing")
        assert list(project.root.glob(".scrape/*/*")) == []

    @pytest.mark.parametrize(
        ("url", "said"),
        [
            ("example.com", "not an absolute URL: 'example.com'; did you mean 'https://example.com'?"),
            ("ftp://x/", "only http and https URLs can be fetched: 'ftp://x/'"),
            ("", "not a valid URL: ''"),
        ],
    )
    def test_start_url_that_is_none(self, refused: Refused, project: Project, url: str, said: str) -> None:
        """A start URL that cannot be fetched is shown, with its mend where there is one."""
        project.spider("lost", url)
        assert refused("-o", "new.jsonl", spider="lost") == f'spider "lost": start URL: {said}'

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("allowed_domains = None", 'allowed_domains = None: expected a list of domains: ["example.com"]'),
            ("allowed_domains = 3", 'allowed_domains = 3: expected a list of domains: ["example.com"]'),
            ("allowed_domains = [None]", 'allowed_domains = [None]: expected a list of domains: ["example.com"]'),
            *[
                (
                    f"allowed_domains = {value}",
                    f'allowed_domains = {value}: expected a list of domains: ["example.com"]',
                )
                for value in (
                    "['https://example.com/']",
                    "['a.example', '*.example.com']",
                    "['example.com/shop']",
                    "'a.example, b.example'",
                    "['']",
                )
            ],
            ("handle_httpstatus_list = 301", "handle_httpstatus_list = 301: expected a list of numbers: [404, 410]"),
            ("handle_httpstatus_list = None", "handle_httpstatus_list = None: expected a list of numbers: [404, 410]"),
            (
                'handle_httpstatus_list = ["301"]',
                "handle_httpstatus_list = ['301']: expected a list of numbers: [404, 410]",
            ),
            ("start_urls = None", "start_urls = None: expected a list of URLs"),
        ],
    )
    def test_attributes_of_wrong_type(
        self, refused: Refused, project: Project, site: Site, body: str, said: str
    ) -> None:
        """A spider's own attribute that is no list, or holds what does not belong, is shown with what is expected."""
        project.spider("odd", site.url(), body)
        assert refused("-o", "new.jsonl", spider="odd") == f'spider "odd": {said}'

    def test_domains_of_wrong_type_where_the_spider_is_looked_for(self, project: Project, site: Site) -> None:
        """``parse`` without a spider looks into the domains of all: those that are no list are shown."""
        project.spider("odd", site.url(), "allowed_domains = None")
        assert (
            project.scrape("parse", site.url()).refused().startswith('spider "odd": allowed_domains = None: expected')
        )


class TestSettings:
    """A setting is refused with its source, its key and the nearest right name or the type."""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[crawl]\nconcurency = 3", "unknown setting crawl.concurency; did you mean crawl.concurrency?"),
            ('[crawl]\nconcurrency = "three"', "crawl.concurrency = 'three': expected int, got str"),
            ('[crawl]\norder = "bredth"', "crawl.order = 'bredth': expected one of 'breadth', 'depth'"),
        ],
    )
    def test_file(self, refused: Refused, project: Project, text: str, said: str) -> None:
        """In settings.toml."""
        path = project.write("settings.toml", text)
        assert refused() == f"{path}: {said}"

    def test_bad_toml(self, refused: Refused, project: Project) -> None:
        """A file that is no TOML is shown with the line."""
        path = project.write("settings.toml", "[crawl]\n\nconcurrency = \n")
        said = refused()
        assert said.startswith(f"{path}: not valid TOML: ")
        assert "line 3" in said

    @pytest.mark.parametrize(
        ("option", "said"),
        [
            ("crawl.concurency=3", "-s: unknown setting crawl.concurency; did you mean crawl.concurrency?"),
            ("crawl.concurrency=three", "-s: crawl.concurrency = 'three': expected int, got str"),
            ("crawl.concurrency", "-s crawl.concurrency: write SECTION.KEY=VALUE, such as -s crawl.concurrency=16"),
        ],
    )
    def test_option(self, refused: Refused, option: str, said: str) -> None:
        """With ``-s``."""
        assert refused("-s", option) == said

    @pytest.mark.parametrize(
        ("option", "value", "said"),
        [
            ("--log-level", "warn", "log.level = 'warn': expected one of 'debug', 'info', 'warning', 'error'"),
            ("--log-format", "xml", "log.format = 'xml': expected one of 'auto', 'console', 'json'"),
            ("--shards", "x", "shards.count = 'x': expected a number from 1 to 256, or \"auto\""),
            ("--frontier", "postgres", 'frontier.use = \'postgres\': expected "memory", "sqlite" or a Redis: '),
        ],
    )
    def test_option_of_its_own(self, refused: Refused, option: str, value: str, said: str) -> None:
        """With an option of its own, which is named as it was typed."""
        assert refused(option, value).startswith(f"{option}: {said}")

    def test_environment(self, refused: Refused) -> None:
        """In the environment."""
        said = refused(env={"SCRAPE_CRAWL__CONCURENCY": "3"})
        assert said.endswith("unknown setting crawl.concurency; did you mean crawl.concurrency?")
        assert "environment" in said

    def test_custom_settings(self, refused: Refused, project: Project, site: Site) -> None:
        """In the spider's own settings, which are named as the source."""
        project.spider("own", site.url(), 'custom_settings = {"crawl": {"concurency": 3}}')
        said = refused(spider="own")
        assert said.startswith('custom_settings of spider "own": unknown setting crawl.concurency; did you mean')

    def test_custom_settings_of_wrong_type(self, refused: Refused, project: Project, site: Site) -> None:
        """With a value of the wrong type."""
        project.spider("own", site.url(), 'custom_settings = {"politeness": {"delay": "long"}}')
        assert refused(spider="own").endswith("politeness.delay = 'long': expected float, got str")

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ('use = "pipelines.none:Nothing"', "cannot import pipelines.none:Nothing"),
            ('use = "mine:Nothing"', "cannot import mine:Nothing: the module mine has no Nothing"),
            ('use = "mine:Keep"\ncolor = "red"', 'use = "mine:Keep": unknown argument color; did you mean colour?'),
            ('use = "mine:Keep"\ncolour = "grey"', 'use = "mine:Keep": ValueError: grey is no colour'),
            ('use = "mine:Other"', 'use = "mine:Other": process_item(item, spider, more) is to take (item, spider)'),
            ("colour = 1", '[[pipelines]] needs use = "package.module:Class"'),
        ],
    )
    def test_pipeline(self, refused: Refused, project: Project, text: str, said: str) -> None:
        """A pipeline that cannot be imported, or be made with its arguments, is named."""
        project.write(
            "mine.py",
            "class Keep:\n    def __init__(self, colour='red'):\n        if colour != 'red':\n"
            "            raise ValueError(f'{colour} is no colour')\n"
            "    def process_item(self, item, spider):\n        return item\n"
            "class Other:\n    def process_item(self, item, spider, more):\n        return item\n",
        )
        project.write("settings.toml", f"[[pipelines]]\n{text}\n")
        assert said in refused("-o", "new.jsonl")


def test_a_folder_that_is_gone(project: Project, tmp_path: Path) -> None:
    """A command that is run where nothing is any more says so."""
    command = f"cd {tmp_path} && mkdir gone && cd gone && rmdir ../gone && {' '.join(SCRAPE)} list"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert Done(done.returncode, done.stdout, done.stderr).refused() == "the current folder is not there any more"


def test_a_job_without_a_name(refused: Refused, project: Project) -> None:
    """``--job "$JOB"`` of a script without that variable does not keep the state in the current folder."""
    assert refused("--job", "") == "--job: no folder is named"
    assert not (project.root / "job.json").exists()


class TestArguments:
    """A spider's argument is refused with the nearest name or the type."""

    @pytest.mark.parametrize(
        ("argument", "said"),
        [
            ("page=3", 'spider "books" has no argument "page"; did you mean "pages"?'),
            ("pages=few", "spider \"books\": argument pages='few' is not an int (expected int, got str)"),
            ("pages", "-a pages: write NAME=VALUE, such as -a max_pages=3"),
        ],
    )
    def test_argument(self, refused: Refused, argument: str, said: str) -> None:
        """With ``-a``."""
        assert refused("-a", argument) == said

    def test_required_argument(self, refused: Refused, project: Project, site: Site) -> None:
        """One without a default has to be given."""
        project.spider("asks", site.url(), "city: str")
        assert refused(spider="asks") == 'spider "asks" needs -a city=…'


class TestOutputs:
    """An output that cannot be written is named before the run."""

    @pytest.mark.parametrize(
        ("option", "name", "said"),
        [
            (
                "-o",
                "none/new.jsonl",
                "cannot write to none/new.jsonl: No such file or directory; there is no folder none",
            ),
            ("-O", "folder.jsonl", "cannot write to folder.jsonl: Is a directory"),
            ("-o", "new.xls", "no format for the suffix '.xls'; there are .jsonl"),
        ],
    )
    def test_output(self, refused: Refused, project: Project, option: str, name: str, said: str) -> None:
        """A missing folder, a folder in the file's place, a suffix without a format."""
        project.root.joinpath("folder.jsonl").mkdir()
        assert said in refused("-o", "new.csv", option, name)

    def test_named_twice(self, refused: Refused, project: Project) -> None:
        """One file cannot be two outputs, whichever way leads there."""
        assert "new.jsonl is named twice" in refused("-o", "new.jsonl", "-O", "./new.jsonl")
        project.root.joinpath("link.jsonl").symlink_to("new.jsonl")
        assert "link.jsonl is named twice" in refused("-o", "spiders/../new.jsonl", "-o", "link.jsonl")
        assert "new.jsonl is named twice" in refused("-o", "new.jsonl", "--stats", "./new.jsonl")

    def test_stats(self, refused: Refused) -> None:
        """The file for the summary is checked as well."""
        assert refused("--stats", "none/new.json").startswith(
            "cannot write to none/new.json: No such file or directory"
        )


class TestUsage:
    """The command line's own mistakes."""

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["run"], r"which spider\? `scrape list` shows them \(see scrape run --help\)"),
            (["run", "books", "--colour"], r"No such option '?--colour'? \(see scrape run --help\)"),
            (["run", "books", "shoes"], r"Got unexpected extra argument \(shoes\).*"),
            (["runn"], r"No such command 'runn'.*"),
            (["init"], r"Missing argument 'DIR'.*"),
            (["genspider", "9lives", "http://a.example/"], r"\"9lives\" cannot name a spider.*"),
            (["genspider", "cats", "ftp://a.example/"], r"only http and https URLs can be fetched: 'ftp://a.example/'"),
            (["demo", "--port", "70000"], r"Invalid value for '--port': 70000 is not in the range 0<=x<=65535.*"),
            (["fetch", "example.com"], r"not an absolute URL: 'example.com'; did you mean 'https://example.com'\?"),
        ],
    )
    def test_usage(self, project: Project, arguments: list[str], said: str) -> None:
        """One line, which says where the help is."""
        assert re.fullmatch(said, project.scrape(*arguments).refused())

    def test_no_command(self, project: Project) -> None:
        """Without a command the help is shown, line by line, and the status says that nothing was done."""
        done: Done = project.scrape()
        assert (done.status, done.out) == (2, "")
        assert done.err_lines[0].startswith("Usage: scrape ")
        assert len(done.err_lines) > 10

    def test_unknown_callback(self, project: Project, site: Site) -> None:
        """``parse`` names a callback that the spider does not have, and asks for nothing."""
        project.spider("books", site.url())
        done = project.scrape("parse", site.url(), "--spider", "books", "--callback", "parse_bok")
        assert done.refused() == 'spider "books" has no method parse_bok()'
        assert site.asked == []

    def test_no_spider_for_url(self, project: Project, site: Site) -> None:
        """``parse`` without a spider needs one whose domains hold the URL."""
        project.spider("books", site.url(), 'allowed_domains = ["books.example"]')
        done = project.scrape("parse", site.url())
        assert done.refused() == "no spider allows 127.0.0.1; name one with --spider"
        assert site.asked == []


class TestPermissions:
    """Files and folders that the user may not read or change."""

    RUN = ".scrape/books/1"

    @pytest.fixture
    def restrained(self, project: Project) -> Iterator[Callable[..., Done]]:
        """Run a command with a folder's mode changed meanwhile, by a process that is bound by modes even as root."""
        bound: list[str] = []
        if os.geteuid() == 0:
            setpriv = shutil.which("setpriv") or pytest.skip("root may do everything, and there is no setpriv")
            bound = [setpriv, "--bounding-set=-dac_override,-dac_read_search"]
        job = Job(project.root / self.RUN, Asked("books"))
        job.acquire()
        job.begin()
        job.release()
        changed: list[Path] = []

        def run(folder: str, mode: int, *arguments: str) -> Done:
            changed.append(project.root / folder)
            changed[-1].chmod(mode)
            done = subprocess.run(
                [*bound, *SCRAPE, *arguments],
                cwd=project.root,
                capture_output=True,
                encoding="utf-8",
                timeout=PATIENCE_S,
                check=False,
            )
            return Done(done.returncode, done.stdout, done.stderr)

        yield run
        for path in changed:
            path.chmod(0o755)

    @pytest.mark.parametrize("command", ["show", "remove"])
    def test_runs_that_cannot_be_read(self, restrained: Callable[..., Done], project: Project, command: str) -> None:
        """A run is not there for who may not look into its folder, and that is what is said."""
        said = restrained(".scrape", 0, "jobs", command, "books/1").refused()
        assert said == f"cannot read {project.root / self.RUN}/job.json: Permission denied"

    def test_run_that_cannot_be_removed(self, restrained: Callable[..., Done], project: Project) -> None:
        """A file that cannot be deleted is named."""
        said = restrained(self.RUN, 0o555, "jobs", "remove", "books").refused()
        assert said == f"cannot delete {project.root / self.RUN}/frontier.db: Permission denied"

    def test_spiders_that_cannot_be_read(self, restrained: Callable[..., Done], project: Project) -> None:
        """A spider is not made where its folder cannot be looked into."""
        said = restrained("spiders", 0, "genspider", "books", "a.example").refused()
        assert said == f"cannot make {project.root}/spiders/books.py: Permission denied"

    @pytest.mark.parametrize("command", ["show", "remove"])
    def test_file_in_the_place_of_a_run(self, project: Project, command: str) -> None:
        """A file is no run."""
        project.write("afile", "")
        said = project.scrape("jobs", command, "afile").refused()
        assert said == 'there is no run "afile" (`scrape jobs` lists what there is)'


class TestStreams:
    """Standard streams that are closed, or full."""

    @pytest.fixture
    def redirected(self, project: Project, site: Site) -> Callable[..., Done]:
        """Run a command by a shell that redirects its streams; there is a spider "books"."""
        site.pages["/"] = page("Home")
        project.spider("books", site.url(), 'allowed_domains = ["127.0.0.1"]')

        def run(redirection: str, *arguments: str) -> Done:
            command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *SCRAPE, *arguments]
            done = subprocess.run(
                command, cwd=project.root, capture_output=True, encoding="utf-8", timeout=PATIENCE_S, check=False
            )
            return Done(done.returncode, done.stdout, done.stderr)

        return run

    @pytest.mark.parametrize(
        "command",
        ["settings", "version", "list", "jobs", "fetch {url}", "parse {url}", "run books -q --stats -", "run books -h"],
    )
    @pytest.mark.parametrize(
        ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
    )
    def test_no_room_on_standard_output(
        self, redirected: Callable[..., Done], site: Site, command: str, redirection: str, reason: str
    ) -> None:
        """A standard output that takes nothing is one line, and status 1."""
        done = redirected(redirection, *command.format(url=site.url()).split())
        said = [line for line in done.err_lines if not line.startswith("#")]
        assert (done.status, said) == (1, [f"scrape: cannot write to standard output: {reason}"]), done.err

    @pytest.mark.parametrize(
        ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
    )
    def test_items_on_a_standard_output_without_room(
        self, redirected: Callable[..., Done], redirection: str, reason: str
    ) -> None:
        """A run whose items cannot be written is a broken one, and says so without a traceback."""
        done = redirected(redirection, "run", "books", "-q", "-o", "-")
        assert done.status == 1
        assert f"cannot write to standard output: {reason}" in done.err
        assert "Traceback" not in done.err

    @pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&- 2>&-"])
    def test_run_without_standard_error(
        self, redirected: Callable[..., Done], project: Project, site: Site, redirection: str
    ) -> None:
        """Without a standard error a run does what it does with one."""
        done = redirected(redirection, "run", "books", "-O", "new.jsonl")
        assert (done.status, done.out) == (0, "")
        assert project.items("new.jsonl") == [{"url": site.url(), "title": "Home"}]
        assert redirected(redirection, "run", "boks").status == 2
