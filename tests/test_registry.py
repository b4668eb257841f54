from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from mbbench import registry
from mbbench.backend import Backend
from mbbench.errors import BackendError
from mbbench.testing import FakeBackend


def test_the_installed_backends_are_listed() -> None:
    assert {"torch", "torch-eager", "onnxruntime", "openvino", "tensorrt"} <= set(registry.names())


def test_load_returns_a_backend() -> None:
    assert isinstance(registry.load("onnxruntime"), Backend)


def test_an_unknown_backend_is_refused_with_the_list() -> None:
    with pytest.raises(
        BackendError, match=r"unknown backend: 'tensorflow'; choose an installed backend \(.*onnxruntime.*torch"
    ):
        registry.load("tensorflow")


def test_the_error_for_an_uninstalled_backend_of_the_repository_has_the_command_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_: ())
    with pytest.raises(BackendError) as caught:
        registry.load("torch-eager")
    assert caught.value.cause == "backend torch-eager is not installed"
    assert (
        caught.value.remedy
        == "run `pip install -e backends/torch` in mbbench's checkout, or choose another backend (none)"
    )
    monkeypatch.setattr(registry, "_CHECKOUT", tmp_path)
    assert registry.install_command("torch") == "`pip install 'mbbench[torch]'`"


def test_a_description_has_versions_devices_and_precisions() -> None:
    description = registry.describe("onnxruntime")
    assert description.error is None
    assert description.versions == {"onnxruntime": metadata.version("onnxruntime")}
    assert list(description.devices) == ["cpu"]
    assert description.precisions == {"cpu": ["fp32", "int8"]}


def test_the_description_of_a_backend_without_a_device_has_versions_and_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Missing(FakeBackend):
        def devices(self) -> Mapping[str, str]:
            raise BackendError("no GPU was found", "plug one in")

    monkeypatch.setattr(registry, "load", lambda name: Missing())
    expected = registry.Description(name="fake", versions={"fake": "1"}, error="no GPU was found; plug one in")
    assert registry.describe("fake") == expected


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("faulty-module", "backend faulty-module (mbbench_no_such_module:Backend) cannot be loaded: No module named"),
        ("faulty-class", "backend faulty-class (mbbench_faulty:NotABackend) is not an mbbench Backend"),
    ],
)
def test_a_broken_third_party_backend_is_reported_with_its_entry_point(name: str, cause: str) -> None:
    with pytest.raises(BackendError) as caught:
        registry.load(name)
    assert caught.value.cause.startswith(cause)
    assert caught.value.exit_code == 6


FAULTS = {
    "faulty-devices": "listing its devices: RuntimeError: cannot open the driver",
    "faulty-versions": "reading its versions: TypeError: the version is not a string",
}


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize("name", FAULTS)
def test_any_exception_of_a_runtime_is_a_backend_error_of_one_line(name: str) -> None:
    with pytest.raises(BackendError) as caught:
        registry.probe(name)
    assert caught.value.cause == f"backend {name} failed while {FAULTS[name]}"
    assert caught.value.remedy == "reinstall its runtime, or report this to its author"


@pytest.mark.usefixtures("faulty_backends")
@pytest.mark.parametrize("name", FAULTS)
def test_the_description_of_a_broken_runtime_has_its_error(name: str) -> None:
    description = registry.describe(name)
    assert description.error == (
        f"backend {name} failed while {FAULTS[name]}; reinstall its runtime, or report this to its author"
    )
    assert description.devices == {}
    assert description.versions == (registry.describe("onnxruntime").versions if name == "faulty-devices" else {})


@pytest.mark.usefixtures("faulty_backends")
def test_the_description_of_a_runtime_that_cannot_list_its_precisions_has_its_error() -> None:
    error = registry.describe("faulty-precisions").error
    assert error is not None
    assert error.startswith("backend faulty-precisions failed while listing its precisions: KeyError: 'cpu'; ")


def test_a_backend_error_of_a_runtime_keeps_its_cause_and_remedy() -> None:
    with pytest.raises(BackendError, match=r"^no GPU was found; plug one in$"), registry.guard("fake", "failing"):
        raise BackendError("no GPU was found", "plug one in")


def test_a_probe_has_versions_and_devices() -> None:
    probe = registry.probe("onnxruntime")
    assert probe.versions == {"onnxruntime": metadata.version("onnxruntime")}
    assert list(probe.devices) == ["cpu"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("onnx", "onnxruntime"), ("ort", "onnxruntime"), ("onnxrt", "onnxruntime"), ("opnvino", "openvino"),
        ("tflite", "litert"), ("pytorch", "torch"), ("trt", "tensorrt"), ("pte", "executorch"),
    ],
)  # fmt: skip
def test_the_backend_that_may_be_meant_is_suggested(name: str, meant: str) -> None:
    with pytest.raises(BackendError) as caught:
        registry.require_known(name)
    assert str(caught.value).startswith(
        f"unknown backend: '{name}'; did you mean {meant}? choose an installed backend ("
    )


def test_a_backend_of_the_repository_is_known_even_if_it_is_not_installed() -> None:
    for name in (*registry.names(), "executorch"):
        registry.require_known(name)
