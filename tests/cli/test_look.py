"""``scrape fetch``, ``shell`` and ``parse``: one page to look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Project, Site, page


class TestFetch:
    """A page, or its headers, on standard output."""

    def test_body(self, project: Project, site: Site) -> None:
        """The body is printed as it came and nothing else."""
        site.pages["/"] = page("Größe")
        done = project.scrape("fetch", site.url())
        assert (done.status, done.out, done.err) == (0, page("Größe"), "")
        assert site.asked == ["/"]

    def test_headers(self, project: Project, site: Site) -> None:
        """With ``--headers`` status and headers, not the body."""
        site.pages["/"] = page("Home")
        done = project.scrape("fetch", "--headers", site.url())
        lines = done.out.splitlines()
        assert (done.status, done.err) == (0, "")
        assert lines[0] == "HTTP/1.1 200"
        assert f"Content-Length: {len(page('Home'))}" in lines
        assert "<title>" not in done.out

    def test_missing_page(self, project: Project, site: Site) -> None:
        """A page that is not there is shown all the same; the status is 1."""
        done = project.scrape("fetch", "--headers", site.url("/none"))
        assert (done.status, done.out.splitlines()[0]) == (1, "HTTP/1.1 404")

    def test_no_server(self, project: Project, site: Site) -> None:
        """Where there is no answer, one line says why; the status is 1."""
        site.pages["/"] = page("Home" * 1000)
        for url, option, said in (
            ("http://127.0.0.1:1/", "download.retries=0", "cannot connect"),
            (site.url(), "download.max_body=1000", "download.max_body"),
        ):
            done = project.scrape("fetch", url, "-s", option)
            assert (done.status, done.out, len(done.err_lines)) == (1, "", 1)
            assert done.err.startswith("scrape: ")
            assert said in done.err

    def test_leaves_nothing_behind(self, project: Project, site: Site, tmp_path: Path) -> None:
        """Looking at a page is no run: it keeps no state."""
        site.pages["/"] = page("Home")
        before = set(tmp_path.rglob("*"))
        assert project.scrape("fetch", site.url(), "-s", "frontier.use=sqlite").status == 0
        assert set(tmp_path.rglob("*")) == before


class TestShell:
    """A Python shell on a page; standard input is what one would type."""

    TYPED = """\
