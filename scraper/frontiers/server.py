"""The Redis behind a fleet's frontier: how it is reached, the scripts it runs, and what happens while it is away.

``redis://[:password@]host[:port]/[database]``, ``rediss://`` for TLS, ``redis+cluster://`` and ``rediss+cluster://`` for a
Cluster (any of its nodes). The password may stand in the environment as ``SCRAPE_REDIS_PASSWORD`` instead.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha1
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from scraper.errors import StateError, UsageError

SCHEMES = ("redis", "rediss", "redis+cluster", "rediss+cluster")
PASSWORD = "SCRAPE_REDIS_PASSWORD"
OLDEST = (6, 2)
_TIMEOUT_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_HURRY_S = 2.0
_AWAY = ("LOADING", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "READONLY", "BUSY")
_JOB = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Fenced(StateError):
    """The fleet has taken this worker for dead, and given its requests to others: nothing of it counts from here on."""


class Lost(StateError):
    """Redis has forgotten what it had confirmed: it came back from an older state, or the run was removed."""


def is_redis(use: str) -> bool:
    """Whether a value of ``frontier.use`` names a Redis."""
    return use.partition("://")[0] in SCHEMES and "://" in use


def check_job(name: str) -> str:
    """Return the name of a job in Redis. Raises UsageError where it cannot be one."""
    if not _JOB.fullmatch(name):
        raise UsageError(
            f'--job {name}: in Redis a job has a name of letters, digits, "-", "_" and "." (100 at the most)'
        )
    return name


def base_of(job: str) -> str:
    """Return the name under which a job keeps its keys; what stands in braces decides the slot in a Cluster."""
    return f"scrape:{{{job}}}"


def shown(url: str) -> str:
    """Return the address without its password and its options, wherever the password stands and however it is written."""
    scheme, _, rest = url.partition("://")
    rest = re.split(r"\?(?:\S*&)?password=", rest)[0]
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


class Server:
    """One Redis, or a Cluster. Every call waits until it is answered; ``say`` is told when Redis goes and comes."""

    def __init__(self, url: str, say: Callable[..., None]) -> None:
        if not is_redis(url):
            raise UsageError(f"{shown(url)}: a Redis is named as {'://…, '.join(SCHEMES)}://…")
        self.name = shown(url)
        self.is_cluster = "+cluster" in url.partition("://")[0]
        self._url = url.replace("+cluster", "", 1) if self.is_cluster else url
        self._say = say
        folder = resources.files(__package__).joinpath("lua")
        self._scripts = {
            name: "".join(folder.joinpath(f"{part}.lua").read_text() for part in ("commit", name)) for name in _SCRIPTS
        }
        self._shas = {name: sha1(text.encode()).hexdigest() for name, text in self._scripts.items()}
        self._client: Any = None
        self._is_away = False
        self._deadline: float | None = None
        self._limits: set[asyncio.Timeout] = set()
        self._pulse: _Pulse | None = None
        self.gaps = 0
        """How many calls were repeated because no answer came."""

    async def open(self) -> None:
        """Connect, and see whether this Redis can be used. Raises UsageError."""
        try:
            import redis.asyncio
            import redis.exceptions
        except ImportError:
            raise UsageError(
                f"frontier.use = {self.name} needs the redis package: pip install 'scraper[redis]'"
            ) from None
        self._errors = redis.exceptions
        # That of a Cluster, none of whose nodes is there or has the slot, is no RedisError.
        self._failures = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError)
        options: dict[str, Any] = {"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S, "protocol": 2}
        try:
            password = os.environ.get(PASSWORD)
            if password and not urlsplit(self._url).password:
                options["password"] = password
            if self._url.startswith("rediss"):
                options["ssl_check_hostname"] = True  # redis-py 5 leaves it out
            if self.is_cluster:
                self._client = redis.asyncio.RedisCluster.from_url(self._url, **options)
                await self._client.initialize()
                found = [await self._client.info(target_nodes=node) for node in self._client.get_primaries()]
            else:
                from redis.asyncio.retry import Retry
                from redis.backoff import NoBackoff

                self._client = redis.asyncio.Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **options)
                found = [await self._client.info()]
            self._options = options
        except ValueError:  # its text may quote the password
            await self.close()
            raise UsageError(
                f"cannot use {self.name}: the address is malformed (in a password, write / as %2F, @ as %40, : as %3A)"
            ) from None
        except (TypeError, AttributeError, LookupError):
            await self.close()
            raise UsageError(f"cannot use {self.name}: {_ODD}") from None
        except self._failures as error:
            await self.close()
            raise UsageError(f"cannot use {self.name}: {_brief(error)}") from None
        try:
            if self._client.get_encoder().decode_responses:
                raise UsageError(f"cannot use {self.name}: {_ODD}")
            for info in found:
                _check(self.name, info)
        except UsageError:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the connections."""
        if self._pulse is not None:
            self._pulse.stop()
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(*self._failures):
                await client.aclose()

    async def run(self, script: str, key: str, *arguments: Any) -> list[Any]:
        """Run a script until it is answered, however long Redis is away. Raises Fenced, Lost or StateError."""
        command: tuple[Any, ...] = ("EVALSHA", self._shas[script], 1, key, *arguments)
        try:
            answer = await self.ask(*command)
        except self._errors.NoScriptError:
            answer = await self.ask("EVAL", self._scripts[script], 1, key, *arguments)
        if answer[0] == b"FENCED":
            raise Fenced(
                f"{self.name}: this worker was not heard for so long that others have its requests now; what it had "
                "committed holds, the rest of its output is cut off when the parts are collected"
            )
        if answer[0] == b"LOST":
            raise Lost(
                f"{self.name}: it has lost what it had confirmed (restarted from an older state, or the run was removed); "
                "start the workers again: they go on from what is there"
            )
        return list(answer)

    def hurry(self) -> None:
        """From now on wait no longer than a few seconds for any answer: then StateError is raised."""
        self._deadline = asyncio.get_running_loop().time() + _HURRY_S
        for limit in self._limits:
            limit.reschedule(self._deadline)

    def pulse(self, pause_s: float, script: str, key: str, *arguments: Any) -> None:
        """Run a script every ``pause_s`` seconds in a thread, until ``close``: also while the event loop is blocked."""
        command = ("EVAL", self._scripts[script], 1, key, *arguments)
        self._pulse = _Pulse(self._connect_blocking, command, pause_s)
        self._pulse.start()

    def _connect_blocking(self) -> Any:
        import redis

        cls = redis.RedisCluster if self.is_cluster else redis.Redis
        return cls.from_url(self._url, **self._options)

    async def ask(self, *command: Any) -> Any:
        """Send one command until it is answered. Raises StateError for an answer that waiting does not mend."""
        limit = asyncio.timeout_at(self._deadline)
        try:
            async with limit:
                self._limits.add(limit)
                return await self._ask(*command)
        except TimeoutError:
            raise StateError(
                f"{self.name}: it does not answer, and this worker is to end now; what it had not committed goes to others"
            ) from None
        finally:
            self._limits.discard(limit)

    async def _ask(self, *command: Any) -> Any:
        pause_s, errors = _FIRST_PAUSE_S, self._errors
        while True:
            try:
                answer = await self._client.execute_command(*command)
            except errors.NoScriptError:
                raise
            except errors.ResponseError as error:
                if not str(error).startswith(_AWAY) and not isinstance(error, errors.ClusterError):
                    raise StateError(f"{self.name}: {_brief(error)}") from None
                cause: Exception = error
            except self._failures as error:
                cause = error
            except (AttributeError, TypeError, RuntimeError) as error:
                if not _is_of_redis_py(error):
                    raise
                cause = error
            else:
                if self._is_away:
                    self._is_away = False
                    self._say("Redis is back", redis=self.name)
                return answer
            self.gaps += 1
            if not self._is_away:
                self._is_away = True
                self._say("Redis is away: waiting for it", redis=self.name, error=_brief(cause))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def delete(self, pattern: str) -> None:
        """Delete all keys that match a pattern."""
        async for key in self._client.scan_iter(match=pattern, count=1000):
            await self.ask("UNLINK", key)


