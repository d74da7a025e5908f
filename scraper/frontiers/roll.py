"""The jobs that a Redis holds, for those who only look: what was asked, how they stand, who worked on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from scraper.contracts import Counts
from scraper.frontiers.neighbours import own_place, runs_here
from scraper.frontiers.redis import PATIENCE_S
from scraper.frontiers.server import Server, base_of
from scraper.frontiers.talk import JOBS, bucket_key, micros

_BEGINNING_S = 60.0  # for which a worker that cannot be seen from here may take to join


class Asked(Struct):
    """What a job was asked to do by the worker that began it."""

    spider: str
    arguments: dict[str, str] = {}
    outputs: list[str] = []
    began: str = ""


class Worker(Struct):
    """One worker: ``outputs`` says how many bytes of each of its files belong to committed pages."""

    name: str
    is_alive: bool
    outputs: Mapping[str, int]
    items: int


class Roll(Struct):
    """One job as it stands."""

    job: str
    asked: Asked
    counts: Counts
    workers: list[Worker]
    is_over: bool
    is_void: bool
    """Whether nothing was ever taken in, nobody is at work, and who asked for it last is not about to be."""

    @property
    def status(self) -> str:
        """ "finished" once every request has ended, "running" while somebody works on it, otherwise "unfinished"."""
        if self.is_over and not self.counts.pending:
            return "finished"
        return "running" if self.alive else "unfinished"

    @property
    def alive(self) -> list[str]:
        """The names of the workers at work."""
        return [worker.name for worker in self.workers if worker.is_alive]

    @property
    def items(self) -> int:
        """Items committed by all workers."""
        return sum(worker.items for worker in self.workers)


async def enlist(server: Server, job: str, asked: Asked) -> Asked:
    """Note what a new job is asked; the first to do so wins, unless that came to nothing. Return what holds then."""
    roll = await look(server, job)
    void = msgspec.json.encode(roll.asked) if roll is not None and roll.is_void else b""
    who = msgspec.msgpack.encode({"place": own_place()})
    await server.ask("SADD", JOBS, job)
    answer = await server.run(
        "crew", base_of(job), "enlist", "", 0, "", msgspec.json.encode(asked), who, void, micros(PATIENCE_S)
    )
    return msgspec.json.decode(answer[2], type=Asked)


async def look(server: Server, job: str) -> Roll | None:
    """Return a job as it stands, or None where there is none."""
    base = base_of(job)
    fields = ("asked", "buckets", "over", "starts", "by", "at")
    asked, count, over, starts, by, at = await server.ask("HMGET", f"{base}:job", *fields)
    if asked is None:
        return None
    sums = [0, 0, 0, 0]
    for number in range(int(count or 0)):
        key = f"{bucket_key(job, number, int(count))}:c"
        found = await server.ask("HMGET", key, "seeded", "done", "failed", "filtered")
        sums = [former + int(value or 0) for former, value in zip(sums, found, strict=True)]
    seeded, done, failed, filtered = sums
    seconds, micros = await server.ask("TIME")
    now = int(seconds) * 1_000_000 + int(micros)
    beats = await server.ask("ZRANGE", f"{base}:alive", "0", "-1", "WITHSCORES")
    alive = {name for name, at in _pairs(beats) if now - float(at) < PATIENCE_S * 1e6}
    positions = dict(_pairs(await server.ask("HGETALL", f"{base}:pos")))
    states = dict(_pairs(await server.ask("HGETALL", f"{base}:own")))
    names = sorted({*positions, *alive})
    is_used = bool(seeded or alive or over or int(starts or 0) or _may_begin(by, now - int(at or 0)))
    return Roll(
        job,
        msgspec.json.decode(asked, type=Asked),
        Counts(seeded, done, failed, seeded - done - failed, filtered),
        [_worker(name, name in alive, positions.get(name), states.get(name)) for name in names],
        over is not None,
        not is_used,
    )


async def all_jobs(server: Server) -> list[Roll]:
    """Return all jobs, the newest first."""
    names = sorted(name.decode() for name in await server.ask("SMEMBERS", JOBS))
    found = [roll for name in names if (roll := await look(server, name)) is not None]
    return sorted(found, key=lambda roll: roll.asked.began, reverse=True)


async def remove(server: Server, job: str) -> None:
    """Delete everything a job has in Redis."""
    for pattern in (f"scrape:{{{job}}}:*", f"scrape:{{{job}:*}}:*"):
        await server.delete(pattern)
    await server.ask("SREM", JOBS, job)


def _may_begin(who: bytes | None, since: int) -> bool:
    """Whether one that asked for the job so many microseconds ago may still be about to join it."""
    runs = runs_here(msgspec.msgpack.decode(who)) if who else None
    return since < _BEGINNING_S * 1e6 if runs is None else runs


def _worker(name: bytes, is_alive: bool, outputs: bytes | None, state: bytes | None) -> Worker:
    positions = msgspec.msgpack.decode(outputs) if outputs else {}
    own: dict[str, Any] = msgspec.msgpack.decode(state) if state else {}
    return Worker(name.decode(), is_alive, positions, own.get("stats", {}).get("items", 0))


def _pairs(flat: Any) -> list[tuple[bytes, bytes]]:
    if isinstance(flat, dict):  # a client of RESP 3
        return list(flat.items())
    if flat and isinstance(flat[0], (list, tuple)):
        return [(name, value) for name, value in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))
