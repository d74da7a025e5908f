"""The sites that are crawled, on loopback: files made here and served by nginx, and a server that is slow."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PER_LISTING = 20
LINKS = 30

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="/shop.css"></head>
<body><header><nav>{nav}</nav></header><main>{body}</main><footer><p>{filler}</p></footer></body></html>
"""
_WORDS = [
    "amber",
    "basil",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "haven",
    "inlet",
    "jetty",
    "knoll",
    "larch",
    "moss",
    "north",
    "opal",
    "plain",
    "quarry",
    "ridge",
]


def make_shop(root: Path, products: int = 20_000) -> None:
    """Write the shop: an index, a listing for each 20 products, and the products; 5 KB and 30 links each."""
    rng = random.Random(1)
    filler = " ".join(rng.choice(_WORDS) for _ in range(420))
    listings = products // PER_LISTING
    for number in range(listings):
        ids = range(number * PER_LISTING, (number + 1) * PER_LISTING)
        cards = "".join(f'<article><h3><a href="../{_product(each)}">{_name(each)}</a></h3></article>' for each in ids)
        others = [f"/{_listing((number + step) % listings)}" for step in (1, 2, 3, 5, 8, 13, 21, 34, 55)]
        nav = _links(["/index.html", *others][: LINKS - PER_LISTING])
        _write(root / _listing(number), f"Listing {number}", nav, cards, filler[:2800])
    for each in range(products):
        near = [f"../{_product((each + step * step) % products)}" for step in range(1, 16)]
        far = [f"/{_listing((each // PER_LISTING + step) % listings)}" for step in range(LINKS - 16)]
        body = (
            f'<h1>{_name(each)}</h1><p class="price">£{each % 90 + 9}.{each % 100:02}</p>'
            f'<p class="stock">{each % 30} in stock</p><table><tr><th>UPC</th><td class="upc">{each:012x}</td></tr></table>'
            f'<div class="description"><p>{filler[: 900 + each % 300]}</p></div>'
        )
        _write(root / _product(each), _name(each), _links(["/index.html", *near, *far]), body, filler[:1900])
    _write(root / "index.html", "Shop", _links([f"/{_listing(number)}" for number in range(LINKS)]), "", filler)


def make_flat(root: Path, pages: int = 10_000) -> None:
    """Write product pages without links, ``/flat/0.html`` and so on."""
    filler = " ".join(random.Random(2).choice(_WORDS) for _ in range(600))
    for each in range(pages):
        body = (
            f'<h1>{_name(each)}</h1><p class="price">£{each % 90 + 9}.00</p><p class="stock">{each % 30} in stock</p>'
            f'<table><tr><td class="upc">{each:012x}</td></tr></table><div class="description"><p>{filler}</p></div>'
        )
        _write(root / f"flat/{each}.html", _name(each), "", body, filler[:900])


def make_hosts(root: Path, port: int, hosts: int = 200, pages: int = 100) -> None:
    """Write the pages of many hosts, 127.0.0.1 and on, a folder each: 5 KB, 30 links each, a third of them to other hosts."""
    filler = " ".join(random.Random(3).choice(_WORDS) for _ in range(420))
    names = ["index.html", *[f"{each}.html" for each in range(1, pages)]]
    for host in range(hosts):
        for each, name in enumerate(names):
            own = [names[(each + step * step) % pages] for step in range(1, LINKS - 9)]
            far = [f"http://127.0.0.{(host + step) % hosts + 1}:{port}/{name}" for step in range(1, 11)]
            body = (
                f'<h1>{_name(each)}</h1><p class="price">£{each % 90 + 9}.00</p><p class="stock">{host} in stock</p>'
                f'<table><tr><td class="upc">{host:06x}{each:06x}</td></tr></table><div class="description"><p>{filler[:900]}'
                "</p></div>"
            )
            _write(root / f"127.0.0.{host + 1}/{name}", _name(each), _links([*own, *far]), body, filler[:1900])


@contextmanager
def nginx(
    root: Path,
    work: Path,
    cpu: int | None = None,
    certificate: Certificate | None = None,
    *,
    port: int = 0,
    hosts: int = 1,
) -> Iterator[str]:
    """Serve ``root`` on a free loopback port, on a core of its own where one is named; yield the site's address.

    With several ``hosts`` they are 127.0.0.1 and on, at one port, and ``root`` has a folder for each.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit("nginx is not on the PATH; on Debian: apt-get install nginx-light")
    port = port or free_port()
    temporary = "".join(
        f"{name}_temp_path {work}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    tls = ""
    if certificate is not None:
        tls = f"ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key};"
    listens = "".join(
        f"listen 127.0.0.{host}:{port} backlog=16384{' ssl' if tls else ''};" for host in range(1, hosts + 1)
    )
    (work / "nginx.conf").write_text(
        f"daemon off; pid {work}/nginx.pid; error_log {work}/error.log; worker_processes 1;"
        f"events {{ worker_connections 20000; }} http {{ access_log off; types {{ text/html html; }} {temporary}"
        f"keepalive_requests 1000000; server {{ {listens} {tls} root {root}{'/$server_addr' if hosts > 1 else ''}; }} }}"
    )
    with pinned(cpu):
        process = subprocess.Popen([program, "-c", str(work / "nginx.conf"), "-e", str(work / "error.log")])
    try:
        _wait_for(port)
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def slow_server(delay_s: float, cpu: int | None = None) -> Iterator[str]:
    """Serve pages that take ``delay_s`` seconds each; yield the site's address."""
    command = [sys.executable, "-m", "benchmarks.slow_server", str(delay_s)]
    with pinned(cpu):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for 127.0.0.1 that only who is told to trusts, and its key."""

    chain: Path
    key: Path


def make_certificate(work: Path) -> Certificate:
    """Make a certificate by the ``openssl`` program."""
    if shutil.which("openssl") is None:
        raise SystemExit("openssl is not on the PATH; on Debian: apt-get install openssl")
    made = Certificate(work / "certificate.pem", work / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(made.key), "-out", str(made.chain)]
    subprocess.run(command, check=True, capture_output=True)
    return made


@contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """Have processes that are started inside run on one core."""
    if cpu is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    former = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, former)


def free_port() -> int:
    """Return a loopback port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise SystemExit("nginx did not start")


def _product(number: int) -> str:
    return f"catalogue/item-{number}.html"


def _listing(number: int) -> str:
    return f"list/page-{number}.html"


def _name(number: int) -> str:
    return f"{_WORDS[number % 18].title()} {_WORDS[number // 18 % 18]} {number}"


def _links(hrefs: list[str]) -> str:
    return "".join(f'<a href="{href}">{href.rpartition("/")[2]}</a> ' for href in hrefs)


def _write(path: Path, title: str, nav: str, body: str, filler: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_PAGE.format(title=title, nav=nav, body=body, filler=filler), encoding="utf-8")
