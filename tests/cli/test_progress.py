"""Live progress on a terminal, a real one by way of a pty; lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator

import pytest

from .conftest import PATIENCE_S, SCRAPE, Project, Site, _environment, page

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plain(text: str) -> str:
    """Text without colours and movements; a no-break space as a space."""
    return ESCAPE.sub("", text).replace("\N{NO-BREAK SPACE}", " ")


class Terminal:
    """A command on a terminal of its own; ``text`` is all that it has shown."""

    def __init__(
        self, project: Project, *arguments: str, env: dict[str, str] | None = None, stdout: int | None = None
    ) -> None:
        ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*SCRAPE, *arguments],
            cwd=project.root,
            env={**_environment(), "TERM": "xterm", "COLUMNS": "150", "LINES": "40", **(env or {})},
            stdin=theirs,
            stdout=stdout if stdout is not None else theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.text = ""
        self._ours = ours
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for(self, pattern: str) -> str:
        """Wait until the terminal has shown what the pattern matches; return it."""

        def find() -> re.Match[str] | None:
            return re.search(pattern, plain(self.text))

        with self._changed:
            assert self._changed.wait_for(find, PATIENCE_S), self.text
            found = find()
            assert found is not None
            return found[0]

    def end(self) -> int:
        """Wait for the end; return the status."""
        status = self.process.wait(PATIENCE_S)
        self._thread.join()
        return status

    def stop(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        os.close(self._ours)

    @property
    def shown(self) -> list[str]:
        """The lines in the order they were drawn, each without colours; what a redraw replaced is a line as well."""
        return [line.strip() for line in re.split(r"[\r\n]+", plain(self.text)) if line.strip()]

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux's way to say that nobody has the other side open
                return
            if not data:
                return
            with self._changed:
                self.text += data.decode()
                self._changed.notify_all()


@pytest.fixture
def held(project: Project, site: Site) -> Project:
    """A project with the spider "slow", whose site holds pages back, and which logs each page."""
    site.pages |= {"/": page("Home", [f"/held/{number}" for number in range(30)]), "*": page("Held")}
    parse = 'self.log.info("seen " + "x" * 60)\nyield {"url": response.url}\nyield from response.follow_all(css="a")'
    project.spider("slow", site.url(), parse=parse)
    return project


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    """The terminals of a test; all are closed at its end."""
    made: list[Terminal] = []
    yield made
    for each in made:
        each.stop()


PROGRESS = r"slow 0:00:\d\d  pages \d+  items \d+  errors \d+  pages/s [\d,]+  queue \d+  in flight \d+  hosts \d+"


def test_live(held: Project, site: Site, terminals: list[Terminal]) -> None:
    """Pages, items, errors, rate, queue, flights and hosts are shown while it runs; log lines stay whole; a summary ends it."""
    terminal = Terminal(held, "run", "slow", "-s", "politeness.concurrency_per_host=4")
    terminals.append(terminal)
    site.wait_until(lambda: site.held == 4)
    assert terminal.wait_for(r"pages 1  items 1  errors 0  pages/s \d+  queue 26  in flight 4  hosts 1")
    site.let_go()
    assert terminal.end() == 0
    log = [line for line in terminal.shown if "seen" in line]
    assert len(log) == 31
    assert [
        line for line in log if not re.fullmatch(r"\d\d:\d\d:\d\d info    seen x{60}  spider=slow  url=\S+", line)
    ] == []
    drawn = [line for line in terminal.shown if "in flight" in line]
    assert [line for line in drawn if not re.fullmatch(PROGRESS, line)] == []
    assert re.search(r"slow: finished in .*\r?\n +pages +31 ", plain(terminal.text))
    assert "\x1b[?25h" in terminal.text, "the cursor is shown again"


@pytest.mark.parametrize("shards", ["1", "2"])
def test_the_rate_is_of_this_process(project: Project, site: Site, terminals: list[Terminal], shards: str) -> None:
    """What a resumed run had done before counts as pages, but not for pages a second: while none comes, that is 0."""
    links = [*[f"/plain/{number}" for number in range(19)], *[f"/held/{number}" for number in range(9)]]
    site.pages |= {"/": page("Home", links), "*": page("Page")}
    project.spider("slow", site.url(), parse='yield from response.follow_all(css="a")')
    options = ("run", "slow", "--shards", shards, "-s", "politeness.concurrency_per_host=1")
    assert project.scrape(*options, "-s", "crawl.max_pages=20").status == 0
    terminal = Terminal(project, *options, "--resume", "-s", "crawl.max_pages=0")
    terminals.append(terminal)
    terminal.wait_for(r"pages 20 .* in flight 1 ")
    drawn = [line for line in terminal.shown if "in flight" in line]
    assert {re.findall(r"pages/s (\S+)", line)[0] for line in drawn} == {"0"}
    site.let_go()
    assert terminal.end() == 0


def test_prints_to_a_file(project: Project, site: Site, terminals: list[Terminal]) -> None:
    """What a spider prints gets to the file that standard output is sent to, though the progress is on a terminal."""
    site.pages["/"] = page("Home")
    project.spider("loud", site.url(), parse='print("at", response.url)')
    with (project.root / "printed.txt").open("wb") as file:
        terminals.append(Terminal(project, "run", "loud", stdout=file.fileno()))
        assert terminals[0].end() == 0
    assert (project.root / "printed.txt").read_text() == f"at {site.url()}\n"
    assert "pages/s" in terminals[0].text


@pytest.mark.parametrize("options", [["-q"], ["--log-format", "console"]])
def test_not_live(held: Project, site: Site, terminals: list[Terminal], options: list[str]) -> None:
    """``-q``, or plain lines by ``--log-format console``, draw nothing even on a terminal."""
    site.let_go()
    terminal = Terminal(held, "run", "slow", *options)
    terminals.append(terminal)
    assert terminal.end() == 0
    assert "in flight" not in plain(terminal.text)
    assert "\x1b" not in terminal.text
    assert ("slow: finished" in terminal.text) == (options != ["-q"])


def test_no_color(held: Project, site: Site, terminals: list[Terminal]) -> None:
    """With NO_COLOR set nothing is coloured; without it something is."""
    site.let_go()
    coloured = re.compile(r"\x1b\[[\d;]*3[0-7]m|\x1b\[[\d;]*3[0-7];")
    found = {}
    for value in ("", "1"):
        terminal = Terminal(held, "run", "slow", env={"NO_COLOR": value})
        terminals.append(terminal)
        assert terminal.end() == 0
        assert "pages/s" in terminal.text
        found[value] = bool(coloured.search(terminal.text))
    assert found == {"": True, "1": False}


def test_items_on_the_terminal_are_not_torn(held: Project, site: Site, terminals: list[Terminal]) -> None:
    """With ``-o -`` to the same terminal each item has a line of its own."""
    terminal = Terminal(
        held, "run", "slow", "-o", "-", "-s", "politeness.concurrency_per_host=4", "--log-level", "error"
    )
    terminals.append(terminal)
    terminal.wait_for(r'\{"url":"[^"]+/"\}')
    site.let_go()
    assert terminal.end() == 0
    items = [line for line in terminal.shown if '{"url"' in line]
    assert len(items) == 31
    assert [line for line in items if not re.fullmatch(r'\{"url":"[^"]+"\}', line)] == []
