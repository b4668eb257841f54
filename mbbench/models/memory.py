"""The least memory that a network needs, by arithmetic on its cost: nothing is allocated.

A runtime that computes the images of a call together needs no less.
"""

from __future__ import annotations

from math import prod

from mbbench.models.cost import FP32_BYTES, cost_of
from mbbench.spec import ModelSpec, Precision

_NARROWER: dict[Precision, int] = {"fp32": 1, "bf16": 2, "fp16": 2, "int8": 4}  # than fp32
_KEPT = 2  # activations of a layer that training keeps: before and after batch norm


def image_bytes(model: ModelSpec) -> int:
    """Return the size of one image as the network's input, in fp32 as every runtime gets it."""
    return 3 * prod(model.size) * FP32_BYTES


def activation_bytes(model: ModelSpec, precision: Precision = "fp32") -> int:
    """Return the activations that inference on one image holds at once."""
    return cost_of(model).activation_peak_bytes // _NARROWER[precision]


def weight_bytes(model: ModelSpec, precision: Precision = "fp32") -> int:
    """Return the weights that a session holds."""
    return cost_of(model).weight_bytes // _NARROWER[precision]


def training_bytes(model: ModelSpec, batch: int) -> int:
    """Return the activations that a training step of MobileNetV1 on `batch` images keeps for its gradients."""
    return batch * _KEPT * FP32_BYTES * sum(prod(layer.output_shape) for layer in cost_of(model).layers)
