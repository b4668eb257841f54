import gc
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mbbench import store
from mbbench.errors import UsageError
from mbbench.result import Result

Make = Callable[..., Result]


def test_what_was_appended_is_read_back_in_order(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    written = [make_result(backend=name) for name in ("openvino", "torch")]
    for result in written:
        store.append(path, result)
    assert store.read(path) == written
    assert len(path.read_bytes().splitlines()) == 2


def test_samples_can_be_left_out(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    result = make_result(backend='"samples_ms":[1]')  # a name is not what it looks like
    latency = result.measured.latency
    assert latency is not None and len(latency.samples_ms) == 700
    store.append(path, result)
    (found,) = store.read(path, samples=False)
    assert found == replace(result, measured=replace(result.measured, latency=replace(latency, samples_ms=())))
    assert gc.isenabled()


def test_a_line_torn_by_a_crash_takes_nothing_with_it(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    store.append(path, make_result(backend="first"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    store.append(path, make_result(backend="second"))
    assert [result.cell.backend for result in store.read(path)] == ["first", "second"]


@pytest.mark.parametrize("cut", range(0, 2000, 97))
def test_any_cut_leaves_the_lines_before_it(tmp_path: Path, make_result: Make, cut: int) -> None:
    path = tmp_path / "results.jsonl"
    store.append(path, make_result(backend="first"))
    store.append(path, make_result(backend="second"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 1 - cut])
    assert [result.cell.backend for result in store.read(path)] == (["first", "second"] if cut == 0 else ["first"])


def test_concurrent_writers_do_not_mix_their_lines(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.append(path, make_result(backend=f"b{n}")), range(40)))
    assert sorted(r.cell.backend for r in store.read(path)) == sorted(f"b{n}" for n in range(40))


def test_a_full_disk_is_one_line_and_the_result_is_saved_elsewhere(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        store.append(Path("/dev/full"), make_result(backend="kept"))
    assert caught.value.cause == "cannot write /dev/full (No space left on device)"
    rescued = tmp_path / "mbbench-rescued.jsonl"
    assert caught.value.remedy == f"free space or fix it, then append {rescued} to it"
    assert [result.cell.backend for result in store.read(rescued)] == ["kept"]


def test_a_disk_that_takes_half_a_line_is_left_as_it_was(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.jsonl"
    store.append(path, make_result(backend="first"))
    before = path.read_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
    with pytest.raises(UsageError, match=r"No space left on device.*this result is only in the report"):
        store.append(path, make_result(backend="second"))
    assert path.read_bytes() == before


def test_a_line_is_on_the_disk_before_append_returns(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    store.append(tmp_path / "results.jsonl", make_result())
    assert synced == [(tmp_path / "results.jsonl").stat().st_size]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_found_before_anything_is_measured(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        store.require_writable(tmp_path / "results.jsonl")


def test_a_file_in_the_folders_place_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*reports/results.jsonl .*--results"):
        store.require_writable(tmp_path / "reports" / "results.jsonl")


def test_requiring_makes_the_folder(tmp_path: Path) -> None:
    store.require_writable(tmp_path / "a" / "b" / "results.jsonl")
    assert (tmp_path / "a" / "b").is_dir()


def test_another_schema_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(msgspec.json.encode({"schema": 2}))
    with pytest.raises(UsageError, match="line 1 has schema 2, this mbbench reads 1"):
        store.read(path)


def test_a_line_that_is_no_result_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"schema": 1, "id": 3}\n')
    with pytest.raises(UsageError, match=r"line 1 is no result"):
        store.read(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        store.read(tmp_path / "none.jsonl")
