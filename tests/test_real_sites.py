"""The example spiders on real sites: the PostgreSQL manual on nginx, and the slow site of the examples."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

ROOT = Path(__file__).parent.parent
MANUAL = Path("/usr/share/doc/postgresql-doc-15/html")
NGINX = shutil.which("nginx")
PATIENCE_S = 60.0

needs_manual = pytest.mark.skipif(
    NGINX is None or not MANUAL.is_dir(), reason=f"needs nginx in PATH and Debian's postgresql-doc-15 in {MANUAL}"
)

_CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    types {{ text/html html; text/css css; image/svg+xml svg; }}
    access_log {folder}/access.log combined;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    server {{
        listen 127.0.0.1:{port};
        location /html/ {{ alias {manual}/; }}
    }}
}}
"""


@pytest.fixture
def manual(tmp_path: Path) -> Iterator[str]:
    """The manual, served by nginx; gives the site's address."""
    assert NGINX is not None
    folder = tmp_path / "nginx"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(folder=folder, port=port, manual=MANUAL))
    # nginx is given a socket that listens already (in the way it hands it to its successor), so that nobody has to wait.
    with socket.create_server(("127.0.0.1", port)) as listening:
        process = subprocess.Popen(
            [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)],
            env={"NGINX": f"{listening.fileno()};"},
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def scrape(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a project of its own, which holds the example spiders."""
    folder.mkdir(exist_ok=True)
    (folder / "settings.toml").touch()
    shutil.copytree(ROOT / "spiders", folder / "spiders", ignore=shutil.ignore_patterns("__pycache__"))
    return subprocess.run(
        [sys.executable, "-P", "-m", "scraper", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@needs_manual
def test_manual(manual: str, tmp_path: Path) -> None:
    """The docs spider gives every page of the manual once, asks for each once, and for nothing else but robots.txt."""
    project = tmp_path / "project"
    done = scrape(
        project, "run", "docs", "-a", f"start={manual}/html/index.html", "-O", "docs.jsonl", "--stats", "s.json"
    )
    assert done.returncode == 0, done.stderr
    items = [msgspec.json.decode(line) for line in (project / "docs.jsonl").read_bytes().splitlines()]
    there = sorted(path.name for path in MANUAL.glob("*.html"))
    assert len(there) == 1169
    assert sorted(item["url"].removeprefix(f"{manual}/html/") for item in items) == there
    assert [item["url"] for item in items if not item["title"]] == []

    stats = msgspec.json.decode((project / "s.json").read_bytes())
    expected = {"pages": 1169, "items": 1169, "errors": 0, "seeded": 1169, "done": 1169, "failed": 0, "pending": 0}
    assert {key: stats[key] for key in expected} == expected
    lines = (tmp_path / "nginx/access.log").read_text().splitlines()
    asked = sorted(line.split('"')[1].split()[1] for line in lines)
    assert asked == sorted(["/robots.txt", *(f"/html/{name}" for name in there)])


class Meeting:
    """A WSGI application around another whose pages are answered once ``expected`` of them are asked for together."""

    def __init__(self, app: WSGIApplication, expected: int) -> None:
        self._app = app
        self._barrier = threading.Barrier(expected, timeout=PATIENCE_S / 3)
        self.paths: list[str] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.paths.append(environ["PATH_INFO"])
        try:
            self._barrier.wait()
        except threading.BrokenBarrierError:
            start_response("500 They did not come together", [("Content-Length", "0")])
            return []
        return self._app(environ, start_response)


@pytest.fixture
def meeting() -> Iterator[tuple[Meeting, str]]:
    """The slow site of the examples, not slow itself, whose five pages wait for each other; and the pages' address."""
    spec = importlib.util.spec_from_file_location("slow_site_server", ROOT / "examples/slow_site/server.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    meeting = Meeting(module.make_app(0.0), 5)
    server = make_server("127.0.0.1", 0, meeting, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield meeting, f"http://127.0.0.1:{server.server_port}/page"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_slow_pages_are_waited_for_together(meeting: tuple[Meeting, str], tmp_path: Path) -> None:
    """The slow spider has its five requests in flight at one time: no page is answered before all are asked for."""
    site, address = meeting
    done = scrape(tmp_path, "run", "slow", "-a", "n=5", "-a", f"url={address}", "-o", "-")
    assert done.returncode == 0, done.stderr
    items = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert sorted(item["title"] for item in items) == [f"Page {number}" for number in range(5)]
    assert sorted(site.paths) == [f"/page/{number}" for number in range(5)]
