"""Which URLs belong to the crawl: domains, depth, length; and the traps: paths and queries without end, endless hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from scraper.errors import InvalidURL
from scraper.http import Request
from scraper.urls import MAX_URL_LENGTH, host_of, hostname_of, normalize

_MAX_CYCLE = 4  # segments
_MAX_FOLDERS = 4096  # directories whose paths are remembered
_MAX_COUNTED = 100_000  # hosts, and paths, that are counted at a time


class Scope:
    """The bounds of one crawl. ``domains`` empty: any; subdomains of a domain are in. For each cap 0 means none.

    ``max_path_repeats`` is how often the same one to four segments may follow each other in a path. The pages of a host
    and the queries of a path are counted when they are begun, so that links to what was seen take nothing from the cap.
    """

    def __init__(
        self,
        domains: Iterable[str] = (),
        max_depth: int = 0,
        *,
        max_path_repeats: int = 0,
        max_pages_per_host: int = 0,
        max_queries_per_path: int = 0,
    ) -> None:
        self._domains = tuple(_domain(domain) for domain in ([domains] if isinstance(domains, str) else domains))
        self._suffixes = tuple("." + domain for domain in self._domains)
        self._named: set[str] = set()
        self._new: list[str] = []
        self._hosts: dict[str, bool] = {}
        self._max_depth = max_depth
        self._max_repeats = max_path_repeats
        # Slashes; a path that repeats one segment too often has at least one more.
        self._deep = max_path_repeats + 2 if max_path_repeats else MAX_URL_LENGTH
        self._folders: dict[str, bool] = {}
        self._pages = _Quota("pages-per-host", max_pages_per_host)
        # What a path has of its cap is kept from a hundredth on: most paths have one query or two.
        self._queries = _Quota("queries", max_queries_per_path, max_queries_per_path // 100)
        self._is_any_full = False

    def add_host(self, host: str) -> None:
        """Let this host be in, whatever the domains say: a start URL names it."""
        if self._domains and host not in self._named:
            self._named.add(host)
            self._new.append(host)
            self._hosts.pop(host, None)

    def changes(self) -> dict[str, Any]:
        """Return the start hosts and counts that are new since the last call: see ``contracts.Stateful``."""
        news, self._new = self.news, []
        return news | self._pages.changes() | self._queries.changes()

    @property
    def news(self) -> dict[str, Any]:
        """What ``changes`` is to say of start hosts."""
        return {f"scope:{host}": True for host in self._new}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up the start hosts and counts of an earlier process."""
        self._named.update(name.removeprefix("scope:") for name in state if name.startswith("scope:"))
        self._hosts.clear()
        for quota in (self._pages, self._queries):
            self._is_any_full |= quota.restore(state)

    def refuses(self, request: Request, *, is_link: bool = True) -> str:
        """Return why the request does not belong to the crawl, or "".

        That is "offsite", "depth", "length" or "path-repeat"; and of a link, which is yet to be taken in, "pages-per-host"
        or "queries" where it can no longer be begun.
        """
        if self._max_depth and request.depth > self._max_depth:
            return "depth"
        url = request.url
        if len(url) > MAX_URL_LENGTH:
            return "length"
        if self._domains:
            is_in = self._hosts.get(request.host)
            if not (self._in_domains(request) if is_in is None else is_in):
                return "offsite"
        if url.count("/") > self._deep:
            # The links of a page share few directories; looking into one of six segments anew takes 1 µs, this 0.2.
            folder = url[: url.rfind("/", 0, -1)]
            may_repeat = self._folders.get(folder)
            if may_repeat is None:
                may_repeat = self._may_repeat(folder)
            if may_repeat and _repeats(url, self._max_repeats):
                return "path-repeat"
        if is_link and self._is_any_full:
            return next((quota.cause for quota, name in self._quotas_of(request) if quota.is_full(name)), "")
        return ""

    def begin(self, request: Request) -> str:
        """Count a request that is about to be fetched, or return the cap that it would exceed.

        A retry and what follows a redirect were counted with the request that they stand for.
        """
        if request.retries or request.redirects:
            return ""
        quotas = self._quotas_of(request)
        for quota, name in quotas:
            if quota.is_full(name):
                return quota.cause
        for quota, name in quotas:
            self._is_any_full |= quota.begin(name)
        return ""

    def end(self, request: Request, *, failed: bool) -> None:
        """A request that was begun is settled, or another takes its place; one that failed leaves room for another."""
        was_open = not (request.retries or request.redirects)
        for quota, name in self._quotas_of(request):
            quota.end(name, was_open, failed)

    def _in_domains(self, request: Request) -> bool:
        name = hostname_of(request.url)
        is_in = (
            request.host in self._named
            or name in self._domains
            or request.host in self._domains
            or name.endswith(self._suffixes)
        )
        if len(self._hosts) >= 10_000:
            self._hosts.clear()
        self._hosts[request.host] = is_in
        return is_in

    def _may_repeat(self, folder: str) -> bool:
        """Whether a directory has so many equal segments that a path in it may repeat itself."""
        parts = folder.partition("?")[0].split("/")
        may = len(parts) - len(set(parts)) >= self._max_repeats - 1
        if len(self._folders) >= _MAX_FOLDERS:
            self._folders.clear()
        self._folders[folder] = may
        return may

    def _quotas_of(self, request: Request) -> Sequence[tuple[_Quota, str]]:
        """Return what counts the request, each with the name it is counted under, from before its first redirect."""
        if not self._pages.most and "?" not in request.url and not request.redirects:
            return ()
        url = request.redirects[0] if request.redirects else request.url
        quotas = []
        if self._pages.most:
            quotas.append((self._pages, host_of(url)))
        if self._queries.most and "?" in url and request.method == "GET" and not request.dont_filter:
            # A digest: a hundred thousand paths of 2,000 characters would be much memory.
            path = url[: url.index("?")].encode("utf-8", "surrogatepass")
            quotas.append((self._queries, blake2b(path, digest_size=8).hexdigest()))
        return quotas