class _Pulse(threading.Thread):
    """Sends one command over and over; what becomes of it is found out by those who wait for answers."""

    def __init__(self, connect: Callable[[], Any], command: tuple[Any, ...], pause_s: float) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._connect = connect
        self._command = command
        self._pause_s = pause_s
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Send no more; does not wait for an answer under way."""
        self._stopped.set()

    def run(self) -> None:
        """Send until stopped, on a connection of its own."""
        client: Any = None
        while not self._stopped.wait(self._pause_s):
            try:
                client = client or self._connect()
                client.execute_command(*self._command)
            except Exception:  # redis-py's own errors, and some by mistake: see _is_of_redis_py
                continue
        if client is not None:
            client.close()


_SCRIPTS = ("bucket", "crew")
_ODD = "an option behind the ? of the address is unknown here, or has no such value"


def _check(name: str, info: Mapping[str, Any]) -> None:
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise UsageError(f"{name} is Redis {version}; at least {'.'.join(map(str, OLDEST))} is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        raise UsageError(
            f"{name} throws keys away when it is full (maxmemory-policy {policy}), and would lose pages: "
            "set maxmemory-policy to noeviction"
        )


def _is_of_redis_py(error: BaseException) -> bool:
    """Whether an error came up below redis-py: where a connection is closed while it is being written to, or a node of a
    Cluster goes, it stumbles over its own None (redis/redis-py issues 3835 and 4287), or uvloop over the closed transport.
    """
    frame = error.__traceback__
    while frame is not None and not str(frame.tb_frame.f_globals.get("__name__")).startswith("redis."):
        frame = frame.tb_next
    return frame is not None


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
