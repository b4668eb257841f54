"""The numbers that options accept: one table for the command line, profiles and settings.

An option, the profile's key and the field of a record that mean the same share an entry, named after the field. So a
value is refused by the same rule in the same words wherever it comes from, and the error names the option.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from mbbench.errors import UsageError

MAX_CELLS = 10_000  # of a run, and numbers in one list


@dataclass(frozen=True, slots=True)
class Bound:
    """The numbers from `low` to `high`; `above` and `below`: not these two themselves.

    `name` is the option, or the key of a setting that no option sets. `unit` follows a number in an error, `hint` the
    range.
    """

    name: str
    low: float
    high: float
    unit: str = ""
    hint: str = ""
    above: bool = False
    below: bool = False

    @property
    def range(self) -> str:
        """`32 to 2048 pixels`, `1ms to 60000ms`, `more than 0 and at most 8`."""
        repeated = "" if self.unit.startswith(" ") else self.unit  # a word is written once
        low, high = f"{_digits(self.low)}{repeated}", f"{_digits(self.high)}{self.unit}"
        if not self.above and not self.below:
            return f"{low} to {high}"
        first, last = ("more than" if self.above else "at least"), ("less than" if self.below else "at most")
        return f"{first} {low} and {last} {high}"

    def holds(self, value: float) -> bool:
        """Return whether `value` is within the bounds; NaN never is."""
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def require(self, value: float, text: str | None = None) -> None:
        """Raise `UsageError` unless `value` is within the bounds. `text`: as the user wrote it, if not as a number."""
        if not self.holds(value):
            shown = f"{_digits(value)}{self.unit}" if text is None else text
            hint = f", {self.hint}" if self.hint else ""
            raise UsageError(f"{self.name} is out of range: {shown}", f"give {self.range}{hint}")


def _digits(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.10g}"


_DAY_S = 86_400
_WIDTHS = "such as 0.25, 0.5, 0.75 or 1.0"
_SIZE = Bound("", 0, 100_000, "GB", above=True)

# `ModelSpec`, `Preprocessing` and what decides how many cells a run has.
_NETWORK = {
    "alpha": Bound("--alpha", 0, 8, hint=_WIDTHS, above=True),  # wider ones exceed the 2 GB limit of an ONNX file
    "resolution": Bound("--res", 1, 2048, " pixels", "such as 128, 160, 192 or 224"),  # `ModelSpec` raises the lowest
    "classes": Bound("--classes", 2, 100_000),
    "mean": Bound("--mean", -1, 1),
    "std": Bound("--std", 0.001, 1),  # Caffe's networks have a std of 1/255
    "crop": Bound("--crop", 0.25, 1, hint="a share such as 0.875"),
}
# `Settings`; times in the unit of each name.
_SETTINGS = {
    "threads": Bound("--threads", 1, 4096),
    "batch": Bound("--batch", 1, 100_000, " images"),
    "bulk_batch": Bound("bulk_batch", 1, 100_000, " images"),
    "min_samples": Bound("min_samples", 1, 10_000_000),
    **{
        name: Bound(name, 0, _DAY_S, "s", above=True, below=True)
        for name in ("warmup_max_s", "min_s", "max_s", "throughput_s", "energy_s", "timeout_s", "scenario_s")
    },
    "sustain_s": Bound("--sustain", 1, _DAY_S, "s"),
    "idle_ms": Bound("--idle", 1, 60_000, "ms"),
    "streams": Bound("--streams", 1, 4096),
    "bound_ms": Bound("--bound", 0, 60_000, "ms", above=True),
}
# `Profile`.
_PROFILE = {
    "images": Bound("--images", 1, 10_000_000, hint="or leave it out to use all"),
    "max_drop": Bound("--max-drop", 0, 100, " points"),
}
# Options that only one command has.
_COMMANDS = {
    "epochs": Bound("--epochs", 1, 10_000),
    "teacher_alpha": Bound("--teacher-alpha", 0, 8, hint=_WIDTHS, above=True),
    "prune": Bound("--prune", 0, 100, "%", above=True, below=True),
    "max_latency_s": Bound("--max-latency", 0, _DAY_S, "s", "such as 10ms", above=True),
    "rounds": Bound("--rounds", 5, 10_000, hint="preferably 20: fewer cannot show the spread"),
    "time_s": Bound("--time", 1, 3600, "s"),
    "predict": Bound("--predict", 5, MAX_CELLS, " networks"),
    "max_cells": Bound("--max-cells", 1, MAX_CELLS, " networks"),
    "max_p99_s": Bound("--max-p99", 0, _DAY_S, "s", "such as 10ms", above=True),
    "min_top1": Bound("--min-top1", 0, 100, "%"),
    "max_rss_gb": replace(_SIZE, name="--max-rss"),
    "max_added_rss_gb": replace(_SIZE, name="--max-added-rss"),
    "max_size_gb": replace(_SIZE, name="--max-size"),
}
BOUNDS: Mapping[str, Bound] = MappingProxyType(_NETWORK | _SETTINGS | _PROFILE | _COMMANDS)


def require_fields(record: object, *names: str) -> None:
    """Raise `UsageError` if one of these fields is out of bounds; None is within them."""
    for name in names:
        value = getattr(record, name)
        if value is not None:
            BOUNDS[name].require(value)


def require_countable(problem: str, count: int) -> None:
    """Raise `UsageError`, with `problem`, if `count` is more than `MAX_CELLS`: call this before they are made."""
    if count > MAX_CELLS:
        raise UsageError(f"{problem}: {count}", f"give at most {MAX_CELLS}, with fewer values or a larger step")


SETTINGS = tuple(_SETTINGS)
PROFILE = tuple(_PROFILE)
