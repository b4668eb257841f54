"""Joules per inference: energy that the chip counts during back-to-back calls, minus its energy at rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Protocol

from mbbench.errors import BackendError
from mbbench.machine.kernel import read_text
from mbbench.measure.latency import Clock, no_garbage_collection
from mbbench.nvidia import nvml
from mbbench.result import Energy, Stretch
from mbbench.stats import trimmed_effect

_STRETCHES = 10  # fewer would leave few degrees of freedom, and so a wide interval of the trimmed mean
_SETTLE_S = 0.25  # between work and measured rest, since runtimes let their threads spin for a while
_POLL_S = 0.0005  # RAPL is updated about every millisecond, NVML every 20 to 100 ms
_STUCK_S = 1.0  # a counter that does not change for this long does not work

Sleep = Callable[[float], None]


class CounterError(Exception):
    """The reason the energy is unknown."""


class Counter(Protocol):
    """An energy counter of a chip."""

    name: str

    def microjoules(self) -> int:
        """Return the energy since a fixed moment; it never decreases. Raises `CounterError`."""


class Rapl:
    """The sum of all packages of a machine, and of their DRAM where the chip counts it: packages exclude it.

    Other domains are not added: `core` and `uncore` are parts of a package, `intel-rapl-mmio` repeats a package, and
    the board's maker decides what `psys` counts.
    """

    def __init__(self, root: Path) -> None:
        zones = {
            folder: name
            for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
            if (name := read_text(folder / "name").strip()).startswith(("package", "dram"))
        }
        if not zones:
            raise CounterError("the kernel exposes no RAPL counter, as in most virtual machines")
        self.name = f"RAPL {', '.join(dict.fromkeys(zones.values()))}"
        self._ranges = {folder / "energy_uj": _read_integer(folder / "max_energy_range_uj") for folder in zones}
        self._last = {file: _read_integer(file) for file in self._ranges}
        self._total = 0

    def microjoules(self) -> int:
        """Return the energy since construction. Call it before a counter wraps around, which takes minutes."""
        for file, range_uj in self._ranges.items():
            now = _read_integer(file)
            self._total += (now - self._last[file]) % range_uj
            self._last[file] = now
        return self._total


def _read_integer(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise CounterError(
            "only root may read RAPL, so that processes cannot spy on each other; run"
            " `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` to allow every user until the next boot"
        ) from error
    except (OSError, ValueError) as error:
        raise CounterError(f"RAPL cannot be read ({error})") from error


class Nvml:
    """A GPU's energy counter."""

    def __init__(self, index: int) -> None:
        self.name = f"NVML cuda:{index}"
        with _reasons():
            self._board = nvml.Board(index)

    def microjoules(self) -> int:
        with _reasons():
            return self._board.microjoules()


@contextmanager
def _reasons() -> Iterator[None]:
    try:
        yield
    except BackendError as error:
        raise CounterError(str(error)) from error


def open_counter(device: str, root: Path = Path("/")) -> Counter:
    """Return the energy counter of the chip behind `device`; raises `CounterError`."""
    kind, _, index = device.lower().partition(":")
    if kind.startswith("cpu"):
        return Rapl(root)
    if kind == "cuda" and index.isdecimal():
        return Nvml(int(index))
    raise CounterError(f"no energy counter is known for the device {device}")


def measure_energy(
    call: Callable[[], object],
    *,
    batch: int,
    device: str,
    seconds: float,
    root: Path = Path("/"),
    clock: Clock = perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> tuple[Energy | None, dict[str, str]]:
    """Return the energy per image of back-to-back calls of `batch` images, or None and the reason.

    Without a counter nothing is called and no time is spent.
    """
    try:
        counter = open_counter(device, root)
        with no_garbage_collection():
            stretches = measure_stretches(call, counter, batch=batch, seconds=seconds, clock=clock, sleep=sleep)
    except CounterError as error:
        return None, {"energy": str(error)}
    return energy_figures(counter.name, batch, stretches), {}


def measure_stretches(
    call: Callable[[], object],
    counter: Counter,
    *,
    batch: int,
    seconds: float,
    clock: Clock = perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> tuple[Stretch, ...]:
    """Measure ten stretches of calls, at least `seconds` in total, each after a rest half as long.

    Each stretch has a separate rest. Stretches are therefore independent, and changes during the phase (heat, other
    processes) affect work and rest alike.
    """
    length_s = seconds / _STRETCHES
    stretches = []
    for _ in range(_STRETCHES):
        sleep(_SETTLE_S)
        start_ns, start_uj = _wait_for_update(counter, clock, sleep)
        sleep(length_s / 2)
        rested_ns, rested_uj = _wait_for_update(counter, clock, sleep)
        calls = 0
        while not calls or clock() < rested_ns + length_s * 1e9:
            call()
            calls += 1
        end_ns, end_uj = _wait_for_update(counter, clock, sleep)
        stretches.append(
            Stretch(
                idle_joules=(rested_uj - start_uj) / 1e6,
                idle_seconds=(rested_ns - start_ns) / 1e9,
                busy_joules=(end_uj - rested_uj) / 1e6,
                busy_seconds=(end_ns - rested_ns) / 1e9,
                images=calls * batch,
            )
        )
    return tuple(stretches)


def _wait_for_update(counter: Counter, clock: Clock, sleep: Sleep) -> tuple[int, int]:
    """Sleep until the counter changes and return (ns, µJ), so that a stretch's time and energy end together.

    Otherwise up to a tenth of a second of NVML's energy would be missing. The device idles during the wait, and idle
    power is subtracted.
    """
    before_uj = counter.microjoules()
    deadline = clock() + _STUCK_S * 1e9
    while clock() < deadline:
        sleep(_POLL_S)
        if (now_uj := counter.microjoules()) != before_uj:
            return clock(), now_uj
    raise CounterError(f"{counter.name} did not change for {_STUCK_S:g} s")


def energy_figures(counter: str, batch: int, stretches: Sequence[Stretch]) -> Energy:
    """Return the figures of an energy phase.

    The mean is trimmed because another process may disturb a stretch or two.
    """
    images = sum(stretch.images for stretch in stretches)
    idle_s = sum(stretch.idle_seconds for stretch in stretches)
    busy_s = sum(stretch.busy_seconds for stretch in stretches)
    effect = trimmed_effect(
        [
            (stretch.busy_joules - stretch.idle_joules / stretch.idle_seconds * stretch.busy_seconds) / stretch.images
            for stretch in stretches
        ]
    )
    assert effect is not None  # ten stretches suffice
    return Energy(
        counter=counter,
        batch=batch,
        stretches=tuple(stretches),
        images=images,
        seconds=busy_s,
        joules_per_image=effect.estimate,
        joules_per_image_ci95=effect.ci95,
        idle_watts=sum(stretch.idle_joules for stretch in stretches) / idle_s,
        busy_watts=sum(stretch.busy_joules for stretch in stretches) / busy_s,
    )
