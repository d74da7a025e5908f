"""Whose turn it is: slots, gaps and ready times, with a clock that is passed in."""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

import pytest

from scraper.politeness import hosts as tested
from scraper.politeness.hosts import Budgets, Policy


class Hosts(tested.Hosts):
    """Names in, names out."""

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def next(self, now: float) -> str | None:
        """Pop; return the host's name."""
        host = self.pop(now)
        return host.name if host is not None else None

    def give_back(self, name: str, now: float, *, unused: bool = False) -> None:
        """Release one of the host's slots."""
        host = self.get(name)
        assert host is not None
        self.release(host, now, unused=unused)


def add(hosts: Hosts, names: Sequence[str], now: float = 0.0) -> None:
    """Queue one request for each name of a host: a letter, mostly."""
    for name in names:
        hosts.add(name, now)


def pop_all(hosts: Hosts, now: float = 0.0) -> str:
    """Pop until none is ready; return the hosts' names."""
    popped = ""
    while (name := hosts.next(now)) is not None:
        popped += name
    return popped


@pytest.mark.parametrize(
    ("concurrency", "queued", "popped"),
    [
        (1, "", ""),
        (1, "a", "a"),
        (1, "aaa", "a"),
        (2, "aaa", "aa"),
        (8, "aaa", "aaa"),
        (1, "abc", "abc"),
        (2, "aaabbbccc", "abcabc"),
        (8, "aaaaab", "abaaaa"),
    ],
)
def test_slots_and_turns(concurrency: int, queued: str, popped: str) -> None:
    """A host has so many slots and no more; hosts take turns, however much one of them has queued."""
    hosts = Hosts(concurrency)
    add(hosts, queued)
    assert pop_all(hosts) == popped


def test_a_release_frees_a_slot() -> None:
    """A full host goes on when a slot is given back, once for each."""
    hosts = Hosts(2)
    add(hosts, "aaaa")
    assert pop_all(hosts) == "aa"
    assert hosts.next_ready(0.0) is None
    hosts.give_back("a", 0.0)
    assert hosts.next_ready(0.0) == 0.0
    assert pop_all(hosts) == "a"


def test_delay() -> None:
    """Two requests to one host lie at least the delay apart, though slots are free; other hosts do not wait."""
    hosts = Hosts(8, delay=2.0)
    add(hosts, "aab", 10.0)
    assert pop_all(hosts, 10.0) == "ab"
    assert (hosts.next_ready(10.0), hosts.ready_at("a")) == (12.0, 12.0)
    assert pop_all(hosts, 11.999) == ""
    assert pop_all(hosts, 12.0) == "a"


def test_the_gap_holds_for_a_host_that_had_been_done_with() -> None:
    """A host with nothing left is remembered until its gap is over, and forgotten then."""
    hosts = Hosts(8, delay=2.0)
    add(hosts, "a")
    pop_all(hosts)
    hosts.give_back("a", 0.5)
    add(hosts, "a", 1.0)
    assert pop_all(hosts, 1.0) == ""
    assert pop_all(hosts, 2.0) == "a"
    hosts.give_back("a", 2.5)
    assert hosts.next_ready(4.0) is None
    assert len(hosts) == 0


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_hosts_are_forgotten(delay: float) -> None:
    """A crawl over a hundred thousand hosts keeps none that it has nothing to do with."""
    hosts = Hosts(2, delay)
    for number in range(1000):
        now = float(number) * 2
        hosts.add(f"h{number}", now)
        assert hosts.next(now) == f"h{number}"
        hosts.give_back(f"h{number}", now)
    hosts.next_ready(10_000.0)
    assert len(hosts) == 0


def test_tune_concurrency() -> None:
    """More slots count at once; fewer take none away, but none is given until enough came back."""
    hosts = Hosts(1)
    add(hosts, "aaaaaa")
    assert pop_all(hosts) == "a"
    hosts.tune("a", 0.0, concurrency=3)
    assert pop_all(hosts) == "aa"
    hosts.tune("a", 0.0, concurrency=1)
    hosts.give_back("a", 0.0)
    hosts.give_back("a", 0.0)
    assert pop_all(hosts) == ""
    hosts.give_back("a", 0.0)
    assert pop_all(hosts) == "a"
    hosts.tune("a", 0.0, concurrency=0)
    hosts.give_back("a", 0.0)
    assert pop_all(hosts) == "a"


