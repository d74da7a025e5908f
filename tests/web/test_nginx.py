"""nginx as servers run it: compressed, with connections that end early, limits on requests, upstreams that die, HTTP/2."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import Crawls
from servers import Authority, RawServer, in_loop, links

from scraper import Response, Spider
from scraper.crawler import Result

NGINX = shutil.which("nginx")
PAGES = 60
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx in PATH")

_CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    types {{ text/html html; }}
    log_format asked '$connection $status $uri $server_protocol $sent_http_content_encoding $http_cookie';
    access_log {folder}/access.log asked;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    {outside}
    server {{
        listen 127.0.0.1:{port} {listen};
        root {folder}/root;
        {inside}
    }}
}}
"""


class Nginx:
    """One that runs, with a site of PAGES pages, each of which links to all."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def url(self, path: str = "/0.html", scheme: str = "http") -> str:
        """The address of a page."""
        return f"{scheme}://127.0.0.1:{self._port}{path}"

    @property
    def log(self) -> list[list[str]]:
        """What was asked, robots.txt aside: connection, status, path, protocol, encoding."""
        lines = (self._folder / "access.log").read_text().splitlines()
        return [line.split()[:5] for line in lines if "/robots.txt" not in line]


Start = Callable[..., Nginx]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Start]:
    """Start nginx with lines of configuration of one's own."""
    with ExitStack() as stack:

        def start(inside: str = "", outside: str = "", listen: str = "") -> Nginx:
            folder = tmp_path / "nginx"
            (folder / "root").mkdir(parents=True)
            for number in range(PAGES):
                text = links(f"/{each}.html" for each in range(PAGES))
                (folder / f"root/{number}.html").write_text(text)
            # A socket that listens already is handed over, as nginx does to its successor, so that nobody has to wait.
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listening.getsockname()[1]
            user = "user root;" if os.geteuid() == 0 else ""  # or its worker could not read the folder
            text = _CONFIG.format(user=user, folder=folder, port=port, inside=inside, outside=outside, listen=listen)
            (folder / "nginx.conf").write_text(text)
            assert NGINX is not None
            process = subprocess.Popen(
                [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")],
                env={"NGINX": f"{listening.fileno()};"},
                pass_fds=[listening.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            return Nginx(folder, port)

        yield start


class Everything(Spider):
    """Follows all links."""

    name = "everything"

    def parse(self, response: Response) -> Any:
        """Note the page."""
        yield {"url": response.url, "length": len(response.body), "protocol": response.protocol}
        yield from response.follow_all(css="a", errback=self.failed)

    def failed(self, failure: Any) -> Any:
        """Note the error."""
        return {"error": str(failure.error)}


async def visit(crawled: Crawls, url: str, **settings: Any) -> Result:
    """Crawl from there on."""
    return await crawled(type("Everything", (Everything,), {"start_urls": [url]}), settings)


@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_connections_that_end_after_a_few_requests(crawled: Crawls, nginx: Start, downloader: str) -> None:
    """keepalive_requests, gzip: every page comes once and whole, and nothing is tried again."""
    server = nginx("gzip on; gzip_min_length 1; keepalive_requests 3;")
    result = await visit(crawled, server.url(), **{"download.downloader": downloader})
    assert len({item["url"] for item in result.items}) == len(result.items) == len(server.log) == PAGES
    assert {item["length"] for item in result.items} == {len(links(f"/{each}.html" for each in range(PAGES)))}
    assert {(status, encoding) for _, status, _, _, encoding in server.log} == {("200", "gzip")}
    assert (result.stats["retries"], result.stats["failed"]) == (0, 0)
    assert len({connection for connection, *_ in server.log}) >= PAGES / 3


@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_connections_that_end_while_idle(crawled: Crawls, nginx: Start, downloader: str) -> None:
    """keepalive_timeout as long as the gap between two requests: every page comes, whoever is first."""
    server = nginx("keepalive_timeout 20ms;")
    settings = {"politeness.delay": 0.02, "download.downloader": downloader}
    result = await visit(crawled, server.url(), **settings)
    assert len(result.items) == PAGES
    assert result.stats["failed"] == 0


@pytest.mark.parametrize("status", [429, 503])
@in_loop
async def test_a_limit_on_requests(crawled: Crawls, nginx: Start, status: int) -> None:
    """limit_req with a Retry-After: the crawl slows down, and no page is lost."""
    server = nginx(
        f"limit_req zone=all burst=3 nodelay; limit_req_status {status}; add_header Retry-After 1 always;",
        "limit_req_zone $binary_remote_addr zone=all:1m rate=60r/s;",
    )
    result = await visit(crawled, server.url())

    assert len(result.items) == PAGES
    assert result.stats["failed"] == 0
    assert result.stats["statuses"][str(status)] > 0


@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize(
    "answer",
    [b"", HEAD + b"Content-Length: 1000\r\n\r\nhalf", HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
)
@in_loop
async def test_an_upstream_that_dies(
    crawled: Crawls, nginx: Start, authority: Authority, tmp_path: Path, downloader: str, secure: bool, answer: bytes
) -> None:
    """What a gateway passes on of half an answer is never a page: an error after the retries, or a 502."""
    async with RawServer(answer) as upstream:
        inside = f"location /half {{ proxy_pass {upstream.url()}; }}"
        server = nginx(inside + (_certificate(authority, tmp_path) if secure else ""), listen="ssl http2" * secure)
        url = server.url("/half", "https" if secure else "http")
        settings = {"download.ca_file": authority.file, "download.downloader": downloader, "download.retries": 1}
        result = await visit(crawled, url, **settings, **{"politeness.robots": False})
    assert (result.items, result.stats["retries"], result.stats["failed"]) == ([], 1, 1)
    assert set(result.stats["error_classes"]) <= ({"Truncated", "ConnectionLost"} if answer else {"HttpError"})
    assert upstream.connections == 2


def _certificate(authority: Authority, folder: Path) -> str:
    certificate = authority.issue("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return f"ssl_certificate {folder}/server.pem; ssl_certificate_key {folder}/server.pem;"


@pytest.mark.parametrize("requests", [1000, 20])
@in_loop
async def test_http2(crawled: Crawls, nginx: Start, authority: Authority, tmp_path: Path, requests: int) -> None:
    """HTTP/2 over TLS: one connection for all; and one that is ended by GOAWAY after a few requests loses no page."""
    server = nginx(f"keepalive_requests {requests};" + _certificate(authority, tmp_path), listen="ssl http2")
    settings = {"download.ca_file": authority.file, "download.downloader": "httpx"}
    result = await visit(crawled, server.url(scheme="https"), **settings)
    assert len({item["url"] for item in result.items}) == len(result.items) == PAGES
    assert {item["protocol"] for item in result.items} == {"HTTP/2"}
    assert result.stats["failed"] == 0
    connections = {connection for connection, *_ in server.log}
    assert len(connections) == 1 if requests == 1000 else len(connections) >= PAGES / 21
