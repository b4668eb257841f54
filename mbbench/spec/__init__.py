"""Requests as plain frozen data: a network, the settings of a measurement, a cell, a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from mbbench.errors import UsageError, choose_one
from mbbench.families import FILE_FAMILIES, Family, Variant, family_info
from mbbench.spec.bounds import BOUNDS, SETTINGS, require_fields

Padding = Literal["symmetric", "keras"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Scenario = Literal["single-stream", "multi-stream", "offline", "server"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Channels = Literal["rgb", "bgr"]
Size = tuple[int, int]  # height and width of an image, in pixels
Triple = tuple[float, float, float]  # one number for each of red, green and blue

# What decoding a stored record or a manifest refuses. The bounds are far beyond anything that can be measured.
Name = Annotated[str, Meta(max_length=1024)]
Text = Annotated[str, Meta(max_length=65_536)]  # sentences, paths and names of graph nodes
Count = Annotated[int, Meta(ge=0, le=10**15)]
Total = Annotated[int, Meta(ge=1, le=10**15)]  # that something is divided by
Real = Annotated[float, Meta(ge=-1e40, le=1e40)]  # fp32 ends there
Amount = Annotated[float, Meta(ge=0, le=1e40)]
Duration = Annotated[float, Meta(ge=1e-9, le=1e9)]  # of something that takes time
Number = Annotated[int, Meta(le=10**9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Digest = Annotated[str, Meta(max_length=64, pattern="^[0-9a-f]*$")]

PARITY_IMAGES = 16  # number of test images on which a session is compared with PyTorch before its latency is measured


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A network's architecture. Raises `UsageError` for an invalid one.

    `alpha` is the width multiplier, of families that have one. `variant` is `standard` or one that the family has:
    `full-conv` replaces every depthwise separable block of MobileNetV1 by a full 3x3 convolution (the paper's Table 4);
    `shallow` omits its five 14x14x512 blocks (Table 5); `5x5` is GoogLeNet with the 5x5 convolutions of its paper;
    `grouped` is AlexNet with the channels and groups of its paper. `padding`, of MobileNetV1 and Xception: checkpoints
    of Keras need `keras`, which pads right and bottom only at stride 2 (in Xception, if the size is even). `widths`:
    the output channels of a pruned MobileNetV1's stem and blocks; None: those of Table 1 times `alpha`.

    `resolution` is the side of the square input. Only a network in a file can take other images: then `resolution` is
    their height, and `width` their width. Of a network in a file, `name` is the file's name without its suffix, and
    `sha256` that of its normal form; before the file is read, `sha256` is empty and `name` is its path.
    """

    family: Family = "mobilenet_v1"
    alpha: float = 1.0
    resolution: int = 224
    classes: Annotated[int, Meta(le=10**6)] = 1000
    variant: Variant = "standard"
    padding: Padding = "symmetric"
    widths: tuple[Annotated[int, Meta(ge=1, le=10**5)], ...] | None = None
    name: Text = ""
    sha256: Digest = ""
    width: Annotated[int, Meta(ge=1, le=10**6)] | None = None

    def __post_init__(self) -> None:
        info = family_info(self.family)
        require_fields(self, "alpha", "classes")
        sides = BOUNDS["resolution"]
        replace(sides, name=f"{sides.name} of {info.label or 'a file'}", low=info.smallest).require(self.resolution)
        if self.alpha != 1.0 and not info.has_alpha:
            raise UsageError(f"{info.label} has no width multiplier: {self.alpha:g}", "omit --alpha")
        if self.variant != "standard" and self.variant not in info.variants:
            remedy = choose_one(self.variant, ("standard", *info.variants)) if info.variants else "omit --variant"
            raise UsageError(f"{info.label} has no variant {self.variant!r}", remedy)

    @property
    def size(self) -> Size:
        """The height and width of its images."""
        return self.resolution, self.width or self.resolution

    @property
    def is_file(self) -> bool:
        """Whether the network is an ONNX file."""
        return self.family in FILE_FAMILIES

    @property
    def label(self) -> str:
        """The name in the paper's style: `0.5 MobileNet-128`, `Shallow 1.0 MobileNet-224`, `VGG16-224`.

        The size of an input that is not square is width x height: `mine-320x240`.
        """
        info = family_info(self.family)
        alpha = f"{self.alpha:.1f}" if round(self.alpha, 1) == self.alpha else f"{self.alpha:g}"
        words = (
            info.variants.get(self.variant),
            alpha if info.has_alpha else None,
            f"{info.label or self.name}-{f'{self.width}x' if self.width else ''}{self.resolution}",
            None if self.widths is None else "pruned",
        )
        return " ".join(word for word in words if word)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes the input that a checkpoint was trained on. Raises `UsageError` for an invalid value.

    The image is resized by `interpolation` until the network's input is the share `crop` of its shorter side, and cut
    out of the center; None: the data set's share, 0.875 for files and 1 for digits and Fashion-MNIST. A pixel of a
    channel then becomes (pixel / 255 - mean) / std. `mean` and `std` are in the order red, green, blue, whatever the
    order of the input's `channels`.
    """

    mean: Triple = (0.5, 0.5, 0.5)  # with `std`: from -1 to 1
    std: Triple = (0.5, 0.5, 0.5)
    crop: float | None = None
    interpolation: Interpolation = "bilinear"
    channels: Channels = "rgb"

    def __post_init__(self) -> None:
        for bound, triple in ((BOUNDS["mean"], self.mean), (BOUNDS["std"], self.std)):
            if len(triple) != 3 or not all(map(bound.holds, triple)):
                raise UsageError(
                    f"{bound.name} is out of range: {','.join(f'{number:g}' for number in triple)}",
                    f"give red, green and blue, each {bound.range}: divide numbers for pixels from 0 to 255 by 255",
                )
        require_fields(self, "crop")
        for name, value, choices in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("channels", self.channels, get_args(Channels)),
        ):
            if value not in choices:
                raise UsageError(f"unknown {name}: {value!r}", choose_one(value, choices))


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingOptions:
    """What the options say about preprocessing; None: as usual for the checkpoint. Raises `UsageError`."""

    mean: Triple | None = None
    std: Triple | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None
    channels: Channels | None = None

    def __post_init__(self) -> None:
        self.applied_to(Preprocessing())

    def applied_to(self, usual: Preprocessing) -> Preprocessing:
        """Return `usual` with what the options say."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return replace(usual, **{name: value for name, value in values.items() if value is not None})