def test_tune_delay() -> None:
    """A longer delay counts from the last request on; a shorter one from the next."""
    hosts = Hosts(8)
    add(hosts, "aaa", 10.0)
    assert hosts.next(10.0) == "a"
    hosts.tune("a", 11.0, delay=5.0)
    assert pop_all(hosts, 14.0) == ""
    assert pop_all(hosts, 15.0) == "a"
    hosts.tune("a", 15.0, delay=1.0)
    assert hosts.next_ready(15.0) == 20.0


def test_tune_not_before() -> None:
    """A host rests until its time, of several the latest; a host that is not known yet too."""
    hosts = Hosts(8)
    hosts.tune("a", 0.0, not_before=5.0)
    hosts.tune("a", 0.0, not_before=3.0)
    add(hosts, "ab")
    assert pop_all(hosts, 4.0) == "b"
    assert hosts.next_ready(4.0) == 5.0
    assert pop_all(hosts, 5.0) == "a"


def test_take_asks_for_one_host() -> None:
    """take gives a slot of the named host under the same rules as pop, out of turn."""
    hosts = Hosts(2, delay=1.0)
    assert not hosts.take("a", 0.0)
    add(hosts, "baa")
    assert hosts.take("a", 0.0)
    assert not hosts.take("a", 0.5)
    assert pop_all(hosts, 0.5) == "b"
    assert hosts.take("a", 1.0)
    assert not hosts.take("a", 9.0)


@pytest.mark.parametrize(
    ("queued", "popped", "at"), [("", 0, None), ("a", 0, 0.0), ("a", 1, None), ("aa", 1, 2.0), ("aaa", 2, None)]
)
def test_ready_at(queued: str, popped: int, at: float | None) -> None:
    """A host's next time, or None where only a release or a new request helps."""
    hosts = Hosts(2, delay=2.0)
    add(hosts, queued)
    for number in range(popped):
        assert hosts.next(number * 2.0) == "a"
    assert hosts.ready_at("a") == at


def test_drop() -> None:
    """A request that waits elsewhere from now on is counted out; a host with none left is passed over."""
    hosts = Hosts(8)
    add(hosts, "aab")
    hosts.drop(hosts.get("a"))
    hosts.drop(hosts.get("b"))
    assert hosts.ready_at("b") is None
    assert pop_all(hosts) == "a"
    assert hosts.next_ready(0.0) is None


