"""The machine's fingerprint, CPUs and caches. Reads no host name, user name or serial number."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mbbench.errors import UsageError
from mbbench.machine.kernel import cpu_quota, memory_left_bytes, read_text
from mbbench.spec import Amount, Count, Name, Precision, content_key

# The instruction sets that determine how fast a network runs, by the kernel's names.
_ISA = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
# The instruction sets that multiply and add in a precision; without one of them a CPU converts or widens first.
NATIVE_INSTRUCTIONS: Mapping[Precision, tuple[str, ...]] = {
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "asimdhp"),
}
_GIB = 2**30
_CORE_CACHE_BYTES = 2**18  # if the kernel shows none: no core that runs networks has less
_MIN_LAST_LEVEL_BYTES = 2**24  # hypervisors may show less than there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine's fingerprint. `cgroup_cpu_quota` is in cores (None: unlimited)."""

    cpu: Name
    architecture: Name
    isa: tuple[Name, ...]
    physical_cores: Count
    logical_cores: Count
    memory_bytes: Count
    cgroup_cpu_quota: Amount | None
    hypervisor: Name | None
    gpus: tuple[Name, ...]
    os: Name
    kernel: Name
    python: Name

    @property
    def id(self) -> str:
        """A key that is equal for machines whose measurements can be compared; ignores kernel and Python versions."""
        memory_gib = round(self.memory_bytes / _GIB)
        cores = (self.physical_cores, self.logical_cores, self.cgroup_cpu_quota)
        return content_key(self.cpu, self.architecture, self.isa, cores, memory_gib, self.hypervisor, self.gpus)

    @property
    def native(self) -> frozenset[Precision]:
        """The precisions for which the CPU has instructions."""
        return frozenset({"fp32", *(name for name, sets in NATIVE_INSTRUCTIONS.items() if {*sets} & {*self.isa})})

    @property
    def saturates_int8(self) -> bool:
        """Whether the CPU adds two products of uint8 and int8 in 16 bits (VPMADDUBSW), which can saturate.

        True for x86 without VNNI or AMX. The sum fits if the weights are within -64 to 64.
        """
        return self.architecture in ("x86_64", "AMD64") and not {"avx512_vnni", "avx_vnni", "amx_int8"} & {*self.isa}

    @property
    def summary(self) -> str:
        """`AMD EPYC, 2 cores, AVX512F AVX512_VNNI AVX512_BF16, 24 GiB`."""
        cores = f"{self.physical_cores} core{'s' * (self.physical_cores > 1)}"
        if self.logical_cores > self.physical_cores:
            cores += f" ({self.logical_cores} threads)"
        widest = next((name for name in ("avx512f", "avx2", "sve", "asimd") if name in self.isa), None)
        extra = [name for name in self.isa if name.endswith(("vnni", "bf16", "int8", "fp16", "dp", "i8mm"))]
        isa = " ".join(name.upper() for name in (widest, *extra) if name)
        parts = (self.cpu, cores, isa, f"{round(self.memory_bytes / _GIB)} GiB", *self.gpus)
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class CacheSizes:
    """The sizes of a set of CPUs' caches."""

    core_bytes: int  # the second-level cache of one core
    last_level_bytes: int  # all last-level caches together


def fingerprint(root: Path = Path("/")) -> Machine:
    """Return this machine's fingerprint; `root` is the folder that holds /proc and /sys."""
    info = _first_processor(read_text(root / "proc/cpuinfo"))
    flags = set(info.get("flags", info.get("Features", "")).split())
    logical = os.cpu_count() or 1
    return Machine(
        cpu=info.get("model name") or _arm_name(info) or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        isa=tuple(name for name in _ISA if name in flags),
        physical_cores=len(set(_cpu_topology(root).values())) or logical,
        logical_cores=logical,
        memory_bytes=_memory_bytes(root),
        cgroup_cpu_quota=cpu_quota(root),
        hypervisor=_hypervisor(root, flags),
        gpus=query_gpus("name"),
        os=platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
    )


