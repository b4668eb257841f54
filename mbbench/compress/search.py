"""Post-training quantization of a network, by the method with the smallest error on validation images.

Validation images are training images that calibration does not use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.backend import Dialect
from mbbench.compress import calibrate, quantize
from mbbench.compress.calibrate import Calibration, Range, RangeMethod
from mbbench.errors import UsageError
from mbbench.graphs.onnx import with_parameters
from mbbench.result import Candidate, QuantizationInfo
from mbbench.spec import ModelSpec, content_key

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from torch import nn

_SEARCH_VERSION = 9  # raise it when the search makes other files from the same input
_RANGE_METHODS: tuple[RangeMethod, ...] = ("minmax", "mean", "percentile", "mse")
_UNKNOWN_ERROR = 3.4e38  # of logits that are not finite, such as a logarithm of 0; records hold no NaN
_ALIKE = 0.05  # errors that differ by at most this share are told apart by the answers
_RANKING_IMAGES = 64  # validation images that rank the layers by their error
_CORRECTION_IMAGES = 64  # calibration images that errors are corrected on; all are in memory at once, several times
_CORRECTION_BYTES = 640_000_000  # largest activations of these images together: VGG19's would need 17 GB of memory
_MIN_CORRECTION_IMAGES = 16


@dataclass(frozen=True, slots=True)
class Quantization:
    """How to quantize a network: its fp32 ONNX file, and the ranges of its activations.

    It holds for every dialect that shares the search (`best_quantization`).
    """

    graph: Path
    ranges: Mapping[str, Range]
    info: QuantizationInfo

    def write(self, dialect: Dialect) -> onnx.ModelProto:
        """Return the Q/DQ graph in `dialect`."""
        import onnx

        return quantize.write(onnx.load(self.graph), self.ranges, dialect, keep_fp32=self.info.kept_fp32)


class _Record(msgspec.Struct, frozen=True):
    """What is stored next to the fp32 ONNX file."""

    ranges: dict[str, Range]
    info: QuantizationInfo


def best_quantization(
    spec: ModelSpec,
    weights_key: str,
    build: Callable[[], nn.Module],
    load: Callable[[], Calibration],
    calibration_key: str,
    *,
    dialect: Dialect = "u8s8",
    max_drop: float | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Quantization:
    """Return the best quantization of the network that `build()` returns, from the cache if it was searched before.

    Each way to choose ranges is tried on the network as it is and on the equalized network, and the best way of each
    once more with errors corrected on calibration images. The winner has the least squared error of the logits; among
    those with hardly more, the most correct validation images (without labels: the most that agree with fp32). Shares
    of a few hundred images differ by chance alone. `dialect` is the dialect to be written; u8s8, u8u8 and s8s8 share a
    search, the others are each searched separately.
    With `max_drop` (a share, 0 to 1), layers stay in fp32, the most harmful first, until at most that share of the
    validation images is lost against fp32.

    `weights_key` and `calibration_key` identify what `build` and `load` return. Raises `UsageError` if `max_drop`
    cannot be met, `BackendError` if ONNX Runtime is not installed.
    """
    tools = [metadata.version(name) for name in ("torch", "onnx", "onnxruntime")]
    # u8u8 and s8s8 quantize the same layers to 8 bits as u8s8, and share its search.
    searched: Dialect = dialect if dialect in ("u8s8p", "u8s7", "u8s8f", "s8s8f") else "u8s8"
    key = content_key(spec, weights_key, calibration_key, searched, max_drop, tools, _SEARCH_VERSION)
    graph = cache.root() / "quantized" / f"{key}.onnx"
    path = graph.with_suffix(".json")
    if not (graph.exists() and path.exists()):
        best, info = _search(spec, build(), load(), searched, max_drop, on_progress)
        import onnx

        with cache.atomic(graph) as temporary:
            onnx.save(best.graph, temporary)
        with cache.atomic(path) as temporary:
            temporary.write_bytes(msgspec.json.encode(_Record(dict(best.ranges), info)))
    record = msgspec.json.decode(path.read_bytes(), type=_Record)
    return Quantization(graph, record.ranges, record.info)


@dataclass(frozen=True, slots=True)
class _Trial:
    """One method, applied to the network and evaluated."""

    network: nn.Module  # made from a graph (`graphs.fx`)
    fp32_graph: onnx.ModelProto  # of `network`
    graph: onnx.ModelProto  # to quantize: `fp32_graph`, or that with corrected parameters
    ranges: Mapping[str, Range]
    candidate: Candidate


def _search(
    spec: ModelSpec,
    module: nn.Module,
    data: Calibration,
    dialect: Dialect,
    max_drop: float | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> tuple[_Trial, QuantizationInfo]:
    """Try every method and return the best trial with a record of all."""
    import torch

    from mbbench.compress.equalize import equalize, scalable_pairs
    from mbbench.graphs.fx import to_module
    from mbbench.graphs.onnx import to_onnx
    from mbbench.models import fold_batch_norm

    exported = to_onnx(fold_batch_norm(module), spec.resolution)
    plain = to_module(exported)
    networks: dict[bool, tuple[nn.Module, onnx.ModelProto]] = {False: (plain, exported)}
    if pairs := scalable_pairs(exported):
        equalized_network = equalize(plain, pairs, torch.from_numpy(data.images))
        networks[True] = equalized_network, with_parameters(exported, equalized_network)
    evaluate = _Evaluator(data, dialect, calibrate.logits(exported, data.validation_images))
    total = len(networks) * (len(_RANGE_METHODS) + 1)
    trials: list[_Trial] = []

    def run_trial(
        network: nn.Module,
        fp32_graph: onnx.ModelProto,
        graph: onnx.ModelProto,
        ranges: Mapping[RangeMethod, Mapping[str, Range]],
        method: RangeMethod,
        *,
        equalized: bool,
        corrected: bool,
    ) -> _Trial:
        if on_progress is not None:
            on_progress("choosing the quantization method", len(trials), total)
        share, error = evaluate(graph, ranges[method])
        candidate = Candidate(ranges=method, equalized=equalized, corrected=corrected, share=share, logit_rmse=error)
        trials.append(_Trial(network, fp32_graph, graph, ranges[method], candidate))
        return trials[-1]

    fp32_nodes = quantize.fp32_nodes(exported, dialect)
    for equalized, (network, fp32_graph) in networks.items():
        statistics = calibrate.statistics(fp32_graph, data.images)
        ranges = {method: calibrate.ranges(statistics, method) for method in _RANGE_METHODS}
        uncorrected = [
            run_trial(network, fp32_graph, fp32_graph, ranges, method, equalized=equalized, corrected=False)
            for method in _RANGE_METHODS
        ]
        best = _best(uncorrected)
        graph = _corrected_graph(best, data, dialect, fp32_nodes)
        run_trial(network, fp32_graph, graph, ranges, best.candidate.ranges, equalized=equalized, corrected=True)
    best = _best(trials)
    kept = fp32_nodes
    if max_drop is not None and best.candidate.share < evaluate.fp32_share - max_drop:
        best, kept = _keep_layers_in_fp32(best, evaluate, fp32_nodes, max_drop, on_progress)
    return best, QuantizationInfo(
        calibration=data.source,
        calibration_fingerprint=data.fingerprint,
        images=len(data.images),
        held_out=len(data.validation_images),
        judged_by="agreement" if data.validation_labels is None else "top1",
        chosen=best.candidate,
        candidates=tuple(trial.candidate for trial in trials),
        kept_fp32=kept,
    )


def _corrected_graph(trial: _Trial, data: Calibration, dialect: Dialect, keep_fp32: Collection[str]) -> onnx.ModelProto:
    """Return the trial's graph with weights and biases corrected for a graph whose nodes `keep_fp32` stay in fp32."""
    import torch

    from mbbench.compress.correct import correct
    from mbbench.models.graph_cost import count_graph

    inputs = {layer: trial.ranges[name] for layer, name in quantize.layer_inputs(trial.fp32_graph).items()}
    fitting = _CORRECTION_BYTES // count_graph(trial.fp32_graph).activation_peak_bytes
    images = torch.from_numpy(data.images[: min(_CORRECTION_IMAGES, max(_MIN_CORRECTION_IMAGES, fitting))])
    corrected = correct(trial.network, inputs, images, quantize.weight_quant_max(dialect), keep_fp32)
    return with_parameters(trial.fp32_graph, corrected)


