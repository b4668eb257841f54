from dataclasses import replace
from pathlib import Path

import pytest

from mbbench.errors import UsageError
from mbbench.machine import (
    NATIVE_INSTRUCTIONS,
    CacheSizes,
    cache_sizes,
    fingerprint,
    pick_cpus,
)

from .trees import tree

AMD = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9654 96-Core Processor
flags\t\t: fpu fma avx2 f16c avx512f avx512_vnni avx512_bf16 hypervisor

processor\t: 1
model name\t: another
"""
INTEL = (
    "processor: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\nflags\t: avx2 avx512f amx_tile amx_int8 amx_bf16\n"
)
GRANITE_RAPIDS = "processor: 0\nmodel name\t: Intel(R) Xeon(R) 6980P\nflags\t: avx512f amx_tile amx_bf16 amx_fp16\n"
ARM = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd asimdhp asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def topology(root: Path, cores: list[int]) -> Path:
    """Write a topology in which logical CPU i is a thread of core cores[i]."""
    for cpu, core in enumerate(cores):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "core_id").write_text(f"{core}\n")
        (folder / "physical_package_id").write_text("0\n")
    return root


@pytest.mark.parametrize(
    ("cpuinfo", "cpu", "isa"),
    [
        (AMD, "AMD EPYC 9654 96-Core Processor", ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16")),
        (INTEL, "Intel(R) Xeon(R) Platinum 8480+", ("avx2", "avx512f", "amx_tile", "amx_int8", "amx_bf16")),
        (ARM, "ARM implementer 0x41 part 0xd40", ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve")),
    ],
    ids=["amd", "intel", "arm"],
)
def test_the_fingerprint_names_the_cpu_and_its_instruction_sets(
    tmp_path: Path, cpuinfo: str, cpu: str, isa: tuple[str, ...]
) -> None:
    machine = fingerprint(tree(tmp_path, proc__cpuinfo=cpuinfo, proc__meminfo="MemTotal:  1048576 kB\n"))
    assert (machine.cpu, machine.isa, machine.memory_bytes) == (cpu, isa, 2**30)


def test_every_native_instruction_set_is_detected(tmp_path: Path) -> None:
    flags = {name for names in NATIVE_INSTRUCTIONS.values() for name in names}
    machine = fingerprint(tree(tmp_path, proc__cpuinfo=f"flags\t: {' '.join(sorted(flags))}\n"))
    assert set(machine.isa) == flags


def test_a_chip_with_amx_fp16_is_native_in_fp16(tmp_path: Path) -> None:
    machine = fingerprint(tree(tmp_path, proc__cpuinfo=GRANITE_RAPIDS))
    assert machine.isa == ("avx512f", "amx_tile", "amx_bf16", "amx_fp16")
    assert "fp16" in machine.native


def test_a_core_with_two_threads_counts_once(tmp_path: Path) -> None:
    assert fingerprint(topology(tmp_path, [0, 1, 0, 1])).physical_cores == 2


def test_a_hypervisor_is_recognized_by_the_cpu_flags(tmp_path: Path) -> None:
    root = tree(tmp_path, proc__cpuinfo=AMD, sys__class__dmi__id__sys_vendor="QEMU\n")
    assert fingerprint(root).hypervisor == "QEMU"
    assert fingerprint(tree(tmp_path, proc__cpuinfo=INTEL)).hypervisor is None


def test_a_machine_without_proc_and_sys_has_a_fingerprint(tmp_path: Path) -> None:
    machine = fingerprint(tmp_path)
    assert machine.isa == ()
    assert machine.cpu
    assert machine.physical_cores >= 1


def test_the_id_depends_only_on_what_makes_measurements_comparable(tmp_path: Path) -> None:
    machine = fingerprint(tree(tmp_path, proc__cpuinfo=AMD))
    assert replace(machine, kernel="other", python="3.99").id == machine.id
    assert replace(machine, memory_bytes=machine.memory_bytes + 1000).id == machine.id
    for change in ({"cpu": "x"}, {"isa": ()}, {"cgroup_cpu_quota": 1.0}, {"gpus": ("x",)}, {"hypervisor": "x"}):
        assert replace(machine, **change).id != machine.id


def test_a_summary_is_one_line() -> None:
    machine = replace(
        fingerprint(), cpu="CPU", physical_cores=2, logical_cores=4, isa=("avx2", "avx512f", "avx512_vnni"),
        memory_bytes=16 * 2**30, gpus=(),
    )  # fmt: skip
    assert machine.summary == "CPU, 2 cores (4 threads), AVX512F AVX512_VNNI, 16 GiB"


@pytest.mark.parametrize(
    ("architecture", "isa", "saturates"),
    [
        ("x86_64", ("avx2",), True),
        ("x86_64", ("avx2", "avx512f"), True),
        ("x86_64", ("avx2", "avx512f", "avx512_vnni"), False),
        ("AMD64", ("avx2", "avx_vnni"), False),
        ("aarch64", ("asimd",), False),
    ],
)
def test_x86_without_vnni_saturates_int8(architecture: str, isa: tuple[str, ...], saturates: bool) -> None:
    assert replace(fingerprint(), architecture=architecture, isa=isa).saturates_int8 is saturates


def test_the_last_cores_are_picked_first_with_one_thread_each(tmp_path: Path) -> None:
    root = topology(tmp_path, [0, 1, 2, 0, 1, 2])
    all_cpus = frozenset(range(6))
    assert pick_cpus(1, root, all_cpus) == (5,)
    assert pick_cpus(3, root, all_cpus) == (5, 4, 3)
    assert pick_cpus(4, root, all_cpus) == (5, 4, 3, 2)
    assert pick_cpus(2, root, frozenset({0, 3, 1})) == (3, 1)


def test_without_a_topology_every_cpu_is_a_core(tmp_path: Path) -> None:
    assert pick_cpus(2, tmp_path, frozenset({0, 1, 2})) == (2, 1)


def test_more_threads_than_allowed_cpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        pick_cpus(3, tmp_path, frozenset({0, 1}))
    assert str(caught.value) == "--threads is more than the number of available CPUs, 2: 3; give at most 2"


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [(AMD, {"fp32", "bf16", "int8"}), (INTEL, {"fp32", "bf16", "int8"}), (ARM, {"fp32", "bf16", "fp16", "int8"})],
)
def test_a_precision_is_native_if_the_cpu_has_instructions_for_it(
    tmp_path: Path, cpuinfo: str, native: set[str]
) -> None:
    assert fingerprint(tree(tmp_path, proc__cpuinfo=cpuinfo)).native == native


def write_caches(root: Path, cpu: int, *caches: tuple[int, str, str]) -> None:
    """Write the (level, size, sharing CPUs) of a CPU's caches."""
    for index, (level, size, shared) in enumerate(caches):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
        tree(folder, level=f"{level}\n", size=f"{size}\n", shared_cpu_list=f"{shared}\n")


def test_a_shared_last_level_cache_counts_once(tmp_path: Path) -> None:
    for cpu, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3")):
        private = str(cpu)
        levels = [(1, "32K", private), (1, "64K", private), (2, "1024K", private), (3, "16384K", shared)]
        write_caches(tmp_path, cpu, *levels)
    assert cache_sizes((0, 1, 2), tmp_path) == CacheSizes(2**20, 2**25)
    assert cache_sizes((1,), tmp_path) == CacheSizes(2**20, 2**24)


def test_cache_sizes_the_kernel_does_not_show_are_assumed(tmp_path: Path) -> None:
    assert cache_sizes((0,), tmp_path) == CacheSizes(2**18, 2**24)
