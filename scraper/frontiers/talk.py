"""What a worker and Redis say to each other: the parts of a turn, and how it is put to the scripts of ``lua/``.

Nothing is decided here. ``Talk`` keeps what Redis must be told with each word (how many it has answered, the worker's
name, the budgets) and what it said last of the time and the counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import inf
from random import getrandbits
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct, field

from scraper.contracts import Checkpoint, Counts, Tally
from scraper.frontiers import codec
from scraper.frontiers.neighbours import own_place, runs_here
from scraper.frontiers.server import Server, base_of
from scraper.http import Request

CLUSTER_BUCKETS = 16
UNSEEN, ANYWAY, INSTEAD, INSTEAD_ANYWAY = 0, 1, 2, 3
"""Ways to take a request in: unless it was seen, in any case, and both in another's place."""

JOBS = "scrape:jobs"
"""The set of all jobs' names."""

UNHEARD = -1
"""In place of how often Redis has answered: nobody hears this answer, and it does not count."""

_MARK_BYTES = 12
_DONE, _FAILED, _MOVED = 1, 2, 0
_NEEDED = ("seed:", "scope:", "robots:")  # facts that others must know before they lease what came with them
_NOTHING: dict[str, Any] = {
    "push": [], "log": [], "free": [], "back": [], "tune": [], "hosts": [], "sent": [], "want": [], "want_max": 0,
    "lease": 0, "ahead": 0, "follow": [], "filtered": 0,
}  # fmt: skip

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


class Key(Struct, frozen=True):
    """Where a lease is stored."""

    bucket: int
    id: int


class Bucket(Struct, eq=False):
    """What is to be said to one bucket, and what it said last."""

    number: int
    key: str
    push: list[Any] = []
    log: list[Any] = []
    free: list[Any] = []
    back: list[int] = []
    tune: list[tuple[str, int, int, float, str]] = []
    hosts: list[Any] = []
    sent: list[int] = []
    sums: list[int] = field(default_factory=lambda: [0] * 5)
    next_at: float | None = None
    asked_at: float = -inf
    held: set[int] = set()

    @property
    def has_news(self) -> bool:
        """Whether there is something to say."""
        return bool(self.push or self.log or self.free or self.back or self.tune or self.hosts or self.sent)


class Entry(Struct, eq=False):
    """What the next commit says of the requests: by bucket, the ends of leases and what is pushed with them."""

    parts: dict[int, tuple[list[Any], list[Any]]] = {}
    seeded: int = 0

    def part(self, bucket: int) -> tuple[list[Any], list[Any]]:
        """Return one bucket's part."""
        return self.parts.setdefault(bucket, ([], []))

    def done(self, key: Key) -> None:
        """The lease has ended well."""
        ends = self.part(key.bucket)[0]
        ends += (key.id, _DONE, "", "")

    def moved(self, key: Key) -> None:
        """Another request takes the lease's place."""
        ends = self.part(key.bucket)[0]
        ends += (key.id, _MOVED, "", "")

    def failed(self, key: Key, request: Request, error: str) -> None:
        """The lease has failed; the request is kept as if it had never been tried again."""
        ends = self.part(key.bucket)[0]
        retries, request.retries = request.retries, 0
        ends += (key.id, _FAILED, error, [request.host, int(request.priority), codec.encode(request)])
        request.retries = retries


class Notes:
    """What one worker's commits say of itself: how far its outputs reach, what it counted and found out."""

    def __init__(self) -> None:
        self.counted = Tally()
        self.applied = 0
        """The last one that was put into the log, and applied since."""
        self._number = 0
        self._own: dict[str, Any] = {}

    def next(self, checkpoint: Checkpoint, starts: int) -> dict[str, Any]:
        """Return what the next commit says, but for the requests."""
        facts: list[Any] = []
        needed = False
        before = self.counted
        for name, value in checkpoint.state.items():
            if ":" in name:
                facts += [name, pack(value) if value is not None else b""]
                needed = needed or name.startswith(_NEEDED)
            elif name == "stats":
                self._own[name] = value  # all that others look at; no other process takes up the rest
                self.counted = Tally(value.get("pages", 0), value.get("items", 0), value.get("errors", 0))
        now = self.counted
        self._number += 1
        return {
            "number": self._number, "outputs": pack(dict(checkpoint.outputs)), "own": pack(self._own),
            "starts": starts, "facts": facts, "needed": int(needed), "entry": b"", "applied": self.applied,
            "tally": [now.pages - before.pages, now.items - before.items, now.errors - before.errors],
        }  # fmt: skip


