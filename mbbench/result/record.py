"""The stored record of one cell: request, machine, measurements, and the reason for every missing value.

Schema history:
    1  first release
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from msgspec import Meta

from mbbench.doctor import Check
from mbbench.errors import BackendError, MbbenchError
from mbbench.machine import Machine
from mbbench.result.data import DataInfo, LabelsInfo
from mbbench.result.measured import Measured
from mbbench.result.setup import Setup
from mbbench.spec import Amount, Cell, Count, Digest, Name, Preprocessing, Settings, Share, Text, Total

Timestamp = Annotated[
    str,
    Meta(
        max_length=40,
        pattern=r"^20\d\d-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
        r"(T([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?(Z|[+-][012]\d:[0-5]\d)?)?$",
    ),
]

SCHEMA = 1
_MAX_CAUSE = 10_000  # characters: some runtimes list a whole graph

# The raw samples, which make up most of a record's JSON.
SAMPLES_JSON = re.compile(rb'"samples_ms":\[([^\]]*)\]')


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionShare:
    """The layers that ran in one precision, and their share (0 to 1) of the network's Mult-Adds."""

    precision: Name
    mult_adds_share: Share
    layers: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedInfo:
    """The precisions in which the convolutions and fully connected layers ran, as reported by the runtime."""

    shares: tuple[PrecisionShare, ...]
    fp32_layers: tuple[Text, ...]
    moves: Count  # number of nodes that only convert or reorder tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """The time, Mult-Adds and memory traffic of a convolution or fully connected layer.

    `median_ms` is the total of all executed nodes that implement it, including fused activations. `moved_bytes` counts
    its input, weights and output once each, for a batch, in the width of `precision`.
    """

    name: Text
    type: Text  # as in the paper
    precision: Name
    median_ms: Amount
    mult_adds: Count  # for a batch
    moved_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """The parts of a call's time: layers, nodes that only convert or reorder tensors (`moves_ms`), and the rest."""

    runs: Count
    layers: tuple[LayerTime, ...]
    moves_ms: Amount
    other_ms: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The machine's peak rates on the run's number of threads: the roofs of a roofline."""

    threads: Total
    mult_adds_per_s: dict[Name, Amount]  # by precision
    memory_bytes_per_s: Amount  # from arrays larger than any cache
    cache_bytes_per_s: Amount  # from arrays that fit in a core's private caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as part of a record."""

    cause: Text
    remedy: Text
    exit_code: int

    @classmethod
    def from_error(cls, error: BaseException) -> Self:
        """Return the failure of `error`; an error other than `MbbenchError` is a bug of mbbench or of a library."""
        if not isinstance(error, MbbenchError):
            cause = f"{type(error).__name__}: {error}"
            return cls(cause=cause[:_MAX_CAUSE], remedy="report this bug", exit_code=1)
        return cls(cause=error.cause[:_MAX_CAUSE], remedy=error.remedy, exit_code=error.exit_code)

    @property
    def is_unsupported(self) -> bool:
        """Whether the backend, its runtime or its device is missing, or does not support the cell."""
        return self.exit_code == BackendError.exit_code

    @property
    def is_interruption(self) -> bool:
        """Whether a signal ended the measurement: the exit code is 128 + its number."""
        return self.exit_code > 128


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    """Where the weights are from. `notes`: how a file was read, such as `read from state_dict_ema`."""

    origin: Literal["trained", "file", "imported", "random"]
    key: Name
    trained_on: Name | None  # the data set's fingerprint
    notes: tuple[Text, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CostInfo:
    """The network's computation and memory, from its architecture."""

    mult_adds: Count
    parameters: Count
    weight_bytes: Count
    activation_peak_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to quantize, and its results on images held out from calibration."""

    ranges: Literal["minmax", "mean", "percentile", "mse"]
    equalized: bool
    corrected: bool  # weights rounded jointly, and biases corrected
    share: Share  # of right answers, 0 to 1
    logit_rmse: Amount  # against fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationInfo:
    """How the network was quantized. `judged_by`: right answers are the labels, or fp32's without usable labels."""

    calibration: Text  # the data's name, or "random"
    calibration_fingerprint: Name
    images: Count
    held_out: Count
    judged_by: Literal["top1", "agreement"]
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    kept_fp32: tuple[Text, ...]  # nodes kept in fp32 by the dialect or by accuracy control


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInfo:
    """The artifact on disk."""

    format: Annotated[str, Meta(pattern=r"^[\w.+-]{1,64}$")]  # part of file names
    dialect: Name
    size_bytes: Count
    sha256: Digest
    max_abs_error: Amount | None  # of the format's reference implementation against PyTorch; None for INT8


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The record of one cell. An unknown value is None, with its reason in `reasons` or in `failure`.

    `preprocessing`: None: the default of the network's family. `labels`: None in older records, and where no labels
    could be used.
    """

    schema: int
    id: Name
    time_utc: Timestamp
    cell: Cell
    settings: Settings
    versions: dict[Name, Name]
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
    reasons: dict[Name, Text]  # dotted name of a null field -> reason
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
