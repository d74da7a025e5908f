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

Where more requests wait for a host without a delay than it has slots, a slot brings a few that follow on it one after the
other, without a turn in between: see ``grants``. Each turn asks whether they still may.

Requests that dedupe would not know again (``dont_filter``, retries, redirects) and start requests travel in the log.
A job in a Cluster is spread over buckets by host; elsewhere it has one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

from scraper.contracts import Checkpoint, Counts, Lease, Settlement, Tally
from scraper.errors import StateError
from scraper.frontiers import talk
from scraper.frontiers.grants import Grants
from scraper.frontiers.marks import Marks, unseen
from scraper.frontiers.server import Server
from scraper.frontiers.talk import UNHEARD, Bucket, Entry, Notes, Talk, micros
from scraper.http import Request

PATIENCE_S = 4.0
"""A worker that was not heard for so long has died."""

_BEATS = 8  # heartbeats while the others are patient
_MARGIN_S = 0.005  # how much longer a gap is than asked for, a tenth at the most: a server may be slow to see a request
_AHEAD = 4  # requests that are to follow on slots, for each that was released since the last turn
_FRESH_S = 0.05  # how long it holds what Redis said of a host
_PACE_S = 0.002  # from the beginning of one turn to that of the next: so that it carries several pages
_FIRST_POLL_S, _LONGEST_POLL_S = 0.02, 0.2  # between two looks at what other workers have left
_START_POLL_S = 0.25
_MAX_UNSENT = 20_000
_MARKS = 200_000  # fingerprints that are remembered: 20 MB
_LEAVE_S = 3.0


