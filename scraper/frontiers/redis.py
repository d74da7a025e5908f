"""The frontier of a fleet: all state in Redis, shared by the workers on any number of machines.

Nothing is decided here that one worker cannot decide alone: which requests were seen, who may fetch what, each host's slots
and gaps are decided by ``lua/bucket.lua`` inside Redis, by Redis' own clock. This side says what it wants in turns, one at
a time: a turn carries everything that came up since the last one, and brings the leases that are wanted now.

How a page becomes done, in this order, each step repeatable:

1. the page's children are pushed: dedupe makes it harmless to push them again, should the page be fetched again;
2. ``commit`` notes in the worker's log what became of its leases, with how far its outputs reach: one script, the moment
   that counts. A worker that the fleet has taken for dead is refused here;
3. the log's entry is applied where the requests are. If the worker dies before, whoever takes its leases back does that.

A host with a delay is granted one request at a time: the next one's time is counted, by Redis' clock, from the worker's
word that it has sent this one. So the gap holds whatever lies between a grant and the wire. Should the worker die before,
its slots are taken back with its leases, and the gap counts from then.

Requests that dedupe would not know again (``dont_filter``, retries, redirects) and start requests travel in the log.
A job in a Cluster is spread over buckets by host; elsewhere it has one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from random import getrandbits
from typing import Any
from zlib import crc32

import msgspec

from scraper.contracts import Checkpoint, Counts, Lease, Settlement
from scraper.errors import StateError
from scraper.frontiers import codec
from scraper.frontiers.server import Server, base_of
from scraper.http import Request

CLUSTER_BUCKETS = 16
PATIENCE_S = 4.0
"""A worker that was not heard for so long has died."""

_BEATS = 8  # heartbeats while the others are patient
_MARGIN_S = 0.005  # how much longer a gap is than asked for, a tenth at the most: a server may be slow to see a request
_FIRST_POLL_S, _LONGEST_POLL_S = 0.02, 0.2  # between two looks at what other workers have left
_START_POLL_S = 0.25
_MAX_UNSENT = 20_000
_LEAVE_S = 3.0
_MARK_BYTES = 12
_NEEDED = ("seed:", "scope:", "robots:")  # facts that others must know before they lease what came with them
_DONE, _FAILED, _MOVED = 1, 2, 0
_UNSEEN, _ANYWAY, _INSTEAD, _INSTEAD_ANYWAY = 0, 1, 2, 3

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


@dataclass(slots=True)
class _Bucket:
    """What is to be said to one bucket, and what it said last."""

    number: int
    key: str
    push: list[Any] = field(default_factory=list)
    log: list[Any] = field(default_factory=list)
    free: list[Any] = field(default_factory=list)
    tune: list[tuple[str, int, int, float, str]] = field(default_factory=list)
    hosts: list[Any] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=lambda: [0] * 5)
    next_at: float | None = None
    held: set[int] = field(default_factory=set)

    @property
    def has_news(self) -> bool:
        """Whether there is something to say."""
        return bool(self.push or self.log or self.free or self.tune or self.hosts or self.sent)


@dataclass(slots=True, frozen=True)
class _Key:
    """Where a lease is stored."""

    bucket: int
    id: int


@dataclass(slots=True)
class _Entry:
    """What the next commit puts in the worker's log: by bucket, the ends of leases and what is pushed with them."""

    parts: dict[int, tuple[list[Any], list[Any]]] = field(default_factory=dict)
    seeded: int = 0

    def part(self, bucket: int) -> tuple[list[Any], list[Any]]:
        """Return one bucket's part."""
        return self.parts.setdefault(bucket, ([], []))


