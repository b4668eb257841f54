"""Limits of control groups, in trees of files like those of the kernel."""

from pathlib import Path

import pytest

from mbbench.errors import UsageError
from mbbench.machine import available_memory_bytes, fingerprint, pick_cpus
from mbbench.machine.kernel import cpu_quota, throttle_count

from .trees import tree


@pytest.mark.parametrize(
    ("name", "text", "quota"),
    [
        ("sys__fs__cgroup__cpu.max", "150000 100000\n", 1.5),
        ("sys__fs__cgroup__cpu.max", "max 100000\n", None),
        ("nothing", "", None),
    ],
)
def test_the_cpu_quota_of_cgroup_v2_is_in_cores(tmp_path: Path, name: str, text: str, quota: float | None) -> None:
    assert cpu_quota(tree(tmp_path, **{name: text})) == quota


@pytest.mark.parametrize(("microseconds", "quota"), [("200000", 2.0), ("-1", None)])
def test_the_cpu_quota_of_cgroup_v1_is_in_cores(tmp_path: Path, microseconds: str, quota: float | None) -> None:
    folder = "sys__fs__cgroup__cpu__cpu.cfs_"
    files = {f"{folder}quota_us": microseconds, f"{folder}period_us": "100000"}
    assert cpu_quota(tree(tmp_path, **files)) == quota


V2_MOUNT = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def cgroup_v2(root: Path, group: str, limits: dict[str, str]) -> Path:
    """Write the /proc and /sys of a process in `group` of cgroup v2; `limits`: group -> its cpu.max."""
    write(root / "proc/self/cgroup", f"0::{group}\n")
    write(root / "proc/self/mountinfo", V2_MOUNT)
    for name, text in limits.items():
        write(root / f"sys/fs/cgroup{name}/cpu.max", text)
    return root


@pytest.mark.parametrize(
    ("limits", "quota"),
    [
        ({"/ci.slice/job.service": "50000 100000"}, 0.5),
        ({"/ci.slice": "150000 100000", "/ci.slice/job.service": "max 100000"}, 1.5),
        ({"/ci.slice": "100000 100000", "/ci.slice/job.service": "200000 100000"}, 1.0),
        ({"": "100000 200000", "/ci.slice": "max 100000"}, 0.5),
        ({"/other.slice": "10000 100000"}, None),
    ],
    ids=["own group", "group around it", "tightest", "mounted group", "another group"],
)
def test_the_tightest_limit_of_the_groups_around_a_process_holds(
    tmp_path: Path, limits: dict[str, str], quota: float | None
) -> None:
    root = cgroup_v2(tmp_path, "/ci.slice/job.service", limits)
    assert cpu_quota(root) == quota
    assert fingerprint(root).cgroup_cpu_quota == quota


@pytest.mark.parametrize(("mounted", "group"), [("/", "docker/job"), ("/docker/job", ""), ("/docker", "job")])
def test_the_group_of_cgroup_v1_is_sought_below_the_mounted_group(tmp_path: Path, mounted: str, group: str) -> None:
    write(tmp_path / "proc/self/cgroup", "5:cpuset:/\n3:cpu,cpuacct:/docker/job\n0::/\n")
    write(tmp_path / "proc/self/mountinfo", V1_MOUNTS.format(mounted=mounted))
    folder = tmp_path / "sys/fs/cgroup/cpu,cpuacct" / group
    write(folder / "cpu.cfs_quota_us", "25000\n")
    write(folder / "cpu.cfs_period_us", "100000\n")
    write(folder / "cpu.stat", "nr_periods 9\nnr_throttled 4\n")
    assert (cpu_quota(tmp_path), throttle_count(tmp_path)) == (0.25, 4)


