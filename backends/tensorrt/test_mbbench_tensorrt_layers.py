"""The engine inspector's JSON: a sample in NVIDIA's documented format, with the names of an mbbench export."""

import json

import pytest
from mbbench_tensorrt.layers import executed, timed

from mbbench.analysis.executed import audit, describe_fallback, split_moves
from mbbench.backend import Executed, NodeTime
from mbbench.models.cost import cost_of
from mbbench.spec import ModelSpec

# Spelled as in TensorRT 10; the third layer as in TensorRT 11, the fourth as from TensorRT's own compiler.
SAMPLE = r"""
{
  "Layers": [
    {
      "Name": "images_QuantizeLinear",
      "LayerType": "Reformat",
      "Inputs": [
        {"Name": "images", "Dimensions": [1, 3, 64, 64], "Format/Datatype": "Row major linear FP32"}
      ],
      "Outputs": [{"Name": "images_q", "Dimensions": [1, 3, 64, 64], "Format/Datatype": "Row major Int8 format"}],
      "ParameterType": "Reformat",
      "Origin": "QDQ",
      "TacticValue": "0x00000000000003ea",
      "StreamId": 0,
      "Metadata": "[ONNX Layer: images_QuantizeLinear]"
    },
    {
      "Name": "stem.conv.weight_quantized + stem.conv + stem.act",
      "LayerType": "CaskConvolution",
      "Inputs": [
        {"Name": "images_q", "Dimensions": [1, 3, 64, 64], "Format/Datatype": "N/A due to dynamic shapes"}
      ],
      "Outputs": [
        {
          "Name": "stem.act",
          "Dimensions": [1, 8, 32, 32],
          "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"
        }
      ],
      "ParameterType": "Convolution",
      "Kernel": [3, 3],
      "Groups": 1,
      "Weights": {"Type": "Int8", "Count": 216},
      "Bias": {"Type": "Float", "Count": 8},
      "Activation": "CLIP",
      "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
      "Metadata": "[ONNX Layer: stem.conv.weight_DequantizeLinear]\u001e[ONNX Layer: stem.conv]"
    },
    {
      "Name": "blocks.0.0.conv",
      "LayerType": "CaskConvolution",
      "Inputs": [{"Name": "stem.act", "Dimensions": [1, 8, 32, 32], "Format": "kCHW2", "Datatype": "Half"}],
      "Outputs": [{"Name": "blocks.0.0.conv", "Dimensions": [1, 8, 32, 32], "Format": "kCHW2", "Datatype": "Half"}],
      "Metadata": "[ONNX Layer: blocks.0.0.conv]"
    },
    {
      "Name": "__myl_ReluConv_myl0_4",
      "LayerType": "kgen",
      "Inputs": [
        {"Name": "blocks.0.0.conv", "Dimensions": [1, 8, 32, 32], "Format/Datatype": "BFloat16"},
        {"Name": "blocks.0.1.conv.weight", "Dimensions": [16, 8, 1, 1], "Format/Datatype": "BFloat16"}
      ],
      "Outputs": [{"Name": "blocks.0.1.act", "Dimensions": [1, 16, 32, 32], "Format/Datatype": "BFloat16"}],
      "TacticName": "__myl_ReluConv_0x1234",
      "Metadata": "[ONNX Layer: blocks.0.0.act]\u001f[ONNX Layer: blocks.0.1.conv]\u001f[ONNX Layer: blocks.0.1.act]"
    },
    {
      "Name": "blocks.1.0.conv + blocks.1.0.act",
      "LayerType": "CaskConvolution",
      "Inputs": [{"Name": "blocks.0.1.act", "Format/Datatype": "N/A due to dynamic shapes"}],
      "Outputs": [],
      "Metadata": ""
    },
    "classifier"
  ],
  "Bindings": ["images", "logits"]
}
"""
STEM = "stem.conv.weight_quantized + stem.conv + stem.act"


def test_layers_have_their_onnx_nodes_types_and_precisions() -> None:
    assert list(executed(SAMPLE).values()) == [
        Executed(("images_QuantizeLinear",), "Reformat", "fp32"),
        Executed(("stem.conv.weight_DequantizeLinear", "stem.conv"), "CaskConvolution", "int8"),
        Executed(("blocks.0.0.conv",), "CaskConvolution", "fp16"),
        Executed(("blocks.0.0.act", "blocks.0.1.conv", "blocks.0.1.act"), "kgen", "bf16"),
        Executed(("blocks.1.0.conv", "blocks.1.0.act"), "CaskConvolution", "unknown"),
        Executed(("classifier",), "unknown", "unknown"),
    ]


def test_the_audit_matches_them_to_the_networks_layers() -> None:
    layers = [
        layer
        for layer in cost_of(ModelSpec(alpha=0.25, resolution=64, classes=10)).layers
        if layer.name in ("stem.conv", "blocks.0.0.conv", "blocks.0.1.conv", "blocks.1.0.conv", "classifier")
    ]
    nodes = tuple(executed(SAMPLE).values())
    info = audit(nodes, layers)
    assert {share.precision: share.layers for share in info.shares} == {"int8": 1, "fp16": 1, "bf16": 1, "unknown": 2}
    assert info.moves == 1
    assert describe_fallback(info, "int8", ()) is not None
    assert [node.type for node in split_moves(nodes)[0]] == ["Reformat"]


def test_an_engine_without_layer_information_has_no_layers() -> None:
    assert executed(json.dumps({"Layers": [], "I/O Tensors": []})) == {}
    assert executed("{}") == {}


def test_times_are_medians_without_the_first_call() -> None:
    readings = {STEM: [9.0, 0.5, 0.25, 0.75], "__myl_Move": [9.0, 0.125, 0.125, 0.125], "blocks.0.0.conv": [0.0] * 4}
    assert timed(readings, executed(SAMPLE)) == (
        NodeTime(("stem.conv.weight_DequantizeLinear", "stem.conv"), "CaskConvolution", "int8", 0.5),
        NodeTime((), "unknown", "unknown", 0.125),
    )


@pytest.mark.parametrize("readings", [{}, {"a layer of another engine": [1.0, 1.0]}])
def test_readings_without_a_layer_of_the_engine_give_no_times(readings: dict[str, list[float]]) -> None:
    assert timed(readings, executed(SAMPLE)) == ()
