"""Energy of simulated chips: a tree of powercap files, a fake NVML and a scripted clock."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from mbbench.errors import BackendError
from mbbench.measure import energy
from mbbench.measure.energy import Rapl
from mbbench.result import Energy, Measured, Stretch
from mbbench.testing import FakeClock

RANGE_UJ = 262_143_328_850


def zone(root: Path, folder: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ) -> Path:
    """Write a power zone as the kernel exposes it; return the file of its counter."""
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
    file = path / "energy_uj"
    file.write_text(f"{energy_uj}\n")
    return file


class Chip:
    """A chip that draws 10 W at rest and 30 W in a call of 4 ms.

    It passes the µJ so far to `publish` every `update_ms`.
    """

    def __init__(self, publish: Callable[[int], object], update_ms: int = 1) -> None:
        self.clock = FakeClock()
        self.calls = 0
        self._publish, self._interval_ns = publish, update_ms * 1_000_000
        self._nanojoules = 0

    def _spend(self, ns: int, watts: int) -> None:
        self.clock.now_ns += ns
        self._nanojoules += watts * ns
        since_update_ns = self.clock.now_ns % self._interval_ns
        if since_update_ns < ns:
            self._publish((self._nanojoules - watts * since_update_ns) // 1000)

    def sleep(self, seconds: float) -> None:
        self._spend(round(seconds * 1e9), 10)

    def call(self) -> None:
        self.calls += 1
        self._spend(4_000_000, 30)


def measure(chip: Chip, root: Path, device: str = "CPU", seconds: float = 1.0) -> tuple[Energy | None, dict[str, str]]:
    return energy.measure_energy(
        chip.call, batch=2, device=device, seconds=seconds, root=root, clock=chip.clock, sleep=chip.sleep
    )


@pytest.mark.parametrize("update_ms", [1, 100])
def test_idle_power_is_subtracted_at_any_update_interval(tmp_path: Path, update_ms: int) -> None:
    """A call draws 20 W above idle for 4 ms: 80 mJ for two images."""
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)), update_ms)
    figures, reasons = measure(chip, tmp_path)
    assert figures is not None
    assert reasons == {}
    assert figures.joules_per_image == pytest.approx(0.04, rel=1e-9)
    assert (figures.joules_per_image_ci95.low, figures.joules_per_image_ci95.high) == pytest.approx((0.04, 0.04))
    assert figures.idle_watts == pytest.approx(10.0)
    assert (figures.counter, figures.batch, figures.images) == ("RAPL package-0", 2, 2 * chip.calls)
    assert 1.0 <= figures.seconds <= 1.0 + 10 * (update_ms / 1e3 + 0.004)
    busy = 30 * 0.004 * chip.calls + 10 * (figures.seconds - 0.004 * chip.calls)
    assert figures.busy_watts == pytest.approx(busy / figures.seconds)


def test_each_stretch_follows_a_rest_half_as_long(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)))
    figures, _ = measure(chip, tmp_path)
    assert figures is not None
    assert len(figures.stretches) == 10
    assert {stretch.images for stretch in figures.stretches} == {50}
    assert {stretch.busy_seconds for stretch in figures.stretches} == {0.101}
    assert {stretch.idle_seconds for stretch in figures.stretches} == {0.051}


def test_a_call_longer_than_a_stretch_runs_once_in_each(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)))
    figures, _ = measure(chip, tmp_path, seconds=0.01)
    assert figures is not None
    assert chip.calls == 10
    assert figures.joules_per_image == pytest.approx(0.04, rel=1e-9)


def test_a_counter_that_wraps_around_loses_nothing(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0", range_uj=4_500_000)
    figures, _ = measure(Chip(lambda uj: file.write_text(str(uj % 4_500_000))), tmp_path)
    assert figures is not None
    assert figures.joules_per_image == pytest.approx(0.04, rel=1e-9)
    assert figures.idle_watts == pytest.approx(10.0)


def test_packages_and_dram_are_summed_without_double_counting(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    zone(tmp_path, "intel-rapl:0:0", "core")
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", 65_000, 65_535)
    second = zone(tmp_path, "intel-rapl:1", "package-1", RANGE_UJ - 5)
    second_dram = zone(tmp_path, "intel-rapl:1:0", "dram")
    psys = zone(tmp_path, "intel-rapl:2", "psys")
    mmio = zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    counter = Rapl(tmp_path)
    assert counter.name == "RAPL package-0, dram, package-1"
    assert counter.microjoules() == 0
    first.write_text("1100")  # 1,000 more
    dram.write_text("465")  # 1,000 more, after wrapping around
    second.write_text("15")  # 20 more, after wrapping around
    second_dram.write_text("3")
    psys.write_text("7000000")
    mmio.write_text("7000000")
    assert counter.microjoules() == 2023
    assert counter.microjoules() == 2023


def test_without_a_counter_a_reason_is_returned_at_once(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "psys")
    chip = Chip(lambda _: None)
    reason = "the kernel exposes no RAPL counter, as in most virtual machines"
    assert measure(chip, tmp_path) == (None, {"energy": reason})
    assert (chip.calls, chip.clock.now_ns) == (0, 0)


def test_the_reason_for_an_unreadable_counter_tells_how_to_permit_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    read_text = Path.read_text

    def denied(path: Path, *args: Any, **kwargs: Any) -> str:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", denied)
    chip = Chip(lambda _: None)
    figures, reasons = measure(chip, tmp_path)
    assert figures is None
    assert reasons["energy"].startswith("only root may read RAPL")
    assert "`sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`" in reasons["energy"]
    assert chip.clock.now_ns == 0


def test_a_counter_that_fails_during_the_phase_is_a_reason(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj) if uj < 6_000_000 else "?"))
    figures, reasons = measure(chip, tmp_path)
    assert figures is None
    assert reasons["energy"].startswith("RAPL cannot be read (invalid literal")


def test_a_counter_that_does_not_change_is_a_reason(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    chip = Chip(lambda _: None)
    assert measure(chip, tmp_path) == (None, {"energy": "RAPL package-0 did not change for 1 s"})
    assert chip.calls == 0


def test_an_error_of_the_runtime_is_raised(tmp_path: Path) -> None:
    file = zone(tmp_path, "intel-rapl:0", "package-0")
    chip = Chip(lambda uj: file.write_text(str(uj)))

    def call() -> None:
        raise BackendError("the device is lost", "restart it")

    with pytest.raises(BackendError):
        energy.measure_energy(call, batch=1, device="cpu", seconds=1, root=tmp_path, clock=chip.clock, sleep=chip.sleep)


@pytest.mark.parametrize("device", ["NPU", "GPU.1", "cuda"])
def test_other_devices_have_no_counter(tmp_path: Path, device: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    reasons = {"energy": f"no energy counter is known for the device {device}"}
    assert measure(Chip(lambda _: None), tmp_path, device) == (None, reasons)


class FakeBoard:
    """A GPU that draws the energy it is told."""

    uj: ClassVar[dict[int, int]] = {}

    def __init__(self, index: int) -> None:
        if index not in self.uj:
            raise BackendError("NVML cannot find the GPU (Not Found)", "check the driver")
        self._index = index

    def microjoules(self) -> int:
        if self.uj[self._index] < 0:
            raise BackendError("NVML reports no energy (Not Supported)", "see the driver's documentation")
        return self.uj[self._index]


@pytest.fixture(autouse=True)
def boards(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    monkeypatch.setattr(FakeBoard, "uj", {0: 1_000_000_000})
    monkeypatch.setattr("mbbench.nvidia.nvml.Board", FakeBoard)
    return FakeBoard.uj


def test_the_energy_of_a_gpu_is_its_boards(tmp_path: Path, boards: dict[int, int]) -> None:
    chip = Chip(lambda uj: boards.update({0: uj}), update_ms=100)
    figures, reasons = measure(chip, tmp_path, "cuda:0")
    assert reasons == {}
    assert figures is not None
    assert figures.counter == "NVML cuda:0"
    assert figures.joules_per_image == pytest.approx(0.04, rel=1e-9)


def test_a_gpu_without_a_counter_has_a_reason(tmp_path: Path, boards: dict[int, int]) -> None:
    boards[0] = -1
    reasons = {"energy": "NVML reports no energy (Not Supported); see the driver's documentation"}
    assert measure(Chip(lambda _: None), tmp_path, "cuda:0") == (None, reasons)
    reasons = {"energy": "NVML cannot find the GPU (Not Found); check the driver"}
    assert measure(Chip(lambda _: None), tmp_path, "cuda:1") == (None, reasons)


def stretch(busy_joules: float, idle_joules: float = 5.0) -> Stretch:
    return Stretch(idle_joules=idle_joules, idle_seconds=0.5, busy_joules=busy_joules, busy_seconds=1.0, images=100)


def test_a_disturbed_stretch_does_not_change_the_figures() -> None:
    """12 J of work are 2 J above idle, 20 mJ per image; two of ten stretches are trimmed at either end."""
    undisturbed = [stretch(12.0), stretch(12.2)] * 5
    figures = energy.energy_figures("RAPL package-0", 1, undisturbed)
    assert figures.joules_per_image == pytest.approx(0.021)
    # Yuen: ten values at 21 mJ +- 1 mJ, unchanged by winsorizing: sqrt(10 / (6 * 5)) mJ; t with 5 df is 2.5706.
    assert figures.joules_per_image_ci95.high - figures.joules_per_image == pytest.approx(
        1e-3 * 2.5706 / 3**0.5, rel=1e-4
    )
    assert (figures.images, figures.seconds, figures.idle_watts) == (1000, 10.0, 10.0)
    assert figures.busy_watts == pytest.approx(12.1)
    disturbed = energy.energy_figures("RAPL package-0", 1, [*undisturbed[:-1], stretch(40.0)])
    assert disturbed.joules_per_image == pytest.approx(0.021)


def test_a_change_between_stretches_affects_rest_and_work_alike() -> None:
    """The chip, or another process, draws 10 W more from the sixth stretch on."""
    figures = energy.energy_figures("RAPL package-0", 1, [stretch(12.0)] * 5 + [stretch(22.0, 10.0)] * 5)
    assert figures.joules_per_image == pytest.approx(0.02)
    assert figures.joules_per_image_ci95.low == pytest.approx(0.02)


def test_records_without_energy_can_be_read() -> None:
    assert msgspec.json.decode(b"{}", type=Measured).energy is None
