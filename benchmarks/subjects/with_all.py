"""Run a command, and wait for all that it leaves behind, so that what they took is counted as this process's children's.

    python with_all.py COMMAND...

Shards are forked off a process that ends when they have, a little later than the command.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36  # Linux

if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
status = subprocess.run(sys.argv[1:], check=False).returncode
try:
    while True:
        os.wait()
except ChildProcessError:
    sys.exit(status)
