from mbbench_onnxruntime import OnnxRuntimeBackend

from mbbench.testing import BackendContract


class TestOnnxRuntime(BackendContract):
    name = "onnxruntime"


def test_the_cpu_is_its_one_device() -> None:
    assert list(OnnxRuntimeBackend().devices()) == ["cpu"]
