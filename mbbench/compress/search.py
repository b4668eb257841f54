"""Post-training quantization of a network by the method that measures best on images held out from calibration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mbbench import cache
from mbbench.backend import Dialect
from mbbench.compress import calibrate, quantize
from mbbench.compress.calibrate import Range, Ranging
from mbbench.data.feed import to_float
from mbbench.errors import UsageError
from mbbench.graphs.onnx import with_parameters
from mbbench.models import Normalization
from mbbench.result import Candidate, QuantizationInfo
from mbbench.spec import ModelSpec, content_key

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from torch import nn

_QUANTIZER = 2  # raise it when other files come of the same input
_RANGINGS: tuple[Ranging, ...] = ("minmax", "percentile", "mse")
IMAGES = 256  # to calibrate with
HELD_OUT = 256  # to choose the method by
_SEED = 20170417
_NOISE = 32  # images of noise, for either
_RANKING = 64  # images that the layers' harm is ranked by
_CORRECTING = 64  # images; what correcting errors holds in memory at once


@dataclass(frozen=True, slots=True)
class Calibration:
    """Normalized images to calibrate with, and others, held out, to choose by, whose labels are `labels` (M,)."""

    images: NDArray[np.float32]  # (N, 3, H, W)
    held_out: NDArray[np.float32]  # (M, 3, H, W)
    labels: NDArray[np.int64] | None
    source: str
    fingerprint: str


def calibration(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    normalization: Normalization,
    source: str,
    fingerprint: str,
    *,
    labelled: bool,
) -> Calibration:
    """A seeded half of `images` (N, R, R, 3), up to `IMAGES`, to calibrate with, and of the rest up to `HELD_OUT`.

    `labelled` says whether `labels` (N,) mean the network's classes. Raises `UsageError` for fewer than two images.
    """
    import numpy as np

    if len(images) < 2:
        raise UsageError(f"{source} has {len(images)} image to calibrate with", "give --calibration with at least 2")
    order = np.random.default_rng(_SEED).permutation(len(images))
    count = min(len(images) // 2, IMAGES)
    own, rest = np.sort(order[:count]), np.sort(order[count : count + HELD_OUT])
    return Calibration(
        to_float(images[own], normalization),
        to_float(images[rest], normalization),
        labels[rest] if labelled else None,
        source,
        fingerprint,
    )


def random_calibration(resolution: int) -> Calibration:
    """Uniform noise: what must never be used for accuracy, for whoever has no images and wants speed alone."""
    import numpy as np

    noise = np.random.default_rng(_SEED).uniform(-1, 1, (2 * _NOISE, 3, resolution, resolution)).astype(np.float32)
    return Calibration(noise[:_NOISE], noise[_NOISE:], None, "random", "random")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network ready to be written in any dialect: its fp32 graph, and the ranges of its activations."""

    graph: Path
    ranges: Mapping[str, Range]
    info: QuantizationInfo

    def write(self, dialect: Dialect) -> onnx.ModelProto:
        import onnx

        return quantize.write(onnx.load(self.graph), self.ranges, dialect, keep=self.info.kept_fp32)


class _Record(msgspec.Struct, frozen=True):
    ranges: dict[str, Range]
    info: QuantizationInfo


