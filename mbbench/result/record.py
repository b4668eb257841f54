"""The stored record of one cell: request, machine, measurement, and the reason of every missing figure.

Schema history:
    1  first release
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from mbbench.doctor import Check
from mbbench.errors import MbbenchError
from mbbench.machine import Machine
from mbbench.result.measured import Measured
from mbbench.spec import Cell, Settings

SCHEMA = 1

# The raw samples in a record's JSON, which are most of it.
SAMPLES_JSON = re.compile(rb'"samples_ms":\[([^\]]*)\]')


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionShare:
    precision: str
    mult_adds_share: float  # 0 to 1
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedInfo:
    """What ran in which precision, by the runtime's own account; layers are convolutions and fully connected ones."""

    shares: tuple[PrecisionShare, ...]
    fp32_layers: tuple[str, ...]
    moves: int  # nodes that only convert or reorder tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """A convolution or fully connected layer of the model: its share of the time, and what it computes and moves.

    `median_ms` is that of all executed nodes that stem from it, fused activations included. `moved_bytes`
    are its input, weights and output, each once, in the width of `precision`, of a batch.
    """

    name: str
    type: str  # the paper's layer type
    precision: str
    median_ms: float
    mult_adds: int  # of a batch
    moved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTimes:
    """Where a call's time goes. `moves_ms`: nodes that only convert or reorder tensors; `other_ms`: what is left."""

    runs: int
    layers: tuple[LayerTime, ...]
    moves_ms: float
    other_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What the machine can do at most on the threads measured with: the roofs of a roofline."""

    threads: int
    mult_adds_per_s: dict[str, float]  # by precision
    memory_bytes_per_s: float  # from arrays larger than any cache
    cache_bytes_per_s: float  # from arrays that fit a core's own caches


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    cause: str
    remedy: str
    exit_code: int

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Any other than ours is a fault, of ours or of a library."""
        if not isinstance(error, MbbenchError):
            cause = f"{type(error).__name__}: {error}"
            return cls(cause=cause, remedy="this is a fault: please report it", exit_code=1)
        return cls(cause=error.cause, remedy=error.remedy, exit_code=error.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsInfo:
    origin: Literal["trained", "file", "imported", "random"]
    key: str
    trained_on: str | None  # the data set's fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class DataInfo:
    name: str
    images: int
    classes: int
    fingerprint: str
    preprocess: str  # the decoding and resizing path's fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class CostInfo:
    mult_adds: int
    parameters: int
    weight_bytes: int
    activation_peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to quantize, tried on images held out from calibration."""

    ranges: Literal["minmax", "percentile", "mse"]
    equalized: bool
    corrected: bool  # weights rounded together, and biases
    share: float  # of right answers, 0 to 1
    logit_rmse: float  # against fp32


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationInfo:
    """How INT8 was made. `judged_by`: right answers are the labels', or fp32's where labels mean nothing."""

    calibration: str  # the data's name, or "random"
    calibration_fingerprint: str
    images: int
    held_out: int
    judged_by: Literal["top1", "agreement"]
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    kept_fp32: tuple[str, ...]  # nodes that the dialect and accuracy control leave alone


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactInfo:
    format: str
    dialect: str
    size_bytes: int
    sha256: str
    max_abs_error: float | None  # its outputs, by the format's reference implementation, against PyTorch's; INT8: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
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
    reasons: dict[str, str]  # why a field is null, by its dotted name
    layer_times: LayerTimes | None = None
    ceilings: Ceilings | None = None

    def median_ms(self) -> float | None:
        return None if self.measured.latency is None else self.measured.latency.median_ms

    def top1(self) -> float | None:
        """A share, 0 to 1."""
        return None if self.measured.accuracy is None else self.measured.accuracy.top1

    def joules_per_image(self) -> float | None:
        """Beyond idling."""
        return None if self.measured.energy is None else self.measured.energy.joules_per_image

    def size_bytes(self) -> int | None:
        """Of the artifact on disk."""
        return None if self.artifact is None else self.artifact.size_bytes

    def peak_rss_bytes(self) -> int | None:
        """The high-water mark once inference is steady, before the throughput and accuracy phases."""
        return next((m.peak_rss_bytes for m in self.measured.memory if m.phase == "steady"), None)
