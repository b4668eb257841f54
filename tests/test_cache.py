from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mbbench import cache
from mbbench.errors import UsageError


def test_root_prefers_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("MBBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.root() == Path("/home/someone/.cache/mbbench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.root() == Path("/xdg/mbbench")
    monkeypatch.setenv("MBBENCH_CACHE", "/own")
    assert cache.root() == Path("/own")


def test_atomic_replaces_the_file_and_makes_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in ("first", "second"):
        with cache.atomic(path) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        with cache.atomic(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path, failure: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(failure), cache.atomic(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UsageError) as caught, cache.atomic(path) as temporary:
        temporary.write_text("some")
        Path("/dev/full").write_text("the kernel answers ENOSPC")
    assert str(caught.value) == f"the disk is full: cannot write {path}; free space, or set MBBENCH_CACHE"
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    said = r"^cannot write .*/file \(Read-only file system\); .*MBBENCH_CACHE$"
    with pytest.raises(UsageError, match=said), cache.atomic(tmp_path / "file"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_cache_folder_that_is_a_file(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    said = r"^cannot write .*blocked/data/file \(Not a directory\)"
    with pytest.raises(UsageError, match=said), cache.atomic(blocked / "data" / "file"):
        pytest.fail("nothing can be written here")


def test_remember_makes_once_and_mends_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    made: list[int] = []

    def make() -> list[int]:
        made.append(1)
        return [1, 2]

    assert cache.remember(path, list[int], make) == [1, 2]
    assert cache.remember(path, list[int], make) == [1, 2]
    assert len(made) == 1
    for damage in (b"", b"[1, 2", b'{"other": 1}', b"\xff"):
        path.write_bytes(damage)
        assert cache.remember(path, list[int], make) == [1, 2]
        assert path.read_bytes() == b"[1,2]"
    assert len(made) == 5