class Talk:
    """One worker's talk with its job: the buckets, where the requests are, and the crew, who work on it.

    ``terms`` are the parts of a turn that never change. ``policy_of`` gives the budget of a host that has its own.
    """

    def __init__(
        self,
        server: Server,
        job: str,
        worker: str,
        terms: dict[str, Any],
        *,
        policy_of: Callable[[str], tuple[int, float, float] | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        server_clock: Callable[[], float] | None = None,
    ) -> None:
        self.server, self.job, self.worker, self.base = server, job, worker, base_of(job)
        self.buckets: list[Bucket] = []
        self._terms = {"token": worker, **terms}
        self._policy_of = policy_of
        self._told_policies: set[str] = set()
        self._clock = clock
        self._server_clock = server_clock
        self._seen: dict[str, int] = {}
        self._server_now = self._heard_at = 0.0
        self._raw: Callable[[Any], bytes] = pack

    async def open(self) -> None:
        """Connect, and find out how many buckets the job has, which this makes where there is none."""
        await self.server.open()
        from msgpack import Packer

        self._raw = Packer(use_bin_type=False, autoreset=True).pack  # Redis' MessagePack knows no type "bin"
        key = f"{self.base}:job"
        await self.server.ask("SADD", JOBS, self.job)
        await self.server.ask("HSETNX", key, "buckets", CLUSTER_BUCKETS if self.server.is_cluster else 1)
        count = int(await self.server.ask("HGET", key, "buckets"))
        self._terms["buckets"] = count
        self.buckets = [Bucket(n, bucket_key(self.job, n, count)) for n in range(count)]
        self._seen = {self.base: 0} | {bucket.key: 0 for bucket in self.buckets}

    async def join(self, about: Mapping[str, Any]) -> tuple[int, Mapping[str, Any], list[int]]:
        """Join the crew; return the facts' version, the facts, and the fleet's tally.

        What workers of this machine had leased that run no more is given back: nobody need wait until they have been
        silent for long.
        """
        (version, known), tally, others = await self.crew("join", pack({**about, "place": own_place()}))
        for name, described in others:
            if runs_here(unpack(described)) is False:
                (log,) = await self.crew("bury", name)
                await self.bury(name.decode(), log, version)
        return version, facts(known), tally

    def number_of(self, host: str) -> int:
        """Return the number of a host's bucket."""
        return _hash(host) % len(self.buckets)

    def bucket_of(self, host: str) -> Bucket:
        """Return the host's bucket, which is told the host's own policy when the host is first spoken of."""
        bucket = self.buckets[_hash(host) % len(self.buckets)]
        if self._policy_of is not None and host not in self._told_policies:
            self._told_policies.add(host)
            policy = self._policy_of(host)
            if policy is not None:
                bucket.hosts += (host, policy[0], micros(policy[1]), policy[2])
        return bucket

    async def turn(
        self, bucket: Bucket, **said: Any
    ) -> tuple[list[int], list[float], list[Any], list[int], list[bytes]]:
        """Say something to a bucket.

        Return what it granted, when it may grant more, the leases, the fleet's tally, and the hosts on whose slots no
        request may follow.
        """
        said = _NOTHING | self._terms | said | {"seen": self._seen[bucket.key], "seed": getrandbits(31)}
        if self._server_clock is not None:
            said["now"] = micros(self._server_clock())
        answer = await self.server.run("bucket", bucket.key, self._raw(said))
        _, turns, self._server_now, next_at, bucket.sums, granted, later, leases, tally, halted = answer
        self._seen[bucket.key] = max(self._seen[bucket.key], turns)
        self._heard_at = self._clock()
        bucket.next_at = self._local(next_at) if next_at else None
        return granted, [self._local(at) for at in later], leases, tally, halted

    async def crew(self, operation: str, *arguments: Any) -> list[Any]:
        """Say something to the crew; return its answer."""
        now = micros(self._server_clock()) if self._server_clock is not None else ""
        answer = await self.server.run(
            "crew", self.base, operation, self.worker, self._seen[self.base], now, *arguments
        )
        self._seen[self.base] = max(self._seen[self.base], answer[1])
        return answer[2:]

    async def commit(self, note: dict[str, Any]) -> list[Any]:
        """Put a note into the worker's log, where the job has several buckets; return the facts' version and the tally."""
        return await self.crew("commit", self._raw(note))

    async def bury(self, worker: str, log: list[bytes], version: int = 0) -> None:
        """Apply what a worker had committed, and give back what it had leased beyond that."""
        entries = sorted((int(number), unpack(data)) for number, data in zip(log[::2], log[1::2], strict=True))
        both = [halves(number, parts, version) for number, parts in entries]
        for bucket in self.buckets:
            entry = [part for first, _ in both for at, part in first if at == bucket.number]
            await self.turn(bucket, heir=worker, log=entry)
        for bucket in self.buckets:
            entry = [part for _, second in both for at, part in second if at == bucket.number]
            await self.turn(bucket, bury=worker, bury_log=entry)
        await self.server.run("crew", self.base, "buried", self.worker, 0, "", worker)

    def counts(self) -> Counts:
        """Return the counts of the whole job, as the buckets said them last."""
        seeded, done, failed, filtered, _ = map(sum, zip(*(bucket.sums for bucket in self.buckets), strict=True))
        return Counts(seeded, done, failed, seeded - done - failed, filtered)

    async def certain_counts(self, was_pending: int) -> Counts:
        """Return the counts; over several buckets the end is believed when it is seen twice, unchanged."""
        while len(self.buckets) > 1 and was_pending and not self.counts().pending:
            before = [list(bucket.sums) for bucket in self.buckets]
            for bucket in self.buckets:
                await self.turn(bucket)
            if before == [bucket.sums for bucket in self.buckets]:
                break
        return self.counts()

    def _local(self, at: float) -> float:
        """Turn a time of Redis into one of this process."""
        return self._heard_at + (at - self._server_now) / 1e6


def bucket_key(job: str, number: int, count: int) -> str:
    """Return the name of a job's bucket; the only one shares the job's own."""
    return base_of(job) if count == 1 else base_of(f"{job}:{number}")


def pushed(mode: int, mark: bytes, request: Request, wait_s: float) -> tuple[Any, ...]:
    """Return a request, of which this is the fingerprint, as a push says it."""
    wait = micros(wait_s) if wait_s else 0
    # An int: Lua formats no True.
    return mode, mark[:_MARK_BYTES], request.host, int(request.priority), wait, codec.encode(request)


def halves(
    commit: int, parts: list[Any], version: int
) -> tuple[list[tuple[int, list[Any]]], list[tuple[int, list[Any]]]]:
    """Return what a commit says, by bucket: first what is pushed everywhere, then what has ended.

    So a fleet never sees a page done and nothing else waiting, while what it led to is on its way to another bucket.
    """
    first = [(number, [2 * commit, [], pushes, version]) for number, _, pushes in parts]
    return first, [(number, [2 * commit + 1, ends, [], 0]) for number, ends, _ in parts]


def facts(flat: list[bytes]) -> Mapping[str, Any]:
    """Return the facts of an answer by name."""
    return {name.decode(): unpack(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def micros(seconds: float) -> int:
    """Return microseconds, in which all times are said."""
    return round(seconds * 1e6)


@lru_cache(maxsize=65_536)
def _hash(host: str) -> int:
    return crc32(host.encode())
