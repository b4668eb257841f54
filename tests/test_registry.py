from collections.abc import Mapping
from importlib import metadata

import pytest

from mbbench import registry
from mbbench.backend import Backend
from mbbench.errors import BackendError
from mbbench.testing import FakeBackend


def test_the_projects_own_backends_are_found_without_being_imported() -> None:
    assert {"torch", "torch-eager", "onnxruntime", "openvino", "tensorrt"} <= set(registry.names())


def test_loading_gives_a_backend() -> None:
    assert isinstance(registry.load("onnxruntime"), Backend)


def test_an_unknown_name_lists_the_installed() -> None:
    with pytest.raises(BackendError, match=r"there is no backend 'tensorflow'; installed are: .*onnxruntime.*torch"):
        registry.load("tensorflow")


def test_an_uninstalled_backend_of_the_project_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", lambda **_: ())
    with pytest.raises(BackendError) as caught:
        registry.load("torch-eager")
    assert caught.value.cause == "backend torch-eager is not installed"
    assert caught.value.remedy == "run `pip install -e backends/torch` in mbbench's checkout; installed are: none"


def test_a_backend_describes_itself() -> None:
    found = registry.describe("onnxruntime")
    assert found.error is None
    assert found.versions == {"onnxruntime": metadata.version("onnxruntime")}
    assert list(found.devices) == ["cpu"]
    assert found.precisions == {"cpu": ["fp32", "int8"]}


def test_a_backend_without_a_device_still_tells_its_version_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_broken_third_party_backend_is_named(name: str, cause: str) -> None:
    with pytest.raises(BackendError) as caught:
        registry.load(name)
    assert caught.value.cause.startswith(cause)
    assert caught.value.exit_code == 6
