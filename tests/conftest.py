from collections.abc import Iterator
from pathlib import Path

import pytest

FAULTY = Path(__file__).parent / "faulty"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the whole run, never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MBBENCH_CACHE", str(folder))
        yield folder


@pytest.fixture
def faulty_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the distribution in tests/faulty, here and in child processes."""
    monkeypatch.syspath_prepend(str(FAULTY))
    monkeypatch.setenv("PYTHONPATH", str(FAULTY))
