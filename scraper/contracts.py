"""The parts of a crawl, each as a Protocol, and the small data that travels between them.

The way of a URL through them::

    Spider.start ─► Frontier.settle ─► Frontier.lease ─► Middleware … ─► Downloader.fetch
                         ▲                                                     │
                         └── Settlement ◄── Pipeline ◄── callback ◄────────────┘
                                               └─► Exporter.write ─► Exporter.flush ─► Frontier.commit

State changes are synchronous and small; only ``open``, ``flush``, ``commit``, ``close`` and ``fetch`` wait. Times are
seconds of one monotonic clock, passed in as ``now``. ``tests/contracts/`` holds a suite for each Protocol that every
implementation passes.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence, Set
from typing import IO, Any, Protocol

from msgspec import Struct

from scraper.errors import shown
from scraper.http import Request, Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
"""Takes a request to its response; raises FetchError, or Again to have another request take its place."""

Middleware = Callable[[Handler], Handler]
"""Wraps a handler in another: what it does before, after or instead of calling the one it was given."""


class Lease(Struct, eq=False):
    """A request handed out to be fetched. It stays the frontier's until it is settled.

    ``key`` is the frontier's own name for the stored request. A private lease (``waiter`` set) was never stored: it
    is a fetch that somebody in this process awaits (``self.fetch``, robots.txt), and is dropped, not settled.
    """

    request: Request
    key: Any = None
    waiter: Future[Response] | None = None
    slot: Any = None
    """The host whose slot it holds, as the frontier knows it."""
    sent: bool = False
    """Whether the host's budget was told that the request went out."""
    counted: bool = False
    """Whether it counts towards the caps of its host and path."""


class Settlement(Struct, eq=False):
    """What became of one lease, and everything it led to: applied as one, or not at all.

    Without a lease it brings in start requests; ``starts`` says how many values of ``start()`` it stands for. ``again``
    puts another request in the lease's place (a retry, a redirect), not before the monotonic time ``not_before``.
    ``error`` says why it failed; empty where it did not. ``start_over`` says that ``start()`` has no more values.
    """

    lease: Lease | None
    children: Sequence[Request] = ()
    again: Request | None = None
    not_before: float = 0.0
    error: str = ""
    starts: int = 0
    start_over: bool = False


class Counts(Struct):
    """How many requests are in which state. Always ``seeded == done + failed + pending``.

    ``seeded`` counts every request taken in, ``filtered`` those refused because they had been seen.
    """

    seeded: int = 0
    done: int = 0
    failed: int = 0
    pending: int = 0
    filtered: int = 0


class Tally(Struct):
    """What counts towards a crawl's limits."""

    pages: int = 0
    items: int = 0
    errors: int = 0


class Checkpoint(Struct):
    """What a commit makes durable beside the settlements, and what ``Frontier.open`` finds of an earlier run.

    ``outputs`` says how many bytes of each output belong to settled pages; ``state`` holds the parts' own state as JSON
    values, in a commit only what changed, None for what is to be forgotten. A name with a colon is a fact that holds for
    all workers of a fleet (a start host, a robots.txt, a throttled host); any other is this process' own.
    """

    outputs: Mapping[str, int] = {}
    state: Mapping[str, Any] = {}


class Again(Exception):
    """Raised by a middleware: ``request`` takes the place of the one under way, not before ``delay`` seconds from now.

    It goes back through the frontier, so that politeness and dedupe see it. ``reason`` is "retry" or "redirect";
    ``response`` what led to it, where something came back. Of the request nothing is kept that the parts outside gave it for
    one sending (``Request.complete``): cookies and credentials are neither stored nor carried on to another host.
    """

    def __init__(self, request: Request, reason: str, delay: float = 0.0, response: Response | None = None) -> None:
        super().__init__(reason)
        if not isinstance(request, Request):
            raise TypeError(f"Again(request, …): a Request is expected, not {shown(request)}")
        self.response = response
        self.request = request.restore()
        self.reason = reason
        self.delay = delay


