import gc
import gzip
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


def test_appended_results_are_read_back_in_order(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    written = [make_result(backend=name) for name in ("openvino", "torch")]
    for result in written:
        store.append(path, result)
    assert store.read(path) == written
    assert len(path.read_bytes().splitlines()) == 2


def test_gzip_is_read_but_not_appended_to(tmp_path: Path, make_result: Make) -> None:
    plain, packed = tmp_path / "results.jsonl", tmp_path / "results.jsonl.gz"
    store.append(plain, make_result())
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert store.read(packed) == store.read(plain)
    with pytest.raises(UsageError, match=r"cannot append to a gzip file: .*results.jsonl.gz; choose another file"):
        store.require_writable(packed)


def test_damaged_gzip_is_reported_in_one_line(tmp_path: Path, make_result: Make) -> None:
    packed = tmp_path / "results.jsonl.gz"
    content = gzip.compress(msgspec.json.encode(make_result()))
    for damaged in (content[: len(content) // 2], content[:20] + b"x" * 50 + content[70:], content[:-8] + b"y" * 8):
        packed.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"^cannot (read|unpack) .*results.jsonl.gz \([^\n]*\); "):
            store.read(packed)


def test_samples_can_be_left_out(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    result = make_result(backend='"samples_ms":[1]')  # a string that looks like samples
    latency = result.measured.latency
    assert latency is not None and len(latency.samples_ms) == 700
    store.append(path, result)
    (stored,) = store.read(path, samples=False)
    assert stored == replace(result, measured=replace(result.measured, latency=replace(latency, samples_ms=())))
    assert gc.isenabled()


def test_a_line_cut_short_by_a_crash_is_skipped(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    store.append(path, make_result(backend="first"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    store.append(path, make_result(backend="second"))
    assert [result.cell.backend for result in store.read(path)] == ["first", "second"]


@pytest.mark.parametrize("cut", range(0, 2000, 97))
def test_the_lines_before_a_cut_are_read(tmp_path: Path, make_result: Make, cut: int) -> None:
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


def test_on_a_full_disk_the_result_is_written_to_the_temporary_folder(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        store.append(Path("/dev/full"), make_result(backend="rescued"))
    assert caught.value.cause == "cannot write /dev/full (No space left on device)"
    rescued = tmp_path / "mbbench-rescued.jsonl"
    assert caught.value.remedy == f"free space or fix the file, then append {rescued} to it"
    assert [result.cell.backend for result in store.read(rescued)] == ["rescued"]


def test_a_partially_written_line_is_removed(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.jsonl"
    store.append(path, make_result(backend="first"))
    before = path.read_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[: len(line) // 2]))
    with pytest.raises(UsageError, match=r"No space left on device.*; free space, and keep the report"):
        store.append(path, make_result(backend="second"))
    assert path.read_bytes() == before


def test_append_returns_after_the_line_is_on_disk(
    tmp_path: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    store.append(tmp_path / "results.jsonl", make_result())
    assert synced == [(tmp_path / "results.jsonl").stat().st_size]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        store.require_writable(tmp_path / "results.jsonl")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*reports/results.jsonl .*--results"):
        store.require_writable(tmp_path / "reports" / "results.jsonl")


def test_require_writable_creates_the_folder(tmp_path: Path) -> None:
    store.require_writable(tmp_path / "a" / "b" / "results.jsonl")
    assert (tmp_path / "a" / "b").is_dir()


def test_another_schema_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(msgspec.json.encode({"schema": 2}))
    with pytest.raises(UsageError, match="line 1 has schema 2, but this version of mbbench reads 1"):
        store.read(path)


def test_a_line_of_json_that_is_not_a_result_is_refused_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"schema": 1, "id": 3}\n')
    with pytest.raises(UsageError, match=r"line 1 is not a result"):
        store.read(path)


def test_a_missing_file_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        store.read(tmp_path / "none.jsonl")
