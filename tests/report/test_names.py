from collections.abc import Callable
from dataclasses import replace

import pytest

from mbbench.report.names import runtime_label
from mbbench.result import Result


@pytest.mark.parametrize(
    ("backend", "distribution"),
    [
        ("openvino", "openvino"),
        ("torch-eager", "torch"),
        ("litert", "ai-edge-litert"),
        ("tensorrt", "tensorrt-rtx-cu13"),
    ],
)
def test_a_runtime_label_has_its_version(make_result: Callable[..., Result], backend: str, distribution: str) -> None:
    result = make_result(backend=backend)
    versioned = replace(result, versions={"mbbench": "0.1.0", "numpy": "2.4.6", distribution: "1.2.3"})
    assert runtime_label(versioned) == f"{backend} 1.2.3"