def prepare(
    spec: ModelSpec,
    weights_key: str,
    build: Callable[[], nn.Module],
    load: Callable[[], Calibration],
    calibration_key: str,
    *,
    dialect: Dialect = "u8s8",
    max_drop: float | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Prepared:
    """Find the best of the methods, or what was found before.

    Each way of choosing ranges is tried on the network as it is and equalized, and the best of each with errors
    corrected. The winner has the most right answers on the images held out (without labels: the most answers equal to
    fp32's), and of several the least squared error of the logits. `dialect` is what will be written. `max_drop` (a
    share, 0 to 1) lets layers stay in fp32, the most harmful first, until no more than that share of the answers is
    lost on the held-out images.
    """
    tools = [metadata.version(name) for name in ("torch", "onnx", "onnxruntime")]
    searched: Dialect = dialect if dialect in ("u8s7", "u8s8f", "s8s8f") else "u8s8"  # the others have u8s8's weights
    key = content_key(spec, weights_key, calibration_key, searched, max_drop, tools, _QUANTIZER)
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
    return Prepared(graph, record.ranges, record.info)


@dataclass(frozen=True, slots=True)
class _Method:
    """A folded network and its fp32 graph, the graph to quantize, its activations' ranges, and how well it answers."""

    network: nn.Module
    plain: onnx.ModelProto
    graph: onnx.ModelProto
    ranges: Mapping[str, Range]
    candidate: Candidate


def _search(
    spec: ModelSpec,
    module: nn.Module,
    data: Calibration,
    dialect: Dialect,
    max_drop: float | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> tuple[_Method, QuantizationInfo]:
    import torch

    from mbbench.compress.equalize import conv_blocks, equalize
    from mbbench.graphs.onnx import to_onnx
    from mbbench.models import fold_batch_norm

    judge = _Judge(data, dialect)
    folded = fold_batch_norm(module)
    exported = to_onnx(folded, spec.resolution)
    networks = {False: (folded, exported)}
    if conv_blocks(folded):
        equal = equalize(folded, torch.from_numpy(data.images))
        networks[True] = equal, with_parameters(exported, equal)
    judge.reference = calibrate.logits(exported, data.held_out)
    total = len(networks) * (len(_RANGINGS) + 1)
    methods: list[_Method] = []

    def add(
        network: nn.Module,
        plain: onnx.ModelProto,
        graph: onnx.ModelProto,
        ranges: Mapping[Ranging, Mapping[str, Range]],
        how: Ranging,
        *,
        equalized: bool,
        corrected: bool,
    ) -> _Method:
        if on_progress is not None:
            on_progress("choosing how to quantize", len(methods), total)
        share, error = judge(graph, ranges[how])
        candidate = Candidate(ranges=how, equalized=equalized, corrected=corrected, share=share, logit_rmse=error)
        methods.append(_Method(network, plain, graph, ranges[how], candidate))
        return methods[-1]

    floats = quantize.floats(exported, dialect)
    for equalized, (network, plain) in networks.items():
        found = calibrate.statistics(plain, data.images)
        ranges = {how: calibrate.ranges(found, how) for how in _RANGINGS}
        own = [add(network, plain, plain, ranges, how, equalized=equalized, corrected=False) for how in _RANGINGS]
        best = max(own, key=_rank)
        corrected = _corrected(best, data, dialect, floats)
        add(network, plain, corrected, ranges, best.candidate.ranges, equalized=equalized, corrected=True)
    best = max(methods, key=_rank)
    kept = floats
    if max_drop is not None and best.candidate.share < judge.fp32 - max_drop:
        best, kept = _keep(best, judge, floats, max_drop, on_progress)
    return best, QuantizationInfo(
        calibration=data.source,
        calibration_fingerprint=data.fingerprint,
        images=len(data.images),
        held_out=len(data.held_out),
        judged_by="agreement" if data.labels is None else "top1",
        chosen=best.candidate,
        candidates=tuple(method.candidate for method in methods),
        kept_fp32=kept,
    )


def _corrected(method: _Method, data: Calibration, dialect: Dialect, keep: Collection[str]) -> onnx.ModelProto:
    """The method's graph with corrected weights and biases, when the nodes in `keep` are not quantized."""
    import torch

    from mbbench.compress.correct import correct

    inputs = {layer: method.ranges[name] for layer, name in quantize.inputs(method.plain).items()}
    images = torch.from_numpy(data.images[:_CORRECTING])
    largest = quantize.largest_weight(dialect)
    return with_parameters(method.plain, correct(method.network, inputs, images, largest, keep))


class _Judge:
    """Holds a quantized graph's answers on the held-out images against the labels, or else against fp32's."""

    def __init__(self, data: Calibration, dialect: Dialect) -> None:
        self.data, self.dialect = data, dialect
        self.reference: NDArray[np.float32]

    def __call__(
        self, graph: onnx.ModelProto, ranges: Mapping[str, Range], keep: Collection[str] = (), images: int | None = None
    ) -> tuple[float, float]:
        """The share of right answers, and the root of the mean squared error of the logits, on the first `images`."""
        import numpy as np

        written = quantize.write(graph, ranges, self.dialect, keep=keep)
        logits = calibrate.logits(written, self.data.held_out[:images])
        error = float(np.sqrt(np.mean((logits - self.reference[:images]) ** 2)))
        return self._share(logits), error

    @property
    def fp32(self) -> float:
        return self._share(self.reference)

    def _share(self, logits: NDArray[np.float32]) -> float:
        truth = self.reference.argmax(axis=1) if self.data.labels is None else self.data.labels
        return float((logits.argmax(axis=1) == truth[: len(logits)]).mean())


def _rank(method: _Method) -> tuple[float, float]:
    return method.candidate.share, -method.candidate.logit_rmse


def _keep(
    method: _Method,
    judge: _Judge,
    floats: Collection[str],
    max_drop: float,
    on_progress: Callable[[str, int, int], None] | None,
) -> tuple[_Method, tuple[str, ...]]:
    """The method with the fewest layers in fp32 beside `floats`, by their harm, that holds `max_drop`; and all of them.

    What harms is mostly a tensor that 8 bits round too coarsely, and it stays in floats only if the layer that makes it
    and the layer that takes it both do: such pairs are ranked and kept.
    """
    plain = method.plain  # not the corrected graph: its biases are right for 8 bits alone
    kept = dict.fromkeys(floats)
    units = [unit for unit in quantize.pairs(plain) if not kept.keys() >= set(unit)]
    errors = []
    for done, unit in enumerate(units):
        if on_progress is not None:
            on_progress("ranking the layers by their harm", done, len(units))
        errors.append(judge(plain, method.ranges, unit, _RANKING)[1])
    for index in sorted(range(len(units)), key=errors.__getitem__):
        kept |= dict.fromkeys(units[index])
        graph = plain
        if method.candidate.corrected:
            graph = _corrected(method, judge.data, judge.dialect, kept)
        share, error = judge(graph, method.ranges, kept)
        if share >= judge.fp32 - max_drop:
            candidate = replace(method.candidate, share=share, logit_rmse=error)
            return replace(method, graph=graph, candidate=candidate), tuple(kept)
    raise UsageError(
        f"even with every layer in fp32 the top-1 drop exceeds {max_drop * 100:g} points", "raise --max-drop"
    )
