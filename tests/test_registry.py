import pytest

from mbbench import registry
from mbbench.backend import Backend
from mbbench.errors import BackendError


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
    assert caught.value.remedy == "run `pip install mbbench-torch`; installed are: none"


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
