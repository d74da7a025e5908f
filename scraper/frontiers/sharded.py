"""One shard's frontier: its own SQLite file, and an outbox in it for what belongs to the others.

    settle      what belongs to this shard goes to its own frontier, the rest to the outbox
    commit      the outbox becomes durable with the pages that led to it, then it is sent, in numbered chunks
    arrived     a chunk from another shard waits for the commit under way, is taken in, and confirmed by the next commit
    confirmed   a chunk that its receiver has committed leaves the outbox

A shard takes the chunks of each other one in the order of their numbers and remembers the last of them in the commit that
brings in what they hold. So a chunk that is sent again, because one of the two died, changes nothing; and what is in no
frontier yet is in an outbox, whoever is killed when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from scraper.contracts import Checkpoint, Counts, Lease, Settlement
from scraper.errors import FetchError, RequestError, UsageError
from scraper.frontiers import codec
from scraper.frontiers.marks import Marks
from scraper.frontiers.split import Split, portion
from scraper.http import Request, Response
from scraper.urls import host_of

if TYPE_CHECKING:
    from scraper.frontiers.sqlite import SqliteFrontier

_MAX_WAITING = 20_000  # links in the outbox, past which pages wait
_MARKS = 200_000  # fingerprints that are remembered: 20 MB
_MOST_HOPS = 500  # leases that are passed on in one turn of the event loop
_HOLD_S = 1.0  # for which a shard waits for what the owner of a host finds out
_MAX_HELD = 65_536  # hosts that are remembered to have been waited for
_HOLD = "robots.txt of another shard"
_NUMBERS, _OUTBOX = "shards", "chunk."
_FORMER_OUTBOX = "outbox."

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Hop(Settlement):
    """A lease that another shard is to fetch."""

    place: int = 0


class Delivery(Settlement):
    """A chunk that came from another shard."""

    source: int = 0
    number: int = 0
    chunk: bytes = b""


class ShardFrontier:
    """Implements ``Frontier`` over the SQLite frontier ``own``. ``counts`` shows one request more until the run is over.

    ``post(kind, *values)`` sends a message to the process that holds the shards together. ``is_spread`` says whether any
    shard may fetch a request, where hosts are spread: if not, its host's owner does, and None is for not yet known. ``learn``
    is told the facts that others found out, of the kinds that ``shared`` names; ``rules_of`` gives what was just learned of
    an origin, ``news`` of start hosts, for the others not to wait for a commit. ``pages`` counts what was handed to
    callbacks, for ``crawl.max_pages`` over all shards; ``report`` is called when a commit has ended, with the lengths of
    the outputs.
    """

    __slots__ = (  # many attributes: see tests/test_house.py
        *("_arrived", "_arriving", "_asked_for_credit", "_awaited", "_bring_in", "_changes", "_clock", "_committed"),
        *("_confirmed", "_credit", "_durable", "_errands", "_free", "_held", "_held_before", "_hurry", "_is_spread"),
        *("_known", "_learn", "_learned", "_leaves", "_links", "_news", "_open", "_outbox", "_outputs", "_own"),
        *("_pages", "_parcels", "_post", "_report", "_rules_of", "_sent", "_shared", "_split", "_start_over"),
        *("_taken", "_to_confirm", "_up", "_waiting", "_wake", "_wall_clock", "has_drained", "is_over", "seen"),
    )

    durable = True

    def __init__(
        self,
        own: SqliteFrontier,
        split: Split,
        post: Callable[..., None],
        *,
        learn: Callable[[Mapping[str, Any]], None],
        shared: tuple[str, ...],
        news: Callable[[], Mapping[str, Any]] = dict,
        pages: Callable[[], int],
        report: Callable[[Mapping[str, int]], None],
        is_spread: Callable[[Request], bool | None] | None = None,
        rules_of: Callable[[str], Mapping[str, Any]] = lambda origin: {},
        limits_pages: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._own = own
        self._split = split
        self._post = post
        self._learn = learn
        self._shared = shared
        self._news = news
        self._pages = pages
        self._report = report
        self._is_spread = is_spread
        self._rules_of = rules_of
        self._held: dict[str, list[Lease]] = {}
        self._held_before: set[str] = set()
        self._clock = clock
        self._wall_clock = wall_clock
        self._wake: Callable[[], None] = lambda: None
        self._bring_in: Callable[[Settlement], None] = self.settle
        self._hurry: Callable[[], None] = lambda: None
        self._known = Marks(_MARKS)
        self._links: dict[int, list[bytes]] = {}
        self._parcels: dict[int, list[Any]] = {}
        self._outbox: list[dict[int, tuple[int, bytes]]] = [{} for _ in range(split.count)]
        self._waiting = 0
        self._sent = [0] * split.count
        self._taken = [0] * split.count
        self._durable = [0] * split.count
        self._arrived = [0] * split.count
        self._arriving = 0
        self._to_confirm: dict[int, int] = {}
        self._confirmed: list[str] = []
        self._learned: dict[str, Any] = {}
        self._up: set[int] = set()
        self._start_over = split.index != 0
        self._changes, self._committed = 0, -1
        self._outputs: Mapping[str, int] = {}
        self._credit: int | None = 0 if limits_pages else None
        self._asked_for_credit = False
        self._open: set[Lease] = set()
        self._free = 0
        # Counted from here, so that no answer to what died with an earlier process has one of these numbers.
        self._errands = int(wall_clock() * 1e6)
        self._awaited: dict[int, tuple[int, Lease, bytes]] = {}
        self._leaves = False
        self.has_drained = False
        """Whether all is done that was under way here when the crawl was stopped."""
        self.is_over = False
        """Whether no shard has anything left to do."""
        self.seen = 0
        """Chunks that came since the process began."""

    def bind(self, bring_in: Callable[[Settlement], None], hurry: Callable[[], None]) -> None:
        """Say who applies a settlement between two commits, never during one, and who has the next commit come soon."""
        self._bring_in = bring_in
        self._hurry = hurry

    async def open(self, wake: Callable[[], None]) -> Checkpoint:
        """Open the file; what an earlier process had not sent, or had not heard of again, is in the outbox.

        Raises UsageError where it cannot be used.
        """
        self._wake = wake
        found = await self._own.open(wake)
        state = dict(found.state)
        if any(name.startswith(_FORMER_OUTBOX) for name in state):
            raise UsageError(
                "an earlier version began this run, whose shards write links in another way; finish it with that"
            )
        numbers = state.pop(_NUMBERS, None)
        if numbers is not None:
            self._sent, self._taken = numbers["sent"], numbers["taken"]
            self._arrived, self._durable = list(self._taken), list(self._taken)
        boxes = sorted((int(name.split(".")[1]), int(name.split(".")[2])) for name in state if name.startswith(_OUTBOX))
        for place, number in boxes:
            size, chunk = state.pop(f"{_OUTBOX}{place}.{number}")
            self._outbox[place][number] = (size, chunk)
            self._waiting += size
        self._post("ready", {name: value for name, value in state.items() if name.startswith(self._shared)})
        return Checkpoint(found.outputs, state)

    async def begin_start(self) -> int | None:
        """The first shard runs ``start()``."""
        return await self._own.begin_start() if self._split.index == 0 else None

    async def retry_failed(self) -> int:
        """Put every failed request of this shard back among the pending ones."""
        return await self._own.retry_failed()

    # -- settling ------------------------------------------------------------------------------------------------------

    def settle(self, settlement: Settlement) -> None:
        """Apply what became of a lease; what belongs to other shards goes to the outbox."""
        self._changes += 1
        if type(settlement) is Delivery:
            self._take(settlement)
            return
        lease, again = settlement.lease, settlement.again
        if self._credit is not None and lease is not None:
            self._open.discard(lease)
        if type(settlement) is Hop:
            self._pass_on(settlement)
            return
        if settlement.starts and (news := self._news()):
            self._post("facts", news)  # before a callback of theirs awaits what another shard fetches
        if settlement.start_over:
            self._start_over = True
        if settlement.children:
            settlement.children = self._own_of(settlement.children)
        if again is not None and (home := self._split.home(again)) != self._split.index:
            assert lease is not None
            former = lease.request
            # A chain may come back to a URL of its own, which its home has seen.
            is_certain = again.url == former.url or again.url in former.redirects
            self._end_as_moved(lease)
            self._send(home, again, settlement.not_before, is_certain=is_certain)
            return
        self._own.settle(settlement)

    def knows(self, request: Request) -> bool:
        """Whether it was seen lately, whosever it is; then it counts as filtered."""
        if request.fingerprint in self._known and not request.dont_filter:
            self._own.counts.filtered += 1
            return True
        return self._own.knows(request)

    def unseen(self, urls: Sequence[str], dropped: int = 0) -> list[str]:
        """Leave out what ``knows`` would know."""
        return self._own.unseen(urls, dropped, self._known.sets)

    def _own_of(self, requests: Sequence[Request]) -> list[Request]:
        """Return those that this shard is the home of; others are sent to theirs, but for what was seen lately."""
        own: list[Request] = []
        index, home_of, add = self._split.index, self._split.home_of, self._known.add
        for request in requests:
            mark = request.fingerprint
            home = home_of(request, mark)
            if home == index:
                own.append(request)
            elif not add(mark) and not request.dont_filter:
                self._own.counts.filtered += 1
            elif request.delay or request.dont_filter:
                self._send(home, request, self._clock() + request.delay if request.delay else 0.0)
            else:
                self._send_link(home, mark, request)
        return own

    def _send_link(self, place: int, mark: bytes, request: Request) -> None:
        """Put a request into the outbox that is to be fetched unless it was seen."""
        self._links.setdefault(place, []).extend((mark, codec.encode(request)))
        self._waiting += 1

    def _send(self, place: int, request: Request, not_before: float = 0.0, *, is_certain: bool = False) -> None:
        """Put a request into the outbox; ``is_certain`` where it is to be fetched whether it was seen or not."""
        if not (not_before or is_certain or request.dont_filter):
            self._send_link(place, request.fingerprint, request)
            return
        delay_s = max(0.0, not_before - self._clock()) if not_before else 0.0
        parcel = (codec.encode(request), self._wall_clock() + delay_s, delay_s, is_certain)
        self._parcels.setdefault(place, []).append(parcel)
        self._waiting += 1

    def _pass_on(self, hop: Hop) -> None:
        assert hop.lease is not None
        self._end_as_moved(hop.lease)
        self._send(hop.place, hop.lease.request, is_certain=True)

    def _end_as_moved(self, lease: Lease) -> None:
        """End a lease that is counted elsewhere from now on."""
        self._own.settle(Settlement(lease))
        counts = self._own.counts
        counts.done -= 1
        counts.seeded -= 1

    def _take(self, delivery: Delivery) -> None:
        """Take in a chunk: links by dedupe, what another shard has passed on as it is.

        Of the links there is the fingerprint and the bytes, one after the other: most are known here, for both shards met
        them. What is to wait, or to be fetched in any case, is its bytes with the times and the reason.
        """
        self._arriving -= 1
        links, parcels = _decode(delivery.chunk)
        self._own.bring(links)
        children: list[Request] = []
        for data, at, delay_s, is_certain in parcels:
            request = codec.decode(data)
            # Never longer than it was to wait in the first place, should the clocks differ or have been set back.
            request.delay = min(max(at - self._wall_clock(), 0.0), delay_s)
            if is_certain:
                self._own.admit(request)
            else:
                children.append(request)
        self._own.settle(Settlement(None, children))
        self._taken[delivery.source] = self._to_confirm[delivery.source] = delivery.number

    # -- leasing -------------------------------------------------------------------------------------------------------

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` requests that this shard may fetch at ``now``, and pass on those that it may not."""
        if private_only:
            return self._own.lease(n, now, private_only=True)
        awaited: list[Lease] = []
        if self._credit is not None and (spare := self._spare) < n:
            self._ask_for_credit()
            awaited = self._own.lease(n, now, private_only=True)
            n = min(spare, n - len(awaited))
            if not n:
                return awaited
        leases = self._own.lease(n, now) if self._is_spread is None else self._lease_own(n, now, self._is_spread)
        if self._credit is not None:
            self._open.update([lease for lease in leases if lease.waiter is None])
        if len(leases) < n and (self._links or self._parcels or self._has_come_to_an_end):
            self._hurry()  # where this shard has too little to do, so has the one that its links are for
        return awaited + leases

    @property
    def _has_come_to_an_end(self) -> bool:
        """Whether nothing is left to do but to commit, for the others to hear of it."""
        return self._changes != self._committed and not self._own.counts.pending and self._start_over

    def _lease_own(self, n: int, now: float, is_spread: Callable[[Request], bool | None]) -> list[Lease]:
        index, owner, hops = self._split.index, self._split.owner, 0
        leases: list[Lease] = []
        spreads: dict[str, bool | None] = {}  # by origin: what is known does not change in one turn
        while len(leases) < n:
            found = self._own.lease(n - len(leases), now)
            former = hops
            for lease in found:
                request = lease.request
                if lease.waiter is not None:
                    leases.append(lease)
                    continue
                origin = request.origin
                if origin not in spreads:
                    spreads[origin] = is_spread(request)
                spread = spreads[origin]
                if spread or owner(request.host) == index:
                    leases.append(lease)
                    continue
                self._own.release(lease, now, unused=True)
                if spread is None and self._holds(lease):
                    continue
                hops += 1
                self._bring_in(Hop(lease, place=owner(request.host)))
            if hops == former:
                break
            if hops >= _MOST_HOPS:
                self._wake()
                break
        free = n - len(leases)
        if free and free != self._free and self.waiting <= 0:
            self._post("hungry", free)
        self._free = free
        return leases

    def _holds(self, lease: Lease) -> bool:
        """Keep a request back until its host's owner, who was sent one, knows whether all may ask it, or for a second."""
        host = lease.request.host
        held = self._held.get(host)
        if held is not None:
            held.append(lease)
            return True
        if host not in self._held_before:
            if len(self._held_before) >= _MAX_HELD:
                self._held_before.clear()
            self._held_before.add(host)
            self._held[host] = []
            self._own.tune(host, concurrency=1, cause=_HOLD)
            asyncio.get_running_loop().call_later(_HOLD_S, self._let_go, host)
        return False

    def _let_go(self, host: str) -> None:
        held = self._held.pop(host, None)
        if held is not None:
            self._own.tune(host, concurrency=0, cause=_HOLD)
            for lease in held:
                self._own.requeue(lease)

    def give(self, place: int, free: int) -> None:
        """Pass on some of the requests that wait here for a slot to a shard that has free slots and nothing that waits."""
        n = portion(self.waiting, free)
        leases = self._own.take_waiting(n, self._is_spread) if self._is_spread is not None else []
        for lease in leases:
            self._bring_in(Hop(lease, place=place))
        self._hurry()
        self._post("gave", place, len(leases))

    def awaits(self, place: int) -> bool:
        """Whether a callback here waits for what that shard is to fetch."""
        return any(shard == place for shard, *_ in self._awaited.values())

    @property
    def waiting(self) -> int:
        """How many requests of this shard wait for a slot, a time or room."""
        return self._own.waiting + sum(map(len, self._held.values()))

    def release(self, lease: Lease, now: float, *, unused: bool = False) -> None:
        """Free the host's slot that ``lease`` holds."""
        self._own.release(lease, now, unused=unused)

    def requeue(self, lease: Lease) -> None:
        """Let ``lease`` wait for its host again; what a callback awaits is fetched by the shard that may ask its host."""
        self._open.discard(lease)
        place = self._split.owner(lease.request.host) if lease.waiter is not None and lease.key is None else -1
        if place in (-1, self._split.index) or (self._is_spread is not None and self._is_spread(lease.request)):
            self._own.requeue(lease)
            return
        try:
            errand = _errand(lease.request)
        except Exception as error:
            if lease.waiter is not None and not lease.waiter.done():
                said = f"{lease.request!r} cannot be sent to another shard: {error}"
                lease.waiter.set_exception(RequestError(said))
            return
        self._errands += 1
        self._awaited[self._errands] = (place, lease, errand)
        self._post_errand(self._errands)

    def _post_errand(self, number: int) -> None:
        place, _, errand = self._awaited[number]
        if place in self._up:
            self._post("fetch", place, number, errand)

    def fetched(self, number: int, outcome_for: Callable[[Request], Response | FetchError]) -> None:
        """Another shard has fetched what a callback here awaits; what came of it is made with the request."""
        _, lease, _ = self._awaited.pop(number, (0, None, b""))
        if lease is None or lease.waiter is None or lease.waiter.done():
            return
        outcome = outcome_for(lease.request)
        if isinstance(outcome, FetchError):
            lease.waiter.set_exception(outcome)
        else:
            lease.waiter.set_result(outcome)
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
        """Change a host's budget in this shard; a pause that its server asks for holds for all."""
        self._own.tune(host, concurrency=concurrency, delay=delay, not_before=not_before, cause=cause)
        if not self._split.spreads(host):
            return
        if not_before is not None:
            self._post("pause", host, self._wall_clock() + not_before - self._clock())
        if delay is not None and (rules := self._rules_of(cause)):
            self._post("facts", rules)  # the others wait for this robots.txt; a commit keeps it
            self._bring_in(Settlement(None))

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when a lease may next succeed with the slots that are free now."""
        private_only = private_only or (self._credit is not None and not self._spare)
        return self._own.next_ready(now, private_only=private_only)

    @property
    def counts(self) -> Counts:
        """The counts of this shard; what waits in its outbox is pending, and one more is until all shards are done."""
        own, more = self._own.counts, self._waiting + (not self.is_over)
        return Counts(own.seeded + more, own.done, own.failed, own.pending + more, own.filtered)

    @property
    def has_room(self) -> bool:
        """Whether the file keeps up, and the other shards do."""
        return self._waiting < _MAX_WAITING and self._own.has_room

    # -- the other shards ----------------------------------------------------------------------------------------------

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Make all settled before the call durable, the outbox with it; then send that. Raises StateError."""
        changes, confirmations = self._changes, self._to_confirm
        links, parcels, confirmed, learned = self._links, self._parcels, self._confirmed, self._learned
        self._links, self._parcels, self._confirmed, self._learned, self._to_confirm = {}, {}, [], {}, {}
        state: dict[str, Any] = {**learned, **checkpoint.state, **dict.fromkeys(confirmed)}
        chunks: list[tuple[int, int, tuple[int, bytes]]] = []
        for place in links.keys() | parcels.keys():
            number = self._sent[place] = self._sent[place] + 1
            chunk = links.get(place, []), parcels.get(place, [])
            chunks.append((place, number, (len(chunk[0]) // 2 + len(chunk[1]), _encode(chunk))))
            state[f"{_OUTBOX}{place}.{number}"] = chunks[-1][2]
        state[_NUMBERS] = {"sent": [*self._sent], "taken": [*self._taken], "waiting": self._waiting}
        await self._own.commit(Checkpoint(checkpoint.outputs, state))
        facts = {name: each for name, each in checkpoint.state.items() if name.startswith(self._shared) and each}
        if facts:
            self._post("facts", facts)
        for place, number, box in chunks:
            # Not before: were one sent that is not durable yet, the next process would give its number to another.
            self._outbox[place][number] = box
            self._post_chunk(place, number)
        for source, number in confirmations.items():
            self._durable[source] = number
            self._post("taken", source, number)
        if self._credit is not None and self._committed < 0:
            self._credit = self._pages()  # of earlier processes
        self._committed, self._outputs = changes, checkpoint.outputs
        self._report(checkpoint.outputs)

    def _post_chunk(self, place: int, number: int) -> None:
        if place in self._up:
            self._post("chunk", place, number, self._outbox[place][number][1])

    @property
    def is_idle(self) -> bool:
        """Whether this shard has nothing to do until another one sends it something: all is done, sent and committed."""
        return (
            not self._own.counts.pending
            and self._start_over
            and not self._waiting
            and self._changes == self._committed
            and not self._arriving
        )

    def came_up(self, place: int) -> None:
        """Another shard takes chunks from now on: send it what it has not confirmed, in order."""
        self._up.add(place)
        for number in self._outbox[place]:
            self._post_chunk(place, number)
        for number, (shard, *_) in self._awaited.items():
            if shard == place:
                self._post_errand(number)

    def arrived(self, source: int, number: int, chunk: bytes) -> None:
        """Take a chunk of another shard, unless it is known; one out of order comes again."""
        self.seen += 1
        self._free = 0
        if number == self._arrived[source] + 1:
            self._arrived[source] = number
            self._arriving += 1
            self._bring_in(Delivery(None, source=source, number=number, chunk=chunk))
            return
        if number <= self._durable[source]:
            self._post("taken", source, number)
        if self.is_idle:
            self._report(self._outputs)

    def confirmed(self, place: int, number: int) -> None:
        """Another shard has committed the chunks up to this one."""
        for each in [each for each in self._outbox[place] if each <= number]:
            self._waiting -= self._outbox[place].pop(each)[0]
            self._confirmed.append(f"{_OUTBOX}{place}.{each}")
        if self.is_idle:
            self._report(self._outputs)
        self._wake()

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Take up facts that another shard found out, and keep them with the next commit."""
        self._learned.update(facts)
        self._learn(facts)
        for name in facts:
            if name.startswith("robots:"):
                self._let_go(host_of(name.removeprefix("robots:")))
        self._wake()

    def pause(self, host: str, until: float) -> None:
        """Leave a host alone up to a time of the wall clock: another shard was asked to."""
        self._own.tune(host, not_before=self._clock() + until - self._wall_clock())

    def may_leave(self) -> bool:
        """Whether a stopped crawl may end that has nothing under way: other shards' callbacks may await what it is to fetch."""
        if not self.has_drained and not self._awaited:
            self.has_drained = True
            self._report(self._outputs)
        return self._leaves

    def leave(self) -> None:
        """All shards have drained."""
        self._leaves = True
        self._wake()

    def end(self) -> None:
        """No shard has anything left to do."""
        self.is_over = True
        self._wake()

    # -- crawl.max_pages, over all shards ------------------------------------------------------------------------------

    @property
    def _spare(self) -> int:
        return max(0, (self._credit or 0) - self._pages() - len(self._open))

    def _ask_for_credit(self) -> None:
        if not self._asked_for_credit and self._own.counts.pending > len(self._open):
            self._asked_for_credit = True
            self._post("want")

    def grant(self, pages: int) -> None:
        """Let so many more pages be fetched."""
        assert self._credit is not None
        self._credit += pages
        self._asked_for_credit = False
        self._wake()

    def give_back(self) -> None:
        """Others need pages: give back what is not needed here."""
        assert self._credit is not None
        spare = self._spare
        self._credit -= spare
        self._post("back", spare)
        if spare:
            self._asked_for_credit = False
            self._wake()

    async def close(self) -> None:
        """Close the file."""
        self.is_over = True
        await self._own.close()


def _errand(request: Request) -> bytes:
    """Return what another shard needs to fetch it for a callback here; of ``meta`` what can be sent, for its middlewares.

    Raises what msgspec does where that is not possible.
    """
    meta = {name: value for name, value in request.meta.items() if _can_be_sent((name, value))}
    return codec.encode(request.replace(callback=None, errback=None, priority=0, meta=meta, cb_kwargs={}))


def _can_be_sent(value: Any) -> bool:
    try:
        _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True
