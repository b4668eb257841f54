"""The measurements of one cell, as reported by the measuring child process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from mbbench.backend import Executed, NodeTime
from mbbench.spec import Amount, Count, Duration, Name, Real, Scenario, Share, Text, Total
from mbbench.stats import Interval

Phase = Literal["start", "import", "load", "compile", "first_inference", "steady"]
Samples = Annotated[tuple[Duration, ...], Meta(max_length=10**8)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """The times from a new process to the first result."""

    import_s: Amount
    load_s: Amount | None  # None: included in compile_s
    compile_s: Amount
    first_inference_ms: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The session's logits compared with PyTorch's, on the first images of the test set.

    INT8 is compared with its Q/DQ graph computed in floats.
    """

    images: Count
    max_abs_error: Amount | None  # None: the logits are not finite or have the wrong shape
    tolerance: Amount
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """The calls before timing. `steady`: they ended because the latency was steady, not because time was up."""

    runs: Count
    seconds: Amount
    steady: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The times of blocking calls of `batch` images, from host memory to host memory.

    `samples_ms` are in the order measured, rounded to 0.05 %. `imprecise`: the median's interval was still wider than
    1 % to either side when time was up. `outliers`: the number of samples beyond Tukey's outer fences; they are not
    removed. `drift`: the last quarter's median over the first quarter's, minus 1.
    """

    batch: Total
    warm_up: WarmUp
    samples_ms: Samples
    n: Total
    min_ms: Duration
    median_ms: Duration
    median_ci95_ms: Interval | None
    p90_ms: Duration | None
    p99_ms: Duration | None
    imprecise: bool | None = None  # None in records written before this field existed; the same for the next two
    outliers: Count | None = None
    drift: Real | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A period of back-to-back calls in sustained mode; `start_s` is relative to the first call."""

    start_s: Amount
    n: Total
    median_ms: Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedCalls:
    """Calls that each follow a pause, as on a device that runs inference now and then."""

    pause_ms: Amount
    n: Total
    median_ms: Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One replicate of the energy phase: an idle period, then back-to-back calls. Joules are as counted."""

    idle_joules: Amount
    idle_seconds: Amount
    busy_joules: Amount
    busy_seconds: Amount
    images: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """The energy of an image above idle: the mean of `stretches` without their lowest and highest fifth.

    `counter` is the energy counter; it counts the whole chip, including other processes. `idle_watts` is the power with
    an open session and a sleeping process. The interval shows how well the stretches agree, not the counter's accuracy.
    """

    counter: Name
    batch: Total
    stretches: tuple[Stretch, ...]
    images: Total
    seconds: Duration  # of calls
    joules_per_image: Real
    joules_per_image_ci95: Interval
    idle_watts: Real
    busy_watts: Real


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Images completed by back-to-back blocking calls of `batch` images: counted, not 1/latency."""

    batch: Total
    images: Total
    seconds: Duration
    images_per_s: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioResult:
    """The result of a scenario modeled on MLPerf Inference, with queries of `batch` images each.

    `single-stream`: one query of one image at a time. `multi-stream`: one query of eight images at a time. `offline`:
    as many requests of the cell's batch size at once as the runtime takes. `server`: queries of one image that arrive
    at random (Poisson) at `arrivals_per_s`, the highest rate found at which 99 % were answered within `bound_ms`.

    A query's latency starts at its arrival and includes waiting. Samples are in order of arrival, rounded to 0.05 %.
    """

    scenario: Scenario
    batch: Total
    queries: Total
    seconds: Duration
    images_per_s: Amount
    samples_ms: Samples = ()  # empty for offline, which has no arrivals
    p50_ms: Duration | None = None
    p90_ms: Duration | None = None
    p99_ms: Duration | None = None
    arrivals_per_s: Amount | None = None
    bound_ms: Duration | None = None
    over_bound: Count | None = None  # number of queries answered after more than bound_ms
    effective: dict[Name, Text] = field(default_factory=dict)  # streams, requests, ... as reported by the runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The child process's resident memory at the end of a phase, and its peak (the kernel's high-water mark) so far."""

    phase: Phase
    rss_bytes: Count
    peak_rss_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Top1Drop:
    """Top-1 lost against the fp32 reference on the same images. Shares are 0 to 1; a gain is negative.

    `p_value` is McNemar's exact test of any difference. `worst_class` is the class that lost most.
    """

    share: Real
    ci95: Interval
    only_reference_right: Count
    only_this_right: Count
    p_value: Share
    worst_class: Count
    worst_class_share: Real
    by_class: tuple[Real, ...] = ()  # share lost of each class's images


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Accuracy on the test images. Shares are 0 to 1; `agreement` with the top-1 class of PyTorch's fp32 reference."""

    images: Total
    top1: Share | None
    top1_ci95: Interval | None
    top5: Share | None
    top5_ci95: Interval | None
    agreement: Share
    agreement_ci95: Interval
    max_abs_logit_error: Amount
    mean_abs_logit_error: Amount
    drop: Top1Drop | None  # None: no labels
    wrong: tuple[Count, ...] | None = None  # indices in the test set of the misclassified images; None: no labels


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTimes:
    """Medians over `n` calls of each part of a call, by the device's clock; `Latency` is by the host's clock."""

    n: Total
    to_device_ms: Amount
    compute_ms: Amount
    to_host_ms: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The child process's measurements; each field is set when its phase ends."""

    effective: dict[Name, Text] = field(default_factory=dict)
    parity: Parity | None = None
    cold: ColdStart | None = None
    latency: Latency | None = None
    throughput: Throughput | None = None  # the highest of `throughputs`
    memory: tuple[Memory, ...] = ()
    accuracy: Accuracy | None = None
    layers: tuple[Executed, ...] = ()
    node_times: tuple[NodeTime, ...] = ()
    node_runs: Count | None = None  # number of calls that `node_times` are medians of
    sustained: tuple[Window, ...] = ()
    duty_cycle: tuple[PausedCalls, ...] = ()
    served: tuple[ScenarioResult, ...] = ()
    energy: Energy | None = None
    device_times: DeviceTimes | None = None
    device_memory_bytes: Count | None = None  # once inference is steady, as in `Result.peak_rss_bytes`
    throughputs: tuple[Throughput, ...] = ()  # by batch size; empty in records written before this field existed