class Frontier(Protocol):
    """Holds the requests that wait, knows the ones that were seen, and decides which may go now.

    A request is taken in unless its fingerprint was seen (``dont_filter`` passes), waits until its ``delay`` is over and
    its host has room, is leased to one owner, and is settled exactly once. Within a host the highest ``priority``
    goes first, then the oldest (``order="breadth"``) or the newest (``"depth"``); between hosts there is no order, and
    none starves another.
    """

    durable: bool
    """Whether what is committed outlives the process."""

    async def open(self, wake: Callable[[], None]) -> Checkpoint:
        """Make ready; return what was committed last, empty for a new crawl.

        ``wake`` is to be called whenever a lease may succeed that did not before. Requests that were leased when an
        earlier process died wait again. Raises UsageError where the state cannot be used, saying why.
        """

    async def begin_start(self) -> int | None:
        """Wait until it falls to this process to run ``start()``; return how many of its values were taken before.

        None says that ``start()`` has ended, elsewhere. Only one process at a time runs it.
        """

    async def retry_failed(self) -> int:
        """Put every failed request back among the pending ones; return how many. To be called right after ``open``."""

    def knows(self, request: Request) -> bool:
        """Whether ``request`` was seen, as far as can be said at once; then it counts as filtered, and nothing more is done.

        A frontier that would have to look it up says False: ``settle`` will find out.
        """

    def unseen(self, urls: Sequence[str], dropped: int = 0) -> list[str]:
        """Return those of distinct URLs, in order, of whose plain GET ``knows`` would not say that it was seen.

        The others count as filtered, and so do ``dropped`` more. What was seen stays so as long as the crawl lasts.
        """

    def settle(self, settlement: Settlement) -> None:
        """Apply what became of a lease: its end, its children, the request in its place. Never blocks."""

    def lease(self, n: int, now: float, *, private_only: bool = False) -> list[Lease]:
        """Hand out up to ``n`` requests that may be fetched at ``now``; each takes a slot of its host until released.

        Raises StateError where the state cannot be read or written any more.
        """

    def release(self, lease: Lease, now: float, *, unused: bool = False) -> None:
        """Free the host's slot that ``lease`` holds. The lease itself stays open until it is settled.

        ``unused`` says, before ``sent`` was called for it, that nothing was asked of the host: its delay does not count from
        here.
        """

    def requeue(self, lease: Lease) -> None:
        """Let ``lease`` (released, or private and new) wait for its host again, before all stored requests."""

    def tune(
        self,
        host: str,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        cause: str = "",
    ) -> None:
        """Change a host's budget: its slots, the seconds between two requests, and the time before which none may go.

        With a ``cause`` slots and delay are caps: of all causes the strictest holds, and 0 lifts what this one had set.
        """

    def next_ready(self, now: float, *, private_only: bool = False) -> float | None:
        """Return when a lease may next succeed with the slots that are free now, or None where only a release helps."""

    @property
    def counts(self) -> Counts:
        """The counts of now, over all processes that work on it."""

    @property
    def has_room(self) -> bool:
        """Whether more children may come now; past it ``settle`` still works, but memory grows."""

    async def commit(self, checkpoint: Checkpoint) -> None:
        """Make everything settled before the call durable, together with ``checkpoint``. Raises StateError."""

    async def close(self) -> None:
        """Free what is held. What is not settled stays pending for the next run, where the frontier is durable."""


class Stateful(Protocol):
    """A part whose state lasts over a crash: it is committed with the pages it comes from."""

    def changes(self) -> Mapping[str, Any]:
        """Return what changed since the last call: names, with the part's own prefix, to JSON values, or None."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what was committed; ``state`` holds all parts' names."""