class Model:
    """Drives Hosts with random operations and checks, from outside and after each step, what it promises."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.limit: dict[str, int] = defaultdict(lambda: 2)
        self.delay: dict[str, float] = defaultdict(lambda: 0.5)
        self.queued: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.last: dict[str, float] = {}
        self.not_before: dict[str, float] = defaultdict(float)
        self.earliest: dict[str, float] = defaultdict(float)
        self.forgotten: set[str] = set()  # idle and without a budget of their own: when they last went is not known
        self.hosts = Hosts(2, 0.5)
        self.names = [f"h{number}" for number in range(self.random.randrange(1, 8))]

    def may_go(self, name: str) -> bool:
        """Whether by the rules this host may be asked now."""
        return bool(self.queued[name]) and self.used[name] < self.limit[name] and self.earliest[name] <= self.now

    def went(self, name: str) -> None:
        """Check one request's leave, and note it."""
        assert self.queued[name] > 0, "a request that was never added"
        assert self.used[name] < self.limit[name], "more than limit in use"
        assert self.now >= self.not_before[name], "before its time"
        if name in self.last:
            assert self.now - self.last[name] >= self.delay[name], "the gap is shorter than the delay"
        self.forgotten.discard(name)
        self.queued[name] -= 1
        self.used[name] += 1
        self.last[name] = self.now
        self.earliest[name] = self.now + self.delay[name]

    def step(self) -> None:
        """Do one random thing."""
        name = self.random.choice(self.names)
        what = self.random.random()
        if what < 0.35:
            self.hosts.add(name, self.now)
            self.queued[name] += 1
        elif what < 0.55:
            popped = self.hosts.next(self.now)
            if popped is not None:
                self.went(popped)
            else:
                assert not any(map(self.may_go, self.names)), "one that may go was not found"
        elif what < 0.62:
            may = self.may_go(name)
            assert bool(self.hosts.take(name, self.now)) is may
            if may:
                self.went(name)
        elif what < 0.82:
            busy = [each for each in self.names if self.used[each]]
            if busy:
                name = self.random.choice(busy)
                self.hosts.give_back(name, self.now)
                self.used[name] -= 1
        elif what < 0.9:
            self.tune(name)
        else:
            # Eighths are exact in binary, so that "at least the delay" needs no tolerance.
            self.now += self.random.choice([0.125, 0.25, 0.5, 3.0])

    def tune(self, name: str) -> None:
        """Change one host's budget."""
        which = self.random.randrange(3)
        if which == 0:
            self.limit[name] = self.random.randrange(1, 5)
            self.hosts.tune(name, self.now, concurrency=self.limit[name])
        elif which == 1:
            if name in self.forgotten:
                return
            self.delay[name] = self.random.choice([0.0, 0.5, 2.0])
            self.hosts.tune(name, self.now, delay=self.delay[name])
            if name in self.last:
                self.earliest[name] = max(self.earliest[name], self.last[name] + self.delay[name])
        else:
            self.not_before[name] = max(self.not_before[name], self.now + self.random.choice([-1.0, 0.25, 2.0]))
            self.hosts.tune(name, self.now, not_before=self.not_before[name])
            self.earliest[name] = max(self.earliest[name], self.not_before[name])

    def check(self) -> None:
        """Check what can be asked without changing anything."""
        ready = [name for name in self.names if self.may_go(name)]
        at = self.hosts.next_ready(self.now)
        if ready:
            assert at == self.now
        times = [self.earliest[name] for name in self.names if self.queued[name] and self.used[name] < self.limit[name]]
        if times:
            assert at is not None, "a host that will be ready was lost"
            assert at <= max(self.now, min(times)), "it wakes too late"
        for name in self.names:
            untuned = self.limit[name] == 2 and self.delay[name] == 0.5
            if untuned and not self.queued[name] and not self.used[name] and self.earliest[name] <= self.now:
                self.forgotten.add(name)
            waits = self.queued[name] and self.used[name] < self.limit[name]
            at = self.hosts.ready_at(name)
            assert (at is None) is not bool(waits)
            # Of times that have come, any is as good as another: a host may have been forgotten meanwhile.
            assert at is None or max(at, self.now) == max(self.earliest[name], self.now)

    def finish(self) -> None:
        """Let everything go: each request leaves in the end, and no host passes another more than a turn."""
        waiting = sum(self.queued.values())
        for _ in range(10 * waiting + 100):
            for name in self.names:
                while self.used[name]:
                    self.hosts.give_back(name, self.now)
                    self.used[name] -= 1
            turn: Counter[str] = Counter()
            ready = {name for name in self.names if self.may_go(name)}
            while (popped := self.hosts.next(self.now)) is not None:
                self.went(popped)
                turn[popped] += 1
                skipped = {name for name in ready if self.may_go(name) and not turn[name]}
                assert turn[popped] <= 1 or not skipped, "a host had two turns while another had none"
            at = self.hosts.next_ready(self.now)
            self.now = max(self.now, at or self.now)
        assert not sum(self.queued.values()), "requests were lost"


@pytest.mark.parametrize("seed", range(60))
def test_invariants_after_random_operations(seed: int) -> None:
    """After any operations: never more than limit in use, gaps of at least the delay, none starved, nothing lost."""
    model = Model(seed)
    for _ in range(300):
        model.step()
        model.check()
    model.finish()


# -- caps, jitter, departures, several crawls --------------------------------------------------------------------------