class RedisFrontier:
    """One worker's share in the job ``job``. Implements ``Frontier``.

    ``concurrency``, ``delay`` and ``jitter`` are every host's budget, for all workers together; ``policy_of`` gives those of
    a host that differs, or None. ``tells_sent`` promises that ``sent`` is called for each request to a host in ``unsent``:
    then the gap counts from there, otherwise from the lease. ``learn`` is told what other workers found out (start hosts,
    robots.txt files). ``server_clock`` stands in for Redis' clock in tests.
    """

    durable = True

    def __init__(
        self,
        server: Server,
        job: str,
        worker: str,
        *,
        concurrency: int,
        delay: float = 0.0,
        jitter: float = 0.0,
        policy_of: Callable[[str], tuple[int, float, float] | None] | None = None,
        tells_sent: bool = False,
        order: str = "breadth",
        about: Mapping[str, Any] | None = None,
        learn: Callable[[Mapping[str, Any]], None] = lambda facts: None,
        clock: Callable[[], float] = time.monotonic,
        server_clock: Callable[[], float] | None = None,
        margin_s: float = _MARGIN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.job, self.worker = job, worker
        self._server = server
        self._base = base_of(job)
        self._about = dict(about or {})
        self._learn = learn
        self._clock = clock
        self._server_clock = server_clock
        self._patience_s = patience_s
        self._fixed = {
            "token": worker, "depth": order == "depth", "slots": concurrency,
            "delay": _micros(delay), "jitter": jitter, "margin": _micros(margin_s), "tells": tells_sent,
        }  # fmt: skip
        self._policy_of = policy_of
        self._told_policies: set[str] = set()
        self._unsent_slot: dict[str, int] = {}
        self._wake: Callable[[], None] = lambda: None
        self._buckets: list[_Bucket] = []
        self._turn_number = 0
        self._seen: dict[str, int] = {}
        self._entry = _Entry()
        self._commits = 0
        self._applied: list[int] = []
        self._own_state: dict[str, Any] = {}
        self._version = 0
        self._starts = -1
        self._is_over = self._has_told_over = False
        self._unsent = 0
        self._counts = Counts()
        self._demand = self._private_demand = 0
        self._private_only = False
        self._granted_private: deque[Lease] = deque()
        self._granted: deque[Lease] = deque()
        self._want_private: dict[int, Lease] = {}
        self._want_returned: dict[tuple[int, int], Lease] = {}
        self._slot_of: dict[Lease, int] = {}
        self._private_slots = 0
        self._private_at: float | None = None
        self._is_dry = False
        self._poll_s = _FIRST_POLL_S
        self._poll: asyncio.TimerHandle | None = None
        self._gaps = 0
        self._server_now = self._heard_at = 0.0
        self._turning = asyncio.Lock()
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._failed: StateError | None = None
        self._raw: Callable[[Any], bytes] = _pack

    # -- the run -------------------------------------------------------------------------------------------------------

    async def open(self, wake: Callable[[], None]) -> Checkpoint:
        """Join the job, which this makes where there is none; return what all its workers know."""
        self._wake = wake
        await self._server.open()
        from msgpack import Packer

        self._raw = Packer(use_bin_type=False, autoreset=True).pack  # Redis' MessagePack knows no type "bin"
        job = f"{self._base}:job"
        await self._server.ask("SADD", JOBS, self.job)
        await self._server.ask("HSETNX", job, "buckets", CLUSTER_BUCKETS if self._server.is_cluster else 1)
        count = int(await self._server.ask("HGET", job, "buckets"))
        self._fixed["buckets"] = count
        self._buckets = [_Bucket(n, bucket_key(self.job, n, count)) for n in range(count)]
        self._seen = {self._base: 0} | {bucket.key: 0 for bucket in self._buckets}
        facts = await self._crew("join", _pack(self._about))
        self._version = facts[0][0]
        await self._turn(all_buckets=True)
        self._tasks = [asyncio.create_task(self._take_turns()), asyncio.create_task(self._beat())]
        if self._server_clock is None:
            patience = _micros(self._patience_s)
            self._server.pulse(self._patience_s / _BEATS, "crew", self._base, "beat", self.worker, 0, "", patience)
        return Checkpoint({}, _facts(facts[0][1]))

    async def begin_start(self) -> int | None:
        """Wait until it falls to this worker to run ``start()``; return how many values are taken, None once all are."""
        while True:
            (found,) = await self._crew("start")
            if found == -1:
                await self._turn(all_buckets=True)  # what it counted before may be older than the last start request
                return None
            if found >= 0:
                self._starts = found
                return self._starts
            await asyncio.sleep(_START_POLL_S)

    async def retry_failed(self) -> int:
        """Put every failed request back among the pending ones; return how many."""
        failed = self.counts.failed
        for bucket in self._buckets:
            await self._call(bucket, again=True)
        self._publish()
        return failed - self.counts.failed

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Make everything settled before the call durable, together with ``checkpoint``. Raises StateError."""
        entry, self._entry = self._entry, _Entry()
        starts, is_over = self._starts, self._is_over
        news = await self._turn()
        facts: list[Any] = []
        needed = False
        for name, value in checkpoint.state.items():
            if ":" in name:
                facts += [name, _pack(value) if value is not None else b""]
                needed = needed or name.startswith(_NEEDED)
            elif name == "stats":
                self._own_state[name] = value  # all that others look at; no other process takes up the rest
        self._commits += 1
        parts = [[number, *part] for number, part in entry.parts.items()]
        applied = self._applied[-1] if self._applied else 0
        (version,) = await self._crew(
            "commit", self._commits, _pack(parts) if parts else b"", _pack(dict(checkpoint.outputs)),
            _pack(self._own_state), starts, applied, int(needed), *facts,
        )  # fmt: skip
        first, second = _halves(self._commits, parts, version if needed else 0)
        for number, part in first:
            self._buckets[number].log.append(part)
        if len(self._buckets) > 1:
            news = await self._turn() or news
        for number, part in second:
            self._buckets[number].log.append(part)
        news = await self._turn() or news
        if parts:
            self._applied = [self._commits]
        if is_over and not self._has_told_over:
            await self._crew("over")  # only now: who hears it may count on all start requests being there
            self._has_told_over = True
        self._unsent -= entry.seeded
        if news:
            self._wake()

    async def close(self) -> None:
        """Leave the fleet: what this worker had leased goes to the others at once."""
        self._is_closing = True  # beside the cancellation: asyncio.wait_for of Python 3.11 may swallow one
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._poll is not None:
            self._poll.cancel()
        if self._failed is None and self._buckets:
            with suppress(StateError, TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    (log,) = await self._crew("leave")
                    await self._bury(self.worker, log)
        await self._server.close()

    @property
    def counts(self) -> Counts:
        """The counts of the whole fleet, as far as this worker has heard."""
        known = self._counts
        if not self._unsent:
            return known
        return Counts(
            known.seeded + self._unsent, known.done, known.failed, known.pending + self._unsent, known.filtered
        )

    @property
    def has_room(self) -> bool:
        """Whether what is to be sent keeps within bounds: not while Redis is away for long."""
        return self._unsent < _MAX_UNSENT

    # -- settling ------------------------------------------------------------------------------------------------------

    def knows(self, request: Request) -> bool:
        """Only the server knows."""
        return False

    def settle(self, settlement: Settlement) -> None:
        """Apply what became of a lease."""
        self._starts += settlement.starts
        self._is_over = self._is_over or settlement.start_over
        lease, again = settlement.lease, settlement.again
        if lease is not None:
            key: _Key = lease.key
            ends = self._entry.part(key.bucket)[0]
            if again is not None:
                wait_s = max(0.0, settlement.not_before - self._clock()) if settlement.not_before else 0.0
                # A chain may come back to a URL of its own (a page that sets a cookie and redirects to itself).
                own = again.url == lease.request.url or again.url in lease.request.redirects or again.dont_filter
                ends += (key.id, _MOVED, "", "")
                self._note(_INSTEAD_ANYWAY if own else _INSTEAD, again, wait_s)
            elif settlement.error:
                request = lease.request
                retries, request.retries = request.retries, 0
                ends += (key.id, _FAILED, settlement.error, [request.host, request.priority, codec.encode(request)])
                request.retries = retries
            else:
                ends += (key.id, _DONE, "", "")
        for request in settlement.children:
            self._unsent += 1
            if request.dont_filter or settlement.starts:
                self._entry.seeded += 1
                self._note(_ANYWAY if request.dont_filter else _UNSEEN, request, request.delay)
            else:
                bucket = self._bucket_of(request.host)
                bucket.push += _pushed(_UNSEEN, request, request.delay)
        self._stir()
        self._wake()

    def _note(self, mode: int, request: Request, wait_s: float) -> None:
        pushes = self._entry.part(self._bucket_of(request.host).number)[1]
        pushes += _pushed(mode, request, wait_s)

    def _number_of(self, host: str) -> int:
        return _hash(host) % len(self._buckets)

    def _bucket_of(self, host: str) -> _Bucket:
        """Return the host's bucket, which is told the host's own policy when the host is first spoken of."""
        bucket = self._buckets[_hash(host) % len(self._buckets)]
        if self._policy_of is not None and host not in self._told_policies:
            self._told_policies.add(host)
            policy = self._policy_of(host)
            if policy is not None:
                bucket.hosts += (host, policy[0], _micros(policy[1]), policy[2])
        return bucket

    # -- leasing -------------------------------------------------------------------------------------------------------

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` requests that have been granted; what is missing is asked for."""
        if self._failed is not None:
            raise self._failed
        leases: list[Lease] = []
        while len(leases) < n and self._granted_private:
            leases.append(self._granted_private.popleft())
        while len(leases) < n and self._granted and not private_only:
            leases.append(self._granted.popleft())
        missing = n - len(leases)
        self._private_demand, self._demand = missing, 0 if private_only else missing
        self._private_only = private_only
        if missing and not (private_only and not self._want_private):
            at = self.next_ready(now, private_only=private_only)
            if not self._is_dry or (at is not None and at <= now):
                self._stir()
        return leases

    def release(self, lease: Lease, now: float, *, unused: bool = False) -> None:
        """Free the host's slot that ``lease`` holds."""
        host, slot = lease.request.host, self._slot_of.pop(lease)
        if self._unsent_slot.get(host) == slot:
            del self._unsent_slot[host]
        self._bucket_of(host).free += (slot, unused)
        self._stir()

    def requeue(self, lease: Lease) -> None:
        """Let ``lease`` wait for its host again, before all stored requests."""
        if lease.waiter is not None:
            self._bucket_of(lease.request.host)
            self._private_slots -= 1
            self._want_private[self._private_slots] = lease
        else:
            self._want_returned[lease.key.bucket, lease.key.id] = lease
        self._stir()
        self._wake()

    def tune(
        self,
        host: str,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        cause: str = "",
    ) -> None:
        """Change a host's budget, for the whole fleet.

        What a cause caps of the slots is this worker's own, and ends with it: nobody else lifts it. A cause's delay is
        everybody's, and stays.
        """
        slots = -1 if concurrency is None else concurrency
        gap = -1 if delay is None else _micros(delay)
        self._bucket_of(host).tune.append((host, slots, gap, not_before or 0.0, cause))
        self._stir()
        self._wake()

    @property
    def unsent(self) -> Set[str]:
        """Hosts that nobody asks again before ``sent`` was called for the request that is under way here."""
        return self._unsent_slot.keys()

    def sent(self, name: str, now: float) -> None:
        """Take note that the request to a host in ``unsent`` went out: Redis counts the gap from when it hears of it."""
        slot = self._unsent_slot.pop(name, None)
        if slot is not None:
            self._bucket_of(name).sent.append(slot)
            self._stir()

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when a lease may next succeed with the slots that were free when Redis was asked last."""
        if self._granted_private or (self._granted and not private_only):
            return now
        if private_only:
            return self._private_at if self._want_private else None
        times = [bucket.next_at for bucket in self._buckets if bucket.next_at is not None]
        if self._private_at is not None and (self._want_private or self._want_returned):
            times.append(self._private_at)
        return min(times, default=None)

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _stir(self) -> None:
        self._is_dry = False
        self._stirred.set()

    async def _take_turns(self) -> None:
        """Take a turn whenever there is something to say or to ask for."""
        try:
            while not self._is_closing:
                await self._stirred.wait()
                self._stirred.clear()
                if not self._is_closing and await self._turn():
                    self._wake()
        except StateError as error:
            self._fail(error)

    async def _turn(self, *, all_buckets: bool = False) -> bool:
        """Say what is to be said and ask for what is wanted; return whether something new may be done now."""
        async with self._turning:
            if self._failed is not None:
                raise self._failed
            gaps, pending = self._server.gaps, self._counts.pending
            wants = self._wants()
            self._private_at = None
            lease_first = self._turn_number % len(self._buckets)
            self._turn_number += 1
            order = self._buckets[lease_first:] + self._buckets[:lease_first]
            talked = [bucket for bucket in order if all_buckets or bucket.has_news or bucket.number in wants]
            has_pushed = any(bucket.push or bucket.log for bucket in talked)
            got = 0
            if self._demand and len(order) > 1:
                # One after the other: to ask all at once would take more from the others than is wanted.
                for bucket in talked:
                    got += await self._say(bucket, wants.get(bucket.number, ()), 0)
                # At first each a share, so that the hosts of all take turns; then what is missing, from wherever it is.
                for share in (-(-self._demand // len(order)), self._demand):
                    for bucket in order:
                        if self._demand > 0:
                            got += await self._say(bucket, (), min(share, self._demand))
            else:
                if self._demand and order[0] not in talked:
                    talked.append(order[0])
                answers = [self._say(bucket, wants.get(bucket.number, ()), self._demand) for bucket in talked]
                got = sum(await asyncio.gather(*answers)) if len(answers) != 1 else await answers[0]
            if self._gaps != self._server.gaps or gaps != self._server.gaps:
                await self._compare()
            self._is_dry = self._demand > 0 or bool(wants)
            if self._version < max(bucket.sums[4] for bucket in self._buckets):
                version, facts = (await self._crew("facts"))[0]
                self._version = version
                self._learn(_facts(facts))
            await self._publish_end()
            self._poll_s = _FIRST_POLL_S if got or has_pushed else min(2 * self._poll_s, _LONGEST_POLL_S)
            if self._poll is not None:
                self._poll.cancel()
            self._poll = asyncio.get_running_loop().call_later(self._poll_s, self._stir)
            return bool(got or has_pushed or (pending and not self._counts.pending))

    def _wants(self) -> dict[int, list[Any]]:
        """Return the leases of this worker that wait for their host, by bucket."""
        wants: dict[int, list[Any]] = {}
        for slot, lease in self._want_private.items():
            host = lease.request.host
            wants.setdefault(self._number_of(host), []).extend((slot, host))
        if not self._private_only:
            for (bucket, slot), lease in self._want_returned.items():
                wants.setdefault(bucket, []).extend((slot, lease.request.host))
        return wants

    async def _say(self, bucket: _Bucket, want: Any, n: int) -> int:
        """Take a turn at one bucket; return how many requests may go that could not."""
        said: dict[str, Any] = {}
        for name in ("push", "log", "free", "tune", "hosts", "sent"):
            said[name] = getattr(bucket, name)
            setattr(bucket, name, [])
        asked_at = self._clock()
        said["tune"] = [
            value
            for host, slots, gap, at, cause in said["tune"]
            for value in (host, slots, gap, max(0, _micros(at - asked_at)) if at else 0, cause)
        ]
        _, _, granted, later, leases = await self._call(
            bucket, **said, want=want, want_max=self._private_demand, lease=n
        )
        self._unsent -= len(said["push"]) // 6
        for entry in said["log"]:
            bucket.held.difference_update(entry[1][::4])
        for slot, counts_from_sent in zip(granted[::2], granted[1::2], strict=True):
            lease = self._want_private.pop(slot, None)
            if lease is not None:
                self._granted_private.append(lease)
            else:
                lease = self._want_returned.pop((bucket.number, slot))
                self._granted.appendleft(lease)
            self._hold(lease, slot, counts_from_sent)
        for at in later:
            at_s = self._local(at)
            self._private_at = at_s if self._private_at is None else min(self._private_at, at_s)
        came = len(granted) // 2 + len(leases) // 3
        self._private_demand -= len(granted) // 2
        self._demand = max(0, self._demand - came)
        for id_, counts_from_sent, data in zip(leases[::3], leases[1::3], leases[2::3], strict=True):
            lease = Lease(codec.decode(data), _Key(bucket.number, id_))
            bucket.held.add(id_)
            self._granted.append(lease)
            self._hold(lease, id_, counts_from_sent)
        return came

    def _hold(self, lease: Lease, slot: int, counts_from_sent: int) -> None:
        lease.sent = False
        self._slot_of[lease] = slot
        if counts_from_sent:
            self._unsent_slot[lease.request.host] = slot

    async def _call(self, bucket: _Bucket, **said: Any) -> list[Any]:
        said = _NOTHING | self._fixed | said | {"seen": self._seen[bucket.key], "seed": getrandbits(31)}
        if self._server_clock is not None:
            said["now"] = _micros(self._server_clock())
        answer = await self._server.run("bucket", bucket.key, self._raw(said))
        _, turns, self._server_now, next_at, bucket.sums, granted, later, leases = answer
        self._seen[bucket.key] = max(self._seen[bucket.key], turns)
        self._heard_at = self._clock()
        bucket.next_at = self._local(next_at) if next_at else None
        return [turns, next_at, granted, later, leases]

    def _local(self, at: float) -> float:
        """Turn a time of Redis into one of this process."""
        return self._heard_at + (at - self._server_now) / 1e6

    async def _compare(self) -> None:
        """Give back what Redis granted in answers that never came."""
        self._gaps = self._server.gaps
        for bucket in self._buckets:
            slots = [
                slot for lease, slot in self._slot_of.items() if self._number_of(lease.request.host) == bucket.number
            ]
            await self._call(bucket, kept=list(bucket.held), kept_slots=slots)

    async def _publish_end(self) -> None:
        """Publish the counts; over several buckets the end is believed when it is seen twice, unchanged."""
        while len(self._buckets) > 1 and self._counts.pending and not self._sum().pending:
            before = [list(bucket.sums) for bucket in self._buckets]
            for bucket in self._buckets:
                await self._call(bucket)
            if before == [bucket.sums for bucket in self._buckets]:
                break
        self._publish()

    def _publish(self) -> None:
        self._counts = self._sum()

    def _sum(self) -> Counts:
        seeded, done, failed, filtered, _ = map(sum, zip(*(bucket.sums for bucket in self._buckets), strict=True))
        return Counts(seeded, done, failed, seeded - done - failed, filtered)

    # -- the crew ------------------------------------------------------------------------------------------------------

    async def _crew(self, operation: str, *arguments: Any) -> list[Any]:
        now = _micros(self._server_clock()) if self._server_clock is not None else ""
        answer = await self._server.run(
            "crew", self._base, operation, self.worker, self._seen[self._base], now, *arguments
        )
        self._seen[self._base] = max(self._seen[self._base], answer[1])
        return answer[2:]

    async def _beat(self) -> None:
        """Say now and then that this worker lives; take back what those had leased that do not."""
        try:
            while not self._is_closing:
                version, dead = await self._crew("beat", _micros(self._patience_s))
                for name, log in dead:
                    await self._bury(name.decode(), log, version)
                    self._stir()
                if not self._is_closing:
                    await asyncio.sleep(self._patience_s / _BEATS)
        except StateError as error:
            self._fail(error)

    async def _bury(self, worker: str, log: list[bytes], version: int = 0) -> None:
        """Apply what a worker had committed, and give back what it had leased beyond that."""
        entries = sorted((int(number), _unpack(data)) for number, data in zip(log[::2], log[1::2], strict=True))
        halves = [_halves(number, parts, version) for number, parts in entries]
        for bucket in self._buckets:
            entry = [part for first, _ in halves for at, part in first if at == bucket.number]
            await self._call(bucket, heir=worker, log=entry)
        for bucket in self._buckets:
            entry = [part for _, second in halves for at, part in second if at == bucket.number]
            await self._call(bucket, bury=worker, bury_log=entry)
        await self._server.run("crew", self._base, "buried", self.worker, 0, "", worker)

    def _fail(self, error: StateError) -> None:
        if self._failed is None:
            self._failed = error
        self._wake()


JOBS = "scrape:jobs"
"""The set of all jobs' names."""

_NOTHING: dict[str, Any] = {
    "push": [], "log": [], "free": [], "tune": [], "hosts": [], "sent": [], "want": [], "want_max": 0, "lease": 0,
}  # fmt: skip


def bucket_key(job: str, number: int, count: int) -> str:
    """Return the name of a job's bucket; the only one shares the job's own."""
    return base_of(job) if count == 1 else base_of(f"{job}:{number}")


def _halves(
    commit: int, parts: list[Any], version: int
) -> tuple[list[tuple[int, list[Any]]], list[tuple[int, list[Any]]]]:
    """Return what a commit says, by bucket: first what is pushed everywhere, then what has ended.

    So a fleet never sees a page done and nothing else waiting, while what it led to is on its way to another bucket.
    """
    first = [(number, [2 * commit, [], pushes, version]) for number, _, pushes in parts]
    return first, [(number, [2 * commit + 1, ends, [], 0]) for number, ends, _ in parts]


def _pushed(mode: int, request: Request, wait_s: float) -> tuple[Any, ...]:
    mark = request.fingerprint[:_MARK_BYTES]
    return mode, mark, request.host, request.priority, _micros(wait_s), codec.encode(request)


def _facts(flat: list[bytes]) -> dict[str, Any]:
    return {name.decode(): _unpack(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


@lru_cache(maxsize=65_536)
def _hash(host: str) -> int:
    return crc32(host.encode())
