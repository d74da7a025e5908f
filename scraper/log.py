"""Log lines through structlog: no global configuration, one logger a run, safe to show on a terminal.

structlog is imported with the first line that is to be seen, not before: a short run may never need it.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from scraper.errors import text_of
from scraper.urls import MAX_URL_LENGTH

if TYPE_CHECKING:
    from scraper.http import Request

current_request: ContextVar[Request | None] = ContextVar("current_request", default=None)
"""The request whose callback runs in this context."""

# C0, DEL, C1, line separators, and the marks that reorder text (Unicode TR 36): a page's words must not steer a terminal.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_BY_TEN = ("debug", "info", "warning", "error", "critical")
_PASSWORD = re.compile(r"(?<=://)([^/@\s:]*):[^/\s\"']+@")


def to_stderr(line: str) -> None:
    """Write one line to standard error. Where nobody reads it any more (``2>&1 | head``), the run goes on without."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


class Log:
    """A run's logger: ``log.info("text %s", value, key=value)``, and debug, warning, error, exception likewise.

    Inside a callback each line carries the URL of its request. Calling it, ``log("text")``, logs at debug level.
    """

    def __init__(
        self, level: str = "info", style: str = "console", write: Callable[[str], None] = to_stderr, **bound: Any
    ) -> None:
        self._level = level
        self._style = style
        self._write = write
        self._bound = bound
        self._logger: Any = None

    @property
    def level(self) -> int:
        """The least level that is logged, as a number of the ``logging`` module's."""
        return _LEVELS[self._level]

    def __call__(self, message: str, level: int | str = "debug", **values: Any) -> None:
        name = level if isinstance(level, str) else logging.getLevelName(level)
        getattr(self, name.lower())(message, **values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if _LEVELS.get(name, logging.CRITICAL) < _LEVELS[self._level]:
            return _pass_over
        if self._logger is None:
            self._logger = _make_logger(self._level, self._style, self._write).bind(**self._bound)
        request = current_request.get()
        write = getattr(self._logger if request is None else self._logger.bind(url=request.url), name)
        return partial(_say, write) if name in _LEVELS or name == "exception" else write

    def bind(self, **values: Any) -> Log:
        """Return a logger whose lines carry these values too."""
        return Log(self._level, self._style, self._write, **{**self._bound, **values})


def _say(write: Callable[..., Any], message: Any, /, *args: Any, **values: Any) -> None:
    """Write a line. One whose text does not fit its arguments is written all the same: no page is lost for a line."""
    if args:
        try:
            message = message % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) else args)
        except Exception:
            values["args"] = args
    if "event" in values:  # structlog's own name for the text
        values["event_"] = values.pop("event")
    write(message, **values)


def take_over(log: Log) -> None:
    """Have the lines of Python's own ``logging`` be lines of this log, unless the user's code has configured that already."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_Forward(log))
        root.setLevel(log.level)
        for name in ("httpx", "httpcore"):  # which tell of each request
            logging.getLogger(name).setLevel(logging.WARNING)


class _Forward(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # it does not fit its arguments
            message = f"{record.msg} {record.args}"
        name = _BY_TEN[min(max(record.levelno // 10, 1), 5) - 1]
        values = {"exc_info": record.exc_info} if record.exc_info else {}
        getattr(self._log, name)(message, logger=record.name, **values)


def _pass_over(*_: Any, **__: Any) -> None:
    """Take a line below the level that is logged."""


class FailureLog:
    """Logs a host's first failures of a kind, then the tenth, the hundredth …: a dead host must not flood the log."""

    _FIRST = 5
    _MAX_KINDS = 10_000

    def __init__(self, log: Log) -> None:
        self._log = log
        self._counts: dict[tuple[str, str], int] = {}

    def log(self, request: Request, error: Exception) -> None:
        """Log that a request failed, or only count it. A start request that fails is an error, the others are warnings."""
        kind = (request.host, type(error).__name__)
        if len(self._counts) > self._MAX_KINDS:
            self._counts.clear()
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        say = self._log.error if request.is_start else self._log.warning
        if count <= self._FIRST:
            say("request failed", error=text_of(error), retries=request.retries)
        elif count == 10 ** (len(str(count)) - 1):
            say("requests failed", host=request.host, error=kind[1], times=count, last=request.url)


BOUNDS = {
    "offsite": "allowed_domains",
    "depth": "crawl.max_depth",
    "length": f"{MAX_URL_LENGTH} characters",
    "path-repeat": "crawl.max_path_repeats",
    "pages-per-host": "crawl.max_pages_per_host",
    "queries": "crawl.max_queries_per_path",
}
"""What bounds a crawl, by the cause for which a request is left alone."""


class RefusalLog:
    """Logs the first request of a host that is left alone for some cause, not one line for each of a trap's many links."""

    _MAX_KINDS = 10_000

    def __init__(self, log: Log) -> None:
        self._log = log
        self._kinds: set[tuple[str, str]] = set()

    def log(self, request: Request, cause: str) -> None:
        """Log that a request is left alone; nothing where its host was named for this cause, or 10,000 others were."""
        kind = (request.host, cause)
        if kind in self._kinds or len(self._kinds) >= self._MAX_KINDS:
            return
        self._kinds.add(kind)
        # That pages link to other sites is the usual case.
        say = self._log.debug if cause == "offsite" else self._log.info
        say("requests left alone", host=request.host, cause=cause, bound=BOUNDS[cause], first=request.url[:200])


def safe(text: str) -> str:
    """Return ``text`` with control and reordering characters escaped and passwords in URLs hidden."""
    return _PASSWORD.sub(r"\1:***@", _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text))


def _make_logger(level: str, style: str, write: Callable[[str], None]) -> Any:
    import structlog

    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=style == "json"),
        _split_traceback,
        _escape,
    ]
    if style == "json":
        processors.append(structlog.processors.JSONRenderer(ensure_ascii=False))
    else:
        processors.append(_render_line)
    return structlog.wrap_logger(
        _Writer(write),
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )


class _Writer:
    """What structlog calls with the finished line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write


def _split_traceback(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn ``exc_info`` into text, from the user's own frames on: the framework's are noise to them."""
    event.setdefault("event", "None")  # structlog leaves it out, as of log.info(response.css("h9").get())
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        import traceback

        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_HOME)]
        lines = traceback.format_list(own) + traceback.format_exception_only(error)
        event["traceback"] = "".join(lines).rstrip()
    return event


_HOME = __file__.rpartition("/")[0] + "/"


def _escape(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = "\n".join(map(safe, value.split("\n"))) if key == "traceback" else _safe_value(value)
    return event


def _safe_value(value: Any) -> Any:
    if isinstance(value, (int, float, type(None))):
        return value
    if isinstance(value, dict):
        return {safe(text_of(key)): _safe_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe_value(inner) for inner in value]
    return safe(text_of(value))


def _render_line(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    stamp, level, text = event.pop("timestamp")[11:19], event.pop("level"), event.pop("event")
    trace = event.pop("traceback", None)
    values = "".join(f"  {key}={value}" for key, value in event.items())
    line = f"{stamp} {level:<7} {text}{values}"
    return line if trace is None else line + "\n" + "\n".join("    " + row for row in trace.split("\n"))
