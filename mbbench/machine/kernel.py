"""What the kernel shows of this process: text files, and the limits of the control groups that it is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal


def read_text(path: Path) -> str:
    """Return the file's text, or "" if it cannot be read: kernels and containers differ in what they show."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the tightest CPU limit of this process's control groups in cores, or None.

    A group's limit is v2's cpu.max or v1's CFS quota. The limits of the groups around it hold too.
    """
    limits = (_cpu_limit(folder) for folder in _groups(root, "cpu"))
    return min((limit for limit in limits if limit is not None), default=None)


def throttle_count(root: Path = Path("/")) -> int | None:
    """Return in how many periods a CPU limit stopped this process's control groups; None if the kernel does not count.

    A group counts only the periods in which its own limit was the one that held, so the counts are added.
    """
    counts = [_entry(folder / "cpu.stat", "nr_throttled") for folder in _groups(root, "cpu")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def memory_left_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory the limits of this process's control groups leave; None without a limit.

    The cache of files is not counted as used: the kernel reclaims it.
    """
    left = []
    for folder in _groups(root, "memory"):
        for limit, usage, prefix in (
            ("memory.max", "memory.current", ""),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
        ):
            most, used = (read_text(folder / name).strip() for name in (limit, usage))
            if most.isdecimal() and used.isdecimal():
                names = (f"{prefix}inactive_file", f"{prefix}active_file")
                cached = sum(_entry(folder / "memory.stat", name) or 0 for name in names)
                left.append(int(most) - int(used) + cached)
    return max(min(left), 0) if left else None


def _entry(path: Path, name: str) -> int | None:
    """Return the number after `name` in a file of lines `name number`, or None."""
    lines = (line.split() for line in read_text(path).splitlines())
    return next((int(words[1]) for words in lines if words[:1] == [name]), None)


def _cpu_limit(folder: Path) -> float | None:
    """Return the CPU limit of one control group in cores, or None."""
    version2 = read_text(folder / "cpu.max").split()
    if len(version2) == 2:
        return None if version2[0] == "max" else int(version2[0]) / int(version2[1])
    quota, period = (read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _groups(root: Path, controller: Literal["cpu", "memory"]) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, up to where their hierarchy is mounted.

    A container may see the paths of its host in /proc/self/cgroup; what lies above the mount is cut off.
    """
    paths = {}  # controllers, "" for v2 -> the group's path
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    places: dict[str, tuple[Path, Path]] = {}  # hierarchy -> its mounted folder, and the process's folder in it
    for top, mounted, name in _hierarchies(root, controller):
        path = next((path for names, path in paths.items() if name in names.split(",")), mounted)
        if PurePosixPath(path).is_relative_to(mounted) and ".." not in path:
            places[name] = top, top / PurePosixPath(path).relative_to(mounted)
        else:  # another group's, if the hierarchy is mounted more than once
            places.setdefault(name, (top, top))
    for top, folder in places.values():
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def _hierarchies(root: Path, controller: str) -> Iterator[tuple[Path, str, str]]:
    """Yield the mounted hierarchies that may have the controller: folder, the group mounted there, name ("" for v2).

    Without a list of mounts the usual places are taken.
    """
    mounts = [line.split() for line in read_text(root / "proc/self/mountinfo").splitlines()]
    for fields in mounts:
        kind, options = fields[fields.index("-") + 1], set(fields[-1].split(","))
        if kind == "cgroup2" or (kind == "cgroup" and controller in options):
            yield root / fields[4].lstrip("/"), fields[3], "" if kind == "cgroup2" else controller
    if not mounts:
        yield root / "sys/fs/cgroup", "/", ""
        yield root / f"sys/fs/cgroup/{controller}", "/", controller
