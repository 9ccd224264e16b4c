"""Who works on a trial, and whether that process is still there: known at once on the machine it runs on."""

from __future__ import annotations

import os
from pathlib import Path

_ENDED = ("Z", "X")  # a zombie has ended, though its parent has not asked for its exit code yet


def this_worker() -> str:
    """This process, told apart from any other of any machine; '' where there is no /proc (macOS, Windows).

    The boot's id and the namespace of process ids say on which machine or in which container a process number counts;
    the start time says that the number is not somebody else's by now.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {os.getpid()} {_started(os.getpid())}"
    except OSError:
        return ""


def has_ended(worker: str) -> bool:
    """Whether the process that called itself `worker` is known to have ended. False: it runs, or cannot be seen from here."""
    own, parts = this_worker().split(" "), worker.split(" ")
    if len(own) != 4 or len(parts) != 4 or own[:2] != parts[:2]:
        return False
    try:
        return _started(int(parts[2])) != parts[3]
    except (OSError, ValueError):
        return True


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot; '' for one that has ended. OSError: there is none."""
    # The command's name comes in brackets and may hold anything; after it follow the state (field 3) and the rest.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return "" if fields[0] in _ENDED else fields[19]