@pytest.mark.parametrize("path", ["/../other", "/elsewhere"])
def test_a_group_outside_the_mounted_hierarchy_leaves_the_mounted_group(tmp_path: Path, path: str) -> None:
    write(tmp_path / "proc/self/cgroup", f"0::{path}\n")
    write(tmp_path / "proc/self/mountinfo", V2_MOUNT.replace(" / /sys", " /pod /sys"))
    write(tmp_path / "sys/fs/cgroup/cpu.max", "20000 100000")
    assert cpu_quota(tmp_path) == 0.2


def test_a_hierarchy_that_is_mounted_twice_counts_once(tmp_path: Path) -> None:
    root = cgroup_v2(tmp_path, "/job", {"/job": "max 100000"})
    others = V2_MOUNT.replace("/sys/fs/cgroup", "/run/cgroup2") + V2_MOUNT.replace(" / /sys/fs", " /pod /run/pod")
    write(root / "proc/self/mountinfo", others + V2_MOUNT)
    for folder in ("sys/fs/cgroup/job", "run/cgroup2/job", "run/pod/cgroup"):
        write(root / folder / "cpu.stat", "nr_throttled 7\n")
    write(root / "run/pod/cgroup/cpu.max", "10000 100000")
    assert (cpu_quota(root), throttle_count(root)) == (None, 7)


def test_throttled_periods_are_added_over_the_groups_around_a_process(tmp_path: Path) -> None:
    root = cgroup_v2(tmp_path, "/a/b", {})
    assert throttle_count(root) is None
    write(root / "sys/fs/cgroup/a/cpu.stat", "usage_usec 5\nnr_throttled 7\n")
    write(root / "sys/fs/cgroup/a/b/cpu.stat", "nr_throttled 2\n")
    assert throttle_count(root) == 9


_MEMINFO = "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable:  5000 kB\n"


@pytest.mark.parametrize(
    ("files", "kilobytes"),
    [
        ({}, 5000),
        ({"memory.max": "max\n", "memory.current": "4096000\n"}, 5000),
        ({"memory.max": "4096000\n", "memory.current": "1024000\n", "memory.stat": "inactive_file 512000\n"}, 3500),
        ({"memory.max": "4096000\n", "memory.current": "4097000\n", "memory.stat": ""}, 0),
        ({"memory.max": "2048000", "memory.current": "2048000", "memory.stat": "anon 1\nactive_file 1024000\n"}, 1000),
        ({"memory/memory.limit_in_bytes": "2048000", "memory/memory.usage_in_bytes": "1024000"}, 1000),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712",
                "memory/memory.usage_in_bytes": "1024000",
                "memory/memory.stat": "total_inactive_file 0\n",
            },
            5000,
        ),
    ],
)  # fmt: skip
def test_available_memory_is_within_the_limit_of_the_cgroup(
    tmp_path: Path, files: dict[str, str], kilobytes: int
) -> None:
    root = tree(tmp_path, proc__meminfo=_MEMINFO)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert available_memory_bytes(root) == kilobytes * 1024


@pytest.mark.parametrize(
    ("limit", "threads", "remedy"),
    [("150000", 2, "give at most 1,"), ("50000", 2, "give at most 1,"), ("250000", 3, "give at most 2,")],
)
def test_more_threads_than_the_cpu_limit_holds_are_refused(
    tmp_path: Path, limit: str, threads: int, remedy: str
) -> None:
    root = cgroup_v2(tmp_path, "/job", {"/job": f"{limit} 100000"})
    with pytest.raises(UsageError, match=f"CPU limit, .* cores: {threads}; {remedy}"):
        pick_cpus(threads, root, frozenset(range(4)))


@pytest.mark.parametrize(("limit", "threads"), [("10000", 1), ("200000", 2), ("max", 4)])
def test_threads_within_the_cpu_limit_are_accepted(tmp_path: Path, limit: str, threads: int) -> None:
    root = cgroup_v2(tmp_path, "/job", {"/job": f"{limit} 100000"})
    assert len(pick_cpus(threads, root, frozenset(range(4)))) == threads
