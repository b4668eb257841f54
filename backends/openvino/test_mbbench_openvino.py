import subprocess
import sys

from mbbench_openvino import _single_calls

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


def test_single_calls_come_back_from_the_mean_that_the_counters_tell() -> None:
    """A cold call of 900 us, then 300, 302, 298, 300 and one that lost its core."""
    totals = [900, 1200, 1502, 1800, 2100, 6400]
    means = [total // calls for calls, total in enumerate(totals, 1)]
    assert means == [900, 600, 500, 450, 420, 1066]
    assert _single_calls(means) == [301.0, 301.0, 301.0, 301.0, 4297.0]


def test_no_call_is_shorter_than_half_of_what_the_counters_tell() -> None:
    assert _single_calls([4, 1, 0]) == [0.5, 0.5]
