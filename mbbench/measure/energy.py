"""Joules per inference: what chips count of their own energy while they work, less what they take at rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from time import perf_counter_ns
from typing import Protocol

from mbbench.machine import read_text
from mbbench.measure.latency import Clock, no_garbage_collection
from mbbench.result import Energy, Stretch
from mbbench.stats import trimmed_effect

_STRETCHES = 10  # with fewer the interval of their trimmed mean would be wide for want of degrees of freedom
_SETTLE_S = 0.25  # after work, before rest counts: runtimes let their threads spin for a while
_POLL_S = 0.0005  # RAPL is updated about every millisecond, NVML every 20 to 100
_STILL_S = 1.0  # a counter that does not move for so long counts nothing

Sleep = Callable[[float], None]


class CounterError(Exception):
    """Why the energy is not known."""


class Counter(Protocol):
    name: str

    def microjoules(self) -> int:
        """Since some moment, never less than before; raises `CounterError`."""


class Rapl:
    """All of a machine's packages, and their DRAM where the chip counts it, since a package is without.

    The other domains are not added: `core` and `uncore` are parts of a package, `intel-rapl-mmio` shows a package once
    more, and what `psys` counts is up to each board's maker.
    """

    def __init__(self, root: Path) -> None:
        zones = {
            folder: name
            for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
            if (name := read_text(folder / "name").strip()).startswith(("package", "dram"))
        }
        if not zones:
            raise CounterError("the kernel shows no RAPL counter, as in most virtual machines")
        self.name = f"RAPL {', '.join(dict.fromkeys(zones.values()))}"
        self._ranges = {folder / "energy_uj": _number(folder / "max_energy_range_uj") for folder in zones}
        self._last = {file: _number(file) for file in self._ranges}
        self._total = 0

    def microjoules(self) -> int:
        """To be asked more often than a counter wraps around, which takes minutes."""
        for file, range_uj in self._ranges.items():
            now = _number(file)
            self._total += (now - self._last[file]) % range_uj
            self._last[file] = now
        return self._total


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise CounterError(
            "only root may read RAPL, lest processes spy on each other; to let everybody until the next boot, run"
            " `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`"
        ) from error
    except (OSError, ValueError) as error:
        raise CounterError(f"RAPL cannot be read ({error})") from error


class Nvml:
    """A GPU's own counter, of the whole board, since its driver was loaded; Volta was the first to have one."""

    def __init__(self, index: int) -> None:
        self.name = f"NVML cuda:{index}"
        try:
            self._nvml, runtime = map(import_module, ("cuda.bindings.nvml", "cuda.bindings.runtime"))
        except ImportError as error:
            raise CounterError(
                f"NVML cannot be imported ({error}); run `pip install -U cuda-bindings`, to 12.9.6, 13.2 or newer"
            ) from error
        try:
            self._nvml.init_v2()
            # NVML numbers all GPUs in the order of their slots, CUDA those that it may see in an order of its own.
            _, slot = runtime.cudaDeviceGetPCIBusId(32, index)
            self._gpu = self._nvml.device_get_handle_by_pci_bus_id_v2(slot.partition(b"\0")[0].decode())
        except Exception as error:  # whatever the driver raises, and the search for it
            raise CounterError(f"{self.name} cannot be opened ({error})") from error

    def microjoules(self) -> int:
        try:
            return 1000 * int(self._nvml.device_get_total_energy_consumption(self._gpu))
        except Exception as error:  # as above
            raise CounterError(f"{self.name} tells no energy ({error})") from error


def counter_of(device: str, root: Path = Path("/")) -> Counter:
    """The counter of the chip that a device is; raises `CounterError`."""
    kind, _, index = device.lower().partition(":")
    if kind.startswith("cpu"):
        return Rapl(root)
    if kind == "cuda" and index.isdecimal():
        return Nvml(int(index))
    raise CounterError(f"no counter is known for the device {device}")


def measure(
    call: Callable[[], object],
    *,
    batch: int,
    device: str,
    seconds: float,
    root: Path = Path("/"),
    clock: Clock = perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> tuple[Energy | None, dict[str, str]]:
    """What an image takes in back-to-back calls of `batch` images; or why that is not known, in no time."""
    try:
        counter = counter_of(device, root)
        with no_garbage_collection():
            found = stretches(call, counter, batch=batch, seconds=seconds, clock=clock, sleep=sleep)
    except CounterError as error:
        return None, {"energy": str(error)}
    return summarize(counter.name, batch, found), {}


def stretches(
    call: Callable[[], object],
    counter: Counter,
    *,
    batch: int,
    seconds: float,
    clock: Clock = perf_counter_ns,
    sleep: Sleep = time.sleep,
) -> tuple[Stretch, ...]:
    """Ten stretches of calls, of at least `seconds` together, each after a rest that is half as long.

    Each has a rest of its own, so that they are independent and what changes in between (heat, other processes) meets
    both alike.
    """
    length_s = seconds / _STRETCHES
    found = []
    for _ in range(_STRETCHES):
        sleep(_SETTLE_S)
        start_ns, start_uj = _update(counter, clock, sleep)
        sleep(length_s / 2)
        rested_ns, rested_uj = _update(counter, clock, sleep)
        calls = 0
        while not calls or clock() < rested_ns + length_s * 1e9:
            call()
            calls += 1
        end_ns, end_uj = _update(counter, clock, sleep)
        found.append(
            Stretch(
                idle_joules=(rested_uj - start_uj) / 1e6,
                idle_seconds=(rested_ns - start_ns) / 1e9,
                busy_joules=(end_uj - rested_uj) / 1e6,
                busy_seconds=(end_ns - rested_ns) / 1e9,
                images=calls * batch,
            )
        )
    return tuple(found)


def _update(counter: Counter, clock: Clock, sleep: Sleep) -> tuple[int, int]:
    """(ns, µJ) when the counter has just been updated: a stretch then ends where its energy ends.

    Else up to a tenth of a second of NVML's would be missing. The wait is at rest, and rest is subtracted.
    """
    before_uj = counter.microjoules()
    latest = clock() + _STILL_S * 1e9
    while clock() < latest:
        sleep(_POLL_S)
        if (now_uj := counter.microjoules()) != before_uj:
            return clock(), now_uj
    raise CounterError(f"{counter.name} does not move")


def summarize(counter: str, batch: int, stretches: Sequence[Stretch]) -> Energy:
    """The figures of an energy phase; trimmed, since another process may fall on a stretch or two."""
    images = sum(one.images for one in stretches)
    idle_s, busy_s = sum(one.idle_seconds for one in stretches), sum(one.busy_seconds for one in stretches)
    effect = trimmed_effect(
        [(one.busy_joules - one.idle_joules / one.idle_seconds * one.busy_seconds) / one.images for one in stretches]
    )
    assert effect is not None  # there are ten
    return Energy(
        counter=counter,
        batch=batch,
        stretches=tuple(stretches),
        images=images,
        seconds=busy_s,
        joules_per_image=effect.estimate,
        joules_per_image_ci95=effect.ci95,
        idle_watts=sum(one.idle_joules for one in stretches) / idle_s,
        busy_watts=sum(one.busy_joules for one in stretches) / busy_s,
    )
