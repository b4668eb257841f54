"""Comparison of int8 weights in PyTorch with ONNX Runtime on the same Q/DQ graph."""

import numpy as np
import torch
from mbbench_torch import quantized
from torch import nn

from mbbench.compress import calibrate, quantize
from mbbench.graphs.onnx import to_onnx
from mbbench.graphs.tensors import parameters
from mbbench.models import build, fold_batch_norm, randomize
from mbbench.spec import ModelSpec

SPEC = ModelSpec(alpha=0.25, resolution=32, classes=10)
LAYERS = 28


def _network() -> nn.Module:
    """Return a folded network whose batch norms had random statistics."""
    network = build(SPEC)
    randomize(network, seed=0)
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.2, 2.0, generator=generator)  # type: ignore[union-attr]
    return fold_batch_norm(network)


def test_pytorch_and_onnx_runtime_agree_on_the_same_int8_weights() -> None:
    images = torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    graph = to_onnx(_network(), SPEC.resolution)
    ranges = calibrate.ranges(calibrate.statistics(graph, images.numpy()), "minmax")
    quantized_graph = quantize.write(graph, ranges, "u8s8")
    network = fold_batch_norm(build(SPEC))
    state = {name: torch.from_numpy(value.copy()) for name, value in parameters(quantized_graph).items()}
    assert sum(name.endswith("weight_scale") for name in state) == LAYERS
    quantized.load(network, state)
    expected = calibrate.logits(quantized_graph, images.numpy())
    with torch.inference_mode():
        logits = network(images).numpy()
    assert np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    fp32 = calibrate.logits(graph, images.numpy())
    assert np.abs(logits - expected).mean() < 0.2 * np.abs(fp32 - expected).mean()