def _first_processor(cpuinfo: str) -> dict[str, str]:
    """Return the first processor's entries in the text of /proc/cpuinfo."""
    pairs = (line.partition(":") for line in cpuinfo.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_topology(root: Path) -> dict[int, tuple[str, str]]:
    """Return logical CPU -> (package, core); empty if the kernel shows no topology."""
    topology = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
        package, core = (read_text(folder / name).strip() for name in ("physical_package_id", "core_id"))
        topology[int(folder.parent.name.removeprefix("cpu"))] = (package, core)
    return topology


def allowed_cpus() -> frozenset[int]:
    """Return the logical CPUs on which this process may run."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def pick_cpus(threads: int, root: Path = Path("/"), allowed: frozenset[int] | None = None) -> tuple[int, ...]:
    """Return the logical CPUs to which a measuring process of `threads` threads is pinned.

    One hardware thread of every core comes before a second thread of any core, and the last cores come first, since the
    first core serves most interrupts. Raises `UsageError` if too few CPUs are allowed, or if a CPU limit would stop the
    threads in every period. One thread may run under a limit of less than a core: `doctor` counts how often it stops.
    """
    if allowed is None:
        allowed = allowed_cpus()
    if threads > len(allowed):
        cause = f"--threads is more than the number of available CPUs, {len(allowed)}: {threads}"
        raise UsageError(cause, f"give at most {len(allowed)}")
    quota = cpu_quota(root)
    if quota is not None and threads > max(1, quota):
        most = max(1, int(quota))
        raise UsageError(
            f"--threads is more than the control group's CPU limit, {quota:g} cores: {threads}",
            f"give at most {most}, or raise the limit",
        )
    topology = _cpu_topology(root)
    thread_index: dict[int, int] = {}  # of a CPU among the threads of its core
    threads_of_core: dict[tuple[str, str], int] = {}
    for cpu in sorted(allowed, reverse=True):
        core = topology.get(cpu, ("", str(cpu)))
        thread_index[cpu] = threads_of_core.get(core, 0)
        threads_of_core[core] = thread_index[cpu] + 1
    return tuple(sorted(allowed, key=lambda cpu: (thread_index[cpu], -cpu))[:threads])


def cache_sizes(cpus: Collection[int], root: Path = Path("/")) -> CacheSizes:
    """Return the sizes of the caches that these logical CPUs use."""
    last_level_bytes: dict[str, int] = {}  # by the list of CPUs that share the cache
    core_bytes = 0
    for cpu in cpus:
        levels = {}
        for folder in (root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*"):
            level, size, shared = (read_text(folder / name).strip() for name in ("level", "size", "shared_cpu_list"))
            if size.endswith("K"):
                levels[int(level)] = (int(size.removesuffix("K")) * 1024, shared)
        if levels:
            size_bytes, shared = levels[max(levels)]
            last_level_bytes[shared] = size_bytes
            core_bytes = levels.get(2, (0, ""))[0]
    total_bytes = sum(last_level_bytes.values())
    return CacheSizes(core_bytes or _CORE_CACHE_BYTES, max(_MIN_LAST_LEVEL_BYTES, total_bytes))


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Return the memory that is free or reclaimable, within the limits of this process's control groups."""
    available = _kilobytes(read_text(root / "proc/meminfo"), "MemAvailable:") or _memory_bytes(root)
    left = memory_left_bytes(root)
    return available if left is None else min(available, left)


def query_gpus(field: str) -> tuple[str, ...]:
    """Return a field of `nvidia-smi --query-gpu` for every GPU; empty if there is no driver."""
    return _nvidia_smi(f"--query-gpu={field}")


def query_gpu_processes() -> tuple[str, ...]:
    """Return `pid, name` of every process that computes on a GPU."""
    return _nvidia_smi("--query-compute-apps=pid,process_name")


def _nvidia_smi(query: str) -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        process = subprocess.run([program, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    if process.returncode != 0:
        return ()
    return tuple(line.strip() for line in process.stdout.splitlines() if line.strip())


def _arm_name(info: Mapping[str, str]) -> str | None:
    """Return the CPU's name on ARM, where the kernel shows only numbers, or None."""
    if "CPU part" not in info:
        return None
    return f"ARM implementer {info.get('CPU implementer', '?')} part {info['CPU part']}"


def _memory_bytes(root: Path) -> int:
    total = _kilobytes(read_text(root / "proc/meminfo"), "MemTotal:")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if total is None else total


def _kilobytes(meminfo: str, key: str) -> int | None:
    """Return an entry of /proc/meminfo in bytes, or None if it is missing."""
    return next((int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith(key)), None)


def _hypervisor(root: Path, flags: set[str]) -> str | None:
    vendor = read_text(root / "sys/hypervisor/type").strip() or read_text(root / "sys/class/dmi/id/sys_vendor").strip()
    if "hypervisor" not in flags and not (root / "sys/hypervisor/type").exists():
        return None
    return vendor or "unnamed hypervisor"