class RedisFrontier:
    """One worker's share in the job ``job``. Implements ``Frontier``.

    ``concurrency``, ``delay`` and ``jitter`` are every host's budget, for all workers together; ``policy_of`` gives those of
    a host that differs, or None. ``tells_sent`` promises that ``sent`` is called for each request to a host in ``unsent``:
    then the gap counts from there, otherwise from the lease. ``learn`` is told what other workers found out (start hosts,
    robots.txt files), ``count_elsewhere`` what they have counted, as of this worker's last commit or heartbeat.
    ``server_clock`` stands in for Redis' clock in tests.
    """

    __slots__ = (  # many attributes: see tests/test_house.py
        *("_about", "_beats_in_thread", "_buckets", "_clock", "_count_elsewhere", "_counts", "_elsewhere", "_entry"),
        *("_failed", "_filtered", "_gaps", "_grants", "_has_told_over", "_is_closing", "_is_dry", "_is_over", "_known"),
        *("_learn", "_notes", "_patience_s", "_poll", "_poll_s", "_released", "_server", "_starts", "_stirred"),
        *("_talk", "_tasks", "_turn_number", "_turning", "_unsent", "_version", "_wake", "job", "worker"),
    )

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
        count_elsewhere: Callable[[Tally], None] = lambda tally: None,
        clock: Callable[[], float] = time.monotonic,
        server_clock: Callable[[], float] | None = None,
        margin_s: float = _MARGIN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        terms = {
            "depth": order == "depth", "slots": concurrency, "delay": micros(delay), "jitter": jitter,
            "margin": micros(margin_s), "tells": tells_sent,
        }  # fmt: skip
        self.job, self.worker = job, worker
        self._server = server
        self._talk = Talk(server, job, worker, terms, policy_of=policy_of, clock=clock, server_clock=server_clock)
        self._beats_in_thread = server_clock is None
        self._about = dict(about or {})
        self._learn = learn
        self._count_elsewhere = count_elsewhere
        self._elsewhere = Tally()
        self._clock = clock
        self._patience_s = patience_s
        self._wake: Callable[[], None] = lambda: None
        self._buckets: list[Bucket] = []
        self._turn_number = 0
        self._known = Marks(_MARKS)
        self._filtered = 0
        self._entry = Entry()
        self._notes = Notes()
        self._version = 0
        self._starts = -1
        self._is_over = self._has_told_over = False
        self._unsent = 0
        self._counts = Counts()
        self._grants = Grants()
        self._is_dry = False
        self._poll_s = _FIRST_POLL_S
        self._poll: asyncio.TimerHandle | None = None
        self._gaps = 0
        self._released = 0
        self._turning = asyncio.Lock()
        self._stirred = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self._failed: StateError | None = None

    # -- the run -------------------------------------------------------------------------------------------------------

    async def open(self, wake: Callable[[], None]) -> Checkpoint:
        """Join the job, which this makes where there is none; return what all its workers know."""
        self._wake = wake
        await self._talk.open()
        self._buckets = self._talk.buckets
        self._version, facts, tally = await self._talk.join(self._about)
        self._hear_tally(tally)
        await self._turn(all_buckets=True)
        self._tasks = [asyncio.create_task(self._take_turns()), asyncio.create_task(self._beat())]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)
        if self._beats_in_thread:
            beat = ("crew", self._talk.base, "beat", self.worker, UNHEARD, "", micros(self._patience_s))
            self._server.pulse(self._patience_s / _BEATS, *beat)
        return Checkpoint({}, facts)

    async def begin_start(self) -> int | None:
        """Wait until it falls to this worker to run ``start()``; return how many values are taken, None once all are."""
        while True:
            (found,) = await self._talk.crew("start")
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
            await self._talk.turn(bucket, again=True)
        self._counts = self._talk.counts()
        return failed - self.counts.failed

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Make everything settled before the call durable, together with ``checkpoint``. Raises StateError."""
        entry, self._entry = self._entry, Entry()
        is_over = self._is_over
        note = self._notes.next(checkpoint, self._starts)
        if len(self._buckets) > 1:
            news = await self._commit_to_many(entry, note)
        else:
            note["ends"], note["pushes"] = entry.part(0)
            news = await self._turn(note=note)
        if is_over and not self._has_told_over:
            await self._talk.crew("over")  # only now: who hears it may count on all start requests being there
            self._has_told_over = True
        self._unsent -= entry.seeded
        if news:
            self._wake()

    async def _commit_to_many(self, entry: Entry, note: dict[str, Any]) -> bool:
        """Commit where no script reaches all: push, note in the log, and apply what it says bucket by bucket."""
        news = await self._turn()
        parts = [[number, *part] for number, part in entry.parts.items()]
        version, tally = await self._talk.commit({**note, "entry": talk.pack(parts) if parts else b""})
        self._hear_tally(tally)
        for half in talk.halves(note["number"], parts, version if note["needed"] else 0):
            for number, part in half:
                self._buckets[number].log.append(part)
            news = await self._turn() or news
        if parts:
            self._notes.applied = note["number"]
        return news

    def _hear_tally(self, total: list[int]) -> None:
        own, known = self._notes.counted, self._elsewhere
        # While a commit is on its way, what it counts is this worker's own already, and not in the total.
        self._elsewhere = Tally(
            max(known.pages, total[0] - own.pages),
            max(known.items, total[1] - own.items),
            max(known.errors, total[2] - own.errors),
        )
        self._count_elsewhere(self._elsewhere)

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
                    (log,) = await self._talk.crew("leave")
                    await self._talk.bury(self.worker, log)
        await self._server.close()

    @property
    def counts(self) -> Counts:
        """The counts of the whole fleet, as far as this worker has heard."""
        known = self._counts
        if not self._unsent and not self._filtered:
            return known
        unsent, filtered = self._unsent, known.filtered + self._filtered
        return Counts(known.seeded + unsent, known.done, known.failed, known.pending + unsent, filtered)

    @property
    def has_room(self) -> bool:
        """Whether what is to be sent keeps within bounds: not while Redis is away for long."""
        return self._unsent < _MAX_UNSENT

    # -- settling ------------------------------------------------------------------------------------------------------

    def knows(self, request: Request) -> bool:
        """Whether this worker has said not long ago that it is to be taken in; then it counts as filtered.

        What was said is in Redis, or goes there before or with the commit of any page that is settled from now on.
        """
        if request.fingerprint in self._known and not request.dont_filter:
            self._filtered += 1
            return True
        return False

    def unseen(self, urls: Sequence[str], dropped: int = 0) -> list[str]:
        """Leave out what ``knows`` would know."""
        new = unseen(urls, *self._known.sets)
        self._filtered += len(urls) - len(new) + dropped
        return new

    def settle(self, settlement: Settlement) -> None:
        """Apply what became of a lease."""
        self._starts += settlement.starts
        self._is_over = self._is_over or settlement.start_over
        lease, again = settlement.lease, settlement.again
        if lease is not None:
            if again is not None:
                wait_s = max(0.0, settlement.not_before - self._clock()) if settlement.not_before else 0.0
                # A chain may come back to a URL of its own (a page that sets a cookie and redirects to itself).
                own = again.url == lease.request.url or again.url in lease.request.redirects or again.dont_filter
                self._entry.moved(lease.key)
                self._note(talk.INSTEAD_ANYWAY if own else talk.INSTEAD, again, wait_s)
            elif settlement.error:
                self._entry.failed(lease.key, lease.request, settlement.error)
            else:
                self._entry.done(lease.key)
        for request in settlement.children:
            mark = request.fingerprint
            if not self._known.add(mark) and not request.dont_filter:
                self._filtered += 1
                continue
            self._unsent += 1
            if request.dont_filter or settlement.starts:
                self._entry.seeded += 1
                self._note(talk.ANYWAY if request.dont_filter else talk.UNSEEN, request, request.delay)
            else:
                bucket = self._talk.bucket_of(request.host)
                bucket.push += talk.pushed(talk.UNSEEN, mark, request, request.delay)
        self._stir()
        self._wake()

    def _note(self, mode: int, request: Request, wait_s: float) -> None:
        pushes = self._entry.part(self._talk.bucket_of(request.host).number)[1]
        pushes += talk.pushed(mode, request.fingerprint, request, wait_s)

    # -- leasing -------------------------------------------------------------------------------------------------------

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` requests that have been granted; what is missing is asked for."""
        if self._failed is not None:
            raise self._failed
        leases = self._grants.take(n, private_only, now)
        if len(leases) < n and not (private_only and not self._grants.awaits(True)):
            at = self.next_ready(now, private_only=private_only)
            if not self._is_dry or (at is not None and at <= now):
                self._stir()
        return leases

    def release(self, lease: Lease, now: float, *, unused: bool = False) -> None:
        """Free the host's slot that ``lease`` holds."""
        host, slot = lease.request.host, self._grants.release(lease)
        bucket = self._talk.bucket_of(host)
        self._released += 1
        if now - bucket.asked_at > _FRESH_S or not self._grants.follow(host, slot, now):
            bucket.free += (slot, unused)
            self._halt(host)
        self._stir()
        if unused:
            self._wake()  # there is room for another: after a fetch the crawl looks by itself

    def _halt(self, host: str) -> None:
        """Give back what was to follow on a host's slots."""
        ids = self._grants.halt(host)
        if ids:
            bucket = self._talk.bucket_of(host)
            bucket.back += ids
            bucket.held.difference_update(ids)

    def requeue(self, lease: Lease) -> None:
        """Let ``lease`` wait for its host again, before all stored requests."""
        self._talk.bucket_of(lease.request.host)
        self._grants.want(lease)
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
        everybody's; one whose cause is an origin, as a robots.txt's, stays, any other ends with the worker that put it last.
        """
        slots = -1 if concurrency is None else concurrency
        gap = -1 if delay is None else micros(delay)
        self._talk.bucket_of(host).tune.append((host, slots, gap, not_before or 0.0, cause))
        self._halt(host)
        self._stir()
        self._wake()

    @property
    def unsent(self) -> Set[str]:
        """Hosts that nobody asks again before ``sent`` was called for the request that is under way here."""
        return self._grants.unsent

    def sent(self, name: str, now: float) -> None:
        """Take note that the request to a host in ``unsent`` went out: Redis counts the gap from when it hears of it."""
        slot = self._grants.sent(name)
        if slot is not None:
            self._talk.bucket_of(name).sent.append(slot)
            self._stir()

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when a lease may next succeed with the slots that were free when Redis was asked last."""
        grants = self._grants
        if grants.has(private_only):
            return now
        if private_only:
            return grants.private_at if grants.awaits(True) else None
        times = [bucket.next_at for bucket in self._buckets if bucket.next_at is not None]
        if grants.private_at is not None and grants.awaits(False):
            times.append(grants.private_at)
        return min(times, default=None)

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _stir(self) -> None:
        self._is_dry = False
        self._stirred.set()

    async def _take_turns(self) -> None:
        """Take a turn whenever there is something to say or to ask for."""
        loop = asyncio.get_running_loop()
        while not self._is_closing:
            await self._stirred.wait()
            self._stirred.clear()
            began = loop.time()
            if not self._is_closing and await self._turn():
                self._wake()
            rest_s = began + _PACE_S - loop.time()
            if rest_s > 0:
                await asyncio.sleep(rest_s)

    async def _turn(self, *, all_buckets: bool = False, note: dict[str, Any] | None = None) -> bool:
        """Say what is to be said and ask for what is wanted; return whether something new may be done now.

        ``note`` is what a commit says, to a job's only bucket.
        """
        async with self._turning:
            if self._failed is not None:
                raise self._failed
            gaps, pending = self._server.gaps, self._counts.pending
            self._make_way()
            grants = self._grants
            wants = grants.wants(self._talk.number_of)
            grants.private_at = None
            lease_first = self._turn_number % len(self._buckets)
            self._turn_number += 1
            order = self._buckets[lease_first:] + self._buckets[:lease_first]
            talked = [bucket for bucket in order if all_buckets or bucket.has_news or bucket.number in wants]
            has_pushed = note is not None or any(bucket.push or bucket.log for bucket in talked)
            got = 0
            if grants.demand and len(order) > 1:
                # One after the other: to ask all at once would take more from the others than is wanted.
                for bucket in talked:
                    got += await self._say(bucket, wants.get(bucket.number, ()), 0)
                # At first each a share, so that the hosts of all take turns; then what is missing, from wherever it is.
                for share in (-(-grants.demand // len(order)), grants.demand):
                    for bucket in order:
                        if grants.demand > 0:
                            got += await self._say(bucket, (), min(share, grants.demand))
            else:
                if (grants.demand or note is not None) and order[0] not in talked:
                    talked.append(order[0])
                answers = [self._say(bucket, wants.get(bucket.number, ()), grants.demand, note) for bucket in talked]
                got = sum(await asyncio.gather(*answers)) if len(answers) != 1 else await answers[0]
            if self._gaps != self._server.gaps or gaps != self._server.gaps:
                await self._compare()
            self._is_dry = grants.demand > 0 or bool(wants)
            if self._version < max(bucket.sums[4] for bucket in self._buckets):
                ((self._version, facts),) = await self._talk.crew("facts")
                self._learn(talk.facts(facts))
            self._counts = await self._talk.certain_counts(self._counts.pending)
            self._poll_s = _FIRST_POLL_S if got or has_pushed or wants else min(2 * self._poll_s, _LONGEST_POLL_S)
            if self._poll is not None:
                self._poll.cancel()
            self._poll = asyncio.get_running_loop().call_later(self._poll_s, self._stir)
            return bool(got or has_pushed or (pending and not self._counts.pending))

    def _make_way(self) -> None:
        """Give back what has a slot and may not begin, and what was to follow on that."""
        idle = self._grants.make_way(self._clock())
        for lease, slot in idle:
            bucket = self._buckets[lease.key.bucket]
            bucket.free += (slot, True)
            bucket.back.append(lease.key.id)
            bucket.held.discard(lease.key.id)
        for lease, _ in idle:
            self._halt(lease.request.host)

    async def _say(self, bucket: Bucket, want: Any, n: int, note: dict[str, Any] | None = None) -> int:
        """Take a turn at one bucket; return how many requests may go that could not."""
        said: dict[str, Any] = {"filtered": self._filtered}
        self._filtered = 0
        if note is not None:
            said["commit"] = note
        for name in ("push", "log", "free", "back", "tune", "hosts", "sent"):
            said[name] = getattr(bucket, name)
            setattr(bucket, name, [])
        asked_at = self._clock()
        said["tune"] = [
            value
            for host, slots, gap, at, cause in said["tune"]
            for value in (host, slots, gap, max(0, micros(at - asked_at)) if at else 0, cause)
        ]
        following, ahead = self._grants.following, 0
        if n:
            ahead, self._released = max(0, _AHEAD * self._released - sum(map(len, following.values()))), 0
        follow = [host for host in following if self._talk.number_of(host) == bucket.number]
        granted, later, leases, tally, halted = await self._talk.turn(
            bucket, **said, want=want, want_max=self._grants.private_demand, lease=n, ahead=ahead, follow=follow
        )
        bucket.asked_at = asked_at
        for host in halted:
            self._halt(host.decode())
        self._unsent -= len(said["push"]) // 6
        for ends in (*(entry[1] for entry in said["log"]), *([note["ends"]] if note is not None else [])):
            bucket.held.difference_update(ends[::4])
        if tally:
            self._hear_tally(tally)
        if later:
            known = self._grants.private_at
            self._grants.private_at = min(later) if known is None else min(known, *later)
        return self._grants.came(bucket, granted, leases)

    async def _compare(self) -> None:
        """Give back what Redis granted in answers that never came."""
        self._gaps = self._server.gaps
        for bucket in self._buckets:
            slots = [slot for host, slot in self._grants.held() if self._talk.number_of(host) == bucket.number]
            await self._talk.turn(bucket, kept=list(bucket.held), kept_slots=slots)

    # -- the crew ------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Say now and then that this worker lives; take back what those had leased that do not."""
        while not self._is_closing:
            version, dead, tally = await self._talk.crew("beat", micros(self._patience_s))
            self._hear_tally(tally)
            for name, log in dead:
                await self._talk.bury(name.decode(), log, version)
                self._stir()
            if not self._is_closing:
                await asyncio.sleep(self._patience_s / _BEATS)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Keep what ended one of this worker's two tasks for the next lease to raise: it must not stand still unseen."""
        if self._is_closing:
            return
        error = task.exception() if not task.cancelled() else asyncio.CancelledError()
        if self._failed is None:
            self._failed = error if isinstance(error, StateError) else StateError(f"{self._server.name}: {error!r}")
        self._wake()
