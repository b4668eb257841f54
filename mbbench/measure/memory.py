"""Resident memory as counted by the kernel, read between phases and never while timing."""

from __future__ import annotations

import sys
from pathlib import Path

from mbbench.result import Memory, Phase


def read(phase: Phase, status: Path = Path("/proc/self/status")) -> Memory | None:
    """Return this process's VmRSS and VmHWM in bytes, or None on systems other than Linux.

    VmHWM starts afresh with the process image, unlike getrusage's ru_maxrss, which a child inherits from its parent.
    """
    if sys.platform != "linux":
        return None
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    rss, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return Memory(phase=phase, rss_bytes=rss, peak_rss_bytes=peak)