@dataclass(frozen=True, slots=True)
class _Evaluator:
    """Compares a quantized graph on the validation images with their labels, or with fp32 where they have none."""

    data: Calibration
    dialect: Dialect
    fp32_logits: NDArray[np.float32]  # of the validation images

    def __call__(
        self,
        graph: onnx.ModelProto,
        ranges: Mapping[str, Range],
        keep_fp32: Collection[str] = (),
        images: int | None = None,
    ) -> tuple[float, float]:
        """Return the share of correct images and the root mean square error of the logits, on the first `images`."""
        import numpy as np

        written = quantize.write(graph, ranges, self.dialect, keep_fp32=keep_fp32)
        logits = calibrate.logits(written, self.data.validation_images[:images])
        error = float(np.sqrt(np.mean((logits - self.fp32_logits[:images]) ** 2)))
        return self._share(logits), error if math.isfinite(error) else _UNKNOWN_ERROR

    @property
    def fp32_share(self) -> float:
        """The share of correct images in fp32."""
        return self._share(self.fp32_logits)

    def _share(self, logits: NDArray[np.float32]) -> float:
        labels = self.data.validation_labels
        truth = self.fp32_logits.argmax(axis=1) if labels is None else labels
        return float((logits.argmax(axis=1) == truth[: len(logits)]).mean())


