"""Cached engines and kernels are executable code: a changed file is never returned."""

from pathlib import Path

import pytest
from mbbench_tensorrt.cache import path_of, recall, recall_or_make, store


def test_stored_content_is_returned_and_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "tensorrt" / "key.engine"
    assert recall_or_make(path, lambda: b"engine") == (b"engine", True)
    assert recall_or_make(path, lambda: pytest.fail("made again")) == (b"engine", False)


@pytest.mark.parametrize("changed", ["key.engine", "key.engine.sha256"])
def test_a_changed_entry_is_made_again(tmp_path: Path, changed: str) -> None:
    path = tmp_path / "key.engine"
    store(path, b"engine")
    (tmp_path / changed).write_bytes(b"malicious")
    assert recall(path) is None
    assert recall_or_make(path, lambda: b"engine") == (b"engine", True)
    assert recall(path) == b"engine"


def test_a_file_without_a_digest_is_not_returned(tmp_path: Path) -> None:
    path = tmp_path / "key.engine"
    path.write_bytes(b"engine")
    assert recall(path) is None


def test_entries_are_in_mbbenchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MBBENCH_CACHE", str(tmp_path))
    assert path_of("key", "kernels") == tmp_path / "tensorrt" / "key.kernels"
