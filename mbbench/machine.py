"""What machine this is, as far as comparing measurements needs it. Reads no host name, user or serial number."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mbbench.errors import UsageError
from mbbench.spec import Precision, content_key

# The instruction sets that decide how fast a network runs, under the kernel's names for them.
_ISA = (
    "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
# What multiplies and adds in that precision, by the kernel's names; without it a CPU converts or widens first.
NATIVE: Mapping[Precision, tuple[str, ...]] = {
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"),
    "bf16": ("avx512_bf16", "amx_bf16", "bf16"),
    "fp16": ("avx512_fp16", "amx_fp16", "asimdhp"),
}
_GIB = 2**30
_CORE_CACHE_BYTES = 2**18  # where the kernel tells none: no core that runs networks has less
_LAST_LEVEL_BYTES = 2**24  # at least, since hypervisors may tell less than there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine's fingerprint. Memory in bytes, the cgroup's CPU quota in cores (None: unlimited)."""

    cpu: str
    architecture: str
    isa: tuple[str, ...]
    physical_cores: int
    logical_cores: int
    memory_bytes: int
    cgroup_cpu_quota: float | None
    hypervisor: str | None
    gpus: tuple[str, ...]
    os: str
    kernel: str
    python: str

    @property
    def id(self) -> str:
        """Equal for machines whose measurements may be compared; the kernel's and Python's versions do not enter."""
        memory_gib = round(self.memory_bytes / _GIB)
        cores = (self.physical_cores, self.logical_cores, self.cgroup_cpu_quota)
        return content_key(self.cpu, self.architecture, self.isa, cores, memory_gib, self.hypervisor, self.gpus)

    @property
    def native(self) -> frozenset[Precision]:
        """The precisions that the CPU has instructions for."""
        return frozenset({"fp32", *(name for name, needed in NATIVE.items() if {*needed} & {*self.isa})})

    @property
    def saturates_int8(self) -> bool:
        """Whether the CPU adds two products of uint8 and int8 in 16 bits (VPMADDUBSW), where they may not fit.

        So does x86 without VNNI or AMX. Two products fit if weights stay within -64 to 64.
        """
        return self.architecture in ("x86_64", "AMD64") and not {"avx512_vnni", "avx_vnni", "amx_int8"} & {*self.isa}

    @property
    def summary(self) -> str:
        """`AMD EPYC, 2 cores, AVX512_VNNI AVX512_BF16, 24 GiB`."""
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
    core_bytes: int  # a core's own second level
    last_level_bytes: int  # of all last-level caches together


def fingerprint(root: Path = Path("/")) -> Machine:
    """Read the machine; `root` is where /proc and /sys are looked for."""
    info = cpu_info(read_text(root / "proc/cpuinfo"))
    flags = set(info.get("flags", info.get("Features", "")).split())
    logical = os.cpu_count() or 1
    return Machine(
        cpu=info.get("model name") or _arm_name(info) or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        isa=tuple(name for name in _ISA if name in flags),
        physical_cores=len(set(cores(root).values())) or logical,
        logical_cores=logical,
        memory_bytes=_memory_bytes(root),
        cgroup_cpu_quota=cpu_quota(root),
        hypervisor=_hypervisor(root, flags),
        gpus=query_gpus("name"),
        os=platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
    )


def cpu_info(text: str) -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo."""
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cores(root: Path = Path("/")) -> dict[int, tuple[str, str]]:
    """Logical CPU -> (package, core), from the kernel's topology; empty where it tells none."""
    found = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology"):
        package, core = (read_text(folder / name).strip() for name in ("physical_package_id", "core_id"))
        found[int(folder.parent.name.removeprefix("cpu"))] = (package, core)
    return found


def allowed_cpus() -> frozenset[int]:
    """The logical CPUs that this process may run on."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def pick_cpus(threads: int, root: Path = Path("/"), allowed: frozenset[int] | None = None) -> tuple[int, ...]:
    """The logical CPUs to pin a measuring process with `threads` threads to; raises `UsageError` if there are too few.

    One hardware thread of every core before a second of any; the last cores first, since the first serves most
    interrupts.
    """
    if allowed is None:
        allowed = allowed_cpus()
    if threads > len(allowed):
        raise UsageError(
            f"{threads} threads do not fit on the {len(allowed)} CPUs allowed here", f"give --threads {len(allowed)}"
        )
    topology = cores(root)
    siblings_before: dict[int, int] = {}
    seen: dict[tuple[str, str], int] = {}
    for cpu in sorted(allowed, reverse=True):
        core = topology.get(cpu, ("", str(cpu)))
        siblings_before[cpu] = seen.get(core, 0)
        seen[core] = siblings_before[cpu] + 1
    return tuple(sorted(allowed, key=lambda cpu: (siblings_before[cpu], -cpu))[:threads])


def cache_sizes(cpus: Collection[int], root: Path = Path("/")) -> CacheSizes:
    """The caches that these logical CPUs use."""
    last_level: dict[str, int] = {}  # by the CPUs that share it
    core_bytes = 0
    for cpu in cpus:
        found = {}
        for folder in (root / f"sys/devices/system/cpu/cpu{cpu}/cache").glob("index*"):
            level, size, shared = (read_text(folder / name).strip() for name in ("level", "size", "shared_cpu_list"))
            if size.endswith("K"):
                found[int(level)] = (int(size.removesuffix("K")) * 1024, shared)
        if found:
            size_bytes, shared = found[max(found)]
            last_level[shared] = size_bytes
            core_bytes = found.get(2, (0, ""))[0]
    return CacheSizes(core_bytes or _CORE_CACHE_BYTES, max(_LAST_LEVEL_BYTES, sum(last_level.values())))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The cgroup's limit in cores (v2's cpu.max, else v1's cfs quota); None without one."""
    version2 = read_text(root / "sys/fs/cgroup/cpu.max").split()
    if len(version2) == 2:
        return None if version2[0] == "max" else int(version2[0]) / int(version2[1])
    folder = root / "sys/fs/cgroup/cpu"
    quota, period = (read_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def query_gpus(field: str) -> tuple[str, ...]:
    """One `field` of nvidia-smi's --query-gpu for every GPU; empty where there is no driver."""
    return _nvidia_smi(f"--query-gpu={field}")


def query_gpu_processes() -> tuple[str, ...]:
    """`pid, name` of the processes computing on a GPU."""
    return _nvidia_smi("--query-compute-apps=pid,process_name")


def read_text(path: Path) -> str:
    """The file's text, or nothing: kernels and containers differ in what they show."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _nvidia_smi(query: str) -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run([program, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip()) if done.returncode == 0 else ()


def _arm_name(info: Mapping[str, str]) -> str | None:
    """ARM kernels name the core by numbers only."""
    if "CPU part" not in info:
        return None
    return f"ARM implementer {info.get('CPU implementer', '?')} part {info['CPU part']}"


def _memory_bytes(root: Path) -> int:
    for line in read_text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _hypervisor(root: Path, flags: set[str]) -> str | None:
    vendor = read_text(root / "sys/hypervisor/type").strip() or read_text(root / "sys/class/dmi/id/sys_vendor").strip()
    if "hypervisor" not in flags and not (root / "sys/hypervisor/type").exists():
        return None
    return vendor or "unnamed hypervisor"
