"""Whether a worker that ran on this machine still does: so that a restarted one need not wait for its former self.

A process number alone says little: it may have been given to another process since, or count in another container. So a
worker tells where it counts (the machine's boot and the namespace of process numbers, see pid_namespaces(7)) and when it
began (field 22 of proc_pid_stat(5)). Where the system has no /proc nothing can be said.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def own_place() -> list[Any]:
    """Return what is to be known of this process: where its number counts, the number, and when it began; or nothing."""
    where = _where()
    return [where, os.getpid(), _began(os.getpid())] if where else []


def runs_here(about: Mapping[str, Any]) -> bool | None:
    """Whether the process that said this of itself still runs; None where it cannot be seen from here."""
    place = about.get("place")
    if not place or place[0] != _where():
        return None
    return bool(_began(place[1]) == place[2])


def _where() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Return when a process began, empty where there is none: a zombie runs no more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