def test_the_strictest_cause_holds() -> None:
    """Caps of several causes are kept apart: the fewest slots and the longest delay hold; 0 lifts one cause's own."""
    hosts = Hosts(8, 1.0)
    hosts.tune("a", 0.0, concurrency=4, cause="throttle")
    hosts.tune("a", 0.0, concurrency=1, delay=3.0, cause="http://a")
    hosts.tune("a", 0.0, delay=2.0, cause="https://a")
    hosts.tune("a", 0.0, concurrency=0, cause="http://a")
    add(hosts, "a" * 20)
    assert [hosts.next(number * 3.0) for number in range(5)] == [*"aaaa", None]
    hosts.tune("a", 12.0, delay=0.0, cause="http://a")
    hosts.give_back("a", 12.0)
    assert [hosts.next(at) for at in (12.0, 13.0)] == ["a", None]
    assert hosts.next_ready(13.0) is None
    hosts.tune("a", 13.0, concurrency=0, cause="throttle")
    assert [hosts.next(at) for at in (13.5, 14.0)] == [None, "a"]


def test_jitter_only_lengthens() -> None:
    """A gap lies between the delay and the delay times 1 + jitter, as the random number says."""
    drawn = iter([0.0, 0.5, 0.75])
    hosts = Hosts(8, 2.0, 0.5, random=lambda: next(drawn))
    add(hosts, "aaa")
    assert hosts.next(0.0) == "a"
    assert hosts.ready_at("a") == 2.0
    assert hosts.next(2.0) == "a"
    assert hosts.ready_at("a") == 4.5


def test_a_host_is_held_until_its_request_went_out() -> None:
    """The gap counts from sent; a lease that was not used, or came to nothing, holds the host no longer."""
    hosts = Hosts(8, 2.0, tells_sent=True)
    add(hosts, "aaaa")
    assert hosts.next(0.0) == "a"
    assert hosts.unsent == {"a"}
    assert (hosts.next(100.0), hosts.next_ready(100.0), hosts.ready_at("a")) == (None, None, None)
    hosts.tune("a", 100.0, not_before=101.0)
    hosts.sent("a", 100.0)
    assert (hosts.unsent, hosts.next_ready(100.0)) == (set(), 102.0)
    assert hosts.next(102.0) == "a"
    hosts.give_back("a", 102.0, unused=True)
    assert hosts.next(102.0) == "a"
    hosts.give_back("a", 103.0)
    hosts.give_back("a", 104.0)
    assert hosts.next(105.5) is None
    assert hosts.next(106.0) == "a"


def test_a_delay_that_comes_later_counts_from_what_may_have_gone_out() -> None:
    """With requests under way of which nothing was told, a new delay waits for each of them."""
    hosts = Hosts(8, tells_sent=True)
    add(hosts, "aaa")
    assert (hosts.next(0.0), hosts.next(0.0)) == ("a", "a")
    hosts.tune("a", 1.0, delay=2.0, cause="robots")
    hosts.sent("a", 5.0)
    assert hosts.next(9.0) is None
    hosts.sent("a", 9.0)
    assert hosts.next(10.5) is None
    assert hosts.next(11.0) == "a"


