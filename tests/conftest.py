import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from mbbench.doctor import Check
from mbbench.machine import Machine
from mbbench.measure.latency import latency_figures
from mbbench.result import (
    Accuracy,
    ArtifactInfo,
    ColdStart,
    CostInfo,
    DataInfo,
    Measured,
    Memory,
    Parity,
    Phase,
    Result,
    Throughput,
    Top1Drop,
    WarmUp,
    WeightsInfo,
)
from mbbench.spec import Cell, ModelSpec, Settings
from mbbench.stats import Interval

_MODEL = ModelSpec(alpha=0.5, resolution=128, classes=10)
_MEMORY: dict[Phase, int] = {
    "start": 30_000_000,
    "import": 70_000_000,
    "load": 80_000_000,
    "compile": 120_000_000,
    "first_inference": 121_000_000,
    "steady": 125_000_000,
}
FAULTY = Path(__file__).parent / "faulty"
_ROOT = Path(__file__).parent.parent
_THREADS = torch.get_num_threads()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="rewrite the golden files")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare an output with a file of tests/golden, or with a path relative to the repository's root."""

    def check(text: str, name: str) -> None:
        path = _ROOT / (name if "/" in name else f"tests/golden/{name}")
        if request.config.getoption("--golden"):
            path.write_text(text)
        assert text == path.read_text()

    return check


@pytest.fixture
def all_threads() -> Iterator[None]:
    """Run PyTorch on as many threads as in a new process: some tests leave it with one, which changes last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use one cache for all tests, never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture
def faulty_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the distribution in tests/faulty, here and in child processes."""
    monkeypatch.syspath_prepend(str(FAULTY))
    monkeypatch.setenv("PYTHONPATH", str(FAULTY), prepend=os.pathsep)


@pytest.fixture(scope="session")
def make_result() -> Callable[..., Result]:
    """Return a function that makes a complete result with round figures; keyword arguments replace its fields."""
    return _make_result


def _make_result(
    model: ModelSpec | None = None,
    role: Literal["subject", "baseline"] = "subject",
    backend: str = "openvino",
    scale: float = 1.0,
    **fields: Any,
) -> Result:
    cost = CostInfo(
        mult_adds=round(49e6 * scale),
        parameters=round(1.3e6 * scale),
        weight_bytes=round(5.2e6 * scale),
        activation_peak_bytes=786_432,
    )
    random = role == "baseline"
    samples = tuple(scale * (0.5 + 0.001 * (i % 10)) for i in range(700))
    latency, reasons = latency_figures(
        [round(sample * 1e6) for sample in samples], batch=1, warmed=WarmUp(runs=30, seconds=0.02, steady=True)
    )
    top1 = None if random else 0.99
    interval = None if random else Interval(0.97, 0.997)
    measured = Measured(
        effective={"precision": "f32", "threads": "1", "streams": "1", "cpus": "1"},
        parity=Parity(images=16, max_abs_error=1e-5, tolerance=0.01, passed=True),
        cold=ColdStart(import_s=0.05, load_s=0.02, compile_s=0.08, first_inference_ms=2.5),
        latency=latency,
        throughput=Throughput(batch=16, images=3200, seconds=2.0, images_per_s=1600.0 / scale),
        memory=tuple(Memory(phase=phase, rss_bytes=size, peak_rss_bytes=size) for phase, size in _MEMORY.items()),
        accuracy=Accuracy(
            images=359,
            top1=top1,
            top1_ci95=interval,
            top5=None if random else 1.0,
            top5_ci95=None if random else Interval(0.99, 1.0),
            agreement=1.0,
            agreement_ci95=Interval(0.989, 1.0),
            max_abs_logit_error=1.1e-5,
            mean_abs_logit_error=1.6e-6,
            drop=None
            if random
            else Top1Drop(
                share=0.0,
                ci95=Interval(-0.005, 0.005),
                only_reference_right=0,
                only_this_right=0,
                p_value=1.0,
                worst_class=0,
                worst_class_share=0.0,
            ),
        ),
    )
    if random:
        reasons |= dict.fromkeys(("accuracy.top1", "accuracy.top5"), "random weights have no accuracy")
    defaults: dict[str, Any] = {
        "schema": 1,
        "id": "0123456789abcdef",
        "time_utc": "2026-01-02T03:04:05+00:00",
        "cell": Cell(
            model=model or _MODEL, role=role, weights="random" if random else None, backend=backend, device=""
        ),
        "settings": Settings(),
        "versions": {"mbbench": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0", "openvino": "2026.4.1"},
        "machine": Machine(
            cpu="Test CPU",
            architecture="x86_64",
            isa=("avx2", "avx512f", "avx512_vnni"),
            physical_cores=2,
            logical_cores=4,
            memory_bytes=16 * 2**30,
            cgroup_cpu_quota=None,
            hypervisor=None,
            gpus=(),
            os="Linux",
            kernel="6.1",
            python="3.11.7",
        ),
        "conditions": (
            Check(name="load", status="warn", found="other processes use 0.50 of 4 cores", remedy="stop x"),
        ),
        "weights": WeightsInfo(origin="random" if random else "trained", key="aa", trained_on=None if random else "bb"),
        "data": DataInfo(name="digits", images=359, classes=10, fingerprint="cc", preprocess="dd"),
        "cost": cost,
        "artifact": ArtifactInfo(
            format="onnx", dialect="fp32", size_bytes=round(5.3e6 * scale), sha256="ee", max_abs_error=1e-6
        ),
        "quantization": None,
        "executed": None,
        "measured": measured,
        "failure": None,
        "reasons": reasons,
    }
    return Result(**(defaults | fields))
