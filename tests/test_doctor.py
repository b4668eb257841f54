import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mbbench.doctor import Check, Snapshot, judge, snapshot
from mbbench.machine import Machine
from mbbench.result import Result

QUIET = Snapshot(
    time_s=0.0,
    busy_ticks=1000,
    total_ticks=4000,
    steal_ticks=0,
    own_ticks=100,
    process_ticks={"7 builder": 10},
    throttled=0,
    thermal_throttles=0,
    clock_mhz=3000.0,
    governors=("performance",),
    boost="off",
    smt=False,
    memory_available_bytes=12 * 10**9,
    swap_used_bytes=0,
    gpu_processes=(),
)
# 1 s of 4 CPUs later; all 100 busy ticks are the measuring process's.
LATER = replace(QUIET, time_s=1.0, busy_ticks=1100, total_ticks=4400, own_ticks=200)


@pytest.fixture
def machine(make_result: Callable[..., Result]) -> Machine:
    return make_result().machine


def check_named(name: str, machine: Machine, before: Snapshot = QUIET, after: Snapshot = LATER) -> Check:
    return next(check for check in judge(machine, before, after) if check.name == name)


def test_a_quiet_machine_has_no_warnings(machine: Machine) -> None:
    assert [check.status for check in judge(machine, QUIET, LATER)] == ["ok"] * 10


def test_load_counts_other_processes_and_names_them(machine: Machine) -> None:
    after = replace(LATER, busy_ticks=1150, process_ticks={"7 builder": 55, "8 idle": 0})
    check = check_named("load", machine, after=after)
    assert (check.status, check.found) == ("warn", "other processes use 0.50 of 4 cores")
    assert check.remedy == "stop builder, or measure when the machine is idle"


def test_load_excludes_the_measuring_process(machine: Machine) -> None:
    after = replace(LATER, busy_ticks=1400, own_ticks=500)
    assert check_named("load", machine, after=after).found == "other processes use 0.00 of 4 cores"


def test_steal_is_a_share_of_the_cpu_time(machine: Machine) -> None:
    check = check_named("steal", machine, after=replace(LATER, steal_ticks=20))
    assert (check.status, check.found) == ("warn", "the hypervisor took 5.0% of the CPU time")


@pytest.mark.parametrize(
    ("name", "change", "observation", "remedy"),
    [
        ("governor", {"governors": ("powersave",)}, "powersave", "cpupower frequency-set -g performance"),
        ("turbo", {"boost": "on"}, "on: clock rates depend", "no_turbo"),
        ("clock rate", {"clock_mhz": 2000.0}, "3.00 GHz before, 2.00 GHz after", "cool down"),
        ("heat", {"thermal_throttles": 3}, "throttled 3 times because of heat", "cool down"),
        ("SMT", {"smt": True}, "on: another thread", "smt/control"),
        ("memory", {"memory_available_bytes": 10**9}, "1.0 GB available", "free memory"),
        ("memory", {"swap_used_bytes": 2 * 10**9}, "12.0 GB available, 2.0 GB swapped out", "swapoff"),
    ],
)
def test_each_warning_has_a_value_and_a_remedy(
    machine: Machine, name: str, change: dict[str, object], observation: str, remedy: str
) -> None:
    check = check_named(name, machine, after=replace(LATER, **change))  # type: ignore[arg-type]
    assert check.status == "warn"
    assert check.found.startswith(observation)
    assert check.remedy is not None and remedy in check.remedy


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("governor", {"governors": ()}),
        ("turbo", {"boost": None}),
        ("heat", {"thermal_throttles": None}),
        ("clock rate", {"clock_mhz": None}),
        ("SMT", {"smt": None}),
        ("memory", {"memory_available_bytes": None}),
        ("load", {"total_ticks": QUIET.total_ticks}),
    ],
)
def test_a_counter_the_kernel_does_not_show_is_unknown_and_not_a_warning(
    machine: Machine, name: str, change: dict[str, object]
) -> None:
    assert check_named(name, machine, after=replace(LATER, **change)).status == "unknown"  # type: ignore[arg-type]


