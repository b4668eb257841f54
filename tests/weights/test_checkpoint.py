from __future__ import annotations

import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from mbbench.errors import UsageError
from mbbench.models import build
from mbbench.spec import FAMILIES, ModelSpec
from mbbench.weights import checkpoint

STATE = {"features.weight": torch.arange(6.0).reshape(2, 3), "classifier.weight": torch.ones(7, 2)}


class RunsCode:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def encode(content: object, rest: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text + rest


def read_classes(path: Path) -> int:
    return checkpoint.read_classes(path, "mobilenet_v1")


def equals_state(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


def test_a_saved_checkpoint_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.safetensors"
    checkpoint.save(path, STATE, {"spec": "{}"})
    assert equals_state(checkpoint.read_state(path))
    assert checkpoint.is_intact(path)
    assert read_classes(path) == 7
    assert list(path.parent.iterdir()) == [path]


def test_the_file_does_not_depend_on_the_memory_layout(tmp_path: Path) -> None:
    kernel = torch.randn(4, 3, 3, 3)
    checkpoint.save(tmp_path / "a.safetensors", {"k": kernel}, {})
    checkpoint.save(tmp_path / "b.safetensors", {"k": kernel.to(memory_format=torch.channels_last)}, {})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read(tmp_path: Path, key: str | None, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    content = STATE if key is None else {"epoch": 3, "optimizer": {"lr": [0.1]}, key: STATE}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert equals_state(checkpoint.read_state(path))
    assert read_classes(path) == 7


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle", "nested"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, layout: str, suffix: str) -> None:
    path, trace = tmp_path / f"x{suffix}", tmp_path / "the code ran"
    match layout:
        case "zip":
            torch.save({**STATE, "extra": RunsCode(trace)}, path)
        case "nested":
            torch.save({"state_dict": STATE, "args": RunsCode(trace)}, path)
        case "legacy":
            torch.save(RunsCode(trace), path, _use_new_zipfile_serialization=False)
        case "pickle":
            path.write_bytes(pickle.dumps(RunsCode(trace), protocol=2))
    for read in (checkpoint.read_state, read_classes):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} pickles objects other than tensors, which could run code;"
            " give a .safetensors file, or a .pt or .pth file of plain tensors"
        )
    assert not trace.exists()
    assert pickle.loads(pickle.dumps(RunsCode(trace))) is None
    assert trace.exists()  # unpickling would have run the code


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_unreadable_file_gives_one_line_that_names_it(tmp_path: Path, suffix: str) -> None:
    intact = tmp_path / f"intact{suffix}"
    if suffix == ".pt":
        torch.save(STATE, intact)
    else:
        checkpoint.save(intact, STATE, {})
    (tmp_path / f"empty{suffix}").touch()
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"text{suffix}").write_text("hello world, this is not a checkpoint")
    for length in (1, 10, 60, intact.stat().st_size // 2, intact.stat().st_size - 1):
        (tmp_path / f"{length}{suffix}").write_bytes(intact.read_bytes()[:length])
    intact.unlink()
    bad = [*sorted(tmp_path.iterdir()), tmp_path / f"missing{suffix}"]
    assert len(bad) == 9
    for path in bad:
        for read in (checkpoint.read_state, read_classes):
            with warnings.catch_warnings(), pytest.raises(UsageError) as caught:
                warnings.simplefilter("error")
                read(path)
            assert str(path) in caught.value.cause
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        encode(b"[[["),
        encode(b'{"a":' + b"[" * 200_000),
        encode(b"\xff\xff"),
        encode([]),
        encode({}),
        encode({"a": 1}),
        encode({"a": {"data_offsets": [0, 0]}}),
        encode({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}, bytes(4)),
        encode({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4)),
        encode({"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}, bytes(4)),
        encode({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, bytes(4)),
        encode({"a": {"dtype": "nonsense", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        encode({"__metadata__": {"a": "b"}}),
        (2**63).to_bytes(8, "little") + b"{}",
    ],
)
def test_an_invalid_header_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.safetensors"):
        checkpoint.read_state(path)
    with pytest.raises(UsageError, match=r"x\.safetensors"):
        read_classes(path)


def test_is_intact_is_false_for_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    assert not checkpoint.is_intact(path)
    checkpoint.save(path, STATE, {})
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"\0", content[:50], b""):
        path.write_bytes(damaged)
        assert not checkpoint.is_intact(path)


@pytest.mark.parametrize("content", [[torch.ones(2)], {}, torch.ones(2), {"state_dict": {}}, {"a": 1}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"x\.pt has no state dict"):
        checkpoint.read_state(tmp_path / "x.pt")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_number_of_classes_is_that_of_the_classifiers_rows(tmp_path: Path, family: str) -> None:
    network = build(ModelSpec(family, resolution=96, classes=3))
    checkpoint.save(tmp_path / "x.safetensors", network.state_dict(), {})
    assert checkpoint.read_classes(tmp_path / "x.safetensors", family) == 3


def test_a_missing_classifier_is_refused(tmp_path: Path) -> None:
    for state in ({"fc.weight": torch.ones(3, 4)}, {"classifier.weight": torch.ones(3)}):
        checkpoint.save(tmp_path / "x.safetensors", state, {})
        with pytest.raises(UsageError, match="has no classifier layer of a known name"):
            read_classes(tmp_path / "x.safetensors")