@pytest.mark.parametrize("seed", range(30))
def test_crawls_that_share_a_budget(seed: int) -> None:
    """After any operations of three crawls: the strictest limit and delay hold over all, and nothing is lost at the end."""
    random = Random(seed)
    budgets, now = Budgets(), 0.0
    limits, delays = [random.randrange(1, 5) for _ in range(3)], [random.choice([0.0, 0.5, 1.0]) for _ in range(3)]
    crawls = [
        Hosts(limit, delay, 0.5, budgets=budgets, tells_sent=True, random=random.random)
        for limit, delay in zip(limits, delays, strict=True)
    ]
    woken = [0, 0, 0]
    for number, hosts in enumerate(crawls):
        hosts.open(lambda number=number: woken.__setitem__(number, woken[number] + 1))  # type: ignore[misc]
    leases: list[tuple[int, list[bool]]] = []
    last = -1e9
    queued = [0, 0, 0]
    for step in range(800):
        number = random.randrange(3)
        hosts, what = crawls[number], random.random()
        if what < 0.3 and step < 500:
            hosts.add("a", now)
            queued[number] += 1
        elif what < 0.6:
            views = [each for each in range(3) if len(crawls[each])]
            if hosts.next(now) is not None:
                queued[number] -= 1
                limit, delay = min(limits[each] for each in views), max(delays[each] for each in views)
                assert len(leases) < limit
                assert now - last >= delay
                assert delay == 0 or all(sent for _, (sent,) in leases)
                last = now
                leases.append((number, [False]))
        elif what < 0.75 and leases:
            owner, sent = random.choice(leases)
            if not sent[0] and "a" in budgets.unsent:
                sent[0] = True
                crawls[owner].sent("a", now)
                last = now
        elif what < 0.9 and leases:
            owner, sent = leases.pop(random.randrange(len(leases)))
            if not sent[0] and "a" in budgets.unsent:
                crawls[owner].sent("a", now)
                last = now
            crawls[owner].give_back("a", now)
        else:
            now += random.choice([0.125, 0.25, 1.0])
    for _ in range(5000):
        for owner, _sent in leases:
            crawls[owner].give_back("a", now)
        leases = [(number, [False]) for number in range(3) if crawls[number].next(now) is not None]
        for number, _sent in leases:
            queued[number] -= 1
        now += 0.125
    assert queued == [0, 0, 0]
    for hosts in crawls:
        hosts.close(now)
    assert budgets.hosts == {}
    assert budgets.unsent == set()
    assert not any(len(hosts) for hosts in crawls)


def test_another_crawl_is_woken() -> None:
    """A slot that one crawl gives back, also by its end, wakes the one that waits for it."""
    budgets, rung = Budgets(), []
    one, two = Hosts(1, budgets=budgets), Hosts(1, budgets=budgets)
    two.open(lambda: rung.append(True))
    add(one, "aa")
    add(two, "a")
    assert (one.next(0.0), two.next(0.0)) == ("a", None)
    rung.clear()
    one.give_back("a", 0.0)
    assert rung
    assert two.next(0.0) == "a"
    two.give_back("a", 0.0)
    assert one.next(0.0) == "a"
    add(two, "a")
    rung.clear()
    one.close(0.0)
    assert rung
    assert two.next(0.0) == "a"


@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_forgotten_hosts_are_gone_at_once(delay: float) -> None:
    """A host that is forgotten is in no cycle: a hundred thousand of them would have the garbage collector look at all."""
    hosts = Hosts(8, delay)
    gc.collect()
    gc.disable()
    try:
        for now in range(0, 1000, 10):
            hosts.add(f"host{now}", now)
            assert hosts.next(now) == f"host{now}"
            hosts.give_back(f"host{now}", now + 1)
            assert hosts.next(now + 9) is None
        assert len(hosts) == 0
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_new_host_has_nothing_of_a_forgotten_one() -> None:
    """Neither its last request nor its rest, nor what was asked of it: records of forgotten hosts are used again."""
    hosts = Hosts(2, policy_of={"own": Policy(1, 3.0)}.get)
    for name in ("a", "own"):
        hosts.tune(name, 0.0, delay=4.0, not_before=5.0, cause="robots")
    add(hosts, ["a", "own"])
    assert [pop_all(hosts, now) for now in (4.0, 5.0)] == ["", "aown"]
    for name in ("a", "own"):
        hosts.tune(name, 5.0, delay=0.0, cause="robots")
        hosts.give_back(name, 6.0)
    assert hosts.next(9.0) is None
    assert len(hosts) == 0
    hosts.tune("b", 9.0, delay=5.0, cause="robots")
    add(hosts, "bb", 9.0)
    assert [hosts.next(now) for now in (9.0, 13.0, 14.0)] == ["b", None, "b"]
    add(hosts, ["c", "c", "c", "own", "own"], 14.0)
    assert pop_all(hosts, 14.0) == "cownc"
    hosts.give_back("own", 14.0)
    assert hosts.next_ready(14.0) == 17.0
