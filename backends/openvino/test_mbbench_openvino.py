import subprocess
import sys

from mbbench.backend import Session, Stage
from mbbench.testing import BackendContract


class TestOpenVino(BackendContract):
    name = "openvino"

    def test_an_fp32_model_runs_in_fp32_even_where_the_cpu_has_bf16(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[0].facts["precision"] == "f32"

    def test_threads_and_streams_are_the_runtimes_own_word(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[0].facts["threads"] == "1"
        assert opened[0].facts["streams"] == "1"


def test_the_telemetry_client_is_never_imported() -> None:
    code = (
        "import sys; from mbbench_openvino import OpenVinoBackend; OpenVinoBackend().devices();"
        "assert sys.modules['openvino_telemetry'] is None;"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
