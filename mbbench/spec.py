"""What is asked for, as plain frozen data: a model and a cell to measure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from mbbench.errors import UsageError

Family = Literal["mobilenet_v1", "vgg16", "googlenet"]
Variant = Literal["standard", "full-conv", "shallow"]
Padding = Literal["symmetric", "keras"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Scenario = Literal["single-stream", "multi-stream", "offline", "server"]

MAX_ALPHA = 8.0  # about 205 M parameters; a few steps wider and the weights exceed what one ONNX file holds (2 GB)
MIN_RESOLUTION = 32  # the stem and the four strided blocks leave one pixel
MAX_RESOLUTION = 2048
PARITY_IMAGES = 16  # the first test images, on which every session is compared with PyTorch before it is timed

_FAMILY_NAMES: dict[Family, str] = {"mobilenet_v1": "MobileNet", "vgg16": "VGG16", "googlenet": "GoogLeNet"}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A network's architecture. `alpha` (the width multiplier) and `variant` apply to MobileNetV1 alone.

    `variant`: `full-conv` replaces every depthwise separable block by a full 3x3 convolution (the paper's Table 4);
    `shallow` leaves out the five 14x14x512 blocks (Table 5). `padding` is MobileNetV1's too: checkpoints of Keras need
    Keras's, which at stride 2 is right and bottom only. `widths` are a pruned MobileNetV1's output channels, of the
    stem and of each block, in place of the table's times `alpha`. Raises `UsageError` for what cannot be built.
    """

    family: Family = "mobilenet_v1"
    alpha: float = 1.0
    resolution: int = 224
    classes: int = 1000
    variant: Variant = "standard"
    padding: Padding = "symmetric"
    widths: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("model", self.family, get_args(Family)),
            ("variant", self.variant, get_args(Variant)),
        ):
            if value not in known:
                raise UsageError(f"unknown {name} {value!r}", f"choose one of {', '.join(known)}")
        if not 0 < self.alpha <= MAX_ALPHA:  # also refuses NaN
            raise UsageError(
                f"alpha {self.alpha:g} is outside (0, {MAX_ALPHA:g}]",
                "the paper's width multipliers are 0.25, 0.5, 0.75 and 1.0",
            )
        if not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION:
            raise UsageError(
                f"resolution {self.resolution} is outside {MIN_RESOLUTION} to {MAX_RESOLUTION}",
                "the paper's resolutions are 128, 160, 192 and 224",
            )
        if self.classes < 2:
            raise UsageError(f"{self.classes} classes cannot be told apart", "a classifier needs at least 2")
        if self.family != "mobilenet_v1" and (self.alpha != 1.0 or self.variant != "standard"):
            raise UsageError(
                f"{_FAMILY_NAMES[self.family]} has no width multiplier and no variants",
                "leave out --alpha and --variant",
            )

    @property
    def label(self) -> str:
        """The paper's name: `0.5 MobileNet-128`, `Shallow 1.0 MobileNet-224`, `VGG16-224`."""
        name = f"{_FAMILY_NAMES[self.family]}-{self.resolution}"
        if self.family != "mobilenet_v1":
            return name
        if self.widths is not None:
            name = f"{name} pruned"
        prefix = {"standard": "", "full-conv": "Conv ", "shallow": "Shallow "}[self.variant]
        alpha = f"{self.alpha:.1f}" if round(self.alpha, 1) == self.alpha else f"{self.alpha:g}"
        return f"{prefix}{alpha} {name}"


def content_key(*parts: object) -> str:
    """A short, stable name for what `parts` (plain data) say: 16 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:16]


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """`100ms`, `90s`, `10m`, `1.5h`. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no time", "write it like 100ms, 90s, 10m or 1h")
    return float(match[1]) * _UNITS[match[2]]


