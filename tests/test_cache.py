from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mbbench import cache
from mbbench.errors import UsageError


def test_root_prefers_mbbench_cache_to_xdg_cache_home_to_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("MBBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.root() == Path("/home/someone/.cache/mbbench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.root() == Path("/xdg/mbbench")
    monkeypatch.setenv("MBBENCH_CACHE", "/cache")
    assert cache.root() == Path("/cache")


def test_atomic_creates_the_folder_and_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in ("first", "second"):
        with cache.atomic(path) as temporary:
            temporary.write_text(content)
            assert temporary.parent == path.parent
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_open_reader_still_sees_the_old_file(tmp_path: Path) -> None:
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


def test_a_full_disk_is_reported_in_one_line_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UsageError) as caught, cache.atomic(path) as temporary:
        temporary.write_text("some")
        Path("/dev/full").write_text("the kernel answers ENOSPC")
    assert str(caught.value) == f"the disk is full: cannot write {path}; free space, or set MBBENCH_CACHE"
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_disk_is_reported(tmp_path: Path) -> None:
    message = r"^cannot write .*/file \(Read-only file system\); .*MBBENCH_CACHE$"
    with pytest.raises(UsageError, match=message), cache.atomic(tmp_path / "file"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_file_in_place_of_the_cache_folder_is_reported(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    message = r"^cannot write .*blocked/data/file \(Not a directory\)"
    with pytest.raises(UsageError, match=message), cache.atomic(blocked / "data" / "file"):
        pytest.fail("nothing can be written here")


def test_load_or_make_makes_once_and_replaces_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    calls = 0

    def make() -> list[int]:
        nonlocal calls
        calls += 1
        return [1, 2]

    assert cache.load_or_make(path, list[int], make) == [1, 2]
    assert cache.load_or_make(path, list[int], make) == [1, 2]
    assert calls == 1
    for damage in (b"", b"[1, 2", b'{"other": 1}', b"\xff"):
        path.write_bytes(damage)
        assert cache.load_or_make(path, list[int], make) == [1, 2]
        assert path.read_bytes() == b"[1,2]"
    assert calls == 5


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    os.mkfifo(path)
    for read in (cache.read_small, cache.sha256_of):
        with pytest.raises(OSError, match="it is a FIFO, not a file"):
            read(path)
    with pytest.raises(OSError, match="it is a device, not a file"):
        cache.read_small(Path("/dev/zero"))
    with pytest.raises(OSError, match="it is a folder, not a file"):
        cache.sha256_of(tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=f"it has {2**40} bytes, more than "):
        cache.read_small(path)
