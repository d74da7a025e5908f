"""The sites that are crawled: files made here, served by nginx on loopback."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHOP_PRODUCTS = 20_000
SHOP_LISTINGS = 1_000
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


def make_shop(root: Path) -> None:
    """Write the shop: an index, 1,000 listings and 20,000 products, 5 KB and 30 links each."""
    rng = random.Random(1)
    filler = " ".join(rng.choice(_WORDS) for _ in range(420))
    for number in range(SHOP_LISTINGS):
        per_listing = SHOP_PRODUCTS // SHOP_LISTINGS
        ids = range(number * per_listing, (number + 1) * per_listing)
        cards = "".join(f'<article><h3><a href="../{_product(each)}">{_name(each)}</a></h3></article>' for each in ids)
        others = [f"/{_listing((number + step) % SHOP_LISTINGS)}" for step in (1, 2, 3, 5, 8, 13, 21, 34, 55)]
        nav = _links(["/index.html", *others][: LINKS - per_listing])
        _write(root / _listing(number), f"Listing {number}", nav, cards, filler[:2800])
    for each in range(SHOP_PRODUCTS):
        near = [f"../{_product((each + step * step) % SHOP_PRODUCTS)}" for step in range(1, 16)]
        far = [f"/{_listing((each // 20 + step) % SHOP_LISTINGS)}" for step in range(LINKS - 16)]
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


@contextmanager
def nginx(root: Path, work: Path, cpu: int | None = None) -> Iterator[int]:
    """Serve ``root`` on a free loopback port, on its own core where one is named; yield the port."""
    program = shutil.which("nginx")
    if program is None:
        raise SystemExit("nginx is not on the PATH; on Debian: apt-get install nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    temporary = "".join(
        f"{name}_temp_path {work}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (work / "nginx.conf").write_text(
        f"daemon off; pid {work}/nginx.pid; error_log {work}/error.log; worker_processes 1;"
        f"events {{ worker_connections 20000; }} http {{ access_log off; include /etc/nginx/mime.types; {temporary}"
        f"keepalive_requests 1000000; server {{ listen 127.0.0.1:{port} backlog=16384; root {root}; }} }}"
    )
    command = [program, "-c", str(work / "nginx.conf"), "-e", str(work / "error.log")]
    process = subprocess.Popen([*_pinned(cpu), *command])
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _pinned(cpu: int | None) -> list[str]:
    return ["taskset", "-c", str(cpu)] if cpu is not None and shutil.which("taskset") else []


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
