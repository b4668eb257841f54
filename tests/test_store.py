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

from mbbench import cache, store
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


@pytest.mark.parametrize("end", [b'"schema":1', b'"latency":{"median_ms":2.', b'"top1":tru', b"{"])
def test_a_line_cut_short_by_a_crash_is_skipped(tmp_path: Path, make_result: Make, end: bytes) -> None:
    path = tmp_path / "results.jsonl"
    store.append(path, make_result(backend="first"))
    whole = path.read_bytes()
    path.write_bytes(whole + (end if end == b"{" else b"{" + end))
    store.append(path, make_result(backend="second"))
    notes: list[str] = []
    assert [result.cell.backend for result in store.read(path, notes.append)] == ["first", "second"]
    assert notes == [f"{path} line 2 is left out: it was cut short"]


def test_a_file_whose_only_line_was_cut_short_holds_no_result_yet(tmp_path: Path, make_result: Make) -> None:
    path, notes = tmp_path / "results.jsonl", list[str]()
    path.write_bytes(msgspec.json.encode(make_result())[:-9])
    assert store.read(path, notes.append) == []
    assert notes == [f"{path} line 1 is left out: it was cut short"]


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


def test_nothing_is_created_before_the_first_result(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "a" / "b" / "results.jsonl"
    store.require_writable(path)
    assert list(tmp_path.iterdir()) == []
    store.append(path, make_result())
    assert store.read(path) == [make_result()]


def test_a_file_that_can_be_appended_to_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("x")
    store.require_writable(path)
    assert path.read_text() == "x"


def test_a_folder_or_a_pipe_is_no_results_file(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.jsonl")
    for path, reason in ((tmp_path, "it is a folder, not a file"), (pipe, "it is a FIFO, not a file")):
        with pytest.raises(UsageError, match=rf"^cannot write {path} \({reason}\); choose another file"):
            store.require_writable(path)
        with pytest.raises(UsageError, match=rf"^cannot read {path} \({reason}\); name a file"):
            store.read(path)
    with pytest.raises(UsageError, match=r"^cannot read /dev/zero \(it is a device, not a file\)"):
        store.read(Path("/dev/zero"))


def test_a_missing_file_has_no_results_where_that_is_no_error(tmp_path: Path) -> None:
    assert store.load(tmp_path / "none.jsonl", missing_ok=True).results() == []


def test_a_byte_order_mark_is_no_damage(tmp_path: Path, make_result: Make) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + msgspec.json.encode(make_result()))
    assert store.read(path) == [make_result()]


def change(result: Result, name: str, value: object) -> bytes:
    """Return the record with the value of the dotted `name` replaced."""
    record = msgspec.to_builtins(result)
    *parents, last = name.split(".")
    place = record
    for parent in parents:
        place = place[parent]
    assert last in place
    place[last] = value
    return msgspec.json.encode(record)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("schema", 2, "it has schema 2, but this version of mbbench reads 1"),
        ("id", 3, "id: expected `str`, got `int`"),
        ("time_utc", "2026-13-02T03:04:05+00:00", "time_utc: expected `str` matching regex"),
        ("cell.model.family", "zzz", "unknown model: 'zzz'"),
        ("cell.model", {"family": "timm:resnet18"}, "cell.model.family: unknown: 'timm:resnet18'"),
        ("cell.precision", "fp8", "cell.precision: invalid enum value 'fp8'"),
        ("cell.backend", "x" * 2000, "cell.backend: expected `str` of length <= 1024"),
        ("settings.threads", 0, "--threads is out of range: 0"),
        ("settings.threads", 10**400, "settings.threads: expected `int` <= 1000000000"),
        ("artifact.format", "../x", "artifact.format: expected `str` matching regex"),
        ("measured.latency.samples_ms", [], "measured.latency: n is 700, but there are 0 samples"),
        ("measured.latency.samples_ms", [0.5] * 699, "measured.latency: n is 700, but there are 699 samples"),
        ("measured.latency.samples_ms", [*[0.5] * 699, -1], "measured.latency.samples_ms[699]: expected `float` >= "),
        ("measured.latency.n", 0, "measured.latency.n: expected `int` >= 1"),
        ("measured.latency.median_ms", -0.5, "measured.latency.median_ms: expected `float` >= 1e-09"),
        ("measured.latency.median_ms", float("nan"), "measured.latency.median_ms: expected `float`, got `null`"),
        ("measured.latency.median_ms", 7.5, "measured.latency: its figures are not in order"),
        ("measured.latency.median_ci95_ms", {"low": 2, "high": 1}, "measured.latency: its figures are not in order"),
        ("measured.accuracy.top1", 1.5, "measured.accuracy.top1: expected `float` <= 1.0"),
        ("measured.accuracy.images", 0, "measured.accuracy.images: expected `int` >= 1"),
        ("measured.accuracy.drop.only_this_right", 10**9, "measured.accuracy.drop: more answers than the 359 images"),
        ("measured.throughput.seconds", 0, "measured.throughput.seconds: expected `float` >= 1e-09"),
    ],
)  # fmt: skip
def test_an_impossible_record_is_left_out_with_its_line_and_the_reason(
    tmp_path: Path, make_result: Make, name: str, value: object, reason: str
) -> None:
    path, good = tmp_path / "results.jsonl", make_result()
    bad = change(good, name, value)
    path.write_bytes(b"%b\n%b\n%b\n" % (msgspec.json.encode(good), bad, msgspec.json.encode(good)))
    notes: list[str] = []
    assert store.read(path, notes.append) == [good, good]
    (note,) = notes
    assert note.startswith(f"{path} line 2 is left out: {reason}")
    path.write_bytes(bad)
    with pytest.raises(UsageError) as raised:
        store.read(path)
    assert raised.value.cause.startswith(f"{path} holds no result: line 1: {reason}")
    if "samples" not in name:
        with pytest.raises(UsageError, match="holds no result"):
            store.read(path, samples=False)


