"""Log lines: which are shown, how they look, and that nothing in them can steer a terminal or tell a password."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from scraper import Request
from scraper.log import BOUNDS, Log, RefusalLog, current_request, safe


def lines_of(*calls: tuple[str, str, dict[str, Any]], level: str = "info", style: str = "console") -> list[str]:
    """Log (method, message, values) each, and return the lines."""
    lines: list[str] = []
    log = Log(level, style, lines.append)
    for method, message, values in calls:
        getattr(log, method)(message, **values)
    return lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain “ünï” 中 🙂", "plain “ünï” 中 🙂"),
        ("a\nb", "a\\nb"),
        ("a\r\tb", "a\\r\\tb"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
        ("\x85\x9b", "\\x85\\x9b"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\u202egnp.exe\u202c", "\\u202egnp.exe\\u202c"),
        ("\u2066x\u2069\u200f\u200e", "\\u2066x\\u2069\\u200f\\u200e"),
        ("http://user:secret@host/x", "http://user:***@host/x"),
        ("http://:secret@host/", "http://:***@host/"),
        ("via http://u:p@h:1 and https://v:q@i:2/", "via http://u:***@h:1 and https://v:***@i:2/"),
        ("http://u:p@ss@host/", "http://u:***@host/"),
        ("http://user@host/x:y@z", "http://user@host/x:y@z"),
        ("http://host:80/@x", "http://host:80/@x"),
        ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
        ("'http://u:p@h/' 'http://i:80/'", "'http://u:***@h/' 'http://i:80/'"),
    ],
)
def test_safe(text: str, shown: str) -> None:
    """Control and reordering characters are escaped, passwords in URLs hidden, and all else is left as it is."""
    assert safe(text) == shown


@pytest.mark.parametrize("style", ["console", "json"])
def test_nothing_unsafe_reaches_the_terminal(style: str) -> None:
    """Message, values, keys of mappings, items of lists and other objects are all made safe."""
    nasty = "\x1b[2J\u202e http://u:secret@h/"
    values = {"a": nasty, "b": [nasty, {nasty: nasty}], "c": ValueError(nasty), "d": nasty.encode(), "e": (nasty,)}
    (line,) = lines_of(("info", nasty, values), style=style)
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert "secret" not in line
    assert line.count("u:***@h") == 8


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(level: str, shown: list[str]) -> None:
    """Lines below the level are not written."""
    lines = lines_of(*((name, name, {}) for name in ("debug", "info", "warning", "error")), level=level)
    assert [line.split()[-1] for line in lines] == shown
    assert [line.split()[1] for line in lines] == shown


def test_a_console_line() -> None:
    """A line is the time of day, the level, the text and the values."""
    (line,) = lines_of(("info", "page saved", {"n": 3, "name": "x"}))
    assert line[2] == line[5] == ":"
    assert line[8:] == " info    page saved  n=3  name=x"


def test_a_json_line() -> None:
    """In the JSON style a line is one object, values keep their types, and text its characters."""
    (line,) = lines_of(("warning", "späť", {"n": 3, "x": None, "l": [1, {"a": True}], "o": {1}}), style="json")
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {"level": "warning", "event": "späť", "n": 3, "x": None, "l": [1, {"a": True}], "o": "{1}"}
    assert "späť" in line


def test_positional_formatting() -> None:
    """log.info("text %s", value) formats as logging does; a percent sign alone needs no escaping."""
    lines: list[str] = []
    log = Log(write=lines.append)
    log.info("%s of %d: %r", "one", 2, "x\n")
    log.info("100% sure")
    log.warning("from %s", "http://u:secret@h/")
    assert [line[17:] for line in lines] == ["one of 2: 'x\\n'", "100% sure", "from http://u:***@h/"]


@pytest.mark.parametrize(
    ("message", "args", "shown"),
    [
        ("%d items", (None,), "%d items  args=[None]"),
        ("/a%20b %s", ("x",), "/a%20b %s  args=['x']"),
        ("got %s", (1, 2), "got %s  args=[1, 2]"),
        (5, ("x",), "5  args=['x']"),
    ],
)
def test_a_text_that_does_not_fit_its_arguments(message: Any, args: tuple[Any, ...], shown: str) -> None:
    """It is written with them, and raises nothing into the callback: the page would be lost."""
    lines: list[str] = []
    Log("info", "console", lines.append).info(message, *args)
    assert lines[0].endswith(f"info    {shown}")


def test_a_value_called_event() -> None:
    """The text is called so by structlog; a value of that name is no error."""
    assert lines_of(("info", "seen", {"event": "concert"}))[0].endswith("seen  event_=concert")


def test_calling_the_log() -> None:
    """log("text") logs at debug level, as older spiders do; a level is given by name or number."""
    lines: list[str] = []
    log = Log("debug", write=lines.append)
    log("quiet", n=1)
    log("loud", "ERROR")
    log("middle", logging.WARNING)
    assert [line[9:] for line in lines] == ["debug   quiet  n=1", "error   loud", "warning middle"]


def test_bound_values() -> None:
    """A bound logger's lines carry its values; the one it came from stays as it was."""
    lines: list[str] = []
    log = Log(write=lines.append, spider="s")
    log.bind(n=1).info("x")
    log.info("y")
    assert [line[17:] for line in lines] == ["x  spider=s  n=1", "y  spider=s"]