def test_quota_throttling_is_counted_between_the_snapshots(machine: Machine) -> None:
    limited = replace(machine, cgroup_cpu_quota=1.5)
    assert check_named("cgroup quota", limited).status == "ok"
    check = check_named("cgroup quota", limited, after=replace(LATER, throttled=4))
    assert (check.status, check.found) == ("warn", "a quota of 1.5 cores, throttled 4 times")
    once = check_named("cgroup quota", limited, after=replace(LATER, throttled=1))
    assert once.found == "a quota of 1.5 cores, throttled 1 time"
    assert once.remedy == "lift the CPU limit of the container or service, or use fewer --threads"


def test_quota_throttling_names_the_phases_it_fell_into(machine: Machine) -> None:
    limited = replace(machine, cgroup_cpu_quota=0.5)
    after = replace(LATER, throttled=12)
    checks = judge(limited, QUIET, after, {"latency": 9, "throughput": 2, "audit": 0})
    check = next(check for check in checks if check.name == "cgroup quota")
    assert check.found == "a quota of 0.5 cores, throttled 12 times (9 in latency, 2 in throughput)"
    assert check.remedy == "lift the CPU limit of the container or service"


def test_an_unknown_number_of_throttled_periods_is_not_shown_as_0(machine: Machine) -> None:
    limited = replace(machine, cgroup_cpu_quota=1.5)
    check = check_named("cgroup quota", limited, after=replace(LATER, throttled=None))
    expected = "a quota of 1.5 cores; the kernel does not count throttling"
    assert (check.status, check.found) == ("unknown", expected)


def test_a_virtual_machine_and_a_shared_gpu_are_warnings(machine: Machine) -> None:
    assert check_named("virtual machine", replace(machine, hypervisor="KVM")).status == "warn"
    with_gpu = replace(machine, gpus=("NVIDIA X",))
    check = check_named("GPU users", with_gpu, after=replace(LATER, gpu_processes=("12, python",)))
    assert (check.status, check.found) == ("warn", "1 process computes on the GPU: 12, python")


def test_a_snapshot_reads_the_kernels_counters(tmp_path: Path) -> None:
    files = {
        "proc/stat": "cpu  100 5 50 1000 20 1 2 7 0 0\ncpu0 1 2 3\n",
        "proc/meminfo": "MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapTotal: 100 kB\nSwapFree: 40 kB\n",
        "proc/12/stat": "12 (a (b) c) S 1 1 1 0 -1 4 0 0 0 0 30 12 1 2 20 0 1 0\n",
        "proc/13/stat": "13 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 9 9 0 0 20 0 1 0\n",
        f"proc/{os.getpid()}/stat": f"{os.getpid()} (me) S 1 1 1 0 -1 4 0 0 0 0 3 4 5 6 20 0 1 0\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 9\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "3\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
        "sys/devices/system/cpu/smt/active": "1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    counters = snapshot(tmp_path)
    assert replace(counters, time_s=0.0, gpu_processes=()) == Snapshot(
        time_s=0.0,
        busy_ticks=165,
        total_ticks=1185,
        steal_ticks=7,
        own_ticks=18,
        process_ticks={"12 a (b) c": 42},
        throttled=9,
        thermal_throttles=5,
        clock_mhz=2400.0,
        governors=("powersave",),
        boost="off",
        smt=True,
        memory_available_bytes=512_000,
        swap_used_bytes=61_440,
        gpu_processes=(),
    )


def write_process(root: Path, pid: int, name: str, parent: int, ticks: int) -> None:
    path = root / f"proc/{pid}/stat"
    path.parent.mkdir(parents=True)
    path.write_text(f"{pid} ({name}) S {parent} 1 1 0 -1 4 0 0 0 0 {ticks} 0 0 0 20 0 1 0\n")


def test_only_processes_that_this_user_can_stop_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.getpid()
    write_process(tmp_path, 1, "init", 0, 50)
    write_process(tmp_path, 20, "make", 1, 5)
    write_process(tmp_path, mine, "mbbench", 20, 100)
    write_process(tmp_path, mine + 1, "python", mine, 10)
    write_process(tmp_path, mine + 2, "helper", mine + 1, 1)
    write_process(tmp_path, mine + 3, "compiler", 20, 7)
    counters = snapshot(tmp_path)
    assert counters.own_ticks == 111
    assert counters.process_ticks == {f"{mine + 3} compiler": 7}
    monkeypatch.setattr(os, "getuid", lambda: (tmp_path / "proc/1").stat().st_uid + 1)
    assert snapshot(tmp_path).process_ticks == {}
