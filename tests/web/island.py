"""A crawl on an island: a network of its own, with a name server on port 53 that answers as a test wants it to.

``python island.py '{"urls": […], …}'`` crawls by the system's own resolver and prints one JSON object. To be started by
``COMMAND``, in namespaces of its own, where it is root and has nothing but loopback; 8.8.8.8 is there an address of its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

from scraper import CloseSpider, Request, Response, Spider
from scraper.crawler import Crawler, load_settings, run_in_loop
from scraper.layers import mapping_layer
from scraper.spider import Failure, make_spider

COMMAND = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
PUBLIC = "8.8.8.8"
PRIVATE = "127.0.0.1"
_SET_ADDRESS, _GET_FLAGS, _SET_FLAGS = 0x8916, 0x8913, 0x8914  # of netdevice(7)
_UP = 1
_OK, _FAILURE, _NO_SUCH_NAME = 0, 2, 3  # RFC 1035 section 4.1.1
_A = 1


def settle_in(options: str) -> None:
    """Bring up loopback, and have the system ask the name server here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _GET_FLAGS, struct.pack("16sh22x", b"lo", 0))[:18])[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh22x", b"lo", flags | _UP))
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(PUBLIC))
        fcntl.ioctl(any_socket, _SET_ADDRESS, struct.pack("16s16s8x", b"lo:0", address))
    for name, text in (("resolv", f"nameserver 127.0.0.1\noptions {options}\n"), ("nsswitch", "hosts: files dns\n")):
        with tempfile.NamedTemporaryFile("w", suffix=".conf", delete=False) as file:
            file.write(text)
        subprocess.run(["mount", "--bind", file.name, f"/etc/{name}.conf"], check=True)
        Path(file.name).unlink()


class NameServer(asyncio.DatagramProtocol):
    """Answers by the name's ending; ``asked`` counts the queries for A records by name (RFC 1035)."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def connection_made(self, transport: Any) -> None:
        """Keep the way back."""
        self._transport = transport

    def datagram_received(self, data: bytes, sender: Any) -> None:
        """Answer one query, or do not."""
        labels, at = [], 12
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length].decode())
            at += 1 + length
        kind = struct.unpack("!H", data[at + 1 : at + 3])[0]
        name = ".".join(labels)
        self.asked[name] += kind == _A
        if name.endswith("silent.test"):
            return
        code = _NO_SUCH_NAME if name.endswith("unknown.test") else _FAILURE if name.endswith("failing.test") else _OK
        addresses = self._addresses(name) if code == _OK and kind == _A else []
        answer = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(addresses), 0, 0) + data[12 : at + 5]
        for address in addresses:
            answer += b"\xc0\x0c" + struct.pack("!HHIH", _A, 1, 0, 4) + socket.inet_aton(address)
        self._transport.sendto(answer, sender)

    def _addresses(self, name: str) -> list[str]:
        if name == "rebound.test":
            return [PUBLIC if self.asked[name] == 1 else PRIVATE]
        return {"mixed.test": [PRIVATE, PUBLIC], "inner.test": [PRIVATE]}.get(name, [PUBLIC])


class Visit(Spider):
    """Asks for the URLs it is given, and notes in order what came of each."""

    name = "visit"
    order: Any = ()

    async def start(self) -> Any:
        """Give the start page, which is alone in being one that a start URL names."""
        yield Request("http://start.test/", dont_filter=True)

    def parse(self, response: Response) -> Any:
        """Go on from the start page."""
        if response.request.depth == 0:
            for url in self.order["urls"]:
                yield Request(url, errback=self.failed)
        else:
            yield {"url": response.url, "outcome": response.text, "at": response.ip_address}
            if response.url == self.order.get("last"):
                raise CloseSpider("enough")

    def failed(self, failure: Failure) -> Any:
        """Note the error."""
        return {"url": failure.request.url, "outcome": type(failure.error).__name__, "says": str(failure.error)}


class Kept:
    """Keeps the items."""

    has_room = True

    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, item: Any) -> None:
        """Keep one."""
        self.items.append(item)


async def main(order: dict[str, Any]) -> None:
    """Serve, crawl and print."""
    asked: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        where = writer.get_extra_info("sockname")[0]
        asked[where] += 1
        hop = b"302 Found\r\nLocation: /2" if head.startswith(b"GET /hop") else b"200 OK"
        writer.write(b"HTTP/1.1 " + hop + b"\r\nConnection: close\r\nContent-Type: text/html\r\n\r\n" + where.encode())
        writer.close()

    loop = asyncio.get_running_loop()
    _, names = await loop.create_datagram_endpoint(NameServer, ("127.0.0.1", 53))
    servers = [await asyncio.start_server(serve, address, 80) for address in (PUBLIC, PRIVATE)]
    settings = {"frontier.use": "memory", "politeness.robots": False, "download.retries": 1, **order["settings"]}
    Visit.order = order
    kept = Kept()
    spider = make_spider(Visit, {})
    began = perf_counter()
    crawler = Crawler(spider, load_settings(Visit, [mapping_layer(settings, "the test")]), listener=kept)
    result = await crawler.run()
    for server in servers:
        server.close()
    found = {"items": kept.items, "asked": asked, "looked_up": names.asked, "retries": result.stats["retries"]}
    print(json.dumps({**found, "elapsed_s": perf_counter() - began}), flush=True)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    settle_in(given["options"])
    run_in_loop(main(given))
