import subprocess
import sys
from functools import partial

import numpy as np
from mbbench_openvino import OpenVinoBackend, _from_running_means
from numpy.typing import NDArray

from mbbench import weights
from mbbench.artifacts.export import export
from mbbench.backend import Session, Stage
from mbbench.spec import ModelSpec
from mbbench.testing import BackendContract


class TestOpenVino(BackendContract):
    name = "openvino"

    def test_an_fp32_model_runs_in_fp32_even_where_the_cpu_has_bf16(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[0].facts["precision"] == "f32"

    def test_threads_and_streams_are_as_reported_by_the_runtime(self, opened: tuple[Session, list[Stage]]) -> None:
        assert opened[0].facts["threads"] == "1"
        assert opened[0].facts["streams"] == "1"


def test_the_telemetry_client_is_never_imported() -> None:
    code = (
        "import sys; from mbbench_openvino import OpenVinoBackend; OpenVinoBackend().devices();"
        "assert sys.modules['openvino_telemetry'] is None;"
        "assert not any(name.startswith('openvino_telemetry.') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_call_times_are_recovered_from_running_means() -> None:
    """A cold call of 900 us, then 300, 302, 298, 300 and 4300 us (a preempted call)."""
    totals = [900, 1200, 1502, 1800, 2100, 6400]
    means = [total // calls for calls, total in enumerate(totals, 1)]
    assert means == [900, 600, 500, 450, 420, 1066]
    assert _from_running_means(means) == [301.0, 301.0, 301.0, 301.0, 4297.0]


def test_call_times_are_at_least_half_the_counters_resolution() -> None:
    assert _from_running_means([4, 1, 0]) == [0.5, 0.5]


def test_concurrent_requests_give_the_sessions_logits() -> None:
    spec = ModelSpec(alpha=0.25, resolution=32, classes=10)
    random_weights = weights.random(spec)
    backend = OpenVinoBackend()
    artifact = export(spec, random_weights.info.key, "onnx", random_weights.build).artifact(spec, 2)
    inputs = [np.random.default_rng(seed).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32) for seed in range(3)]
    results: dict[int, NDArray[np.float32]] = {}

    def keep(number: int, logits: NDArray[np.float32]) -> None:
        results[number] = logits.copy()

    with backend.open_requests(artifact, "CPU", threads=1, streams=1) as requests:
        assert (requests.facts["streams"], requests.facts["threads"], requests.facts["requests"]) == ("1", "1", "1")
        requests.submit(inputs[0])
        for number in (0, 1, 0, 2):
            requests.submit(inputs[number], partial(keep, number))
        requests.wait()
    with backend.open(artifact, "CPU", threads=1, stage=lambda _: None) as session:
        for number, logits in results.items():
            np.testing.assert_allclose(logits, session.run(inputs[number]), rtol=0, atol=1e-5)
    assert sorted(results) == [0, 1, 2]