def test_a_record_without_samples_is_left_out_even_if_samples_are_not_read(tmp_path: Path, make_result: Make) -> None:
    path, good = tmp_path / "results.jsonl", make_result()
    path.write_bytes(change(good, "measured.latency.samples_ms", []) + b"\n" + msgspec.json.encode(good))
    notes: list[str] = []
    assert store.read(path, notes.append, samples=False) == [good]
    assert notes == [f"{path} line 1 is left out: measured.latency: n is 700, but there are 0 samples"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"schema": 1, "id": NaN}', "it is not JSON (invalid character (byte 20))"),
        (b'{"schema": 1, "id": "\xff"}', "it is not JSON ('utf-8' codec can't decode byte 0xff"),
        (b'{"x":' + b"[" * 100_000, "it is not JSON (maximum recursion depth exceeded"),
        (b"[]", "expected `object`, got `array`"),
        (b"\x00\x01", "it is not JSON (invalid character (byte 0))"),
    ],
)
def test_a_line_that_is_not_a_record_is_left_out(tmp_path: Path, make_result: Make, line: bytes, reason: str) -> None:
    path, good = tmp_path / "results.jsonl", msgspec.json.encode(make_result())
    path.write_bytes(b"%b\n\n%b\n" % (good, line))
    notes: list[str] = []
    assert len(store.read(path, notes.append)) == 1
    assert len(notes) == 1 and notes[0].startswith(f"{path} line 3 is left out: {reason}")


def test_notes_name_five_lines_and_count_the_others(tmp_path: Path, make_result: Make) -> None:
    path, good = tmp_path / "results.jsonl", msgspec.json.encode(make_result())
    damaged = {2, 3, 5, 7, 9, 11, 12, 13, 20}
    path.write_bytes(b"\n".join(b"{}" if number in damaged else good for number in range(1, 21)))
    notes: list[str] = []
    assert len(store.read(path, notes.append)) == 11
    reason = "it is no record of `mbbench run`"
    assert notes == [
        *(f"{path} line {number} is left out: {reason}" for number in (2, 3, 5, 7, 9)),
        f"4 more lines of {path} are left out: 11-13, 20",
    ]


def test_a_gzip_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_MAX_UNPACKED_BYTES", 1000)
    path = tmp_path / "results.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 1001))
    with pytest.raises(UsageError, match=r"^cannot read .*results.jsonl.gz \(.*more than 1 GiB\)"):
        store.read(path)


def test_a_missing_file_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        store.read(tmp_path / "none.jsonl")