def _best(trials: Sequence[_Trial]) -> _Trial:
    """Return the trial with the most correct images among those whose error is about the smallest."""
    limit = min(trial.candidate.logit_rmse for trial in trials) * (1 + _ALIKE)
    alike = [trial for trial in trials if trial.candidate.logit_rmse <= limit]
    return max(alike, key=lambda trial: (trial.candidate.share, -trial.candidate.logit_rmse))


def _keep_layers_in_fp32(
    trial: _Trial,
    evaluate: _Evaluator,
    fp32_nodes: Collection[str],
    max_drop: float,
    on_progress: Callable[[str, int, int], None] | None,
) -> tuple[_Trial, tuple[str, ...]]:
    """Keep layers in fp32, in order of the error they cause, until `max_drop` is met; return the trial and the nodes.

    The error comes mostly from tensors that 8 bits round too coarsely. Such a tensor stays in floating point only if
    both its producer and its consumer do, so pairs of layers are ranked and kept. `fp32_nodes` stay in fp32 anyway.
    Raises `UsageError` if `max_drop` cannot be met.
    """
    fp32_graph = trial.fp32_graph  # not the corrected graph: its biases offset the error of 8 bits
    kept = dict.fromkeys(fp32_nodes)
    pairs = [pair for pair in quantize.layer_pairs(fp32_graph) if not kept.keys() >= set(pair)]
    errors = []
    for done, pair in enumerate(pairs):
        if on_progress is not None:
            on_progress("ranking layers by quantization error", done, len(pairs))
        errors.append(evaluate(fp32_graph, trial.ranges, pair, _RANKING_IMAGES)[1])
    for index in sorted(range(len(pairs)), key=errors.__getitem__):
        kept |= dict.fromkeys(pairs[index])
        graph = fp32_graph
        if trial.candidate.corrected:
            graph = _corrected_graph(trial, evaluate.data, evaluate.dialect, kept)
        share, error = evaluate(graph, trial.ranges, kept)
        if share >= evaluate.fp32_share - max_drop:
            candidate = replace(trial.candidate, share=share, logit_rmse=error)
            return replace(trial, graph=graph, candidate=candidate), tuple(kept)
    raise UsageError(
        f"even with every layer in fp32, top-1 drops by more than {max_drop * 100:g} points", "raise --max-drop"
    )
