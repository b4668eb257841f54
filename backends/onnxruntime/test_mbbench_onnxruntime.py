from pathlib import Path
from typing import Any

import pytest
from mbbench_onnxruntime import OnnxRuntimeBackend, _node_times

from mbbench.backend import Executed, LayerProfile, NodeTime, Session, Stage
from mbbench.testing import BackendContract

NODES = (
    Executed(("stem.act_nchwc", "images"), "Conv", "fp32"),
    Executed(("classifier", "x"), "QGemm", "int8"),
)


class TestOnnxRuntime(BackendContract):
    name = "onnxruntime"

    def test_a_profile_leaves_no_file_behind(
        self, opened: tuple[Session, list[Stage]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert isinstance(opened[0], LayerProfile)
        assert opened[0].profile(self._images(1), 1)
        assert list(tmp_path.iterdir()) == []


def event(name: str, dur: int) -> dict[str, Any]:
    return {"cat": "Node", "name": name, "dur": dur}


# One warm-up call, then three timed calls.
TRACE = [
    {"cat": "Session", "name": "model_run", "dur": 100},
    *(event("stem.act_nchwc_kernel_time", dur) for dur in (900, 20, 22, 21)),
    *(event("classifier_kernel_time", dur) for dur in (500, 4, 0, 0)),
]


def test_the_cpu_is_the_only_device() -> None:
    assert list(OnnxRuntimeBackend().devices()) == ["cpu"]


def test_node_times_are_medians_under_the_graphs_names() -> None:
    assert _node_times(TRACE, NODES, 3) == (
        NodeTime(("stem.act_nchwc", "images"), "Conv", "fp32", 0.0215),
        NodeTime(("classifier", "x"), "QGemm", "int8", 0.0005),
    )


@pytest.mark.parametrize("trace", [TRACE[:-1], [*TRACE, event("pool_kernel_time", 1)]])
def test_a_trace_with_missing_or_extra_events_gives_no_times(trace: list[dict[str, Any]]) -> None:
    assert _node_times(trace, NODES, 3) == ()