class _Quota:
    """Counts what was begun under each name, up to ``most`` (0: nothing is counted), and keeps what is settled.

    Past 100,000 names those with the lowest counts are forgotten: a cap may hold later than it should, never earlier.
    """

    def __init__(self, cause: str, most: int, kept_from: int = 1) -> None:
        self.cause = cause
        self.most = most
        self._kept_from = kept_from
        self._counts: dict[str, int] = {}
        self._open: dict[str, int] = {}
        self._changed: set[str] = set()

    def is_full(self, name: str) -> bool:
        return self._counts.get(name, 0) >= self.most

    def begin(self, name: str) -> bool:
        """Count one; return whether that was the last."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        self._open[name] = self._open.get(name, 0) + 1
        if len(self._counts) > _MAX_COUNTED:
            self._forget_lowest()
        return count >= self.most

    def end(self, name: str, was_open: bool, failed: bool) -> None:
        if was_open:
            left = self._open.get(name, 0) - 1
            if left > 0:
                self._open[name] = left
            else:
                self._open.pop(name, None)
        count = self._counts.get(name, 0)
        if count >= self._kept_from:
            self._changed.add(name)
        if failed and count:
            self._counts[name] = count - 1

    def changes(self) -> dict[str, Any]:
        changed, self._changed = self._changed, set()
        # What is under way would be begun again after a crash.
        return {
            f"scope.{self.cause}:{name}": max(0, self._counts.get(name, 0) - self._open.get(name, 0))
            for name in changed
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Take up what was kept; return whether some name is full."""
        prefix = f"scope.{self.cause}:"
        if not self.most:
            return False
        for name, n in state.items():
            if name.startswith(prefix):  # another worker of a fleet may have counted less than this one
                name = name.removeprefix(prefix)
                self._counts[name] = max(n, self._counts.get(name, 0))
        if len(self._counts) > _MAX_COUNTED:
            self._forget_lowest()
        return max(self._counts.values(), default=0) >= self.most

    def _forget_lowest(self) -> None:
        highest = sorted(self._counts, key=self._counts.__getitem__, reverse=True)[: _MAX_COUNTED // 2]
        self._counts = {name: self._counts[name] for name in highest}


def _repeats(url: str, most: int) -> bool:
    """Whether a cycle of up to four segments of the path comes more than ``most`` times in a row."""
    segments = [each for each in url.partition("?")[0].split("/")[3:] if each]
    for cycle in range(1, _MAX_CYCLE + 1):
        same = 0
        for segment, later in zip(segments, segments[cycle:], strict=False):
            same = same + 1 if segment == later else 0
            if same >= cycle * most:
                return True
    return False


def _domain(text: str) -> str:
    """Return a domain as it stands in URLs: lower case, no leading dot, an international name in its ASCII form."""
    name = text.strip().lstrip(".")
    try:
        return host_of(normalize(f"http://{name}/"))
    except InvalidURL:
        return name.lower()
