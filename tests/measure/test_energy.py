"""Energy on scripted chips: a tree of powercap files, an NVML of a few lines, a clock that moves when told to."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from mbbench.errors import BackendError
from mbbench.measure import energy
from mbbench.measure.energy import CounterError, Nvml, Rapl
from mbbench.result import Energy, Measured, Stretch
from mbbench.testing import FakeClock

RANGE_UJ = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    """A power zone as the kernel shows it; returns the file of its counter."""
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    file = path / "energy_uj"
    file.write_text(f"{energy_uj}\n")
    return file


class Chip:
    """Takes 10 W at rest and 30 W in a call of 4 ms; tells `publish` how many µJ that made, every `update_ms`."""

    def __init__(self, publish: Callable[[int], object], update_ms: int = 1) -> None:
        self.clock = FakeClock()
        self.calls = 0
        self._publish, self._every_ns = publish, update_ms * 1_000_000
        self._nanojoules = 0

    def _spend(self, ns: int, watts: int) -> None:
        self.clock.now_ns += ns
        self._nanojoules += watts * ns
        since_update_ns = self.clock.now_ns % self._every_ns
        if since_update_ns < ns:
            self._publish((self._nanojoules - watts * since_update_ns) // 1000)

    def sleep(self, seconds: float) -> None:
        self._spend(round(seconds * 1e9), 10)

    def call(self) -> None:
        self.calls += 1
        self._spend(4_000_000, 30)


def measure(chip: Chip, root: Path, device: str = "CPU", seconds: float = 1.0) -> tuple[Energy | None, dict[str, str]]:
    return energy.measure(
        chip.call, batch=2, device=device, seconds=seconds, root=root, clock=chip.clock, sleep=chip.sleep
    )


@pytest.mark.parametrize("update_ms", [1, 100])
def test_idling_is_subtracted_however_seldom_the_counter_is_updated(tmp_path: Path, update_ms: int) -> None:
    """Above idling a call takes 20 W for 4 ms, which is 80 mJ, of two images."""
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)), update_ms)
    found, reasons = measure(chip, tmp_path)
    assert found is not None
    assert reasons == {}
    assert found.joules_per_image == pytest.approx(0.04, rel=1e-9)
    assert (found.joules_per_image_ci95.low, found.joules_per_image_ci95.high) == pytest.approx((0.04, 0.04))
    assert found.idle_watts == pytest.approx(10.0)
    assert (found.counter, found.batch, found.images) == ("RAPL package-0", 2, 2 * chip.calls)
    assert 1.0 <= found.seconds <= 1.0 + 10 * (update_ms / 1e3 + 0.004)
    busy = 30 * 0.004 * chip.calls + 10 * (found.seconds - 0.004 * chip.calls)
    assert found.busy_watts == pytest.approx(busy / found.seconds)


def test_each_stretch_has_a_rest_of_its_own_half_as_long(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)))
    found, _ = measure(chip, tmp_path)
    assert found is not None
    assert len(found.stretches) == 10
    assert {one.images for one in found.stretches} == {50}
    assert {one.busy_seconds for one in found.stretches} == {0.101}
    assert {one.idle_seconds for one in found.stretches} == {0.051}


def test_a_call_longer_than_a_stretch_is_made_once_in_each(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)))
    found, _ = measure(chip, tmp_path, seconds=0.01)
    assert found is not None
    assert chip.calls == 10
    assert found.joules_per_image == pytest.approx(0.04, rel=1e-9)


def test_a_counter_that_wraps_around_loses_nothing(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", range_uj=4_500_000)
    found, _ = measure(Chip(lambda uj: file.write_text(str(uj % 4_500_000))), tmp_path)
    assert found is not None
    assert found.joules_per_image == pytest.approx(0.04, rel=1e-9)
    assert found.idle_watts == pytest.approx(10.0)


def test_packages_and_dram_are_summed_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    zone(tmp_path, "intel-rapl:0:0", "core")
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 65_000, 65_535)
    second = zone(tmp_path, "intel-rapl:1", "package-1", RANGE_UJ - 5)
    other_dram = zone(tmp_path, "intel-rapl:1:0", "dram")
    psys = zone(tmp_path, "intel-rapl:2", "psys")
    mmio = zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    counter = Rapl(tmp_path)
    assert counter.name == "RAPL package-0, dram, package-1"
    assert counter.microjoules() == 0
    first.write_text("1100")  # 1,000 more
    dram.write_text("465")  # 1,000 more, around the end
    second.write_text("15")  # 20 more, around the end
    other_dram.write_text("3")
    psys.write_text("7000000")
    mmio.write_text("7000000")
    assert counter.microjoules() == 2023
    assert counter.microjoules() == 2023


def test_without_a_counter_there_is_a_reason_and_no_time_is_spent(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys")
    chip = Chip(lambda _: None)
    reason = "the kernel shows no RAPL counter, as in most virtual machines"
    assert measure(chip, tmp_path) == (None, {"energy": reason})
    assert (chip.calls, chip.clock.now_ns) == (0, 0)


def test_a_counter_for_root_alone_says_how_to_open_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    read = Path.read_text

    def denied(path: Path, *arguments: Any, **named: Any) -> str:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", denied)
    chip = Chip(lambda _: None)
    found, reasons = measure(chip, tmp_path)
    assert found is None
    assert reasons["energy"].startswith("only root may read RAPL")
    assert "`sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`" in reasons["energy"]
    assert chip.clock.now_ns == 0


def test_a_counter_that_breaks_while_it_is_read_costs_the_cell_nothing(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj) if uj < 6_000_000 else "?"))
    found, reasons = measure(chip, tmp_path)
    assert found is None
    assert reasons["energy"].startswith("RAPL cannot be read (invalid literal")


def test_a_counter_that_stands_still_counts_nothing(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    chip = Chip(lambda _: None)
    assert measure(chip, tmp_path) == (None, {"energy": "RAPL package-0 does not move"})
    assert chip.calls == 0


def test_a_runtime_that_fails_is_no_matter_of_the_counter(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)))

    def call() -> None:
        raise BackendError("it broke", "mend it")

    with pytest.raises(BackendError):
        energy.measure(call, batch=1, device="cpu", seconds=1, root=tmp_path, clock=chip.clock, sleep=chip.sleep)


@pytest.mark.parametrize("device", ["NPU", "GPU.1", "cuda"])
def test_other_devices_have_no_counter(tmp_path: Path, device: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    reasons = {"energy": f"no counter is known for the device {device}"}
    assert measure(Chip(lambda _: None), tmp_path, device) == (None, reasons)


class FakeNvml:
    """GPUs by their slots, in millijoules; CUDA sees the second slot as its device 0."""

    def __init__(self) -> None:
        self.millijoules = {"0000:17:00.0": 9_000_000, "0000:65:00.0": 1_000_000}
        self.started = False

    def init_v2(self) -> None:
        self.started = True

    def device_get_handle_by_pci_bus_id_v2(self, slot: str) -> str:
        assert self.started
        return {known: known for known in self.millijoules}[slot]

    def device_get_total_energy_consumption(self, gpu: str) -> int:
        return self.millijoules[gpu]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    slots = {0: b"0000:65:00.0\0".ljust(32), 1: b"0000:17:00.0\0".ljust(32)}
    runtime = SimpleNamespace(cudaDeviceGetPCIBusId=lambda length, index: (0, slots[index]))
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", fake)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", runtime)
    return fake


def test_a_gpu_is_found_by_its_slot_and_its_millijoules_are_counted(tmp_path: Path, nvml: FakeNvml) -> None:
    def publish(uj: int) -> None:
        nvml.millijoules["0000:65:00.0"] = uj // 1000

    chip = Chip(publish, update_ms=100)
    found, reasons = measure(chip, tmp_path, "cuda:0")
    assert reasons == {}
    assert found is not None
    assert found.counter == "NVML cuda:0"
    assert found.joules_per_image == pytest.approx(0.04, rel=1e-9)
    assert Nvml(1).microjoules() == 9_000_000_000


def test_a_gpu_without_a_counter_has_a_reason(tmp_path: Path, nvml: FakeNvml) -> None:
    def refuse(gpu: str) -> int:
        raise RuntimeError("Not Supported")

    nvml.device_get_total_energy_consumption = refuse  # type: ignore[method-assign]
    reasons = {"energy": "NVML cuda:0 tells no energy (Not Supported)"}
    assert measure(Chip(lambda _: None), tmp_path, "cuda:0") == (None, reasons)


def test_no_driver_is_a_reason(tmp_path: Path, nvml: FakeNvml) -> None:
    def missing() -> None:
        raise RuntimeError("libnvidia-ml.so.1 not found")

    nvml.init_v2 = missing  # type: ignore[method-assign]
    reasons = {"energy": "NVML cuda:0 cannot be opened (libnvidia-ml.so.1 not found)"}
    assert measure(Chip(lambda _: None), tmp_path, "cuda:0") == (None, reasons)


@pytest.mark.usefixtures("nvml")
def test_no_binding_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvml", None)
    with pytest.raises(CounterError, match=r"NVML cannot be imported \(.*\); run `pip install -U cuda-bindings`"):
        energy.counter_of("cuda:0")


def stretch(busy_joules: float, idle_joules: float = 5.0) -> Stretch:
    return Stretch(idle_joules=idle_joules, idle_seconds=0.5, busy_joules=busy_joules, busy_seconds=1.0, images=100)


def test_a_summary_is_exact_and_a_disturbed_stretch_does_not_move_it() -> None:
    """12 J of work is 2 J beyond idling, 20 mJ an image; of ten stretches two are cut at either end."""
    calm = [stretch(12.0), stretch(12.2)] * 5
    found = energy.summarize("RAPL package-0", 1, calm)
    assert found.joules_per_image == pytest.approx(0.021)
    # Yuen: ten values 1 mJ either side of 21, winsorized to themselves: sqrt(10 / (6 * 5)) mJ, t of 5 is 2.5706
    assert found.joules_per_image_ci95.high - found.joules_per_image == pytest.approx(1e-3 * 2.5706 / 3**0.5, rel=1e-4)
    assert (found.images, found.seconds, found.idle_watts) == (1000, 10.0, 10.0)
    assert found.busy_watts == pytest.approx(12.1)
    disturbed = energy.summarize("RAPL package-0", 1, [*calm[:-1], stretch(40.0)])
    assert disturbed.joules_per_image == pytest.approx(0.021)


def test_what_changes_between_stretches_meets_rest_and_work_alike() -> None:
    """The chip, or a neighbour, takes 10 W more from the sixth stretch on."""
    found = energy.summarize("RAPL package-0", 1, [stretch(12.0)] * 5 + [stretch(22.0, 10.0)] * 5)
    assert found.joules_per_image == pytest.approx(0.02)
    assert found.joules_per_image_ci95.low == pytest.approx(0.02)


def test_records_from_before_have_none() -> None:
    assert msgspec.json.decode(b"{}", type=Measured).energy is None
