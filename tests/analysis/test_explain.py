from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.analysis.explain import explain, pairs
from mbbench.models.cost import cost_of
from mbbench.result import ExecutedInfo, PrecisionShare, Result
from mbbench.spec import ModelSpec

Make = Callable[..., Result]


@pytest.fixture
def measured(make_result: Make) -> tuple[Result, Result]:
    reference, other = make_result(), make_result(scale=0.5)
    everything = PrecisionShare(precision="int8", mult_adds_share=0.75, layers=27)
    rest = PrecisionShare(precision="fp32", mult_adds_share=0.25, layers=1)
    executed = ExecutedInfo(shares=(everything, rest), fp32_layers=("stem.conv",), moves=3)
    assert other.artifact is not None
    artifact = replace(other.artifact, dialect="u8s8")
    return reference, replace(other, cell=replace(other.cell, precision="int8"), executed=executed, artifact=artifact)


def test_an_explanation_tells_instructions_fallbacks_moves_and_depthwise(measured: tuple[Result, Result]) -> None:
    cost = cost_of(ModelSpec(alpha=1.0, resolution=224))
    found = explain(*measured, cost)
    assert found.ratio == pytest.approx(0.5)
    assert found.reasons == (
        "the CPU multiplies int8 natively (AVX512_VNNI)",
        "the file's Q/DQ dialect is u8s8",
        "Mult-Adds executed: 75.0% in int8 (27 layers), 25.0% in fp32 (1 layers)",
        "left in fp32: stem.conv",
        "nodes that only convert or reorder tensors: 3 (+3 against fp32)",
        "depthwise layers hold 3.1% of Mult-Adds, yet read and write as much as the others: memory binds them, and"
        " narrower types help them only as it shrinks",
    )


def test_a_chip_without_the_instructions_is_named(measured: tuple[Result, Result]) -> None:
    reference, other = (replace(r, machine=replace(r.machine, isa=("avx2",))) for r in measured)
    first = explain(reference, other, cost_of(ModelSpec())).reasons[0]
    assert first == (
        "the CPU has none of AVX512_VNNI, AVX_VNNI, AMX_INT8, ASIMDDP, I8MM: int8 takes several instructions where one"
        " of these would do"
    )


def test_pairs_are_the_newest_of_one_cell(measured: tuple[Result, Result], make_result: Make) -> None:
    reference, other = measured
    old = replace(reference, id="old")
    assert list(pairs([old, other, reference, make_result(backend="onnxruntime")])) == [(reference, other)]
    assert list(pairs([other])) == []
