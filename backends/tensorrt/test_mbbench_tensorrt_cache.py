"""Engines and kernels that are kept are code: what was changed since is not given back."""

from pathlib import Path

import pytest
from mbbench_tensorrt.cache import path_of, recall, recall_or, store


def test_what_is_stored_comes_back_and_nothing_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "tensorrt" / "key.engine"
    assert recall_or(path, lambda: b"engine") == (b"engine", True)
    assert recall_or(path, lambda: pytest.fail("made again")) == (b"engine", False)


@pytest.mark.parametrize("changed", ["key.engine", "key.engine.sha256"])
def test_what_was_changed_since_is_made_anew(tmp_path: Path, changed: str) -> None:
    path = tmp_path / "key.engine"
    store(path, b"engine")
    (tmp_path / changed).write_bytes(b"malicious")
    assert recall(path) is None
    assert recall_or(path, lambda: b"engine") == (b"engine", True)
    assert recall(path) == b"engine"


def test_what_has_no_digest_beside_it_was_not_stored_here(tmp_path: Path) -> None:
    path = tmp_path / "key.engine"
    path.write_bytes(b"engine")
    assert recall(path) is None


def test_it_lies_in_the_tools_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    assert path_of("key", "kernels") == tmp_path / "tensorrt" / "key.kernels"
