"""Name servers that fail, say nothing, or say another thing the second time: F21 and S7.

On an island (see ``island.py``) the system's own resolver asks a real name server; elsewhere ``download.resolver`` is what
answers.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from conftest import Crawls
from servers import Site, in_loop

from scraper import Request, Response, Spider
from scraper.errors import UsageError
from web.island import COMMAND, PRIVATE, PUBLIC

Island = Callable[..., dict[str, Any]]
FAST = {"politeness.robots": False, "politeness.adaptive": False}


@pytest.fixture
def island(empty_folder: Path) -> Island:
    """Crawl on an island; return what it prints."""
    try:
        possible = subprocess.run([*COMMAND, "mount", "--bind", "/etc", "/etc"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    if possible.returncode:
        pytest.skip(f"no namespaces here: {possible.stderr.strip()}")

    def crawl(*urls: str, options: str = "timeout:1 attempts:1", last: str = "", **settings: Any) -> dict[str, Any]:
        order = json.dumps({"urls": urls, "options": options, "last": last, "settings": settings})
        command = [*COMMAND, sys.executable, str(Path(__file__).with_name("island.py")), order]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return crawl


def test_name_servers_that_fail_hold_up_nobody(island: Island) -> None:
    """F21: NXDOMAIN, SERVFAIL and silence are DnsErrors after the retries; sites with a name are crawled meanwhile."""
    bad = [f"http://{number}.{kind}.test/" for number in range(8) for kind in ("silent", "failing", "unknown")]
    good = [f"http://{number}.good.test/" for number in range(8)]
    found = island(*bad, *good)
    came = [item["url"] for item in found["items"]]
    outcomes = {item["url"]: item["outcome"] for item in found["items"]}
    assert [outcomes[url] for url in good] == [PUBLIC] * 8
    assert [outcomes[url] for url in bad] == ["DnsError"] * 24
    assert max(map(came.index, good)) < min(came.index(url) for url in bad if "silent" in url)
    says = {item["url"].split(".")[1]: item["says"] for item in found["items"] if "says" in item}
    assert "(Name or service not known)" in says["unknown"]
    assert "(Temporary failure in name resolution)" in says["failing"]
    assert "(Temporary failure in name resolution)" in says["silent"]
    assert found["retries"] == 24
    assert all(times <= 4 for times in found["looked_up"].values()), "two tries; the system asks once more by itself"


def test_a_name_server_that_says_nothing_holds_up_no_end(island: Island) -> None:
    """F21: a run ends, and its process too, while look-ups are under way that would take a minute."""
    silent = [f"http://{number}.silent.test/" for number in range(8)]
    began = perf_counter()
    settings = {"download.connect_timeout": 0.5, "download.retries": 0}
    found = island(*silent, "http://good.test/", options="timeout:30 attempts:2", last="http://good.test/", **settings)
    assert perf_counter() - began < 10
    assert [item["outcome"] for item in found["items"]].count("FetchTimeout") == 8
    assert all("while resolving or connecting (download.connect_timeout)" in i["says"] for i in found["items"][1:])


@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
def test_a_name_that_is_pointed_elsewhere(island: Island, downloader: str) -> None:
    """S7: public when first looked up, private from then on: nothing is ever connected to but what was judged."""
    urls = ["http://rebound.test/hop", "http://mixed.test/", "http://inner.test/"]
    found = island(*urls, **{"download.downloader": downloader})
    outcomes = {item["url"]: item["outcome"] for item in found["items"]}
    assert outcomes["http://mixed.test/"] == PUBLIC
    assert outcomes["http://inner.test/"] == "PrivateAddress"
    # aiohttp keeps what was judged; httpx looks up, and judges, anew for each connection.
    rebound = PUBLIC if downloader == "aiohttp" else "PrivateAddress"
    assert outcomes["http://rebound.test/2"] == rebound
    assert found["looked_up"]["rebound.test"] == (1 if downloader == "aiohttp" else 2)
    assert PRIVATE not in found["asked"]


async def by_table(host: str) -> list[str]:
    """A resolver of a user's own: it knows one site, fails for some names, never answers for others."""
    if host == "hang.test":
        await asyncio.Event().wait()
    if host == "fail.test":
        raise socket.gaierror(socket.EAI_AGAIN, "try later")
    if host == "broken.test":
        raise KeyError(host)
    return {"site.test": ["127.0.0.1"], "odd.test": ["no address"]}.get(host, [])


def by_no_coroutine(host: str) -> list[str]:
    """A slip."""
    return []


@pytest.mark.parametrize("downloader", ["aiohttp", "httpx"])
@in_loop
async def test_a_resolver_of_ones_own(crawled: Crawls, downloader: str) -> None:
    """``download.resolver`` says where names lead; whatever it raises is a DnsError, and what it says is judged."""
    hosts = ["site.test", "hang.test", "fail.test", "broken.test", "odd.test", "none.test"]
    async with Site({"*": "page"}) as site:

        class Visit(Spider):
            name = "visit"

            async def start(self) -> Any:
                for host in hosts:
                    yield Request(f"http://{host}:{site.port}/", errback=self.failed)

            def parse(self, response: Response) -> Any:
                return {response.request.host.partition(":")[0]: response.text}

            def failed(self, failure: Any) -> Any:
                return {failure.request.host.partition(":")[0]: str(failure.error)}

        own = {"download.resolver": f"{__name__}:by_table", "download.connect_timeout": 0.1, "download.retries": 0}
        result = await crawled(Visit, FAST | own | {"download.downloader": downloader})
        refused = await crawled(Visit, FAST | own | {"download.private_addresses": "never"})
    found = {host: text for item in result.items for host, text in item.items()}
    assert found["site.test"] == "page"
    assert "no connection in 0.1 s, while resolving or connecting" in found["hang.test"]
    assert "does not resolve (try later)" in found["fail.test"]
    assert "does not resolve (download.resolver: KeyError: 'broken.test')" in found["broken.test"]
    assert "does not resolve (download.resolver: ValueError" in found["odd.test"]
    assert "does not resolve (no address)" in found["none.test"]
    assert result.stats["error_classes"] == {"DnsError": 4, "FetchTimeout": 1}
    assert refused.stats["error_classes"]["PrivateAddress"] == 1


@in_loop
async def test_what_is_no_resolver(crawled: Crawls) -> None:
    """A slip in ``download.resolver`` is one line, before the first request."""
    Nothing = type("Nothing", (Spider,), {"name": "nothing", "start_urls": ["http://site.test/"]})
    for target, says in (("by_no_coroutine", "is no coroutine function"), ("nothing", "has no nothing")):
        with pytest.raises(UsageError, match=says):
            await crawled(Nothing, {"download.resolver": f"{__name__}:{target}"})
