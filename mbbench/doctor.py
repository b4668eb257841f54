"""Checks whether a machine is fit for measuring, from its counters before and after. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Literal

from mbbench.machine import Machine, query_gpu_processes
from mbbench.machine.kernel import read_text, throttle_count
from mbbench.spec import Name, Text

_KERNEL_THREAD = 0x00200000  # the flag PF_KTHREAD in /proc/PID/stat
_MAX_OTHER_CORES = 0.10  # cores used by other processes; more moves a p99
_MAX_STEAL_SHARE = 0.01  # share of the CPU time that the hypervisor gives to other guests
_MAX_CLOCK_DROP = 0.05  # share by which the clock rate falls while measuring
_MIN_FREE_SHARE = 0.10  # available share of the memory
_NOT_COUNTED: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition of the machine: what was `found`, and the `remedy` if it needs one."""

    name: Name
    status: Literal["ok", "warn", "unknown"]
    found: Text
    remedy: Text | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Counters at one moment. Times are in clock ticks, summed over the CPUs; None: not shown by the kernel."""

    time_s: float
    busy_ticks: int
    total_ticks: int
    steal_ticks: int
    own_ticks: int  # of this process and its ended children
    process_ticks: dict[str, int]  # of the other processes, by `pid name`
    throttled: int | None  # by a control group's CPU limit
    thermal_throttles: int | None
    clock_mhz: float | None  # the fastest CPU's
    governors: tuple[str, ...]
    boost: str | None
    smt: bool | None
    memory_available_bytes: int | None
    swap_used_bytes: int | None
    gpu_processes: tuple[str, ...]


def snapshot(root: Path = Path("/")) -> Snapshot:
    """Read the counters; `root` is the folder that holds /proc and /sys."""
    cpu = read_text(root / "proc/stat").partition("\n")[0].split()[1:9]
    ticks = [int(value) for value in cpu] + [0] * (8 - len(cpu))  # user nice system idle iowait irq softirq steal
    memory = {line.partition(":")[0]: line.split()[1] for line in read_text(root / "proc/meminfo").splitlines() if line}
    devices = root / "sys/devices/system/cpu"
    throttle_counts = [read_text(path) for path in devices.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    swap = int(memory["SwapTotal"]) - int(memory["SwapFree"]) if "SwapTotal" in memory else None
    smt = read_text(devices / "smt/active").strip()
    own_ticks, process_ticks = _process_ticks(root)
    return Snapshot(
        time_s=monotonic(),
        busy_ticks=sum(ticks) - ticks[3] - ticks[4],
        total_ticks=sum(ticks),
        steal_ticks=ticks[7],
        own_ticks=own_ticks,
        process_ticks=process_ticks,
        throttled=throttle_count(root),
        thermal_throttles=sum(map(int, throttle_counts)) if throttle_counts else None,
        clock_mhz=_clock_mhz(root),
        governors=tuple(
            sorted({read_text(path).strip() for path in devices.glob("cpu[0-9]*/cpufreq/scaling_governor")})
        ),
        boost=_boost(devices),
        smt={"1": True, "0": False}.get(smt),
        memory_available_bytes=int(memory["MemAvailable"]) * 1024 if "MemAvailable" in memory else None,
        swap_used_bytes=None if swap is None else swap * 1024,
        gpu_processes=query_gpu_processes(),
    )


def judge(
    machine: Machine, before: Snapshot, after: Snapshot, throttled: Mapping[str, int] = _NOT_COUNTED
) -> tuple[Check, ...]:
    """Return the checks of all conditions, from two snapshots of the machine.

    `throttled`: how often a CPU limit stopped the measuring process in each of its phases.
    """
    return (
        _load(machine, before, after),
        _steal(before, after),
        _quota(machine, before, after, throttled),
        _governor(after),
        _turbo(after),
        _heat(before, after),
        _clock_rate(before, after),
        _smt(after),
        _memory(machine, after),
        _virtual_machine(machine),
        *_gpu_users(machine, after),
    )


def _check(name: str, observation: str, remedy: str | None = None) -> Check:
    return Check(name=name, status="ok" if remedy is None else "warn", found=observation, remedy=remedy)


def _unknown(name: str, observation: str) -> Check:
    return Check(name=name, status="unknown", found=observation)


def _load(machine: Machine, before: Snapshot, after: Snapshot) -> Check:
    total = after.total_ticks - before.total_ticks
    if total <= 0:
        return _unknown("load", "the kernel shows no CPU times")
    own_ticks = after.own_ticks - before.own_ticks
    steal_ticks = after.steal_ticks - before.steal_ticks
    busy_ticks = after.busy_ticks - before.busy_ticks
    other_cores = max(busy_ticks - steal_ticks - own_ticks, 0) * machine.logical_cores / total
    ticks = {name: count - before.process_ticks.get(name, 0) for name, count in after.process_ticks.items()}
    busiest = dict.fromkeys(
        name.partition(" ")[2] for name in sorted(ticks, key=lambda name: -ticks[name])[:3] if ticks[name] > 0
    )
    observation = f"other processes use {other_cores:.2f} of {machine.logical_cores} cores"
    if other_cores < _MAX_OTHER_CORES:
        return _check("load", observation)
    return _check("load", observation, f"stop {', '.join(busiest) or 'them'}, or measure when the machine is idle")


def _steal(before: Snapshot, after: Snapshot) -> Check:
    total = after.total_ticks - before.total_ticks
    if total <= 0:
        return _unknown("steal", "the kernel shows no CPU times")
    share = (after.steal_ticks - before.steal_ticks) / total
    observation = f"the hypervisor took {share:.1%} of the CPU time"
    too_much = share > _MAX_STEAL_SHARE
    return _check("steal", observation, "use a dedicated host, or repeat when it is quieter" if too_much else None)


def _quota(machine: Machine, before: Snapshot, after: Snapshot, throttled: Mapping[str, int]) -> Check:
    quota = machine.cgroup_cpu_quota
    if quota is None:
        return _check("cgroup quota", "no CPU quota")
    if before.throttled is None or after.throttled is None:
        return _unknown("cgroup quota", f"a quota of {quota:g} cores; the kernel does not count throttling")
    times = after.throttled - before.throttled
    phases = ", ".join(f"{count} in {phase}" for phase, count in throttled.items() if count)
    observation = f"a quota of {quota:g} cores, throttled {_times(times)}{f' ({phases})' if phases else ''}"
    remedy = "lift the CPU limit of the container or service" + (", or use fewer --threads" if quota > 1 else "")
    return _check("cgroup quota", observation, remedy if times else None)


def _governor(after: Snapshot) -> Check:
    if not after.governors:
        return _unknown("governor", "the kernel shows no frequency governor")
    other = [name for name in after.governors if name != "performance"]
    remedy = "run `sudo cpupower frequency-set -g performance`" if other else None
    return _check("governor", ", ".join(after.governors), remedy)


def _turbo(after: Snapshot) -> Check:
    if after.boost is None:
        return _unknown("turbo", "the kernel shows no turbo switch")
    if after.boost == "off":
        return _check("turbo", "off")
    remedy = (
        "for steadier results run `echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo`,"
        " or `echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost`"
    )
    return _check("turbo", "on: clock rates depend on the temperature and on the other cores", remedy)


def _heat(before: Snapshot, after: Snapshot) -> Check:
    if before.thermal_throttles is None or after.thermal_throttles is None:
        return _unknown("heat", "the kernel does not count thermal throttling")
    times = after.thermal_throttles - before.thermal_throttles
    remedy = "let the machine cool down, or improve its cooling" if times else None
    return _check("heat", f"throttled {_times(times)} because of heat", remedy)


def _clock_rate(before: Snapshot, after: Snapshot) -> Check:
    if before.clock_mhz is None or after.clock_mhz is None:
        return _unknown("clock rate", "the kernel does not show it")
    observation = f"{before.clock_mhz / 1e3:.2f} GHz before, {after.clock_mhz / 1e3:.2f} GHz after"
    fell = after.clock_mhz < (1 - _MAX_CLOCK_DROP) * before.clock_mhz
    return _check("clock rate", observation, "let the machine cool down, or pin the clock rate" if fell else None)


def _smt(after: Snapshot) -> Check:
    if after.smt is None:
        return _unknown("SMT", "the kernel does not show it")
    if not after.smt:
        return _check("SMT", "off, or one thread per core")
    remedy = "run `echo off | sudo tee /sys/devices/system/cpu/smt/control`, or leave the machine idle"
    return _check("SMT", "on: another thread on the same core halves its speed", remedy)


def _memory(machine: Machine, after: Snapshot) -> Check:
    if after.memory_available_bytes is None:
        return _unknown("memory", "the kernel shows no memory figures")
    observation = f"{after.memory_available_bytes / 1e9:.1f} GB available"
    if after.swap_used_bytes:
        swapped = f"{observation}, {after.swap_used_bytes / 1e9:.1f} GB swapped out"
        return _check("memory", swapped, "free memory, then run `sudo swapoff -a`")
    low = after.memory_available_bytes < _MIN_FREE_SHARE * machine.memory_bytes
    return _check("memory", observation, "free memory" if low else None)


def _virtual_machine(machine: Machine) -> Check:
    if machine.hypervisor is None:
        return _check("virtual machine", "no")
    observation = f"{machine.hypervisor}: other guests share caches and memory bandwidth"
    return _check("virtual machine", observation, "compare only results of one run")


def _gpu_users(machine: Machine, after: Snapshot) -> tuple[Check, ...]:
    if not machine.gpus:
        return ()
    processes = after.gpu_processes
    users, remedy = f"{len(processes)} processes compute", "stop them" if processes else None
    if len(processes) == 1:
        users, remedy = "1 process computes", "stop it"
    observation = f"{users} on the GPU" + (f": {'; '.join(processes)}" if processes else "")
    return (_check("GPU users", observation, remedy),)


def _times(count: int) -> str:
    return f"{count} time{'s' * (count != 1)}"


def _process_ticks(root: Path) -> tuple[int, dict[str, int]]:
    """Return the CPU time of this process with its children, and that of others by `pid name`.

    The others are those that this user can stop: neither the kernel's threads, nor process 1, nor another user's, nor
    the programs that started this one.
    """
    processes, parents = {}, {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        head, _, tail = read_text(path).rpartition(")")
        fields = tail.split()
        if len(fields) < 15:
            continue  # the process has ended
        pid = int(path.parent.name)
        parents[pid] = int(fields[1])
        if not int(fields[6]) & _KERNEL_THREAD:
            ended_children = sum(map(int, fields[13:15]))
            processes[pid] = (head.partition(" (")[2], sum(map(int, fields[11:13])), ended_children)
    mine = os.getpid()
    ancestors = _ancestors(mine, parents)
    own_ticks, process_ticks = 0, {}
    for pid, (name, ticks, children_ticks) in processes.items():
        if pid == mine or mine in _ancestors(pid, parents):
            own_ticks += ticks + children_ticks
        elif pid != 1 and pid not in ancestors and _is_stoppable(root / f"proc/{pid}"):
            process_ticks[f"{pid} {name}"] = ticks
    return own_ticks, process_ticks


def _ancestors(pid: int, parents: Mapping[int, int]) -> set[int]:
    """Return the processes that started process `pid`, from its parent upwards."""
    ancestors: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in ancestors:  # a process may end while all are read
        ancestors.add(pid)
    return ancestors


def _is_stoppable(folder: Path) -> bool:
    """Return whether this user may stop the process that `folder` of /proc describes."""
    try:
        return os.getuid() in (0, folder.stat().st_uid)
    except OSError:
        return False  # it has ended


def _clock_mhz(root: Path) -> float | None:
    """Return the fastest CPU's rate from cpufreq, else from /proc/cpuinfo (a constant on some virtual machines)."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    rates = [int(text) / 1e3 for path in paths if (text := read_text(path).strip())]
    lines = read_text(root / "proc/cpuinfo").splitlines()
    rates = rates or [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return max(rates, default=None)


def _boost(devices: Path) -> str | None:
    """Return "on" or "off" from the switch of intel_pstate, else of cpufreq, or None."""
    no_turbo = read_text(devices / "intel_pstate/no_turbo").strip()
    if no_turbo:
        return "off" if no_turbo == "1" else "on"
    boost = read_text(devices / "cpufreq/boost").strip()
    return {"1": "on", "0": "off"}.get(boost)
