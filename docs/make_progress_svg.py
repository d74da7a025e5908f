"""Make docs/progress.svg: run the demo crawl on a pseudo-terminal and draw what it showed.

    python docs/make_progress_svg.py

The first line of the picture is what is typed, the second the live progress as it stood in the middle of the run, the
rest the summary, which takes the progress's place when the run ends.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COMMAND = "scrape run books --demo -O books.jsonl"
ROOT = Path(__file__).parent.parent
ROWS, COLUMNS = 24, 104
FRAME = re.compile(r"\r?\x1b\[2K|\n|\r")  # what separates one drawing of the live line from the next
THEME = TerminalTheme(
    (24, 29, 35),
    (208, 214, 220),
    [(24, 29, 35), (224, 108, 117), (126, 192, 120), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194)],
    [(92, 99, 112), (224, 108, 117), (126, 192, 120), (229, 192, 123), (97, 175, 239), (198, 120, 221), (86, 182, 194)],
)


def shown_by(command: list[str]) -> str:
    """Run a command on a terminal of its own and return all that it wrote there."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
        os.execvp(command[0], command)
    blocks = []
    try:
        while block := os.read(terminal, 65536):
            blocks.append(block)
    except OSError:  # Linux's word for the end of a terminal
        pass
    if os.waitpid(pid, 0)[1]:
        sys.exit(b"".join(blocks).decode())
    return b"".join(blocks).decode().replace("\r\n", "\n")


def main() -> None:
    """Write the picture."""
    with TemporaryDirectory() as folder:
        options = ["-m", "scraper", "run", str(ROOT / "spiders" / "books.py"), "--demo", "-O", "books.jsonl"]
        os.chdir(folder)
        written = shown_by([sys.executable, *options])
    frames = [frame for frame in FRAME.split(written) if "pages/s" in frame and "hosts" in frame]
    summary = written[written.rindex("books: finished") :]
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text.assemble(("$ ", "dim"), (COMMAND, "bold")))
    console.print(Text.from_ansi(frames[len(frames) // 2]))
    console.print()
    console.print(Text.from_ansi(summary))
    console.save_svg(str(ROOT / "docs" / "progress.svg"), title="scrape run", theme=THEME)


if __name__ == "__main__":
    main()
