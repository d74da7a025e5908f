"""The programs of docs/coroutines.md do what the page says: how often they ask, and how many questions overlap."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples" / "slow_site"
PAGE = ROOT / "docs" / "coroutines.md"
PATIENCE_S = 20.0


class Crowd:
    """A WSGI application around another that counts the requests, and how many are inside at the same time.

    Each request is held until ``expected`` of them have been inside together, so that neither a slow machine nor a
    quick one changes the count; a program that never sends so many at a time is let on after a while, and found out.
    """

    def __init__(self, app: WSGIApplication, expected: int) -> None:
        self._app = app
        self._expected = expected
        self._changed = threading.Condition()
        self._inside = 0
        self.asked = 0
        self.most = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with self._changed:
            self.asked += 1
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most >= self._expected, PATIENCE_S / 10)
        try:
            return self._app(environ, start_response)
        finally:
            with self._changed:
                self._inside -= 1


def server_module() -> ModuleType:
    """Import examples/slow_site/server.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("slow_site_server", FOLDER / "server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def crowd(request: pytest.FixtureRequest) -> Iterator[tuple[Crowd, str]]:
    """Serve the slow site on a free port, with a count of who is inside; give the count and the pages' address."""
    crowd = Crowd(server_module().make_app(0.2), expected=request.param)
    server = make_server("127.0.0.1", 0, crowd, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield crowd, f"http://127.0.0.1:{server.server_port}/page"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("program", "crowd", "asked"),
    [
        ("01_blocking.py", 1, 5),
        ("02_coroutines.py", 1, 5),
        ("03_tasks.py", 5, 5),
        ("04_future.py", 1, 1),
        ("05_done_callback.py", 5, 5),
        ("06_wait.py", 2, 5),
    ],
    indirect=["crowd"],
)
def test_program_asks_as_many_at_a_time_as_the_page_says(
    program: str, crowd: tuple[Crowd, str], asked: int, request: pytest.FixtureRequest
) -> None:
    """Each program fetches its pages, with exactly as many requests under way together as it is written to have."""
    count, address = crowd
    done = subprocess.run(
        [sys.executable, str(FOLDER / program), address],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "characters" in done.stdout
    assert (count.asked, count.most) == (asked, request.node.callspec.params["crowd"])


def test_page_quotes_every_program() -> None:
    """The page shows the programs as they are, so that what is read is what is run."""
    text = PAGE.read_text(encoding="utf-8")
    programs = sorted(FOLDER.glob("0*.py"))
    assert len(programs) == 6
    missing = [path.name for path in programs if f"```python\n{path.read_text(encoding='utf-8')}```" not in text]
    assert missing == []


def test_page_names_files_that_exist() -> None:
    """Every file that the page sends its reader to is there."""
    named = set(re.findall(r"`((?:scraper|spiders|examples)/[\w/]+\.py)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 200, "<h1>Slow site</h1>"),
        ("/page/7", 200, "<h1>Page 7</h1>"),
        ("/robots.txt", 200, "Allow: /"),
        ("/page/seven", 404, "Not Found"),
    ],
)
def test_server_answers(path: str, status: int, text: str) -> None:
    """The site has an index, numbered pages and a robots.txt that allows all."""
    reply: Any = server_module().make_app(0.0).test_client().get(path)
    assert reply.status_code == status
    assert text in reply.text
