"""Theoretical cost of a network at batch 1 in fp32: Mult-Adds, parameters, weight bytes and the activation peak.

Mult-Adds are counted as in the MobileNet paper (Tables 2 and 4 to 9): only convolutions and fully connected layers
count, and a multiplication with its addition counts as one. `weights` are what the paper calls parameters: kernels only
(the 1.32 M of its Table 9 and the shares of its Table 2 are reproduced only this way). `parameters` are what a
checkpoint holds: `weights`, biases, and the scale and shift of batch norm, which count toward their convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module

from mbbench.families import FAMILIES
from mbbench.result import CostInfo
from mbbench.spec import ModelSpec

FP32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """Cost of one convolution or fully connected layer."""

    name: str
    type: str  # as in the paper: Conv 1x1, Conv DW 3x3, Conv 3x3, Fully connected
    output_shape: tuple[int, ...]  # without the batch dimension
    mult_adds: int
    weights: int
    parameters: int
    inputs: int  # number of elements of the input activation, without the batch dimension


@dataclass(frozen=True, slots=True)
class TypeShare:
    """One row of the paper's Table 2. Shares are between 0 and 1."""

    type: str
    mult_adds: int
    mult_adds_share: float
    weights: int
    weights_share: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a network, by layer and in total."""

    layers: tuple[Layer, ...]
    activation_peak_bytes: int
    other_parameters: int = 0  # learned, but of no layer: batch norm that follows no convolution, for example

    @property
    def mult_adds(self) -> int:
        return sum(layer.mult_adds for layer in self.layers)

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers) + self.other_parameters

    @property
    def weight_bytes(self) -> int:
        return self.parameters * FP32_BYTES

    @property
    def info(self) -> CostInfo:
        """The totals, as a result records them."""
        return CostInfo(
            mult_adds=self.mult_adds,
            parameters=self.parameters,
            weight_bytes=self.weight_bytes,
            activation_peak_bytes=self.activation_peak_bytes,
        )

    def by_type(self) -> tuple[TypeShare, ...]:
        """Return the Mult-Adds and weights of each layer type, the type with the most Mult-Adds first."""
        totals: dict[str, tuple[int, int]] = {}
        for layer in self.layers:
            mult_adds, weights = totals.get(layer.type, (0, 0))
            totals[layer.type] = (mult_adds + layer.mult_adds, weights + layer.weights)
        rows = [
            TypeShare(name, mult_adds, mult_adds / self.mult_adds, weights, weights / self.weights)
            for name, (mult_adds, weights) in totals.items()
        ]
        return tuple(sorted(rows, key=lambda row: -row.mult_adds))


@cache
def cost_of(spec: ModelSpec) -> Cost:
    """Return the cost of the network that `spec` describes, from its family's table or its ONNX file; no PyTorch."""
    if spec.is_file:
        from mbbench.models import files

        return files.cost(spec)
    from mbbench.models.trace import Trace

    net = Trace(spec.size)
    import_module(f"mbbench.models.{FAMILIES[spec.family].module}").trace(spec, net)
    return net.cost
