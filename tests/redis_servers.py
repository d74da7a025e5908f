"""Real Redis servers for tests: one, or a Cluster of three, on loopback, with nothing kept that the test does not keep."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PATIENCE_S = 20.0
"""Past this, a server will never answer."""

SLOTS = 16_384


class RedisServer:
    """One redis-server on a free port of 127.0.0.1, its files in ``folder``; ``options`` as in redis.conf."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self._options = options
        self.answer = b"+PONG"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address for ``frontier.use``."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed"
        options = ["--save", "", "--appendonly", "no", *self._options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *options],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self.send("PING").startswith(self.answer):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline

    def send(self, *words: str) -> bytes:
        """Send one command; return the answer's first block, b"" where there is nobody."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                parts = [f"*{len(words)}", *(line for word in words for line in (f"${len(word.encode())}", word)), ""]
                connection.sendall("\r\n".join(parts).encode())
                return connection.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        """Kill it as kill -9 does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def free_port() -> int:
    """Return a port that is free, and so is the one 10,000 above it, which a Cluster's node needs.

    Both lie below those that the system gives to connections: one of these could have it while a server is away.
    """
    while True:
        port = random.randrange(10_000, 22_000)
        try:
            for each in (port, port + 10_000):
                socket.create_server(("127.0.0.1", each)).close()
        except OSError:
            continue
        return port


@contextmanager
def running(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run one server."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def running_cluster(folder: Path) -> Iterator[str]:
    """Run a Cluster of three nodes; give its address."""
    with running_nodes(folder) as nodes:
        yield cluster_url(nodes)


def cluster_url(nodes: list[RedisServer]) -> str:
    """Return the address of a Cluster."""
    return f"redis+cluster://127.0.0.1:{nodes[0].port}"


@contextmanager
def running_nodes(folder: Path, *options: str) -> Iterator[list[RedisServer]]:
    """Run a Cluster of three nodes; give them."""
    own = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options)
    with ExitStack() as stack:
        nodes = [stack.enter_context(running(folder / str(number), *own)) for number in range(3)]
        for number, node in enumerate(nodes):
            first, last = number * SLOTS // 3, (number + 1) * SLOTS // 3 - 1
            assert node.send("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)) == b"+OK\r\n"
            node.send("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        for node in nodes[1:]:
            node.send("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))
        deadline = time.monotonic() + PATIENCE_S
        while not all(
            b"cluster_state:ok" in (info := node.send("CLUSTER", "INFO")) and b"cluster_known_nodes:3" in info
            for node in nodes
        ):
            assert time.monotonic() < deadline
        yield nodes
