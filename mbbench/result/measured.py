"""What the measuring child process reports of one cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mbbench.backend import Executed, NodeTime
from mbbench.spec import Scenario
from mbbench.stats import Interval

Phase = Literal["start", "import", "load", "compile", "first_inference", "steady"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cold:
    """What it takes to get ready in a fresh process, and the first answer."""

    import_s: float
    load_s: float | None  # None: within compile_s
    compile_s: float
    first_inference_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The session's logits against PyTorch's, on the first images of the test set."""

    images: int
    max_abs_error: float | None  # None: outputs are not finite or of the wrong shape
    tolerance: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    runs: int
    seconds: float
    steady: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One blocking call of `batch` images, host memory to host memory, in the order measured, to 0.05 %.

    `imprecise`: the median's interval was still wider than 1 % to either side when time was up. `outliers` lie beyond
    Tukey's outer fences; they are counted and stay. `drift`: the last quarter's median over the first's, less 1.
    """

    batch: int
    warm_up: WarmUp
    samples_ms: tuple[float, ...]
    n: int
    min_ms: float
    median_ms: float
    median_ci95_ms: Interval | None
    p90_ms: float | None
    p99_ms: float | None
    imprecise: bool | None = None  # None in records from before it was told, as in the two that follow
    outliers: int | None = None
    drift: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of back-to-back calls in sustained mode, and where it begins."""

    start_s: float
    n: int
    median_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Calls that follow a pause each: the duty cycle of a device that does something now and then."""

    pause_ms: float
    n: int
    median_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Back-to-back calls, and the rest before them; joules are the counter's, nothing subtracted."""

    idle_joules: float
    idle_seconds: float
    busy_joules: float
    busy_seconds: float
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What an image takes beyond idling: the mean of `stretches` without the lowest and the highest fifth of them.

    `counter`: what was read. It counts a whole chip, other processes too. `idle_watts` are of an open session and a
    sleeping process. The interval tells how far the stretches agree, not how right the counter is.
    """

    counter: str
    batch: int
    stretches: tuple[Stretch, ...]
    images: int
    seconds: float  # of calls
    joules_per_image: float
    joules_per_image_ci95: Interval
    idle_watts: float
    busy_watts: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Images completed in a time window by back-to-back blocking calls of `batch` images: counted, not 1/latency."""

    batch: int
    images: int
    seconds: float
    images_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a scenario after MLPerf Inference came to: queries of `batch` images each.

    `single-stream`: one query at a time, of one image. `multi-stream`: the same, of eight. `offline`: as many requests
    under way as the runtime takes, of the cell's batch. `server`: queries of one image that arrive at random (Poisson),
    at `arrivals_per_s`, the largest rate found at which 99 % were answered within `bound_ms`.

    A query's latency counts from its arrival, waiting included; samples are in the order of arrival, to 0.05 %.
    """

    scenario: Scenario
    batch: int
    queries: int
    seconds: float
    images_per_s: float
    samples_ms: tuple[float, ...] = ()  # none in offline, which has no arrivals
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    arrivals_per_s: float | None = None
    bound_ms: float | None = None
    over_bound: int | None = None  # queries answered later than that
    effective: dict[str, str] = field(default_factory=dict)  # streams, requests, ... as the runtime says


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The child process's resident memory at the end of a phase, and the kernel's high-water mark by then."""

    phase: Phase
    rss_bytes: int
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Top-1 lost against the fp32 reference on the same images; shares are 0 to 1, and a gain is negative.

    `p_value` is McNemar's exact test of whether the two differ at all. `worst_class` is the one that lost most.
    """

    share: float
    ci95: Interval
    only_reference_right: int
    only_this_right: int
    p_value: float
    worst_class: int
    worst_class_share: float
    by_class: tuple[float, ...] = ()  # of each class's images, the share lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Shares are 0 to 1. `agreement`: how often the top-1 class equals the PyTorch fp32 reference's."""

    images: int
    top1: float | None
    top1_ci95: Interval | None
    top5: float | None
    top5_ci95: Interval | None
    agreement: float
    agreement_ci95: Interval
    max_abs_logit_error: float
    mean_abs_logit_error: float
    drop: Drop | None  # None: no labels
    wrong: tuple[int, ...] | None = None  # the images answered wrongly, by their place in the test set; None: no labels


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTimes:
    """Medians of `n` calls, each for itself. The host's view of the same is `Latency`."""

    n: int
    to_device_ms: float
    compute_ms: float
    to_host_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the child process brings back; fields fill in as its phases end."""

    effective: dict[str, str] = field(default_factory=dict)
    parity: Parity | None = None
    cold: Cold | None = None
    latency: Latency | None = None
    throughput: Throughput | None = None
    memory: tuple[Memory, ...] = ()
    accuracy: Accuracy | None = None
    layers: tuple[Executed, ...] = ()
    node_times: tuple[NodeTime, ...] = ()
    node_runs: int | None = None  # the calls that `node_times` are medians of
    sustained: tuple[Window, ...] = ()
    duty_cycle: tuple[Wake, ...] = ()
    served: tuple[Served, ...] = ()
    energy: Energy | None = None
    device_times: DeviceTimes | None = None
    device_memory_bytes: int | None = None  # held once inference is steady, as `Result.peak_rss_bytes`
