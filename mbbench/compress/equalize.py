"""Cross-layer equalization under ReLU6: scale every channel to fill the range that its tensor's single scale covers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

_CEILING = 6.0  # of ReLU6
_MARGIN = 1.1  # headroom above the largest activation seen
_MAX_SCALE = 32.0
_BATCH = 16


def equalize(module: nn.Module, pairs: Sequence[tuple[str, str]], images: Tensor) -> nn.Module:
    """Return a copy of a module with the same logits and the first layer of each pair scaled up to ReLU6's ceiling.

    Nagel et al. 2019 (arXiv 1906.04721, section 4.1) scale the weights that produce a channel, divide the weights that
    consume it, and replace ReLU6 by ReLU. ReLU6 stays here: on the published ImageNet checkpoint, ReLU alone leaves
    33 % top-1 agreement. Instead, channels that `images` (N, 3, H, W) never drive to the ceiling are scaled up until
    they nearly reach it. Only layers before depthwise layers take part (`scalable_pairs`): both have one weight scale
    per output channel, so that scaling costs their weights no precision.
    """
    import copy

    import torch

    equalized = copy.deepcopy(module).eval()
    peaks: dict[str, Tensor] = {}

    def record_peak(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            peak = output.amax(dim=(0, 2, 3)).clamp(0.0, _CEILING)
            peaks[name] = torch.maximum(peaks.get(name, peak), peak)

        return hook

    handles = [
        equalized.get_submodule(name).register_forward_hook(record_peak(name))  # type: ignore[arg-type]
        for name, _ in pairs
    ]
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            equalized(images[start : start + _BATCH])
        for handle in handles:
            handle.remove()
        for name, following in pairs:
            scale = (_CEILING / (peaks[name] * _MARGIN).clamp(min=1e-6)).clamp(1.0, _MAX_SCALE)
            equalized.get_parameter(f"{name}.weight").mul_(scale[:, None, None, None])
            equalized.get_parameter(f"{name}.bias").mul_(scale)
            equalized.get_parameter(f"{following}.weight").div_(scale[:, None, None, None])
    return equalized


def scalable_pairs(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return the convolutions of an fp32 graph whose output passes only ReLU6 and a depthwise convolution, with it."""
    import onnx

    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = Counter(name for node in model.graph.node for name in node.input)
    consumers = {node.input[0]: node for node in model.graph.node if node.input}
    pairs = []
    for layer in model.graph.node:
        clip = consumers.get(layer.output[0])
        following = None if clip is None else consumers.get(clip.output[0])
        if layer.op_type != "Conv" or clip is None or clip.op_type != "Clip" or following is None:
            continue
        limits = [float(onnx.numpy_helper.to_array(arrays[name])) for name in clip.input[1:] if name in arrays]
        weights = arrays.get(following.input[1]) if following.op_type == "Conv" else None
        if (
            limits == [0.0, _CEILING]
            and weights is not None
            and weights.dims[1] == 1  # depthwise: each output channel reads one input channel
            and weights.dims[0] == arrays[layer.input[1]].dims[0] > 1
            and readers[layer.output[0]] == readers[clip.output[0]] == 1
        ):
            pairs.append((layer.name, following.name))
    return pairs
