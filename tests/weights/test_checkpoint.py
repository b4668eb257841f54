from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mbbench.errors import UsageError
from mbbench.weights import checkpoint

STATE = {"features.weight": torch.arange(6.0).reshape(2, 3), "classifier.weight": torch.ones(7, 2)}


class RunsCode:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def header(content: object, rest: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + rest


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    checkpoint.save(path, STATE, {"spec": "{}"})
    assert same(checkpoint.load(path))
    assert checkpoint.is_whole(path)
    assert checkpoint.classes_in(path) == 7
    assert list(path.parent.iterdir()) == [path]


def test_other_memory_layouts_are_saved_alike(tmp_path: Path) -> None:
    kernel = torch.randn(4, 3, 3, 3)
    checkpoint.save(tmp_path / "a.safetensors", {"k": kernel}, {})
    checkpoint.save(tmp_path / "b.safetensors", {"k": kernel.to(memory_format=torch.channels_last)}, {})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_nested_or_not(tmp_path: Path, nest: str | None, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    content = STATE if nest is None else {"epoch": 3, "optimizer": {"lr": [0.1]}, nest: STATE}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert same(checkpoint.load(path))
    assert checkpoint.classes_in(path) == 7


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "nested"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, how: str, suffix: str) -> None:
    path, trace = tmp_path / f"x{suffix}", tmp_path / "the code ran"
    match how:
        case "zip":
            torch.save({**STATE, "extra": RunsCode(trace)}, path)
        case "nested":
            torch.save({"state_dict": STATE, "args": RunsCode(trace)}, path)
        case "legacy":
            torch.save(RunsCode(trace), path, _use_new_zipfile_serialization=False)
        case "pickle":
            path.write_bytes(pickle.dumps(RunsCode(trace), protocol=2))
    for read in (checkpoint.load, checkpoint.classes_in):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert str(caught.value) == (
            f"refused {path}: it pickles more than plain tensors, which could run code;"
            " give a .safetensors file, or a .pt or .pth file of plain tensors"
        )
    assert not trace.exists()
    torch_default = pickle.loads(pickle.dumps(RunsCode(trace)))
    assert torch_default is None
    assert trace.exists()  # the trap works


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"whole{suffix}"
    if suffix == ".pt":
        torch.save(STATE, whole)
    else:
        checkpoint.save(whole, STATE, {})
    (tmp_path / f"empty{suffix}").touch()
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"text{suffix}").write_text("hello world, this is no checkpoint")
    for keep in (1, 10, 60, whole.stat().st_size // 2, whole.stat().st_size - 1):
        (tmp_path / f"keep{keep}{suffix}").write_bytes(whole.read_bytes()[:keep])
    whole.unlink()
    bad = [*sorted(tmp_path.iterdir()), tmp_path / f"missing{suffix}"]
    assert len(bad) == 9
    for path in bad:
        for read in (checkpoint.load, checkpoint.classes_in):
            with warnings.catch_warnings(), pytest.raises(UsageError) as caught:
                warnings.simplefilter("error")
                read(path)
            assert str(path) in caught.value.cause
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        header(b"[[["),
        header(b'{"a":' + b"[" * 200_000),
        header(b"\xff\xff"),
        header([]),
        header({}),
        header({"a": 1}),
        header({"a": {"data_offsets": [0, 0]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, bytes(4)),
        header({"a": {"dtype": "nonsense", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        header({"__metadata__": {"a": "b"}}),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_hostile_headers(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.safetensors"):
        checkpoint.load(path)
    with pytest.raises(UsageError, match=r"x\.safetensors"):
        checkpoint.classes_in(path)


def test_is_whole_tells_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert not checkpoint.is_whole(path)
    checkpoint.save(path, STATE, {})
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"\0", content[:50], b""):
        path.write_bytes(damaged)
        assert not checkpoint.is_whole(path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {}, torch.ones(2), {"state_dict": {}}, {"a": 1}])
def test_no_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"x\.pt holds no state dict"):
        checkpoint.load(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["classifier.weight", "classifier.6.weight", "fc.weight"])
def test_the_classifiers_rows_are_the_classes(tmp_path: Path, name: str) -> None:
    checkpoint.save(tmp_path / "x.safetensors", {"other.weight": torch.ones(5, 5), name: torch.ones(3, 4)}, {})
    assert checkpoint.classes_in(tmp_path / "x.safetensors") == 3


def test_an_unknown_classifier(tmp_path: Path) -> None:
    for state in ({"head.weight": torch.ones(3, 4)}, {"fc.weight": torch.ones(3, 4, 1, 1)}):
        checkpoint.save(tmp_path / "x.safetensors", state, {})
        with pytest.raises(UsageError, match="no classifier that mbbench knows"):
            checkpoint.classes_in(tmp_path / "x.safetensors")


def test_a_disk_that_is_full_is_one_line(tmp_path: Path) -> None:
    """The child may write files of 1000 bytes at most, so the kernel refuses the rest."""
    code = (
        "import resource, sys, torch; from pathlib import Path; from mbbench.weights import checkpoint;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "checkpoint.save(Path(sys.argv[1]), {'a': torch.zeros(5000)}, {})"
    )
    path = tmp_path / "x.safetensors"
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert child.stderr.splitlines()[-1] == (
        f"mbbench.errors.UsageError: cannot write {path} (File too large); fix it, or set MBBENCH_CACHE"
    )
    assert list(tmp_path.iterdir()) == []