class Departures(Protocol):
    """Is told when requests go out, where a host's delay counts from that."""

    @property
    def unsent(self) -> Set[str]:
        """Hosts that are not asked again before ``sent`` was called for each request under way."""

    def sent(self, name: str, now: float) -> None:
        """Take note that a request to a host in ``unsent`` went out, or came to nothing: its delay counts from ``now``."""


class Host(Protocol):
    """A host that requests wait for or are under way to. ``line`` is for the frontier to keep those that wait in."""

    name: str
    line: list[Any]


class HostBudgets(Departures, Protocol):
    """Decides which host may be asked at ``now``; ``politeness.hosts.Hosts`` is the one for a single process.

    What goes in as a ``host`` is what came out of here.
    """

    def __iter__(self) -> Iterator[Host]:
        """Those that requests wait for or are under way to."""

    def get(self, name: str) -> Host | None:
        """Return a host, unless there is nothing to do with it."""

    def add(self, name: str, now: float) -> Host:
        """Count one more request that waits for the host; return it."""

    def pop(self, now: float) -> Host | None:
        """Take a slot of the next ready host for one of its requests; return it or None."""

    def take(self, name: str, now: float) -> Host | None:
        """Take a slot of this host for one of its requests; return it, or None where it is not ready."""

    def drop(self, host: Any) -> None:
        """Count one request less that waits for the host."""

    def release(self, host: Any, now: float, *, unused: bool = False) -> None:
        """Give a slot of the host back; ``unused`` where nothing was asked of it."""

    def tune(
        self,
        name: str,
        now: float,
        *,
        concurrency: int | None = None,
        delay: float | None = None,
        not_before: float | None = None,
        cause: str = "",
    ) -> None:
        """Change the host's own budget, or what ``cause`` caps of it."""

    def ready_at(self, name: str) -> float | None:
        """Return when the host may be asked next, or None where only a release helps."""

    def next_ready(self, now: float) -> float | None:
        """Return the next time at which ``pop`` may succeed without a release."""


class Downloader(Protocol):
    """Turns one request into one response, without following redirects or retrying."""

    async def open(self) -> None:
        """Make ready: pools and resolvers."""

    async def fetch(self, request: Request) -> Response:
        """Fetch. Raises a FetchError class for each cause; never returns part of a body as a whole one."""

    async def close(self) -> None:
        """Close all connections."""


class Exporter(Protocol):
    """Appends encoded items to one output, in large blocks."""

    name: str

    @property
    def length(self) -> int:
        """Where what this run wrote ends in the output, that in the buffer left out."""

    @property
    def has_taken(self) -> bool:
        """Whether what the run gave it is in the output, or a part of that where no more could be written."""

    async def open(self, position: int | None = None) -> None:
        """Open the output. With a ``position``, cut off what this run wrote behind it, and go on behind what others did.

        Raises OutputError where that is not possible, or where the output is shorter than ``position``; StateError where
        what this run wrote cannot be noted.
        """

    def encode(self, item: Any) -> bytes:
        """Return the item as the bytes of one record. Raises TypeError or ValueError where it cannot be encoded."""

    def write(self, block: bytes) -> None:
        """Take whole records into the buffer. Never blocks."""

    def write_file(self, file: IO[bytes]) -> None:
        """Take the whole records that a temporary file holds; it is copied and closed with the next flush."""

    @property
    def buffered(self) -> int:
        """Bytes taken and not yet flushed."""

    async def flush(self, *, sync: bool = False, is_part: bool = False) -> int:
        """Write what was taken before the call; return the output's length in bytes. Raises OutputError or StateError.

        With ``sync``, wait until it has reached the disk. To be called when what the call before has written is committed,
        unless that was ``is_part`` of what one commit is to cover.
        """

    async def close(self) -> None:
        """Flush and close."""


class Pipeline(Protocol):
    """A step every item passes. ``process_item`` may be a coroutine function; ``open`` and ``close`` are optional."""

    def process_item(self, item: Any, spider: Any) -> Any:
        """Return the item, changed or not, or raise DropItem."""
