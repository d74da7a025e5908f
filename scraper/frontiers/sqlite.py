"""The durable frontier: all state in one SQLite file, the next requests of each host in memory.

Every pending request is in the file; memory is a window on it. What is settled is applied to memory at once and to the
file in batches, by one thread, in order; ``commit`` makes it durable. So the crawl runs at memory's speed, a crash
loses only what was not committed, and memory stays bounded however many requests wait.

Invariants:

* A host is *unread* where its pending requests that are not leased are only in the file, and none was read yet; it is in
  ``_unread`` then. Of one with an entry in ``_on_file``, all up to the entry's ``bound`` are in memory or leased, all behind
  it only in the file. Of one in ``_trip`` the same may be true, and it is being read. Of any other, all are in memory.
* Unread hosts are in ``_cold`` or, in the file's order, ``_sweep``. A host that has run out of requests in memory, but not
  in the file, is in ``_low`` or in ``_trip``. One trip to the thread reads the next requests of many hosts; there is one
  at a time.
* Hosts that run low are read whatever is in memory, by ``_share`` at a time, which all of them together keep to about half
  of it; cold ones come in as long as it is not full, sweep by sweep. So neither starves the other, and what is in memory
  does not grow with the number of hosts.
* The file still holds what is leased, so what is read may be leased, or ended since: ``_leased`` and ``_ended`` tell.
* Dedupe is exact. ``_recent`` and ``_less_recent`` hold every fingerprint that is not in the file's sorted table, and all
  of them while ``_knows_all``. Where they do not know, the file decides, and the request counts as pending until it has.
* The thread does things in the order in which they were handed to it, so a read sees every earlier write.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import asdict

from scraper.contracts import Checkpoint, Counts, HostBudgets, Lease, Settlement
from scraper.errors import StateError, UsageError
from scraper.frontiers import codec
from scraper.frontiers.marks import unseen
from scraper.frontiers.queues import Queues, Rank
from scraper.frontiers.store import MERGE_SLICES, Batch, Delayed, Row, Store
from scraper.http import Request

_MIN_SHARE, _MAX_SHARE = 2, 256  # requests of one host that are read at a time
_TRIP = 256  # requests, of hosts that run low and of cold ones each, that are read in one trip: 3 ms of the event loop
_SWEEP = 100_000  # cold hosts that are put in the file's order at a time: 20 ms
_FEW = 8  # requests that a host may have in memory while others have filled half of it
_LARGE_BATCH = 1000  # new requests that are written without waiting for a commit
_MAX_BATCH = 20_000  # requests that wait to be written


class _OnFile(Struct, gc=False):
    """A host that has requests only in the file: those behind ``bound``. ``is_due``: it is to be read, or being read."""

    bound: Rank
    is_due: bool = False


class _Key(Struct, frozen=True, gc=False):
    """Where a lease's request is stored: its host's number and its rank there, or among the delayed ones."""

    host: int
    rank: Rank
    delayed: bool


class SqliteFrontier:
    """Keeps all state in the file ``path``. Implements ``Frontier``.

    ``durability``: "normal" survives the process being killed, "full" a power failure too, "none" neither surely.
    ``window`` bounds the requests held in memory, ``marks`` the fingerprints, ``noted`` what the file has yet to put
    in order.
    """

    __slots__ = (  # many attributes: see tests/test_house.py
        *("_batch", "_clock", "_counts", "_doubtful", "_failed", "_hosts", "_path", "_queues", "_store", "_thread"),
        *("_generation", "_is_merging", "_knows_all", "_less_recent", "_max_recent", "_recent", "_serial", "_starts"),
        *("_cold", "_ended", "_leased", "_low", "_on_file", "_step", "_sweep", "_trip", "_unread", "_window"),
        *("_flush_is_due", "_wake", "_wall_clock", "_writing"),
    )

    durable = True

    def __init__(
        self,
        hosts: HostBudgets,
        order: str = "breadth",
        clock: Callable[[], float] = time.monotonic,
        *,
        path: Path,
        durability: Literal["none", "normal", "full"] = "normal",
        window: int = 10_000,
        marks: int = 500_000,
        noted: int = 20_000,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._hosts = hosts
        self._step = 1 if order == "breadth" else -1
        self._clock = clock
        self._wall_clock = wall_clock
        self._window = window
        self._max_recent = marks // 2
        self._queues = Queues(hosts, clock)
        self._path = path
        self._store = Store(path, durability, noted)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="frontier")
        self._counts = Counts()
        self._serial = 0
        self._starts = 0
        self._recent: set[bytes] = set()
        self._less_recent: set[bytes] = set()
        self._knows_all = True
        self._generation = 0
        self._is_merging = False
        self._on_file: dict[int, _OnFile] = {}
        self._low: deque[int] = deque()
        self._unread: set[int] = set()
        self._cold: deque[int] = deque()
        self._sweep: deque[int] = deque()
        # With the lowest rank of what has come behind the bound since the trip began: it may have missed that, so the bound
        # must not pass it.
        self._trip: dict[int, Rank | None] = {}
        self._leased: set[int] = set()
        self._ended: set[int] = set()
        self._batch = Batch()
        self._doubtful: list[tuple[Lease, float, bool]] = []
        self._writing: asyncio.Future[list[bool]] | None = None
        self._flush_is_due = False
        self._failed: BaseException | None = None
        self._wake: Callable[[], None] = lambda: None

    async def open(self, wake: Callable[[], None]) -> Checkpoint:
        """Open the file; what an earlier process had leased waits again."""
        self._wake = wake
        try:
            meta = await self._in_thread(self._store.open)
            self._serial, self._starts = meta.get("serial", 0), meta.get("starts", 0)
            self._counts = Counts(**meta.get("counts", {}))
            if self._serial:
                await self._recover()
        except StateError as error:
            raise UsageError(str(error)) from None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UsageError(f"{self._path}: the run's state is damaged: {error}") from None
        state = {key.removeprefix("state."): value for key, value in meta.items() if key.startswith("state.")}
        return Checkpoint(meta.get("outputs", {}), state)

    async def begin_start(self) -> int:
        """Return how many values of ``start()`` were taken before."""
        return self._starts

    async def close(self) -> None:
        """Close the file. What was not committed waits again in the next run."""
        await self._in_thread(self._store.close)
        self._thread.shutdown()

    @property
    def counts(self) -> Counts:
        """The counts of now."""
        return self._counts

    @property
    def has_room(self) -> bool:
        """Whether the thread keeps up with what is to be written."""
        batch = self._batch
        return len(batch.come) + len(batch.marks) + len(batch.doubtful) < _MAX_BATCH

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Make everything settled before the call durable, together with ``checkpoint``. Raises StateError."""
        while (self._writing is not None or self._batch.doubtful) and self._failed is None:
            self._flush()  # the counts hang on what the file says of the doubtful ones
            if self._writing is not None:
                await asyncio.wait([self._writing])
        if self._failed is not None:
            raise self._failed
        await asyncio.shield(self._write(self._meta(checkpoint)))  # what has begun is finished, and looked at

    def _meta(self, checkpoint: Checkpoint) -> dict[str, Any]:
        meta: dict[str, Any] = {
            "serial": self._serial,
            "starts": self._starts,
            "counts": asdict(self._counts),
            "outputs": dict(checkpoint.outputs),
        }
        meta.update({f"state.{key}": value for key, value in checkpoint.state.items()})
        return meta

    async def retry_failed(self) -> int:
        """Put every failed request back among the pending ones; return how many. To be called right after ``open``."""
        failures = await self._in_thread(self._store.failures)
        await self._in_thread(self._store.forget_failures)
        for data, _ in failures:
            request = codec.decode(data)
            request.retries = 0
            self._take_in(request, request.fingerprint, 0.0, certain=True)
        self._counts.failed -= len(failures)
        self._counts.pending += len(failures)
        self._wake()
        return len(failures)

    # -- settling ------------------------------------------------------------------------------------------------------

    def admit(self, request: Request) -> None:
        """Take in a request that another frontier has found to be new, whether it was seen here or not."""
        self._count_new()
        not_before = self._clock() + request.delay if request.delay else 0.0
        self._take_in(request, request.fingerprint, not_before, certain=True)
        self._wake()

    def bring(self, links: Sequence[bytes]) -> None:
        """Take in what was not seen of requests that come encoded, each after its fingerprint."""
        marks = links[::2]
        fresh = set(marks) - self._recent - self._less_recent
        for mark, data in zip(marks, links[1::2], strict=True):
            if mark not in fresh or (is_new := self._look_up(mark)) is False:
                self._counts.filtered += 1
                continue
            self._count_new()
            self._take_in(codec.decode(data), mark, 0.0, certain=is_new is not None, data=data)

    def knows(self, request: Request) -> bool:
        """Whether it was seen not long ago; then it counts as filtered."""
        if request.dont_filter or not self._has(request.fingerprint):
            return False
        self._counts.filtered += 1
        return True

    def unseen(self, urls: Sequence[str], dropped: int = 0, elsewhere: Sequence[Set[bytes]] = ()) -> list[str]:
        """Leave out what was seen not long ago, here or ``elsewhere``; that counts as filtered."""
        new = unseen(urls, self._recent, self._less_recent, *elsewhere)
        self._counts.filtered += len(urls) - len(new) + dropped
        return new

    def settle(self, settlement: Settlement) -> None:
        """Apply what became of a lease."""
        self._starts += settlement.starts
        if settlement.lease is not None:
            self._end(settlement.lease, settlement)
        for request in settlement.children:
            mark = request.fingerprint
            is_new = self._look_up(mark)
            if is_new is False and not request.dont_filter:
                self._counts.filtered += 1
                continue
            self._count_new()
            not_before = self._clock() + request.delay if request.delay else 0.0
            self._take_in(request, mark, not_before, certain=is_new is not None or request.dont_filter)
        if not self._flush_is_due and self._is_worth_writing:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush_if_idle)
        self._wake()

    def _end(self, lease: Lease, settlement: Settlement) -> None:
        self._forget(lease.key)
        self._leased.discard(lease.key.rank[1])
        if self._trip:
            self._ended.add(lease.key.rank[1])
        again = settlement.again
        if again is not None:
            mark = again.fingerprint
            is_new = self._look_up(mark)
            # A chain may come back to a URL of its own (a page that sets a cookie and redirects to itself).
            if again.url == lease.request.url or again.url in lease.request.redirects or again.dont_filter:
                is_new = True
            if is_new is not False:
                self._take_in(again, mark, settlement.not_before, certain=is_new is not None, is_again=True)
                return
            self._counts.filtered += 1
        self._counts.pending -= 1
        if settlement.error:
            self._counts.failed += 1
            self._batch.failed.append((lease.key.rank[1], codec.encode(lease.request), settlement.error))
        else:
            self._counts.done += 1

    def _forget(self, key: _Key) -> None:
        if key.delayed:
            self._batch.ended_delayed.append((key.rank[1],))
        else:
            rank, serial = key.rank
            self._batch.ended.append((key.host, rank, serial))

    def _has(self, mark: bytes) -> bool:
        """Whether a fingerprint was seen not long ago."""
        return mark in self._recent or mark in self._less_recent

    def _count_new(self) -> None:
        self._counts.seeded += 1
        self._counts.pending += 1

    def _look_up(self, mark: bytes) -> bool | None:
        """Return whether a fingerprint is new, or None where only the file knows; from now on it counts as seen."""
        if self._has(mark):
            return False
        if len(self._recent) >= self._max_recent and not self._is_merging:
            self._begin_generation()
        self._recent.add(mark)
        return True if self._knows_all else None

    def _begin_generation(self) -> None:
        """Let the older fingerprints go, which are in the sorted table by now, and have those of this generation put there."""
        self._knows_all = self._knows_all and not self._less_recent
        self._less_recent, self._recent = self._recent, set()
        self._flush()
        self._merge(self._generation, 0)
        self._generation += 1
        self._batch.generation = self._generation

    def _merge(self, generation: int, number: int) -> None:
        self._is_merging = number < MERGE_SLICES and self._failed is None
        if self._is_merging:
            merging = self._in_thread(self._store.merge, generation, number)
            merging.add_done_callback(partial(self._merged, generation, number))

    def _merged(self, generation: int, number: int, done: asyncio.Future[None]) -> None:
        if not self._has_failed(done):
            self._merge(generation, number + 1)

    def _take_in(
        self,
        request: Request,
        mark: bytes,
        not_before: float,
        *,
        certain: bool,
        is_again: bool = False,
        data: bytes | None = None,
    ) -> None:
        """Store a request and let it wait; where it is not certain to be new, the file is asked first."""
        data = data or codec.encode(request)
        self._serial += 1
        rank = (-request.priority, self._serial * self._step)
        host = _number_of(request.host)
        lease = Lease(request, _Key(host, rank, bool(not_before)))
        batch = self._batch
        if certain and not not_before and self._wait(lease, 0.0):
            batch.come.append((host, rank[0], rank[1], data, mark))
            return
        row: Row | None = None
        late: Delayed | None = None
        if not_before:
            delay_s = not_before - self._clock()
            late = (rank[1], rank[0], self._wall_clock() + delay_s, delay_s, data)
        else:
            row = (host, rank[0], rank[1], data)
        if not certain:
            batch.doubtful.append((mark, row, late))
            self._doubtful.append((lease, not_before, is_again))
            return
        batch.marks.append(mark)
        if row is not None:
            batch.rows.append(row)
        elif late is not None:
            batch.delayed.append(late)
            self._wait(lease, not_before)

    def _wait(self, lease: Lease, not_before: float) -> bool:
        """Let a stored request wait: in memory, or in the file alone where memory is full; return whether in memory."""
        key, name = lease.key, lease.request.host
        if not_before:
            self._queues.delay(lease, key.rank, not_before)
            return True
        number = key.host
        if number in self._unread:
            return False
        on_file = self._on_file.get(number)
        if on_file is None and number not in self._trip:
            # Who comes anew does not take the room of those that have waited in the file.
            size = self._queues.size
            if size < self._window // 2 or (size < self._window and self._is_among_few(name)):
                self._queues.push(lease, key.rank)
                return True
            last = self._queues.last_rank(name)
            if last is None:
                self._unread.add(number)
                self._cold.append(number)
                return False
            on_file = self._on_file[number] = _OnFile(last)
        if on_file is not None and key.rank < on_file.bound:
            host = self._queues.push(lease, key.rank)
            share = self._share
            if len(host.line) > 4 * share:
                on_file.bound = self._queues.keep_first(host, share)
            return True
        if number in self._trip:
            newest = self._trip[number]
            self._trip[number] = key.rank if newest is None else min(newest, key.rank)
        return False

    def _is_among_few(self, name: str) -> bool:
        return not (self._cold or self._sweep) and self._queues.length(name) < _FEW

    # -- leasing -------------------------------------------------------------------------------------------------------

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` requests that may go at ``now``. Raises StateError where the file cannot be read."""
        if self._failed is not None:
            raise self._failed
        if private_only and not self._queues.has_private:
            return []
        for lease, rank in self._queues.pop_due(now):
            self._move_due(lease, rank)
        leases = self._queues.lease(n, now, private_only=private_only)
        low = self._share // 4 if self._on_file else -1
        for lease in leases:
            key = lease.key
            if isinstance(key, _Key):
                self._leased.add(key.rank[1])
                if len(lease.slot.line) <= low:
                    on_file = self._on_file.get(key.host)
                    if on_file is not None and not on_file.is_due:
                        on_file.is_due = True
                        self._low.append(key.host)
        if (self._low or self._cold or self._sweep) and not self._trip:
            self._read(is_urgent=len(leases) < n and not private_only)
        return leases

    @property
    def waiting(self) -> int:
        """How many pending requests are not leased, or were given back."""
        return self._counts.pending - len(self._leased) + self._queues.returned

    def take_waiting(self, n: int, may_go: Callable[[Request], bool | None]) -> list[Lease]:
        """Lease up to ``n`` requests whose host has no slot for them here, to have them fetched elsewhere.

        ``may_go`` says of any request of a host whether that is possible.
        """
        leases: list[Lease] = []
        for host in self._queues.longer_than(0):
            # The last one in memory has the others read from the file.
            length = len(host.line) - (_number_of(host.name) in self._on_file)
            most = min(n - len(leases), length)
            if most > 0 and may_go(host.line[0][1].request):
                leases += self._queues.take_last(host, most)
        self._leased.update([lease.key.rank[1] for lease in leases])
        leases += self._queues.take_returned(n - len(leases), may_go)
        return leases

    def release(self, lease: Lease, now: float, *, unused: bool = False) -> None:
        """Free the host's slot that ``lease`` holds."""
        self._hosts.release(lease.slot, now, unused=unused)

    def requeue(self, lease: Lease) -> None:
        """Let ``lease`` wait for its host again, before all stored requests."""
        self._queues.requeue(lease)
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
        """Change a host's budget."""
        self._hosts.tune(host, self._clock(), concurrency=concurrency, delay=delay, not_before=not_before, cause=cause)
        self._wake()

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when a lease may next succeed with the slots that are free now."""
        return self._queues.next_ready(now, private_only=private_only)

    def _move_due(self, lease: Lease, rank: Rank) -> None:
        """A delayed request's time has come: from here on it is stored and waits like any other."""
        self._forget(lease.key)
        lease.key = _Key(lease.key.host, rank, delayed=False)
        row = (lease.key.host, *rank, codec.encode(lease.request))
        if self._wait(lease, 0.0):
            self._batch.come.append((*row, b""))
        else:
            self._batch.rows.append(row)

    # -- the file ------------------------------------------------------------------------------------------------------

    def _read(self, *, is_urgent: bool) -> None:
        """Read requests of hosts that are due into memory, in one trip; where it is not urgent, a full one or none."""
        room = self._window - self._queues.size
        if not is_urgent and not self._low and room < _TRIP:
            return
        share = self._share
        most = max(1, _TRIP // share)
        if self._cold and len(self._sweep) < most:
            self._begin_sweep()
        if is_urgent and self._sweep and room < share:
            self._make_room(share)
            room = self._window - self._queues.size
        low = min(len(self._low), most)
        cold = min(len(self._sweep), most, max(0, room) // share)
        if not low + cold or (not is_urgent and (low + cold) * share < _TRIP):
            return
        behind = {number: self._on_file[number].bound for number in [self._low.popleft() for _ in range(low)]}
        first = sorted([self._sweep.popleft() for _ in range(cold)])
        self._unread.difference_update(first)
        self._trip = dict.fromkeys([*behind, *first])
        self._flush()
        # One more than is taken tells whether more are left, and spares a trip that finds nothing.
        reading = self._in_thread(self._store.next_rows, behind, first, share + 1)
        reading.add_done_callback(partial(self._came, behind, share))

    def _begin_sweep(self) -> None:
        """Put the cold hosts in the file's order: those read together lie together there, and end together."""
        self._sweep.extend(sorted([self._cold.popleft() for _ in range(min(len(self._cold), _SWEEP))]))

    @property
    def _share(self) -> int:
        """How many requests of one host are read at a time: half of memory is for the hosts in it, or soon in it."""
        hosts = self._queues.hosts + len(self._low) + min(len(self._cold) + len(self._sweep), _TRIP)
        return max(_MIN_SHARE, min(_MAX_SHARE, self._window // 2 // (hosts + 1)))

    def _make_room(self, share: int) -> None:
        """Leave all but a share of each host to the file: memory is full of requests that may not go, while hosts are cold."""
        if self._queues.size - self._queues.hosts * share < self._window // 4:
            return
        for host in self._queues.longer_than(share):
            number = _number_of(host.name)
            on_file = self._on_file.get(number)
            if on_file is None:
                self._on_file[number] = _OnFile(self._queues.keep_first(host, share))
            elif not on_file.is_due:
                on_file.bound = self._queues.keep_first(host, share)

    def _came(self, behind: Mapping[int, Rank], share: int, done: asyncio.Future[list[Row]]) -> None:
        """Take what was read into memory."""
        trip, self._trip = self._trip, {}
        ended, self._ended = self._ended, set()
        if self._has_failed(done):
            return
        try:
            self._take_rows(trip, behind, share, done.result(), ended)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            self._fail(StateError(f"{self._path}: a stored request is damaged: {error}"))
            return
        self._wake()

    def _take_rows(
        self,
        trip: Mapping[int, Rank | None],
        behind: Mapping[int, Rank],
        share: int,
        rows: Sequence[Row],
        ended: Set[int],
    ) -> None:
        """Take the next requests of each host, and move its bound behind them."""
        leased, push = self._leased, self._queues.push
        all_rows = iter(rows)
        row = next(all_rows, None)
        for number, newest in trip.items():
            on_file, bound, came = self._on_file.get(number), None, 0
            is_more, room = newest is not None, share
            if on_file is not None:
                bound = on_file.bound
                if bound != behind[number]:
                    # So many came before it that it was moved: what was read does not follow on it any more.
                    is_more, room = True, 0
            while row is not None and row[0] == number:
                _, rank, serial, data = row
                row = next(all_rows, None)
                place = (rank, serial)
                if not room or (newest is not None and place > newest):
                    is_more, room = True, 0
                    continue
                bound = place
                room -= 1
                if serial not in leased and serial not in ended:
                    push(Lease(codec.decode(data), _Key(number, place, delayed=False)), place)
                    came += 1
            if not is_more:
                if on_file is not None:
                    del self._on_file[number]
            elif bound is None:
                self._unread.add(number)
                self._sweep.appendleft(number)
            else:
                self._on_file[number] = _OnFile(bound, is_due=not came)
                if not came:
                    self._low.append(number)

    @property
    def _is_worth_writing(self) -> bool:
        """Whether the batch is not to wait for the next commit or read: a request waits for the file, or it has grown large."""
        batch = self._batch
        return bool(self._doubtful) or len(batch.come) + len(batch.marks) >= _LARGE_BATCH

    def _flush_if_idle(self) -> None:
        """Write the batch unless the last one is still being written; then its end sees to it."""
        self._flush_is_due = False
        if self._writing is None:
            self._flush()

    def _flush(self) -> None:
        if self._batch and self._failed is None:
            self._write()

    def _write(self, meta: Mapping[str, Any] | None = None) -> asyncio.Future[list[bool]]:
        """Have the thread make the changes that have come up, and commit them where ``meta`` is given."""
        batch, self._batch = self._batch, Batch(generation=self._generation)
        doubtful, self._doubtful = self._doubtful, []
        self._writing = writing = self._in_thread(self._store.write, batch, meta)
        writing.add_done_callback(partial(self._applied, doubtful))
        return writing

    def _applied(self, doubtful: list[tuple[Lease, float, bool]], done: asyncio.Future[list[bool]]) -> None:
        """The file has spoken: let the new ones of the doubtful requests wait, and take the others off the counts."""
        if self._writing is done:
            self._writing = None
        if self._has_failed(done):
            return
        for (lease, not_before, is_again), is_new in zip(doubtful, done.result(), strict=True):
            if is_new:
                self._wait(lease, not_before)
                continue
            self._counts.pending -= 1
            self._counts.filtered += 1
            if is_again:
                self._counts.done += 1
            else:
                self._counts.seeded -= 1
        if self._writing is None and self._is_worth_writing:
            self._flush()
        self._wake()

    def _has_failed(self, done: asyncio.Future[Any]) -> bool:
        """Keep the file's first error for the next lease or commit to raise; after it nothing is written any more."""
        error = done.exception()
        if error is not None and self._failed is None:
            self._fail(error)
        return error is not None

    def _fail(self, error: BaseException) -> None:
        self._failed = error if isinstance(error, StateError) else StateError(f"{self._path}: {error!r}")
        self._wake()

    async def _recover(self) -> None:
        self._cold.extend(await self._in_thread(self._store.hosts))
        self._unread.update(self._cold)
        now, wall_now = self._clock(), self._wall_clock()
        for serial, rank, not_before, delay_s, data in await self._in_thread(self._store.all_delayed):
            request = codec.decode(data)
            key = _Key(_number_of(request.host), (rank, serial), delayed=True)
            # Never longer than it was to wait in the first place, should the clock have been set back.
            wait_s = min(max(not_before - wall_now, 0.0), delay_s)
            self._queues.delay(Lease(request, key), key.rank, now + wait_s)
        fresh, self._generation, merged = await self._in_thread(self._store.fresh_marks)
        self._recent, self._knows_all = set(fresh), not merged
        self._batch.generation = self._generation

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


@lru_cache(maxsize=65_536)
def _number_of(host: str) -> int:
    """Return the host's number: 64 bits of BLAKE2b. Two hosts that shared one would only share a queue in the file."""
    return int.from_bytes(blake2b(host.encode(), digest_size=8).digest(), "big", signed=True)
