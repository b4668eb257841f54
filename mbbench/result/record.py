"""The stored record of one cell: request, machine, measurements, and the reason for every missing value.

Schema history:
    1  first release
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

import msgspec

from mbbench.doctor import Check
from mbbench.errors import BackendError, MbbenchError
from mbbench.machine import Machine
from mbbench.result.measured import Measured
from mbbench.result.setup import Setup
from mbbench.spec import Cell, Preprocessing, Settings

LabelSource = Literal["order", "imagenet", "file"]

SCHEMA = 1

# The raw samples, which make up most of a record's JSON.
SAMPLES_JSON = re.compile(rb'"samples_ms":\[([^\]]*)\]')


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionShare:
    """The layers that ran in one precision, and their share (0 to 1) of the network's Mult-Adds."""

    precision: str
    mult_adds_share: float
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedInfo:
    """The precisions in which the convolutions and fully connected layers ran, as reported by the runtime."""

    shares: tuple[PrecisionShare, ...]
    fp32_layers: tuple[str, ...]
    moves: int  # number of nodes that only convert or reorder tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """The time, Mult-Adds and memory traffic of a convolution or fully connected layer.

    `median_ms` is the total of all executed nodes that implement it, including fused activations. `moved_bytes` counts
    its input, weights and output once each, for a batch, in the width of `precision`.
    """

    name: str
    type: str  # as in the paper
    precision: str
    median_ms: float
    mult_adds: int  # for a batch
    moved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """The parts of a call's time: layers, nodes that only convert or reorder tensors (`moves_ms`), and the rest."""

    runs: int
    layers: tuple[LayerTime, ...]
    moves_ms: float
    other_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The machine's peak rates on the run's number of threads: the roofs of a roofline."""

    threads: int
    mult_adds_per_s: dict[str, float]  # by precision
    memory_bytes_per_s: float  # from arrays larger than any cache
    cache_bytes_per_s: float  # from arrays that fit in a core's private caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as part of a record."""

    cause: str
    remedy: str
    exit_code: int

    @classmethod
    def from_error(cls, error: BaseException) -> Self:
        """Return the failure of `error`; an error other than `MbbenchError` is a bug of mbbench or of a library."""
        if not isinstance(error, MbbenchError):
            cause = f"{type(error).__name__}: {error}"
            return cls(cause=cause, remedy="report this bug", exit_code=1)
        return cls(cause=error.cause, remedy=error.remedy, exit_code=error.exit_code)

    @property
    def is_unsupported(self) -> bool:
        """Whether the backend, its runtime or its device is missing, or does not support the cell."""
        return self.exit_code == BackendError.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """Where the weights are from. `notes`: how a file was read, such as `read from state_dict_ema`."""

    origin: Literal["trained", "file", "imported", "random"]
    key: str
    trained_on: str | None  # the data set's fingerprint
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSizes:
    """The number of images in the splits of a folder, broken ones included."""

    train: int
    test: int

    @property
    def text(self) -> str:
        return f"{self.train or 'no'} training and {self.test} test images"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    """The test images.

    `skipped`: the number of broken images that --skip-broken left out. `splits`: of a folder; None: of other data, and
    in older records. The fingerprint depends on both.
    """

    name: str
    images: int
    classes: int
    fingerprint: str
    preprocess: str  # fingerprint of the decoding and resizing code
    skipped: int = 0
    splits: SplitSizes | None = None

    @property
    def key(self) -> msgspec.Raw:
        """The data as JSON for the ids of results: without the fields that older records lack."""
        names = ("name", "images", "classes", "fingerprint", "preprocess")
        return msgspec.Raw(msgspec.json.encode({name: getattr(self, name) for name in names}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsInfo:
    """Which of the network's outputs stands for each class of the data.

    `source`: `order` (the classes in the order of their names), `imagenet` (ImageNet's classes, by synset or name) or
    `file` (--labels). `names`: output -> class; empty for ImageNet's, whose order is known. `background`: output 0 is
    none of ImageNet's 1000 classes, the others follow it. `key`: of the mapping; empty if class i is output i.
    """

    source: LabelSource
    names: dict[int, str]
    background: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostInfo:
    """The network's computation and memory, from its architecture."""

    mult_adds: int
    parameters: int
    weight_bytes: int
    activation_peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to quantize, and its results on images held out from calibration."""

    ranges: Literal["minmax", "mean", "percentile", "mse"]
    equalized: bool
    corrected: bool  # weights rounded jointly, and biases corrected
    share: float  # of right answers, 0 to 1
    logit_rmse: float  # against fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationInfo:
    """How the network was quantized. `judged_by`: right answers are the labels, or fp32's without usable labels."""

    calibration: str  # the data's name, or "random"
    calibration_fingerprint: str
    images: int
    held_out: int
    judged_by: Literal["top1", "agreement"]
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    kept_fp32: tuple[str, ...]  # nodes kept in fp32 by the dialect or by accuracy control


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInfo:
    """The artifact on disk."""

    format: str
    dialect: str
    size_bytes: int
    sha256: str
    max_abs_error: float | None  # of the format's reference implementation against PyTorch; None for INT8


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The record of one cell. An unknown value is None, with its reason in `reasons` or in `failure`.

    `preprocessing`: None: the default of the network's family. `labels`: None in older records, and where no labels
    could be used.
    """

    schema: int
    id: str
    time_utc: str
    cell: Cell
    settings: Settings
    versions: dict[str, str]
    machine: Machine
    conditions: tuple[Check, ...]
    weights: WeightsInfo | None
    data: DataInfo | None
    cost: CostInfo | None
    artifact: ArtifactInfo | None
    quantization: QuantizationInfo | None
    executed: ExecutedInfo | None
    measured: Measured
    failure: Failure | None
    reasons: dict[str, str]  # dotted name of a null field -> reason
    layer_times: LayerTimes | None = None
    ceilings: Ceilings | None = None
    preprocessing: Preprocessing | None = None
    labels: LabelsInfo | None = None

    @property
    def setup(self) -> Setup:
        """What was measured, where and how.

        Records of before 2026-11-27 have no name for the default device: it was the CPU unless the runtime names
        another.
        """
        labels_key = "" if self.labels is None else self.labels.key
        device = self.cell.device or self.measured.effective.get("device", "cpu")
        return Setup(
            machine=self.machine.id,
            model=self.cell.model,
            weights=(self.cell.weights, self.preprocessing),
            backend=self.cell.backend,
            device=device.lower(),
            precision=self.cell.precision,
            threads=self.settings.threads,
            batch=self.settings.batch,
            data=None if self.data is None else f"{self.data.fingerprint} {labels_key}".rstrip(),
        )

    def median_ms(self) -> float | None:
        """Return the median latency."""
        return None if self.measured.latency is None else self.measured.latency.median_ms

    def top1(self) -> float | None:
        """Return the top-1 accuracy, 0 to 1."""
        return None if self.measured.accuracy is None else self.measured.accuracy.top1

    def joules_per_image(self) -> float | None:
        """Return the energy of an image above idle."""
        return None if self.measured.energy is None else self.measured.energy.joules_per_image

    def size_bytes(self) -> int | None:
        """Return the size of the artifact on disk."""
        return None if self.artifact is None else self.artifact.size_bytes

    def peak_rss_bytes(self) -> int | None:
        """Return the peak once inference is steady, before the throughput and accuracy phases."""
        return next((memory.peak_rss_bytes for memory in self.measured.memory if memory.phase == "steady"), None)

    def added_rss_bytes(self) -> int | None:
        """Return the memory that the runtime and the network added to the process, or None without readings.

        It is the steady peak minus the resident memory at the end of phase `start`, before the runtime is imported:
        that of Python, NumPy, mbbench and the input images.
        """
        peak = self.peak_rss_bytes()
        start = next((memory.rss_bytes for memory in self.measured.memory if memory.phase == "start"), None)
        return None if peak is None or start is None else peak - start