def test_lines_in_a_callback_name_the_request() -> None:
    """While a callback runs, each line carries its request's URL, without the password in it."""
    lines: list[str] = []
    log = Log(write=lines.append)
    token = current_request.set(Request("http://u:secret@a/x"))
    try:
        log.info("inside")
    finally:
        current_request.reset(token)
    log.info("outside")
    assert [line[17:] for line in lines] == ["inside  url=http://u:***@a/x", "outside"]


def fail() -> None:
    """Raise from a frame of this file."""
    raise ValueError("http://u:secret@h/ \x1b[2J")


@pytest.mark.parametrize("how", ["exception", "exc_info"])
def test_tracebacks(how: str) -> None:
    """An exception's own frames and its text follow the line, indented and made safe."""
    lines: list[str] = []
    log = Log(write=lines.append)
    try:
        fail()
    except ValueError as error:
        if how == "exception":
            log.exception("oh")
        else:
            log.error("oh", exc_info=error)
    first, *trace = lines[0].split("\n")
    assert first.endswith("error   oh")
    assert all(row.startswith("    ") for row in trace)
    assert "in fail" in lines[0]
    assert trace[-1] == "    ValueError: http://u:***@h/ \\x1b[2J"


def test_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines go to standard error, and nothing to standard output."""
    Log().info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("info    hello\n")


def test_what_is_left_alone_is_logged_once_for_a_host_and_cause() -> None:
    """The line names the bound; further links of the host say nothing; links to other sites are for the debug level."""
    lines: list[str] = []
    refusals = RefusalLog(Log("info", "json", lines.append))
    for host in ("a", "b"):
        for number in range(50):
            for cause in BOUNDS:
                refusals.log(Request(f"http://{host}/{number}"), cause)
    found = [json.loads(line) for line in lines]
    assert len(found) == 2 * (len(BOUNDS) - 1)
    assert {(line["host"], line["cause"], line["first"]) for line in found} == {
        (host, cause, f"http://{host}/0") for host in ("a", "b") for cause in BOUNDS if cause != "offsite"
    }
    assert next(line["bound"] for line in found if line["cause"] == "queries") == "crawl.max_queries_per_path"


def test_a_million_hosts_left_alone_do_not_fill_the_log() -> None:
    """Past 10,000 hosts and causes nothing more is logged, nor kept."""
    lines: list[str] = []
    refusals = RefusalLog(Log("info", "json", lines.append))
    for number in range(10_050):
        refusals.log(Request.link(f"http://h{number}/"), "depth")
    assert len(lines) == 10_000


def test_a_line_that_is_not_shown_imports_nothing() -> None:
    """What is below the level is passed over before structlog is imported; the first line to be seen imports it."""
    program = """
import sys
from scraper.log import Log
log = Log("warning")
log.debug("hidden", url="http://127.0.0.1/")
log.info("hidden")
log("hidden")
print("structlog" in sys.modules)
log.warning("shown")
print("structlog" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert done.stderr[9:] == "warning shown\n"


@pytest.mark.parametrize("style", ["console", "json"])
def test_what_is_no_text(style: str) -> None:
    """``log.info(response.css("h9").get())`` says "None"; what has no text says so; a lone surrogate is escaped."""

    class Wordless:
        def __str__(self) -> str:
            raise ValueError("no")

    none, wordless, lone = lines_of(
        ("info", None, {}),
        ("info", "a", {"value": Wordless()}),
        ("info", "\ud800", {}),
        style=style,  # type: ignore[arg-type]
    )
    assert "None" in none
    assert "<Wordless, whose text raises ValueError>" in wordless
    lone.encode()