print("status", response.status)
fetch("{}")
print("title", response.css("title::text").get())
print(request.url)
"""

    def test_python_console(self, project: Project, site: Site, tmp_path: Path) -> None:
        """Without IPython it is Python's own console: response, request, fetch and spider are there."""
        site.pages |= {"/": page("Home"), "/a": page("A page")}
        (tmp_path / "no_ipython/IPython").mkdir(parents=True)
        (tmp_path / "no_ipython/IPython/__init__.py").write_text("raise ImportError\n")
        typed = (
            self.TYPED.format(site.url("/a")) + "print(spider.name)\nresponse.nothing\nfetch('http://127.0.0.1:1/')\n"
        )
        path = [str(tmp_path / "no_ipython"), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {"PYTHONPATH": os.pathsep.join(path), "SCRAPE_DOWNLOAD__RETRIES": "0"}
        done = project.scrape("shell", site.url(), given=typed, env=env)
        assert done.status == 0, done.err
        printed = [line.replace(">>> ", "") for line in done.out.splitlines()]
        assert [each for each in ("status 200", "title A page", site.url("/a"), "shell") if each not in printed] == []
        assert site.asked == ["/", "/a"]
        assert "<200 " in done.err, "the banner shows the response"
        assert "AttributeError" in done.err
        assert "During handling" not in done.err
        assert "failed: cannot connect" in done.err

    def test_ipython(self, project: Project, site: Site) -> None:
        """With IPython it is IPython."""
        pytest.importorskip("IPython")
        site.pages |= {"/": page("Home"), "/a": page("A page")}
        done = project.scrape("shell", site.url(), given=self.TYPED.format(site.url("/a")) + "exit\n")
        assert done.status == 0, done.err
        assert "In [1]" in done.out
        assert [each for each in ("status 200", "title A page", site.url("/a")) if each not in done.out] == []

    def test_without_url(self, project: Project) -> None:
        """Without a URL nothing is fetched."""
        done = project.scrape("shell", given="print(response, request)\n")
        assert done.status == 0
        assert "None None" in done.out

    def test_no_server(self, project: Project) -> None:
        """There is no shell on a page that does not come."""
        done = project.scrape("shell", "http://127.0.0.1:1/", "-s", "download.retries=0", given="print('shell')\n")
        assert (done.status, done.out, len(done.err_lines)) == (1, "", 1)


class TestParse:
    """What a callback makes of a page."""

    @pytest.fixture
    def shop(self, project: Project, site: Site) -> Project:
        """A project whose spider has two callbacks."""
        site.pages |= {"/": page("Home", ["/a", "/b"]), "/a": page("A")}
        body = """\
allowed_domains = ["127.0.0.1"]
n: int = 1
async def parse_book(self, response):
    other = await self.fetch(response.urljoin("/a"))
    yield {"book": other.css("title::text").get()}
"""
        parse = """\
yield {"url": response.url, "n": self.n}
yield from response.follow_all(css="a", callback=self.parse_book)
"""
        project.spider("shop", site.url(), body, parse)
        return project

    def test_items_and_requests(self, shop: Project, site: Site) -> None:
        """Items go to standard output, requests with their callbacks to standard error; none is followed."""
        done = shop.scrape("parse", site.url(), "--spider", "shop", "-a", "n=3")
        assert done.status == 0, done.err
        assert done.items == [{"url": site.url(), "n": 3}]
        assert [line.split() for line in done.err_lines if line.startswith("GET")] == [
            ["GET", site.url(path), "->", "parse_book"] for path in ("/a", "/b")
        ]
        assert site.asked == ["/"]

    @pytest.mark.parametrize("domains", ['["127.0.0.1:{port}"]', '"127.0.0.1"', '["127.1"]'])
    def test_spider_by_its_domains(self, project: Project, site: Site, domains: str) -> None:
        """They say what they say in a run: with a port, as one text, in any form."""
        site.pages["/"] = page("Home")
        domains = domains.replace("{port}", site.url().split(":")[2].strip("/"))
        project.spider("other", site.url(), 'allowed_domains = ["example.com"]')
        project.spider("shop", site.url(), f"allowed_domains = {domains}")
        assert [item["title"] for item in project.scrape("parse", site.url()).items] == ["Home"]

    def test_prints(self, project: Project, site: Site) -> None:
        """What the spider prints does not stand among the items."""
        site.pages["/"] = page("Home")
        project.spider("loud", site.url(), parse='print("seen")\nyield {"a": 1}')
        done = project.scrape("parse", site.url(), "--spider", "loud")
        assert (done.items, done.err_lines[0]) == ([{"a": 1}], "seen")

    def test_callback(self, shop: Project, site: Site) -> None:
        """Any callback can be asked for, asynchronous ones too; the spider is found by the URL's host."""
        done = shop.scrape("parse", site.url(), "-c", "parse_book")
        assert (done.status, done.items) == (0, [{"book": "A"}]), done.err
        assert site.asked == ["/", "/a"]

    def test_callback_that_raises(self, shop: Project, site: Site) -> None:
        """What a callback raises is shown with the spider's own lines; the status is 1."""
        path = shop.spider("shop", site.url(), parse="yield {'n': 1}\nraise ValueError('x')")
        done = shop.scrape("parse", site.url(), "--spider", "shop")
        assert (done.status, done.items) == (1, [{"n": 1}])
        assert f'File "{path}"' in done.err
        assert "ValueError: x" in done.err

    def test_missing_page(self, shop: Project, site: Site) -> None:
        """A page that does not come is said to be missing; the status is 1."""
        done = shop.scrape("parse", site.url("/none"), "--spider", "shop")
        assert (done.status, done.out) == (1, "")
        assert "404" in done.err

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("42", "TypeError: a callback yields items and requests, not int: '42'"),
            ("'text'", "TypeError: a callback yields items and requests, not str: 'text'"),
            ("response.follow_all(css='a')", "of follow_all(): hand them on with `yield from`"),
            ("{1}", "TypeError: a callback yields items and requests, not set: '{1}'"),
            ("Request('http://a/', lambda r: None)", "RequestError: <GET http://a/>"),
            ("{'a': object()}", "TypeError: a value of type object cannot be written as JSON"),
        ],
    )
    def test_what_a_run_refuses(self, shop: Project, site: Site, value: str, said: str) -> None:
        """What is neither an item nor a request, or cannot be kept, is refused as in a run; the status is 1."""
        shop.spider("shop", site.url(), parse=f"yield {{'n': 1}}\nyield None\nyield {value}")
        done = shop.scrape("parse", site.url(), "--spider", "shop")
        assert (done.status, done.items) == (1, [{"n": 1}])
        assert said in done.err
        assert "scraper/cli" not in done.err
