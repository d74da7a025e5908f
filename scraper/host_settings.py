"""What is different for some hosts: the [hosts] tables of the settings, looked up by a request's host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from scraper.settings import Host

_MAX_KNOWN = 10_000


class HostSettings:
    """The tables by pattern: ``example.com`` (any port), ``example.com:8080``, ``*.example.com`` (its subdomains).

    For each key the most particular pattern that has it wins: a name before ``*.``, a longer name before a shorter one,
    with a port before without. False where there are no tables: then nobody needs to ask.
    """

    def __init__(self, tables: Mapping[str, Host]) -> None:
        self._tables = tables
        self._known: dict[str, Host | None] = {}

    def __bool__(self) -> bool:
        return bool(self._tables)

    def any(self, key: str) -> bool:
        """Whether some table has a value, other than false, for the key."""
        return any(getattr(table, key) for table in self._tables.values())

    def for_host(self, host: str) -> Host | None:
        """Return what is different for a host (a name, with its port where not the default), or None. Remembered."""
        try:
            return self._known[host]
        except KeyError:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[host] = self._find(host)
            return found

    def _find(self, host: str) -> Host | None:
        found: Host | None = None
        for pattern in _patterns(host):
            table = self._tables.get(pattern)
            if table is not None:
                found = table if found is None else _merged(found, table)
        return found


def _patterns(host: str) -> Iterator[str]:
    """Yield the patterns that match the host, the most particular first."""
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, ""
    if port:
        yield host
    yield name
    if name.endswith("]") or name.rpartition(".")[2].isdigit():
        return  # an address has no subdomains
    while "." in name:
        name = name.partition(".")[2]
        if port:
            yield f"*.{name}:{port}"
        yield f"*.{name}"


def _merged(particular: Host, general: Host) -> Host:
    """Return the one's values, and the other's where it has none."""
    missing = {key: value for key, value in msgspec.structs.asdict(general).items() if getattr(particular, key) is None}
    headers = dict(particular.headers)
    named = {name.lower() for name in headers}
    headers.update({name: value for name, value in general.headers.items() if name.lower() not in named})
    return msgspec.structs.replace(particular, **{**missing, "headers": headers})