def content_key(*parts: object) -> str:
    """Return a stable key for `parts` (plain data): the first 16 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to measure: counts, and times in the unit of each name. Raises `UsageError` for an invalid value."""

    threads: Number = 1
    batch: Number = 1  # images in one timed call
    warmup_max_s: float = 5.0  # warm-up ends when the latency is steady, or after this time
    min_samples: Number = 662  # minimum number of timed calls: enough for a valid p99
    min_s: float = 2.0  # minimum time of timed calls; they continue until the median's interval is within 1 %
    max_s: float = 15.0  # maximum time of warm-up, timed calls and throughput; the calls get at least half
    bulk_batch: Number = 16  # images in one call of the throughput and accuracy phases
    throughput_s: float = 2.0
    energy_s: float = 10.0  # back-to-back calls, plus half as long idle; only where an energy counter exists
    timeout_s: float = 900.0  # of the child process, without the time of `sustain_s`
    sustain_s: float | None = None  # duration of back-to-back calls that show throttling; None: none
    idle_ms: float | None = None  # longest pause before a call, to show the cost of waking up; None: no pauses
    scenarios: tuple[Scenario, ...] = ()  # of MLPerf Inference
    streams: Number | None = None  # requests computed at once in offline and server; None: the runtime chooses
    scenario_s: float = 5.0  # duration of a scenario; the search for the server's rate takes several times that
    bound_ms: Annotated[float, Meta(le=1e9)] = 15.0  # limit of the server's p99; MLPerf's for ResNet50

    def __post_init__(self) -> None:
        require_fields(self, *SETTINGS)
        for scenario in self.scenarios:
            if scenario not in get_args(Scenario):
                remedy = choose_one(scenario, get_args(Scenario))
                raise UsageError(f"unknown scenario: {scenario!r}", f"{remedy}, or all")
        if self.max_s < self.min_s:
            raise UsageError(f"max_s {self.max_s:g} is below min_s {self.min_s:g}", "raise max_s or lower min_s")


@dataclass(frozen=True, slots=True)
class Shard:
    """A range of test images: the half-open range [start, stop)."""

    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One network on one backend and device in one precision: a row of a report."""

    model: ModelSpec
    role: Literal["subject", "baseline"]
    weights: Text | None  # None: train; otherwise "random", "imagenet", a checkpoint's path or an import ("keras:FILE")
    backend: Name
    device: Name  # "": the backend's first
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise UsageError(f"unknown precision: {self.precision!r}", choose_one(self.precision, get_args(Precision)))

    @property
    def label(self) -> str:
        """`0.5 MobileNet-128 in int8 on openvino`; fp32 is omitted."""
        precision = "" if self.precision == "fp32" else f" in {self.precision}"
        return f"{self.model.label}{precision} on {self.backend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """A whole run, from profile and options."""

    cells: tuple[Cell, ...]
    data: str
    images: int | None  # number of test images; None: all
    settings: Settings
    calibration: str | None = None  # data to calibrate INT8 with; None: the data's training split; or "random"
    max_drop: float | None = None  # largest top-1 loss against fp32, in points
    accuracy_control: bool = False  # keep layers in fp32 until max_drop is met
    require_effective: bool = False  # fail a cell that does not run in the requested precision
    preprocessing: PreprocessingOptions = PreprocessingOptions()
    labels: str | None = None  # file that maps the data's classes to the network's outputs
    skip_broken: bool = False  # leave out images that cannot be decoded
    optional_backends: tuple[str, ...] = ()  # named only by `all`: what they do not support is not a failure
