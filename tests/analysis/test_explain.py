"""Explanations of the speed of a lower precision."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.analysis.explain import explain
from mbbench.models.cost import cost_of
from mbbench.result import ExecutedInfo, PrecisionShare, Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


@pytest.fixture
def fp32_and_int8(make_result: Make) -> tuple[Result, Result]:
    fp32, int8 = make_result(), make_result(scale=0.5)
    shares = (
        PrecisionShare(precision="int8", mult_adds_share=0.75, layers=27),
        PrecisionShare(precision="fp32", mult_adds_share=0.25, layers=1),
    )
    executed = ExecutedInfo(shares=shares, fp32_layers=("stem.conv",), moves=3)
    assert int8.artifact is not None
    artifact = replace(int8.artifact, dialect="u8s8")
    return fp32, replace(int8, cell=replace(int8.cell, precision="int8"), executed=executed, artifact=artifact)


def test_an_explanation_covers_instructions_fallback_moves_and_depthwise_layers(
    fp32_and_int8: tuple[Result, Result],
) -> None:
    explanation = explain(*fp32_and_int8, cost_of(ModelSpec(alpha=1.0, resolution=224)))
    assert explanation.ratio == pytest.approx(0.5)
    assert explanation.reasons == (
        "the CPU has int8 multiply-add instructions (AVX512_VNNI)",
        "the artifact's Q/DQ dialect is u8s8",
        "executed Mult-Adds: 75.0 % in int8 (27 layers), 25.0 % in fp32 (1 layer)",
        "layers left in fp32: stem.conv",
        "nodes that only convert or reorder tensors: 3 (+3 compared with fp32)",
        "depthwise layers have only 3.1 % of the Mult-Adds but move as much data as the other layers: memory bandwidth"
        " limits them, and a narrower type speeds them up only by moving less",
    )


def test_missing_instructions_are_named(fp32_and_int8: tuple[Result, Result]) -> None:
    fp32, int8 = (replace(r, machine=replace(r.machine, isa=("avx2",))) for r in fp32_and_int8)
    assert explain(fp32, int8, cost_of(ModelSpec())).reasons[0] == (
        "the CPU has no int8 multiply-add instructions (AVX512_VNNI, AVX_VNNI, AMX_INT8, ASIMDDP, I8MM): int8 takes"
        " several instructions instead of one"
    )
