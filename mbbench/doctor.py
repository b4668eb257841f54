"""Is this machine fit for measuring? Reads counters twice and judges; changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from mbbench.machine import Machine, query_gpu_processes, read_text

_BUSY_SHARE = 0.10  # of one core taken by others: enough to move a p99
_STEAL_SHARE = 0.01  # of the time the hypervisor ran somebody else
_CLOCK_SHARE = 0.05  # that the clock rate may fall while measuring
_FREE_SHARE = 0.10  # of the memory that should be left


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    status: Literal["ok", "warn", "unknown"]
    found: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Counters at one moment; CPU times in clock ticks, summed over the CPUs."""

    time_s: float
    busy_ticks: int
    total_ticks: int
    steal_ticks: int
    own_ticks: int
    process_ticks: dict[str, int]
    throttled: int | None
    thermal_throttles: int | None
    clock_mhz: float | None  # the fastest CPU's
    governors: tuple[str, ...]
    boost: str | None
    smt: bool | None
    memory_available_bytes: int | None
    swap_used_bytes: int | None
    gpu_processes: tuple[str, ...]


def snapshot(root: Path = Path("/")) -> Snapshot:
    cpu = read_text(root / "proc/stat").partition("\n")[0].split()[1:]
    ticks = [int(value) for value in cpu[:8]] + [0] * (
        8 - len(cpu[:8])
    )  # user nice system idle iowait irq softirq steal
    memory = {line.partition(":")[0]: line.split()[1] for line in read_text(root / "proc/meminfo").splitlines() if line}
    devices = root / "sys/devices/system/cpu"
    throttle_counts = [read_text(path) for path in devices.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    swap = int(memory["SwapTotal"]) - int(memory["SwapFree"]) if "SwapTotal" in memory else None
    smt = read_text(devices / "smt/active").strip()
    own, processes = _process_ticks(root)
    return Snapshot(
        time_s=monotonic(),
        busy_ticks=sum(ticks) - ticks[3] - ticks[4],
        total_ticks=sum(ticks),
        steal_ticks=ticks[7],
        own_ticks=own,
        process_ticks=processes,
        throttled=_throttled(root),
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


def judge(machine: Machine, before: Snapshot, after: Snapshot) -> tuple[Check, ...]:
    """What two snapshots of one machine say; pure."""
    return (
        _load(machine, before, after),
        _steal(before, after),
        _throttling(machine, before, after),
        _governor(after),
        _turbo(after),
        _thermal(before, after),
        _clock(before, after),
        _smt(after),
        _memory(machine, after),
        _virtual(machine),
        *_gpu(machine, after),
    )


def _check(name: str, found: str, remedy: str | None = None) -> Check:
    return Check(name=name, status="ok" if remedy is None else "warn", found=found, remedy=remedy)


def _unknown(name: str, found: str) -> Check:
    return Check(name=name, status="unknown", found=found)


def _load(machine: Machine, before: Snapshot, after: Snapshot) -> Check:
    total = after.total_ticks - before.total_ticks
    if total <= 0:
        return _unknown("load", "the kernel shows no CPU times")
    own = after.own_ticks - before.own_ticks
    steal = after.steal_ticks - before.steal_ticks
    others = max(after.busy_ticks - before.busy_ticks - steal - own, 0) * machine.logical_cores / total
    grown = {name: ticks - before.process_ticks.get(name, 0) for name, ticks in after.process_ticks.items()}
    busiest = [name.partition(" ")[2] for name in sorted(grown, key=lambda name: -grown[name])[:3] if grown[name] > 0]
    found = f"other processes use {others:.2f} of {machine.logical_cores} cores"
    if others < _BUSY_SHARE:
        return _check("load", found)
    return _check("load", found, f"stop {', '.join(busiest) or 'them'}, or measure when the machine is idle")


def _steal(before: Snapshot, after: Snapshot) -> Check:
    total = after.total_ticks - before.total_ticks
    if total <= 0:
        return _unknown("steal", "the kernel shows no CPU times")
    share = (after.steal_ticks - before.steal_ticks) / total
    found = f"the hypervisor took {share:.1%} of the CPU time"
    return _check(
        "steal", found, "use a dedicated host, or repeat when it is quieter" if share > _STEAL_SHARE else None
    )


def _throttling(machine: Machine, before: Snapshot, after: Snapshot) -> Check:
    quota = machine.cgroup_cpu_quota
    times = (after.throttled or 0) - (before.throttled or 0)
    if quota is None:
        return _check("cgroup quota", "no CPU quota")
    found = f"a quota of {quota:g} cores, throttled {times} times"
    return _check("cgroup quota", found, "lift the container's CPU limit, or use fewer --threads" if times else None)


def _governor(after: Snapshot) -> Check:
    if not after.governors:
        return _unknown("governor", "the kernel shows no frequency governor")
    slow = [name for name in after.governors if name != "performance"]
    remedy = "run `sudo cpupower frequency-set -g performance`" if slow else None
    return _check("governor", ", ".join(after.governors), remedy)


def _turbo(after: Snapshot) -> Check:
    if after.boost is None:
        return _unknown("turbo", "the kernel shows no turbo switch")
    if after.boost == "off":
        return _check("turbo", "off")
    remedy = (
        "for steadier figures run `echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo`,"
        " or `echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost`"
    )
    return _check("turbo", "on: clock rates depend on heat and on the other cores", remedy)


def _thermal(before: Snapshot, after: Snapshot) -> Check:
    if before.thermal_throttles is None or after.thermal_throttles is None:
        return _unknown("heat", "the kernel counts no thermal throttling")
    times = after.thermal_throttles - before.thermal_throttles
    return _check("heat", f"throttled {times} times for heat", "let it cool, or improve cooling" if times else None)


def _clock(before: Snapshot, after: Snapshot) -> Check:
    if before.clock_mhz is None or after.clock_mhz is None:
        return _unknown("clock rate", "the kernel does not tell it")
    found = f"{before.clock_mhz / 1e3:.2f} GHz before, {after.clock_mhz / 1e3:.2f} GHz after"
    fell = after.clock_mhz < (1 - _CLOCK_SHARE) * before.clock_mhz
    return _check("clock rate", found, "let it cool, or fix the clock rate" if fell else None)


def _smt(after: Snapshot) -> Check:
    if after.smt is None:
        return _unknown("SMT", "the kernel does not say whether cores are shared by threads")
    if not after.smt:
        return _check("SMT", "off, or one thread a core")
    remedy = "run `echo off | sudo tee /sys/devices/system/cpu/smt/control`, or leave the machine idle"
    return _check("SMT", "on: a neighbour on the same core halves it", remedy)


def _memory(machine: Machine, after: Snapshot) -> Check:
    if after.memory_available_bytes is None:
        return _unknown("memory", "the kernel shows no memory figures")
    found = f"{after.memory_available_bytes / 1e9:.1f} GB available"
    if after.swap_used_bytes:
        return _check(
            "memory", f"{found}, {after.swap_used_bytes / 1e9:.1f} GB swapped out", "free memory: `swapoff -a`"
        )
    tight = after.memory_available_bytes < _FREE_SHARE * machine.memory_bytes
    return _check("memory", found, "free memory first" if tight else None)


def _virtual(machine: Machine) -> Check:
    if machine.hypervisor is None:
        return _check("virtual machine", "no: this is bare metal")
    found = f"{machine.hypervisor}: neighbours share caches and memory bandwidth"
    return _check("virtual machine", found, "compare only what was measured side by side in one run")


def _gpu(machine: Machine, after: Snapshot) -> tuple[Check, ...]:
    if not machine.gpus:
        return ()
    others = after.gpu_processes
    found = f"{len(others)} processes compute on the GPU" + (f": {'; '.join(others)}" if others else "")
    return (_check("GPU users", found, "stop them" if others else None),)


def _process_ticks(root: Path) -> tuple[int, dict[str, int]]:
    """CPU time of this process with its children that ended, and of every other process as `pid name`."""
    own, others = 0, {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        head, _, tail = read_text(path).rpartition(")")
        fields = tail.split()
        if len(fields) < 15:
            continue  # it ended meanwhile
        user, system, ended_user, ended_system = map(int, fields[11:15])
        if int(path.parent.name) == os.getpid():
            own = user + system + ended_user + ended_system
        else:
            pid, _, name = head.partition(" (")
            others[f"{pid} {name}"] = user + system
    return own, others


def _throttled(root: Path) -> int | None:
    for path in ("sys/fs/cgroup/cpu.stat", "sys/fs/cgroup/cpu/cpu.stat"):
        for line in read_text(root / path).splitlines():
            if line.startswith("nr_throttled "):
                return int(line.split()[1])
    return None


def _clock_mhz(root: Path) -> float | None:
    """From cpufreq, else from /proc/cpuinfo, where a virtual machine may show a constant."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    rates = [int(text) / 1e3 for path in paths if (text := read_text(path).strip())]
    lines = read_text(root / "proc/cpuinfo").splitlines()
    rates = rates or [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return max(rates, default=None)


def _boost(devices: Path) -> str | None:
    no_turbo = read_text(devices / "intel_pstate/no_turbo").strip()
    if no_turbo:
        return "off" if no_turbo == "1" else "on"
    boost = read_text(devices / "cpufreq/boost").strip()
    return {"1": "on", "0": "off"}.get(boost)