_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def bytes_of(text: str) -> float:
    """`5MB`, `1.5GB`, `512KiB`. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)", text.strip())
    if match is None or match[2] not in _BYTES:
        raise UsageError(f"{text!r} is no size", f"write it like 5MB; units are {', '.join(_BYTES)}")
    return float(match[1]) * _BYTES[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure. Times are in seconds; a phase ends at its count or its time, as its comment says."""

    threads: int = 1
    batch: int = 1  # images in one timed call
    warmup_max_s: float = 5.0  # warm-up ends when the latency has settled, at this time at the latest
    min_samples: int = 662  # timed calls wanted: enough for a valid p99
    min_s: float = 2.0  # ... and at least this long, and until the median's interval is within 1 %
    max_s: float = 15.0  # ... but never longer than this
    bulk_batch: int = 16  # images in one call of the throughput and accuracy phases
    throughput_s: float = 2.0
    energy_s: float = 10.0  # back-to-back calls, and half as long at rest, where the chip counts its energy
    timeout_s: float = 900.0  # for the whole child process, less what `sustain_s` asks for
    sustain_s: float | None = None  # back-to-back calls for so long show throttling
    idle_ms: float | None = None  # calls after pauses of up to so long show what waking up costs
    scenarios: tuple[Scenario, ...] = ()  # MLPerf Inference's ways of asking
    streams: int | None = None  # requests computed at once in offline and server; None: as the runtime wants
    scenario_s: float = 5.0  # for a scenario; the search for the server's rate takes several times that
    bound_ms: float = 15.0  # that the server's p99 must keep; MLPerf's for ResNet50

    def __post_init__(self) -> None:
        for name in ("threads", "batch", "bulk_batch", "min_samples"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", "it counts something: give at least 1")
        for name in ("warmup_max_s", "min_s", "max_s", "throughput_s", "energy_s", "timeout_s", "scenario_s"):
            if not 0 < getattr(self, name) < 86_400:
                raise UsageError(f"{name} is {getattr(self, name):g}", "give seconds, more than 0 and less than a day")
        for name, limit, unit in (("sustain_s", 86_400, "seconds"), ("idle_ms", 60_000, "milliseconds")):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= limit:
                raise UsageError(f"{name} is {value:g}", f"give {unit}, 1 to {limit}")
        for scenario in self.scenarios:
            if scenario not in get_args(Scenario):
                raise UsageError(f"unknown scenario {scenario!r}", f"choose of {', '.join(get_args(Scenario))}, or all")
        if self.streams is not None and self.streams < 1:
            raise UsageError(f"streams is {self.streams}", "give at least 1, or leave it to the runtime")
        if not self.bound_ms > 0:
            raise UsageError(f"a bound of {self.bound_ms:g} ms cannot be kept", "give more than 0")
        if self.max_s < self.min_s:
            raise UsageError(f"max_s {self.max_s:g} is below min_s {self.min_s:g}", "raise max_s or lower min_s")


@dataclass(frozen=True, slots=True)
class Shard:
    """Test images from `start` up to `stop`, that one left out."""

    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of a report: this model on this backend and device."""

    model: ModelSpec
    role: Literal["subject", "baseline"]
    weights: str | None  # None: train the embedded default; "random"; or a checkpoint's path
    backend: str
    device: str  # "": the backend's first
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise UsageError(f"unknown precision {self.precision!r}", f"choose one of {', '.join(get_args(Precision))}")

    @property
    def label(self) -> str:
        """`0.5 MobileNet-128 in int8 on openvino`; fp32 goes without saying."""
        precision = "" if self.precision == "fp32" else f" in {self.precision}"
        return f"{self.model.label}{precision} on {self.backend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """All that `mbbench run` was asked for, after profile and options were joined."""

    cells: tuple[Cell, ...]
    data: str
    images: int | None  # evaluate on this many test images; None: all
    settings: Settings
    calibration: str | None = None  # data to calibrate INT8 with; None: the data's training split; or "random"
    max_drop: float | None = None  # the top-1 that may be lost against fp32, in points
    accuracy_control: bool = False  # keep layers in fp32 until max_drop holds
    require_effective: bool = False  # fail a cell that does not run in the precision asked for
